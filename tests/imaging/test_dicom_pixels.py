"""Pixels of every transfer syntax equal those written; hostile ones cost neither memory nor the process."""

from __future__ import annotations

import io
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid

from medseg.core.errors import CaseError
from medseg.imaging.dicom_codecs import codecs
from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.dicom_deflate import UnboundedError, is_deflated, whole
from medseg.imaging.dicom_in import find_series, read_series, series_of_files
from medseg.imaging.dicom_pixels import decode, picture_digest, stored_values
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image

DEFLATED = uid.DeflatedExplicitVRLittleEndian


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDSEG_KEY", "for tests")


def drawn(slices: int = 3) -> Image:
    rng = np.random.default_rng(1)
    affine = np.array([[-2, 0, 0, 10], [0, -3, 0, 20], [0, 0, 4, -30], [0, 0, 0, 1.0]])
    array = np.round(rng.uniform(-1000, 1000, (1, 40, 36, slices))).astype(np.float32)
    return Image(array, Grid((40, 36, slices), affine))


@pytest.fixture
def series_folder(tmp_path) -> Path:
    write_ct_series(drawn(), Subject("1", "A^B", "F", 40, "seed"), tmp_path / "ct")
    return tmp_path / "ct"


def rewritten(folder: Path, syntax: str) -> None:
    """Every file of a folder again, in another transfer syntax."""
    kind = uid.UID(syntax)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        if kind.is_encapsulated:
            dataset.compress(kind, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = kind
        if not kind.is_little_endian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        how = {"implicit_vr": kind.is_implicit_VR, "little_endian": kind.is_little_endian}
        fresh = pydicom.Dataset(dataset)
        fresh.file_meta = dataset.file_meta
        pydicom.dcmwrite(file, fresh, enforce_file_format=True, **how)


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ExplicitVRLittleEndian,
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        DEFLATED,
        uid.RLELossless,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
    ],
)
def test_what_is_written_in_a_lossless_syntax_is_read_again(series_folder, syntax):
    rewritten(series_folder, syntax)
    first = sorted(series_folder.iterdir())[0]
    assert pydicom.dcmread(first).file_meta.TransferSyntaxUID == syntax
    series, left_out = find_series(series_folder)
    assert left_out == []
    assert np.array_equal(read_series(series[0]).array, drawn().array)


def in_old_jpeg(folder: Path, option: str) -> None:
    encoder = shutil.which("dcmcjpeg")
    if encoder is None:
        pytest.skip("dcmcjpeg (package dcmtk) is not installed")
    for file in folder.iterdir():
        subprocess.run([encoder, option, "+un", file, file], check=True, capture_output=True)
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID in uid.JPEGTransferSyntaxes


@pytest.mark.parametrize("option", ["+e1", "+el"], ids=["first-order prediction", "any prediction"])
def test_lossless_jpeg_is_read_as_another_encoder_wrote_it(series_folder, option):
    in_old_jpeg(series_folder, option)
    series, _ = find_series(series_folder)
    assert np.array_equal(read_series(series[0]).array, drawn().array)


def test_a_syntax_without_decoder_is_refused_by_its_name(series_folder):
    in_old_jpeg(series_folder, "+ee")  # extended, 12 bits
    series, _ = find_series(series_folder)
    with pytest.raises(CaseError, match="cannot be decoded") as caught:
        read_series(series[0])
    assert "JPEG Extended" in (caught.value.evidence or "")


def encapsulated(folder: Path, syntax: str, stream: bytes, **elements) -> Path:
    """The first file of a folder alone, with another stream for its pixels."""
    first, *others = sorted(folder.iterdir())
    for file in others:
        file.unlink()
    dataset = pydicom.dcmread(first)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = pydicom.encaps.encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.save_as(first)
    return first


def test_baseline_jpeg_of_eight_bits_is_read(series_folder):
    from PIL import Image as Pillow

    ramp = np.add.outer(np.arange(36) * 3, np.arange(40) * 3).astype(np.uint8)
    stream = io.BytesIO()
    Pillow.fromarray(ramp).save(stream, "jpeg", quality=95)
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "RescaleIntercept": "0"}
    file = encapsulated(series_folder, uid.JPEGBaseline8Bit, stream.getvalue(), **bits)
    image = read_series(series_of_files([file]))
    assert np.abs(image.array[0, :, :, 0].T - ramp).max() <= 4


