"""Convolutions of 3x3 kernels by Winograd's F(4x4, 3x3): a quarter of the multiplications.

Lavin & Gray, "Fast algorithms for convolutional neural networks", arXiv 1509.09308. A tile of
6x6 inputs x gives 4x4 outputs y. With w the kernel and * element by element,

    y = A^T [(G w G^T) * (B^T x B)] A          summed over the channels,

and, since this is linear in w, dw = G^T [(B^T x B) * (A dy A^T)] G, summed over the tiles. Element
by element over the 36 places of a tile, the sums over channels or tiles are products of matrices.
`mix_inputs`, `mix_maps` and `mix_places` have B^T, A and A^T as sums; the rows of t_1 and t_2, and
of t_3 and t_4, differ in a sign, so that their two parts are computed once:

    B^T =  4  0 -5  0  1  0        A^T =  1  1  1  1  1  0
           0 -4 -4  1  1  0               0  1 -1  2 -2  0
           0  4 -4 -1  1  0               0  1  1  4  4  0
           0 -2 -1  2  1  0               0  1 -1  8 -8  1
           0  2 -1 -2  1  0
           0  4  0 -5  0  1

Why: as patches and one product of matrices, a 3x3 convolution takes four times the multiplications.
Delete with convolution.py, or when a library for CPUs offers the same to NumPy arrays.
"""

from __future__ import annotations

import numpy as np

from utils.kernels.compiled import compiled

Array = np.ndarray

TILE = 4
"""Rows and columns of outputs that a tile gives."""

G = (
    np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float64)
    / 24.0
)


@compiled
def mix_inputs(
    d0: Array, d1: Array, d2: Array, d3: Array, d4: Array, d5: Array,
    t0: Array, t1: Array, t2: Array, t3: Array, t4: Array, t5: Array,
) -> None:  # fmt: skip
    """Write t = B^T d, for rows d_i and t_i (K,)."""
    two, four, five = np.float32(2), np.float32(4), np.float32(5)
    for k in range(t0.size):
        e0, e1, e2, e3, e4, e5 = d0[k], d1[k], d2[k], d3[k], d4[k], d5[k]
        even, odd = e4 - four * e2, e3 - four * e1
        even_2, odd_2 = e4 - e2, two * (e3 - e1)
        t0[k] = four * e0 - five * e2 + e4
        t1[k] = even + odd
        t2[k] = even - odd
        t3[k] = even_2 + odd_2
        t4[k] = even_2 - odd_2
        t5[k] = four * e1 - five * e3 + e5


@compiled
def mix_maps(
    d0: Array, d1: Array, d2: Array, d3: Array,
    t0: Array, t1: Array, t2: Array, t3: Array, t4: Array, t5: Array,
) -> None:  # fmt: skip
    """Write t = A d, for rows d_i and t_i (K,)."""
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    for k in range(t0.size):
        e0, e1, e2, e3 = d0[k], d1[k], d2[k], d3[k]
        even, odd = e0 + e2, e1 + e3
        even_2, odd_2 = e0 + four * e2, two * e1 + eight * e3
        t0[k] = e0
        t1[k] = even + odd
        t2[k] = even - odd
        t3[k] = even_2 + odd_2
        t4[k] = even_2 - odd_2
        t5[k] = e3


@compiled
def mix_places(
    t0: Array, t1: Array, t2: Array, t3: Array, t4: Array, t5: Array, bias: Array,
    y0: Array, y1: Array, y2: Array, y3: Array,
) -> None:  # fmt: skip
    """Write y = A^T t, plus bias (K,), for rows t_i and y_i (K,)."""
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    for k in range(y0.size):
        total, difference = t1[k] + t2[k], t1[k] - t2[k]
        total_2, difference_2 = t3[k] + t4[k], t3[k] - t4[k]
        y0[k] = t0[k] + total + total_2 + bias[k]
        y1[k] = difference + two * difference_2 + bias[k]
        y2[k] = total + four * total_2 + bias[k]
        y3[k] = difference + eight * difference_2 + t5[k] + bias[k]


def in_fours(x: Array) -> Array:
    """x (..., C) seen as (..., C / 4) where C allows, else x itself; P is the last axis of it.

    The type complex128 stands for 16 bytes, which are only copied: that is faster by fours.
    """
    return x.view(np.complex128) if x.shape[-1] % 4 == 0 else x


@compiled
def part(row: Array, left: int, phases: Array) -> None:
    """Copy pixels `row` (W, P), as far as there is room, so that every fourth lies side by side.

    Args:
        row: its pixel c goes to place c + left.
        left: pixels that are left as they are.
        phases: (4, columns, P); place p is [p % 4, p // 4].
    """
    for c in range(min(row.shape[0], 4 * phases.shape[1] - left)):
        phase, column = (c + left) % 4, (c + left) // 4
        for k in range(row.shape[1]):
            phases[phase, column, k] = row[c, k]


