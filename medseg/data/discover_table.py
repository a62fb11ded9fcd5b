"""Tables about cases: manifests (CSV, JSON), and ``cases.csv`` beside the images."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.values import nearest
from medseg.data.alike import joined
from medseg.data.classes import class_text, classes_of
from medseg.data.cohort import CASE_ID, Cohort, Refusal, Task
from medseg.data.discover import (
    Draft,
    Frame,
    LabelsLike,
    as_labels,
    assemble,
    case_id,
    channel_names,
    refusal,
    stem_of,
)
from medseg.data.naming import Ids, case_ids, hashed_name

log = logging.getLogger("medseg")

MOST_GROUPS = 12
"""A column of ``cases.csv`` with more values than this describes cases, not groups of cases."""

ROLES = ("case", "patient", "group", "image", "reference", "class", "ignore")
ALIASES = {
    "case": ("case", "case_id", "id"),
    "patient": ("patient", "patient_id", "subject", "subject_id", "subject_guess"),
    "group": ("near_duplicate_group", "duplicate_group"),
    "image": ("image", "path", "file", "filename"),
    "reference": ("reference", "mask", "segmentation"),
    "class": ("class", "label_class", "label_name"),
}
_ANONYMOUS = ("subject_guess", "near_duplicate_group", "duplicate_group")
"""Columns that number patients without naming them: kept as they are, not hashed."""

_IDENTIFYING = re.compile(
    r"name|birth|dob|mrn|date|address|phone|mail|insur|ssn|path|file|study|accession|uid|physician",
    re.IGNORECASE,
)
_HIPPOCAMPUS = re.compile(r"^hippocampus_(\d+)$")

Row = Mapping[str, str]


def from_csv(
    file: str | Path,
    *,
    labels: LabelsLike = None,
    roles: Mapping[str, str] | None = None,
    channels: Iterable[str] | None = None,
    name: str | None = None,
    quiet: bool = False,
    ids: Ids = "auto",
) -> Cohort:
    """See `Cohort.from_csv`."""
    file = Path(file).expanduser().resolve()
    said, rows = read_rows(file)
    role = _roles(rows, roles or {}, file)
    columns = _image_columns(role, file)
    names = tuple(channels or channel_names(columns))
    one_file = list(columns.values()) * (len(names) if len(columns) == 1 else 1)  # several channels in it
    images = dict(zip(names, one_file, strict=True))
    drafts, refused = _drafts(rows, _case_ids(rows, role, images, ids), role, images, file.parent)
    classes = sorted({name for d in drafts for name in classes_of(d.label_class)})
    masks = any(d.reference for d in drafts)
    task: Task = "classification" if classes and not masks else "segmentation"
    frame = Frame(
        channels=names,
        labels=as_labels(labels or said.get("labels")),
        classes=tuple(classes),
        task=task,
        name=name or case_id(str(said.get("name") or "cohort")),
        quiet=quiet,
    )
    return assemble(drafts, frame, refused)


def read_rows(file: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """What a manifest says about the whole (JSON only), and its rows.

    Raises
    ------
    MedsegError
        Missing, unreadable, or without rows.
    """
    try:
        said, rows = _read_json(file) if file.suffix.lower() == ".json" else ({}, _read_csv(file))
    except FileNotFoundError as error:
        raise MedsegError("the manifest is not there", file=str(file), mend="correct its path") from error
    except (OSError, ValueError, csv.Error) as error:
        raise MedsegError("the manifest cannot be read", file=str(file), evidence=str(error)) from error
    if not rows:
        raise MedsegError("the manifest has no rows", file=str(file), mend="write a row for each case")
    return said, rows


def described(drafts: list[Draft], root: Path) -> list[Draft]:
    """The drafts with patient, class and groups from ``cases.csv`` in `root`, where there is one.

    Without a table each case is a patient, except MSD hippocampus: ids 2k-1 and 2k are one person.
    """
    file = root / "cases.csv"
    rows = {} if not file.is_file() else {r.get("id") or r.get("case") or "": r for r in read_rows(file)[1]}
    telling = _telling(list(rows.values()))
    return [_described(draft, _row_of(draft.id, rows), telling) for draft in drafts]


def hashed_patient(text: str) -> str:
    """The keyed hash that stands for a patient's identifier."""
    from medseg.imaging.deidentify import keyed_hash, project_key

    return keyed_hash(text, project_key())


def _read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    return [{k: (v or "").strip() for k, v in row.items() if k} for row in rows]