HTJ2K = bytes.fromhex(  # 37 r + 11 c in 12 x 10 pixels, by OpenJPH 0.26.3
    "ff4fff51002940000000000a0000000c00000000000000000000000a0000000c000000000000000000010f0101ff5000080002"
    "0000000aff52000c00020001000504044001ff5c00132088909090909090909090909090888888ff64001700014f70656e4a50"
    "482056657220302e32362e332eff90000a0000000000690001ff93c000266ffe0507740000c00012c0001300b40107740078fe"
    "02077400c00011c000128001130073fe323300c00011c000152013e300a4a4a4c02101feb600c0002aa0001580948812fddafd"
    "7ecb760048044190f404461081ecb800ffd9"
)


@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.HTJ2K])
def test_high_throughput_jpeg_2000_is_read(series_folder, syntax):
    size = {"Rows": 12, "Columns": 10, "RescaleIntercept": "0", "BitsStored": 16, "HighBit": 15}
    file = encapsulated(series_folder, syntax, HTJ2K, **size)
    image = read_series(series_of_files([file]))
    ramp = np.add.outer(np.arange(12) * 37, np.arange(10) * 11)
    assert np.array_equal(image.array[0, :, :, 0].T, ramp)


def test_every_codec_is_installed():
    assert all(codecs().values()), codecs()


def test_the_five_encodings_of_an_enhanced_mr_hold_the_same_frames(shared_data):
    folder = shared_data / "dicom" / "mr_enhanced_small_syntaxes"
    plain = decode(str(folder / "emri_small.dcm"))
    assert plain.shape == (10, 64, 64)
    for file in sorted(folder.glob("emri_small_*.dcm")):
        if "too_short" not in file.name:
            compressed = pydicom.dcmread(file).file_meta.TransferSyntaxUID.is_encapsulated
            assert np.array_equal(stored_values([file], compressed, plain.nbytes)[0], plain), file.name


def test_frames_missing_in_a_compressed_file_are_not_made_up(shared_data):
    file = shared_data / "dicom" / "mr_enhanced_small_syntaxes" / "emri_small_jpeg_2k_lossless_too_short.dcm"
    with pytest.raises(CaseError, match="cannot be decoded"):
        stored_values([file], True, 10 * 64 * 64 * 2)


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"])
def test_values_read_in_place_are_those_of_the_general_parser(name):
    file = Path(pydicom.data.get_testdata_file(name) or "")
    assert np.array_equal(stored_values([file], False, 0)[0], decode(str(file)))


def test_signs_and_spare_bits_are_read_in_place_as_by_the_parser(series_folder):
    file = sorted(series_folder.iterdir())[0]
    dataset = pydicom.dcmread(file)
    rng = np.random.default_rng(2)  # all sixteen bits: overlays may lie above those of the value
    dataset.PixelData = rng.integers(0, 2**16, 36 * 40, np.uint16).tobytes()
    for stored, signed in ((12, 0), (12, 1), (13, 1)):
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = stored, stored - 1, signed
        dataset.save_as(file)
        values = stored_values([file], False, 0)[0]
        assert np.array_equal(values, decode(str(file)))
        assert np.array_equal(values & (2**stored - 1), dataset_bits(dataset, stored))
        assert (values.min() < 0) == bool(signed)


def dataset_bits(dataset: pydicom.Dataset, stored: int) -> np.ndarray:
    raw = np.frombuffer(dataset.PixelData, np.uint16) & (2**stored - 1)
    return raw.reshape(1, dataset.Rows, dataset.Columns)


def test_stored_bits_may_lie_at_the_upper_end(series_folder):
    file = sorted(series_folder.iterdir())[0]
    dataset = pydicom.dcmread(file)
    values = np.frombuffer(dataset.PixelData, np.uint16)  # of twelve bits
    dataset.PixelData = (values << 4 | 0xF).astype(np.uint16).tobytes()
    dataset.BitsStored, dataset.HighBit = 12, 15
    dataset.save_as(file)
    for read in (stored_values([file], False, 0)[0], decode(str(file))):
        assert np.array_equal(read.ravel(), values)


def with_lut(folder: Path, values: list[int], first: int = 0, **elements) -> None:
    """A table in place of slope and intercept in every file, of values up to 15."""
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        del dataset.RescaleSlope, dataset.RescaleIntercept
        stored = np.frombuffer(dataset.PixelData, np.uint16) % 16
        dataset.PixelData = stored.astype(np.uint16).tobytes()
        table = pydicom.Dataset()
        table.add_new("LUTDescriptor", "US", [len(values), first, 16])
        table.add_new("ModalityLUTType", "LO", "US")
        table.add_new("LUTData", "US", values)
        dataset.ModalityLUTSequence = [table]
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)


