"""From files found to a cohort: ids, hashes, and an account of what was not taken."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medseg.core.errors import CaseError, MedsegError
from medseg.core.files import sha256_of
from medseg.core.progress import progress
from medseg.core.values import digest
from medseg.data.cohort import Case, Cohort, Refusal, Source, Task
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.labels import Label, Labels, checked, named_labels, parse_labels

log = logging.getLogger("medseg")

Kind = Literal["nifti", "dicom", "seg", "rtstruct", "raster"]

NIFTI = (".nii.gz", ".nii")
RASTER = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

LabelsLike = str | Mapping[str, int] | Mapping[str, Sequence[int]] | Sequence[Label] | None


@dataclass(frozen=True)
class Draft:
    """A case as found, before its files are looked at. Paths of one channel lie in one tuple."""

    id: str
    images: dict[str, tuple[Path, ...]]
    reference: tuple[Path, ...] = ()
    patient: str | None = None
    label_class: str | None = None
    groups: dict[str, str] = field(default_factory=dict)
    kind: Kind | None = None
    reference_kind: Kind | None = None
    parts: dict[str, str] = field(default_factory=dict)
    """Channel -> which volume of its files (`Series.part`)."""
    policy: DicomPolicy = DEFAULT

    def files(self) -> list[Path]:
        """Every file of the case."""
        return [f for files in (*self.images.values(), self.reference) for f in files]


@dataclass(frozen=True)
class Frame:
    """What the cases of a cohort have in common."""

    channels: tuple[str, ...]
    labels: Labels = ()
    classes: tuple[str, ...] = ()
    task: Task = "segmentation"
    name: str = "cohort"
    quiet: bool = False


def assemble(drafts: Iterable[Draft], frame: Frame, refused: Iterable[Refusal] = ()) -> Cohort:
    """The cohort of the drafts that hold; the others become refusals.

    Raises
    ------
    MedsegError
        There is nothing at all, neither taken nor refused.
    """
    good, bad = _sorted_out(list(drafts), frame)
    refused = (*refused, *bad)
    if not good and not refused:
        raise MedsegError(
            "nothing was found that could be a case",
            mend="check the folder and the format (msd, nnunet, nifti, csv, dicom, classes)",
        )
    digests = hash_files([f for draft in good for f in draft.files()], frame.quiet)
    return Cohort(
        name=frame.name,
        task=frame.task,
        channels=frame.channels,
        labels=frame.labels,
        classes=frame.classes,
        cases=tuple(_case(draft, digests) for draft in good),
        refused=refused,
    )


def hash_files(files: Iterable[Path], quiet: bool = False) -> dict[Path, str]:
    """sha256 of each file, each read once, several at a time."""
    unique = list(dict.fromkeys(files))
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        found = progress(pool.map(sha256_of, unique), "hashing", total=len(unique), unit="file", quiet=quiet)
        return dict(zip(unique, found, strict=True))


def source_of(files: Sequence[Path], digests: Mapping[Path, str], kind: Kind | None = None) -> Source:
    """The source made of `files`: a single file's own sha256, or one over all of them, sorted."""
    found = [digests[f] for f in files]
    whole = found[0] if len(found) == 1 else digest(sorted(found))
    kind = kind or kind_of(files[0]) or "nifti"
    return Source(kind=kind, files=tuple(str(f) for f in files), sha256=whole)


def refusal(error: MedsegError, series: str, case: str | None = None) -> Refusal:
    """A row for the table of what was not taken; the console hears the whole story, file included."""
    log.warning("%s", error)
    parts = [error.what, error.evidence, error.mend]
    return Refusal(series=series, case=case, status="refused", reason="; ".join(p for p in parts if p))


def skipped(series: str, reason: str) -> Refusal:
    """A row for something that was found and is not meant to be a case."""
    return Refusal(series=series, status="skipped", reason=reason)


def no_image(case: str, file: Path) -> Refusal:
    """The refusal of a reference that stands alone."""
    error = CaseError(
        "a reference without an image",
        case=case,
        file=str(file),
        mend="add the image, or take the reference away",
    )
    return refusal(error, case, case)


def no_reference(case: str, file: Path) -> Refusal:
    """The refusal of an image that ought to have a reference."""
    error = CaseError(
        "an image without a reference",
        case=case,
        file=str(file),
        mend="add the reference, or leave the case out; prediction needs none (need_reference=False)",
    )
    return refusal(error, case, case)


