"""Paragraphs for the methods section of a paper, made from what was done; for pasting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.evaluation.metrics import described

Summary = Mapping[str, Any]


def methods_text(summary: Summary) -> list[dict[str, str]]:
    """Titled paragraphs: data, model, measures, statistics, software. What is not known is left out.

    Parameters
    ----------
    summary : mapping
        summary.json with the part ``validation`` (see `medseg.workflows.validation_report`).

    Returns
    -------
    list of dict
        ``title`` and ``text``.
    """
    found = {
        "Data": _data(summary),
        "Model": _model(summary),
        "Measures": _measures(summary),
        "Statistics": _statistics(summary),
        "Software": _software(summary),
    }
    return [{"title": title, "text": text} for title, text in found.items() if text]


def shown(cell: Mapping[str, float | None]) -> str:
    """``1.00 (0.90 to 1.20)``: median and range."""
    middle, low, high = (cell[k] for k in ("median", "low", "high"))
    said = f"{low:.3g} to {high:.3g}"
    return said if middle is None else (f"{middle:.3g}" if low == high else f"{middle:.3g} ({said})")


def tested_on(summary: Summary) -> str:
    """``20 cases of 18 patients``."""
    return f"{_count(summary['cases'], 'case')} of {_count(summary['patients'], 'patient')}"


def uncertainty_of(summary: Summary) -> str:
    """How intervals were made, in a sentence."""
    made = summary.get("conventions", {})
    return str(made.get("mean_interval") or made.get("intervals") or "")


def _data(summary: Summary) -> str:
    parts = summary.get("validation", {})
    flow, leakage = parts.get("flow") or {}, parts.get("leakage") or {}
    if not flow:
        return f"The model was tested on {tested_on(summary)}."
    first, last = flow["steps"][0], flow["steps"][-1]
    left = "; ".join(f"{one['n']} {one['why']} ({one['reason'].rstrip('.')})" for one in flow["left"])
    said = f"Of {_count(first['cases'], 'case')} received, {last['cases']} were evaluated"
    said += f"; left out: {left}." if left else "."
    checked = f" Independence of the training data: {leakage['said']}." if leakage.get("said") else ""
    return said + checked


def _model(summary: Summary) -> str:
    model = summary.get("validation", {}).get("model") or {}
    keys = ("network", "input", "preparation", "prediction", "ensemble", "weights", "training")
    said = ". ".join(_capital(str(model[k]).rstrip(".")) for k in keys if model.get(k))
    if not said:
        return ""
    identity = f" (sha256 {model['identity'][:16]})" if model.get("identity") else ""
    return f"The model was {model['what']}{identity}. {said}."


def _measures(summary: Summary) -> str:
    made = summary.get("conventions", {})
    metrics = made.get("metrics", {})
    tolerance = (made.get("nsd_tolerance_mm") or {}).get("all")
    said = []
    for name, words in metrics.items():
        if name in ("volume_pred", "volume_ref") or ("confusion" in summary and name == "probability"):
            continue
        at = f", tolerance {tolerance:g} mm" if name == "nsd" and tolerance else ""
        said.append(f"{described(name).title} ({words}{at})")
    policy = made.get("missed_or_false_positive")
    empty = (
        f" A structure missed or invented: {policy}; absent from both sides: left out and counted."
        if policy
        else ""
    )
    lesions = f" Lesions: {made['lesions']}." if made.get("lesions") else ""
    threshold = f" Decisions: {made['threshold']}." if made.get("threshold") else ""
    compared = f"Predictions were compared with the reference standard by {'; '.join(said)}."
    return f"{compared}{empty}{lesions}{threshold}"


def _statistics(summary: Summary) -> str:
    made, parts = summary.get("conventions", {}), summary.get("validation", {})
    said = [f"Intervals: {uncertainty_of(summary)}."]
    if "agreement" in summary and made.get("agreement"):
        said.append(f"Agreement of volumes: {made['agreement']}.")
    if "subgroups" in summary and made.get("subgroups"):
        said.append(f"Subgroups: {made['subgroups']}.")
    if judged := parts.get("acceptance"):
        bars = "; ".join(f"{v['metric']} of {v['label']} {v['criterion']}" for v in judged)
        said.append(f"Acceptance criteria, each judged at the unfavourable end of its interval: {bars}.")
    return " ".join(said)


def _software(summary: Summary) -> str:
    versions = summary.get("versions", {})
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"Evaluation by {named}; seed {summary.get('seed', 0)}." if named else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")
