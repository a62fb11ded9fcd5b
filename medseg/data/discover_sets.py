"""Data sets that describe themselves: Medical Segmentation Decathlon and nnU-Net."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.data.cohort import Cohort, Refusal
from medseg.data.discover import (
    Draft,
    Frame,
    LabelsLike,
    as_labels,
    assemble,
    case_id,
    channel_names,
    count_left_out,
    folder,
    kind_of,
    no_image,
    no_reference,
    skipped,
    stem_of,
)
from medseg.data.discover_table import described
from medseg.data.naming import Ids, case_ids, renamed
from medseg.imaging.labels import Labels


def from_msd(
    root: str | Path,
    *,
    labels: LabelsLike = None,
    channels: Iterable[str] | None = None,
    name: str | None = None,
    need_reference: bool = True,
    quiet: bool = False,
    ids: Ids = "auto",
) -> Cohort:
    """See `Cohort.from_msd`."""
    root = folder(root)
    said = read_description(root)
    names = channel_names(channels or _by_number(_entry(said, root, "modality", {"0": "image"})).values())
    frame = Frame(
        channels=names,
        labels=as_labels(labels) or _msd_labels(_entry(said, root, "labels", {}), root),
        name=name or case_id(str(said.get("name") or "cohort")),
        quiet=quiet,
    )
    pairs = [_pair(entry, root) for entry in _entry(said, root, "training", [])]
    extra, tests = _not_listed(root, pairs), _msd_tests(said)
    found = [stem_of(f) for f in (*(image for image, _ in pairs), *extra, *tests)]
    called = case_ids(found, ids, described=True)
    drafts, refused = [], []
    for image, label in pairs:
        draft = _msd_draft(image, label, names)
        if label is None and need_reference:
            refused.append(no_reference(called[draft.id], image))
        else:
            drafts.append(draft)
    rows = (*refused, *_extra_rows(extra, called), *_test_rows(tests, called))
    return assemble(renamed(described(drafts, root), called), frame, rows)


def from_nnunet(
    root: str | Path,
    *,
    labels: LabelsLike = None,
    channels: Iterable[str] | None = None,
    name: str | None = None,
    need_reference: bool = True,
    quiet: bool = False,
    ids: Ids = "auto",
) -> Cohort:
    """See `Cohort.from_nnunet`."""
    root = folder(root)
    said = read_description(root)
    ending = str(said.get("file_ending", ".nii.gz"))
    in_file = _by_number(said.get("channel_names") or said.get("modality") or {"0": "image"})
    names = channel_names(channels or in_file.values())
    frame = Frame(
        channels=names,
        labels=as_labels(labels) or _nnunet_labels(_entry(said, root, "labels", {}), root),
        name=name or case_id(str(said.get("name") or "cohort")),
        quiet=quiet,
    )
    images = _numbered(root / "imagesTr", ending, list(in_file), names)
    references = {f.name[: -len(ending)]: f for f in _ending(root / "labelsTr", ending)}
    called = case_ids([*images, *references], ids, described=True)
    drafts, refused = [], []
    for case, channel_files in images.items():
        if case not in references and need_reference:
            refused.append(no_reference(called[case], next(iter(channel_files.values()))[0]))
            continue
        reference = (references[case],) if case in references else ()
        drafts.append(Draft(case, channel_files, reference))
    for case in sorted(set(references) - set(images)):
        refused.append(no_image(called[case], references[case]))
    return assemble(renamed(described(drafts, root), called), frame, refused)


def read_description(root: Path) -> dict[str, Any]:
    """``dataset.json`` of a data set.

    Raises
    ------
    MedsegError
        Missing, not JSON, or not a mapping.
    """
    file = root / "dataset.json"
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MedsegError(
            "the data set has no dataset.json",
            file=str(file),
            mend="give the folder that holds it, or read the images with format nifti",
        ) from error
    except (ValueError, OSError) as error:
        raise MedsegError(
            "dataset.json cannot be read as JSON", file=str(file), evidence=str(error)
        ) from error
    if not isinstance(said, dict):
        raise MedsegError("dataset.json must hold a JSON object", file=str(file))
    return said


def _entry(said: Mapping[str, Any], root: Path, key: str, default: Any) -> Any:
    found = said.get(key, default)
    if not isinstance(found, type(default)):
        raise MedsegError(
            f"'{key}' of dataset.json is of another form than expected",
            file=str(root / "dataset.json"),
            evidence=f"{type(found).__name__} in place of {type(default).__name__}",
        )
    return found


def _by_number(names: Mapping[str, Any]) -> dict[str, str]:
    """Channel number -> name, in the order of the numbers."""
    return {k: str(names[k]) for k in sorted(names, key=lambda k: (len(k), k))}


def _msd_labels(names: Mapping[str, Any], root: Path) -> Labels:
    """``{"1": "Anterior"}`` (MSD), or the other way round as nnU-Net writes it."""
    if any(not str(k).isdigit() for k in names):
        return _nnunet_labels(names, root)
    return as_labels({str(name): int(value) for value, name in names.items()})


def _nnunet_labels(names: Mapping[str, Any], root: Path) -> Labels:
    """Label values by name; lists of them are regions, ``ignore`` marks what nobody knows."""
    lists = {n: v if isinstance(v, list) else [v] for n, v in names.items()}
    wrong = [n for n, v in lists.items() if not v or not all(str(x).isdigit() for x in v)]
    if wrong:
        raise MedsegError(
            "labels must have whole numbers",
            file=str(root / "dataset.json"),
            evidence=", ".join(wrong),
            mend="give them by hand, for example labels='edema=1,core=2'",
        )
    return as_labels({n: [int(x) for x in v] for n, v in lists.items() if v != [0] and v != ["0"]})


def _pair(entry: Any, root: Path) -> tuple[Path, Path | None]:
    """Image and reference of one entry of ``training``."""
    if isinstance(entry, str):
        return (root / entry).resolve(), None
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise MedsegError(
            "an entry of 'training' in dataset.json names no image",
            file=str(root / "dataset.json"),
            mend='write entries as {"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}',
        )
    label = entry.get("label")
    return (root / entry["image"]).resolve(), (root / label).resolve() if label else None


def _msd_draft(image: Path, label: Path | None, names: tuple[str, ...]) -> Draft:
    """All channels of an MSD case lie in one (4-D) file; `ingest` takes them apart in this order."""
    return Draft(stem_of(image), dict.fromkeys(names, (image,)), (label,) if label else ())


def _not_listed(root: Path, pairs: list[tuple[Path, Path | None]]) -> list[Path]:
    """Files that lie in the image and label folders without being in ``dataset.json``."""
    listed = {f for pair in pairs for f in pair if f}
    there = [f for sub in ("imagesTr", "labelsTr") for f in sorted((root / sub).glob("*"))]
    return [f for f in there if f.resolve() not in listed and f.is_file()]


def _extra_rows(extra: list[Path], called: Mapping[str, str]) -> list[Refusal]:
    images = [f for f in extra if kind_of(f) and not f.name.startswith(".")]
    rows = [skipped(f"{f.parent.name} {called[stem_of(f)]}", "not listed in dataset.json") for f in images]
    return [*rows, *count_left_out(f for f in extra if f not in images)]


def _msd_tests(said: Mapping[str, Any]) -> list[str]:
    """Test images that ``dataset.json`` lists."""
    tests = said.get("test")
    return [t if isinstance(t, str) else t.get("image", "") for t in tests] if isinstance(tests, list) else []


def _test_rows(tests: list[str], called: Mapping[str, str]) -> list[Refusal]:
    reason = "test image of the data set, which has no reference"
    return [skipped(called[stem_of(name)], reason) for name in tests]


def _numbered(
    where: Path, ending: str, numbers: list[str], names: tuple[str, ...]
) -> dict[str, dict[str, tuple[Path, ...]]]:
    """``<case>_0000<ending>`` -> case -> channel -> file."""
    channel = {int(number): name for number, name in zip(numbers, names, strict=True)}
    found: dict[str, dict[str, tuple[Path, ...]]] = {}
    for file in _ending(where, ending):
        match = re.fullmatch(r"(.+)_(\d{4})", file.name[: -len(ending)])
        if match and int(match[2]) in channel:
            found.setdefault(match[1], {})[channel[int(match[2])]] = (file,)
    return found


def _ending(where: Path, ending: str) -> list[Path]:
    files = sorted(where.glob("*")) if where.is_dir() else []
    return [f for f in files if f.name.endswith(ending) and not f.name.startswith(".")]
