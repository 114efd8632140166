"""Convolutions of 3x3 kernels by Winograd's F(4x4, 3x3): a quarter of the multiplications.

Lavin & Gray, "Fast algorithms for convolutional neural networks", arXiv 1509.09308. A tile of
6x6 inputs x gives 4x4 outputs y. With w the kernel and * element by element,

    y = A^T [(G w G^T) * (B^T x B)] A          summed over the channels,

and, since this is linear in w, dw = G^T [(B^T x B) * (A dy A^T)] G, summed over the tiles. Element
by element over the 36 places of a tile, the sums over channels or tiles are products of matrices.
"""

from __future__ import annotations

import numpy as np

from utils.compiled import compiled

Array = np.ndarray

TILE = 4
"""Rows and columns of outputs that a tile gives."""

B_TRANSPOSED = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
G = (
    np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float64)
    / 24.0
)
A_TRANSPOSED = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    np.float32,
)
A = np.zeros((6, 6), np.float32)
A[:, :TILE] = A_TRANSPOSED.T


@compiled
def mix(
    m: Array, d0: Array, d1: Array, d2: Array, d3: Array, d4: Array, d5: Array, out: Array
) -> None:
    """out = sum_j m_j d_j, for m (6,), rows d_j (K,) and out (K,)."""
    m0, m1, m2, m3, m4, m5 = m[0], m[1], m[2], m[3], m[4], m[5]
    for k in range(out.size):
        out[k] = m0 * d0[k] + m1 * d1[k] + m2 * d2[k] + m3 * d3[k] + m4 * d4[k] + m5 * d5[k]


@compiled
def tiles_of(m: Array, x: Array, top: int, left: int, tiles: Array) -> None:
    """Write m d m^T of the 6x6 inputs d of each tile; m is B^T, or A for maps without overlap.

    Args:
        m: (6, 6).
        x: (n, H, W, C) images; beyond their edges there are zeros.
        top: rows of zeros above.
        left: columns of zeros to the left.
        tiles: (6, 6, n, rows, columns * C).
    """
    n, height, width, channels = x.shape
    rows, size = tiles.shape[3], tiles.shape[4]
    phase = size + channels  # every fourth column lies side by side
    image = np.zeros((4 * rows + 2, 4 * phase), np.float32)
    mixed = np.empty((6, 4 * phase), np.float32)
    columns = min(width, phase // channels * 4 - left)
    for b in range(n):
        for r in range(min(height, 4 * rows + 2 - top)):
            for c in range(columns):
                start = (c + left) % 4 * phase + (c + left) // 4 * channels
                image[r + top, start : start + channels] = x[b, r, c]
        for row in range(rows):
            d = image[4 * row : 4 * row + 6]
            for i in range(6):
                mix(m[i], d[0], d[1], d[2], d[3], d[4], d[5], mixed[i])
            for i in range(6):
                d0 = mixed[i, :size]
                d1 = mixed[i, phase : phase + size]
                d2 = mixed[i, 2 * phase : 2 * phase + size]
                d3 = mixed[i, 3 * phase : 3 * phase + size]
                d4 = mixed[i, channels:phase]
                d5 = mixed[i, phase + channels : 2 * phase]
                for j in range(6):
                    mix(m[j], d0, d1, d2, d3, d4, d5, tiles[i, j, b, row])


@compiled
def maps_of(m: Array, tiles: Array, bias: Array, y: Array) -> None:
    """Write A^T t A, plus bias (C,), of the 6x6 places t of each tile into maps y.

    Args:
        m: A^T (4, 6).
        tiles: (6, 6, n, rows, columns * C).
        bias: (C,).
        y: (n, H, W, C).
    """
    n, height, width, channels = y.shape
    size = tiles.shape[4]
    mixed = np.empty((6, size), np.float32)
    line = np.empty((4, size), np.float32)
    for b in range(n):
        for r in range(height):
            row = r // 4
            for j in range(6):
                d0, d1 = tiles[0, j, b, row], tiles[1, j, b, row]
                d2, d3 = tiles[2, j, b, row], tiles[3, j, b, row]
                d4, d5 = tiles[4, j, b, row], tiles[5, j, b, row]
                mix(m[r % 4], d0, d1, d2, d3, d4, d5, mixed[j])
            d = mixed
            for j in range(4):
                mix(m[j], d[0], d[1], d[2], d[3], d[4], d[5], line[j])
            for c in range(width):
                start = c // 4 * channels
                for k in range(channels):
                    y[b, r, c, k] = line[c % 4, start + k] + bias[k]


G_SQUARED = np.kron(G, G).astype(np.float32)
"""(36, 9): what takes a kernel's 3x3 values to the 6x6 of G w G^T."""


def transformed_kernels(w: np.ndarray) -> np.ndarray:
    """G w G^T of kernels (C', C, 3, 3), as (6, 6, C, C')."""
    maps, channels = w.shape[:2]
    flat = np.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(9, -1)
    return (G_SQUARED @ flat).reshape(6, 6, channels, maps)


def kernel_gradient(du: np.ndarray) -> np.ndarray:
    """G^T du G for du (6, 6, C, C'), as (C', C, 3, 3)."""
    channels, maps = du.shape[2:]
    dw = G_SQUARED.T @ du.reshape(len(G_SQUARED), -1)
    return dw.reshape(3, 3, channels, maps).transpose(3, 2, 0, 1)
