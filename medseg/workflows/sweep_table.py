"""The table of a sweep: best first, with intervals, and how sure it is that the best is better."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medseg.core.errors import MedsegError
from medseg.evaluation.choice import choose_best
from medseg.evaluation.policy import Scoring
from medseg.workflows.sweep_space import Axis, words_of

if TYPE_CHECKING:
    from medseg.workflows.sweeping import Trial

Cell = dict[str, Any]


def table(
    trials: Sequence[Trial], axes: Sequence[Axis], scoring: Scoring, metric: str = ""
) -> dict[str, Any]:
    """Trials sorted by their mean, the failed ones last.

    Returns
    -------
    dict
        ``metric``, ``confidence``, ``trials`` (name, settings, said, status, mean, ci, best_less_this,
        networks, weights, minutes), ``failed`` (their number), ``chosen`` (by the rule for candidates, with
        its reason), and ``text`` and ``csv`` of them.

    Raises
    ------
    MedsegError
        No trial came to its end.
    """
    ended = {trial.name: trial for trial in trials if trial.rows}
    failed = [trial for trial in trials if not trial.rows]
    if not ended:
        raise MedsegError(
            "no trial came to its end", evidence="; ".join(dict.fromkeys(t.reason for t in failed))
        )
    rows = {name: list(trial.rows) for name, trial in ended.items()}
    decided = choose_best(rows, {name: trial.cost for name, trial in ended.items()}, scoring, metric)
    cells = [_cell(ended[row["name"]], row) for row in decided["candidates"]]
    cells += [_failed(trial) for trial in failed]
    found = {name: decided[name] for name in ("metric", "confidence", "rule", "chosen", "reason")}
    found |= {"trials": cells, "failed": len(failed)}
    return found | {"text": _text(found), "csv": _csv(found, [axis.key for axis in axes])}


def _cell(trial: Trial, row: Cell) -> Cell:
    kept = {name: row[name] for name in ("mean", "ci", "best_less_this", "networks", "weights")}
    head = {"name": trial.name, "settings": trial.point, "said": " ".join(words_of(trial.point))}
    return {**head, "status": "ok", **kept, "minutes": round(trial.minutes, 2), "reason": ""}


def _failed(trial: Trial) -> Cell:
    nothing = dict.fromkeys(("mean", "ci", "best_less_this", "networks", "weights"))
    head = {"name": trial.name, "settings": trial.point, "said": " ".join(words_of(trial.point))}
    return {**head, "status": "failed", **nothing, "minutes": 0.0, "reason": trial.reason}


def _text(found: Cell) -> str:
    """For people: ``*`` the best, ``~`` those whose distance to it may be chance."""
    width = max(len(cell["said"]) for cell in found["trials"])
    lines = [f"    {'settings':<{width}}  {found['metric']:<22} best less this"]
    for place, cell in enumerate(found["trials"]):
        if cell["status"] == "failed":
            lines.append(f"  ! {cell['said']:<{width}}  failed: {_short(cell['reason'])}")
            continue
        gap = cell["best_less_this"]
        mark = "*" if place == 0 else "~" if not gap["shown"] else " "
        mean = f"{cell['mean']:.4f}{_limits(cell['ci'], '.4f')}"
        apart = "" if gap is None else f"{gap['difference']:+.4f}{_limits(gap['ci'], '+.4f')}"
        lines.append(f"  {mark} {cell['said']:<{width}}  {mean:<22} {apart}".rstrip())
    lines.append("  * best, ~ not shown to be worse: the interval of the paired difference includes 0")
    return "\n".join(lines)


def _short(reason: str) -> str:
    """What was wrong, and the first thing that was seen of it."""
    return ": ".join(line.strip().removeprefix("seen: ") for line in reason.splitlines()[:2])


def _limits(ci: Any, form: str) -> str:
    return f" [{ci[0]:{form}}, {ci[1]:{form}}]" if ci else ""


def _csv(found: Cell, keys: Sequence[str]) -> str:
    out = io.StringIO()
    head = ("trial", "status", *keys, "metric", "mean", "ci_low", "ci_high")
    tail = ("best_less_this", "difference_low", "difference_high", "networks", "weights", "minutes", "reason")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*head, *tail])
    for cell in found["trials"]:
        gap = cell["best_less_this"] or {"difference": None, "ci": None}
        numbers = [cell["mean"], *(cell["ci"] or ("", ""))]
        apart = [gap["difference"], *(gap["ci"] or ("", ""))]
        settings = [cell["settings"].get(key, "") for key in keys]
        row = [cell["name"], cell["status"], *settings, found["metric"], *numbers, *apart]
        row += [cell["networks"], cell["weights"], cell["minutes"], _short(cell["reason"])]
        writer.writerow(["" if value is None else value for value in row])
    return out.getvalue()
