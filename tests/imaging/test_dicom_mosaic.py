"""Siemens mosaics come apart into the slices an independent reader gives, or are refused by name."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.core.errors import CaseError
from medseg.imaging.dicom_header import read_header
from medseg.imaging.dicom_in import find_series, read_series, series_of_files
from medseg.imaging.dicom_mosaic import MosaicError, csa_values, cut
from medseg.imaging.image import Image, canonical

CSA, CREATOR, COUNT = 0x00291010, 0x00290010, 0x0019100A


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


def reference(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Volumes ``[time, I, J, K]`` and affine of a NIfTI file, nearest to RAS."""
    import nibabel as nib

    nifti = nib.as_closest_canonical(nib.load(file))
    values = np.asanyarray(nifti.dataobj)
    return np.moveaxis(values[..., None] if values.ndim == 3 else values, 3, 0), nifti.affine


def agrees(image: Image, values: np.ndarray, affine: np.ndarray) -> bool:
    ours = canonical(image)
    near = np.abs(ours.grid.affine - affine).max() < 1e-2
    return bool(near and ours.array[0].shape == values.shape and np.array_equal(ours.array[0], values))


@pytest.mark.parametrize("plane", ["ax", "cor", "sag"])
def test_each_time_point_of_a_real_mosaic_is_the_volume_of_the_suite(shared_data, plane):
    folder = shared_data / "dicom" / f"mr_siemens_mosaic_{plane}"
    times, affine = reference(next((folder / "ref").glob("*.nii.gz")))
    assert len(times) == 2
    for file, values in zip(sorted((folder / "series").iterdir()), times, strict=True):
        series = series_of_files([file])
        image = read_series(series)
        assert series.shape == (64, 64, 35)
        assert sorted(p.frame for p in series.planes) == list(range(35))
        assert agrees(image, values, affine)


@pytest.mark.parametrize("number", range(1, 10))
def test_a_mosaic_in_every_syntax_is_the_same_volume(shared_data, number):
    folder = shared_data / "dicom" / "mr_transfer_syntaxes"
    (values,), affine = reference(folder / "ref" / "1.nii.gz")
    image = read_series(series_of_files([folder / "series" / f"{number}.dcm"]))
    assert agrees(image, values, affine)


@pytest.mark.parametrize("numbers", [range(1, 10), range(4, 10), (1, 3)], ids=["all", "compressed", "endian"])
def test_one_mosaic_in_several_syntaxes_is_one_volume_and_copies(shared_data, tmp_path, numbers):
    folder = shared_data / "dicom" / "mr_transfer_syntaxes"
    for number in numbers:
        shutil.copy(folder / "series" / f"{number}.dcm", tmp_path)
    (values,), affine = reference(folder / "ref" / "1.nii.gz")
    (series,), left_out = find_series(tmp_path)
    assert left_out == []
    assert "exact copies of images left out" in series.notes[0]
    assert agrees(read_series(series), values, affine)


def test_two_time_points_of_a_mosaic_are_two_volumes(shared_data):
    folder = shared_data / "dicom_cases" / "mr_mosaic_axial"
    found, left_out = find_series(folder / "dicom")
    expected = [reference(folder / f"reference_00{number}.nii.gz") for number in (0, 1)]
    images = [read_series(series) for series in found]
    assert left_out == []
    assert [sum(agrees(i, v[0], affine) for i in images) for v, affine in expected] == [1, 1]


