"""Images and references paired by name; images in one folder a class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from medseg.core.errors import MedsegError
from medseg.data.cohort import Cohort
from medseg.data.discover import (
    Draft,
    Frame,
    LabelsLike,
    as_labels,
    assemble,
    count_left_out,
    folder,
    kind_of,
    no_image,
    no_reference,
    stem_of,
)
from medseg.data.discover_table import described
from medseg.data.naming import Ids, case_ids, renamed, safe_channels

IMAGE_FOLDERS = ("imagesTr", "images", "image", "imgs", "volumes")
REFERENCE_FOLDERS = ("labelsTr", "labels", "masks", "references", "segmentations", "label", "mask", "seg")
REFERENCE_NAMES = ("label", "labels", "seg", "mask", "reference", "segmentation")
_SUFFIX = re.compile(rf"(.+)[_-](?:{'|'.join(REFERENCE_NAMES)})$", re.IGNORECASE)

Found = dict[str, dict[str, Path]]
"""Name of the case as found -> channel -> file."""


def from_nifti(
    root: str | Path,
    *,
    image: str | None = None,
    reference: str | None = None,
    labels: LabelsLike = None,
    channels: Iterable[str] | None = None,
    name: str | None = None,
    need_reference: bool | None = None,
    quiet: bool = False,
    ids: Ids = "auto",
) -> Cohort:
    """See `Cohort.from_nifti`."""
    root = Path(root).expanduser().resolve()
    if root.is_file():
        return _one_file(root, as_labels(labels), name or "cohort", tuple(channels or ("image",)), ids)
    root = folder(root)
    if image is None:
        image, reference = guess_globs(root, reference)
    wanted = tuple(channels or ())
    images, references = _found(root, image), _found(root, reference) if reference else {}
    images, references = _told_apart(images, references, same=image == reference)
    names, images = _channels(images, wanted)
    frame = Frame(channels=names, labels=as_labels(labels), name=name or "cohort", quiet=quiet)
    need = bool(references) if need_reference is None else need_reference
    called = case_ids([*images, *references], ids)
    drafts, refused = [], []
    for case, files in images.items():
        here = tuple(references.get(case, {}).values())
        if need and not here:
            refused.append(no_reference(called[case], next(iter(files.values()))))
        else:
            drafts.append(Draft(case, {c: (f,) for c, f in files.items() if c in names}, here))
    refused += [no_image(called[c], next(iter(f.values()))) for c, f in references.items() if c not in images]
    refused += count_left_out(_others(root, image, reference))
    return assemble(renamed(described(drafts, root), called), frame, refused)


def from_classes(
    root: str | Path,
    *,
    labels: LabelsLike = None,
    channels: Iterable[str] | None = None,
    name: str | None = None,
    quiet: bool = False,
    ids: Ids = "auto",
) -> Cohort:
    """See `Cohort.from_classes`. `labels` has no meaning here and is accepted for uniformity.

    Several `channels` are those of each file: ``[red, green, blue]`` of a picture in colour.
    """
    root = folder(root)
    base = next((root / sub for sub in IMAGE_FOLDERS if (root / sub).is_dir()), root)
    files = sorted(f for f in base.glob("*/*") if f.is_file())
    images = [f for f in files if kind_of(f) and not f.name.startswith(".")]
    times = Counter(stem_of(f) for f in images)
    names = tuple(channels or ("image",))
    drafts = [
        Draft(
            stem_of(f) if times[stem_of(f)] == 1 else f"{f.parent.name}-{stem_of(f)}",
            dict.fromkeys(names, (f,)),
            label_class=f.parent.name,
        )
        for f in images
    ]
    classes = tuple(sorted({f.parent.name for f in images}))
    frame = Frame(names, (), classes, "classification", name or "cohort", quiet)
    drafts = renamed(described(drafts, root), case_ids([d.id for d in drafts], ids, classes=classes))
    return assemble(drafts, frame, count_left_out(f for f in files if f not in images))


def guess_globs(root: Path, reference: str | None = None) -> tuple[str, str | None]:
    """Globs for the layouts people use: two folders, one folder a case, or all in one folder.

    Raises
    ------
    MedsegError
        No image anywhere in these places.
    """
    where = next((sub for sub in IMAGE_FOLDERS if _images_in(root / sub)), None)
    if where is not None:
        return _numbered(root, where), reference or _folder_glob(root)
    if _images_in(root):
        return "*", reference or "*"
    deep = [f for f in root.glob("*/*") if kind_of(f) and not f.name.startswith(".")]
    if deep:
        stems = {stem_of(f).lower(): f for f in deep}
        beside = next((stems[n].name for n in REFERENCE_NAMES if n in stems), None)
        ending = ".nii.gz" if any(f.name.endswith(".nii.gz") for f in deep) else deep[0].suffix
        return "*/{channel}" + ending, reference or (f"*/{beside}" if beside else None)
    raise MedsegError(
        "no image was found in this folder",
        file=str(root),
        evidence=f"{sum(1 for _ in root.glob('*'))} entries, none of them NIfTI, PNG, JPEG or TIFF",
        mend="give the folder that holds the images, or globs (image=..., reference=...)",
    )


def _found(root: Path, pattern: str) -> Found:
    """Files that match, by case id (what the ``*`` took) and channel (what ``{channel}`` took)."""
    regex, found = _as_regex(pattern), {}
    for file in sorted(root.glob(pattern.replace("{channel}", "*"))):
        match = regex.fullmatch(file.relative_to(root).as_posix())
        if match is None or not file.is_file() or kind_of(file) is None or file.name.startswith("."):
            continue
        named = match.groupdict()
        channel = stem_of(named.pop("channel", None) or "image")
        key = "-".join(stem_of(part) for part in named.values() if part) or stem_of(file)
        channel = channel.removeprefix(f"{file.parent.name}_")  # sub-01/sub-01_T1w.nii.gz
        found.setdefault(key, {})[_free(channel, found.get(key, {}))] = file
    return found


def _free(channel: str, taken: dict[str, Path]) -> str:
    """Two files for one channel of one case: the second is kept apart, so that the case is refused."""
    return channel if channel not in taken else f"{channel} (again)"


def _as_regex(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression whose groups are what the wildcards took."""
    text, count = "", 0
    for part in re.split(r"(\*\*/|\*|\?|\{channel\})", pattern):
        if part in ("*", "**/"):
            inner = "[^/]*" if part == "*" else "(?:[^/]+/)*"
            text, count = text + f"(?P<w{count}>{inner})", count + 1
        else:
            text += {"?": "[^/]", "{channel}": "(?P<channel>[^/]+?)"}.get(part, re.escape(part))
    return re.compile(text)