def test_a_modality_lut_takes_the_place_of_slope_and_intercept(series_folder):
    values = [n * n + 1 for n in range(12)]
    with_lut(series_folder, values, first=2)
    series, left_out = find_series(series_folder)
    image = read_series(series[0])
    assert left_out == []
    assert "grey values by the Modality LUT of the files" in series[0].notes
    for number, file in enumerate(sorted(series_folder.iterdir())):
        stored = pydicom.dcmread(file).pixel_array.T
        expected = np.array(values)[np.clip(stored.astype(int) - 2, 0, 11)]
        assert np.array_equal(image.array[0, :, :, number], expected)


@pytest.mark.parametrize("spoil", ["length", "slope"])
def test_a_modality_lut_that_is_not_well_formed_is_refused(series_folder, spoil):
    with_lut(series_folder, list(range(10)), **({"RescaleSlope": 2} if spoil == "slope" else {}))
    if spoil == "length":
        for file in series_folder.iterdir():
            dataset = pydicom.dcmread(file)
            dataset.ModalityLUTSequence[0].LUTDescriptor = [300, 0, 16]
            dataset.save_as(file)
    series, left_out = find_series(series_folder)
    assert series == []
    assert "Modality LUT" in left_out[0].reason and left_out[0].status == "refused"


def test_a_copy_has_the_same_digest_in_other_headers_and_another_picture_has_not(series_folder):
    first, second, _ = sorted(series_folder.iterdir())
    before = picture_digest(first)
    dataset = pydicom.dcmread(first)
    dataset.ImageComments = "longer"
    dataset.save_as(first)
    assert picture_digest(first) == before != picture_digest(second)


# deflated as a whole -------------------------------------------------------------------------------------


def deflated(file: Path, change) -> None:
    """Write a deflated file again, its unfolded data set changed by a function of bytes."""
    raw = file.read_bytes()
    start = 144 + int.from_bytes(raw[140:144], "little")
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = change(zlib.decompress(raw[start:], -zlib.MAX_WBITS))
    file.write_bytes(raw[:start] + engine.compress(data) + engine.flush())


def test_a_deflated_file_of_another_maker_is_read():
    file = Path(pydicom.data.get_testdata_file("image_dfl.dcm") or "")
    assert is_deflated(file)
    assert np.array_equal(decode(str(file))[0], pydicom.dcmread(file).pixel_array)


PADDING = bytes.fromhex("fcfffcff4f420000")  # data set trailing padding, explicit OB


def test_a_bomb_behind_the_pixels_is_refused_within_memory(series_folder):
    rewritten(series_folder, DEFLATED)
    file = sorted(series_folder.iterdir())[0]
    size = 200 * 2**20
    deflated(file, lambda data: data + PADDING + size.to_bytes(4, "little") + bytes(size))
    assert file.stat().st_size < 2**20
    with pytest.raises(UnboundedError, match="does not end within"):
        whole(file)
    series, _ = find_series(series_folder)
    with pytest.raises(CaseError, match="cannot be decoded") as caught:
        read_series(series[0])
    assert "does not end within" in (caught.value.evidence or "")


def test_a_bomb_before_the_pixels_is_refused_by_name(series_folder):
    rewritten(series_folder, DEFLATED)
    size = 40 * 2**20
    private = bytes.fromhex("090001104f420000") + size.to_bytes(4, "little") + bytes(size)
    for file in series_folder.iterdir():
        deflated(file, lambda data: data[: data.index(b"\x10\x00\x10\x00")] + private)
    series, left_out = find_series(series_folder)
    assert series == []
    assert [thing.status for thing in left_out] == ["refused"]


def test_a_deflated_file_cut_off_is_refused(series_folder):
    rewritten(series_folder, DEFLATED)
    for file in series_folder.iterdir():
        file.write_bytes(file.read_bytes()[:-200])
    series, _ = find_series(series_folder)
    with pytest.raises(CaseError, match="cannot be decoded"):
        read_series(series[0])


# hostile streams -----------------------------------------------------------------------------------------


def test_the_worker_refuses_a_small_file_that_claims_a_huge_picture(series_folder):
    size = {"Rows": 30000, "Columns": 30000}
    file = encapsulated(series_folder, uid.RLELossless, bytes(64) + b"\x81\x00" * 50, **size)
    series, left_out = find_series(file)
    assert series == []
    assert "claims" in left_out[0].reason


def test_a_stream_that_says_another_size_never_reaches_a_decoder(series_folder):
    stream = bytearray(HTJ2K)
    stream[8:16] = b"\0\1\0\0\0\1\0\0"  # 65536 x 65536
    size = {"Rows": 12, "Columns": 10, "BitsStored": 16, "HighBit": 15}
    file = encapsulated(series_folder, uid.HTJ2KLossless, bytes(stream), **size)
    with pytest.raises(CaseError) as caught:
        read_series(series_of_files([file]))
    assert "65536 x 65536" in (caught.value.evidence or "")
