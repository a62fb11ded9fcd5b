"""Image: an array and where it lies; NIfTI in and out."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.errors import CaseError, MedsegError
from medseg.core.files import written_whole
from medseg.imaging.grid import Grid

MAX_VOXELS = 2**31
"""Headers that claim more are refused before anything is allocated."""

PADDING = 2**20
"""Bytes that may follow the voxels of a compressed file."""


@dataclass(frozen=True, eq=False)
class Image:
    """An array ``[C, I, J, K]`` on a `Grid` of shape ``(I, J, K)``.

    Always 3-D: a radiograph has K = 1. A mask is an image with C = 1 and an integer type.

    Raises
    ------
    MedsegError
        The array is not 4-D, or its last three axes are not the grid's shape.
    """

    array: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or self.array.shape[1:] != self.grid.shape:
            raise MedsegError(
                "an image's array must be [C, I, J, K] with the shape of its grid",
                evidence=f"array {self.array.shape}, grid {self.grid.shape}",
            )

    def but(self, array: NDArray[Any]) -> Image:
        """The same place, another array (a 3-D one gets its channel axis)."""
        return Image(array if array.ndim == 4 else array[None], self.grid)


def read_image(file: str | Path) -> Image:
    """Read a NIfTI file as float32 ``[C, I, J, K]``, with its own axis order and affine.

    A fourth axis becomes channels. Scaling of the header is applied. Nothing is reoriented. One slice
    of pixels of size 1 without a unit is a picture of which nobody knows the size: its grid says so
    (`Grid.spacing_known`). A volume, or another size, is in mm even where the unit was forgotten.

    Raises
    ------
    CaseError
        Missing, truncated or unreadable file, more than four axes, NaN or infinite voxels, or an
        affine that does not place the voxels.
    """
    array, grid = _read(Path(file))
    array = array.astype(np.float32, copy=False)
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise CaseError(
            "the image has voxels that are not numbers",
            file=str(file),
            evidence=f"{bad} of {array.size} voxels are NaN or infinite",
            mend="repair the export that made it, or leave the case out",
        )
    return Image(array, grid)


def read_mask(file: str | Path) -> Image:
    """Read a label map as ``uint8``/``uint16`` ``[1, I, J, K]``.

    Float files are taken when every value is within 1e-3 of a whole number (resampled or rounded
    labels are not).

    Raises
    ------
    CaseError
        As `read_image`, and for values that are not whole numbers from 0 to 65535.
    """
    array, grid = _read(Path(file))
    if array.shape[0] != 1:
        raise CaseError("a mask has one channel", file=str(file), evidence=f"{array.shape[0]} channels")
    return Image(whole_numbers(array, str(file)), grid)


def whole_numbers(array: NDArray[Any], file: str | None = None) -> NDArray[Any]:
    """The array as ``uint8`` (``uint16`` above 255); refused when values are not whole."""
    if array.dtype.kind == "f":
        rounded = np.rint(array)
        with np.errstate(invalid="ignore"):  # infinite minus infinite is no whole number either
            off = ~(np.abs(array - rounded) <= 1e-3)
        if off.any():
            raise CaseError(
                "the mask has values that are not whole numbers",
                file=file,
                evidence=f"{int(off.sum())} voxels, such as {array[off].flat[0]:.6g}",
                mend="save it with nearest-neighbour interpolation and an integer type",
            )
        array = rounded
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    if low < 0 or high > 65535:
        raise CaseError("mask values must lie from 0 to 65535", file=file, evidence=f"{low} to {high}")
    return array.astype(np.uint8 if high <= 255 else np.uint16)


def write_image(image: Image, file: str | Path) -> None:
    """Write NIfTI (``.nii`` or ``.nii.gz``), whole or not at all; the affine goes into sform and qform.

    The unit is mm, or unknown where the grid's spacing is.

    Bytes depend on the content alone (no time stamp), so that equal images have equal digests. Types
    that NIfTI or its readers lack are stored in the next one that holds them: bool as uint8, float16
    as float32, int64 as int32.

    Raises
    ------
    MedsegError
        Whole numbers beyond 32 bits.
    """
    import nibabel as nib

    fast_gzip()
    array = image.array[0] if image.array.shape[0] == 1 else np.moveaxis(image.array, 0, 3)
    nifti = nib.Nifti1Image(_storable(array), image.grid.affine)  # type: ignore[no-untyped-call]
    nifti.set_sform(image.grid.affine, code=1)
    nifti.set_qform(image.grid.affine, code=1)
    nifti.header.set_xyzt_units("mm" if image.grid.spacing_known else "unknown")
    with written_whole(Path(file)) as beside:
        nib.save(nifti, beside)


def _storable(array: NDArray[Any]) -> NDArray[Any]:
    wanted = {"bool": np.uint8, "float16": np.float32, "int64": np.int32, "uint64": np.uint32}
    kind = wanted.get(array.dtype.name)
    if kind is None:
        return np.asarray(array)
    stored = array.astype(kind)
    if array.dtype.kind in "iu" and not np.array_equal(stored, array):
        raise MedsegError(
            "whole numbers beyond 32 bits cannot be stored as NIfTI",
            evidence=f"{array.min()} to {array.max()}",
        )
    return stored


def same_place(image: Image, other: Image, what: str = "image and reference") -> None:
    """Refuse two images that do not lie on the same grid, showing both.

    Raises
    ------
    CaseError
        Shapes differ or affines differ by more than 1e-3 in an element.
    """
    if not image.grid.matches(other.grid):
        raise CaseError(
            f"{what} do not lie on the same grid",
            evidence=image.grid.difference(other.grid),
            mend="resample one onto the other, or pair the right files",
        )


def canonical(image: Image) -> Image:
    """The image with its axes permuted and flipped to be nearest to RAS; voxels stay what they are.

    A picture (K = 1) keeps that axis last, whatever plane it shows, and its other two in the order of
    RAS: a frontal radiograph stays ``[C, I, J, 1]``.
    """
    order, signs = _turn(image.grid)
    array = np.transpose(image.array, [0, *(a + 1 for a in order)])
    flips = [i for i, a in enumerate(order) if signs[a] < 0]
    array = np.flip(array, tuple(f + 1 for f in flips))
    return Image(array, canonical_grid(image.grid))


def canonical_grid(grid: Grid) -> Grid:
    """The grid that `canonical` puts an image on."""
    order, signs = _turn(grid)
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for new, old in enumerate(order):
        step[old, new] = signs[old]
        step[old, 3] = 0 if signs[old] > 0 else grid.shape[old] - 1
    shape = (grid.shape[order[0]], grid.shape[order[1]], grid.shape[order[2]])
    return replace(grid, shape=shape, affine=grid.affine @ step)


def from_canonical(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Undo `canonical`: an array ``[C, ...]`` on ``canonical_grid(grid)`` back in the order of `grid`."""
    order, signs = _turn(grid)
    flips = tuple(i + 1 for i, a in enumerate(order) if signs[a] < 0)
    return np.transpose(np.flip(array, flips), [0, *(order.index(a) + 1 for a in range(3))])


