"""What a summary found is on the page, a section each, and nothing where nothing was found."""

from __future__ import annotations

import re

import numpy as np
import pytest

from medseg.evaluation.classification import class_rows
from medseg.evaluation.compare_page import compare_page, verdict
from medseg.evaluation.policy import LesionRule, Scoring
from medseg.evaluation.readers import reader_rows
from medseg.evaluation.report import cases, panels, tables
from medseg.evaluation.report.compare_plots import case_differences
from medseg.evaluation.report.context import ReportContext
from medseg.evaluation.report.curves import training_curves
from medseg.evaluation.report.gallery import gallery_cases, kinds, own_values, ranked
from medseg.evaluation.report.guide import GUIDE
from medseg.evaluation.report.overlays import ADDED, CONFUSED, MISSED, planes
from medseg.evaluation.report.page import render_page
from medseg.evaluation.report.pictures import SIDE, errors_svg, grey_uri, overlay_svg, thumb_svg
from medseg.evaluation.report.words import brief, methods
from medseg.evaluation.summary import summarise
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels

LABELS = labels(organ=1, lesion=2)
QUICK = Scoring(repeats=200, subgroup_minimum=3)


def row(case, value, metric="dice", label="organ", status="ok", unit=""):
    return {"case": case, "patient": case, "label": label, "metric": metric, "value": value, "unit": unit, "status": status}  # fmt: skip  # noqa: E501


def many(n=20):
    rng, found = np.random.default_rng(0), []
    for i in range(n):
        volume = float(rng.uniform(10, 60))
        found += [row(f"c{i:02}", float(rng.beta(20, 3)))]
        found += [row(f"c{i:02}", volume, "volume_ref", unit="ml")]
        found += [row(f"c{i:02}", volume * float(rng.normal(1, 0.1)), "volume_pred", unit="ml")]
        found += [
            row(f"c{i:02}", float(k), f"lesions_{m}") for m, k in (("ref", 3), ("pred", 3), ("found", 2))
        ]
        found += [row(f"c{i:02}", 0.6, "pq"), row(f"c{i:02}", 0.7, "sq"), row(f"c{i:02}", 0.8, "lesion_f1")]
    return found


def ids(page):
    return set(re.findall(r'<section id="([a-z]+)"', page))


@pytest.fixture(scope="module")
def page():
    rows = many()
    facts = {
        "groups": {f"c{i:02}": {"site": "AB"[i % 2], "sex": "FM"[i % 3 == 0]} for i in range(20)},
        "quality": {f"c{i:02}": float(i) for i in range(20)},
    }
    summary = summarise(rows, QUICK.but(lesions=LesionRule()), facts)
    lesions = summary["lesions"]["organ"]
    lesions["by_size"] = [
        {"size": "below 1 ml", "lesions": 10, "found": 4, "sensitivity": 0.4, "ci": [0.2, 0.6]},
        {"size": "1 ml and above", "lesions": 50, "found": 36, "sensitivity": 0.72, "ci": None},
    ]
    curve = {"false_positives": [0.1, 0.5, 1.0], "sensitivity": [0.3, 0.6, 0.7], "lesions": 31, "scans": 20}
    curve |= {"rates": [0.125, 1.0], "at_rates": [0.3, 0.7], "mean": 0.5, "ci": [0.41, 0.59]}
    summary["froc"] = {"organ": curve}
    context = ReportContext(
        "A study",
        rows,
        summary,
        labels(organ=1),
        flow=[
            {"n": 22, "what": "received", "note": "", "lost": [{"n": 2, "why": "gaps: 2 slices"}]},
            {"n": 20, "what": "evaluated", "patients": 19, "note": ""},
        ],
        beside={
            "columns": ["Training", "Test"],
            "rows": [{"what": "Age", "cells": ["61", "58"], "flag": "2 outside"}],
        },
        leakage={
            "passed": False,
            "checks": [{"what": "images", "n": 1, "of": 20, "passed": False, "note": "c03"}],
        },
        ranges=[{"case": "c01", "what": "spacing", "value": 5.0, "low": 1.0, "high": 2.0}],
        checklists=[
            {"name": "CLAIM 2024", "cite": "x", "items": [
                {"number": "1", "item": "Title", "said": "", "status": "author"},
                {"number": "2", "item": "Cases", "said": "20 <cases>", "status": "filled"}]}
        ],
        methods="Data. Twenty cases were tested.\n\nSoftware. One was used.",
    )  # fmt: skip
    return render_page(context)


