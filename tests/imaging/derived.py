"""Sources, masks and outside readers for the tests of derived DICOM objects."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

from medseg.imaging.dicom_contours import fill
from medseg.imaging.dicom_ct import Subject, write_ct_series
from medseg.imaging.dicom_header import tolerant
from medseg.imaging.dicom_in import find_series
from medseg.imaging.dicom_policy import DicomPolicy
from medseg.imaging.dicom_series import Series
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import Code, Label, checked

LABELS = checked(
    [
        Label(
            value=1,
            name="liver",
            category=Code(value="123037004", meaning="Anatomical Structure"),
            type=Code(value="10200004", meaning="Liver"),
            colour="#ff0000",
        ),
        Label(value=7, name="left kidney"),
        Label(value=9, name="nothing of it"),
    ]
)
MEND = DicomPolicy(uneven="resample", gaps="resample")


def mask_on(series: Series) -> Image:
    """A disc with a hole and an island in it, a box that leaves the last slice out, nothing of label 9."""
    columns, rows, slices = series.grid.shape
    i, j = np.ogrid[:columns, :rows]
    far = np.hypot((i - 0.45 * columns) / columns, (j - 0.5 * rows) / rows)
    array = np.zeros((columns, rows, slices), np.uint8)
    array[(far < 0.32) & (far > 0.14)] = 1
    array[far < 0.06] = 1
    array[
        int(0.82 * columns) : int(0.95 * columns), int(0.1 * rows) : int(0.4 * rows), : max(1, slices - 1)
    ] = 7
    return Image(array[None], series.grid)


def oblique_ct(folder: Path, slices: int = 5) -> list[Path]:
    """A doubly oblique CT with other spacings in rows and columns."""
    a, b = np.radians(20), np.radians(10)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]) @ np.array(
        [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.2, -1.7, 4.0])
    affine[:3, 3] = (11, -7, 5)
    rng = np.random.default_rng(0)
    image = Image(
        rng.integers(-100, 200, (1, 40, 30, slices)).astype(np.float32), Grid((40, 30, slices), affine)
    )
    return write_ct_series(image, Subject("P1", "Phantom^One", "F", 50, "derived test"), folder)


def changed(files: Sequence[Path], folder: Path, **values: object) -> list[Path]:
    """Copies of files with other values; a function gets (number, dataset)."""
    folder.mkdir(parents=True, exist_ok=True)
    out = [folder / f"{number:04d}.dcm" for number in range(len(files))]
    with tolerant():
        for number, file in enumerate(files):
            dataset = pydicom.dcmread(file)
            for keyword, value in values.items():
                setattr(dataset, keyword, value(number, dataset) if callable(value) else value)
            dataset.save_as(out[number], enforce_file_format=True)
    return out


def moved(files: Sequence[Path], folder: Path, offsets: Sequence[Sequence[float]]) -> list[Path]:
    """Copies with slices pushed aside: ``offsets[n]`` in mm (LPS) is added to the n-th position."""

    def place(number: int, dataset: pydicom.Dataset) -> list[str]:
        at = np.array(dataset.ImagePositionPatient, float) + offsets[number]
        return [f"{v:.6f}" for v in at]

    return changed(files, folder, ImagePositionPatient=place)


def named(folder: Path, into: Path) -> list[Path]:
    """Copies of a real series with a frame of reference, which public copies often lost."""
    return changed(
        sorted(f for f in folder.rglob("*") if f.is_file()), into, FrameOfReferenceUID="1.2.826.0.1.7"
    )


SOURCES = ("axial", "oblique", "two slices", "decubitus", "sagittal oblique", "enhanced", "tilted", "uneven")


def source(name: str, tmp_path: Path, shared: Path) -> Series:
    """A series to derive objects from, phantom or real."""
    cases = shared / "dicom_cases"
    here = tmp_path / "source"
    if name in ("axial", "tilted"):
        folder = shared / "dicom/seg_liver_ct3" if name == "axial" else cases / "ct_tilt_uniform/dicom"
    elif name == "decubitus":
        folder = cases / "mr_decubitus_left/dicom"
    else:
        folder = here
    if name == "sagittal oblique":
        named(cases / "mr_sagittal_oblique/dicom", here)
    elif name == "enhanced":
        named(cases / "mr_enhanced/dicom", here)
    elif name in ("oblique", "two slices"):
        oblique_ct(here, 2 if name == "two slices" else 5)
    elif name == "uneven":
        files = oblique_ct(tmp_path / "even", 6)
        step = np.subtract(*(pydicom.dcmread(f).ImagePositionPatient for f in (files[1], files[0])))
        moved(files, here, [n * n / 10 * step for n in range(6)])
    (found,) = find_series(folder, MEND)[0]
    return found


def valid(file: Path) -> list[str]:
    """The errors dciodvfy finds in a file."""
    done = subprocess.run([tool("dciodvfy"), file], capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


def tool(name: str) -> str:
    """Where a program is; skips the test where it is not."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def read_contours(file: Path, series: Series) -> np.ndarray:
    """An RTSTRUCT back on the planes ``[slice, row, column]``: ROI numbers, each plane by its own place."""
    planes = np.zeros((len(series.planes), series.planes[0].rows, series.planes[0].columns), np.uint8)
    pictures = {(plane.sop_uid, plane.frame): n for n, plane in enumerate(series.planes)}
    for roi in pydicom.dcmread(file).ROIContourSequence:
        drawn: dict[int, list[np.ndarray]] = {}
        for contour in roi.get("ContourSequence", ()):
            refers = contour.ContourImageSequence[0]
            n = pictures[refers.ReferencedSOPInstanceUID, int(refers.get("ReferencedFrameNumber", 1)) - 1]
            drawn.setdefault(n, []).append(_in_pixels(contour.ContourData, series, n))
        for n, contours in drawn.items():
            planes[n][fill(contours, planes.shape[1:])] = roi.ReferencedROINumber
    return planes