def _turn(grid: Grid) -> tuple[list[int], tuple[int, int, int]]:
    """The array axes in their canonical order, and the sign of each."""
    axes, signs = grid.nearest_axes()
    order = [axes.index(world) for world in range(3)]
    return (sorted(order, key=lambda a: a == 2) if grid.shape[2] == 1 else order), signs


def fast_gzip() -> None:
    """Let nibabel read and write ``.gz`` through ISA-L: a fraction of the time."""
    from nibabel.openers import ImageOpener, Opener

    for opener in (Opener, ImageOpener):  # ImageOpener keeps a copy of the table
        opener.compress_ext_map[".gz"] = (_open_isal, ("mode",))


def _open_isal(filename: Any, mode: str = "rb", **_: Any) -> Any:
    from isal import igzip

    if "r" in mode:
        return igzip.open(filename, mode)
    raw = Path(filename).open(mode)  # noqa: SIM115
    stream = igzip.IGzipFile("", mode, 2, raw, mtime=0)
    stream.myfileobj = raw  # type: ignore[assignment]  # closed with the stream, as gzip does with files it opened itself
    return stream


def _read(file: Path) -> tuple[NDArray[Any], Grid]:
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    fast_gzip()
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused below, not warned about
            nifti: Any = nib.load(file)
        _check_header(nifti, file)
        array = _voxels(_to_its_end(nifti, file) if file.suffix == ".gz" else nifti)
        affine, unit = nifti.affine, _unit(nifti.header)
    except FileNotFoundError as error:
        raise CaseError(
            "the file is not there", file=str(file), mend="correct the path, or leave the case out"
        ) from error
    except (
        ImageFileError,
        HeaderDataError,
        OSError,
        EOFError,
        ValueError,
        OverflowError,
        *_broken(),
    ) as error:
        raise CaseError(
            "the file cannot be read to its end as NIfTI",
            file=str(file),
            evidence=f"{_said(error, file)}; {file.stat().st_size if file.exists() else 0} bytes",
            mend="copy or export it again: it is damaged, cut off, or of another format",
        ) from error
    return _with_place(array, affine, unit, file)


