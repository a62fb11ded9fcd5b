"""The cases of the gallery: which ones, in which order, and each as an overlay."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medseg.core.errors import MedsegError
from medseg.evaluation.classification import is_classification
from medseg.evaluation.metrics import metric_of
from medseg.evaluation.pairs import Row
from medseg.evaluation.report.overlays import Overlay, planes
from medseg.evaluation.report.pictures import errors_svg, overlay_svg, thumb_svg
from medseg.evaluation.report.tags import failure_tags
from medseg.evaluation.structures import placed, without_ignored
from medseg.imaging.image import Image, read_image, read_mask
from medseg.imaging.labels import Labels

MOST = 6
"""Labels whose numbers stand under a picture: the worst of them when there are more."""
GALLERY = 60
"""Cases with pictures: all of them up to here; of more the worst, and some typical and best ones."""
ASIDE = 6
"""Typical cases, and best ones, when not all are shown."""
SAID = ("dice", "hd95", "volume_error")


def ranked(rows: Sequence[Row]) -> dict[str, float]:
    """Case -> the value it is ranked by, the worst first.

    Masks: mean Dice over the labels that have one. Classes: the probability of the case's own class (the
    lowest of them when there are several). Cases without a value are left out.
    """
    found: dict[str, list[float]] = {}
    classes = is_classification(rows)
    true = {(row["case"], row["label"]) for row in rows if row["metric"] == "truth" and row["value"] == 1}
    for row in rows:
        mine = (
            row["metric"] == "probability" and (row["case"], row["label"]) in true
            if classes
            else row["metric"] == "dice"
        )
        if mine and row["value"] is not None:
            found.setdefault(row["case"], []).append(row["value"])
    values = {case: min(x) if classes else float(np.mean(x)) for case, x in found.items()}
    return dict(sorted(values.items(), key=lambda item: (item[1], item[0])))


def gallery_cases(rows: Sequence[Row], n: int = GALLERY) -> list[str]:
    """The cases that get pictures: the worst, and of more than `n` also those at the median and the best."""
    order = list(ranked(rows))
    if len(order) <= n:
        return order
    aside = min(ASIDE, n // 4)
    worst, middle = n - 2 * aside, (len(order) - aside) // 2
    kept = [*range(worst), *range(middle, middle + aside), *range(len(order) - aside, len(order))]
    return [order[i] for i in dict.fromkeys(kept)]


def kinds(rows: Sequence[Row]) -> dict[str, str]:
    """Case -> ``worst``, ``typical`` or ``best``: the tenths of the ranking at its ends and about its middle.

    Three cases at least are of each kind where there are ten or more; the others have none.
    """
    order = list(ranked(rows))
    n = len(order)
    few = max(min(3, n // 3), round(n / 10))
    first = (n - few) // 2
    found = dict.fromkeys(order[first : first + few], "typical") | dict.fromkeys(order[n - few :], "best")
    return found | dict.fromkeys(order[:few], "worst")


def own_values(rows: Sequence[Row], case: str) -> list[str]:
    """Of a classification: the classes of a case, and the probabilities given, the largest first."""
    mine = [row for row in rows if row["case"] == case]
    true = [row["label"] for row in mine if row["metric"] == "truth" and row["value"] == 1]
    given = [(row["value"], row["label"]) for row in mine if row["metric"] == "probability"]
    known = sorted(((p, name) for p, name in given if p is not None), key=lambda x: (-x[0], x[1]))
    said = [f"{name} {p:.3f}" for p, name in known[:4]]
    return [f"Reference: {', '.join(true) or 'none'}", f"Predicted: {', '.join(said) or 'nothing'}"]


def draw_overlays(
    files: Mapping[str, tuple[Path | None, Path | None, Path | None]],
    rows: Sequence[Row],
    labels: Labels,
    ignore: int | None = None,
) -> list[Overlay]:
    """An overlay for each case, in the order given.

    Parameters
    ----------
    files : mapping
        Case -> files of image, reference, prediction; None where there is none. A case whose files
        cannot be read is left out: it is among the failures already.
    ignore : int, optional
        Value of references whose voxels nobody knows.
    """
    by_case = _by_case(rows)
    found = []
    for case, (image, reference, prediction) in files.items():
        try:
            shown = None if image is None else read_image(image)
            there, mask = (None if f is None else read_mask(f) for f in (reference, prediction))
        except MedsegError:
            continue
        if there is not None and mask is not None:
            mask, _ = placed(mask, there, resample=True)  # measured: refused unless resampling was asked for
        found.append(overlay_of(case, shown, there, mask, by_case.get(case, ()), labels, ignore))
    return found


def overlay_of(
    case: str,
    image: Image | None,
    reference: Image | None,
    prediction: Image | None,
    rows: Sequence[Row],
    labels: Labels,
    ignore: int | None = None,
) -> Overlay:
    """One case: its planes with contours and errors, its failure tags, and its numbers by label.

    Where the reference has the value `ignore` neither mask is shown, as neither is measured there.
    """
    if ignore is not None and reference is not None:
        given, there = without_ignored(prediction, reference, ignore)
        reference = reference.but(there[None])
        prediction = None if prediction is None or given is None else prediction.but(given[None])
    shown = _matching(image, reference or prediction)
    drawn, window = planes(shown, reference, prediction, labels)
    mine = [row for row in rows if row["case"] == case]
    prefix = hashlib.sha256(case.encode()).hexdigest()[:10]
    told = () if is_classification(mine) else _worst_labels(mine, labels)
    bad = sorted({row["status"].replace("_", " ") for row in mine if row["status"] != "ok"})
    wrong = any(plane.errors is not None and plane.errors.any() for plane in drawn)
    return Overlay(
        case=case,
        svg=overlay_svg(drawn, prefix),
        window=window,
        values=tuple((label.name, label.shown_colour(), _words(mine, label.name)) for label in told),
        status=", ".join(bad),
        caption=f"{len(labels) - len(told)} more labels, all better in Dice"
        if 0 < len(told) < len(labels)
        else "",
        errors=errors_svg(drawn, prefix),
        thumb=thumb_svg(drawn, prefix),
        tags=failure_tags(prediction, reference, labels),
        at="through the largest error" if wrong else "through the largest cross-section" if told else "",
    )


def _by_case(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["case"], []).append(row)
    return found


def _worst_labels(rows: Sequence[Row], labels: Labels) -> Labels:
    dice = {
        row["label"]: row["value"] for row in rows if row["metric"] == "dice" and row["value"] is not None
    }
    worst = sorted(labels, key=lambda label: dice.get(label.name, 2.0))[:MOST]
    return tuple(label for label in labels if label in worst)


def _matching(image: Image | None, mask: Image | None) -> Image | None:
    """The image, if it lies where the mask lies."""
    if image is None or mask is None or image.grid.matches(mask.grid):
        return image
    return None


def _words(rows: Sequence[Row], label: str) -> str:
    said = []
    for row in rows:
        if row["label"] == label and row["metric"] in SAID and row["value"] is not None:
            metric = metric_of(row["metric"])
            digits = 3 if metric.unit == "" else 1
            unit = f" {metric.unit}" if metric.unit else ""
            title = "volume" if row["metric"] == "volume_error" else metric.title
            sign = "+" if row["metric"] == "volume_error" else ""
            said.append(f"{title} {row['value']:{sign}.{digits}f}{unit}".replace("-", "−"))
    return " · ".join(said) or "not present"
