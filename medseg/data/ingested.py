"""Read back what ``ingest/<case>`` holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.files import read_json
from medseg.data.reading import image_file
from medseg.imaging.image import Image, read_image, read_mask, same_place


@dataclass(frozen=True)
class IngestedCase:
    """An ingested case in memory: image with all channels, mask if any, and ``source.json``."""

    image: Image
    mask: Image | None
    source: dict[str, Any]

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names in the order of the image's first axis."""
        return tuple(self.source["channels"])


def read_ingested(folder: Path, *, with_mask: bool = True) -> IngestedCase:
    """Read ``image*.nii.gz``, ``reference.nii.gz`` (None when there is none) and ``source.json``.

    Raises
    ------
    CaseError
        A file is damaged, or a channel does not lie on the grid of the first.
    """
    source = read_json(folder / "source.json")
    names = source["channels"]
    parts = [read_image(image_file(folder, name, names)) for name in names]
    for part in parts[1:]:
        same_place(parts[0], part, "the channels")
    image = Image(np.concatenate([part.array for part in parts]), parts[0].grid)
    reference = folder / "reference.nii.gz"
    mask = read_mask(reference) if with_mask and reference.is_file() else None
    return IngestedCase(image, mask, source)
