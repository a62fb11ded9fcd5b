"""Stage ``ingest``: a case of any format -> ``ingest/<case>``, checked and without identity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.core.files import write_json
from medseg.core.stage import stage
from medseg.data.cohort import Case, Ingesting
from medseg.data.dating import dated
from medseg.data.reading import image_file, source_record, take_in
from medseg.imaging.image import write_image
from medseg.imaging.labels import Labels


@stage(version=2)
def ingest(case: Case, *, channels: Sequence[str], labels: Labels, settings: Ingesting, out: Path) -> None:
    """Read, check and store one case.

    Writes ``image.nii.gz`` (``image_<channel>.nii.gz`` when several), ``reference.nii.gz`` when there
    is one, and ``source.json``.

    Raises
    ------
    CaseError
        The case cannot be used as it is; see `medseg.data.reading.take_in`.
    """
    taken = take_in(case, channels, labels, settings)
    for channel, image in taken.images.items():
        write_image(image, image_file(out, channel, channels))
    if taken.reference is not None:
        write_image(taken.reference, out / "reference.nii.gz")
    write_json(out / "source.json", source_record(case, taken) | dated(case, settings))
