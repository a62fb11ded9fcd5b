"""Writing plain CT series: phantoms as a scanner would send them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.core.files import sync
from medseg.imaging.grid import Grid, lps_from_ras
from medseg.imaging.image import Image

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class Subject:
    """Invented identity of a phantom; every UID is a function of `seed`."""

    number: str
    name: str
    sex: str
    age_years: int
    seed: str

    def uid(self, role: str) -> str:
        """The UID of a role, such as ``series``: 2.25 and 128 bits of a hash, always the same."""
        return f"2.25.{int(hashlib.sha256(f'{self.seed}|{role}'.encode()).hexdigest()[:32], 16)}"


def write_ct_series(image: Image, subject: Subject, folder: Path) -> list[Path]:
    """Write an image in HU as a CT series, a file a slice (last axis), and return the files in order.

    The grid must have orthogonal axes: I runs along a row, J down a column, K along the normal.
    Bytes depend on image and subject alone. Values are rounded to whole HU from -1024 to 3071.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = np.clip(np.rint(image.array[0] + 1024), 0, 4095).astype("<u2")
    files = []
    for number in range(image.grid.shape[2]):
        dataset = _slice(image.grid, subject, number)
        dataset.PixelData = stored[:, :, number].T.tobytes()
        file = folder / f"{number + 1:04d}.dcm"
        dataset.save_as(file, enforce_file_format=True)
        files.append(file)
    sync(folder)
    return files


def _slice(grid: Grid, subject: Subject, number: int) -> Dataset:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(subject.uid(f"slice {number}"))
    dataset.preamble = b"\0" * 128
    _identity(dataset, subject)
    _acquisition(dataset, number)
    _place(dataset, grid, number)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = subject.uid(f"slice {number}")
    return dataset


def _identity(dataset: Dataset, subject: Subject) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = subject.name, subject.number
    dataset.PatientBirthDate, dataset.PatientSex = "", subject.sex
    dataset.PatientAge = f"{subject.age_years:03d}Y"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = subject.uid("study"), subject.uid("series")
    dataset.FrameOfReferenceUID = subject.uid("frame")
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20000101", "120000", "1"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "medseg", "phantom"


def _acquisition(dataset: Dataset, number: int) -> None:
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 1, number + 1, 1
    dataset.SeriesDescription, dataset.BodyPartExamined = "Phantom abdomen", "ABDOMEN"
    dataset.KVP, dataset.PatientPosition = "120", "HFS"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "-1024", "HU"
    dataset.BurnedInAnnotation = "NO"


def _place(dataset: Dataset, grid: Grid, number: int) -> None:
    affine, (columns_mm, rows_mm, gap_mm) = lps_from_ras(grid.affine), grid.spacing_mm
    directions = affine[:3, :3] / np.array(grid.spacing_mm)
    position = affine[:3, 3] + number * affine[:3, 2]
    dataset.Columns, dataset.Rows = grid.shape[0], grid.shape[1]
    dataset.PixelSpacing = [decimal(rows_mm), decimal(columns_mm)]
    dataset.SliceThickness = decimal(gap_mm)
    dataset.ImageOrientationPatient = [decimal(v) for v in (*directions[:, 0], *directions[:, 1])]
    dataset.ImagePositionPatient = [decimal(v) for v in position]


def decimal(value: float) -> str:
    """A decimal string of at most 16 characters, as exact as that allows."""
    for digits in range(12, 0, -1):
        text = f"{value:.{digits}f}"
        if len(text) <= 16:
            return text if float(text) else "0.0"
    raise ValueError("a length of more than 13 digits")
