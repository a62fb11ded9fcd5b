"""From a context to index.html: the same bytes for the same input."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from medseg.core.files import write_text
from medseg.evaluation.report import cases, charts, curves, panels, sections, tables, volume_plots, words
from medseg.evaluation.report.context import ReportContext
from medseg.evaluation.report.gallery import own_values
from medseg.evaluation.report.kept import context_of, kept_of, write_kept
from medseg.evaluation.report.looked import figures
from medseg.evaluation.report.pictures import ERROR_COLOURS
from medseg.evaluation.report.tags import RULES
from medseg.evaluation.report.validated import with_validation

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
PLOTTED = ("dice", "nsd", "hd95", "volume_error", "lesion_f1", "probability")
FORESTS = 8
"""Forest plots on the page at most: the headline metric of every label first."""


def render_report(context: ReportContext, out_dir: Path) -> Path:
    """Write ``index.html`` into `out_dir`: one file that needs no network and no other file.

    Beside it lies what it was made of (see `medseg.evaluation.report.kept`), for `redraw`.

    Parameters
    ----------
    context : ReportContext
    out_dir : path
        Made when missing.

    Returns
    -------
    path
        Of the page.
    """
    page, kept = Path(out_dir) / "index.html", kept_of(context)
    write_kept(kept, page.parent)
    write_text(page, render_page(context_of(kept, context.rows)))
    return page


def render_page(context: ReportContext) -> str:
    """The page as HTML text."""
    from markupsafe import Markup

    context = with_validation(context)
    found = cases.entries(context)
    pictured = [entry for entry in found if entry.overlay]
    drawn = {name: _safe(svg) for name, svg in _charts(context, found).items()}
    looked = Markup(figures(context.looked)) if context.looked else None
    tabled = _tables(context)
    flow = tables.flow(context)
    summary = context.summary
    return _template("page.html.jinja").render(
        context=context,
        policy=Markup(f"{_POLICY}; script-src '{_script()[1]}'" if pictured else _POLICY),
        script=Markup(_script()[0]),
        style=Markup(_text("style.css")),
        report_id=_short(summary.get("digests", {}).get("scores.csv", "none")),
        guide=words.GUIDE,
        level=words.level_of(summary),
        verdict=words.verdict(context),
        brief=words.brief(context),
        methods=words.methods(context),
        cards=tables.key_numbers(context),
        blocks=tables.blocks(_facts(context)),
        flow=flow,
        cohort=tables.cohort(context) if context.cohort else None,
        results=tables.results(context),
        confusion=tables.confusion(context),
        definitions=tables.definitions(context),
        failures=tables.failures(context),
        criteria=tables.criteria(context),
        numbers=tables.all_numbers(context),
        found=tabled,
        charts=drawn,
        plotted=PLOTTED,
        conventions=summary.get("conventions", {}),
        notes=summary.get("notes", ()),
        cases=found,
        pictured=pictured,
        filters=cases.choices(found),
        tag_counts=cases.tag_counts(found),
        rules=RULES,
        mapped=any(entry.overlay.errors for entry in pictured if entry.overlay),
        error_words=tuple(zip(ERROR_COLOURS.values(), ("missed", "added", "wrong label"), strict=True)),
        said_of=lambda entry: own_values(context.rows, entry.case) if "confusion" in summary else (),
        looked=looked,
        sections=_sections(context, drawn, tabled, bool(pictured)),
        safe=Markup,
    )


def bare_page(title: str, body: str) -> str:
    """A small page in the style of the report; `body` is HTML that is escaped already."""
    from markupsafe import escape

    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · medseg</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><link rel="icon" href="data:,">'
        f'<style>{_text("style.css")}</style></head><body><header><p class="eyebrow">medseg report</p>'
        f"<h1>{escape(title)}</h1></header><main>{body}</main></body></html>\n"
    )


def _facts(context: ReportContext) -> dict[str, Any]:
    summary = context.summary
    found = dict(context.facts)
    found.setdefault("Scoring", summary.get("scoring", {}))
    found.setdefault("Versions", summary.get("versions", {}))
    found.setdefault("Digests (sha256)", {k: _short(v) for k, v in summary.get("digests", {}).items()})
    return found


def _short(digest: Any) -> str:
    """The first 16 characters of a digest, or of each in a list."""
    return ", ".join(str(d)[:16] for d in (digest if isinstance(digest, list | tuple) else [digest]))


def _tables(context: ReportContext) -> dict[str, Any]:
    """The tables of findings by name; empty ones are not drawn."""
    names = ("agreement", "lesions", "panoptic", "readers", "sample_size", "quality", "probabilities", "froc")
    names += ("spread",)
    found = {name: getattr(sections, name)(context.summary) for name in names}
    more = {
        "icc": sections.icc_words(context.summary),
        "quality_words": sections.quality_words(context.summary),
        "froc_rates": sections.froc_rates(context.summary),
    }
    more |= {name: getattr(sections, name)(context) for name in ("ranges", "leakage")}
    return found | more


def _charts(context: ReportContext, found: list[cases.CaseEntry]) -> dict[str, Any]:
    links, labels, summary = {e.case: e.anchor for e in found}, context.all_labels(), context.summary
    rows = charts.own_class(context.rows) if "confusion" in summary else context.rows
    drawn: dict[str, Any] = {
        f"distribution_{name}": charts.distribution(rows, summary, labels, name, links)
        for name in PLOTTED
        if name in context.metrics()
    }
    drawn["volumes"] = volume_plots.volume_agreement(
        context.rows, summary.get("agreement", {}), labels, links
    )
    drawn["curves"] = curves.training_curves(context.histories)
    drawn["forests"] = _forests(summary)
    drawn["bins"] = panels.size_bins(summary.get("lesions", {}), labels)
    drawn["froc"] = panels.froc(summary.get("froc", {}), labels)
    drawn["risk"] = panels.risk_coverage(summary["quality"]) if summary.get("quality") else ""
    made, cells = summary.get("curves", {}), summary.get("labels", {})
    prevalence = {name: cell["auprc"].get("prevalence") for name, cell in cells.items() if "auprc" in cell}
    for kind in ("roc", "pr", "decision"):
        drawn[kind] = panels.class_curves(kind, made.get(kind, {}), prevalence, labels)
    return drawn | {"calibration": panels.calibration(made.get("reliability", {}), labels)}


def _forests(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = (summary.get("subgroups") or {}).get("rows", ())
    found = []
    for label, metric in dict.fromkeys((row["label"], row["metric"]) for row in rows):
        mine = [row for row in rows if (row["label"], row["metric"]) == (label, metric)]
        overall = summary["labels"].get(label, {}).get(metric, {}).get("mean")
        title = f"{label}: {charts.described(metric).title}"
        found.append((title, panels.forest(mine, metric, overall)))
    return found[:FORESTS]


def _safe(svg: Any) -> Any:
    from markupsafe import Markup

    return [(name, Markup(one)) for name, one in svg] if isinstance(svg, list) else Markup(svg)


def _sections(
    context: ReportContext, drawn: Mapping[str, Any], found: Mapping[str, Any], pictured: bool
) -> list[tuple[str, str]]:
    """The sections that are there, for the bar of links."""
    lesions = found["lesions"] or found["panoptic"] or drawn["froc"] or drawn["bins"]
    there = {
        ("results", "Results"): True,
        ("distribution", "Every case"): True,
        ("classes", "Classes"): "confusion" in context.summary,
        ("calibration", "Probabilities"): drawn["calibration"] or drawn["decision"],
        ("volumes", "Volumes"): drawn["volumes"],
        ("lesions", "Lesions"): lesions,
        ("subgroups", "Subgroups"): drawn["forests"],
        ("readers", "Readers"): found["readers"],
        ("quality", "Finding failures"): found["quality"],
        ("precision", "How sure"): found["sample_size"],
        ("gallery", "Gallery"): pictured,
        ("cases", "Cases"): pictured,
        ("everyone", "All cases"): True,
        ("looked", "Where it looked"): context.looked,
        ("training", "Training"): drawn["curves"],
        ("cohort", "Cohort"): context.knows_cohort(),
        ("failures", "Problems"): True,
        ("run", "What was run"): True,
        ("definitions", "Definitions"): True,
        ("checklists", "Checklists"): context.checklists,
    }
    return [place for place, is_there in there.items() if is_there]


@cache
def _template(name: str) -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    surroundings = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_text),
    )
    return surroundings.get_template(name)


@cache
def _text(name: str) -> str:
    """A file beside this one."""
    return files("medseg.evaluation.report").joinpath(*name.split("/")).read_text(encoding="utf-8")


@cache
def _script() -> tuple[str, str]:
    """The page's one script, and the hash by which alone the page lets it run."""
    text = _text("page.js")
    return text, "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
