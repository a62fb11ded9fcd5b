"""Results in the forms other systems read: DICOM objects of masks; models as bundle, ONNX or OpenVINO."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.core.errors import MedsegError
from medseg.core.files import PARTIAL, files_below, read_json, replace_folder, sha256_of, write_json
from medseg.core.registry import look_up
from medseg.core.run import Run
from medseg.core.stage import RECORD, Artifact
from medseg.workflows.journey import Ingested
from medseg.workflows.outcome import Outcome

if TYPE_CHECKING:
    from medseg.imaging.dicom_out import ObjectKind
    from medseg.learning.model import Models

MANIFEST = "export.json"
"""In every exported folder: its form, the weights it was made from, and the sha256 of each file."""
TOLD = ("cases", "monitor_cases", "patients", "ranges", "seen")
"""What an export keeps of its model's training images: enough to know one of them again."""


def export_objects(
    run: Run,
    raw: Ingested,
    masks: Mapping[str, Artifact],
    formats: tuple[ObjectKind, ...] = ("seg",),
    cases: Collection[str] | None = None,
) -> Mapping[str, Artifact]:
    """DICOM objects of each mask, on the series it was made from: ``export/<case>/<case>.seg.dcm``, ...

    Identity is read from the original headers here, and only here.
    """
    from medseg.stages.export import export

    chosen = [c for c in masks if cases is None or c in set(cases)]
    items = {c: (masks[c], raw.cohort[c]) for c in chosen}
    return run.map(export, items, labels=raw.cohort.labels, formats=formats)


def export(model: str | Path, out: str | Path, *, to: str = "bundle") -> Outcome:
    """Write a model in another form: whole, and checked against the model, or not at all.

    Parameters
    ----------
    model : path
        Model folder, fold folder, or run folder. Several folds give a folder each in `out`.
    out : path
        Folder to write. An export made before is replaced; a folder with anything else is refused.
    to : {"bundle", "onnx", "openvino"}
        MONAI bundle, ONNX or OpenVINO. ``package.module:function`` writes a form of your own:
        ``(model, folder) -> facts``.

    Raises
    ------
    MedsegError
        No model, a folder that is not free, a missing package, or a form that does not compute what
        the model computes.
    """
    from medseg.learning.cascade import refuse_cascade
    from medseg.learning.exporting import EXPORTS
    from medseg.learning.model import model_folders, open_models

    write = look_up(EXPORTS, to, "form")
    target = Path(out).resolve()
    models = open_models(model, "cpu")
    folders = model_folders(Path(model))
    for member in models.members:
        refuse_cascade(member.plan, "an export")
    _check_free(target, folders)
    with _whole(target) as partial:
        facts = {}
        for name, member in zip(_names(folders), models.members, strict=True):
            facts[name] = write(member, partial / name)
        manifest = _manifest(to, models, facts, partial)
        write_json(partial / MANIFEST, manifest)
    return Outcome(manifest, _said(manifest, target))


def _names(folders: list[Path]) -> list[str]:
    """A sub-folder for each of several models, named by its fold; one model needs none."""
    if len(folders) == 1:
        return ["."]
    names = [folder.parent.name for folder in folders]
    folds = all(re.fullmatch(r"fold\d+", name) for name in names)
    return names if folds else [f"model{i}" for i in range(len(folders))]


def _check_free(out: Path, folders: list[Path]) -> None:
    """Refuse to write over what is no export, or into the folder of a model (its digest would change)."""
    homes = [f.parent if (f.parent / RECORD).is_file() else f for f in folders]
    if any(out.is_relative_to(home.resolve()) for home in homes):
        raise MedsegError("an export must not lie in the folder of its model", mend="give another folder")
    if out.exists() and not (out.is_dir() and _is_ours(out)):
        raise MedsegError(
            "the folder to export to holds something else",
            file=str(out),
            mend="give a new folder, or empty this one",
        )


def _is_ours(folder: Path) -> bool:
    """True for an empty folder, and for an export with no file that it did not write."""
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
    try:
        return there <= {MANIFEST, *read_json(folder / MANIFEST)["files"]} if there else True
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the work ends well, and goes when it does not."""
    partial = out.with_name(f".{out.name}.{os.getpid()}{PARTIAL}")
    try:
        partial.mkdir(parents=True)
        yield partial
        replace_folder(partial, out)
    except OSError as error:
        raise MedsegError(
            "the folder to export to cannot be written",
            file=str(out),
            evidence=error.strerror or type(error).__name__,
            mend="check the permissions and the free space there",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _manifest(to: str, models: Models, facts: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    files = {f.relative_to(folder).as_posix(): sha256_of(f) for f in files_below(folder)}
    seen = [member.about.get("training_data") or {} for member in models.members]
    kept = {name: {k: one[k] for k in TOLD if k in one} for name, one in zip(facts, seen, strict=True)}
    return {"form": to, **models.card(), "facts": dict(facts), "training_data": kept, "files": files}


def _said(manifest: Mapping[str, Any], out: Path) -> str:
    facts = manifest["facts"]
    count = "1 model" if len(facts) == 1 else f"{len(facts)} models, a folder each ({', '.join(facts)}),"
    apart = [f["largest_difference"] for f in facts.values() if "largest_difference" in (f or {})]
    same = f"; logits within {max(apart):.1g} of the model's" if apart else ""
    return f"export: {count} as {manifest['form']} in {out}{same}"