def _read_json(file: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    content = json.loads(file.read_text(encoding="utf-8"))
    said = content if isinstance(content, dict) else {}
    rows = content.get("cases", []) if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("a list of objects, or an object with such a list under 'cases', is expected")
    return said, [{str(k): "" if v is None else str(v) for k, v in row.items()} for row in rows]


def _roles(rows: list[dict[str, str]], given: Mapping[str, str], file: Path) -> dict[str, str]:
    """Role -> column. Image channels are roles of the form ``image_<channel>``."""
    columns = list(rows[0])
    for column, role in given.items():
        if column not in columns or not (role in ROLES or role.startswith("image_")):
            raise MedsegError(
                f"roles: '{column}: {role}' does not fit the manifest",
                file=str(file),
                evidence=f"columns: {', '.join(columns)}; roles: {', '.join(ROLES)}, image_<channel>",
                mend=f"did you mean '{nearest(column, columns)}'?" if column not in columns else None,
            )
    found = {role: column for column, role in given.items() if role != "ignore"}
    for role, names in ALIASES.items():
        free = [n for n in names if n in columns and n not in given]
        if role not in found and free:
            found[role] = free[0]
    if "class" not in found and "label" in columns and "label" not in given and _no_files(rows, "label"):
        found["class"] = "label"
    found |= {c: c for c in columns if c.startswith("image_") and c not in given}
    return found


def _no_files(rows: list[dict[str, str]], column: str) -> bool:
    """Whether a column of that name holds classes; elsewhere it holds the files of the references."""
    return not any("/" in row[column] or "." in row[column] for row in rows)


def _image_columns(role: Mapping[str, str], file: Path) -> dict[str, str]:
    """Channel -> column."""
    several = {r.removeprefix("image_"): c for r, c in role.items() if r.startswith("image_")}
    if not several and "image" not in role:
        raise MedsegError(
            "the manifest has no column for the images",
            file=str(file),
            mend="name it image (or image_<channel> each), or say which it is with roles",
        )
    return several or {"image": role["image"]}


def _drafts(
    rows: list[dict[str, str]],
    ids: list[str],
    role: Mapping[str, str],
    images: Mapping[str, str],
    root: Path,
) -> tuple[list[Draft], list[Refusal]]:
    drafts, refused = [], []
    patients = _patients(rows, role)
    for line, (case, row, patient) in enumerate(zip(ids, rows, patients, strict=True), start=2):
        if not re.match(CASE_ID, case):
            error = MedsegError(
                "the case id cannot be the name of a folder",
                evidence=f"line {line} of the manifest",
                mend="use letters, digits, '.', '_' and '-', at most 64, a letter or digit first",
            )
            refused.append(refusal(error, f"line-{line}"))
            continue
        drafts.append(replace(_draft(case, row, role, images, root), patient=patient))
    return drafts, refused


def _case_ids(
    rows: list[dict[str, str]], role: Mapping[str, str], images: Mapping[str, str], policy: Ids
) -> list[str]:
    """Ids as given; else file stems, with the folder before them where stems are not unique."""
    if "case" in role:
        given = [row[role["case"]] for row in rows]
        return given if policy != "hashed" else [hashed_name(name) for name in given]
    files = [Path(row[next(iter(images.values()))]) for row in rows]
    times = Counter(stem_of(f) for f in files)
    names = [stem_of(f) if times[stem_of(f)] == 1 else f"{f.parent.name}-{stem_of(f)}" for f in files]
    called = case_ids(names, policy)
    return [called[name] for name in names]


def _draft(case: str, row: Row, role: Mapping[str, str], images: Mapping[str, str], root: Path) -> Draft:
    def path(column: str | None) -> tuple[Path, ...]:
        return ((root / row[column]).resolve(),) if column and row.get(column) else ()

    return Draft(
        id=case,
        images={name: path(column) for name, column in images.items()},
        reference=path(role.get("reference")),
        label_class=class_text(row.get(role["class"])) if "class" in role else None,
        groups=_groups(row, set(role.values())),
    )


def _patients(rows: list[dict[str, str]], role: Mapping[str, str]) -> list[str | None]:
    """Who each row belongs to: rows of one patient or of one group (near-duplicates) are kept together."""
    named = [_patient(row, role.get("patient")) for row in rows]
    grouped = [_patient(row, role.get("group")) for row in rows]
    seen: dict[str, int] = {}
    keys = [(i, key) for i, both in enumerate(zip(named, grouped, strict=True)) for key in both if key]
    first = joined(len(rows), [(seen.setdefault(key, i), i) for i, key in keys])
    called: dict[int, str] = {}
    for source in (named, grouped):
        for place, key in zip(first, source, strict=True):
            if key:
                called.setdefault(place, key)
    return [called.get(place) for place in first]


def _patient(row: Row, column: str | None) -> str | None:
    value = row.get(column, "") if column else ""
    if not value:
        return None
    return f"{_prefix(str(column))}-{value}" if column in _ANONYMOUS else hashed_patient(value)


def _prefix(column: str) -> str:
    return "group" if column in ALIASES["group"] else "subject"


def _groups(row: Row, used: set[str]) -> dict[str, str]:
    """The other columns; those that may name a person or a place on disk are left out."""
    known = {name for names in ALIASES.values() for name in names} | {"label"}
    free = {k: v for k, v in row.items() if k not in used and v and k not in known - {"mask"}}
    return {k: v for k, v in free.items() if not _IDENTIFYING.search(k) and len(v) <= 64 and "/" not in v}


def _row_of(case: str, rows: Mapping[str, Row]) -> Row:
    digits = re.search(r"(\d+)$", case)
    number = digits[1].lstrip("0") if digits else ""
    return rows.get(case) or rows.get(number) or {}


def _telling(rows: list[Row]) -> set[str]:
    """Columns whose values gather cases into groups: 2 to `MOST_GROUPS` values, none a decimal number."""
    values = {c: {row.get(c, "") for row in rows} for c in (rows[0] if rows else {})}
    few = {c: seen for c, seen in values.items() if 1 < len(seen) <= MOST_GROUPS}
    return {c for c, seen in few.items() if not any(re.fullmatch(r"-?\d+\.\d+", v) for v in seen)}


def _described(draft: Draft, row: Row, telling: set[str]) -> Draft:
    column = next((c for c in (*ALIASES["patient"], *ALIASES["group"]) if row.get(c)), None)
    patient = _patient(row, column) or draft.patient or _one_person(draft.id)
    label_class = class_text(next((row[c] for c in ALIASES["class"] if row.get(c)), draft.label_class))
    used = {c for names in ALIASES.values() for c in names}
    groups = draft.groups | {k: v for k, v in _groups(row, used).items() if k in telling}
    return replace(draft, patient=patient, label_class=label_class, groups=groups)


def _one_person(case: str) -> str:
    match = _HIPPOCAMPUS.match(case)
    return f"subject-{(int(match[1]) + 1) // 2}" if match else case
