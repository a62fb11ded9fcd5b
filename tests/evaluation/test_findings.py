"""What the summary says beyond means, from rows and from folders."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.evaluation.agreement import bland_altman, icc
from medseg.evaluation.evaluate import evaluate_folders
from medseg.evaluation.policy import Scoring
from medseg.evaluation.summary import summarise
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image

QUICK = Scoring(repeats=200)


def row(case, metric, value, *, label="organ", status="ok", patient=None):
    who = {"case": case, "patient": patient or case, "label": label, "metric": metric}
    return who | {"value": value, "unit": "", "status": status}


def study(n=30, seed=0, label="organ"):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(5, 60, n)
    found = truth + rng.normal(1, 2, n)
    dice = rng.beta(9, 2, n)
    rows = []
    for i in range(n):
        for metric, value in (("dice", dice[i]), ("volume_pred", found[i]), ("volume_ref", truth[i])):
            rows.append(row(f"c{i:02d}", metric, float(value), label=label))
    return rows, found, truth, dice


def test_volumes_are_held_against_each_other():
    rows, found, truth, _ = study()
    rows += [
        row("lost", m, v, status="not_predicted") for m, v in (("volume_pred", 0.0), ("volume_ref", 9.0))
    ]
    cell = summarise(rows, QUICK)["agreement"]["organ"]
    wanted = bland_altman(found, truth)
    assert (cell["n"], cell["left_out"], cell["unit"]) == (30, 1, "ml")
    assert (cell["bias"], cell["limits"]) == (
        pytest.approx(wanted.bias),
        pytest.approx([wanted.lower, wanted.upper]),
    )
    assert cell["slope"] == pytest.approx(wanted.slope)
    assert cell["mean_absolute_error"] == pytest.approx(np.abs(found - truth).mean())
    forms = icc(np.stack([found, truth], axis=1))
    assert cell["icc"]["ICC(2,1)"]["value"] == pytest.approx(forms[0].value)
    assert "absolute agreement" in cell["icc"]["ICC(2,1)"]["words"]


def test_a_missed_structure_counts_with_its_nought_millilitres():
    rows, *_ = study(10)
    rows += [
        row("gone", "volume_pred", 0.0, status="missed"),
        row("gone", "volume_ref", 9.0, status="missed"),
    ]
    assert summarise(rows, QUICK)["agreement"]["organ"]["n"] == 11


def test_groups_make_a_table_of_differences():
    rows, _, truth, dice = study(40)
    groups = {f"c{i:02d}": {"site": "AB"[i % 2], "age": str(30 + i), "sex": "F"} for i in range(40)}
    found = summarise(rows, QUICK, {"groups": groups})
    table = found["subgroups"]["rows"]
    assert {r["grouping"] for r in table} == {"site", "age", "size in the reference"}
    site_b = next(r for r in table if r["grouping"] == "site" and r["group"] == "B")
    assert site_b["difference"] == pytest.approx(dice[1::2].mean() - dice[::2].mean())
    assert all(r["p_holm"] >= r["p"] for r in table)
    large = next(r for r in table if r["grouping"].startswith("size") and r["group"].startswith("3"))
    assert large["mean"] == pytest.approx(dice[truth > np.quantile(truth, 2 / 3)].mean())
    assert any(s["skewed_error_ratio"] for s in found["subgroups"]["spread"])
    assert "groups" not in found["facts"]


def test_slice_thickness_comes_from_the_images():
    rows, *_ = study(20)
    images = [{"case": f"c{i:02d}", "spacing_mm": [0.8, 0.8, 1 + 3.0 * (i % 2)]} for i in range(20)]
    table = summarise(rows, QUICK, {"images": images})["subgroups"]["rows"]
    seen = {r["group"] for r in table if r["grouping"] == "slice_thickness"}
    assert seen == {"2 1 to below 3 mm", "3 3 to below 5 mm"}


def test_few_cases_are_not_cut_up_unasked():
    assert "subgroups" not in summarise(study(14)[0], QUICK)


def test_the_sample_size_is_stated():
    rows, *_ = study(36)
    reached = summarise(rows, QUICK)["sample_size"][0]
    assert (reached["metric"], reached["patients_needed"]) == ("dice", 4 * 36)
    asked = summarise(rows, QUICK.but(half_widths={"dice": reached["half_width"] / 3}))["sample_size"][0]
    assert asked["patients_needed"] == 9 * 36
    assert "sample_size" not in summarise(study(1)[0], QUICK)


def test_lesions_are_pooled_over_cases():
    counts = [(3, 2, 2), (1, 4, 1), (0, 1, 0), (2, 0, 0)] * 5
    rows = []
    for i, of in enumerate(counts):
        names = ("lesions_ref", "lesions_pred", "lesions_found")
        rows += [row(f"c{i:02d}", m, float(v)) for m, v in zip(names, of, strict=True)]
    rows += [row("none", m, None, status="both_empty") for m in names]
    rows += [row("bad", m, None, status="invalid") for m in names]
    cell = summarise(rows, QUICK)["lesions"]["organ"]
    assert (cell["scans"], cell["reference"], cell["predicted"], cell["found"]) == (21, 30, 35, 15)
    assert cell["sensitivity"]["value"] == pytest.approx(15 / 30)
    assert cell["precision"]["value"] == pytest.approx(15 / 35)
    assert cell["f1"]["value"] == pytest.approx(30 / 65)
    assert cell["false_positives_per_scan"]["value"] == pytest.approx(20 / 21)
    for name in ("sensitivity", "precision", "f1", "false_positives_per_scan"):
        assert cell[name]["ci"][0] < cell[name]["value"] < cell[name]["ci"][1]
    assert "design effect" in cell["sensitivity"]["note"]


def test_a_quality_score_is_held_against_dice():
    rows, _, _, dice = study(40)
    quality = {f"c{i:02d}": float(dice[i]) for i in range(39)}
    found = summarise(rows, QUICK.but(failure_below=0.8), {"quality": quality})["quality"]
    assert (found["n"], found["without_score"], found["spearman"]) == (39, 1, pytest.approx(1))
    assert found["aurc"] == pytest.approx(found["aurc_ideal"])
    worst = found["reviews"][-1]
    assert worst["caught"] == min(worst["failures"], worst["reviewed"])
    assert len(found["curve"]["coverage"]) == len(found["curve"]["risk"]) == 39


def test_the_same_rows_give_the_same_bytes_with_every_part():
    rows, _, _, dice = study(40)
    facts = {"groups": {f"c{i:02d}": {"site": "AB"[i % 2]} for i in range(40)},
             "quality": {f"c{i:02d}": float(d) for i, d in enumerate(dice)}}  # fmt: skip
    one, other = (
        json.dumps(summarise(rows, QUICK, facts), sort_keys=True, allow_nan=False) for _ in range(2)
    )
    assert one == other


GRID = Grid.from_spacing((20, 12, 12))


def strip(file, n, grid=GRID):
    array = np.zeros((1, *grid.shape), np.uint8)
    array[0, :n] = 1
    write_image(Image(array, grid), file)


@pytest.fixture
def folders(tmp_path):
    for i in range(4):
        strip(tmp_path / "ref" / f"c{i}.nii.gz", 10)
        strip(tmp_path / "pred" / f"c{i}.nii.gz", 9)
        strip(tmp_path / "second" / f"c{i}.nii.gz", 8)
    return tmp_path


def test_tables_and_readers_beside_the_folders_are_used(folders):
    (folders / "groups.csv").write_text("case,site\nc0,A\nc1,A\nc2,B\nc3,B\n")
    (folders / "quality.csv").write_text("case,quality\nc0,0.9\nc1,0.8\nc2,0.7\nc3,0.6\n")
    done = evaluate_folders(
        folders / "pred", folders / "ref", folders / "out", "organ=1", quiet=True,
        groups=folders / "groups.csv", quality=folders / "quality.csv",
        readers={"second": folders / "second"},
    )  # fmt: skip
    found = json.loads((folders / "out" / "summary.json").read_text())
    assert {r["group"] for r in found["subgroups"]["rows"]} == {"A", "B"}
    assert found["quality"]["n"] == 4
    cell = found["readers"]["organ"]["dice"]
    assert cell["between_readers"]["mean"] == pytest.approx(16 / 18)
    assert cell["model_with_readers"]["mean"] == pytest.approx((18 / 19 + 16 / 17) / 2)
    assert cell["within"]["share"] == 1
    with (folders / "out" / "readers.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {(r["first"], r["second"]) for r in rows} == {
        ("reference", "second"), ("model", "reference"), ("model", "second")
    }  # fmt: skip
    assert done.failures == []
    assert set(found["facts"]) == {"images"}


def test_a_reader_who_cannot_be_used_is_left_out_and_named(folders):
    strip(folders / "second" / "c0.nii.gz", 8, Grid.from_spacing((20, 12, 12), (1, 1, 2)))
    done = evaluate_folders(
        folders / "pred", folders / "ref", folders / "out", "organ=1", quiet=True,
        readers={"second": folders / "second"},
    )  # fmt: skip
    summary = done.scores.summary()
    assert summary["readers"]["organ"]["dice"]["n"] == 3
    assert any("reader second is left out" in note for note in summary["notes"])


def test_groups_come_from_a_cohort_too(folders):
    cases = [{"id": f"c{i}", "groups": {"site": "AB"[i % 2]}} for i in range(4)]
    (folders / "cohort.json").write_text(json.dumps({"cases": cases}))
    done = evaluate_folders(
        folders / "pred", folders / "ref", folders / "out", quiet=True, groups=folders / "cohort.json"
    )
    assert done.scores.summary()["subgroups"]["rows"]


@pytest.mark.parametrize(
    ("option", "text"),
    [("groups", "{}"), ("quality", "case,score\na,1\n"), ("quality", "case,quality\na,much\n")],
)
def test_tables_that_cannot_be_read_are_refused(folders, option, text):
    file = folders / ("x.json" if text == "{}" else "x.csv")
    file.write_text(text)
    with pytest.raises(MedsegError, match="cannot be read"):
        evaluate_folders(folders / "pred", folders / "ref", folders / "out", quiet=True, **{option: file})


def test_a_reader_is_not_called_as_the_model_is(folders):
    with pytest.raises(MedsegError, match="cannot be called"):
        evaluate_folders(
            folders / "pred", folders / "ref", folders / "out", readers={"model": folders / "second"}
        )
