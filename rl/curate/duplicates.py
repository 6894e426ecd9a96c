"""Repeated rows: the same question about the same images, exactly or nearly.

Near means: texts alike by MinHash, images alike by hash and thumbnail, the same answers and the same numbers. Rows are
compared with their neighbours in sorted tables, a bounded number for each row and table, so that time grows as n log n
even where a template makes half of all texts the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rl.curate.pictures import FAR_BITS, PAIRS, alike, block_key

NEIGHBOURS = 16
"""Rows after each one in a sorted table that it is compared with."""
FOUND = 0.995
"""Least chance that rows as similar as the threshold meet in a table."""
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Prints:
    """What rows are compared by; arrays with one entry per row."""

    exact: np.ndarray
    """uint64 [rows, 2]: text and image files"""
    answers: np.ndarray
    """uint64 [rows]"""
    context: np.ndarray
    """uint64 [rows]: answers, numbers, and all images but the first; near rows agree in it"""
    signature: np.ndarray
    """uint32 [rows, permutations]; may lie on disk"""
    hash: np.ndarray
    """uint64 [rows]: of the first image"""
    thumb: np.ndarray
    """uint8 [rows, 768]: of the first image; may lie on disk"""
    pictured: np.ndarray
    """bool [rows]: whether there is an image"""


def exact_duplicates(prints: Prints, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first, conflict): int64 [rows] the row that each repeats, -1 where none; bool [rows] whether the rows of its
    kind have different answers, so that no one can say which is right."""
    first = np.full(len(alive), -1, dtype=np.int64)
    conflict = np.zeros(len(alive), dtype=bool)
    rows = np.flatnonzero(alive)
    if not len(rows):
        return first, conflict
    order = rows[np.lexsort((rows, prints.exact[rows, 1], prints.exact[rows, 0]))]
    keys = prints.exact[order]
    begins = np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)])
    leader = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    repeats = ~begins
    first[order[repeats]] = leader[repeats]
    quarrels = np.unique(leader[prints.answers[order] != prints.answers[leader]])
    conflict[order[np.isin(leader, quarrels)]] = True
    return first, conflict


def near_duplicates(prints: Prints, alive: np.ndarray, similarity: float) -> np.ndarray:
    """int64 [rows]: the earlier row that each nearly repeats, -1 where none. A row that repeats another stands for
    none: the first of a chain stays."""
    rows = np.flatnonzero(alive)
    pictured = prints.pictured[rows]
    edges = [*_text_edges(prints, rows[~pictured], similarity), *_image_edges(prints, rows[pictured], similarity)]
    first = np.full(len(alive), -1, dtype=np.int64)
    if not edges:
        return first
    pairs = np.unique(np.concatenate(edges), axis=0)
    for later, earlier in pairs.tolist():  # sorted by the later row: the fate of the earlier one is known
        if first[later] < 0 and first[earlier] < 0:
            first[later] = earlier
    return first


def bands(permutations: int, similarity: float) -> list[slice]:
    """Slices of a signature: rows that agree in one are candidates.

    The longest for which rows as similar as the threshold agree in one at least with chance `FOUND`:
    `1 - (1 - s^r)^b` for b bands of r places.
    """
    width = 1
    while 1 - (1 - similarity ** (width + 1)) ** (permutations // (width + 1)) >= FOUND:
        width += 1
    return [slice(i * width, (i + 1) * width) for i in range(permutations // width)]


def _text_edges(prints: Prints, rows: np.ndarray, similarity: float) -> list[np.ndarray]:
    return [
        _similar(prints, pairs, similarity)
        for keys in _band_keys(prints, rows, similarity)
        for pairs in _neighbours(keys, rows, np.zeros(len(rows), dtype=np.uint64))
    ]


def _image_edges(prints: Prints, rows: np.ndarray, similarity: float) -> list[np.ndarray]:
    """Texts form clusters first, because a template makes more equal texts than can be compared pair by pair."""
    if len(rows) < 2:
        return []
    cluster = _clusters(_band_keys(prints, rows, similarity), len(rows))
    hashes = prints.hash[rows]
    edges = []
    for pair in PAIRS:
        keys = _mixed(cluster.astype(np.uint64), block_key(hashes, pair))
        for pairs in _neighbours(keys, rows, hashes):
            same = _images_alike(prints, pairs)
            edges.append(_similar(prints, pairs[same], similarity))
    return edges


def _band_keys(prints: Prints, rows: np.ndarray, similarity: float) -> list[np.ndarray]:
    keys = [np.empty(len(rows), dtype=np.uint64) for _ in bands(prints.signature.shape[1], similarity)]
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        signature = prints.signature[part].astype(np.uint64)
        for key, band in zip(keys, bands(prints.signature.shape[1], similarity), strict=True):
            mixed = prints.context[part]
            for column in signature[:, band].T:
                mixed = _mixed(mixed, column)
            key[start : start + _CHUNK] = mixed
    return keys


def _neighbours(keys: np.ndarray, rows: np.ndarray, within: np.ndarray) -> list[np.ndarray]:
    """Pairs int64 [n, 2] (later, earlier row) of equal keys, near each other in the order of `within`."""
    order = np.lexsort((rows, within, keys))
    found = []
    for step in range(1, min(NEIGHBOURS, len(rows) - 1) + 1):
        same = np.flatnonzero(keys[order[step:]] == keys[order[:-step]])
        if not len(same):
            break
        one, other = rows[order[same]], rows[order[same + step]]
        found.append(np.stack([np.maximum(one, other), np.minimum(one, other)], axis=1))
    return found


def _clusters(tables: list[np.ndarray], count: int) -> np.ndarray:
    """int32 [count]: rows that meet in a table, or by way of others, have one number."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    labels = np.arange(count)
    for keys in tables:
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
        ends = labels[order[same]], labels[order[same + 1]]
        graph = coo_array((np.ones(len(same), dtype=np.int8), ends), shape=(count, count))
        _, joined = connected_components(graph, directed=False)
        labels = joined[labels]
    return labels


def _similar(prints: Prints, pairs: np.ndarray, similarity: float) -> np.ndarray:
    """Those of the pairs whose signatures agree in enough places."""
    keep = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), _CHUNK):
        one, other = pairs[start : start + _CHUNK].T
        share = (prints.signature[one] == prints.signature[other]).mean(axis=1)
        keep[start : start + _CHUNK] = share >= similarity
    return pairs[keep]


def _images_alike(prints: Prints, pairs: np.ndarray) -> np.ndarray:
    same = np.zeros(len(pairs), dtype=bool)
    near = np.flatnonzero(np.bitwise_count(prints.hash[pairs[:, 0]] ^ prints.hash[pairs[:, 1]]) <= FAR_BITS)
    for start in range(0, len(near), _CHUNK):
        part = near[start : start + _CHUNK]
        one, other = pairs[part].T
        same[part] = alike(prints.hash[one], prints.thumb[one], prints.hash[other], prints.thumb[other])
    return same


def _mixed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A hash of two uint64 arrays, element by element."""
    with np.errstate(over="ignore"):
        mixed = (a ^ (b + np.uint64(0x9E3779B97F4A7C15) + (a << np.uint64(6)) + (a >> np.uint64(2)))) * np.uint64(
            0xBF58476D1CE4E5B9
        )
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))