def _unit(header: Any) -> int:
    """The code of the unit of length: 0 unknown, 1 m, 2 mm, 3 um."""
    return int(header["xyzt_units"]) & 7 if "xyzt_units" in header else 0


def _said(error: Exception, file: Path) -> str:
    """A library's complaint without the file's name and place."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text.replace(str(file), "the file").replace(file.name, "the file")


def _with_place(array: NDArray[Any], affine: Any, unit: int, file: Path) -> tuple[NDArray[Any], Grid]:
    try:
        grid = Grid(array.shape[1:], affine)  # type: ignore[arg-type]
        return array, replace(grid, spacing_known=unit != 0 or not _bare(grid))
    except MedsegError as error:
        raise CaseError(error.what, file=str(file), evidence=error.evidence, mend=error.mend) from error


def _bare(grid: Grid) -> bool:
    """Whether only a picture without pixel size looks like this: one slice, its finest pixel side 1."""
    return grid.shape[2] == 1 and abs(min(grid.spacing_mm[:2]) - 1) < 1e-6


def _broken() -> tuple[Any, ...]:
    """What the two decompressors raise on a damaged stream."""
    from isal import igzip_lib

    return zlib.error, igzip_lib.IsalError


def _to_its_end(nifti: Any, file: Path) -> Any:
    """The image decompressed whole, so that the stream's checksum is looked at; never more than claimed."""
    from isal import igzip

    claimed = int(nifti.dataobj.offset) + int(np.prod(nifti.shape)) * nifti.get_data_dtype().itemsize
    with igzip.open(file) as stream:
        raw = stream.read(claimed)
        if len(raw) < claimed:
            raise EOFError(f"{len(raw)} bytes where the header claims {claimed}")
        if len(stream.read(PADDING + 1)) > PADDING:
            raise ValueError(f"far more than the {claimed} bytes that the header claims")
    return type(nifti).from_bytes(raw)


def _check_header(nifti: Any, file: Path) -> None:
    """Refuse, before anything is allocated, what cannot be an image of grey values."""
    shape = nifti.shape
    if len(shape) < 2 or len(shape) > 4 or min(shape) < 1 or np.prod(shape, dtype=float) > MAX_VOXELS:
        raise CaseError(
            "the header's shape is not that of an image of two to four axes",
            file=str(file),
            evidence=f"shape {shape}",
        )
    if nifti.get_data_dtype().names or nifti.get_data_dtype().kind == "c":
        raise CaseError(
            "colour or complex voxels are not supported",
            file=str(file),
            evidence=f"type {nifti.get_data_dtype()}",
            mend="export the image as grey values",
        )


def _voxels(nifti: Any) -> NDArray[Any]:
    shape = nifti.shape
    array = np.asanyarray(nifti.dataobj)
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):  # beyond float32 means infinite, which the caller refuses
            array = array.astype(np.float32)
    array = array.reshape(shape + (1,) * (3 - len(shape)))
    return np.ascontiguousarray(np.moveaxis(array, 3, 0)) if array.ndim == 4 else array[None]