def _in_pixels(data: Sequence[float], series: Series, number: int) -> np.ndarray:
    plane = series.planes[number]
    row, column = np.reshape(np.array(plane.orientation, float), (2, 3))
    offset = np.array(data, float).reshape(-1, 3) - np.array(plane.position, float)
    assert np.abs(offset @ np.cross(row, column)).max() < 0.002, "contours lie off their plane"
    between_rows, between_columns = plane.spacing_mm
    return np.stack([offset @ row / between_columns, offset @ column / between_rows], axis=1)


def enhanced_mr(folder: Path, files: Sequence[Sequence[tuple[int, float]]]) -> Path:
    """Enhanced MR files, each a list of frames (slice, echo time in ms), 4 mm apart, measures per frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frames in enumerate(files):
        dataset = _enhanced(number)
        dataset.NumberOfFrames = len(frames)
        dataset.PerFrameFunctionalGroupsSequence = [_frame(*frame) for frame in frames]
        pixels = np.array([np.arange(12 * 10).reshape(12, 10) + 7 * at for at, _ in frames], "<u2")
        dataset.PixelData = pixels.tobytes()
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def _enhanced(number: int) -> pydicom.Dataset:
    dataset, uids = pydicom.Dataset(), Subject("P2", "Phantom^Two", "M", 40, "enhanced test")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uids.uid(f"file {number}")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uids.uid("study"), uids.uid("series")
    dataset.FrameOfReferenceUID, dataset.Modality = uids.uid("frame"), "MR"
    dataset.PatientName, dataset.PatientID, dataset.ImageType = (
        uids.name,
        uids.number,
        ["ORIGINAL", "PRIMARY"],
    )
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 12, 10, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    return dataset


def _frame(at: int, echo_ms: float) -> pydicom.Dataset:
    group = pydicom.Dataset()
    for sequence, values in {
        "PixelMeasuresSequence": {"PixelSpacing": ["1.5", "2.0"], "SliceThickness": "4"},
        "PlaneOrientationSequence": {"ImageOrientationPatient": ["0", "1", "0", "0", "0", "-1"]},
        "PlanePositionSequence": {"ImagePositionPatient": [str(4 * at), "-10", "30"]},
        "MREchoSequence": {"EffectiveEchoTime": echo_ms},
    }.items():
        item = pydicom.Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(group, sequence, [item])
    return group
