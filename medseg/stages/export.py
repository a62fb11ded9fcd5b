"""Export: a mask goes back to the archive as a DICOM SEG of the series it was made from."""

from __future__ import annotations

from pathlib import Path

from medseg.core.errors import CaseError
from medseg.core.stage import Artifact, stage
from medseg.data.cohort import Case
from medseg.imaging.dicom_seg import write_seg
from medseg.imaging.image import read_mask
from medseg.imaging.labels import Labels


@stage(version=1)
def export(item: tuple[Artifact, Case], *, labels: Labels, out: Path) -> None:
    """Write ``<case>.seg.dcm`` for ``mask.nii.gz`` and the case's DICOM source.

    Parameters
    ----------
    item : (Artifact, Case)
        The folder that holds the mask, and the case it belongs to.
    labels : tuple of Label
        What the values of the mask mean.

    Raises
    ------
    CaseError
        The case did not come from a DICOM series, its files are gone, or the mask does not lie on it.
    """
    predicted, case = item
    files = _dicom_files(case)
    try:
        write_seg(read_mask(predicted / "mask.nii.gz"), labels, files, out / f"{case.id}.seg.dcm")
    except CaseError as error:
        raise error.with_case(case.id) from error


def _dicom_files(case: Case) -> tuple[str, ...]:
    sources = [source for source in case.images.values() if source.kind == "dicom"]
    if not sources:
        kinds = ", ".join(sorted({source.kind for source in case.images.values()}))
        raise CaseError(
            "a DICOM SEG needs the DICOM series the image came from",
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
    return sources[0].files
