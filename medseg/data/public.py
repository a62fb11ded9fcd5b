"""Public data sets: downloaded when asked for, checked, resumed when cut off, unpacked safely."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from medseg.core.errors import MedsegError
from medseg.core.files import read_json, replace_folder, write_json
from medseg.core.values import nearest
from medseg.data.download import download
from medseg.data.unpack import unpack

log = logging.getLogger("medseg")

MARK = ".fetched.json"

_MSD = "https://msd-for-monai.s3-us-west-2.amazonaws.com/{}.tar"


@dataclass(frozen=True)
class PublicSet:
    """A data set on offer: the folder its archive unpacks to, where it lies, and its checksum."""

    folder: str
    md5: str
    what: str

    @property
    def url(self) -> str:
        """Address of the archive."""
        return _MSD.format(self.folder)


SETS = {
    "msd-brain-tumour": PublicSet(
        "Task01_BrainTumour", "240a19d752f0d9e9101544901065d872", "MR, 4 channels, tumour"
    ),
    "msd-heart": PublicSet("Task02_Heart", "06ee59366e1e5124267b774dbd654057", "MR, left atrium"),
    "msd-liver": PublicSet("Task03_Liver", "a90ec6c4aa7f6a3d087205e23d4e6397", "CT, liver and tumour"),
    "msd-hippocampus": PublicSet(
        "Task04_Hippocampus", "9d24dba78a72977dbd1d2e110310f31b", "MR, head and body"
    ),
    "msd-prostate": PublicSet(
        "Task05_Prostate", "35138f08b1efaef89d7424d2bcc928db", "MR, 2 channels, two zones"
    ),
    "msd-lung": PublicSet("Task06_Lung", "8afd997733c7fc0432f71255ba4e52dc", "CT, tumour"),
    "msd-pancreas": PublicSet(
        "Task07_Pancreas", "4f7080cfca169fa8066d17ce6eb061e4", "CT, pancreas and tumour"
    ),
    "msd-hepatic-vessel": PublicSet(
        "Task08_HepaticVessel", "641d79e80ec66453921d997fbf12a29c", "CT, vessels and tumour"
    ),
    "msd-spleen": PublicSet("Task09_Spleen", "410d4a301da4e5b2f6f86ec3ddba524e", "CT, spleen"),
    "msd-colon": PublicSet("Task10_Colon", "bad7a188931dc2f6acf72b08eb6202d0", "CT, tumour"),
}
"""Medical Segmentation Decathlon (CC BY-SA 4.0), the copy that MONAI's DecathlonDataset uses."""


def fetch(
    name: str,
    folder: str | Path,
    *,
    url: str | None = None,
    md5: str | None = None,
    quiet: bool = False,
) -> Path:
    """Download a public data set below `folder`, unless it is there already.

    A download that was cut off goes on where it stopped. The archive is checked against its MD5,
    unpacked beside its place, and moved there when it is whole.

    Parameters
    ----------
    name : str
        A name of `SETS`, such as ``msd-hippocampus``.
    folder : path
        Where it goes; the data set becomes a folder in it, such as ``Task04_Hippocampus``.
    url : str, optional
        Another address of the same archive (a mirror inside the hospital).
    md5 : str, optional
        Another checksum, for another archive of the same name.

    Returns
    -------
    Path
        The data set's folder, which `Cohort.from_msd` opens.

    Raises
    ------
    MedsegError
        Unknown name, no connection, not enough room, a wrong checksum, or a hostile archive.
    """
    chosen = _known(name)
    folder = Path(folder).expanduser().resolve()
    target, wanted = folder / chosen.folder, md5 or chosen.md5
    if _is_there(target, wanted):
        log.info("%s is there already: %s", name, target)
        return target
    _make(folder)
    archive = folder / f".{chosen.folder}.tar.part"
    _download_checked(url or chosen.url, archive, wanted, quiet)
    fresh = folder / f".{chosen.folder}.unpacking"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        unpack(archive, fresh, quiet=quiet)
        _put(fresh, chosen.folder, target, name, wanted)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    archive.unlink(missing_ok=True)
    log.info("%s is in %s", name, target)
    return target


def describe() -> str:
    """The data sets on offer, a line each."""
    width = max(map(len, SETS))
    lines = [f"{name:<{width}}  {found.what}  ({found.folder})" for name, found in SETS.items()]
    return "\n".join([*lines, "Medical Segmentation Decathlon, CC BY-SA 4.0"])


def _download_checked(url: str, archive: Path, md5: str, quiet: bool) -> None:
    """Download, check, and once start afresh: what was kept may belong to an older archive."""
    kept = archive.is_file() and archive.stat().st_size > 0
    download(url, archive, quiet=quiet)
    found = _md5_of(archive)
    if found != md5 and kept:
        log.warning("what was kept of an earlier download does not fit: starting afresh")
        archive.unlink()
        download(url, archive, quiet=quiet)
        found = _md5_of(archive)
    if found != md5:
        archive.unlink()
        raise MedsegError(
            "the downloaded archive is not the one that was expected",
            evidence=f"MD5 {found}, expected {md5}",
            mend="try again; if it stays so, the server's copy or the connection is altered",
        )


def _put(fresh: Path, name: str, target: Path, label: str, md5: str) -> None:
    made = fresh / name
    if not made.is_dir():
        there = ", ".join(sorted(p.name for p in fresh.iterdir())[:5])
        raise MedsegError(
            "the archive does not hold the data set", evidence=f"expected {name}, found {there}"
        )
    write_json(made / MARK, {"name": label, "md5": md5})
    replace_folder(made, target)


def _is_there(target: Path, md5: str) -> bool:
    """A finished fetch of this archive; a folder of the same name from elsewhere is not touched."""
    if not target.exists():
        return False
    try:
        return read_json(target / MARK)["md5"] == md5
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if (target / "dataset.json").is_file():
        return True
    raise MedsegError(
        "a folder of that name is there and is not this data set",
        file=str(target),
        mend="move it away, or give another folder",
    )


def _known(name: str) -> PublicSet:
    if name in SETS:
        return SETS[name]
    guess = nearest(name, list(SETS))
    raise MedsegError(
        f"unknown data set '{name}'",
        evidence=f"known: {', '.join(SETS)}",
        mend=f"did you mean '{guess}'?" if guess else None,
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MedsegError(
            "the folder cannot be made", file=str(folder), evidence=error.strerror, mend="give another one"
        ) from error
    if not os.access(folder, os.W_OK):
        raise MedsegError("the folder cannot be written", file=str(folder), mend="give another one")


def _md5_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
