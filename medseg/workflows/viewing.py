"""``medseg view``: a report with its cases in 3-D, in the browser, on this machine alone."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from medseg.core.errors import MedsegError
from medseg.core.files import read_json
from medseg.evaluation.folders import case_of, find_masks
from medseg.imaging.labels import Label, Labels, parse_labels
from medseg.workflows.outcome import Outcome
from medseg.workflows.viewing_server import Answer, Answers, serving

log = logging.getLogger("medseg")

MASKS = ("reference", "prediction")
JS, HTML, CSS = "text/javascript; charset=utf-8", "text/html; charset=utf-8", "text/css; charset=utf-8"
VIEWER = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:;"
    " img-src 'self' data: blob:; worker-src blob:; font-src data:"
)
REPORT = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""The page's own policy is narrower: it allows its one script by hash."""
PARTS = {
    "viewer.js": ("viewer.js", JS),
    "niivue.js": ("vendor/niivue.umd.js", JS),
    "viewer.css": ("viewer.css", CSS),
}


@dataclass(frozen=True)
class Shown:
    """What is served: a page (None: a list of cases), the files of each case by layer, the labels."""

    page: Path | None
    cases: Mapping[str, Mapping[str, Path]]
    labels: Labels = ()
    first: str = field(default="")
    """Case that is opened right away; empty for the page."""


def view(
    place: str | Path,
    *,
    case: str = "",
    images: str | Path | None = None,
    reference: str | Path | None = None,
    prediction: str | Path | None = None,
    labels: str = "",
    browser: bool = True,
    quiet: bool = False,
) -> Outcome:
    """Serve a run, a report or a case until interrupted (Ctrl-C), and open the browser there.

    Parameters
    ----------
    place : path
        A run folder, a folder with a report (or its ``index.html``), ``RUN/ingest/<case>``, or a NIfTI file.
    case : str
        Opened right away.
    images, reference, prediction : path, optional
        Folders (or files) of NIfTI by case name, where `place` does not hold them.
    labels : str
        As ``kidney=1,tumour=2``, where the run does not say.
    browser : bool
        Open it; else only print the address.
    """
    shown = what_to_show(
        place, case=case, images=images, reference=reference, prediction=prediction, labels=labels
    )
    with serving(answers(shown)) as address:
        here = address + (f"case/{quote(shown.first, safe='')}" if shown.first else "")
        logging.getLogger("medseg").log(
            logging.WARNING if quiet else logging.INFO, "view: %s (Ctrl-C ends it)", here
        )
        if browser:
            _open(here)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass
    return Outcome({"cases": len(shown.cases)}, f"view: ended; {len(shown.cases)} cases were served")


def what_to_show(
    place: str | Path,
    *,
    case: str = "",
    images: str | Path | None = None,
    reference: str | Path | None = None,
    prediction: str | Path | None = None,
    labels: str = "",
) -> Shown:
    """Find the page and the volumes of a place; see `view`.

    Raises
    ------
    MedsegError
        No such place, nothing there to show, or no such case.
    """
    place = Path(place)
    if not place.exists():
        raise MedsegError("there is nothing at this place", file=str(place))
    root, first = _root(place)
    first = case or first
    cases = _of_run(root) if root.is_dir() else {}
    given = {"image": images or (place if _is_nifti(place) else None)}
    for layer, where in (given | {"reference": reference, "prediction": prediction}).items():
        for name, file in _volumes(where, layer).items():
            beside = _is_nifti(place) and where is not None and _is_nifti(Path(where))
            cases.setdefault(case_of(place) if beside else name, {})[layer] = file
    page = next((p for p in (root / "report" / "index.html", root / "index.html") if p.is_file()), None)
    if page is None and not cases:
        raise MedsegError(
            "there is nothing to show here",
            file=str(place),
            mend="give a run folder, a report or a NIfTI file",
        )
    if first and first not in cases:
        raise MedsegError(
            "there is no such case here", case=first, evidence=f"{len(cases)} cases have volumes"
        )
    if not first and page is None and len(cases) == 1:
        first = next(iter(cases))
    return Shown(page, dict(sorted(cases.items())), parse_labels(labels) if labels else _labels(root), first)


def answers(shown: Shown) -> Answers:
    """What is answered to which path; nothing outside of this table can be asked for."""

    def answer(path: str) -> Answer | None:
        kind, _, rest = path.partition("/")
        if path == "":
            return _front(shown)
        if path in PARTS:
            name, media = PARTS[path]
            return Answer(_part(name), media)
        if kind == "case" and rest in shown.cases:
            return Answer(_part("viewer.html"), HTML, VIEWER)
        if kind == "told" and rest in shown.cases:
            return Answer(json.dumps(_told(shown, rest)).encode(), "application/json")
        if kind == "volume":
            case, _, name = rest.rpartition("/")
            layers = {_file_name(layer, file): file for layer, file in shown.cases.get(case, {}).items()}
            return Answer(layers[name], "application/octet-stream") if name in layers else None
        return None

    return answer


