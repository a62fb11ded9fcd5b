"""Results on disk for people and machines: scores.csv, summary.json, report/index.html."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.core.errors import MedsegError
from medseg.core.files import holds, write_json, write_text
from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.core.values import digest
from medseg.data.cohort import Split
from medseg.data.plan import Plan
from medseg.evaluation.policy import tolerance_notes
from medseg.learning.tracking import finish_workflow
from medseg.workflows.journey import Ingested
from medseg.workflows.judging import headlines, summary_lines
from medseg.workflows.outcome import Outcome, named_failures
from medseg.workflows.rivals import Beside
from medseg.workflows.settings import TrainSettings
from medseg.workflows.training import network_names
from medseg.workflows.transferring import account_of

if TYPE_CHECKING:
    from medseg.evaluation.scoring import Scores

PAGE = "page"


def report_training(
    run: Run,
    raw: Ingested,
    split: Split,
    plan: Plan,
    settings: TrainSettings,
    masks: Mapping[str, Artifact],
    scores: Scores,
    beside: Beside | None = None,
    looked: Mapping[str, Artifact] | None = None,
    networks: Mapping[str, Path] | None = None,
) -> Outcome:
    """Write tables and report of a training, tell MLflow, and say the result in a few lines.

    `networks` are the training folders by name; by default those of the plan in ``train/``.
    """
    beside = beside or Beside()
    judged = _judged_how(split)
    scores.facts = {"digests": {"plan": digest(plan), "cohort": digest(raw.cohort)}, "seed": split.seed}
    scores.facts |= {"judged": judged}
    summary = _tables(run, raw, scores)
    facts = {"Judged": {"how": judged}, **beside.facts, **_facts(raw, split, plan, settings)}
    named = chain(*network_names(split, plan, settings.training).values())
    networks = networks or {name: run.root / "train" / name for name in named}
    if carried := account_of(networks.values()):
        facts["weights carried"] = carried
    content = {
        "title": settings.name,
        "summary": summary,
        "facts": facts,
        "cohort": cohort_rows(raw, parts_of(split)),
        "histories": _histories(networks),
    }
    page = show_page(run, raw, masks, scores, content, looked)
    finish_workflow(settings.watch(), run.root, headlines(summary))
    text = "\n".join(
        [
            f"{settings.name}: {summary['cases']} cases judged, {judged}",
            *summary_lines(summary),
            *beside.lines,
            f"report: {page}",
        ]
    )
    shown = {"summary": summary, "report": str(page), "quarantined": [f.public for f in run.failures]}
    shown |= beside.summary
    return Outcome(shown, text + named_failures(run), 3 if run.failures or raw.refused else 0)


def _judged_how(split: Split) -> str:
    """In words, which scores those of the run are."""
    if len(split.folds) == 1:
        return "on the test part, by the network that was trained on the rest"
    return f"by cross-validation: each by the one of {len(split.folds)} folds that has not seen its patient"


def report_test(
    run: Run,
    raw: Ingested,
    settings: TrainSettings,
    masks: Mapping[str, Artifact],
    scores: Scores,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write tables and page of the test part, judged by all folds together; gives the summary."""
    scores.facts = {"digests": {"cohort": digest(raw.cohort)}, "judged": facts["judged by"]}
    summary = _tables(run, raw, scores)
    judged = sorted({row["case"] for row in scores.rows})
    content = {
        "title": f"{settings.name}: test part",
        "summary": summary,
        "facts": {"Judged": dict(facts)},
        "cohort": cohort_rows(raw, dict.fromkeys(judged, "test")),
    }
    show_page(run, raw, masks, scores, content)
    return summary


def parts_of(split: Split) -> dict[str, str]:
    """Case id -> ``test``, or ``fold 1`` for the fold that judges it, or ``training``."""
    parts = {case: "training" for fold in split.folds for case in fold.train}
    for n, fold in enumerate(split.folds, start=1):
        parts |= dict.fromkeys(fold.valid, f"fold {n}")
    return parts | dict.fromkeys(split.test, "test")


def groups_of_source(source: Mapping[str, Any]) -> dict[str, Any]:
    """What the subgroups of a table are made of: what is known of the patient, and the slice thickness."""
    return {**source["groups"], "slice_thickness": max(source["spacing_mm"])}


