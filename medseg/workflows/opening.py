"""From settings to a cohort."""

from __future__ import annotations

import re
from collections.abc import Sequence

from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.data.alike import group_alike
from medseg.data.classes import check_classes
from medseg.data.cohort import Cohort
from medseg.data.review import reviewed
from medseg.data.selection_rules import Selection
from medseg.imaging.dicom_policy import DEFAULT
from medseg.workflows.settings import CohortSettings, IngestSettings

_ASIDE = {"root", "format", "exclude", "marks", "dicom", "select", "group_alike"}
"""Settings that `Cohort.open` is not told as they are."""


def open_cohort(settings: CohortSettings, task: str = "segmentation", quiet: bool = False) -> Cohort:
    """The cohort that settings describe, without the cases they exclude."""
    if not settings.root:
        raise MedsegError("the recipe does not say where the images are", mend="add cohort.root=FOLDER")
    given = settings.model_dump(exclude=_ASIDE)
    options = {k: v for k, v in given.items() if v} | {"select": settings.select}
    if settings.dicom != DEFAULT:
        options["policy"] = settings.dicom
    cohort = Cohort.open(settings.root, format=settings.format, quiet=quiet, **options)
    masks = any(case.reference for case in cohort.cases)
    if task == "segmentation" and cohort.task != task and not masks:
        raise MedsegError(
            f"the recipe is for {task}, the data set for {cohort.task}",
            mend=f"set task={cohort.task}, or give a data set with references for {task}",
        )
    if task == "segmentation":
        check_references(cohort)
    cohort = cohort.subset([c.id for c in cohort.cases if c.id not in set(settings.exclude)]).but(task=task)
    cohort = reviewed(cohort, settings.marks)
    if task == "classification":
        check_classes(cohort)
    return group_alike(cohort, settings.group_alike, quiet) if settings.group_alike else cohort


def check_references(cohort: Cohort) -> None:
    """Refuse a segmentation that nothing can be learnt for.

    Raises
    ------
    MedsegError
        Not one case has a reference.
    """
    if cohort.task == "segmentation" and not any(case.reference for case in cohort.cases):
        raise MedsegError(
            "no case has a reference: there is nothing to learn from",
            evidence=f"{len(cohort.cases)} cases with images alone",
            mend="name masks <case>_seg.nii.gz or keep them in a folder labels, or say in a recipe "
            "where they are: cohort.reference='*/label.nii.gz'",
        )


def words_of_cohort(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that say which files are cases (``channels=[t1,flair]``), and the others."""
    names = set(IngestSettings.model_fields) - {"ingest", "marks"}
    first = {w: re.split(r"[.=]", w.removeprefix("cohort."), maxsplit=1)[0] for w in overrides}
    return [w for w in overrides if first[w] in names], [w for w in overrides if first[w] not in names]


def ingest_settings(overrides: Sequence[str] = (), select: str | None = None) -> IngestSettings:
    """What ``medseg ingest`` is told: overrides, and a file of rules for the series of a study.

    Settings of a recipe's cohort may be written as there (``cohort.dicom.tilt``) or without its name.

    Raises
    ------
    MedsegError
        An unknown setting (the nearest name is proposed), or rules that cannot be read.
    """
    words = [word.removeprefix("cohort.") for word in overrides]
    if select is None:
        return load_config(IngestSettings, None, words)
    rules = [word.removeprefix("select.") for word in words if word.startswith("select.")]
    others = [word for word in words if not word.startswith("select.")]
    return load_config(IngestSettings, None, others).but(select=load_config(Selection, select, rules))
