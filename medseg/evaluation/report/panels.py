"""Plots of what a summary says beyond means: subgroups, lesions, review, curves of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.evaluation.metrics import described
from medseg.evaluation.report.axes import SMALL, bottom_axis, framed
from medseg.evaluation.report.svg import INK, LINE, MUTED, SERIES, Axis, Drawing, linear, polyline
from medseg.imaging.labels import Labels

DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")
"""Lines of classes differ by dash as well as by colour."""
Points = Sequence[tuple[float, float]]
Line = tuple[str, Points]


def forest(rows: Sequence[Mapping[str, Any]], metric: str, overall: float | None) -> str:
    """The mean of each subgroup with its interval, a line a group, groupings under their heads.

    Parameters
    ----------
    rows : sequence of dict
        Of one label and metric, as the summary's ``subgroups`` has them.
    overall : float or None
        The mean over all cases, drawn as a line.
    """
    if not rows:
        return ""
    heads = list(dict.fromkeys(row["grouping"] for row in rows))
    step, left, right = 21.0, 210.0, 330.0
    high = step * (len(rows) + len(heads)) + 62
    drawing = Drawing(1040, high, f"{described(metric).title} by subgroup")
    ends = [v for row in rows for v in (row["mean_ci"] or [row["mean"]])]
    top = 1.0 if described(metric).bounds == (0, 1) and max(ends) > 0.9 else None
    axis = linear([*ends, *([overall] if overall is not None else [])], left, 1040 - right, high=top)
    bottom_axis(drawing, axis, 20, high - 42, described(metric).title)
    if overall is not None:
        drawing.line(axis(overall), 20, axis(overall), high - 42, stroke=MUTED, stroke_dasharray="4 3")
    for i, said in enumerate(("cases (patients)", "difference to the rest", "p (Holm)")):
        drawing.text(1040 - right + 24 + (0, 110, 262)[i], 12, said, **SMALL)
    y = 20.0
    for head in heads:
        y += step
        drawing.text(0, y - 5, head.replace("_", " "), font_size=12.5, fill=INK, font_weight=600)
        for row in (r for r in rows if r["grouping"] == head):
            y += step
            _group(drawing, axis, y - 9, row, 1040 - right + 24)
    return drawing.render()


def _group(drawing: Drawing, axis: Axis, y: float, row: Mapping[str, Any], at: float) -> None:
    ink = "#98a2b3" if row["small"] else INK
    drawing.text(14, y + 4, str(row["group"])[:32], font_size=12, fill=ink)
    limits = row["mean_ci"]
    said = f"{row['group']}: mean {row['mean']:.3f}" + (
        f" ({limits[0]:.3f} to {limits[1]:.3f})" if limits else ""
    )
    if limits:
        drawing.line(axis(limits[0]), y, axis(limits[1]), y, stroke=ink, stroke_width=1.6)
    clear = row.get("p_holm") is not None and row["p_holm"] < 0.05
    drawing.dot(axis(row["mean"]), y, 4.5, said, fill=ink if clear else "#fff", stroke=ink, stroke_width=1.6)
    words = {"font_size": 11.5, "fill": ink}
    drawing.text(at, y + 4, f"{row['n']} ({row['patients']})" + (" few" if row["small"] else ""), **words)
    drawing.text(at + 110, y + 4, _difference(row), **words)
    p = row.get("p_holm")
    drawing.text(at + 262, y + 4, "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}", **words)


def _difference(row: Mapping[str, Any]) -> str:
    if row["difference"] is None:
        return "–"
    limits = row["difference_ci"]
    around = f" ({limits[0]:+.3f} to {limits[1]:+.3f})" if limits else ""
    return f"{row['difference']:+.3f}{around}".replace("-", "−")


def size_bins(lesions: Mapping[str, Any], labels: Labels) -> str:
    """Share of the reference's lesions that were found, by their size, with intervals."""
    shown = [
        (label, lesions[label.name]["by_size"])
        for label in labels
        if lesions.get(label.name, {}).get("by_size")
    ]
    if not shown:
        return ""
    wide = 1040.0 / max(2, len(shown))
    drawing = Drawing(wide * len(shown), 250, "Lesions found, by their size in the reference")
    for i, (label, bins) in enumerate(shown):
        left = wide * i + 44
        y = linear((), 206, 42, low=0, high=1)
        x = linear((), left, wide * (i + 1) - 20, low=0, high=len(bins))
        bare = Axis(x.low, x.high, x.start, x.end, ())
        framed(
            drawing,
            (left, 0, wide, 250),
            label.name,
            bare,
            y,
            ("", "Share found, by size in the reference"),
        )
        for j, row in enumerate(bins):
            _bar(drawing, x(j + 0.5), 0.55 * (x(1) - x(0)), y, row, label.shown_colour())
    return drawing.render()