def test_each_finding_has_its_section_and_its_guide(page):
    wanted = {"volumes", "lesions", "subgroups", "quality", "precision", "cohort", "checklists", "everyone"}
    assert wanted <= ids(page)
    for name in wanted - {"everyone"}:
        assert GUIDE[name].partition("Bad:")[2][:30].strip().replace("'", "&#39;") in page
    for said in ("ICC(2,1)", "4 / 10", "below 1 ml", "FROC", "p (Holm)", "Share of cases kept"):
        assert said in page


def test_validation_is_told_flow_leakage_ranges_checklists_and_methods(page):
    for said in (
        "− 2 gaps: 2 slices",
        "19 patients",
        "2 outside",
        "1 of 20",
        "1 to 2",
        "1 of 2 items filled",
    ):
        assert said in page
    assert "20 &lt;cases&gt;" in page
    assert "<b>Software.</b> One was used." in page


def test_a_bare_summary_has_no_empty_sections():
    found = ids(render_page(ReportContext("Bare", [row("a", 0.9)], summarise([row("a", 0.9)], QUICK))))
    assert not found & {"volumes", "lesions", "subgroups", "quality", "readers", "gallery", "cases", "classes", "checklists"}  # fmt: skip  # noqa: E501


def test_readers_stand_beside_the_model():
    grid = Grid.from_spacing((12, 12, 6))
    masks = []
    for shift in range(3):
        array = np.zeros((1, *grid.shape), np.uint8)
        array[0, 2 + shift : 9 + shift, 2:9, 1:5] = 1
        masks.append(Image(array, grid))
    scoring = QUICK.but(metrics=("dice",))
    read = [r for c in "ab" for r in reader_rows(masks[0], {"r1": masks[1], "r2": masks[2]}, labels(organ=1), scoring, c)]  # fmt: skip  # noqa: E501
    page = render_page(
        ReportContext("R", [row("a", 0.9)], summarise([row("a", 0.9)], scoring, {"readers": read}))
    )
    assert "Readers with each other" in page


def classes(n=30):
    rng, rows = np.random.default_rng(1), []
    for i in range(n):
        truth = "xyz"[i % 3]
        p = rng.dirichlet([4 if c == truth else 1 for c in "xyz"])
        rows += class_rows(f"c{i:02}", f"c{i:02}", dict(zip("xyz", map(float, p), strict=True)), truth, "xyz")
    return rows


def test_a_classification_shows_its_curves_and_names_what_was_called_wrongly():
    rows = classes()
    context = ReportContext("C", rows, summarise(rows, QUICK))
    page = render_page(context)
    assert {"classes", "calibration"} <= ids(page)
    for said in ("ROC", "Precision and recall", "Decision curve", "Calibration", "Confusion matrix"):
        assert said in page
    found = cases.entries(context)
    for entry in found:
        probabilities = {r["label"]: r["value"] for r in rows if r["case"] == entry.case and r["metric"] == "probability"}  # fmt: skip  # noqa: E501
        called = max(probabilities, key=lambda name: probabilities[name])
        true = "xyz"[int(entry.case[1:]) % 3]
        assert entry.tags == (() if called == true else (f"called {called}",))
    assert own_values(rows, "c00")[0] == "Reference: x"


def test_cases_are_ranked_worst_first_and_kinds_come_from_the_ends_and_the_middle():
    rows = [row(f"c{i:03}", i / 200) for i in range(200)]
    assert list(ranked(rows))[:2] == ["c000", "c001"]
    shown = gallery_cases(rows, 24)
    assert shown[:12] == [f"c{i:03}" for i in range(12)]
    assert shown[-6:] == [f"c{i:03}" for i in range(194, 200)]
    assert all(90 < int(case[1:]) < 110 for case in shown[12:18])
    kind = kinds(rows)
    assert [kind.get(c) for c in ("c000", "c100", "c199", "c050")] == ["worst", "typical", "best", None]
    assert gallery_cases(rows[:10], 24) == [f"c{i:03}" for i in range(10)]
    assert kinds([row("a", 0.5)]) == kinds([]) == {}


def test_every_case_has_a_place_even_one_without_a_picture_or_a_value():
    rows = [row("a", 0.5), row("b", None, status="both_empty"), row("c", 0.0, status="missed")]
    found = cases.entries(
        ReportContext("x", rows, summarise(rows, QUICK), cohort=[{"case": "a", "groups": {"site": "N"}}])
    )
    assert [(e.case, e.rank, e.status) for e in found] == [("c", 1, "missed"), ("a", 2, ""), ("b", 0, "")]
    assert len({e.anchor for e in found}) == 3
    assert found[1].groups == ("site: N",)


