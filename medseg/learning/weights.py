"""Weights in every published form -> tensors under our networks' names, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from medseg.core.errors import MedsegError
from medseg.core.files import read_json, sha256_of, write_json, written_whole
from medseg.core.values import digest, nearest
from medseg.learning import weights_folders as folders
from medseg.learning import weights_imagenet as imagenet
from medseg.learning import weights_medicalnet as medicalnet
from medseg.learning import weights_nnunet as nnunet
from medseg.learning import weights_swinunetr as swinunetr
from medseg.learning.model import model_folders
from medseg.learning.parts import plain
from medseg.learning.weights_open import Raw, open_weights

TENSORS, ORIGIN = "weights.safetensors", "origin.json"


@dataclass(frozen=True)
class Weights:
    """Tensors by the names of our networks (without what stands before those of flat ones).

    Attributes
    ----------
    facts : mapping
        What the source tells: ``network`` and ``network_arguments`` it was made for, ``outputs`` (the class
        of each logit), ``channels``, ``notes``.
    dropped : mapping
        Why tensors of the source were not taken -> how many parameters.
    """

    tensors: dict[str, Tensor]
    format: str
    sha256: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """One published form.

    Attributes
    ----------
    lacks : function
        ``(raw) -> why it is not this form``, or an empty text.
    read : function
        ``(raw) -> (tensors, facts, dropped)``.
    """

    lacks: Callable[[Raw], str]
    read: Callable[[Raw], tuple[dict[str, Tensor], dict[str, Any], dict[str, int]]]
    folder: bool = False
    numpy_scalars: bool = False


FORMATS: Mapping[str, Format] = {
    "medseg": Format(folders.lacks_model, folders.read_model, folder=True),
    "weights": Format(folders.lacks_weights, folders.read_weights, folder=True),
    "bundle": Format(folders.lacks_bundle, folders.read_bundle, folder=True),
    "medicalnet": Format(medicalnet.lacks, medicalnet.read),
    "swinunetr": Format(swinunetr.lacks, swinunetr.read),
    "imagenet": Format(imagenet.lacks, imagenet.read),
    "nnunet": Format(nnunet.lacks, nnunet.read, numpy_scalars=True),
    "state": Format(lambda raw: "", lambda raw: (raw.tensors, {}, {})),
}
"""Name -> form; ``auto`` takes the first that fits, in this order. nnU-Net only when it is named."""


def load_weights(
    source: Path, format: str = "auto", prefix: Mapping[str, str] | None = None, sha256: str = ""
) -> Weights:
    """Open weights on this machine.

    Parameters
    ----------
    source : path
        A file (safetensors or torch), or a folder: medseg model, MONAI bundle, nnU-Net fold, what
        `save_weights` wrote.
    format : str
        A name of `FORMATS`, or ``auto``.
    prefix : mapping, optional
        What names begin with in the file -> what they begin with in our network; the longest counts.
    sha256 : str, optional
        What the file must have.

    Raises
    ------
    MedsegError
        No such file, not of this form (what it looks like instead is told), another sha256, values that are
        no numbers, or a pickle that holds more than tensors.
    """
    source = resolved(source)
    file = _file_of(source)
    found = sha256_of(file)
    if sha256 not in ("", "unpinned", found):
        raise MedsegError(
            "the weights are not the file that was pinned",
            file=str(file),
            evidence=f"sha256 {found}, pinned {sha256}",
            mend="take the file that was meant, or pin this one if it is right",
        )
    form = _named(format)
    raw = _opened(source, file, form)
    name = format if form else _recognised(raw, source)
    form = FORMATS[name]
    if prefix:
        raw = Raw(renamed(raw.tensors, prefix), raw.beside)
    if why := form.lacks(raw):
        raise _not_this(name, why, raw, source)
    _check_numbers(raw, source)
    tensors, facts, dropped = form.read(raw)
    tensors = {plain(n): tensor for n, tensor in tensors.items()}
    return Weights(tensors, str(facts.pop("format", name)), str(facts.pop("sha256", found)), facts, dropped)


def resolved(source: Path) -> Path:
    """The file or folder itself; of a run folder the one model in it.

    Raises
    ------
    MedsegError
        Nothing is there, or several models.
    """
    if not source.exists():
        raise MedsegError("there are no weights at this place", file=str(source))
    if source.is_file() or any((source / name).is_file() for name in folders.FILES):
        return source
    models = model_folders(source)
    if len(models) > 1:
        names = ", ".join(folder.parent.name for folder in models)
        raise MedsegError(
            "the folder holds several models", file=str(source), evidence=names, mend="give one of them"
        )
    return models[0] if models else source


def content_of(source: Path) -> str:
    """Digest of a file of weights and of the notes beside it: what decides what is loaded."""
    source = resolved(source)
    file = _file_of(source)
    return digest([sha256_of(file), folders.beside(source if source.is_dir() else file.parent, file)])


def save_weights(folder: Path, weights: Weights) -> None:
    """Write ``weights.safetensors`` and ``origin.json``: what `load_weights` opens again."""
    from safetensors.torch import save_file

    plain = {name: tensor.cpu().contiguous().clone() for name, tensor in sorted(weights.tensors.items())}
    with written_whole(folder / TENSORS) as beside:
        save_file(plain, beside)
    about = {"format": weights.format, "sha256": weights.sha256, "dropped": dict(weights.dropped)}
    write_json(folder / ORIGIN, {**about, "facts": dict(weights.facts)})


def saved_weights(folder: Path) -> Weights:
    """What `save_weights` wrote."""
    about = read_json(folder / ORIGIN)
    raw = open_weights(folder / TENSORS)
    return Weights(raw.tensors, about["format"], about["sha256"], about["facts"], about["dropped"])


def renamed(tensors: Mapping[str, Tensor], prefix: Mapping[str, str]) -> dict[str, Tensor]:
    """Names with the longest prefix of the map that they begin with replaced.

    Raises
    ------
    MedsegError
        A prefix that no name begins with, or two tensors that would get one name.
    """
    idle = [old for old in prefix if not any(name.startswith(old) for name in tensors)]
    if idle:
        raise MedsegError(
            f"no weight's name begins with '{idle[0]}'",
            evidence=f"names: {', '.join(list(tensors)[:4])}, ...",
        )
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        fits = max((old for old in prefix if name.startswith(old)), key=len, default=None)
        new = name if fits is None else prefix[fits] + name.removeprefix(fits)
        if new in out:
            raise MedsegError(f"two weights would be named '{new}'", mend="make the prefixes longer")
        out[new] = tensor
    return out


def _check_numbers(raw: Raw, source: Path) -> None:
    """A training gone astray leaves NaN: nothing can be learnt from there."""
    bad = [name for name, t in raw.tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise MedsegError(
            "the weights hold values that are not numbers",
            file=str(source),
            evidence=f"{len(bad)} of {len(raw.tensors)} tensors, such as {bad[0]}",
            mend="take weights from before that training went astray",
        )


def _named(format: str) -> Format | None:
    if format == "auto":
        return None
    if format not in FORMATS:
        guess = nearest(format, list(FORMATS))
        raise MedsegError(
            f"there is no form of weights named '{format}'",
            evidence=f"forms: auto, {', '.join(FORMATS)}",
            mend=f"did you mean '{guess}'?" if guess else None,
        )
    return FORMATS[format]


def _file_of(source: Path) -> Path:
    """The file of weights that a path stands for."""
    if source.is_file():
        return source
    for name in folders.FILES:
        if (source / name).is_file():
            return source / name
    there = ", ".join(sorted(p.name for p in source.iterdir())[:6]) or "nothing"
    raise MedsegError(
        "the folder holds no weights we know",
        file=str(source),
        evidence=f"it holds {there}",
        mend=f"give the file itself, or a folder with one of {', '.join(folders.FILES)}",
    )


def _opened(source: Path, file: Path, form: Format | None) -> Raw:
    raw = open_weights(file, numpy_scalars=bool(form and form.numpy_scalars))
    notes = folders.beside(source if source.is_dir() else file.parent, file)
    return Raw(raw.tensors, {**raw.beside, **notes})


def _recognised(raw: Raw, source: Path) -> str:
    fits = [name for name, form in FORMATS.items() if not form.numpy_scalars and not form.lacks(raw)]
    if not nnunet.lacks(raw):
        raise MedsegError(
            "this is an nnU-Net checkpoint: it is converted by a command of its own",
            file=str(source),
            mend="medseg import-weights FILE OUT --format nnunet, then transfer.source=OUT",
        )
    return fits[0]


def _not_this(name: str, why: str, raw: Raw, source: Path) -> MedsegError:
    others = [n for n, form in FORMATS.items() if n not in (name, "state") and not form.lacks(raw)]
    like = f"it looks like {others[0]}: set transfer.format={others[0]}" if others else None
    return MedsegError(
        f"these are not weights of the form '{name}'", file=str(source), evidence=why, mend=like
    )
