"""Radiographs, ultrasound pictures and captures drawn by hand, as DICOM files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

STORAGE = "1.2.840.10008.5.1.4.1.1."
CLASSES = {
    "CR": "1", "DX": "1.1", "DX raw": "1.1.1", "MG": "1.2", "US": "6.1", "US film": "3.1", "XA": "12.1",
    "RF": "12.2", "OT": "7", "CT": "2",
}  # fmt: skip
NAME, NUMBER = "Quillfeather^Ada", "CNRY-4471-XQ"
ROWS = np.array([[0, 10, 20, 30], [40, 50, 60, 70], [80, 90, 100, 1000]], np.uint16)
"""Three rows of four columns, 12 of 16 bits."""


def write_picture(file: Path, kind: str = "DX", pixels: np.ndarray = ROWS, **elements: Any) -> Path:
    """Write one picture; `elements` are set last, None takes one out."""
    ds = Dataset()
    ds.SOPClassUID = STORAGE + CLASSES[kind]
    ds.Modality = kind.split()[0]
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[str(file)])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[str(file.parent), "series"])
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[str(file.parent), "study"])
    ds.PatientName, ds.PatientID = NAME, NUMBER
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    colour = pixels.ndim == 3
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = 12 if ds.BitsAllocated == 16 else 8
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated == 16 else "OB"
    ds.HighBit = ds.BitsStored - 1
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = UID(STORAGE + CLASSES[kind])
    ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(file)])
    file.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(file, enforce_file_format=bool(ds.get("SOPClassUID") and ds.get("SOPInstanceUID")))
    return file


def region(delta_x: float = 0.02, delta_y: float = 0.02, form: int = 1, unit: int = 3) -> Dataset:
    """One calibrated region of an ultrasound picture: 2-D in cm unless said otherwise."""
    item = Dataset()
    item.RegionSpatialFormat = form
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta_x, delta_y
    return item
