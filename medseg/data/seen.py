"""Which images a model was trained on, as one-way digests: proof that a cohort was not among them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from medseg.imaging.image import Image, canonical

_LENGTH = 32
"""Hexadecimal digits kept of a digest: 128 bits."""


def voxel_digests(image: Image) -> list[str]:
    """A digest of each channel's values and shape in RAS order: blind to headers and compression.

    Parameters
    ----------
    image : Image
        ``[C, I, J, K]``. Only exact copies of the values give the same digest.

    Returns
    -------
    list of str
        sha256, one for each channel.
    """
    array = canonical(image).array
    found = []
    for channel in array:
        known = hashlib.sha256(repr(channel.shape).encode())
        known.update(np.ascontiguousarray(channel, dtype="<f4").data)
        found.append(known.hexdigest())
    return found


def seen_record(cases: Iterable[Mapping[str, Any]], salt: str) -> dict[str, Any]:
    """What a model card keeps of its training images and patients: salted digests, sorted.

    Parameters
    ----------
    cases : iterable of mapping
        With ``voxels_sha256`` (of each channel) and ``patient``. A case without the first gives an empty
        record: a list with gaps would prove nothing.
    salt : str
        Any text; the same for all.

    Returns
    -------
    dict
        ``salt``, ``images``, ``patients``; empty where a case has no digest. Who holds an image can tell
        whether it was trained on; nobody can tell an image, or the key behind a patient's pseudonym, from it.
    """
    images, patients = set(), set()
    for case in cases:
        if not case.get("voxels_sha256"):
            return {}
        images |= {_salted(salt, "image", text) for text in case["voxels_sha256"]}
        patients.add(_salted(salt, "patient", str(case["patient"])))
    return {"salt": salt, "images": sorted(images), "patients": sorted(patients)} if images else {}


def already_seen(
    records: Sequence[Mapping[str, Any]], cases: Mapping[str, tuple[str, Sequence[str]]]
) -> dict[str, list[str]]:
    """Which cases share an image or a patient with what models were trained on.

    Parameters
    ----------
    records : sequence of mapping
        Of `seen_record`, one for each model.
    cases : mapping
        Case -> patient, and the digests of its channels.

    Returns
    -------
    dict
        ``image`` and ``patient`` -> cases, sorted. A patient whose image was seen stands in both.
    """
    found: dict[str, set[str]] = {"image": set(), "patient": set()}
    for record in records:
        images, patients = set(record["images"]), set(record["patients"])
        for case, (patient, digests) in cases.items():
            if any(_salted(record["salt"], "image", text) in images for text in digests):
                found["image"].add(case)
            if _salted(record["salt"], "patient", patient) in patients:
                found["patient"].add(case)
    return {kind: sorted(names) for kind, names in found.items()}


def _salted(salt: str, kind: str, text: str) -> str:
    return hashlib.sha256(f"{salt}|{kind}|{text}".encode()).hexdigest()[:_LENGTH]
