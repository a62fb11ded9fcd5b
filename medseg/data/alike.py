"""Near-duplicates: images that look alike are kept together, so that no split comes between them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import MedsegError
from medseg.core.progress import progress
from medseg.data.cohort import Cohort
from medseg.data.reading import read_source

log = logging.getLogger("medseg")

SIDE = 16
"""Pixels along each side of the thumbnails of flat images ..."""
SIDE_VOLUME = 8
"""... and along each of the three of volumes."""
_BLOCK = 2048
"""Rows of the table of correlations held at once."""

Pairs = Sequence[tuple[int, int]]


def group_alike(cohort: Cohort, above: float, quiet: bool = False) -> Cohort:
    """The cohort with images that correlate above `above` under one patient, chains included.

    Of each case the first channel is looked at, as a thumbnail. Patients whose images are alike become
    one, called after the first of them; who was one patient stays so.

    Raises
    ------
    MedsegError
        More than half of the cases hang together: the limit does not tell copies from what is common to all.
    """
    names = progress(cohort.cases, "near-duplicates", quiet=quiet)
    small = [thumbnail(read_source(case.images[cohort.channels[0]])[0].array[0]) for case in names]
    patients = list(dict.fromkeys(case.patient for case in cohort.cases))
    of = [patients.index(case.patient) for case in cohort.cases]
    found = [(of[a], of[b]) for a, b in alike(small, above)]
    first = joined(len(patients), found)
    called = {p: patients[first[i]] for i, p in enumerate(patients)}
    _check_apart([called[case.patient] for case in cohort.cases], above)
    left = len(set(first))
    log.info("%d of %d patients or images are left when near-duplicates are joined", left, len(patients))
    return cohort.but(cases=tuple(c.but(patient=called[c.patient]) for c in cohort.cases))


def _check_apart(patients: Sequence[str], above: float) -> None:
    most = max(Counter(patients).values(), default=0)
    if 2 * most > max(2, len(patients)):
        raise MedsegError(
            "these images are too much alike for near-duplicates to be told from the others",
            evidence=f"{most} of {len(patients)} cases hang together above a correlation of {above:g}",
            mend="raise cohort.group_alike, or leave it out and give patients or groups in the table",
        )


def thumbnail(array: NDArray[Any]) -> NDArray[np.float32]:
    """``[I, J, K]`` as a few means over boxes of equal size, of mean 0 and length 1, array (n,).

    A flat image gives 16 x 16 of them, a volume 8 x 8 x 8.
    """
    sides = (SIDE, SIDE, 1) if array.shape[2] == 1 else (SIDE_VOLUME,) * 3
    small = array.astype(np.float64)
    for axis, side in enumerate(sides):
        small = _box_means(small, axis, side)
    flat = small.ravel() - small.mean()
    return (flat / max(float(np.linalg.norm(flat)), 1e-12)).astype(np.float32)


def alike(thumbnails: Sequence[NDArray[np.float32]], above: float) -> list[tuple[int, int]]:
    """Pairs (i < j) of thumbnails of one kind whose correlation is larger than `above`."""
    found: list[tuple[int, int]] = []
    for length in {len(t) for t in thumbnails}:
        at = np.array([i for i, t in enumerate(thumbnails) if len(t) == length])
        table = np.stack([thumbnails[i] for i in at])
        for first in range(0, len(at), _BLOCK):
            a, b = np.nonzero(table[first : first + _BLOCK] @ table.T > above)
            keep = a + first < b
            found += zip(at[a[keep] + first].tolist(), at[b[keep]].tolist(), strict=True)
    return found


def joined(n: int, pairs: Pairs) -> list[int]:
    """For each of `n` things the first of those it hangs together with through `pairs`.

    >>> joined(5, [(1, 3), (3, 4)])
    [0, 1, 2, 1, 1]
    """
    first = list(range(n))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        first[high] = low
    return [root(i) for i in range(n)]


def _box_means(array: NDArray[np.float64], axis: int, side: int) -> NDArray[np.float64]:
    """Means over `side` boxes of equal width along an axis; a voxel on a border counts by its share."""
    n = array.shape[axis]
    edges = np.linspace(0, n, side + 1)
    low, high = np.arange(n), np.arange(1, n + 1)
    share = np.clip(np.minimum(high, edges[1:, None]) - np.maximum(low, edges[:-1, None]), 0, None)
    weights = share / share.sum(axis=1, keepdims=True)
    return np.moveaxis(np.tensordot(weights, array, (1, axis)), 0, axis)