def test_the_private_header_says_what_nibabel_reads(shared_data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom import csareader
    for file in sorted((shared_data / "dicom" / "mr_siemens_mosaic_cor" / "series").iterdir()):
        block = pydicom.dcmread(file, stop_before_pixels=True)[CSA].value
        theirs = {name: tag["items"] for name, tag in csareader.read(block)["tags"].items() if tag["items"]}
        ours = {name: values for name, values in csa_values(block).items() if values}
        assert set(ours) == set(theirs)
        for name in ("NumberOfImagesInMosaic", "SliceNormalVector", "MosaicRefAcqTimes", "EchoLinePosition"):
            assert [float(v) for v in ours[name]] == pytest.approx(theirs[name])


def first_version(count: int, normal: tuple[float, ...]) -> bytes:
    """A private header of version 1 (before ``SV10``), whose lengths count from that of its first element."""
    elements = {
        "Nothing": [""] * 6,
        "NumberOfImagesInMosaic": [str(count)],
        "SliceNormalVector": map(str, normal),
    }
    made = len(elements).to_bytes(4, "little") + (77).to_bytes(4, "little")
    for name, words in elements.items():
        items = [word.encode() for word in words]
        made += name.encode().ljust(64, b"\0") + bytes(12) + len(items).to_bytes(4, "little") + bytes(4)
        for item in items:
            made += (len(item) + 6).to_bytes(4, "little") + bytes(12) + item + bytes(-len(item) % 4)
    return made


def test_a_private_header_of_version_1_is_read():
    said = csa_values(first_version(12, (0.0, 0.6, -0.8)))
    assert said["NumberOfImagesInMosaic"] == ["12"]
    assert said["SliceNormalVector"] == ["0.0", "0.6", "-0.8"]


def test_any_cut_or_flipped_private_header_is_read_or_refused(shared_data):
    file = next((shared_data / "dicom" / "mr_siemens_mosaic_ax" / "series").iterdir())
    block = pydicom.dcmread(file, stop_before_pixels=True)[CSA].value
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        raw = bytearray(block[: rng.integers(len(block))] if rng.random() < 0.3 else block)
        for at in rng.integers(max(len(raw), 1), size=20 if raw else 0):
            raw[at] = rng.integers(256)
        try:
            csa_values(bytes(raw))
        except MosaicError:
            refused += 1
    assert refused > 100


@pytest.fixture
def changed(shared_data, tmp_path):
    """Write one real mosaic with other elements (None deletes one) and give its folder."""

    def change(**elements) -> Path:
        file = sorted((shared_data / "dicom" / "mr_siemens_mosaic_sag" / "series").iterdir())[0]
        dataset = pydicom.dcmread(file)
        for name, value in elements.items():
            tag = int(name[1:], 16) if name.startswith("x") else name
            if value is None:
                del dataset[tag]
            elif isinstance(tag, int):
                dataset[tag].value = value
            else:
                setattr(dataset, tag, value)
        dataset.save_as(tmp_path / "one.dcm")
        return tmp_path

    return change


def csa_of(shared_data, before: bytes, after: bytes) -> bytes:
    file = sorted((shared_data / "dicom" / "mr_siemens_mosaic_sag" / "series").iterdir())[0]
    block = pydicom.dcmread(file, stop_before_pixels=True)[CSA].value
    at = block.index(before, block.index(b"SliceNormalVector"))
    return block[:at] + after + block[at + len(before) :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x00291010": None}, "absent or damaged"),
        ({"x00291010": b"SV10\4\3\2\1\xff\xff\xff\xff\0\0\0\0"}, "absent or damaged"),
        ({"x00290010": "SOMEBODY ELSE"}, "absent or damaged"),
        ({"x0019100a": 36}, "both 35 and 36 tiles"),
        ({"Rows": 382}, "35 tiles do not fit 382 x 384"),
        ({"SpacingBetweenSlices": None}, "SpacingBetweenSlices is absent"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "not the normal of the picture"),
        ({"ImagePositionPatient": None}, "position"),
    ],
)
def test_a_mosaic_that_does_not_say_where_its_tiles_lie_is_refused(changed, change, words):
    series, left_out = find_series(changed(**change))
    assert series == []
    assert [thing.status for thing in left_out] == ["refused"]
    assert "mosaic" in left_out[0].reason and words in left_out[0].reason


def test_the_private_normal_decides_on_which_side_the_next_slice_lies(changed, shared_data):
    plain = find_series(changed())[0][0]
    ours = read_series(plain)
    turned = find_series(changed(x00291010=csa_of(shared_data, b"1.00000000", b"-1.0000000")))[0][0]
    here, there = ({p.frame: np.array(p.position) for p in s.planes} for s in (plain, turned))
    assert np.array_equal(here[0], there[0])
    assert (here[34] - here[0]).tolist() == pytest.approx([34 * 3.6, 0, 0], abs=1e-4)
    assert np.allclose(there[34] - there[0], here[0] - here[34])
    assert np.array_equal(read_series(turned).array, ours.array[..., ::-1])


def test_tiles_left_blank_at_the_end_are_no_slices(shared_data):
    file = sorted((shared_data / "dicom" / "mr_siemens_mosaic_ax" / "series").iterdir())[0]
    header = read_header(file)
    assert header is not None
    assert len(header.planes) == 35
    tiles = cut(pydicom.dcmread(file).pixel_array, header.planes[0].tiling)
    assert tiles.shape == (36, 64, 64)
    assert tiles[35].max() == 0 < tiles[34].max()


def test_a_mosaic_cut_off_in_its_pixels_is_refused(changed):
    file = changed() / "one.dcm"
    file.write_bytes(file.read_bytes()[:-50_000])
    series, left_out = find_series(file)
    assert left_out == []
    with pytest.raises(CaseError, match="pixel data"):
        read_series(series[0])
