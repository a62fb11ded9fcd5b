"""Audit: what is wrong or unusual, said before training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg.core.run import Run
from medseg.data.audit import Finding, audit, must_fix, summary, table
from medseg.data.cohort import Cohort, Ingesting
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.stages.ingest import ingest

SPACING = (1.0, 1.0, 2.0)


def scan(seed: int, shape: tuple[int, int, int] = (12, 12, 12), scale: float = 1, k_mm: float = 2.0) -> Image:
    values = np.random.default_rng(seed).normal(0, 100, (1, *shape)) * scale
    return Image(values.astype(np.float32), Grid.from_spacing(shape, (1.0, 1.0, k_mm)))


def organ(image: Image, edge: int = 6, stray: bool = False) -> Image:
    array = np.zeros(image.array.shape, np.uint8)
    array[0, 1 : 1 + edge, 1 : 1 + edge, 1 : 1 + edge] = 1
    if stray:
        array[0, -1, -1, -1] = 1
    return image.but(array)


def write_case(root: Path, name: str, image: Image, mask: Image | None) -> None:
    write_image(image, root / "images" / f"{name}.nii.gz")
    if mask is not None:
        write_image(mask, root / "labels" / f"{name}.nii.gz")


@pytest.fixture
def examine(tmp_path: Path) -> Callable[..., list[Finding]]:
    """Twelve plain cases and those that `add` writes, ingested and audited."""

    def run_it(add: Callable[[Path], None], labels: str = "organ=1", need: bool = True) -> list[Finding]:
        root = tmp_path / "set"
        for n in range(12):
            image = scan(n)
            write_case(root, f"plain{n}", image, organ(image))
        add(root)
        cohort = Cohort.open(root, labels=labels, format="nifti", need_reference=need)
        run = Run(tmp_path / "run", quiet=True)
        items = {case.id: case for case in cohort.cases}
        made = run.map(ingest, items, channels=cohort.channels, labels=cohort.labels, settings=Ingesting())
        return audit(made, cohort, {k: f.public for k, f in made.failed.items()}, quiet=True)

    return run_it


def of(findings: list[Finding], words: str) -> list[Finding]:
    return [f for f in findings if words in f.what]


def test_a_plain_cohort_raises_nothing(examine: Callable[..., list[Finding]]) -> None:
    findings = examine(lambda root: None)
    assert findings == []
    assert table(findings) == "nothing unusual found"
    assert not must_fix(findings)


def test_odd_spacing_shape_and_volume_are_named(examine: Callable[..., list[Finding]]) -> None:
    def add(root: Path) -> None:
        thick = scan(20, k_mm=10.0)
        write_case(root, "thick", thick, organ(thick))
        large = scan(21, shape=(40, 40, 40))
        write_case(root, "large", large, organ(large, edge=20))

    findings = examine(add)
    assert [f.case for f in of(findings, "spacing is far")] == ["thick"]
    assert "large" in [f.case for f in of(findings, "field of view")]
    assert "large" in [f.case for f in of(findings, "volume of organ")]
    assert not must_fix(findings)


def test_intensity_regimes_are_counted(examine: Callable[..., list[Finding]]) -> None:
    def add(root: Path) -> None:
        for n in range(3):
            bright = scan(30 + n, scale=1e4)
            write_case(root, f"bright{n}", bright, organ(bright))

    (finding,) = of(examine(add), "orders of magnitude")
    assert "about 1e2: 12, about 1e6: 3" in finding.evidence


def test_stray_components_and_forgotten_labels_are_named(examine: Callable[..., list[Finding]]) -> None:
    def add(root: Path) -> None:
        image = scan(40)
        write_case(root, "stray", image, organ(image, stray=True))
        empty = scan(41)
        write_case(root, "empty", empty, empty.but(np.zeros(empty.array.shape, np.uint8)))

    findings = examine(add)
    (stray,) = of(findings, "stray components")
    assert (stray.case, stray.evidence) == ("stray", "components of 1 voxels beside one of 216")
    assert [f.case for f in of(findings, "reference is empty")] == ["empty"]


def test_a_label_that_no_case_holds_must_be_fixed(examine: Callable[..., list[Finding]]) -> None:
    findings = examine(lambda root: None, labels="organ=1,ghost=2")
    assert must_fix(findings)
    assert findings[0].what == "label ghost (2) occurs in no case"


def test_copies_under_two_patients_must_be_fixed_even_when_zipped_again(
    examine: Callable[..., list[Finding]],
) -> None:
    def add(root: Path) -> None:
        image = scan(0)  # the voxels of plain0, written as another type: other bytes, equal values
        write_case(root, "twin", image.but(image.array.astype(np.float64)), organ(image))

    findings = examine(add)
    assert [f.evidence for f in of(findings, "same image stands under")] == ["plain0 = twin"]
    assert must_fix(findings)


def test_one_file_given_as_two_channels_must_be_fixed(tmp_path: Path) -> None:
    for channel in ("t1", "t2"):
        write_image(scan(1), tmp_path / "set" / "a" / f"{channel}.nii.gz")
    cohort = Cohort.open(tmp_path / "set")
    run = Run(tmp_path / "run", quiet=True)
    made = run.map(
        ingest, {"a": cohort["a"]}, channels=cohort.channels, labels=cohort.labels, settings=Ingesting()
    )
    findings = audit(made, cohort, quiet=True)
    assert [f.what for f in findings if f.severity == "fix"] == ["two channels are the same image"]


def test_refused_and_reference_less_cases_must_be_fixed(examine: Callable[..., list[Finding]]) -> None:
    def add(root: Path) -> None:
        write_case(root, "alone", scan(50), None)
        flat = Image(np.ones((1, 12, 12, 12), np.float32), Grid.from_spacing((12, 12, 12), SPACING))
        write_case(root, "flat", flat, organ(flat))

    findings = examine(add)
    assert [f.case for f in of(findings, "when the data set was read")] == ["alone"]
    (flat,) = of(findings, "refused at ingest")
    assert "all 1728 voxels are 1" in flat.evidence
    findings = examine(lambda root: None, need=False)
    assert [f.case for f in of(findings, "has no reference")] == ["alone"]


def test_the_summary_is_json_and_the_table_is_short(examine: Callable[..., list[Finding]]) -> None:
    def add(root: Path) -> None:
        for n in range(8):
            image = scan(60 + n)
            write_case(root, f"s{n}", image, organ(image, stray=True))

    findings = examine(add)
    content = json.loads(json.dumps(summary(findings)))
    assert content["must_fix"] is False
    assert content["look"] == len(content["findings"]) == 8
    text = table(findings)
    assert "(8 cases)" in text
    assert "... and 3 more" in text
    assert text.count("mend:") == 1


def test_the_hippocampus_blemishes_are_found(shared_data: Path, tmp_path: Path) -> None:
    cohort = Cohort.open(shared_data / "hippocampus_dirty", labels="Anterior=1,Posterior=2")
    run = Run(tmp_path, quiet=True)
    items = {case.id: case for case in cohort.cases}
    made = run.map(ingest, items, channels=cohort.channels, labels=cohort.labels, settings=Ingesting())
    findings = audit(made, cohort, quiet=True)
    assert {f.case for f in findings if f.severity == "fix"} == {"hippocampus_118", "hippocampus_281"}
    assert [f.case for f in of(findings, "stray")] == ["hippocampus_156"]
    assert of(findings, "orders of magnitude")


def test_case_ids_that_may_name_somebody_are_counted_not_shown(tmp_path: Path) -> None:
    names = ["Muster_Hans", "scan_1957-03-12", *(f"Zugspitze-{n}" for n in range(4)), "case_1"]
    for n, name in enumerate(names):
        write_case(tmp_path, name, scan(n), None)
    cohort = Cohort.open(tmp_path, format="nifti", ids="names")
    (finding,) = of(audit({}, cohort, quiet=True), "who somebody is")
    assert (finding.severity, finding.evidence) == ("look", "2 of 7 ids")
    safe = Cohort.open(tmp_path, format="nifti", ids="hashed")
    assert not of(audit({}, safe, quiet=True), "who somebody is")