def two_masks(shape=(40, 30, 20), spacing=(1, 1, 2)):
    grid = Grid.from_spacing(shape, spacing)
    truth, guess = (np.zeros((1, *shape), np.uint8) for _ in range(2))
    truth[0, 5:15, 5:15, 4:12] = 1
    guess[0, 5:15, 5:15, 4:12] = 1
    truth[0, 25:33, 20:27, 13:17] = 2
    guess[0, 10, 10, 6] = 2
    guess[0, 2, 2, 2] = 1
    return Image(truth, grid), Image(guess, grid)


def test_planes_go_through_the_largest_error_and_tell_its_kinds():
    truth, guess = two_masks()
    drawn, _ = planes(None, truth, guess, LABELS)
    assert all((plane.errors == MISSED).sum() >= 28 for plane in drawn)
    both = np.zeros_like(truth.array)
    both[0, 5:15, 5:15, 4:12] = 1
    kinds_seen = {
        int(k) for shown in planes(None, truth.but(both), guess, LABELS)[0] for k in np.unique(shown.errors)
    }
    assert kinds_seen & {ADDED, CONFUSED}
    same, _ = planes(None, truth, truth, LABELS)
    assert not any(plane.errors.any() for plane in same)


def test_pictures_are_stored_once_and_shown_again_by_reference():
    truth, guess = two_masks()
    drawn, _ = planes(None, truth, guess, LABELS)
    first, second, third = overlay_svg(drawn, "ab"), errors_svg(drawn, "ab"), thumb_svg(drawn, "ab")
    assert first.count("<image") == 3
    assert 'href="#g0-ab"' in second
    assert "<image" not in third
    made = set(re.findall(r'id="([^"]+)"', first))
    assert set(re.findall(r'href="#([^"]+)"', second + third)) <= made


def test_a_large_picture_is_averaged_down_and_stays_small():
    rng = np.random.default_rng(0)
    big = rng.integers(0, 255, (1024, 512), dtype=np.uint8)
    uri = grey_uri(big)
    assert uri.startswith("data:image/jpeg")
    assert len(uri) < 150_000
    assert uri == grey_uri(big)
    assert grey_uri(big[:50, :50]).startswith("data:image/png")
    assert SIDE < 512


def test_a_picture_without_pixel_size_is_measured_in_pixels():
    grid = Grid((40, 30, 1), np.eye(4), spacing_known=False)
    mask = np.zeros((1, 40, 30, 1), np.uint8)
    mask[0, 10:20, 10:20] = 1
    drawn, _ = planes(None, Image(mask, grid), None, labels(a=1))
    svg = overlay_svg(drawn)
    assert re.search(r">\d+ px<", svg)
    assert " mm<" not in svg


def test_methods_say_what_was_done_about_other_grids():
    rows = [row("a", 0.9)]
    for resample, said in ((True, "resampled onto"), (False, "nothing resampled")):
        context = ReportContext("x", rows, summarise(rows, QUICK.but(resample=resample)))
        assert said in methods(context)[0]["text"]


def test_the_first_screen_says_on_what_and_how_sure():
    rows = many()
    said = dict(brief(ReportContext("x", rows, summarise(rows, QUICK), labels(organ=1))))
    assert said["On what"].startswith("20 cases of 20 patients; labels organ")
    assert "takes 80" in said["How sure"]


def test_training_shows_rate_waiting_and_the_time_of_each_epoch():
    text = "epoch,loss,rate,wait_share,monitor_dice,seconds\n1,1.0,0.1,0.01,0.5,10\n2,0.5,0.05,0.02,0.8,30\n"
    drawn = training_curves({"fold0": text})
    for said in ("Loss", "Learning rate", "waiting for data", "Seconds an epoch", "best 0.8000 at epoch 2"):
        assert said in drawn
    assert training_curves({}) == ""


def test_a_forest_marks_small_groups_and_clear_differences():
    base = {
        "grouping": "site",
        "label": "organ",
        "metric": "dice",
        "patients": 9,
        "n": 9,
        "difference_ci": [-0.2, -0.1],
    }
    rows = [
        base
        | {
            "group": "A<b>",
            "small": True,
            "mean": 0.8,
            "mean_ci": [0.7, 0.9],
            "difference": -0.1,
            "p_holm": 0.01,
        },
        base
        | {"group": "B", "small": False, "mean": 0.9, "mean_ci": None, "difference": None, "p_holm": None},
    ]
    drawn = panels.forest(rows, "dice", 0.85)
    assert "A&lt;b&gt;" in drawn
    assert "few" in drawn
    assert "0.010" in drawn
    assert panels.forest([], "dice", None) == ""


