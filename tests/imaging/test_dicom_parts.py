"""Several volumes in one series are told apart by what their images say, or refused; never stacked."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.dicom_header import Plane, read_header
from medseg.imaging.dicom_in import find_series, read_series, series_of_files
from medseg.imaging.dicom_parts import parts_of
from medseg.imaging.dicom_words import said
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
LEVELS = (0.0, 3.0, 6.0, 9.0)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


def plane(z: float, name: str = "", **changes) -> Plane:
    """A plane; what is no field of it becomes a mark."""
    fields = {k: v for k, v in changes.items() if k in Plane.__dataclass_fields__}
    marks = tuple((k, v) for k, v in changes.items() if k not in fields)
    base = Plane(
        file=Path(name + str(z)), frame=0, position=(-10.0, -20.0, z), orientation=AXIAL,
        spacing_mm=(2.0, 1.5), thickness_mm=3.0, gap_mm=None, slope=1.0, intercept=0.0, echo=(None, ""),
        rows=4, columns=5, image_type=("ORIGINAL",), compressed=False, sop_uid=f"1.{name}.{z}", marks=marks,
    )  # fmt: skip
    return replace(base, **fields)


def volume(name: str, levels=LEVELS, **changes) -> list[Plane]:
    return [plane(z, name, **changes) for z in levels]


def contrasts(*volumes: list[Plane]) -> list[str]:
    """What is said of each part, after checking that each holds the planes of one volume, in any order."""
    planes = [p for some in volumes for p in some]
    parts = parts_of(planes)
    random.Random(0).shuffle(planes)
    assert [p.planes for p in parts_of(planes)] == [p.planes for p in parts]
    wanted = {frozenset(p.sop_uid for p in some) for some in volumes}
    assert {frozenset(p.sop_uid for p in part.planes) for part in parts} == wanted
    return [said(part.splits) for part in parts]


def test_echoes_always_part():
    first, second = volume("a", echo=(2.46, "1")), volume("b", echo=(4.92, "2"))
    assert contrasts(first, second) == ["echo 1 of 2, TE 2.46 ms", "echo 2 of 2, TE 4.92 ms"]
    assert len(parts_of(first[:2] + second[2:])) == 2


@pytest.mark.parametrize(
    ("mark", "values", "words"),
    [
        ("component", ("MAGNITUDE", "PHASE"), ["magnitude", "phase"]),
        ("b_value", (0.0, 1000.0), ["b = 0 s/mm2", "b = 1000 s/mm2"]),
        ("direction", ((0.0, 1.0), (1.0, 0.0)), ["gradient direction 1 of 2", "gradient direction 2 of 2"]),
        ("kvp", (80.0, 140.0), ["80 kV", "140 kV"]),
        ("inversion", (100.0, 2500.0), ["TI 100 ms", "TI 2500 ms"]),
        ("temporal", (2.0, 10.0), ["time point 1 of 2", "time point 2 of 2"]),
        ("cardiac", (5.0, 45.0), ["cardiac phase 1 of 2", "cardiac phase 2 of 2"]),
        ("trigger", (9.0, 45.0), [f"cardiac phase or time point {n} of 2" for n in (1, 2)]),
        ("acquisition", (3.0, 12.0), ["acquisition 1 of 2", "acquisition 2 of 2"]),
        ("stack", ("1", "2"), ["stack 1 of 2", "stack 2 of 2"]),
        ("acquired", (10.5, 20.0), ["time point 1 of 2", "time point 2 of 2"]),
        ("content", (10.5, 20.0), ["time point 1 of 2", "time point 2 of 2"]),
    ],
)  # fmt: skip
def test_each_tag_parts_and_puts_into_order(mark, values, words):
    assert contrasts(*(volume(f"{n}", **{mark: v}) for n, v in enumerate(values))) == words
    # names sorted the other way: the order comes from the values
    assert contrasts(*(volume(f"{9 - n}", **{mark: v}) for n, v in enumerate(values))) == words


def test_image_types_part_only_what_repeats():
    add, plain = ("ORIGINAL", "PRIMARY", "AXIAL", "ADD"), ("ORIGINAL", "PRIMARY", "AXIAL")
    assert contrasts(volume("a", image_type=add), volume("b", image_type=plain)) == [
        "image type 1 of 2 (ORIGINAL)", "image type 2 of 2 (ORIGINAL)"
    ]  # fmt: skip
    mixed = [plane(z, image_type=t) for z, t in zip(LEVELS, (add, plain, add, plain), strict=True)]
    assert [len(p.planes) for p in parts_of(mixed)] == [4]


def test_what_differs_from_slice_to_slice_parts_nothing():
    def stack_with(name, **offset):
        return [plane(z, name, acquisition=z, acquired=z + offset.get("late", 0), trigger=z) for z in LEVELS]

    assert contrasts(stack_with("a")) == [""]
    assert contrasts(stack_with("a"), stack_with("b", late=100)) == ["time point 1 of 2", "time point 2 of 2"]


def test_a_cine_taken_slice_by_slice_is_ordered_by_its_trigger_times():
    phases = [[plane(z, f"{n}", trigger=30.0 * n + z / 7) for z in LEVELS] for n in range(3)]
    assert contrasts(*phases) == [f"cardiac phase or time point {n} of 3" for n in (1, 2, 3)]


def test_images_taken_in_turn_are_not_guessed_apart_by_their_times():
    taken = [plane(z, f"{n}", acquired=10 * z + n) for z in LEVELS for n in range(2)]
    parts = parts_of(taken)
    assert [len(p.planes) for p in parts] == [8]


def test_acquisitions_taken_in_turn_are_ordered_by_when_they_began():
    later = [plane(z, "a", acquisition=1.0, acquired=z + 0.5) for z in LEVELS]
    sooner = [plane(z, "b", acquisition=2.0, acquired=z) for z in LEVELS]
    parts = parts_of([*later, *sooner])
    assert [p.planes[0].mark("acquisition") for p in parts] == [2, 1]


def test_several_tags_part_together():
    volumes = [
        volume(f"{b}{d}{t}", b_value=b, direction=d, acquired=t)
        for t, (b, d) in enumerate(
            [(0.0, (0, 0, 0)), (0.0, (0, 0, 0)), (800.0, (0, 0, 1)), (800.0, (1, 0, 0))]
        )
    ]
    assert contrasts(*volumes) == [
        "b = 0 s/mm2; time point 1 of 2",
        "b = 0 s/mm2; time point 2 of 2",
        "b = 800 s/mm2; gradient direction 1 of 2",
        "b = 800 s/mm2; gradient direction 2 of 2",
    ]


def test_the_numbering_counts_only_with_the_stated_number_of_time_points():
    def numbered(stated):
        return [
            plane(z, f"{t}", instance=float(1 + 4 * t + n), stated_times=stated)
            for t in range(3)
            for n, z in enumerate(LEVELS)
        ]

    assert [len(p.planes) for p in parts_of(numbered(3.0))] == [4, 4, 4]
    assert [len(p.planes) for p in parts_of(numbered(12.0))] == [12]
    scrambled = [
        replace(p, marks=(("instance", len(p.sop_uid) + p.position[2] % 5), *p.marks[1:]))
        for p in numbered(3.0)
    ]
    assert [len(p.planes) for p in parts_of(scrambled)] == [12]


def test_files_that_each_hold_a_stack_are_volumes():
    def file(name):
        return [plane(z, file=Path(name), frame=n, sop_uid=name) for n, z in enumerate(LEVELS)]

    assert contrasts(file("a"), file("b"), file("c")) == [f"volume {n} of 3" for n in (1, 2, 3)]


def test_frames_of_one_file_are_parted_by_their_dimension_indices():
    frames = [
        plane(z, f"{n}", frame=10 * n + k, dimensions=(1.0, float(k + 1), float(n + 1)))
        for n in range(2)
        for k, z in enumerate(LEVELS)
    ]
    assert contrasts(frames[:4], frames[4:]) == ["index 1 of 2", "index 2 of 2"]


# files ---------------------------------------------------------------------------------------------------


def drawn(seed: int, slices: int = 4) -> Image:
    rng = np.random.default_rng(seed)
    affine = np.array([[-2, 0, 0, 10], [0, -3, 0, 20], [0, 0, 4, -30], [0, 0, 0, 1.0]])
    array = np.round(rng.uniform(-1000, 1000, (1, 7, 6, slices))).astype(np.float32)
    return Image(array, Grid((7, 6, slices), affine))


def write(folder: Path, number: int, **changes) -> Image:
    """Volume `number` of one series, with other elements; None deletes one."""
    image = drawn(number)
    for file in write_ct_series(image, Subject("1", "A", "F", 40, f"volume {number}"), folder / f"{number}"):
        dataset = pydicom.dcmread(file)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(dataset, keyword, f"2.25.{len(keyword)}")
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)
    return image


def in_order(series):
    return sorted(series, key=lambda s: s.number)


def test_volumes_of_one_series_are_read_apart_and_found_again(tmp_path):
    images = [write(tmp_path, n, TemporalPositionIdentifier=n + 1) for n in range(3)]
    found, left_out = find_series(tmp_path)
    assert left_out == []
    assert [s.contrast for s in in_order(found)] == [f"time point {n} of 3" for n in (1, 2, 3)]
    for one, image in zip(in_order(found), images, strict=True):
        assert np.array_equal(read_series(one).array, image.array)
        assert one.notes[0] == one.contrast
        assert one.part == ""
        again = series_of_files(one.files, one.part, one.policy)
        assert (again.uid_hash, again.planes) == (one.uid_hash, one.planes)
    assert len({s.uid_hash for s in found}) == 3


def test_a_time_point_that_lacks_slices_is_refused_and_the_others_are_taken(tmp_path):
    for n in range(3):
        write(tmp_path, n, TemporalPositionIdentifier=n + 1)
    (tmp_path / "1" / "0004.dcm").unlink()
    found, left_out = find_series(tmp_path)
    assert len(found) == 2
    assert [(thing.status, thing.count) for thing in left_out] == [("refused", 3)]
    assert "incomplete: 1 of 4 positions have no image (time point 2 of 3)" in left_out[0].reason


def test_a_lost_image_among_untagged_time_points_refuses_them_all(tmp_path):
    for n in range(3):
        write(tmp_path, n, InstanceNumber=n)
    (tmp_path / "1" / "0004.dcm").unlink()
    found, left_out = find_series(tmp_path)
    assert found == []
    assert "different images lie at one position" in left_out[0].reason


def test_single_images_of_another_kind_are_skipped_by_name(tmp_path):
    write(tmp_path, 0)
    write(tmp_path, 1, ImageType=["DERIVED", "SECONDARY", "AXIAL"])
    for file in sorted((tmp_path / "1").iterdir())[1:]:
        file.unlink()
    found, left_out = find_series(tmp_path)
    assert [s.shape for s in found] == [(7, 6, 4)]
    assert [(t.status, t.reason) for t in left_out] == [
        ("skipped", "a single image of another kind than its series")
    ]


def test_one_position_many_times_is_one_volume_a_time(tmp_path):
    for n in range(3):
        write(tmp_path, n, AcquisitionTime=f"10000{n}")
        for file in sorted((tmp_path / f"{n}").iterdir())[1:]:
            file.unlink()
    found, _ = find_series(tmp_path)
    assert [s.shape for s in found] == [(7, 6, 1)] * 3


@pytest.mark.parametrize(
    ("creator", "tag", "vr", "values", "implicit"),
    [
        ("SIEMENS MR HEADER", 0x0019100C, "IS", ("0", "1000"), False),
        ("SIEMENS MR HEADER", 0x0019100C, "UN", (b"0 ", b"1000"), False),
        ("GEMS_PARM_01", 0x00431039, "IS", (["0", "8", "0", "0"], ["1000001000", "8", "0", "0"]), False),
        ("Philips Imaging DD 001", 0x20011003, "FL", (0.0, 1000.0), True),
    ],
)
def test_private_b_values_part_with_their_makers_block_and_not_without(
    tmp_path, creator, tag, vr, values, implicit
):
    for n in range(2):
        write(tmp_path, n)
        for file in (tmp_path / f"{n}").iterdir():
            dataset = pydicom.dcmread(file)
            dataset.add_new(tag & 0xFFFF0000 | 0x10, "LO", creator)
            dataset.add_new(tag, vr, values[n])
            if implicit:
                dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            dataset.save_as(file, enforce_file_format=True)
    found, _ = find_series(tmp_path)
    assert [s.contrast for s in in_order(found)] == ["b = 0 s/mm2", "b = 1000 s/mm2"]
    for file in tmp_path.rglob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset[tag & 0xFFFF0000 | 0x10].value = "SOMEBODY ELSE"
        dataset.save_as(file)
    assert find_series(tmp_path)[0] == []


def enhanced(folder: Path, name: str, images: list[Image], tags) -> Path:
    """Several volumes as one enhanced MR file, frames in a scrambled order; `tags(n)` fills frame groups."""
    dataset = pydicom.dcmread(write_ct_series(images[0], Subject("1", "A", "F", 40, name), folder / "raw")[0])
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedMRImageStorage
    dataset.FrameOfReferenceUID = "2.25.3"
    dataset.Modality, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "MR", "2.25.1", "2.25.2"
    frames, pictures = [], []
    for n, image in enumerate(images):
        for k in range(image.grid.shape[2]):
            frame = tags(n)
            frame.PlanePositionSequence = Sequence([Dataset()])
            frame.PlanePositionSequence[0].ImagePositionPatient = [-10, -20, -30 + 4 * k]
            frames.append(frame)
            pictures.append((image.array[0, :, :, k].T + 1024).astype("<u2"))
    order = np.random.default_rng(1).permutation(len(frames))
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = (
        Sequence([Dataset()]),
        Sequence([Dataset()]),
    )
    shared.PixelMeasuresSequence[0].PixelSpacing = [3, 2]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([frames[i] for i in order])
    dataset.NumberOfFrames = len(frames)
    dataset.PixelData = np.stack([pictures[i] for i in order]).tobytes()
    for file in (folder / "raw").iterdir():
        file.unlink()
    file = folder / f"{name}.dcm"
    dataset.save_as(file)
    return file


def temporal(n: int) -> Dataset:
    frame = Dataset()
    frame.FrameContentSequence = Sequence([Dataset()])
    frame.FrameContentSequence[0].TemporalPositionIndex = n + 1
    return frame


def diffusion(n: int) -> Dataset:
    frame, one, direction = Dataset(), Dataset(), Dataset()
    one.DiffusionBValue = 0.0 if n == 0 else 1000.0
    direction.DiffusionGradientOrientation = [0.0, float(n == 1), float(n == 2)]
    one.DiffusionGradientDirectionSequence = Sequence([direction])
    frame.MRDiffusionSequence = Sequence([one])
    return frame


def contrast(n: int) -> Dataset:
    frame, kind = Dataset(), Dataset()
    kind.FrameType = ["ORIGINAL", "PRIMARY", "FIELD_MAP", "NONE"]
    kind.ComplexImageComponent = ("MAGNITUDE", "PHASE", "REAL")[n]
    frame.MRImageFrameTypeSequence = Sequence([kind])
    return frame


@pytest.mark.parametrize(
    ("tags", "parts"),
    [
        (temporal, ["t001", "t002", "t003"]),
        (diffusion, ["b0", "b1000-dir", "b1000-dir"]),
        (contrast, ["magnitude", "phase", "real"]),
    ],
)
def test_volumes_of_one_file_have_names_by_which_they_are_found_again(tmp_path, tags, parts):
    images = [drawn(n) for n in range(3)]
    file = enhanced(tmp_path, "several", images, tags)
    found = in_order(find_series(tmp_path)[0])
    assert [s.part[: len(p)] for s, p in zip(found, parts, strict=True)] == parts
    arrays = [read_series(one).array for one in found]
    assert sorted(a.tobytes() for a in arrays) == sorted((i.array + 1024).tobytes() for i in images)
    for one in found:
        again = series_of_files([file], one.part, one.policy)
        assert (again.uid_hash, again.planes, again.part) == (one.uid_hash, one.planes, one.part)
    assert len({s.uid_hash for s in found}) == len({s.part for s in found}) == 3


def test_names_within_a_file_do_not_depend_on_the_other_files(tmp_path):
    files = [
        enhanced(tmp_path, f"{n}", [drawn(2 * n + k) for k in range(2)], lambda k, n=n: temporal(2 * n + k))
        for n in range(3)
    ]
    together = in_order(find_series(tmp_path)[0])
    assert [s.part for s in together] == [f"t{n:03d}" for n in range(1, 7)]
    alone = in_order(find_series(files[1])[0])
    assert [(s.part, s.uid_hash) for s in alone] == [(s.part, s.uid_hash) for s in together[2:4]]


def test_marks_hold_numbers_and_known_words_only(shared_data):
    header = read_header(next((shared_data / "dicom" / "mr_siemens_enhanced_4d" / "series").iterdir()))
    assert header is not None
    marks = dict(header.planes[0].marks)
    assert marks["temporal"] == marks["acquisition"]
    assert marks["component"] == "MAGNITUDE"
    assert isinstance(marks["acquired"], float)
    assert "marks" not in repr(header.planes[0])


def test_a_volume_alone_says_what_its_header_says_of_it(tmp_path):
    write(tmp_path, 0, TemporalPositionIdentifier=3, NumberOfTemporalPositions=10, DiffusionBValue=800.0)
    alone = find_series(tmp_path)[0][0]
    assert alone.notes == ("b = 800 s/mm2; time point 3 of 10",)
    assert alone.contrast == ""
    write(tmp_path, 0, EchoNumbers=2, EchoTime="7.38", ImageType=["ORIGINAL", "PRIMARY", "P"])
    assert find_series(tmp_path)[0][0].notes == ("echo 2, TE 7.38 ms; phase",)
