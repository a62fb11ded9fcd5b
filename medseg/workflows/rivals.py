"""Beside a classifier: a plain baseline on the same folds, and classes that come with a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medseg.core.files import read_json, write_json
from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.data.classes import classes_of
from medseg.data.cohort import Split
from medseg.data.plan import Plan
from medseg.evaluation.policy import Scoring
from medseg.workflows.journey import Ingested
from medseg.workflows.settings import TrainSettings

if TYPE_CHECKING:
    from medseg.evaluation.scoring import Scores


@dataclass(frozen=True)
class Beside:
    """What stands beside the scores of a training: lines for the console, blocks of the report, a summary."""

    lines: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)


def joined(*parts: Beside) -> Beside:
    """Several of them as one, in this order."""
    facts = {name: block for part in parts for name, block in part.facts.items()}
    summary = {name: value for part in parts for name, value in part.summary.items()}
    return Beside(tuple(line for part in parts for line in part.lines), facts, summary)


METRICS = ("auroc", "accuracy", "balanced_accuracy", "brier")


def beside(
    run: Run,
    raw: Ingested,
    split: Split,
    plan: Plan,
    settings: TrainSettings,
    predicted: Mapping[str, Artifact],
    scores: Scores,
) -> Beside:
    """Of a classifier its baseline (`Training.baseline`), of a joint model the scores of its classes."""
    test = settings.split.judges_test()
    if plan.task == "segmentation":
        judged = {case for fold in split.folds for case in fold.valid} | set(split.test if test else ())
        return _of_joint(run, classes_beside_masks(run, raw, predicted, judged, settings.scoring))
    if not settings.training.baseline:
        return Beside()
    rival = baseline_scores(run, raw, split, plan, test, settings.scoring)
    found = beside_network(run, scores, rival)
    block = {"Beside the network: a plain baseline": facts_of_rival(found)}
    return Beside(tuple(said_of_rival(found)), block, {"baseline": found})


def _of_joint(run: Run, scores: Scores | None) -> Beside:
    if scores is None or not scores.rows:
        return Beside()
    summary = scores.summary()
    over = summary["mean_over_labels"]
    facts = {
        name: _with_interval(over[name]["mean"], over[name]["mean_ci"]) for name in METRICS if name in over
    }
    line = "  classes: " + ", ".join(f"{name} {facts[name]}" for name in ("auroc", "accuracy"))
    return Beside((line,), {"Classes of the joint model": facts}, {"classes": summary})


def several_rule(scoring: Scoring, raw: Ingested) -> Scoring:
    """Scoring that knows whether a case of the cohort may have several classes."""
    if scoring.classes.several is not None or not raw.cohort.multilabel:
        return scoring
    return scoring.but(classes=scoring.classes.but(several=True))


def baseline_scores(
    run: Run, raw: Ingested, split: Split, plan: Plan, test: bool, scoring: Scoring
) -> Scores:
    """The baseline, fitted on each fold's training cases and judged as the networks are.

    Features of shape and grey values, logistic regression: see `medseg.data.radiomics` and
    `medseg.learning.baseline`. On a test part it is the mean over the folds.
    """
    from medseg.stages.baseline import baseline
    from medseg.stages.radiomics import radiomics

    judged = {case for fold in split.folds for case in fold.valid} | set(split.test if test else ())
    looked = {c: raw[c] for c in raw if c in judged or any(c in fold.train for fold in split.folds)}
    measured = run.map(radiomics, looked, region=plan.region, margin_mm=plan.region_margin_mm)
    items = {}
    for n, fold in enumerate(split.folds):
        wanted = {*fold.train, *fold.valid, *(split.test if test else ())}
        items[f"fold{n}"] = {"fold": fold, **{c: a for c, a in measured.items() if c in wanted}}
    made = run.map(baseline, items, classes=plan.classes, multilabel=plan.multilabel)
    told = [read_json(a / "probabilities.json") for a in made.values()]
    return class_scores(raw, _averaged(told, judged), judged, scoring)


def class_scores(
    raw: Ingested, said: Mapping[str, Mapping[str, float]], judged: set[str], scoring: Scoring
) -> Scores:
    """Scores of class probabilities that are given, case by case."""
    from medseg.evaluation.classification import class_rows
    from medseg.evaluation.scoring import Scores

    rows = []
    for case in sorted(c for c in judged if c in raw):
        source = raw.source(case)
        if source.get("label_class") is not None:
            truth = classes_of(source["label_class"])
            rows += class_rows(case, source["patient"], said.get(case), truth, raw.cohort.classes)
    return Scores(rows, several_rule(scoring, raw))


def beside_network(run: Run, scores: Scores, rival: Scores) -> dict[str, Any]:
    """The baseline's numbers and what the network is above it; ``baseline.json``, ``baseline_scores.csv``."""
    from medseg.evaluation.compare_classes import class_differences, mean_area_difference

    over = rival.summary()["mean_over_labels"]
    both = rival.rows, scores.rows, scores.scoring
    found = {
        "baseline": {
            name: {k: over[name][k] for k in ("mean", "mean_ci")} for name in METRICS if name in over
        },
        "network_less_baseline": {"rows": class_differences(*both), "mean": mean_area_difference(*both)},
        "method": "shape and first-order features, logistic regression with an L2 penalty chosen by inner "
        "cross-validation; the same folds and cases; differences of areas after DeLong, over patients",
    }
    rival.to_csv(run.root / "baseline_scores.csv")
    write_json(run.root / "baseline.json", found)
    return found


