"""The test part: locked while anything is chosen, and then judged once by all folds together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medseg.core.files import read_json, write_json
from medseg.core.stage import Artifact
from medseg.core.values import digest
from medseg.imaging.masks import Postprocessing
from medseg.workflows import training as road
from medseg.workflows.ground import Configuration, Ground
from medseg.workflows.judging import summary_lines
from medseg.workflows.rivals import Beside

TEST = "test"
OPENED = "opened.json"
"""In ``test/``: which models have been judged on the test part of this run."""


@dataclass(frozen=True)
class Opened:
    """What came of the test part: final masks by case, and what is said of it. Empty when it stays locked."""

    masks: Mapping[str, Artifact] = field(default_factory=dict)
    said: Beside = field(default_factory=Beside)


def open_test(ground: Ground, found: Configuration, steps: Postprocessing) -> Opened:
    """Judge the test part by the mean over all networks: ``test/scores.csv``, ``test/summary.json``, a page.

    Nothing is done when it is to stay locked, when there is none, or when a single fold has been judged on
    it already (its scores are those of the run).
    """
    from medseg.workflows.reporting import report_test

    split, raw, settings = ground.settings.split, ground.raw, ground.settings
    cases = [case for case in ground.parts.test if case in raw]
    if not (split.cross_validates and split.open_test and cases):
        return Opened()
    judges = dict.fromkeys(cases, found.everyone)
    predicted = road.predict_cases(found.home, raw, judges, settings.prediction, ground.device, steps)
    masks = road.postprocess_all(found.home, raw, predicted, steps)
    place = ground.run.at(TEST)
    scores = road.score_all(place, raw, masks, cases, settings.scoring)
    times = _times(place.root / OPENED, digest([sorted(m.digest for m in found.everyone), steps]))
    by = f"the mean of the probabilities of {len(found.everyone)} networks of {len(found.models)} folds"
    facts = {"judged by": by, "models judged on it so far": times}
    summary = report_test(place, raw, settings, masks, scores, facts)
    return Opened(masks, _said(summary, by, times))


def _times(file: Any, models: str) -> int:
    """How many different models have been judged on this test part, these included."""
    known = read_json(file) if file.is_file() else []
    if models not in known:
        known = [*known, models]
        write_json(file, known)
    return len(known)


def _said(summary: Mapping[str, Any], by: str, times: int) -> Beside:
    lines = summary_lines(dict(summary))
    again = f"; {times} models have been judged on it: it is no untouched test any more" if times > 1 else ""
    head = f"test part: {summary['cases']} cases, judged once everything was decided, by {by}{again}"
    facts = {line.split("  ")[1].strip() or str(n): line.strip() for n, line in enumerate(lines)}
    block = {"cases": summary["cases"], "judged by": by, "models judged on it so far": times, **facts}
    return Beside((head, *lines), {"Test part": block}, {"test": dict(summary)})
