"""What may be told to a tracking server: settings and numbers, nothing that leads to a patient."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LEFT_OUT = "(left out)"

SECTIONS = frozenset(
    ("plan", "training", "prediction", "device", "precision", "data_digest", "task", "network", "start")
)
"""Parts of a training's account whose texts are settings. Elsewhere only numbers are told."""

_COUNTED = frozenset(("cases", "patients", "ids", "files", "sources", "train", "valid", "test", "monitor"))
"""Names of what may be lists of cases: told as a count, or as the number they are."""
_NOT_TOLD = frozenset(
    ("case", "case_id", "patient", "id", "series", "source", "file", "path", "paths", "root", "folder")
) | {"user", "host", "why"}
_PATH = r"(?:^|[\s\"'=(,;\[])(?:/|~|[A-Za-z]:[\\/]|\\\\)|file:|[\\/]"
_UID = r"\b\d+(?:\.\d+){5,}\b"
_DATE = r"\b(?:19|20)\d\d[-.]?(?:0[1-9]|1[0-2])[-.]?(?:0[1-9]|[12]\d|3[01])\b"
_FILE = r"\.(?:nii|gz|dcm|npy|npz|mha|nrrd|png|jpe?g|tiff?|zip|csv)\b"
_TELLING = re.compile("|".join((_PATH, _UID, _DATE, _FILE)), re.IGNORECASE)
_PLACE_OR_UID = re.compile(r"[\"'\s=:](?:/[\w.-]+/|~/|[A-Za-z]:\\|\\\\\w|file:)|" + _UID, re.IGNORECASE)
_TOLD_FILES = frozenset({".png", ".svg", ".yaml", ".json", ".safetensors"})
_KEPT_BACK = frozenset({"scores.csv", "cohort.json", "summary.json", "source.json", "record.json"})


def tellable(text: str) -> str:
    """The text, or ``(left out)`` when it looks like a path, a file, a DICOM UID or a date.

    >>> tellable("my_lab.nets:swin"), tellable("/data/Muster^Max"), tellable("case_01.nii.gz")
    ('my_lab.nets:swin', '(left out)', '(left out)')
    """
    return LEFT_OUT if _TELLING.search(text) else text[:500]


def parameters(info: Mapping[str, Any]) -> dict[str, str]:
    """The settings in `info`, flattened to dotted names and texts fit to be told.

    Texts are taken from the sections in `SECTIONS` alone; numbers from everywhere. Entries that
    name cases, patients or places are told by their count, or not at all.

    >>> parameters({"plan": {"patch": [40, 56, 40]}, "cases": ["a", "b"], "note": "Max"})
    {'plan.patch': '[40, 56, 40]', 'cases': '2'}
    """
    return dict(_flat(info, ""))


def tellable_file(file: Path) -> bool:
    """Whether a file of a model or a figure may be copied: known kind, and no place or UID in its text."""
    if file.suffix not in _TOLD_FILES or file.name in _KEPT_BACK:
        return False
    if file.suffix not in {".yaml", ".json", ".svg"}:
        return True
    return not _PLACE_OR_UID.search(_without_links(file.read_text(encoding="utf-8", errors="replace")))


def told_name(file: Path, number: int) -> str:
    """The name a figure gets: its own when it is plain words, a number otherwise."""
    plain = re.fullmatch(r"[a-z]+(?:_[a-z]+)*", file.stem)
    return file.name if plain else f"figure_{number:02d}{file.suffix}"


def _flat(thing: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in thing.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if str(key).lower() in _NOT_TOLD:
            continue
        if str(key).lower() in _COUNTED:
            if (count := _counted(value)) is not None:
                yield name, count
        elif isinstance(value, Mapping):
            yield from _flat(value, name)
        elif (text := _told(value, name.partition(".")[0] in SECTIONS)) is not None:
            yield tellable_key(name), text


def _counted(value: Any) -> str | None:
    if isinstance(value, bool | int | float):
        return str(value)
    return str(len(value)) if isinstance(value, Sequence | Mapping) and not isinstance(value, str) else None


def _told(value: Any, texts: bool) -> str | None:
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, str):
        return tellable(value) if texts else None
    if isinstance(value, Sequence):
        return _told_list(value, texts)
    return None


def _told_list(values: Sequence[Any], texts: bool) -> str | None:
    """A list as JSON text; of records, their names (labels: ``["kidney", "tumour"]``)."""
    plain = [v.get("name", LEFT_OUT) if isinstance(v, Mapping) else v for v in values]
    if not texts and any(isinstance(v, str) for v in plain):
        return None
    return json.dumps([tellable(v) if isinstance(v, str) else v for v in plain], default=lambda _: LEFT_OUT)


def tellable_key(name: str) -> str:
    """A name in the characters and length a tracking server takes."""
    return re.sub(r"[^\w\-. ]", "_", name)[:200]


def metric_name(name: str) -> str:
    """A metric's name in the characters a tracking server takes (``system/`` stays a group)."""
    return re.sub(r"[^\w\-. /]", "_", name)[:200]


def _without_links(text: str) -> str:
    return re.sub(r"https?://[^\s\"'<>]*", "", text)
