"""DICOM folders to volumes: find every series by content, order it by geometry, read it as float32.

`find_series` opens headers only and says of each series what becomes of it; `read_series` decodes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import CaseError, MedsegError
from medseg.imaging.deidentify import project_key
from medseg.imaging.dicom_header import Header
from medseg.imaging.dicom_picture import images_of, read_picture
from medseg.imaging.dicom_policy import DEFAULT, DicomPolicy
from medseg.imaging.dicom_references import ReferenceFile, is_reference, reference_file
from medseg.imaging.dicom_scan import Scan, headers_of, scan
from medseg.imaging.dicom_series import LeftOut, Series
from medseg.imaging.dicom_stack import volume_of
from medseg.imaging.dicom_voxels import voxels_of
from medseg.imaging.image import Image


@dataclass(frozen=True)
class Found:
    """What a folder holds: volumes, objects drawn on them, and all the rest with the reason."""

    series: list[Series]
    references: list[ReferenceFile]
    left_out: list[LeftOut]

    @property
    def segs(self) -> list[ReferenceFile]:
        """The DICOM SEG objects among the references."""
        return [reference for reference in self.references if reference.kind == "seg"]


def find_series(
    root: str | Path, policy: DicomPolicy = DEFAULT, *, quiet: bool = True
) -> tuple[list[Series], list[LeftOut]]:
    """Every image volume below a folder (or in one file), and everything that is none.

    Files are known by content, not by name; a DICOMDIR stands for its folder. Volumes come sorted by
    `uid_hash`. Unless `quiet`, a bar shows how many headers have been read.

    Raises
    ------
    MedsegError
        The folder is not there, or holds no DICOM file.
    """
    found = find_dicom(root, policy, quiet=quiet)
    return found.series, found.left_out


def find_dicom(root: str | Path, policy: DicomPolicy = DEFAULT, *, quiet: bool = True) -> Found:
    """As `find_series`, with the objects drawn on images (SEG, RTSTRUCT) listed apart.

    Raises
    ------
    MedsegError
        The folder is not there, or holds no DICOM file.
    """
    looked = scan(Path(root), quiet=quiet)
    good = looked.headers
    if not good:
        raise MedsegError(
            "no DICOM file found", file=str(root),
            evidence=f"{looked.looked_at} file(s) looked at, {len(looked.damaged)} of them damaged DICOM",
            mend="give the folder that holds the series",
        )  # fmt: skip
    key = project_key()
    references = [reference_file(h, key) for h in good if is_reference(h)]
    made = [thing for group in _by_series(good) for thing in images_of(group, key, policy)]
    series = sorted((m for m in made if isinstance(m, Series)), key=lambda s: s.uid_hash)
    left = [m for m in made if isinstance(m, LeftOut)]
    return Found(series, references, [*left, *_damaged(looked), *_index_rows(looked), *_junk(looked)])


def series_of_files(files: Sequence[str | Path], part: str = "", policy: DicomPolicy = DEFAULT) -> Series:
    """The one volume that a list of files makes; of several, the one called `part`.

    Raises
    ------
    CaseError
        They make no volume, or more than one.
    """
    headers = headers_of([Path(f) for f in files])
    good = [h for h in headers if h is not None]
    made = [thing for group in _by_series(good) for thing in images_of(group, project_key(), policy)]
    series = [m for m in made if isinstance(m, Series) and part in ("", m.part)]
    if len(series) == 1:
        return series[0]
    refused = next((m for m in made if isinstance(m, LeftOut) and m.status == "refused"), None)
    if refused is not None and not series:
        raise refused.error()
    raise CaseError(
        f"the files make {len(series)} volumes, not one",
        file=str(files[0]) if files else None,
        evidence=f"{len(files)} files, {len(good)} of them DICOM",
    )


def read_series(series: Series) -> Image:
    """Decode a series: float32 ``[1, column, row, slice]`` after rescale, on `series.grid`.

    CT is in HU. Slope and intercept are applied slice by slice, as in float64; nothing is reoriented,
    clipped or rounded.

    Raises
    ------
    CaseError
        Pixel data that are cut off, do not decode within the limits, or are of another size than the
        header says.
    """
    if series.picture:
        return read_picture(series)[0]
    return volume_of(voxels_of(series), series)


def _by_series(headers: Sequence[Header]) -> list[list[Header]]:
    """Headers that share a series UID; without one, those of one folder, study, frame and modality."""
    groups: dict[tuple[str, ...], list[Header]] = {}
    for header in headers:
        if is_reference(header):
            continue
        place = (str(header.file.parent), header.study_uid, header.frame_of_reference, header.modality)
        name = (header.series_uid,) if header.series_uid else place
        groups.setdefault(name, []).append(header)
    return list(groups.values())


def _index_rows(looked: Scan) -> list[LeftOut]:
    said = {True: "DICOMDIR lists {} images that are not here", False: "DICOMDIR: an index of the folder"}
    return [
        LeftOut("-", "skipped", said[index.missing > 0].format(index.missing), file=str(index.file))
        for index in looked.indexes
    ]


def _damaged(looked: Scan) -> list[LeftOut]:
    if not looked.damaged:
        return []
    reason = f"{len(looked.damaged)} DICOM file(s) are damaged: the header cannot be read"
    mend = "copy or export them again: a series may lack these images"
    return [LeftOut("-", "refused", reason, "", len(looked.damaged), mend, str(looked.damaged[0]))]


def _junk(looked: Scan) -> list[LeftOut]:
    if not looked.junk:
        return []
    empty = f" ({looked.empty} of them empty)" if looked.empty else ""
    reason = f"{len(looked.junk)} file(s) are not DICOM or not readable{empty}"
    return [LeftOut("-", "skipped", reason, "", len(looked.junk), "", str(looked.junk[0]))]
