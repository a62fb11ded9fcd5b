"""Look what lies there, and read it as that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.files import files_below
from medseg.core.registry import look_up
from medseg.data.cohort import Cohort
from medseg.data.discover import kind_of
from medseg.data.discover_globs import IMAGE_FOLDERS, REFERENCE_FOLDERS
from medseg.data.discover_sets import read_description
from medseg.data.discover_table import ALIASES, read_rows
from medseg.data.unpack import is_archive, unpacked_for_now

FORMATS: dict[str, Callable[..., Cohort]] = {
    "msd": Cohort.from_msd,
    "nnunet": Cohort.from_nnunet,
    "nifti": Cohort.from_nifti,
    "csv": Cohort.from_csv,
    "dicom": Cohort.from_dicom,
    "classes": Cohort.from_classes,
}
_COMMON = ("labels", "channels", "name", "quiet", "ids")
_OWN = {
    "msd": ("need_reference",),
    "nnunet": ("need_reference",),
    "nifti": ("image", "reference", "need_reference"),
    "csv": ("roles",),
    "dicom": ("need_reference", "policy", "select", "reference"),
}
MANIFESTS = ("manifest.csv", "manifest.json", "cohort.csv", "labels.csv", "cases.csv")


def open_cohort(root: str | Path, format: str = "auto", **options: Any) -> Cohort:
    """See `Cohort.open`. Options that are None or empty are as if not given."""
    given = {k: v for k, v in options.items() if v not in (None, "", (), {}, [])}
    want_all, alone = given.pop("need_reference", None), given.pop("images_alone", False)
    chosen, place = located(root, "nifti" if format == "auto" and "image" in given else format, **options)
    constructor = look_up(FORMATS, chosen, "format")
    if want_all is not None and "need_reference" in _OWN.get(chosen, ()):
        given["need_reference"] = want_all  # tables and class folders never need one
    if alone and chosen == "dicom":
        given["reference"] = "none"
    _check_options(chosen, given)
    return constructor(place, **given)


def located(root: str | Path, format: str = "auto", **options: Any) -> tuple[str, Path]:
    """The format of what lies at `root`, and the place its constructor wants; an archive is unpacked.

    Raises
    ------
    MedsegError
        Nothing is there, or an archive that is not safe to unpack.
    """
    path = Path(root).expanduser().resolve()
    if not path.exists():
        raise MedsegError("the data set is not there", file=str(path), mend="correct its path")
    if path.is_dir() and not any(path.iterdir()):
        raise MedsegError("the folder is empty", file=str(path), mend="give the folder that holds the images")
    if is_archive(path):
        path = unpacked_for_now(path, quiet=bool(options.get("quiet")))
    if format == "auto":
        return guess_format(path)
    return format, (_manifest(path) or path) if format == "csv" and path.is_dir() else path


def _check_options(format: str, given: dict[str, Any]) -> None:
    """Refuse options that the format has no use for."""
    known = [*_COMMON, *_OWN.get(format, ())]
    for option in given:
        if option not in known:
            raise MedsegError(
                f"format {format} has no option '{option}'",
                evidence=f"it has: {', '.join(known)}",
                mend="take the option out, or name the format the data set really has (format=...)",
            )


def guess_format(path: Path) -> tuple[str, Path]:
    """The format of what lies at `path`, and the path its constructor wants."""
    if path.is_file():
        return _file_format(path)
    if (path / "dataset.json").is_file():
        said = read_description(path)
        return ("nnunet" if _is_nnunet(path, said) else "msd"), path
    table = _manifest(path)
    if table is not None:
        return "csv", table
    if _mostly_dicom(path):
        return "dicom", path
    if _has_classes(path):
        return "classes", path
    return ("nifti" if _has_images(path) else "dicom"), path


def _file_format(file: Path) -> tuple[str, Path]:
    if file.name == "dataset.json":
        return guess_format(file.parent)
    if file.name.upper() == "DICOMDIR":
        return "dicom", file.parent
    if file.suffix.lower() in (".csv", ".json"):
        return "csv", file
    return ("nifti" if kind_of(file) else "dicom"), file


def _is_nnunet(root: Path, said: dict[str, Any]) -> bool:
    if "channel_names" in said or "file_ending" in said:
        return True
    return "training" not in said and any((root / "imagesTr").glob("*_0000.*"))


def _manifest(root: Path) -> Path | None:
    """The first table that names images; a ``cases.csv`` that only describes them is none."""
    for name in MANIFESTS:
        if (root / name).is_file():
            columns = list(read_rows(root / name)[1][0])
            if any(
                c in ALIASES["image"] or (c.startswith("image_") and _is_path(root, name, c)) for c in columns
            ):
                return root / name
    return None


def _is_path(root: Path, name: str, column: str) -> bool:
    return any((root / row[column]).is_file() for row in read_rows(root / name)[1] if row.get(column))


def _mostly_dicom(root: Path) -> bool:
    """More DICOM files than other images below `root` (a result in NIfTI may lie beside a study)."""
    files = files_below(root)
    images = sum(1 for f in files if kind_of(f) and not f.name.startswith("."))
    return images < sum(1 for f in files if kind_of(f) is None and _is_dicom(f))


def _is_dicom(file: Path) -> bool:
    if file.suffix.lower() in (".dcm", ".ima"):
        return True
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _has_images(root: Path) -> bool:
    return any(kind_of(f) for depth in ("*", "*/*") for f in root.glob(depth) if not f.name.startswith("."))


def _has_classes(root: Path) -> bool:
    """Folders of images, at least two, none of which is called as images or references usually are."""
    base = next((root / sub for sub in IMAGE_FOLDERS if (root / sub).is_dir()), root)
    subs = [d for d in base.glob("*") if d.is_dir() and any(kind_of(f) for f in d.glob("*"))]
    usual = {*IMAGE_FOLDERS, *REFERENCE_FOLDERS}
    several = all(sum(1 for f in d.glob("*") if kind_of(f)) > 1 for d in subs)
    raster = all(kind_of(f) != "nifti" for d in subs for f in d.glob("*"))
    return len(subs) > 1 and several and raster and not usual & {d.name for d in subs}
