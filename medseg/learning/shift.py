"""What a model makes of another site's images, and which adaptation is worth trying.

The rules are stated in `RULES`; their limits are conventions, not measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _BatchNorm

from medseg.data.shift import LARGE, distance
from medseg.learning.features import embedding
from medseg.learning.inference import classify, probabilities
from medseg.learning.model import Model
from medseg.learning.probe import linear_probe
from medseg.learning.quantiles import quantiles_by_channel
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Prediction

_MOST = 40
"""Cases of each site looked at, evenly spread."""
_FOLDS = 5

GREY = 0.1
"""Distance of the mean percentile curves (source sd) from which grey values differ."""
TOLD_APART, CLEARLY = 0.65, 0.8
"""Areas under the ROC curve from which a linear probe tells the sites apart, and clearly does."""
SURE, EMPTY = 0.5, 0.1
"""Share of the foreground the teacher must be sure of; share of cases without any that is borne."""
FEW, MANY = 5, 20
"""Target cases that statistics need, and that an opponent needs."""

Facts = Mapping[str, Any]


def view(
    model: Model, source: Sequence[PreparedCase], target: Sequence[PreparedCase], confidence: float
) -> dict[str, Any]:
    """The shift as the network sees it: grey values after the plan, features, confidence.

    Without source cases only what the model's card holds is compared.
    """
    ours, theirs = _some(source), _some(target)
    return {
        "grey_distance": _grey(model, ours, theirs),
        "told_apart": told_apart(_embedded(model, ours), _embedded(model, theirs)) if ours else None,
        "sure_source": _sureness(model, ours, confidence),
        "sure_target": _sureness(model, theirs, confidence),
        "batch_statistics": any(isinstance(m, _BatchNorm) for m in model.network.modules()),
        "source_cases": len(source),
        "target_cases": len(target),
    }


def told_apart(source: NDArray[np.float32], target: NDArray[np.float32], seed: int = 0) -> float | None:
    """Area under the ROC curve of a linear probe that tells the sites by embeddings; 0.5 is chance.

    Cross-validated over cases; None below five cases of either.
    """
    from sklearn.metrics import roc_auc_score

    if min(len(source), len(target)) < _FOLDS:
        return None
    x = np.concatenate([source, target])
    truth = np.arange(len(x)) >= len(source)
    rng = np.random.default_rng([seed, 7])
    fold = np.concatenate([rng.permutation(len(part)) % _FOLDS for part in (source, target)])
    said = np.zeros(len(x))
    for n in range(_FOLDS):
        known, asked = fold != n, fold == n
        both = np.stack([~truth, truth], axis=1)
        names = [str(i) for i in np.flatnonzero(known)]
        said[asked] = linear_probe(x[known], both[known], names, several=False)(x[asked])[:, 1]
    return round(float(roc_auc_score(truth, said)), 4)


def advice(seen: Facts, rows: Sequence[Facts] = ()) -> list[dict[str, str]]:
    """A verdict on each method, ``yes``, ``maybe`` or ``no``, with its reason."""
    return [{"method": name, "worth": worth, "why": why} for name, rule in RULES.items()
            for worth, why in [rule(seen, rows)]]  # fmt: skip


def _any_shift(seen: Facts) -> bool:
    grey = max(seen["grey_distance"].values(), default=0.0)
    return grey >= GREY or (seen["told_apart"] or 0.5) >= TOLD_APART


def _histogram(seen: Facts, rows: Sequence[Facts]) -> tuple[str, str]:
    grey = max(seen["grey_distance"].values(), default=0.0)
    if grey < GREY:
        return "no", f"grey values after the plan agree: they lie {grey:.2f} sd apart (from {GREY:g} on)"
    sizes = [r["quantity"] for r in rows if r["quantity"].startswith("size_") and abs(r["delta"]) >= LARGE]
    if sizes:
        return "maybe", (
            f"grey values lie {grey:.2f} sd apart, but the images show another part of the body "
            f"({', '.join(sizes)}): some of it may be content"
        )
    return "yes", f"grey values lie {grey:.2f} sd apart, and the images are of the same size"


def _adabn(seen: Facts, rows: Sequence[Facts]) -> tuple[str, str]:
    if not seen["batch_statistics"]:
        return "no", "the network has no batch statistics"
    if not _any_shift(seen):
        return "no", "grey values and features of the two sites agree"
    if seen["target_cases"] < FEW:
        return "maybe", f"statistics of {seen['target_cases']} cases are those of these few patients"
    return "yes", "the network has batch statistics, and its features differ; it costs seconds"


def _self_training(seen: Facts, rows: Sequence[Facts]) -> tuple[str, str]:
    sure = seen["sure_target"]
    if not _any_shift(seen):
        return "no", "grey values and features of the two sites agree"
    if sure["empty"] > EMPTY or sure["share"] < SURE:
        return "no", (
            f"the model is sure of {100 * sure['share']:.0f} % of what it finds and finds nothing in "
            f"{100 * sure['empty']:.0f} % of the cases: it would teach itself its errors; harmonise first"
        )
    return (
        "maybe",
        f"the model is sure of {100 * sure['share']:.0f} % of what it finds; it may be sure and wrong",
    )


def _with_source(seen: Facts, rows: Sequence[Facts]) -> tuple[str, str]:
    if not seen["source_cases"]:
        return "no", "the source cases are not at hand"
    if not _any_shift(seen):
        return "no", "grey values and features of the two sites agree"
    return (
        "maybe",
        "the look of the images differs; a training; hold it against adabn, which is part of it",
    )


def _adversarial(seen: Facts, rows: Sequence[Facts]) -> tuple[str, str]:
    if not seen["source_cases"]:
        return "no", "the source cases are not at hand"
    if (apart := seen["told_apart"] or 0.5) < CLEARLY:
        return "no", f"the features hardly tell the sites apart (area {apart:.2f}, from {CLEARLY:g} on)"
    if seen["target_cases"] < MANY:
        return "no", f"{seen['target_cases']} target cases: an opponent learns them by heart (from {MANY} on)"
    return (
        "maybe",
        f"the features tell the sites apart (area {apart:.2f}); hold it against adabn, which is part of it",
    )


RULES: Mapping[str, Callable[[Facts, Sequence[Facts]], tuple[str, str]]] = {
    "histogram": _histogram,
    "adabn": _adabn,
    "fourier": _with_source,
    "self_training": _self_training,
    "adversarial_features": _adversarial,
    "adversarial_output": _adversarial,
}


def _grey(model: Model, source: Sequence[PreparedCase], target: Sequence[PreparedCase]) -> dict[str, float]:
    stored = model.about.get("training_data", {}).get("quantiles")
    ours = quantiles_by_channel(source, model.plan) if source else stored
    if not ours or not target:
        return {}
    theirs = quantiles_by_channel(target, model.plan)
    return {name: round(distance(np.array(ours[name]), np.array(theirs[name])), 4) for name in theirs}


def _embedded(model: Model, cases: Sequence[PreparedCase]) -> NDArray[np.float32]:
    found = [
        embedding(model.network, model.plan, np.asarray(case.image, np.float32), model.device)
        for case in cases
    ]
    return np.stack(found) if found else np.zeros((0, 1), np.float32)


def _sureness(model: Model, cases: Sequence[PreparedCase], confidence: float) -> dict[str, float] | None:
    """Share of what is found that reaches the confidence, and of cases in which nothing is found."""
    if not cases:
        return None
    shares = [_share(model, np.asarray(case.image, np.float32), confidence) for case in cases]
    there = [share for share in shares if share is not None]
    mean = float(np.mean(there)) if there else 0.0
    return {"share": round(mean, 4), "empty": round(1 - len(there) / len(shares), 4)}


def _share(model: Model, image: NDArray[np.float32], confidence: float) -> float | None:
    plan, how = model.plan, Prediction()
    if plan.task == "classification":
        return float(classify(model.network, plan, image, how, model.device).max() >= confidence)
    soft = probabilities(model.network, plan, image, how, model.device)
    soft = np.stack([1 - soft.max(0), soft.max(0)]) if plan.overlapping else soft
    inside = soft.argmax(0) > 0
    return float((soft.max(0)[inside] >= confidence).mean()) if inside.any() else None


def _some(cases: Sequence[PreparedCase]) -> Sequence[PreparedCase]:
    return cases[:: max(1, -(-len(cases) // _MOST))]
