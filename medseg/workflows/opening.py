"""From settings to a cohort."""

from __future__ import annotations

from medseg.core.errors import MedsegError
from medseg.data.cohort import Cohort
from medseg.imaging.dicom_policy import DEFAULT
from medseg.workflows.settings import CohortSettings


def open_cohort(settings: CohortSettings, task: str = "segmentation", quiet: bool = False) -> Cohort:
    """The cohort that settings describe, without the cases they exclude."""
    if not settings.root:
        raise MedsegError("the recipe does not say where the images are", mend="add cohort.root=FOLDER")
    given = settings.model_dump(exclude={"root", "format", "exclude", "dicom"})
    options = {k: v for k, v in given.items() if v}
    if settings.dicom != DEFAULT:
        options["policy"] = settings.dicom
    cohort = Cohort.open(settings.root, format=settings.format, quiet=quiet, **options)
    if cohort.task != task:
        raise MedsegError(
            f"the recipe is for {task}, the data set for {cohort.task}",
            mend=f"set task={cohort.task}, or give a data set with references for {task}",
        )
    return cohort.subset([c.id for c in cohort.cases if c.id not in set(settings.exclude)])