def _told_apart(images: Found, references: Found, same: bool) -> tuple[Found, Found]:
    """Take references out of the images: by name suffix in one folder, by file otherwise."""
    if same:
        masks = {c: m[1] for c in images if (m := _SUFFIX.match(c)) and m[1] in images}
        pairs = {image: images[mask] for mask, image in masks.items()}
        return {c: f for c, f in images.items() if c not in masks}, pairs
    taken = {file for files in references.values() for file in files.values()}
    left = {c: {n: f for n, f in files.items() if f not in taken} for c, files in images.items()}
    return {c: files for c, files in left.items() if files}, references


def _channels(images: Found, wanted: tuple[str, ...]) -> tuple[tuple[str, ...], Found]:
    """Channel names, in order; asked for, or those that every case has."""
    images = images if wanted else _safely_named(images)
    there = sorted({c for files in images.values() for c in files if not c.endswith(" (again)")})
    if len(there) == 1 and len(wanted) <= 1:
        name = wanted[0] if wanted else "image"
        return (name,), {
            k: {name if c == there[0] else c: f for c, f in v.items()} for k, v in images.items()
        }
    if len(there) == 1:  # one file with all channels in it; ingest takes them apart in this order
        return wanted, {k: dict.fromkeys(wanted, v[there[0]]) for k, v in images.items() if there[0] in v}
    if wanted or not there:
        return wanted or ("image",), images
    masks = [c for c in there if "mask" in c.lower()]
    if masks:
        raise MedsegError(
            "it is not clear which files are channels",
            evidence=f"found {', '.join(there)}",
            mend=f"name them: channels=[{','.join(c for c in there if c not in masks)}]"
            " (cohort.channels in a recipe)",
        )
    return tuple(there), images


def _safely_named(images: Found) -> Found:
    """The files under channels whose names are no one's."""
    safe = safe_channels(Counter(c for files in images.values() for c in files), len(images))
    return {case: {safe[c]: f for c, f in files.items()} for case, files in images.items()}


def _numbered(root: Path, where: str) -> str:
    """``images/*``, or the channel pattern when every name ends in ``_0000`` and so on."""
    files = _images_in(root / where)
    if all(re.search(r"_\d{4}$", stem_of(f)) for f in files):
        return f"{where}/*_{{channel}}" + files[0].name[len(stem_of(files[0])) :]
    return f"{where}/*"


def _folder_glob(root: Path) -> str | None:
    return next((f"{sub}/*" for sub in REFERENCE_FOLDERS if (root / sub).is_dir()), None)


def _images_in(where: Path) -> list[Path]:
    there = sorted(where.glob("*")) if where.is_dir() else []
    return [f for f in there if f.is_file() and kind_of(f) and not f.name.startswith(".")]


def _others(root: Path, image: str, reference: str | None) -> list[Path]:
    """Files beside the images that are no images; the data set's own notes are not counted."""
    places = {str(Path(p).parent) for p in (image, reference) if p}
    files = {f for p in places for f in root.glob(f"{p}/*" if p != "." else "*") if f.is_file()}
    notes = (".md", ".txt", ".csv", ".json", ".pdf")
    return [f for f in files if (kind_of(f) is None or f.name.startswith(".")) and f.suffix not in notes]


def _one_file(file: Path, labels: tuple, name: str, channels: tuple[str, ...], ids: Ids) -> Cohort:
    draft = Draft(stem_of(file), dict.fromkeys(channels, (file,)))
    return assemble(renamed([draft], case_ids([draft.id], ids)), Frame(channels, labels, name=name))
