"""Bad input: every fault names case, evidence and mend, and the other cases finish."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.core.files import write_json
from medseg.core.run import Results, Run
from medseg.data.cohort import Cohort, Ingesting
from medseg.data.tables import write_ingest_table
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, read_image, read_mask, write_image
from medseg.stages.ingest import ingest

MakeMsd = Callable[..., Path]
SHAPE = (8, 9, 10)
GRID = Grid.from_spacing(SHAPE, (1.0, 1.5, 2.0))


def taken_in(root: Path, settings: Ingesting | None = None, **options: object) -> tuple[Results, Run, Cohort]:
    """Open, ingest, and write the table, as `ingest_all` does."""
    cohort = Cohort.open(root, **options)
    run = Run(root.with_name("run"), quiet=True)
    made = run.map(
        ingest,
        {case.id: case for case in cohort.cases},
        channels=cohort.channels,
        labels=cohort.labels,
        settings=settings or Ingesting(),
    )
    write_ingest_table(run.root / "ingest.csv", cohort, {k: f.public for k, f in made.failed.items()})
    return made, run, cohort


def the_one_failure(made: Results) -> str:
    """The message of the bad case a_2, after checking that the good ones are there."""
    assert sorted(made) == ["a_1", "a_3"]
    message = made.failed["a_2"].message
    assert message.startswith("case a_2: ")
    assert "\n  seen: " in message
    assert "\n  mend: " in message
    return message


def table(run: Run) -> dict[str, dict[str, str]]:
    with (run.root / "ingest.csv").open(newline="") as stream:
        return {row["series"]: row for row in csv.DictReader(stream)}


def put_reference(root: Path, array: np.ndarray, grid: Grid = GRID, case: str = "a_2") -> None:
    write_image(Image(array[None] if array.ndim == 3 else array, grid), root / "labelsTr" / f"{case}.nii.gz")


def box(value: float, kind: type = np.uint8) -> np.ndarray:
    array = np.zeros(SHAPE, kind)
    array[2:5, 2:5, 2:5] = value
    return array


def test_a_clean_set_goes_through(msd: MakeMsd) -> None:
    made, run, _ = taken_in(msd())
    assert sorted(made) == ["a_1", "a_2", "a_3"]
    assert {row["status"] for row in table(run).values()} == {"taken"}
    folder = made["a_1"].path
    assert sorted(p.name for p in folder.iterdir()) == [
        "image.nii.gz", "record.json", "reference.nii.gz", "source.json",
    ]  # fmt: skip
    assert read_mask(folder / "reference.nii.gz").array.dtype == np.uint8


def test_a_missing_file(msd: MakeMsd) -> None:
    root = msd()
    (root / "imagesTr" / "a_2.nii.gz").unlink()
    made, run, cohort = taken_in(root)
    assert sorted(made) == ["a_1", "a_3"]
    (row,) = cohort.refused
    assert (row.case, row.status) == ("a_2", "refused")
    assert row.reason.startswith("the image file is not there; correct the path")
    assert table(run)["a_2"]["status"] == "refused"


def test_the_console_hears_which_file_is_missing_and_the_table_does_not(
    msd: MakeMsd, caplog: pytest.LogCaptureFixture
) -> None:
    root = msd()
    (root / "labelsTr" / "a_2.nii.gz").unlink()
    _, run, _ = taken_in(root)
    assert "labelsTr/a_2.nii.gz" in caplog.text
    assert "labelsTr" not in (run.root / "ingest.csv").read_text()


def test_a_truncated_file(msd: MakeMsd) -> None:
    root = msd()
    file = root / "imagesTr" / "a_2.nii.gz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    made, *_ = taken_in(root)
    assert "cannot be read to its end" in the_one_failure(made)


def test_a_truncated_reference_is_called_a_reference(msd: MakeMsd) -> None:
    root = msd()
    file = root / "labelsTr" / "a_2.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])
    made, *_ = taken_in(root)
    assert "reference: the file cannot be read" in the_one_failure(made)


def test_a_reference_of_another_shape_shows_both_grids(msd: MakeMsd) -> None:
    root = msd()
    put_reference(root, box(1)[:, :, :7], Grid((8, 9, 7), GRID.affine))
    made, *_ = taken_in(root)
    message = the_one_failure(made)
    assert "do not lie on the same grid" in message
    assert "image shape (8, 9, 10), affine [" in message
    assert "reference shape (8, 9, 7), affine [" in message


def test_a_reference_5_mm_away_shows_both_affines(msd: MakeMsd) -> None:
    root = msd()
    moved = GRID.affine.copy()
    moved[2, 3] += 5
    put_reference(root, box(1), Grid(SHAPE, moved))
    made, *_ = taken_in(root)
    message = the_one_failure(made)
    assert "0 0 2 0]" in message
    assert "0 0 2 5]" in message


def test_a_mirrored_reference_is_refused(msd: MakeMsd) -> None:
    root = msd()
    put_reference(root, box(1), Grid(SHAPE, GRID.affine @ np.diag([-1.0, 1, 1, 1])))
    made, *_ = taken_in(root)
    assert "do not lie on the same grid" in the_one_failure(made)


def test_a_value_outside_the_labels_is_shown_with_its_voxels(msd: MakeMsd) -> None:
    root = msd()
    array = box(1)
    array[0, 0, :3] = 7
    put_reference(root, array)
    made, *_ = taken_in(root)
    message = the_one_failure(made)
    assert "0: 690, 1: 27, 7: 3; labels: organ=1" in message
    assert "ingest.label_map.7=0" in message


def test_a_0_255_mask_gets_a_mapping_proposed_and_the_mapping_works(msd: MakeMsd) -> None:
    root = msd()
    put_reference(root, box(255))
    made, *_ = taken_in(root)
    assert "if 255 means organ: ingest.label_map.255=1" in the_one_failure(made)
    made, *_ = taken_in(root, Ingesting(label_map={255: 1}))
    assert np.unique(read_mask(made["a_2"] / "reference.nii.gz").array).tolist() == [0, 1]


def test_a_grey_mask_gets_a_threshold_proposed_and_the_threshold_works(msd: MakeMsd) -> None:
    root = msd()
    array = box(255)
    array[1, 2:5, 2:5] = 90
    put_reference(root, array)
    made, *_ = taken_in(root)
    assert "ingest.label_threshold=127" in the_one_failure(made)
    made, *_ = taken_in(root.with_name("set"), Ingesting(label_threshold=127))
    assert read_mask(made["a_2"] / "reference.nii.gz").array.sum() == 27


def test_a_map_to_a_value_that_is_no_label_is_refused(msd: MakeMsd) -> None:
    root = msd()
    put_reference(root, box(255))
    made, *_ = taken_in(root, Ingesting(label_map={255: 9}))
    assert "255: 27; labels: organ=1" in the_one_failure(made)


def test_float_labels_with_whole_values_are_taken(msd: MakeMsd) -> None:
    root = msd()
    put_reference(root, box(0.99999997, np.float32))
    made, *_ = taken_in(root)
    assert sorted(made) == ["a_1", "a_2", "a_3"]
    assert read_mask(made["a_2"] / "reference.nii.gz").array.max() == 1


def test_resampled_float_labels_are_refused(msd: MakeMsd) -> None:
    root = msd()
    array = box(1, np.float32)
    array[1, 2:5, 2:5] = 0.5
    put_reference(root, array)
    made, *_ = taken_in(root)
    message = the_one_failure(made)
    assert "not whole numbers" in message
    assert "0.5: 9" in message
    assert "label_threshold=0.5" in message


def test_voxels_that_are_not_numbers_are_counted(msd: MakeMsd) -> None:
    root = msd()
    array = np.ones(SHAPE, np.float32)
    array[0, 0, :4] = np.nan
    write_image(Image(array[None], GRID), root / "imagesTr" / "a_2.nii.gz")
    made, *_ = taken_in(root)
    assert "4 of 720 voxels are NaN or infinite" in the_one_failure(made)


def test_a_constant_image_is_refused_with_its_value(msd: MakeMsd) -> None:
    root = msd()
    write_image(Image(np.full((1, *SHAPE), -1024, np.int16), GRID), root / "imagesTr" / "a_2.nii.gz")
    made, *_ = taken_in(root)
    assert "all 720 voxels are -1024" in the_one_failure(made)


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for case, length in (("a_1", 10), ("a_2", 9), ("a_3", 10)):
        for seed, (channel, n) in enumerate((("t1", 10), ("t2", length))):
            values = np.random.default_rng(seed).normal(size=(1, 8, 9, n)).astype(np.float32)
            write_image(Image(values, Grid((8, 9, n), GRID.affine)), root / case / f"{channel}.nii.gz")
    made, *_ = taken_in(root)
    assert "channels t1 and t2 do not lie on the same grid" in the_one_failure(made)
    assert sorted(p.name for p in made["a_1"].path.glob("image*")) == ["image_t1.nii.gz", "image_t2.nii.gz"]


def test_a_missing_channel_is_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for case, channels in (("a_1", ("t1", "t2")), ("a_2", ("t1",)), ("a_3", ("t1", "t2"))):
        for n, channel in enumerate(channels):
            values = np.random.default_rng(n).normal(size=(1, *SHAPE)).astype(np.float32)
            write_image(Image(values, GRID), root / case / f"{channel}.nii.gz")
    made, _, cohort = taken_in(root)
    assert sorted(made) == ["a_1", "a_3"]
    assert cohort.refused[0].case == "a_2"
    assert "missing: t2; there: t1" in cohort.refused[0].reason


def test_a_file_with_more_channels_than_said_is_refused(msd: MakeMsd) -> None:
    root = msd()
    values = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    write_image(Image(values, GRID), root / "imagesTr" / "a_2.nii.gz")
    made, *_ = taken_in(root)
    assert "3 in the file, 1 expected (CT)" in the_one_failure(made)


def test_a_file_that_is_no_image_is_refused(msd: MakeMsd) -> None:
    root = msd()
    (root / "imagesTr" / "a_2.nii.gz").write_text("this is not an image")
    made, *_ = taken_in(root)
    assert "cannot be read" in the_one_failure(made)


def test_a_case_without_reference_is_refused_where_one_is_required(tmp_path: Path) -> None:
    root = tmp_path / "set"
    values = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    write_image(Image(values, GRID), root / "a_2.nii.gz")
    made, *_ = taken_in(root)
    assert sorted(made) == ["a_2"]
    made, *_ = taken_in(root, Ingesting(require_reference=True))
    assert "an image without a reference, where one is required" in made.failed["a_2"].message


def test_an_empty_reference_is_taken_with_a_note(msd: MakeMsd) -> None:
    root = msd()
    put_reference(root, box(0))
    made, *_ = taken_in(root)
    assert "the reference is empty" in (made["a_2"] / "source.json").read_text()


def test_a_case_id_given_twice_is_refused_and_the_others_finish(tmp_path: Path) -> None:
    root = tmp_path / "set"
    lines = ["case,image"]
    for n, case in enumerate(["a_1", "a_2", "a_2", "a_3"]):
        values = np.random.default_rng(n).normal(size=(1, *SHAPE)).astype(np.float32)
        write_image(Image(values, GRID), root / f"{n}.nii.gz")
        lines.append(f"{case},{n}.nii.gz")
    (root / "list.csv").write_text("\n".join(lines))
    made, _, cohort = taken_in(root / "list.csv")
    assert sorted(made) == ["a_1", "a_3"]
    assert {r.case for r in cohort.refused} == {"a_2"}
    assert cohort.refused[0].reason.startswith(
        "the case id is given more than once; 2 entries with this id; give"
    )


def test_an_id_that_leads_out_of_the_run_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    values = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    write_image(Image(values, GRID), root / "1.nii.gz")
    (root / "list.csv").write_text("case,image\n../../x,1.nii.gz\n<script>,1.nii.gz\nfine,1.nii.gz\n")
    made, run, cohort = taken_in(root / "list.csv")
    assert sorted(made) == ["fine"]
    assert [r.series for r in cohort.refused] == ["line-2", "line-3"]
    text = (run.root / "ingest.csv").read_text()
    assert "script" not in text
    assert ".." not in text


def test_an_empty_folder_and_a_folder_without_images_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MedsegError, match="the folder is empty") as error:
        Cohort.open(empty)
    assert error.value.exit_code == 2
    (empty / "notes.txt").write_text("x")
    with pytest.raises(MedsegError) as error:
        Cohort.open(empty)
    assert "mend" in str(error.value)
    with pytest.raises(MedsegError, match="is not there"):
        Cohort.open(tmp_path / "nowhere")


def test_a_dataset_json_that_lists_nothing_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset.json", {"labels": {"0": "background"}, "training": []})
    with pytest.raises(MedsegError, match="nothing was found"):
        Cohort.open(tmp_path)


def test_nothing_that_identifies_a_patient_gets_into_an_ingested_case(tmp_path: Path) -> None:
    root = tmp_path / "set"
    values = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    write_image(Image(values, GRID), root / "Canary_Maria" / "1.nii.gz")
    (root / "list.csv").write_text(
        "case,patient,image,patient_name,birth_date\nc1,CANARY-4711,Canary_Maria/1.nii.gz,Canary^Maria,19700101\n"
    )
    _, run, _ = taken_in(root / "list.csv")
    for file in run.root.rglob("*"):
        if file.is_file():
            content = file.read_bytes().lower()
            assert b"canary" not in content, file.name
            assert b"19700101" not in content, file.name


def test_whole_numbers_stay_int16_and_others_float32(msd: MakeMsd) -> None:
    import nibabel as nib

    root = msd()
    write_image(
        Image(np.linspace(0, 1, 720, dtype=np.float32).reshape(1, *SHAPE), GRID),
        root / "imagesTr" / "a_2.nii.gz",
    )
    made, *_ = taken_in(root)
    kinds = {n: nib.load(made[n] / "image.nii.gz").get_data_dtype() for n in made}  # type: ignore[attr-defined]
    assert kinds == {"a_1": np.int16, "a_2": np.float32, "a_3": np.int16}
    before = read_image(root / "imagesTr" / "a_1.nii.gz")
    after = read_image(made["a_1"] / "image.nii.gz")
    assert np.array_equal(before.array, after.array)
    assert before.grid.matches(after.grid)


def test_the_dirty_folder_is_ingested_around_its_faults(shared_data: Path, tmp_path: Path) -> None:
    cohort = Cohort.open(shared_data / "hippocampus_dirty", labels="Anterior=1,Posterior=2")
    run = Run(tmp_path, quiet=True)
    items = {case.id: case for case in cohort.cases}
    made = run.map(ingest, items, channels=cohort.channels, labels=cohort.labels, settings=Ingesting())
    assert len(made) == 4
    write_ingest_table(tmp_path / "ingest.csv", cohort, {})
    status = {series: row["status"] for series, row in table(run).items()}
    assert status["hippocampus_118"] == status["hippocampus_281"] == "refused"
    assert list(status.values()).count("taken") == 4
