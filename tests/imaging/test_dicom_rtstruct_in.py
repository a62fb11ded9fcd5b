"""Contours of RT Structure Sets become masks on the image's own grid, or are refused with numbers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

from medseg.core.errors import CaseError
from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.dicom_in import find_dicom, series_of_files
from medseg.imaging.dicom_policy import DicomPolicy
from medseg.imaging.dicom_rtstruct import write_rtstruct
from medseg.imaging.dicom_rtstruct_in import read_rtstruct, region_labels, rtstruct_with_notes
from medseg.imaging.dicom_seg import write_seg
from medseg.imaging.dicom_seg_in import read_seg
from medseg.imaging.dicom_series import Series
from medseg.imaging.dicom_stack import labels_of
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, read_image
from medseg.imaging.labels import Label, checked, labels

SHAPE = (60, 50, 8)  # columns, rows, slices
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"

Outline = tuple[int, float, np.ndarray]
"""Slice, gaps above it, points ``[n, 2]`` as (column, row)."""


def affine(turned: bool) -> np.ndarray:
    a, b = (np.radians(20), np.radians(10)) if turned else (0.0, 0.0)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]) @ np.array(
        [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    )
    placed = np.eye(4)
    placed[:3, :3] = turn @ np.diag([-1.3, -0.8, 3.0])
    placed[:3, 3] = (31, 17, -45)
    return placed


def write_series(folder: Path, turned: bool = True, shape: tuple[int, int, int] = SHAPE) -> list[Path]:
    image = Image(np.zeros((1, *shape), np.float32), Grid(shape, affine(turned)))
    return write_ct_series(image, Subject("P1", "Somebody^Else", "F", 50, f"rt {turned}"), folder)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return write_series(tmp_path / "ct")


@pytest.fixture
def series(files) -> Series:
    return series_of_files(files)


def placed(series: Series, outline: Outline) -> np.ndarray:
    """Points of an outline in LPS mm, by the position and orientation of its slice alone."""
    number, height, points = outline
    plane = series.planes[number]
    along, down = np.reshape(plane.orientation, (2, 3))
    between_rows, between_columns = plane.spacing_mm
    gap = np.linalg.norm(np.subtract(series.planes[1].position, series.planes[0].position))
    return (
        np.array(plane.position)
        + np.outer(points[:, 0] * between_columns, along)
        + np.outer(points[:, 1] * between_rows, down)
        + height * gap * np.cross(along, down)
    )


def contour(series: Series, outline: Outline, kind: str = "CLOSED_PLANAR") -> Dataset:
    item, image = Dataset(), Dataset()
    points = placed(series, outline)
    image.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    image.ReferencedSOPInstanceUID = series.planes[outline[0]].sop_uid
    item.ContourImageSequence = [image]
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
    item.ContourData = [f"{v:.3f}" for v in points.ravel()]
    return item


def write(
    file: Path,
    series: Series,
    rois: dict[str, Sequence[Outline | Dataset]],
    first: int = 1,
    change: Callable[[Dataset], None] | None = None,
) -> Path:
    """An RTSTRUCT of some regions, numbered from `first` on."""
    rt, frame, study, own = Dataset(), Dataset(), Dataset(), Dataset()
    rt.file_meta = FileMetaDataset()
    rt.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    rt.SOPClassUID, rt.SOPInstanceUID, rt.Modality = RTSTRUCT, generate_uid(), "RTSTRUCT"
    rt.PatientID, rt.PatientName, rt.SeriesInstanceUID = "P1", "Somebody^Else", generate_uid()
    own.SeriesInstanceUID = series.series_uid
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.3.1", series.study_uid
    study.RTReferencedSeriesSequence = [own]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = series.frame_of_reference, [study]
    rt.ReferencedFrameOfReferenceSequence = [frame]
    rt.StructureSetROISequence, rt.ROIContourSequence = [], []
    for number, (name, outlines) in enumerate(rois.items(), start=first):
        region, drawn = Dataset(), Dataset()
        region.ROINumber, region.ROIName = number, name
        region.ReferencedFrameOfReferenceUID = series.frame_of_reference
        drawn.ReferencedROINumber, drawn.ROIDisplayColor = number, [255, 0, 16 * number]
        if outlines:
            drawn.ContourSequence = [o if isinstance(o, Dataset) else contour(series, o) for o in outlines]
        rt.StructureSetROISequence.append(region)
        rt.ROIContourSequence.append(drawn)
    if change is not None:
        change(rt)
    rt.save_as(file, enforce_file_format=True)
    return file


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


def circle(column: float, row: float, radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    return np.stack([column + radius * np.cos(angle), row + radius * np.sin(angle)], axis=1)


def within(column: float, row: float, radius: float) -> np.ndarray:
    x, y = np.indices(SHAPE[:2])
    return np.hypot(x - column, y - row) < radius


@pytest.mark.parametrize("turned", [False, True])
def test_circles_boxes_and_holes_land_on_their_slices(tmp_path, turned):
    series = series_of_files(write_series(tmp_path / "ct", turned))
    rois = {
        "Ring": [
            (2, 0, circle(25.2, 20.3, 15)),
            (2, 0, circle(25.2, 20.3, 7)),
            (3, 0, circle(25.2, 20.3, 9)),
        ],
        "boxes": [(5, 0, box(3.5, 4.5, 13.5, 8.5)), (5, 0, box(30.5, 40.5, 40.5, 44.5))],
    }
    image, notes = rtstruct_with_notes(write(tmp_path / "rt.dcm", series, rois), series)
    expected = np.zeros(SHAPE, np.uint8)
    expected[..., 2] = within(25.2, 20.3, 15) & ~within(25.2, 20.3, 7)
    expected[..., 3] = within(25.2, 20.3, 9)
    expected[4:14, 5:9, 5] = expected[31:41, 41:45, 5] = 2
    assert np.array_equal(image.array[0], expected)
    assert image.array.dtype == np.uint8
    assert image.grid.matches(series.grid)
    assert notes == ()


def test_names_colours_and_order_of_regions(series, tmp_path):
    rois = {"zeta": [(1, 0, box(2, 2, 9, 9))], "empty": [], "Left_Kidney": [(2, 0, box(2, 2, 9, 9))]}
    file = write(tmp_path / "rt.dcm", series, rois, first=0)
    found = region_labels(file)
    assert [(x.value, x.name, x.colour) for x in found] == [
        (1, "zeta", "#ff0000"),
        (2, "Left_Kidney", "#ff0020"),
    ]
    chosen = checked([Label(value=300, name="left kidney"), Label(value=7, name="liver")])
    image, notes = rtstruct_with_notes(file, series, labels=chosen)
    assert np.unique(image.array).tolist() == [0, 300]
    assert image.array.dtype == np.uint16
    assert not image.array[..., 1].any() and image.array[..., 2].any()
    assert notes == ("no contours for label 7", "1 ROI(s) that no label names were left out")
    with pytest.raises(CaseError, match="no region has the name of a label") as caught:
        read_rtstruct(file, series, labels=labels(spleen=1))
    assert "zeta" not in caught.value.public()


def test_regions_whose_names_differ_in_case_alone_are_refused_when_wanted(series, tmp_path):
    rois = {
        "Liver": [(1, 0, box(2, 2, 9, 9))],
        "liver ": [(2, 0, box(2, 2, 9, 9))],
        "x": [(1, 0, box(20, 2, 29, 9))],
    }
    file = write(tmp_path / "rt.dcm", series, rois)
    with pytest.raises(CaseError, match="name of one label") as caught:
        read_rtstruct(file, series, labels=labels(liver=1))
    assert "ROIs 1, 2" in caught.value.evidence
    assert read_rtstruct(file, series, labels=labels(x=1)).array.sum() == 9 * 7


def test_overlapping_regions(series, tmp_path):
    rois = {"organ": [(1, 0, box(1.5, 1.5, 21.5, 21.5))], "tumour": [(1, 0, box(11.5, 11.5, 31.5, 16.5))]}
    file = write(tmp_path / "rt.dcm", series, rois)
    with pytest.raises(CaseError, match="overlap") as caught:
        read_rtstruct(file, series)
    assert "ROI 1 and ROI 2: 50 voxels" in caught.value.evidence
    for overlap, counts in (("last", [350, 100]), ("first", [400, 50])):
        mask = read_rtstruct(file, series, overlap=overlap).array
        assert [int((mask == value).sum()) for value in (1, 2)] == counts


def test_contours_beside_their_slice_go_to_the_nearest_and_are_counted(series, tmp_path):
    outline = box(1.5, 1.5, 21.5, 21.5)
    file = write(tmp_path / "rt.dcm", series, {"a": [(1, 0.3, outline), (2, -0.2, outline), (3, 0, outline)]})
    image, notes = rtstruct_with_notes(file, series)
    assert (image.array[0].sum(axis=(0, 1)) == [0, 400, 400, 400, 0, 0, 0, 0]).all()
    assert notes == ("2 contour(s) lie off their slice, by up to 0.30 of a gap",)


def test_contours_at_several_heights_near_one_slice_are_no_holes_of_each_other(series, tmp_path):
    large, small = box(1.5, 1.5, 21.5, 21.5), box(5.5, 5.5, 9.5, 9.5)
    file = write(tmp_path / "rt.dcm", series, {"a": [(2, 0.1, large), (2, 0.4, small), (2, -0.3, small)]})
    image, notes = rtstruct_with_notes(file, series)
    assert int(image.array.sum()) == 400
    assert "2 contour(s) between slices left out: a nearer one is drawn on the slice" in notes
    file = write(tmp_path / "rt.dcm", series, {"a": [(2, 0.3, large), (2, -0.3, small)]})
    assert int(read_rtstruct(file, series).array.sum()) in (400, 16)


def test_contours_on_slices_that_are_not_here_are_refused_with_their_number(series, tmp_path):
    outline = box(1.5, 1.5, 21.5, 21.5)
    rois = {"a": [(k, 0, outline) for k in range(8)], "b": [(3, 0, outline)]}
    file = write(tmp_path / "rt.dcm", series, rois)
    part = replace(series, planes=series.planes[:5], grid=series.grid.cropped((0, 0, 0), (60, 50, 5)))
    with pytest.raises(CaseError, match="slices that are not here") as caught:
        read_rtstruct(file, part)
    assert "3 of 9 contours of ROI 1, up to 3.0 gaps from the nearest of 5 slices" in caught.value.evidence
    assert int(read_rtstruct(file, part, labels=labels(b=1)).array.sum()) == 400
    gap = replace(series, planes=(*series.planes[:3], *series.planes[4:]))
    with pytest.raises(CaseError, match="slices that are not here") as caught:
        read_rtstruct(file, gap, overlap="last")
    assert "2 of 9 contours of ROI 1, 2, up to 1.0 gaps" in caught.value.evidence


def test_contours_across_the_slices_are_refused(series, tmp_path):
    def upright(rt: Dataset) -> None:
        points = np.array(rt.ROIContourSequence[0].ContourSequence[0].ContourData, float).reshape(-1, 3)
        normal = np.subtract(series.planes[4].position, series.planes[0].position)
        points += np.outer([0, 0, 1, 1], normal)
        rt.ROIContourSequence[0].ContourSequence[0].ContourData = [f"{v:.3f}" for v in points.ravel()]

    file = write(tmp_path / "rt.dcm", series, {"a": [(1, 0, box(2, 2, 9, 9))]}, change=upright)
    with pytest.raises(CaseError, match="do not lie in the planes"):
        read_rtstruct(file, series)


def test_skipped_slices_stay_empty_and_are_counted(series, tmp_path):
    outline = box(1.5, 1.5, 21.5, 21.5)
    file = write(tmp_path / "rt.dcm", series, {"a": [(k, 0, outline) for k in (0, 2, 4, 6)]})
    image, notes = rtstruct_with_notes(file, series)
    assert (image.array[0].sum(axis=(0, 1)) > 0).tolist() == [True, False] * 4
    assert notes == ("slices without contours between slices that have some were left empty (ROI 1: 3)",)


def test_points_open_contours_lines_and_repeats_enclose_nothing(series, tmp_path):
    outline = box(1.5, 1.5, 21.5, 21.5)
    rois = {
        "a": [
            (1, 0, outline),
            (1, 0, np.roll(outline, 2, axis=0)),
            (2, 0, outline[:2]),
            contour(series, (3, 0, outline), "OPEN_PLANAR"),
            contour(series, (3, 0, outline[:1]), "POINT"),
        ],
        "marks": [contour(series, (3, 0, outline[:1]), "POINT")],
    }
    image, notes = rtstruct_with_notes(write(tmp_path / "rt.dcm", series, rois), series)
    assert int(image.array.sum()) == 400
    assert set(notes) == {
        "2 points and open contours left out: they enclose nothing",
        "1 contour(s) of one or two points enclose nothing",
        "1 contour(s) drawn twice were taken once",
    }
    assert [label.name for label in region_labels(tmp_path / "rt.dcm")] == ["a"]


def test_a_contour_that_reaches_outside_is_cut_off_and_counted(series, tmp_path):
    file = write(tmp_path / "rt.dcm", series, {"a": [(1, 0, box(-9.5, -9.5, 9.5, 4.5))]})
    image, notes = rtstruct_with_notes(file, series)
    assert int(image.array.sum()) == 10 * 5
    assert notes == ("1 contour(s) reach outside the picture and were cut off at its edge",)


@pytest.mark.parametrize("mended", ["tilted", "uneven"])
def test_each_slice_counts_by_its_own_position(series, tmp_path, mended):
    """Contours on slices that are sheared against each other, or lie at uneven distances."""
    along, down = np.reshape(series.planes[0].orientation, (2, 3))
    shift = 1.1 * down if mended == "tilted" else np.cross(along, down)
    amount = [k if mended == "tilted" else 0.3 * k * k for k in range(8)]
    moved = tuple(
        replace(plane, position=tuple(plane.position + a * shift))
        for plane, a in zip(series.planes, amount, strict=True)
    )
    other = replace(series, planes=moved)
    rois = {"a": [(k, 0, circle(20 + k, 25.3, 9.7)) for k in range(8)]}
    from medseg.imaging import dicom_rtstruct_in as reader

    file = write(tmp_path / "rt.dcm", other, rois)
    drawn: dict[str, Any] = {}
    original = reader.labels_of
    try:
        reader.labels_of = lambda planes, _: drawn.setdefault("planes", planes)
        rtstruct_with_notes(file, other)
    finally:
        reader.labels_of = original
    for k in range(8):
        assert np.array_equal(drawn["planes"][k].T > 0, within(20 + k, 25.3, 9.7))


def reframed(frame: str) -> Callable[[Dataset], None]:
    def change(rt: Dataset) -> None:
        rt.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = frame
        for region in rt.StructureSetROISequence:
            region.ReferencedFrameOfReferenceUID = frame

    return change


def one_frame_alone(rt: Dataset) -> None:
    rt.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3"


def the_region_alone(rt: Dataset) -> None:
    rt.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"


def the_whole_alone(rt: Dataset) -> None:
    rt.FrameOfReferenceUID = "1.2.3"


def test_another_frame_of_reference_is_refused_and_so_is_one_named_by_one_alone(series, tmp_path):
    rois = {"a": [(1, 0, box(2, 2, 9, 9))]}
    for frame in ("1.2.3", ""):
        file = write(tmp_path / "rt.dcm", series, rois, change=reframed(frame))
        with pytest.raises(CaseError, match="another frame of reference"):
            read_rtstruct(file, series)
    file = write(tmp_path / "rt.dcm", series, rois)
    with pytest.raises(CaseError, match="another frame of reference"):
        read_rtstruct(file, replace(series, frame_of_reference=""))
    for change in (one_frame_alone, the_region_alone, the_whole_alone):
        file = write(tmp_path / "rt.dcm", series, rois, change=change)
        with pytest.raises(CaseError, match="another frame of reference"):
            read_rtstruct(file, series)


def test_regions_of_other_frames_beside_ours_are_left_out_and_named(series, tmp_path):
    def change(rt: Dataset) -> None:
        rt.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.2.3"
        other = Dataset()
        other.FrameOfReferenceUID = "1.2.3"
        rt.ReferencedFrameOfReferenceSequence.append(other)

    rois = {"a": [(1, 0, box(1.5, 1.5, 9.5, 9.5))], "b": [(1, 0, box(20, 20, 29, 29))]}
    file = write(tmp_path / "rt.dcm", series, rois, change=change)
    image, notes = rtstruct_with_notes(file, series)
    assert int(image.array.sum()) == 64
    assert "ROI 2 left out: in another frame of reference" in notes
    assert [x.name for x in region_labels(file, {series.frame_of_reference})] == ["a"]


def test_a_frame_made_up_by_rt_utils_is_overlooked_where_every_contour_names_its_slice(series, tmp_path):
    def by_rt_utils(rt: Dataset) -> None:
        reframed("1.2.3")(rt)
        rt.ManufacturerModelName = "rt-utils"

    corners = box(5, 6, 14, 10)
    file = write(tmp_path / "rt.dcm", series, {"a": [(1, 0, corners)]}, change=by_rt_utils)
    image, notes = rtstruct_with_notes(file, series)
    assert int(image.array.sum()) == 10 * 5  # it traces through the centres of the outermost pixels
    assert len(notes) == 2

    def elsewhere(rt: Dataset) -> None:
        by_rt_utils(rt)
        image = rt.ROIContourSequence[0].ContourSequence[0].ContourImageSequence[0]
        image.ReferencedSOPInstanceUID = series.planes[4].sop_uid

    file = write(tmp_path / "rt.dcm", series, {"a": [(1, 0, corners)]}, change=elsewhere)
    with pytest.raises(CaseError, match="another frame of reference"):
        read_rtstruct(file, series)


def test_sets_of_one_series_are_merged_unless_they_hold_the_same_label(series, tmp_path):
    outline, other = box(1.5, 1.5, 21.5, 21.5), box(30.5, 1.5, 40.5, 5.5)
    one = write(tmp_path / "1.dcm", series, {"organ": [(1, 0, outline)]})
    two = write(tmp_path / "2.dcm", series, {"tumour": [(1, 0, other)]})
    chosen = labels(organ=1, tumour=2)
    with pytest.raises(CaseError, match="no region has the name"):
        read_rtstruct([one, two], series, labels=labels(organ=1))
    mask = read_rtstruct([one, two], series, labels=chosen).array
    assert [int((mask == v).sum()) for v in (1, 2)] == [400, 40]
    with pytest.raises(CaseError, match="same label"):
        read_rtstruct([one, one], series, labels=chosen)


def test_damaged_sets_are_refused(series, tmp_path, files):
    rois = {"a": [(1, 0, box(2, 2, 9, 9))]}

    def short(rt: Dataset) -> None:
        rt.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"]

    def unreadable(rt: Dataset) -> None:
        rt.ROIContourSequence[0].ContourSequence[0].ContourData = ["nan"] * 12

    def twice(rt: Dataset) -> None:
        rt.StructureSetROISequence.append(rt.StructureSetROISequence[0])

    with pydicom.config.disable_value_validation():
        for change in (short, unreadable):
            with pytest.raises(CaseError, match="contour is damaged"):
                read_rtstruct(write(tmp_path / "rt.dcm", series, rois, change=change), series)
        with pytest.raises(CaseError, match="same number"):
            read_rtstruct(write(tmp_path / "rt.dcm", series, rois, change=twice), series)
    with pytest.raises(CaseError, match="not an RT Structure Set"):
        read_rtstruct(files[0], series)
    whole = write(tmp_path / "rt.dcm", series, rois).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) - 60])
    with pytest.raises(CaseError):
        read_rtstruct(tmp_path / "cut.dcm", series)


def test_words_of_the_patient_do_not_become_labels(series, tmp_path):
    file = write(tmp_path / "rt.dcm", series, {"GTV of Somebody": [(1, 0, box(1.5, 1.5, 9.5, 9.5))]})
    assert [x.name for x in region_labels(file)] == ["ROI 1"]
    assert int(read_rtstruct(file, series, labels=region_labels(file)).array.sum()) == 64


def blobs() -> np.ndarray:
    x, y, z = np.indices(SHAPE)
    mask = ((np.hypot(x - 30.2, 0.8 * (y - 22.4)) < 15) & (np.abs(z - 4) < 3)).astype(np.uint8)
    mask[np.hypot(x - 28.2, y - 22.4) < 5] = 0
    mask[5, 5, 4] = mask[6, 6, 4] = 1
    mask[50:58, 40:44, 2:5] = 2
    return mask


@pytest.mark.parametrize("holes", ["keyhole", "inner"])
def test_what_we_write_comes_back_voxel_for_voxel(series, tmp_path, holes):
    mask = Image(blobs()[None], series.grid)
    chosen = labels(organ=1, tumour=2)
    write_rtstruct(mask, chosen, series, tmp_path / "rt.dcm", holes=holes)
    image, notes = rtstruct_with_notes(tmp_path / "rt.dcm", series, labels=chosen)
    assert np.array_equal(image.array, mask.array)
    assert notes == ()


def test_plastimatch_fills_the_same_voxels(tmp_path):
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch, the independent reader of RTSTRUCT, is not installed")
    series = series_of_files(write_series(tmp_path / "ct", turned=False))
    rois = {
        "ring": [(k, 0, circle(25.21, 20.33, r)) for k, r in ((2, 15), (2, 7), (3, 9.1))],
        "boxes": [(5, 0, box(3.7, 4.6, 13.4, 8.5)), (5, 0, box(30.5, 40.5, 40.4, 44.3))],
    }
    file = write(tmp_path / "rt.dcm", series, rois)
    subprocess.run(
        ["plastimatch", "convert", "--input", file, "--referenced-ct", tmp_path / "ct",
         "--output-prefix", tmp_path / "out", "--prefix-format", "nii.gz", "--xor-contours"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    mask = read_rtstruct(file, series)
    for value, name in enumerate(rois, start=1):
        theirs = read_image(tmp_path / "out" / f"{name}.nii.gz")
        assert np.allclose(theirs.grid.affine, series.grid.affine, atol=1e-3)
        assert np.array_equal(theirs.array > 0, mask.array == value)


def test_the_real_sets_of_a_phantom(shared_data):
    found = find_dicom(shared_data / "dicom" / "rtstruct_phantom")
    series = found.series[0]
    by_name = {reference.file.name: reference for reference in found.references}
    assert all(reference.belongs_to(series) for reference in found.references)
    mask, notes = rtstruct_with_notes(by_name["rt.dcm"].file, series)
    x, y = np.indices((512, 512)) * 0.488281 - 125
    square = (x > -51) & (x < -27) & (y > -51) & (y < -27)
    hole = (x > -47) & (x < -32) & (y > -47) & (y < -32) & (x + y > -93)
    assert np.array_equal(mask.array[0, ..., 0] > 0, square & ~hole)
    assert not mask.array[..., 1].any()
    assert any("frame of reference" in note for note in notes)
    for name in ("invalid_reference_rt.dcm", "non_existent_reference_rt.dcm"):
        with pytest.raises(CaseError, match="slices that are not here") as caught:
            read_rtstruct(by_name[name].file, series)
        assert "4 of 12 contours of ROI 1, 2, 3, 4" in caught.value.evidence


@pytest.mark.parametrize("tilt", ["resample", "shear"])
def test_contours_and_segments_on_a_tilted_gantry_are_drawn_on_its_slices(shared_data, tmp_path, tilt):
    folder = shared_data / "dicom" / "ct_philips_tilt"
    series = find_dicom(folder, DicomPolicy(tilt=tilt)).series[0]
    planes = np.zeros((len(series.planes), *series.shape[1::-1]), np.uint8)[:, :512]
    for k in range(len(planes)):
        planes[k, 100 + 3 * k : 200 + 3 * k, 150:300] = 1
    boxes = [(k, 0.0, box(149.5, 99.5 + 3 * k, 299.5, 199.5 + 3 * k)) for k in range(len(planes))]
    file = write(tmp_path / "rt.dcm", series, {"organ": boxes})
    mask = read_rtstruct(file, series)
    assert np.array_equal(mask.array, labels_of(planes, series).array)
    assert int(mask.array.sum()) > 100_000
    assert mask.grid.matches(series.grid)
    write_seg(mask, labels(organ=1), series, tmp_path / "seg.dcm")
    back = read_seg(tmp_path / "seg.dcm", series).array
    shared = int(((back == 1) & (mask.array == 1)).sum())
    assert 2 * shared / int(back.sum() + mask.array.sum()) > (0.98 if tilt == "resample" else 0.999999)