def comparison(difference, p, metric="dice"):
    return {"label": "organ<i>", "metric": metric, "n": 3, "unit": "",
            "mean_a": 0.5, "mean_b": 0.5 + difference,
            "difference": difference, "ci": [difference - 0.1, difference + 0.1], "p": p, "p_holm": p,
            "b_better": 2, "ties": 0, "a_better": 1, "b_first": 0.9}  # fmt: skip


def test_a_comparison_says_who_is_better_and_lists_what_changed():
    cells = [comparison(0.2, 0.01), comparison(1.5, 0.01, "hd95")]
    assert "B is better in 1 and worse in 1 beyond chance" in verdict(cells)
    assert verdict([comparison(0.2, 0.5)]).startswith("No difference beyond chance in 1 comparison ")
    a = [row(f"c{i}", 0.5, label="organ<i>") for i in range(3)]
    b = [row(f"c{i}", 0.5 + 0.1 * i, label="organ<i>") for i in range(3)]
    page = compare_page(
        cells, {"conventions": {"test": "x"}, "only_in_one": {"a": [], "b": ["<c9>"]}}, (a, b)
    )
    assert page.index("c0</td>") < page.index("c2</td>")
    assert "&lt;c9&gt;" in page
    assert "<i>" not in page
    assert [c["b"] - c["a"] for c in case_differences(a, b, "dice")] == pytest.approx([0, 0.1, 0.2])


def test_flow_made_from_the_cohort_has_no_losses_of_its_own():
    rows = [row("a", 0.9)]
    boxes = tables.flow(
        ReportContext("x", rows, summarise(rows, QUICK), cohort=[{"case": "a", "patient": "p"}])
    )
    assert [box["what"] for box in boxes] == ["taken", "measured"]


def test_a_page_made_again_from_the_table_has_the_same_bytes(tmp_path):
    from medseg.evaluation.evaluate import write_results
    from medseg.evaluation.scoring import Scores

    facts = {
        "groups": {"c00": {"site": "A"}},
        "images": [{"case": "c00", "shape": [1, 1, 1], "spacing_mm": [1, 1, 1]}],
    }
    rows = [r | {"value": r["value"] + 1e-12} for r in many(16)]
    first = write_results(tmp_path / "a", Scores(rows, QUICK, facts=dict(facts)), [], labels(organ=1), [])
    table = Scores.from_csv(tmp_path / "a" / "scores.csv", QUICK)
    table.facts = dict(facts)
    again = write_results(tmp_path / "b", table, [], labels(organ=1), [])
    assert first.read_bytes() == again.read_bytes()
    assert (tmp_path / "a" / "summary.json").read_bytes() == (tmp_path / "b" / "summary.json").read_bytes()
    assert "site: A" in first.read_text()


def test_the_part_validation_of_a_summary_fills_what_nobody_gave():
    span = {"low": 1.0, "median": 2.0, "high": 3.0}
    parts = {
        "flow": {
            "steps": [{"name": n, "cases": c, "patients": c} for n, c in (("received", 3), ("evaluated", 2))],
            "left": [{"after": "received", "why": "refused", "reason": "gaps", "n": 1, "cases": ["c9"]}],
            "skipped": 4,
        },
        "populations": {
            "train_cases": 9,
            "test_cases": 2,
            "rows": [{"quantity": "spacing", "train": span, "test": None, "outside": 1}],
        },
        "out_of_range": [{"case": "a", "quantity": "size", "value": 9.0, "low": 1.0, "high": 2.0}],
        "leakage": {"status": "found", "said": "1 of 2 images is a copy", "how": "by sha256", "images": ["a"],
                    "patients": [], "cases": 2, "kept": True},
        "methods": [{"title": "Data", "text": "Two cases."}],
        "checklists": {"CLAIM 2024": [
            {"item": "1", "topic": "Title", "asks": "?", "answer": "", "by": "author"}]},
    }  # fmt: skip
    rows = [row("a", 0.9)]
    context = ReportContext("x", rows, summarise(rows, QUICK) | {"validation": parts})
    page = render_page(context)
    for said in ("− 1 refused: gaps", "4 series beside", "2 (1 to 3)", "not known", "1 outside", "1 of 2",
                 "NOT AN INDEPENDENT TEST: 1 of 2 images is a copy", "<b>Data.</b> Two cases.",
                 "CLAIM 2024: 0 of 1 items filled"):  # fmt: skip
        assert said in page
    unchecked = parts["leakage"] | {"status": "unchecked", "said": "cannot be checked"}
    page = render_page(ReportContext("x", rows, context.summary | {"validation": {"leakage": unchecked}}))
    assert "cannot be told" in page
    assert "NOT AN INDEPENDENT" not in page
    given = ReportContext("x", rows, context.summary, methods="Ours. Mine.")
    assert "<b>Ours.</b> Mine." in render_page(given)
