"""The cases of the gallery: files in, overlays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg.core.errors import MedsegError
from medseg.evaluation.metrics import metric_of
from medseg.evaluation.pairs import Row
from medseg.evaluation.report.overlays import Overlay, overlay_svg, planes
from medseg.evaluation.structures import placed
from medseg.imaging.image import Image, read_image, read_mask
from medseg.imaging.labels import Labels

MOST = 6
"""Labels whose numbers stand under a picture: the worst of them when there are more."""
SAID = ("dice", "hd95", "volume_error")


def draw_overlays(
    files: Mapping[str, tuple[Path | None, Path | None, Path | None]], rows: Sequence[Row], labels: Labels
) -> list[Overlay]:
    """An overlay for each case, in the order given.

    Parameters
    ----------
    files : mapping
        Case -> files of image, reference, prediction; None where there is none. A case whose files
        cannot be read is left out: it is among the failures already.
    """
    found = []
    for case, (image, reference, prediction) in files.items():
        try:
            shown = None if image is None else read_image(image)
            there, mask = (None if f is None else read_mask(f) for f in (reference, prediction))
        except MedsegError:
            continue
        if there is not None and mask is not None:
            mask, _ = placed(mask, there, resample=True)  # measured: refused unless resampling was asked for
        found.append(overlay_of(case, shown, there, mask, rows, labels))
    return found


def overlay_of(
    case: str,
    image: Image | None,
    reference: Image | None,
    prediction: Image | None,
    rows: Sequence[Row],
    labels: Labels,
) -> Overlay:
    """One case: its planes, and its numbers by label."""
    drawn, window = planes(_matching(image, reference or prediction), reference, prediction, labels)
    mine = [row for row in rows if row["case"] == case]
    told = _worst_labels(mine, labels)
    values = tuple((label.name, label.shown_colour(), _words(mine, label.name)) for label in told)
    more = f"{len(labels) - len(told)} more labels, all better in Dice" if len(told) < len(labels) else ""
    bad = sorted({row["status"].replace("_", " ") for row in mine if row["status"] != "ok"})
    return Overlay(case, overlay_svg(drawn), window, values, ", ".join(bad), more)


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