def _tables(run: Run, raw: Ingested, scores: Scores) -> dict[str, Any]:
    """Write scores.csv and summary.json, and give the summary."""
    from medseg.evaluation.scoring import read_rows

    if raw.cohort.task == "segmentation":
        judged = {row["case"] for row in scores.rows}
        largest = max((max(raw.source(case)["spacing_mm"]) for case in judged if case in raw), default=0.0)
        scores.facts["notes"] = tolerance_notes(scores.scoring, raw.cohort.labels, largest)
        scores.facts["groups"] = {case: groups_of_source(raw.source(case)) for case in judged if case in raw}
    if not scores.rows:
        raise MedsegError("no case was scored", mend="see the errors above: every case failed")
    scores.to_csv(run.root / "scores.csv")
    scores.rows = read_rows(run.root / "scores.csv")  # what follows is made from the table, digit by digit
    summary = scores.summary()
    write_json(run.root / "summary.json", summary)
    return summary


def show_page(
    run: Run,
    raw: Ingested,
    masks: Mapping[str, Artifact],
    scores: Scores,
    content: dict[str, Any],
    looked: Mapping[str, Artifact] | None = None,
) -> Path:
    """The page: made anew only when something in it changed, because it is a stage like the others."""
    from medseg.evaluation.report.gallery import gallery_cases
    from medseg.stages.report import INGESTED, LOOKED, MASK, SOURCE, report

    shown = [case for case in gallery_cases(scores.rows) if case in raw]
    item = {f"{INGESTED}{case}": raw[case] for case in shown}
    if raw.cohort.task == "segmentation":
        item |= {f"{MASK}{case}": masks[case] for case in shown if case in masks}
    for case, artifact in (looked or {}).items():
        item |= {f"{LOOKED}{case}": artifact, f"{SOURCE}{case}": raw[case]}
    told = {
        "rows": scores.rows,
        "refusals": [r.model_dump(mode="json") for r in raw.cohort.refused],
        "failures": [{"case": f.item, "stage": f.stage, "message": f.public} for f in run.failures],
        **content,
    }
    made = run.map(report, {PAGE: item}, content=told, labels=raw.cohort.labels)
    if PAGE not in made:
        raise MedsegError("the report could not be made", evidence=made.failed[PAGE].message)
    return _put_forward(made[PAGE] / "index.html", run.root / "report" / "index.html")


def _put_forward(made: Path, shown: Path) -> Path:
    """The page where people look for it; an equal one is left as it is."""
    text = made.read_text(encoding="utf-8")
    if not holds(shown, text):
        write_text(shown, text)
    return shown


def cohort_rows(raw: Ingested, parts: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the report says of each case that was read: patient, grid, groups, part."""
    return [_case_row(raw, case, part) for case, part in parts.items() if case in raw]


def _case_row(raw: Ingested, case: str, part: str) -> dict[str, Any]:
    source = raw.source(case)
    keep = ("case", "patient", "spacing_mm", "shape", "groups")
    return {**{k: source[k] for k in keep}, "part": part}


def _facts(raw: Ingested, split: Split, plan: Plan, settings: TrainSettings) -> dict[str, Any]:
    recipe = settings.model_dump(
        mode="json",
        exclude={"cohort": {"root", "image", "reference"}, "plan": True, "transfer": {"source"}},
    )
    return {
        "data": {
            "cases": len(raw.cohort.cases),
            "channels": list(plan.channels),
            "digest": digest(raw.cohort),
        },
        "split": {"test cases": len(split.test), "folds": len(split.folds), "seed": split.seed},
        "plan": {name: f"{_short(getattr(plan, name))} ({why})" for name, why in plan.why.items()},
        "settings": recipe,
    }


def _short(choice: Any) -> str:
    """A choice of the plan on one line."""
    if isinstance(choice, Mapping):
        return ", ".join(f"{k}: {_short(v)}" for k, v in choice.items())
    return str(choice.name) if hasattr(choice, "name") else str(choice)


def _histories(networks: Mapping[str, Path]) -> dict[str, list[dict[str, str]]]:
    """Rows of ``history.csv`` of each network of this run (others may lie beside them from before)."""
    files = {name: folder / "history.csv" for name, folder in networks.items()}
    return {n: list(csv.DictReader(f.read_text(encoding="utf-8").splitlines())) for n, f in files.items()}
