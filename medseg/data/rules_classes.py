"""Rules for plans of classification: grey scale, classes of unequal size, network, batch.

As in `medseg.data.rules`: ``(fingerprints, cohort, chosen so far, budget) -> (value, reason)``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.core.errors import MedsegError
from medseg.data.classes import classes_of
from medseg.data.fingerprint import CaseFingerprint, ChannelFacts
from medseg.data.plan import IMAGE, MASK, Intensity, Plan

Cases = Sequence[CaseFingerprint]
Chosen = Mapping[str, Any]

UNEQUAL = 1.5
"""Ratio of the largest class to the smallest from which something is done about it."""
MOST_WEIGHT = 10.0
WIDEN = (1.0, 0.75, 0.5, 0.25)
"""Widths of a residual network, as shares of its usual 64 to 512 channels."""
_WANTED_IMAGES = 20_000
"""Images a training should see, counted again each time they come."""
_BYTE = 255.0


def cut_to_region(case: CaseFingerprint, region: str, margin_mm: float) -> CaseFingerprint:
    """The fingerprint with the size of what is looked at: the box of a mask and its margin."""
    own = next(iter(case.channels.values())).box
    if region == MASK and case.box is None and own is None:
        raise MedsegError(
            "the plan looks at the foreground of a mask, and no case has one",
            mend="give masks in a column reference, the channel that is a mask (plan.region=CHANNEL), or "
            "plan.region=image",
        )
    box = (case.box or own) if region == MASK else case.channels[region].box if region != IMAGE else None
    if region == IMAGE or box is None:
        return case
    more = [2 * int(np.ceil(margin_mm / mm)) for mm in case.spacing_mm]
    i, j, k = (min(n, b + m) for n, b, m in zip(case.shape, box, more, strict=True))
    return case.but(shape=(i, j, k))


def fixed_scale(facts: Sequence[ChannelFacts], flat: bool) -> tuple[Intensity, str] | None:
    """Masks as 0 and 1; pictures of 8 bits on the scale of their format; None for everything else."""
    if all(f.levels == 2 for f in facts):
        middle = float(np.median([(f.least + f.most) / 2 for f in facts]))
        return Intensity(name="binary", settings={"above": middle}), "two values: a mask, as 0 and 1"
    most = max(f.most for f in facts)
    if flat and min(f.least for f in facts) >= 0 and _BYTE / 2 < most <= _BYTE:
        return Intensity(name="window_unit", settings={"low": 0.0, "high": _BYTE}), (
            "8-bit pictures: the range of the format to -1..1, the same for all, because how bright a "
            "picture is can tell its class"
        )
    return None


def balance(cases: Cases, cohort: Any, chosen: Chosen, budget: Any) -> tuple[Any, str]:
    """Classes of unequal size: each drawn equally often, or (several a case) its positives weighed."""
    counts = class_counts(cases, cohort.classes)
    if not counts or cohort.task != "classification":
        return "none", "no classes"
    said = ", ".join(f"{name} {n}" for name, n in counts.items())
    ratio = max(counts.values()) / max(1, min(counts.values()))
    if cohort.multilabel:
        rare = min(counts.values()) < len(cases) / (1 + UNEQUAL)
        return ("loss", f"classes are rare: their positives weigh more ({said})") if rare else ("none", said)
    if ratio < UNEQUAL:
        return "none", f"classes of about equal size ({said})"
    return "sampling", (
        f"the largest class is {ratio:.1f} times the smallest ({said}): each is drawn equally often; "
        "probabilities then speak of classes of equal size, not of how often they are"
    )


def class_weights(cases: Cases, cohort: Any, chosen: Chosen, budget: Any) -> tuple[Any, str]:
    """For each class what its cases weigh in the loss, where that is how balance is kept."""
    if chosen["balance"] != "loss":
        return (), "all cases weigh the same"
    counts, n = class_counts(cases, cohort.classes), len(cases)
    if cohort.multilabel:
        raw = {name: (n - k) / max(1, k) for name, k in counts.items()}
        return _rounded(raw, 1.0), f"negatives over positives, from 1 to {MOST_WEIGHT:g}"
    raw = {name: n / (len(counts) * max(1, k)) for name, k in counts.items()}
    return _rounded(raw, 1 / MOST_WEIGHT), f"inverse to the size of the class, at most {MOST_WEIGHT:g}"


def class_counts(cases: Cases, classes: Sequence[str]) -> dict[str, int]:
    """Cases of each class."""
    found = Counter(name for case in cases for name in classes_of(case.label_class))
    return {name: found[name] for name in classes}


def network_arguments(cases: Cases, cohort: Any, chosen: Chosen, budget: Any) -> tuple[Any, str]:
    """Of a residual network its depth, stem and width: the widest that sees enough images in time.

    The first convolution halves the image: eight (four) times less work where most of it would be, and
    nothing lost on pictures of 64 pixels.
    """
    if chosen["network"] != "resnet":
        return {}, "defaults of the network"
    flat = chosen["patch"][2] == 1
    shape = {"depth": 18 if flat else 10, "conv1_t_stride": 2}
    widen, gflop = WIDEN[-1], 0.0
    for widen in WIDEN:
        gflop = 3 * resnet_gflop(chosen["patch"], widen=widen, inputs=len(cohort.channels), **shape)
        if gflop * _WANTED_IMAGES <= budget.gflop * (1 if budget.rate_gflops else _SHARE):
            break
    return {**shape, "widen_factor": widen}, (
        f"width {widen:g}: the widest that sees {_WANTED_IMAGES} images at {gflop:.3g} GFLOP each in "
        f"{budget.minutes:g} minutes at {budget.said}"
    )


_SHARE = 0.5
"""Speed of residual networks beside that of our U-Net, for which the usual rates hold."""


def training_gflop(plan: Plan) -> float | None:
    """Arithmetic of one image in training, for residual networks of plain blocks."""
    known = {"depth": 10, "conv1_t_stride": 1, "widen_factor": 1.0} | plan.network_arguments
    if known["depth"] not in _BLOCKS:
        return None
    shape = {"depth": known["depth"], "widen": known["widen_factor"]}
    stride = int(np.max(known["conv1_t_stride"]))
    return 3 * resnet_gflop(plan.patch, inputs=plan.inputs, conv1_t_stride=stride, **shape)


def resnet_gflop(
    patch: Sequence[int], *, depth: int, widen: float, inputs: int, conv1_t_stride: int = 1
) -> float:
    """Arithmetic of one forward pass of MONAI's residual network of plain blocks, in 1e9 operations."""
    axes = [p for p in patch if p > 1]
    size = [-(-p // (2 * conv1_t_stride)) for p in axes]  # the stem, then its pooling
    stem = np.prod([-(-p // conv1_t_stride) for p in axes]) * 7 ** len(axes) * inputs * 64 * widen
    total, before = float(stem), 64 * widen
    for level, blocks in enumerate(_BLOCKS[depth]):
        width = 64 * 2**level * widen
        size = size if level == 0 else [-(-s // 2) for s in size]
        taps = 3 ** len(axes) * float(np.prod(size))
        total += taps * width * (before + (2 * blocks - 1) * width)
        before = width
    return 2e-9 * total


_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def batch(cases: Cases, cohort: Any, chosen: Chosen, budget: Any) -> tuple[Any, str]:
    """Images a step: as many as memory likes, and few enough for a dozen steps an epoch."""
    voxels = int(np.prod(chosen["patch"]))
    size = int(np.clip(2**20 // voxels, 4, 32))
    size = max(4, min(size, 2 ** int(np.log2(max(4, len(cases) / 12)))))
    return size, f"{size} images a step: at most about 2^20 voxels, at least a dozen steps an epoch"


def _rounded(raw: Mapping[str, float], least: float) -> tuple[float, ...]:
    return tuple(float(f"{np.clip(w, least, MOST_WEIGHT):.3g}") for w in raw.values())