def _root(place: Path) -> tuple[Path, str]:
    """The run (or report) folder of a place, and the case that was meant."""
    if place.name == "index.html":
        place = place.parent
    if place.is_dir() and place.name == "report" and (place / "index.html").is_file():
        return place.parent, ""
    if place.is_dir() and place.parent.name in ("ingest", "predict", "postprocess"):
        return place.parent.parent, place.name
    return place, ""


def _of_run(root: Path) -> dict[str, dict[str, Path]]:
    """The volumes of a run folder by case."""
    found: dict[str, dict[str, Path]] = {}
    for folder in sorted((root / "ingest").glob("*/")):
        layers = {file.name.removesuffix(".nii.gz"): file for file in sorted(folder.glob("image*.nii.gz"))}
        places = {
            "reference": [folder / "reference.nii.gz"],
            "prediction": [
                root / stage / folder.name / "mask.nii.gz" for stage in ("postprocess", "predict")
            ],
        }
        for name, files_there in places.items():
            if there := next((file for file in files_there if file.is_file()), None):
                layers[name] = there
        if layers:
            found[folder.name] = layers
    return found


def _volumes(where: str | Path | None, layer: str) -> dict[str, Path]:
    if where is None:
        return {}
    where = Path(where)
    if _is_nifti(where):
        return {case_of(where): where}
    inside = ("image",) if layer == "image" else ("mask", "reference")
    return {case.removesuffix("_0000"): file for case, file in find_masks(where, inside).items()}


def _is_nifti(file: Path) -> bool:
    return file.is_file() and file.name.lower().endswith((".nii", ".nii.gz"))


def _labels(root: Path) -> Labels:
    """Labels of the run's cohort; none where there is no run."""
    file = root / "cohort.json"
    if not file.is_file():
        return ()
    return tuple(Label.model_validate(label) for label in read_json(file).get("labels", ()))


def _front(shown: Shown) -> Answer:
    """The report, told that its cases can be opened; or a list of the cases."""
    if shown.page is None:
        items = "".join(f'<li><a href="case/{quote(c, safe="")}">{escape(c)}</a></li>' for c in shown.cases)
        body = f'<!doctype html><meta charset="utf-8"><title>medseg view</title><ul>{items}</ul>'
        return Answer(body.encode(), HTML)
    text = shown.page.read_text(encoding="utf-8")
    if shown.cases:
        text = text.replace('<html lang="en">', '<html lang="en" data-served="case/">', 1)
    return Answer(text.encode(), HTML, REPORT)


def _told(shown: Shown, case: str) -> dict[str, Any]:
    """What the viewer needs to know of a case."""
    order = sorted(shown.cases[case].items(), key=lambda item: (item[0] in MASKS, item[0]))
    layers = [{"name": n, "file": _file_name(n, file), "mask": n in MASKS} for n, file in order]
    labels = shown.labels or _seen([file for name, file in order if name in MASKS])
    known = [{"value": x.value, "name": x.name, "colour": x.shown_colour()} for x in labels]
    return {"layers": layers, "labels": known, "cases": list(shown.cases), "anchor": _anchor(shown, case)}


def _seen(masks: list[Path]) -> Labels:
    """A label for each value that masks hold, where nobody says what they mean."""
    import numpy as np

    from medseg.imaging.image import read_mask

    values = {int(v) for file in masks for v in np.unique(read_mask(file).array)}
    return tuple(Label(value=v, name=f"label {v}") for v in sorted(values - {0}))


def _anchor(shown: Shown, case: str) -> str:
    """The place of a case on the page."""
    if shown.page is None:
        return ""
    told = re.escape(escape(case))
    found = re.search(
        rf'<article class="case" id="([^"]+)"[^>]* data-case="{told}"', shown.page.read_text("utf-8")
    )
    return found[1] if found else ""


def _file_name(layer: str, file: Path) -> str:
    return layer + (".nii.gz" if file.name.lower().endswith(".gz") else ".nii")


def _part(name: str) -> bytes:
    return files("medseg.evaluation.report").joinpath(*name.split("/")).read_bytes()


def _open(address: str) -> None:
    import webbrowser

    try:
        webbrowser.open(address)
    except webbrowser.Error:
        log.info("no browser was found: open the address yourself")