def _bar(drawing: Drawing, x: float, wide: float, y: Axis, row: Mapping[str, Any], colour: str) -> None:
    if row["sensitivity"] is not None:
        top = y(row["sensitivity"])
        drawing.rect(x - wide / 2, top, wide, y.start - top, fill=colour, fill_opacity=0.55)
    if row.get("ci"):
        drawing.line(x, y(row["ci"][0]), x, y(row["ci"][1]), stroke=INK, stroke_width=1.4)
    first, to, rest = str(row["size"]).partition(" to ")
    for k, words in enumerate((first + to, rest)):
        drawing.text(x, y.start + 13 + 12 * k, words.strip(), text_anchor="middle", font_size=10, fill=MUTED)
    drawing.text(x, y(1) - 2, f"{row['found']} / {row['lesions']}", text_anchor="middle", **SMALL)


def froc(curves: Mapping[str, Any], labels: Labels) -> str:
    """Sensitivity over lesions against false positives a scan, a line a label."""
    lines = [(x.name, list(zip(c["false_positives"], c["sensitivity"], strict=True))) for x in labels if (c := curves.get(x.name))]  # fmt: skip  # noqa: E501
    if not lines:
        return ""
    most = min(8.0, max([p[0] for _, points in lines for p in points] or [1.0]))
    drawing = Drawing(520, 320, "FROC: sensitivity against false positives a scan")
    x, y = linear((), 44, 500, low=0, high=max(most, 1.0)), linear((), 256, 42, low=0, high=1)
    framed(drawing, (44, 0, 520, 300), "FROC", x, y, ("False positives a scan", "Lesions found"))
    kept = [(name, [p for p in points if p[0] <= x.high]) for name, points in lines]
    _draw(drawing, x, y, kept, [label.shown_colour() for label in labels if label.name in curves])
    return drawing.render()


def risk_coverage(quality: Mapping[str, Any]) -> str:
    """Mean error of the cases kept, against the share kept when those of lowest score go to a person."""
    curve = quality["curve"]
    points = list(zip(curve["coverage"], curve["risk"], strict=True))
    drawing = Drawing(520, 300, "Risk and coverage of the quality score")
    x = linear((), 52, 500, low=0, high=1)
    y = linear([0, quality["aurc_random"], *curve["risk"]], 256, 42, low=0)
    framed(
        drawing, (52, 0, 520, 300), "Error of what is kept", x, y, ("Share of cases kept", "Mean of 1 − Dice")
    )
    everyone = quality["aurc_random"]
    drawing.line(x(0), y(everyone), x(1), y(everyone), stroke=MUTED, stroke_dasharray="4 3")
    drawing.text(x(0) + 4, y(everyone) - 5, "a score that knows nothing", **SMALL)
    drawing.path(polyline([(x(a), y(b)) for a, b in points]), "this score", stroke=SERIES[0], stroke_width=2)
    return drawing.render()


def class_curves(
    kind: str, curves: Mapping[str, Any], prevalence: Mapping[str, float | None], labels: Labels
) -> str:
    """ROC, precision-recall or decision curves, a line a class; ``kind`` is the key of the summary."""
    drawer = {"roc": _roc, "pr": _precision, "decision": _decision}[kind]
    known = [label for label in labels if any(len(v) > 1 for v in curves.get(label.name, {}).values())]
    return drawer({label.name: curves[label.name] for label in known}, prevalence, [x.shown_colour() for x in known]) if known else ""  # fmt: skip  # noqa: E501


def _roc(curves: Mapping[str, Any], _: Mapping[str, Any], colours: Sequence[str]) -> str:
    drawing, x, y = _square("ROC", "1 − specificity", "Sensitivity")
    drawing.line(x(0), y(0), x(1), y(1), stroke=MUTED, stroke_dasharray="4 3")
    _draw(
        drawing, x, y, [(n, list(zip(c["fpr"], c["tpr"], strict=True))) for n, c in curves.items()], colours
    )
    return drawing.render()