def kind_of(file: Path) -> Kind | None:
    """The reader for a file, by its suffix; None when there is none."""
    name = file.name.lower()
    if name.endswith(NIFTI):
        return "nifti"
    return "raster" if name.endswith(RASTER) else None


def stem_of(file: str | Path) -> str:
    """The name without ``.nii.gz`` or its one suffix."""
    name = Path(file).name
    return name[:-7] if name.lower().endswith(".nii.gz") else Path(name).stem


def case_id(text: str) -> str:
    """`text` made fit to be a case id: other characters become ``_``; too long is cut and hashed."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("._-") or "case"
    return clean if len(clean) <= 64 else f"{clean[:48]}-{digest(clean)[:10]}"


def channel_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names fit for files, no two alike."""
    found: list[str] = []
    for name in names:
        clean = re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-") or "image"
        found.append(f"{clean}-{found.count(clean) + 1}" if clean in found else clean)
    return tuple(found)


def as_labels(given: LabelsLike) -> Labels:
    """Labels from ``"a=1,b=1+2"``, ``{"a": 1, "b": [1, 2]}``, or labels; background (0) is left out."""
    if not given:
        return ()
    if isinstance(given, str):
        return parse_labels(given)
    if isinstance(given, Mapping):
        return named_labels({n: v for n, v in given.items() if v != 0})
    return checked(given)


def folder(root: str | Path) -> Path:
    """`root` as an absolute folder, or an error that says it is not there."""
    path = Path(root).expanduser().resolve()
    if not path.is_dir():
        raise MedsegError(
            "the folder is not there" if not path.exists() else "this is a file, not a folder",
            file=str(path),
            mend="correct the path of the data set",
        )
    return path


def count_left_out(files: Iterable[Path]) -> list[Refusal]:
    """Rows for files that are no images, by number: their names may say who somebody is."""
    hidden, other = 0, 0
    for file in files:
        hidden, other = hidden + file.name.startswith("."), other + (not file.name.startswith("."))
    rows = [
        ("hidden files", hidden, "hidden by the system"),
        ("other files", other, "no image format we read"),
    ]
    return [skipped(f"{what} ({n})", f"{n} file(s) left out: {why}") for what, n, why in rows if n]


def _sorted_out(drafts: list[Draft], frame: Frame) -> tuple[list[Draft], list[Refusal]]:
    times = Counter(draft.id for draft in drafts)
    good, bad = [], []
    for draft in drafts:
        error = _fault(draft, times[draft.id], frame)
        if error is None:
            good.append(draft)
        else:
            bad.append(refusal(error, draft.id, draft.id))
    return good, bad


def _fault(draft: Draft, times: int, frame: Frame) -> CaseError | None:
    """Why the draft cannot be a case, or None."""
    if times > 1:
        return CaseError(
            "the case id is given more than once",
            case=draft.id,
            evidence=f"{times} entries with this id",
            mend="give each case an id of its own; none of them was taken",
        )
    missing = [c for c in frame.channels if not draft.images.get(c)]
    if missing:
        return CaseError(
            "the case lacks a channel",
            case=draft.id,
            evidence=f"missing: {', '.join(missing)}; there: {', '.join(draft.images) or 'none'}",
            mend="add the image, or leave the case out",
        )
    return _file_fault(draft)


def _file_fault(draft: Draft) -> CaseError | None:
    for file in draft.files():
        if not file.is_file():
            what = (
                "the reference file is not there"
                if file in draft.reference
                else "the image file is not there"
            )
            return CaseError(
                what, case=draft.id, file=str(file), mend="correct the path, or leave the case out"
            )
        if draft.kind is None and kind_of(file) is None:
            return CaseError(
                f"no reader for files that end in '{file.suffix}'",
                case=draft.id,
                file=str(file),
                mend="convert it to NIfTI or PNG",
            )
    return None


def _image_source(draft: Draft, channel: str, digests: Mapping[Path, str]) -> Source:
    source = source_of(draft.images[channel], digests, draft.kind)
    return source.but(part=draft.parts.get(channel, ""), policy=draft.policy)


def _case(draft: Draft, digests: Mapping[Path, str]) -> Case:
    reference = source_of(draft.reference, digests, draft.reference_kind) if draft.reference else None
    fields: dict[str, Any] = {
        "id": draft.id,
        "patient": draft.patient or draft.id,
        "images": {c: _image_source(draft, c, digests) for c in draft.images},
        "reference": reference,
        "label_class": draft.label_class,
        "groups": draft.groups,
    }
    return Case(**fields)
