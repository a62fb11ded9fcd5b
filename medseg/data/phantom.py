"""Phantom patients on disk: DICOM studies, an MSD data set or pictures with a class, the truth beside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medseg.core.errors import MedsegError
from medseg.core.files import read_json, write_json, write_text
from medseg.core.progress import progress
from medseg.data.phantom_body import PHANTOM_LABELS, Phantom, Size, draw_patient
from medseg.imaging.deidentify import keyed_hash, project_key
from medseg.imaging.image import Image, write_image
from medseg.imaging.labels import Labels

__all__ = [
    "PHANTOM_LABELS",
    "Phantom",
    "draw_patient",
    "read_truth",
    "write_class_phantoms",
    "write_phantoms",
]

Format = Literal["dicom", "msd", "nifti"]
TRUTH = "truth.json"


def write_phantoms(
    root: str | Path,
    n: int,
    seed: int = 0,
    format: Format = "dicom",
    size: Size = "normal",
    *,
    channels: int = 1,
    quiet: bool = True,
) -> Labels:
    """Write `n` phantom patients below `root`, and return their labels.

    Parameters
    ----------
    format : {"dicom", "msd", "nifti"}
        ``dicom``: ``patient001/ct/*.dcm`` and the reference ``patient001/seg.dcm``. ``msd``:
        ``dataset.json``, ``imagesTr``, ``labelsTr``. ``nifti``: ``patient001/image.nii.gz`` and
        ``patient001/reference.nii.gz``.
    channels : int
        2 adds a second contrast (NIfTI and MSD only), as a fourth axis.

    Notes
    -----
    The same arguments give the same bytes. Closed-form volumes go into ``truth.json``; read them with
    `read_truth`.
    """
    if format not in _WRITERS or n < 1 or channels not in (1, 2) or (format == "dicom" and channels > 1):
        raise MedsegError(
            "phantoms cannot be written like this",
            evidence=f"format {format}, {n} patients, {channels} channels; formats: {', '.join(_WRITERS)}",
        )
    folder = Path(root)
    truth = {}
    for number in progress(range(n), "phantoms", quiet=quiet):
        phantom = draw_patient(seed, number, size)
        name = f"patient{number + 1:03d}"
        keys = _WRITERS[format](folder, name, phantom, seed, channels)
        truth[name] = {
            "volumes_ml": {label: round(ml, 6) for label, ml in phantom.volumes_ml.items()},
            "orientation": phantom.orientation,
            **keys,
        }
    if format == "msd":
        _write_msd_index(folder, sorted(truth), channels)
    write_json(folder / TRUTH, {"seed": seed, "format": format, "cases": truth})
    return PHANTOM_LABELS


def read_truth(root: str | Path) -> dict[str, dict[str, float]]:
    """Closed-form volumes (ml, by label name) of each case, under every name that medseg may give it.

    Keys are folder or file names, and for DICOM also the keyed hashes (project key) of series and
    patient, which are the case and patient ids after ingest.
    """
    cases: Mapping[str, Any] = read_json(Path(root) / TRUTH)["cases"]
    found = {name: case["volumes_ml"] for name, case in cases.items()}
    for case in cases.values():
        for field in ("series", "patient"):
            if field in case:
                found[keyed_hash(case[field], project_key())] = case["volumes_ml"]
    return found


def write_class_phantoms(
    root: str | Path,
    n: int,
    classes: int = 2,
    seed: int = 0,
    format: Literal["png", "nifti"] = "png",
    size: Size = "normal",
) -> tuple[str, ...]:
    """Write `n` pictures (or volumes) with a class for classification, and return the class names.

    The class is the number of lesions in the liver: ``no_lesion``, ``one_lesion``, ... PNG shows the
    axial plane through the first lesion (through the liver when there is none) at 4 mm, window -100
    to 200 HU. ``manifest.csv`` has the columns ``image,class,patient``, with paths relative to it.
    """
    if not 2 <= classes <= 4 or n < classes:
        raise MedsegError(
            "class phantoms need 2 to 4 classes and at least one image each",
            evidence=f"{classes} classes, {n} images",
        )
    names = ("no_lesion", "one_lesion", "two_lesions", "three_lesions")[:classes]
    folder = Path(root)
    rows = ["image,class,patient"]
    for number in range(n):
        lesions = number % classes
        phantom = draw_patient(seed, 4 * number, size, lesions)  # 4 k: all axial
        file = f"images/case{number + 1:04d}.{'png' if format == 'png' else 'nii.gz'}"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        if format == "png":
            _write_picture(phantom, folder / file)
        else:
            write_image(_short(phantom.image), folder / file)
        rows.append(f"{file},{names[lesions]},p{number + 1:04d}")
    write_text(folder / "manifest.csv", "\n".join(rows) + "\n")
    return names


def _write_dicom(root: Path, name: str, phantom: Phantom, seed: int, channels: int) -> dict[str, str]:
    from medseg.imaging.dicom_ct import Subject, write_ct_series
    from medseg.imaging.dicom_seg import write_seg

    subject = _subject(Subject, name, seed, phantom)
    files = write_ct_series(phantom.image, subject, root / name / "ct")
    write_seg(
        phantom.mask, PHANTOM_LABELS, files, root / name / "seg.dcm", series_description="Reference standard",
        algorithm="phantom", algorithm_version="1", seed=subject.seed,
    )  # fmt: skip
    first = min(subject.uid(f"slice {k}") for k in range(len(files)))
    return {"series": f"{subject.uid('series')}#{first}:000000", "patient": f"{subject.number}|"}


def _subject(kind: Any, name: str, seed: int, phantom: Phantom) -> Any:
    # size enters through the volume's shape: two sets of one seed must not share UIDs
    unique = f"phantom {seed} {name} {phantom.image.grid}"
    rng = np.random.default_rng([seed, int(name[-3:]), 7])
    sex = "FM"[int(rng.integers(2))]
    return kind(
        f"PHANTOM-{seed}-{name[-3:]}", f"Phantom^{name.title()}", sex, int(rng.integers(30, 85)), unique
    )


def _write_msd(root: Path, name: str, phantom: Phantom, seed: int, channels: int) -> dict[str, str]:
    for sub in ("imagesTr", "labelsTr"):
        (root / sub).mkdir(parents=True, exist_ok=True)
    write_image(_channels(phantom, seed, channels), root / "imagesTr" / f"{name}.nii.gz")
    write_image(phantom.mask, root / "labelsTr" / f"{name}.nii.gz")
    return {}


def _write_nifti(root: Path, name: str, phantom: Phantom, seed: int, channels: int) -> dict[str, str]:
    write_image(_channels(phantom, seed, channels), root / name / "image.nii.gz")
    write_image(phantom.mask, root / name / "reference.nii.gz")
    return {}


def _write_msd_index(root: Path, names: list[str], channels: int) -> None:
    write_json(root / "dataset.json", {
        "name": "Phantom", "description": "ellipsoid patients", "tensorImageSize": f"{2 + channels}D",
        "modality": {str(i): m for i, m in enumerate(("CT", "late")[:channels])},
        "labels": {"0": "background", **{str(label.value): label.name for label in PHANTOM_LABELS}},
        "numTraining": len(names), "numTest": 0, "test": [],
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
    })  # fmt: skip


def _channels(phantom: Phantom, seed: int, channels: int) -> Image:
    """The CT, and on request a late phase in which the lesion takes up contrast and the liver loses it."""
    if channels == 1:
        return _short(phantom.image)
    rng = np.random.default_rng([seed, int(phantom.volumes_ml["liver"] * 1e6)])
    gain = np.array([0, -30, -50, 60])[phantom.mask.array]
    late = phantom.image.array + gain + rng.normal(0, 10, gain.shape)
    return _short(phantom.image.but(np.concatenate([phantom.image.array, np.rint(late)])))


def _short(image: Image) -> Image:
    return image.but(np.clip(image.array, -1024, 3071).astype(np.int16))


def _write_picture(phantom: Phantom, file: Path) -> None:
    from PIL import Image as Picture

    at_mm = next(
        (b for b in phantom.bodies if b.value == 3), next(b for b in phantom.bodies if b.value == 1)
    ).centre_mm
    index = int(np.clip(np.rint(phantom.image.grid.to_index(at_mm)[2]), 0, phantom.image.grid.shape[2] - 1))
    grey = np.clip((phantom.image.array[0, :, :, index].T + 100) / 300, 0, 1)
    Picture.fromarray(np.rint(grey * 255).astype(np.uint8)).save(file)


_WRITERS = {"dicom": _write_dicom, "msd": _write_msd, "nifti": _write_nifti}