def _precision(curves: Mapping[str, Any], prevalence: Mapping[str, Any], colours: Sequence[str]) -> str:
    drawing, x, y = _square("Precision and recall", "Recall (sensitivity)", "Precision (PPV)")
    for (name, _), colour in zip(curves.items(), colours, strict=True):
        if (level := prevalence.get(name)) is not None:
            drawing.line(
                x(0), y(level), x(1), y(level), stroke=colour, stroke_opacity=0.5, stroke_dasharray="2 4"
            )
    _draw(drawing, x, y, [(n, list(zip(c["recall"], c["precision"], strict=True))) for n, c in curves.items()], colours)  # fmt: skip  # noqa: E501
    return drawing.render()


def _decision(curves: Mapping[str, Any], prevalence: Mapping[str, Any], colours: Sequence[str]) -> str:
    drawing = Drawing(346, 330, "Decision curves")
    best = [max(c["model"]) for c in curves.values()]
    x, y = linear((), 44, 330, low=0, high=1), linear([0, *best], 260, 42, low=-0.05 * max([*best, 0.1]))
    framed(drawing, (44, 0, 346, 330), "Decision curve", x, y, ("Threshold probability", "Net benefit"))
    drawing.line(x(0), y(0), x(1), y(0), stroke=INK, stroke_width=1.1)
    lines = []
    for (name, curve), colour in zip(curves.items(), colours, strict=True):
        model, everyone = (
            [(a, b) for a, b in zip(curve["threshold"], curve[k], strict=True) if b >= y.low]
            for k in ("model", "all")
        )
        if everyone:
            d = polyline([(x(a), y(b)) for a, b in everyone])
            drawing.path(d, f"{name}: treat all", stroke=colour, stroke_opacity=0.5, stroke_dasharray="2 4")
        lines.append((name, model))
    _draw(drawing, x, y, lines, colours)
    return drawing.render()


def calibration(curves: Mapping[str, Any], labels: Labels) -> str:
    """Observed against predicted share in bins, a line a class, and how many cases each bin holds."""
    known = [label for label in labels if curves.get(label.name, {}).get("n")]
    if not known:
        return ""
    drawing, x, y = _square("Calibration", "Predicted probability", "Observed share")
    drawing.line(x(0), y(0), x(1), y(1), stroke=MUTED, stroke_dasharray="4 3")
    most = max(n for label in known for n in curves[label.name]["n"]) or 1
    for label in known:
        found = curves[label.name]
        points = [
            (p, o, n) for p, o, n in zip(found["predicted"], found["observed"], found["n"], strict=True) if n
        ]
        colour = label.shown_colour()
        d = polyline([(x(p), y(o)) for p, o, _ in points])
        drawing.path(d, label.name, stroke=colour, stroke_width=1.4, stroke_opacity=0.6)
        for p, o, n in points:
            said = f"{label.name}: predicted {p:.2f}, observed {o:.2f}, {n} cases"
            drawing.dot(x(p), y(o), 2 + 5 * (n / most) ** 0.5, said, fill=colour, fill_opacity=0.8)
    return drawing.render()


def _square(title: str, below: str, beside: str) -> tuple[Drawing, Axis, Axis]:
    drawing = Drawing(346, 330, title)
    x, y = linear((), 44, 330, low=0, high=1), linear((), 260, 42, low=0, high=1)
    framed(drawing, (44, 0, 346, 330), title, x, y, (below, beside))
    return drawing, x, y


def _draw(drawing: Drawing, x: Axis, y: Axis, lines: Sequence[Line], colours: Sequence[str]) -> None:
    """Lines with their names below the plot, each with its own dash."""
    across = 2 if max((len(name) for name, _ in lines), default=0) > 14 else 3
    for i, ((name, points), colour) in enumerate(zip(lines, colours, strict=True)):
        dash = DASHES[i % len(DASHES)]
        style: dict[str, object] = {"stroke": colour, "stroke_width": 1.8}
        style |= {"stroke_dasharray": dash} if dash else {}
        if points:
            drawing.path(polyline([(x(a), y(b)) for a, b in points]), name, **style)
        if i < 2 * across:
            at = x.start + (x.end - x.start) / across * (i % across)
            level = drawing.height - 24 + 15 * (i // across)
            drawing.line(at, level, at + 18, level, **style)
            drawing.text(at + 22, level + 4, name[:18], **SMALL)
    drawing.line(x.start, y.start, x.end, y.start, stroke=LINE)
