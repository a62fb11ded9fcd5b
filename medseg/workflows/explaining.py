"""Where a model looked: the worst cases of a training, or any cases, as maps that are checked."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.core.errors import MedsegError
from medseg.core.files import write_text
from medseg.core.run import Run
from medseg.core.stage import Artifact, artifact_of, read_record
from medseg.core.values import digest, nearest
from medseg.data.cohort import Cohort
from medseg.learning.settings import Explaining, Prediction
from medseg.workflows.journey import Ingested, ingest_all, reopen
from medseg.workflows.outcome import Outcome, named_failures

if TYPE_CHECKING:
    from medseg.evaluation.scoring import Scores

log = logging.getLogger("medseg")

WORST = re.compile(r"worst:(\d+)")


def explain_cases(
    run: Run,
    raw: Ingested,
    models: Mapping[str, Collection[Artifact]],
    predicted: Mapping[str, Artifact],
    explaining: Explaining,
    device: str = "auto",
) -> dict[str, Artifact]:
    """Maps of each predicted case, ``explain/<case>``; those not to be trusted are named in the log.

    Parameters
    ----------
    models : mapping
        Case -> the model folders that predicted it.
    predicted : mapping
        Case -> its prediction; other cases are left out.
    """
    from medseg.stages.explain import explain, read_explained

    items = {case: (raw[case], predicted[case], *models[case]) for case in predicted if case in models}
    made = run.map(explain, items, explaining=explaining, device=device)
    for case, artifact in made.items():
        told = read_explained(artifact)
        for one in told["maps"]:
            for warning in one["warnings"]:
                log.warning("explain: %s, %s: %s", case, one["target"], warning)
        if told["remark"]:
            log.warning("explain: %s: %s", case, told["remark"])
    return dict(made)


def explain_worst(
    run: Run,
    raw: Ingested,
    models: Mapping[str, Collection[Artifact]],
    predicted: Mapping[str, Artifact],
    scores: Scores,
    explaining: Explaining | None,
    device: str = "auto",
) -> dict[str, Artifact]:
    """Maps of the worst of the cases judged, worst first; nothing unless the recipe asks for it."""
    if explaining is None or explaining.cases == 0:
        return {}
    worst = [case for case in worst_cases(scores, explaining.cases) if case in predicted]
    return explain_cases(run, raw, models, {case: predicted[case] for case in worst}, explaining, device)


def worst_cases(scores: Scores, count: int) -> list[str]:
    """The cases to look at first: lowest mean Dice, or least probability of the class they have."""
    from medseg.evaluation.report.charts import own_class

    own = {row["case"]: row["value"] for row in own_class(scores.rows) if row["value"] is not None}
    if own:
        return sorted(own, key=lambda case: (own[case], case))[:count]
    return [row["case"] for row in scores.worst(count)]


def explain(
    model: str | Path,
    src: str | Path,
    run: Run,
    *,
    explaining: Explaining | None = None,
    cases: str = "",
    device: str = "auto",
) -> Outcome:
    """``medseg explain MODEL SRC OUT``: maps of what the model's answers rest on, and a page of them.

    Parameters
    ----------
    model : path
        Model folder, fold folder, or run folder.
    src : path
        Images as for ``medseg predict``, or a run folder: its ingested cases. A case that one of the
        models has predicted in that run is asked of that model alone: those that had not seen it.
    cases : str
        ``worst:N`` (of a run folder with scores), ids joined by commas, or all.

    Raises
    ------
    MedsegError
        No model, no images, an unknown case, or no scores to tell the worst by.
    """
    from medseg.learning.model import model_folders
    from medseg.workflows.training import predict_cases

    folders = [artifact_of(folder) for folder in model_folders(Path(model))]
    if not folders:
        raise MedsegError("there is no model in this folder", file=str(model))
    raw = _opened(src, run)
    chosen = _chosen(cases, raw, Path(src))
    models = {case: _unseen(Path(src), case, folders) for case in chosen}
    predicted = predict_cases(run, raw, models, Prediction(), device)
    made = explain_cases(run, raw, models, predicted, explaining or Explaining(), device)
    page = _page(run, raw, made)
    return _outcome(run, made, page)


def _opened(src: str | Path, run: Run) -> Ingested:
    if (Path(src) / "cohort.json").is_file():
        return reopen(src)
    options: dict[str, Any] = {"need_reference": False, "images_alone": True, "ids": "names"}
    return ingest_all(run, Cohort.open(src, quiet=run.quiet, **options))


def _chosen(cases: str, raw: Ingested, src: Path) -> list[str]:
    """Case ids in the order asked for."""
    if not cases:
        return list(raw)
    if found := WORST.fullmatch(cases.strip()):
        return [case for case in _judged(src, int(found[1])) if case in raw]
    ids = [part.strip() for part in cases.split(",") if part.strip()]
    for case in ids:
        if case not in raw:
            guess = nearest(case, list(raw))
            raise MedsegError(
                f"there is no case '{case}'",
                mend=f"did you mean '{guess}'?" if guess else "give ids as the folders in ingest/ are called",
            )
    return ids


def _judged(src: Path, count: int) -> list[str]:
    from medseg.evaluation.scoring import Scores

    if not (src / "scores.csv").is_file():
        raise MedsegError(
            "the worst cases are told by scores, and there are none",
            file=str(src),
            mend="give a run folder that holds scores.csv, or the ids of the cases",
        )
    return worst_cases(Scores.from_csv(src / "scores.csv"), count)


def _unseen(src: Path, case: str, folders: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """The models that predicted the case in the run it comes from; all, where none of them did."""
    record = read_record(src / "predict" / case) or {"inputs": {}}
    used = set(record["inputs"].values())
    everyone = tuple(folders)
    return tuple(folder for folder in everyone if digest(folder) in used) or everyone


def _page(run: Run, raw: Ingested, made: Mapping[str, Artifact]) -> Path:
    from medseg.evaluation.report.looked import figures
    from medseg.evaluation.report.page import bare_page
    from medseg.evaluation.report.words import GUIDE
    from medseg.stages.report import looked_at

    labels = raw.cohort.labels
    shown = [one for case, artifact in made.items() for one in looked_at(artifact, raw[case], labels)]
    page = run.root / "report" / "index.html"
    body = f'<section><p class="guide">{GUIDE["looked"]}</p>{figures(shown)}</section>'
    write_text(page, bare_page("Where the model looked", body))
    return page


def _outcome(run: Run, made: Mapping[str, Artifact], page: Path) -> Outcome:
    from medseg.stages.explain import read_explained

    told = [read_explained(artifact) for artifact in made.values()]
    lines = [_line(case["case"], one) for case in told for one in case["maps"]]
    lines += [f"  {case['case']}: {case['remark']}" for case in told if case["remark"]]
    text = "\n".join([f"explain: {len(told)} cases", *lines, f"report: {page}"]) + named_failures(run)
    return Outcome({"cases": told, "report": str(page)}, text, 3 if run.failures else 0)


def _line(case: str, one: Mapping[str, Any]) -> str:
    check = one["faithfulness"]
    verdict = "faithful" if check["faithful"] else f"not better than random: {check['reason']}"
    low, high = check["gain_interval"]
    return f"  {case:<18} {one['target']:<16} gain {check['gain']:.3f} [{low:.3f}, {high:.3f}]  {verdict}"
