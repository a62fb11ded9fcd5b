"""Export: a mask goes back to the archive as DICOM objects of the series it was made from."""

from __future__ import annotations

from pathlib import Path

from medseg.core.errors import CaseError
from medseg.core.stage import Artifact, stage
from medseg.data.cohort import Case, Source
from medseg.imaging.dicom_in import read_series, series_of_files
from medseg.imaging.dicom_out import ObjectKind, write_objects
from medseg.imaging.image import read_mask
from medseg.imaging.labels import Labels


@stage(version=2)
def export(
    item: tuple[Artifact, Case], *, labels: Labels, formats: tuple[ObjectKind, ...] = ("seg",), out: Path
) -> None:
    """Write ``<case>.seg.dcm`` (and what else is asked for) from ``mask.nii.gz`` and the DICOM source.

    Parameters
    ----------
    item : (Artifact, Case)
        The folder that holds the mask, and the case it belongs to.
    labels : tuple of Label
        What the values of the mask mean.
    formats : tuple of str
        ``seg``, ``rtstruct``, ``sr`` (a report needs the SEG, which is then written too).

    Raises
    ------
    CaseError
        The case did not come from a DICOM series, its files are gone, the mask does not lie on it, or
        one of the objects cannot refer to it.
    """
    predicted, case = item
    source = _dicom_source(case)
    try:
        series = series_of_files(source.files, source.part, source.policy)
        mask, stem = read_mask(predicted / "mask.nii.gz"), out / case.id
        done = write_objects(mask, labels, series, formats, stem, image=lambda: read_series(series))
    except CaseError as error:
        raise error.with_case(case.id) from error
    for error in done.failed.values():
        raise error.with_case(case.id)


def _dicom_source(case: Case) -> Source:
    sources = [source for source in case.images.values() if source.kind == "dicom"]
    if not sources:
        kinds = ", ".join(sorted({source.kind for source in case.images.values()}))
        raise CaseError(
            "a DICOM object needs the DICOM series the image came from",
            case=case.id,
            evidence=f"the case came as {kinds}",
            mend="ingest the case from its DICOM series, or take the NIfTI mask",
        )
    missing = [file for file in sources[0].files if not Path(file).is_file()]
    if missing or not sources[0].files:
        raise CaseError(
            "the DICOM files of the case are no longer where they were",
            case=case.id,
            file=missing[0] if missing else None,
            evidence=f"{len(missing)} of {len(sources[0].files)} files are gone",
            mend="put them back, or ingest the case again",
        )
    return sources[0]
