"""What simple classifiers make of embeddings: a linear probe and the nearest neighbours.

Both tell how much of a question a frozen encoder already answers. Neither sees a case it is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import MedsegError

Floats = NDArray[np.floating]
Bool = NDArray[np.bool_]
Predict = Callable[[Floats], Floats]
"""Embeddings ``[n, F]`` -> probabilities ``[n, classes]``."""

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisation (C) tried, each for features of unit variance."""
INNER = 5
"""Folds within the training part that choose among them."""
NEIGHBOURS = 5


def linear_probe(x: Floats, truth: Bool, patients: Sequence[str], several: bool, seed: int = 0) -> Predict:
    """Logistic regression on standardised embeddings, its strength chosen by folds over patients.

    Parameters
    ----------
    x : array (n, F)
    truth : bool array (n, classes)
    patients : sequence of str (n,)
        Cases of one patient are on one side of every inner fold.
    several : bool
        Whether a case may have several classes: then each is asked for on its own.

    Raises
    ------
    MedsegError
        Fewer than two classes in the training part.
    """
    mean, sd = x.mean(0), x.std(0)
    scaled = _scale(x, mean, sd)
    if several:
        columns = [_binary(scaled, truth[:, j], patients, seed) for j in range(truth.shape[1])]
        return lambda given: np.stack([ask(_scale(given, mean, sd)) for ask in columns], axis=1)
    ask = _chosen(scaled, truth.argmax(1), truth.shape[1], patients, seed)
    return lambda given: ask(_scale(given, mean, sd))


def nearest_neighbours(
    x: Floats, truth: Bool, patients: Sequence[str], several: bool, seed: int = 0
) -> Predict:
    """Share of each class among the nearest training cases by cosine, each counted by its likeness."""
    unit, k = _unit(x), min(NEIGHBOURS, len(x))

    def predict(given: Floats) -> Floats:
        likeness = _unit(given) @ unit.T
        near = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
        weights = np.maximum(np.take_along_axis(likeness, near, 1), 1e-6)
        return (weights[..., None] * truth[near]).sum(1) / weights.sum(1, keepdims=True)

    return predict


PROBES: Mapping[str, Callable[..., Predict]] = {"linear": linear_probe, "knn": nearest_neighbours}


def _binary(x: Floats, truth: NDArray[np.bool_], patients: Sequence[str], seed: int) -> Predict:
    """Probability of one class against the rest; a class that all or none have keeps its share."""
    if truth.all() or not truth.any():
        share = float(truth.mean())
        return lambda given: np.full(len(given), share)
    ask = _chosen(x, truth.astype(int), 2, patients, seed)
    return lambda given: ask(given)[:, 1]


def _chosen(x: Floats, classes: NDArray[np.int_], count: int, patients: Sequence[str], seed: int) -> Predict:
    """The regression of the strength that tells the inner folds best, fitted to all."""
    if len(np.unique(classes)) < 2:
        raise MedsegError("a probe needs cases of two classes to learn from")
    folds = _inner_folds(classes, patients, seed)
    costs = [
        np.mean([_cost(_fit(x[a], classes[a], count, c)(x[b]), classes[b]) for a, b in folds] or [0.0])
        for c in STRENGTHS
    ]
    return _fit(x, classes, count, STRENGTHS[int(np.argmin(costs))])


def _fit(x: Floats, classes: NDArray[np.int_], count: int, strength: float) -> Predict:
    """Logistic regression; classes absent from the training part get probability 0."""
    from sklearn.linear_model import LogisticRegression

    made = LogisticRegression(C=strength, max_iter=5000).fit(x, classes)
    places = made.classes_

    def predict(given: Floats) -> Floats:
        out = np.zeros((len(given), count))
        out[:, places] = made.predict_proba(given)
        return out

    return predict


def _inner_folds(
    classes: NDArray[np.int_], patients: Sequence[str], seed: int
) -> list[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Folds over patients, each class spread evenly; those with one class to learn from are left out."""
    order = sorted(set(patients))
    turn = np.random.default_rng([seed, 5]).permutation(len(order))
    kind = {p: int(classes[[q == p for q in patients]].min()) for p in order}
    place: dict[str, int] = {}
    for wanted in sorted(set(kind.values())):
        same = [order[n] for n in turn if kind[order[n]] == wanted]
        place |= {patient: n % INNER for n, patient in enumerate(same)}
    fold = np.array([place[p] for p in patients])
    parts = [(np.flatnonzero(fold != n), np.flatnonzero(fold == n)) for n in range(INNER)]
    return [(a, b) for a, b in parts if len(b) and len(np.unique(classes[a])) > 1]


def _cost(probabilities: Floats, classes: NDArray[np.int_]) -> float:
    """Mean negative logarithm of the right class's probability."""
    return float(-np.log(np.clip(probabilities[np.arange(len(classes)), classes], 1e-9, None)).mean())


def _scale(x: Floats, mean: Floats, sd: Floats) -> Floats:
    return (x - mean) / np.where(sd > 1e-8, sd, 1.0)


def _unit(x: Floats) -> Floats:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
