"""The report: complete, self-contained, harmless, and the same bytes for the same input."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest

from medseg.evaluation.pairs import score_pair
from medseg.evaluation.policy import Scoring
from medseg.evaluation.report.context import ReportContext, history_of
from medseg.evaluation.report.contours import outlines
from medseg.evaluation.report.gallery import overlay_of
from medseg.evaluation.report.overlays import overlay_png, planes
from medseg.evaluation.report.page import render_page, render_report
from medseg.evaluation.report.svg import linear, stretched
from medseg.evaluation.summary import summarise
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels

LABELS = labels(organ=1, lesion=2)
GRID = Grid.from_spacing((32, 30, 12), (1, 1, 3))


def scan(seed=0, shift=0):
    rng = np.random.default_rng(seed)
    mask = np.zeros((1, *GRID.shape), np.uint8)
    mask[0, 8 + shift : 20 + shift, 8:20, 2:9] = 1
    mask[0, 12 + shift : 16 + shift, 12:16, 4:7] = 2
    grey = rng.normal(100, 10, (1, *GRID.shape)).astype(np.float32) + 60 * mask
    return Image(grey, GRID), Image(mask, GRID)


def context(n=6, **more) -> ReportContext:
    return ReportContext(**(known(n) | more))


@cache
def known(n):
    rows, overlays = [], []
    for i in range(n):
        image, reference = scan(i)
        _, mask = scan(i, shift=i % 3)
        mine = score_pair(mask if i else None, reference, LABELS, Scoring(), f"case{i}", f"p{i // 2}")
        rows += mine
        overlays.append(overlay_of(f"case{i}", image, reference, mask if i else None, mine, LABELS))
    epochs = [
        {"epoch": e, "loss": 1 / (e + 1), "dice_monitor": 1 - 1 / (e + 1), "rate": 1e-3} for e in range(5)
    ]
    return {
        "title": "A study",
        "rows": rows,
        "summary": summarise(rows),
        "labels": LABELS,
        "facts": {"seconds": 12.5, "plan": {"patch": (4, 4, 4), "why": {"patch": "fits"}}},
        "cohort": [
            {"case": f"case{i}", "patient": f"p{i // 2}", "part": "test" if i < 2 else "training",
             "spacing_mm": [1, 1, 3], "shape": [32, 30, 12], "groups": {"site": "A" if i else "B"}}
            for i in range(n)
        ],
        "refusals": [{"series": "s9", "case": None, "status": "refused", "reason": "gaps between slices"}],
        "failures": [{"case": "case7", "stage": "ingest", "message": "cut off"}],
        "histories": {"fold0": epochs, "fold1": epochs},
        "overlays": tuple(overlays),
    }  # fmt: skip


class Reader(HTMLParser):
    """Collects addresses and unclosed elements."""

    VOID = ("meta", "link", "input", "br", "image", "line", "rect")

    def __init__(self):
        super().__init__()
        self.addresses, self.open, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.addresses += [v for k, v in attrs if k in ("href", "src", "action")]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("href", "src")]

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_the_page_holds_every_section_and_closes_what_it_opens():
    page = render_page(context())
    reader = read(page)
    wanted = {
        "results",
        "distribution",
        "volumes",
        "gallery",
        "training",
        "cohort",
        "failures",
        "run",
        "definitions",
    }
    assert wanted <= set(reader.ids)
    assert reader.open == []
    for said in (
        "gaps between slices",
        "cut off",
        "plan",
        "12.5",
        "not predicted",
        "Research use",
    ):
        assert said in page


def test_the_page_asks_for_nothing_from_outside():
    page = render_page(context())
    assert all(a.startswith(("#", "data:")) for a in read(page).addresses)
    assert page.count("<script") == 1
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page)


def test_every_link_leads_to_a_place_on_the_page():
    reader = read(render_page(context()))
    assert {a[1:] for a in reader.addresses if a.startswith("#")} <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))


def test_the_page_runs_its_own_script_and_no_other():
    page = render_page(context())
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (allowed,) = re.findall(r"script-src '(sha256-[^']+)'", page)
    assert allowed == "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in page
    assert not re.search(r"\son[a-z]+=", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))


def test_the_same_input_gives_the_same_bytes(tmp_path):
    one, other = (render_report(context(), tmp_path / name).read_bytes() for name in ("a", "b"))
    assert one == other


def test_hostile_words_are_shown_and_not_run():
    bad = '<script>alert("x")</script>'
    rows = [{**r, "case": bad} if r["case"] == "case1" else r for r in context().rows]
    failures = [{"case": bad, "stage": bad, "message": bad}]
    page = render_page(context(rows=rows, summary=summarise(rows), failures=failures, title=bad))
    assert page.count("<script") == 1
    assert "&lt;script&gt;" in page


def test_a_bare_study_still_makes_a_page():
    bare = ReportContext(title="Bare", rows=[], summary=summarise([]))
    assert "nothing to judge" in render_page(bare)


def test_acceptance_criteria_are_shown_with_their_outcome():
    line = {
        "label": "mean",
        "metric": "dice",
        "criterion": ">= 0.8",
        "judged_at": "bad_end",
        "value": 0.7,
        "passed": False,
    }
    page = render_page(context(criteria=[line], passed=False))
    assert "Dice ≥ 0.8, mean over labels" in page
    assert "FAIL" in page


def test_every_case_is_a_dot_with_its_name():
    page = render_page(context())
    for i in range(6):
        assert page.count(f"<title>case{i}: ") >= 4


def test_histories_are_read_from_file_text_or_rows(tmp_path):
    text = "epoch,loss\n1,0.5\n2,\n"
    (tmp_path / "h.csv").write_text(text)
    assert history_of(tmp_path / "h.csv") == history_of(text) == {"epoch": [1.0, 2.0], "loss": [0.5, None]}
    assert history_of(tmp_path / "none.csv") == {}


def test_outlines_close_around_the_area_of_a_mask():
    mask = np.zeros((10, 12), bool)
    mask[2:6, 3:9] = True
    mask[8:, 11] = True
    hole = mask.copy()
    hole[3:5, 5:7] = False
    assert len(outlines(mask)) == 2
    assert len(outlines(hole)) == 3
    area = abs(sum(shoelace(loop) for loop in outlines(hole)))
    assert area == pytest.approx(22 - (4 + 4) * 0.125 + 4 * 0.125, abs=1e-9)
    assert outlines(np.zeros((3, 3), bool)) == []


def shoelace(loop):
    points = np.array([*loop, loop[0]])
    return float(np.sum(points[:-1, 0] * points[1:, 1] - points[1:, 0] * points[:-1, 1]) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_outlines_of_any_mask_enclose_the_area_of_its_cells(seed):
    mask = np.random.default_rng(seed).random((9, 9)) > 0.5
    wide = np.pad(mask, 1)
    corners = [wide[:-1, :-1], wide[:-1, 1:], wide[1:, :-1], wide[1:, 1:]]
    count = sum(c.astype(int) for c in corners)
    across = (corners[0] & corners[3] & (count == 2)) | (corners[1] & corners[2] & (count == 2))
    area = np.array([0, 1 / 8, 1 / 2, 7 / 8, 1])[count].sum() - across.sum() / 4
    assert abs(sum(shoelace(loop) for loop in outlines(mask))) == pytest.approx(area)


def test_planes_are_shown_upright_and_in_true_proportion():
    image, mask = scan()
    drawn, window = planes(image, mask, mask, LABELS)
    assert [p.name for p in drawn] == ["axial", "coronal", "sagittal"]
    axial, coronal, _ = drawn
    assert coronal.size_mm[1] == pytest.approx(coronal.grey.shape[0] * 3)
    assert axial.size_mm[0] == axial.grey.shape[1]
    assert "to" in window
    points = np.array([p for o in axial.outlines if o.side == "reference" for line in o.lines for p in line])
    inside = axial.grey[(points[:, 1].astype(int)).clip(0, axial.grey.shape[0] - 1), points[:, 0].astype(int)]
    assert np.median(inside) > 60


def test_orientation_of_the_file_does_not_change_the_picture():
    image, mask = scan()
    flipped = Grid(
        GRID.shape, GRID.affine @ np.array([[-1, 0, 0, 31], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    )
    turned = [Image(x.array[:, ::-1].copy(), flipped) for x in (image, mask)]
    one, other = planes(image, mask, mask, LABELS)[0], planes(turned[0], turned[1], turned[1], LABELS)[0]
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.grey, b.grey)
        assert a.outlines == b.outlines


def test_a_single_slice_is_one_plane_and_an_overlay_is_a_png():
    grid = Grid.from_spacing((40, 30, 1), (0.5, 0.5, 1))
    mask = np.zeros((1, 40, 30, 1), np.uint8)
    mask[0, 10:20, 10:20] = 1
    drawn, window = planes(None, Image(mask, grid), None, LABELS)
    assert [p.name for p in drawn] == ["axial"]
    assert window == "no image given"
    image, reference = scan()
    png = overlay_png(image, reference, reference, LABELS, width=300)
    assert png[:4] == b"\x89PNG"
    assert png == overlay_png(image, reference, reference, LABELS, width=300)


def test_axes_are_round_and_hold_every_value():
    axis = linear([0.31, 0.97], 0, 100)
    assert (axis.low, axis.high) == (0.2, 1.0)
    assert axis(0.2) == 0
    assert axis(1.0) == 100
    spread = stretched([0.1, 42.0], 0, 100)
    assert spread.ticks[-1] == 50
    assert spread(1) > 15
    assert linear([], 0, 1).ticks
    assert linear([2.0, 2.0], 0, 1).low < 2 < linear([2.0, 2.0], 0, 1).high


def test_an_interval_wider_than_the_cases_stays_on_its_axis():
    from medseg.evaluation.report.charts import distribution

    label = LABELS[0]
    rows = [
        {"case": f"c{i}", "label": label.name, "metric": "dice", "value": 0.9 + 0.01 * i, "status": "ok"}
        for i in range(5)
    ]
    cell = {"mean": 0.92, "mean_ci": (0.71, 0.99), "iqr": (0.91, 0.93), "median": 0.92}
    drawn = distribution(rows, {"labels": {label.name: {"dice": cell}}}, (label,), "dice", {})
    starts = [float(x) for x in re.findall(r'<line[^>]* x1="(-?[\d.]+)"', drawn)]
    assert min(starts) >= 30 + 6.6 * len(label.name)
