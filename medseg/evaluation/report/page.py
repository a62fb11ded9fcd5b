"""From a context to index.html: the same bytes for the same input."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from medseg.core.files import write_text
from medseg.evaluation.report import charts, tables, words
from medseg.evaluation.report.context import ReportContext, history_of
from medseg.evaluation.report.looked import figures

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
PLOTTED = ("dice", "nsd", "hd95", "volume_error", "probability")


def render_report(context: ReportContext, out_dir: Path) -> Path:
    """Write ``index.html`` into `out_dir`: one file that needs no network and no other file.

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
    page = Path(out_dir) / "index.html"
    write_text(page, render_page(context))
    return page


def render_page(context: ReportContext) -> str:
    """The page as HTML text."""
    from markupsafe import Markup

    template, style = _template()
    return template.render(
        context=context,
        style=Markup(style),
        guide=words.GUIDE,
        level=words.level_of(context.summary),
        verdict=words.verdict(context),
        methods=words.methods(context),
        cards=tables.key_numbers(context),
        blocks=tables.blocks(_facts(context)),
        flow=tables.flow(context),
        cohort=tables.cohort(context) if context.cohort else None,
        results=tables.results(context),
        confusion=tables.confusion(context),
        definitions=tables.definitions(context),
        failures=tables.failures(context),
        criteria=tables.criteria(context),
        numbers=tables.all_numbers(context),
        charts={name: Markup(svg) for name, svg in _charts(context).items()},
        conventions=context.summary.get("conventions", {}),
        notes=context.summary.get("notes", ()),
        anchors=anchors(context),
        looked=Markup(figures(context.looked)) if context.looked else None,
        safe=Markup,
    )


def bare_page(title: str, body: str) -> str:
    """A small page in the style of the report; `body` is HTML that is escaped already."""
    from markupsafe import escape

    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · medseg</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<style>{_template()[1]}</style></head><body><header><p class="eyebrow">medseg report</p>'
        f"<h1>{escape(title)}</h1></header><main>{body}</main></body></html>\n"
    )


def anchors(context: ReportContext) -> dict[str, str]:
    """Case -> id of its place in the gallery: letters and digits only, whatever the case is called."""
    return {
        overlay.case: f"case-{i}-" + re.sub(r"[^A-Za-z0-9-]", "-", overlay.case)[:40]
        for i, overlay in enumerate(context.overlays, 1)
    }


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


def _charts(context: ReportContext) -> dict[str, str]:
    links, labels = anchors(context), context.all_labels()
    rows = charts.own_class(context.rows) if "confusion" in context.summary else context.rows
    found = {
        f"distribution_{name}": charts.distribution(rows, context.summary, labels, name, links)
        for name in PLOTTED
        if name in context.metrics()
    }
    found["volumes"] = charts.volume_agreement(context.rows, labels, links)
    histories = {fold: history_of(source) for fold, source in context.histories.items()}
    return found | {"curves": charts.training_curves(histories)}


@cache
def _template() -> tuple[Any, str]:
    from jinja2 import Environment, StrictUndefined

    here = files("medseg.evaluation.report")
    surroundings = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = surroundings.from_string((here / "page.html.jinja").read_text(encoding="utf-8"))
    return template, (here / "style.css").read_text(encoding="utf-8")
