"""Pairs of pictures that are the same, or nearly: the same pixels, or a near perceptual hash.

Two pictures are nearly the same if at most `RADIUS` of the 64 bits of their hashes differ and
their thumbnails correlate by `ALIKE` at least (docs/your_own_data.md has the results for other
values). There are always fewer pairs than pictures, however many are alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

RADIUS = 6
ALIKE = 0.925
BLANK = 4.0  # standard deviation of gray levels below which the hash of a picture is noise
BITS = 64
BATCH = 50_000  # pairs whose thumbnails are compared at once

TWO_LABELS, TWO_SETS, COPIES = "two labels", "two sets", "copies"
KINDS = (TWO_LABELS, TWO_SETS, COPIES)
"""The kind of a pair, by number; the first that applies."""

Ints = npt.NDArray[np.int64]
PAIR = np.dtype(
    [("a", np.int64), ("b", np.int64), ("kind", np.int64), ("distance", np.int64),
     ("group", np.int64)]
)  # fmt: skip
"""Rows a < b of two pictures, number of the kind, bits that differ (0: the pixels are the same; 1
if only the pixels differ), and number of the group, from 1: pictures that pairs connect."""


def find_pairs(looks: npt.NDArray[np.void], labels: Ints, sets: Ints) -> npt.NDArray[np.void]:
    """Pairs of rows with the same or nearly the same picture.

    A group of equal pictures is given by enough pairs to connect it, not by all. Pairs with two
    labels come before pairs in two sets, and these before other copies, so that each picture of a
    contradicting pair is in a pair that is given.

    Args:
        looks: records `LOOK` (N,).
        labels: numbers of the labels (N,).
        sets: numbers of the sets that the rows are in (N,).

    Returns:
        records `PAIR`, ordered by kind, distance and rows.
    """
    kept = np.zeros(0, PAIR)
    for edges in _batches(looks, labels, sets):
        kept = _forest(np.concatenate([kept, _pairs(edges, labels, sets)]), len(looks))
    return _grouped(kept, len(looks))


def _batches(looks: npt.NDArray[np.void], labels: Ints, sets: Ints) -> Iterator[Ints]:
    """Edges (a, b, distance) in several arrays (M, 3); no pair comes twice."""
    _, first, picture = np.unique(_bytes(looks["pixels"]), return_index=True, return_inverse=True)
    yield _same_pixels(picture, labels, sets)
    once = first[looks["spread"][first] >= BLANK]
    _, first_of_hash, hashed = np.unique(
        looks["hash"][once], return_index=True, return_inverse=True
    )
    kinds = once[first_of_hash]
    same_hash = np.stack([kinds[hashed], once], axis=1)
    same_hash = same_hash[same_hash[:, 0] != same_hash[:, 1]]
    yield _alike(looks, np.insert(same_hash, 2, 1, axis=1))
    for near in _gathered(near_hashes(looks["hash"][kinds], RADIUS)):
        near[:, :2] = kinds[near[:, :2]]
        yield _alike(looks, near)


def _bytes(pixels: npt.NDArray[np.uint64]) -> npt.NDArray[np.void]:
    """Two numbers a row (N, 2) as one value (N,)."""
    return np.ascontiguousarray(pixels).view(np.dtype((np.void, 16))).ravel()


def _same_pixels(picture: Ints, labels: Ints, sets: Ints) -> Ints:
    """Edges between rows of the same picture: each row with the first of each label and set.

    picture: number of each row's picture.
    """
    order = np.argsort(picture, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(picture[order])) + 1)
    edges: set[tuple[int, int]] = set()
    for group in (group for group in groups if len(group) > 1):
        firsts: dict[tuple[int, int], int] = {}
        for row in group:
            firsts.setdefault((labels[row], sets[row]), row)
        edges |= {(min(a, b), max(a, b)) for a in firsts.values() for b in group if a != b}
    return np.array([(a, b, 0) for a, b in sorted(edges)], np.int64).reshape(-1, 3)


# ---------------------------------------------------------------- nearly the same


def near_hashes(hashes: npt.NDArray[np.uint64], radius: int) -> Iterator[Ints]:
    """Pairs of different hashes (N,) of which at most `radius` bits differ.

    The 64 bits are divided into `radius` + 1 blocks: such hashes agree in one block at least.
    Sorted by a block, each hash is compared with the ones after it while the block is the same.
    Memory is proportional to N.

    Returns:
        arrays (M, 3) of two positions and the distance; no pair comes twice.
    """
    blocks = _blocks(radius + 1)
    for number, block in enumerate(blocks):
        order = np.argsort(hashes & block, kind="stable")
        ordered = hashes[order]
        left = np.arange(len(ordered))
        for shift in range(1, len(ordered)):
            left = left[left < len(ordered) - shift]
            differing = ordered[left] ^ ordered[left + shift]
            same = (differing & block) == 0
            left, differing = left[same], differing[same]
            if not len(left):
                break
            distance = bit_count(differing)
            near = distance <= radius
            for earlier in blocks[:number]:
                near &= (differing & earlier) != 0
            if near.any():
                a, b = order[left[near]], order[left[near] + shift]
                yield np.stack([a, b, distance[near]], axis=1).astype(np.int64)


def _gathered(parts: Iterator[Ints]) -> Iterator[Ints]:
    """The same rows in fewer arrays, of `BATCH` rows or more but for the last."""
    waiting: list[Ints] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= BATCH:
            yield np.concatenate(waiting)
            waiting, size = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _blocks(number: int) -> list[np.uint64]:
    """Masks that divide 64 bits into `number` blocks."""
    edges = np.linspace(0, BITS, number + 1).round().astype(int)
    return [np.uint64((1 << int(end)) - (1 << int(start))) for start, end in pairwise(edges)]


def bit_count(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The number of 1 bits in each value, added up in ever larger fields."""
    counts = values.copy()
    for width, field in ((1, 0x55), (2, 0x33), (4, 0x0F)):
        mask = np.uint64(field * 0x0101010101010101)
        counts = (counts & mask) + ((counts >> np.uint64(width)) & mask)
    return ((counts * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64)


def _alike(looks: npt.NDArray[np.void], edges: Ints) -> Ints:
    """The edges whose thumbnails correlate."""
    parts = [edges[start : start + BATCH] for start in range(0, len(edges), BATCH)]
    kept = [part[correlation(looks["thumb"], part) >= ALIKE] for part in parts]
    return np.concatenate([np.zeros((0, 3), np.int64), *kept])


def correlation(thumbs: npt.NDArray[np.uint8], edges: Ints) -> npt.NDArray[np.float32]:
    """The correlation (M,) of the thumbnails (N, 256) at the two ends of each edge (M, 3)."""
    a, b = (_standard(thumbs[edges[:, side]]) for side in (0, 1))
    return np.einsum("ij,ij->i", a, b)


def _standard(thumbs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Thumbnails (M, 256) of mean 0 and length 1; without any contrast they stay 0."""
    values = thumbs.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)


# ---------------------------------------------------------------- pairs that connect


def _pairs(edges: Ints, labels: Ints, sets: Ints) -> npt.NDArray[np.void]:
    """Edges as pairs, without groups."""
    pairs = np.zeros(len(edges), PAIR)
    a, b = edges[:, :2].min(axis=1), edges[:, :2].max(axis=1)
    pairs["a"], pairs["b"], pairs["distance"] = a, b, edges[:, 2]
    pairs["kind"] = np.where(labels[a] != labels[b], 0, np.where(sets[a] != sets[b], 1, 2))
    return pairs


def _forest(pairs: npt.NDArray[np.void], n: int) -> npt.NDArray[np.void]:
    """The pairs of the lightest forest over n rows: by kind first, then by distance."""
    if not len(pairs):
        return pairs
    weights = pairs["kind"] * (BITS + 1) + pairs["distance"] + 1
    tree = minimum_spanning_tree(_graph(pairs, weights, n)).tocoo()
    chosen = tree.row.astype(np.int64) * n + tree.col
    return pairs[np.isin(pairs["a"] * n + pairs["b"], chosen)]


def _graph(pairs: npt.NDArray[np.void], weights: Ints, n: int) -> coo_array:
    ends = pairs["a"].astype(np.int32), pairs["b"].astype(np.int32)  # as csgraph takes them
    return coo_array((weights.astype(float), ends), shape=(n, n)).tocsr()


def _grouped(pairs: npt.NDArray[np.void], n: int) -> npt.NDArray[np.void]:
    """Pairs in order, with their groups numbered as they come."""
    pairs = pairs[np.lexsort((pairs["b"], pairs["a"], pairs["distance"], pairs["kind"]))]
    if len(pairs):
        component = connected_components(
            _graph(pairs, np.ones(len(pairs), np.int64), n), directed=False
        )[1]
        numbers: dict[int, int] = {}
        pairs["group"] = [numbers.setdefault(c, len(numbers) + 1) for c in component[pairs["a"]]]
    return pairs