@compiled
def join(phases: Array, row: Array) -> None:
    """Copy back what `part` copied without `left`: phases (4, columns, P) into `row` (W, P)."""
    for c in range(row.shape[0]):
        phase, column = c % 4, c // 4
        for k in range(row.shape[1]):
            row[c, k] = phases[phase, column, k]


@compiled
def fill_tiles(x: Array, top: int, left: int, tiles: Array) -> None:
    """Write B^T d B of the 6x6 inputs d of each tile.

    Args:
        x: (n, H, W, P) images `in_fours`; beyond their edges there are zeros.
        top: rows of zeros above.
        left: columns of zeros to the left.
        tiles: (6, 6, n, rows, columns * C) float32.
    """
    n, height, _, pixel = x.shape
    rows, size = tiles.shape[3], tiles.shape[4]
    channels = pixel * x.itemsize // tiles.itemsize
    phase = size + channels
    image = np.zeros((4 * rows + 2, 4 * phase), np.float32)
    phases = image.view(x.dtype).reshape(4 * rows + 2, 4, -1, pixel)
    mixed = np.empty((6, 4 * phase), np.float32)
    for b in range(n):
        for r in range(min(height, 4 * rows + 2 - top)):
            part(x[b, r], left, phases[r + top])
        for row in range(rows):
            d, v = image[4 * row : 4 * row + 6], mixed
            mix_inputs(d[0], d[1], d[2], d[3], d[4], d[5], v[0], v[1], v[2], v[3], v[4], v[5])
            for i in range(6):
                t, line = tiles[i], mixed[i]
                mix_inputs(
                    line[:size], line[phase : phase + size], line[2 * phase : 2 * phase + size],
                    line[3 * phase : 3 * phase + size], line[channels:phase],
                    line[phase + channels : 2 * phase], t[0, b, row], t[1, b, row], t[2, b, row],
                    t[3, b, row], t[4, b, row], t[5, b, row],
                )  # fmt: skip


@compiled
def spread_maps(y: Array, tiles: Array) -> None:
    """Write A y A^T of the 4x4 maps y of each tile; the adjoint of `gather_maps`.

    Args:
        y: (n, H, W, P) maps `in_fours`; beyond their edges there are zeros.
        tiles: (6, 6, n, rows, columns * C) float32.
    """
    n, height, _, pixel = y.shape
    rows, size = tiles.shape[3], tiles.shape[4]
    image = np.zeros((4, 4 * size), np.float32)
    phases = image.view(y.dtype).reshape(4, 4, -1, pixel)
    mixed = np.empty((6, 4, size), np.float32)
    v = mixed.reshape(6, -1)
    for b in range(n):
        for row in range(rows):
            image[height - 4 * row :] = 0
            for r in range(min(4, height - 4 * row)):
                part(y[b, 4 * row + r], 0, phases[r])
            mix_maps(image[0], image[1], image[2], image[3], v[0], v[1], v[2], v[3], v[4], v[5])
            for i in range(6):
                t, line = tiles[i], mixed[i]
                mix_maps(
                    line[0], line[1], line[2], line[3], t[0, b, row], t[1, b, row],
                    t[2, b, row], t[3, b, row], t[4, b, row], t[5, b, row],
                )  # fmt: skip


@compiled
def gather_maps(tiles: Array, bias: Array, y: Array) -> None:
    """Write A^T t A, plus bias, of the 6x6 places t of each tile into maps y.

    Args:
        tiles: (6, 6, n, rows, columns * C) float32.
        bias: (columns * C,), C values again and again.
        y: (n, H, W, P) maps `in_fours`.
    """
    n, height, _, pixel = y.shape
    rows, size = tiles.shape[3], tiles.shape[4]
    image = np.empty((4, 4, size), np.float32)
    phases = image.view(y.dtype).reshape(4, 4, -1, pixel)
    mixed = np.empty((6, 4, size), np.float32)
    none = np.zeros(size, np.float32)
    for b in range(n):
        for row in range(rows):
            for i in range(6):
                t, line = tiles[i], mixed[i]
                mix_places(
                    t[0, b, row], t[1, b, row], t[2, b, row], t[3, b, row], t[4, b, row],
                    t[5, b, row], none, line[0], line[1], line[2], line[3],
                )  # fmt: skip
            for q in range(4):
                mix_places(
                    mixed[0, q], mixed[1, q], mixed[2, q], mixed[3, q], mixed[4, q], mixed[5, q],
                    bias, image[0, q], image[1, q], image[2, q], image[3, q],
                )  # fmt: skip
            for r in range(min(4, height - 4 * row)):
                join(phases[r], y[b, 4 * row + r])


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