def said_of_rival(found: Mapping[str, Any]) -> list[str]:
    """A few lines for the console."""
    own = found["baseline"]
    line = "  baseline (shape and grey values): " + ", ".join(
        f"{name} {_with_interval(own[name]['mean'], own[name]['mean_ci'])}"
        for name in ("auroc", "accuracy")
        if name in own
    )
    gap = found["network_less_baseline"]["mean"]
    if gap is None:
        return [line]
    return [line, f"  network less baseline: AUROC {_with_interval(gap['difference'], gap['ci'], '+')}"]


def facts_of_rival(found: Mapping[str, Any]) -> dict[str, str]:
    """The same for a block of the report."""
    facts = {f"baseline {k}": _with_interval(v["mean"], v["mean_ci"]) for k, v in found["baseline"].items()}
    gaps = found["network_less_baseline"]
    for row in gaps["rows"]:
        name = f"{row['metric'].replace('auroc', 'AUROC')} {row['label']}"
        facts[f"network less baseline, {name}"] = (
            f"{_with_interval(row['difference'], row['ci'], '+')}, p = {row['p']:.3g} ({row['test']})"
        )
    if gaps["mean"] is not None:
        mean = gaps["mean"]
        facts["network less baseline, mean AUROC"] = _with_interval(mean["difference"], mean["ci"], "+")
    return {**facts, "method": found["method"]}


def classes_beside_masks(
    run: Run, raw: Ingested, predicted: Mapping[str, Artifact], judged: set[str], scoring: Scoring
) -> Scores | None:
    """Of a joint model the scores of the classes: ``class_scores.csv``, ``class_summary.json``."""
    files = {case: a / "probabilities.json" for case, a in predicted.items()}
    said = {case: read_json(file) for case, file in files.items() if file.is_file()}
    if not said:
        return None
    scores = class_scores(raw, said, judged, scoring)
    scores.to_csv(run.root / "class_scores.csv")
    write_json(run.root / "class_summary.json", scores.summary())
    return scores


def _averaged(told: list[dict[str, dict[str, float]]], cases: set[str]) -> dict[str, dict[str, float]]:
    out = {}
    for case in cases:
        found = [part[case] for part in told if case in part]
        if found:
            out[case] = {name: sum(p[name] for p in found) / len(found) for name in found[0]}
    return out


def _with_interval(value: float | None, limits: Any, sign: str = "") -> str:
    if value is None:
        return "undefined"
    ends = f" [{limits[0]:{sign}.3f}, {limits[1]:{sign}.3f}]" if limits and limits[0] is not None else ""
    return f"{value:{sign}.3f}{ends}"
