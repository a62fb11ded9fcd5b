"""Weights for a recipe out of images without labels: the plan's network learns to restore them first."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from medseg.core.errors import MedsegError
from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.data.plan import Plan
from medseg.workflows.adapting import open_target, without_labels
from medseg.workflows.journey import Ingested, ingest_all, prepare_all

if TYPE_CHECKING:
    from medseg.workflows.settings import TrainSettings

log = logging.getLogger("medseg")

FOLDER, NAME = "unlabelled", "restored"


def restored_weights(
    run: Run, raw: Ingested, plan: Plan, settings: TrainSettings, device: str = "auto"
) -> Artifact | None:
    """Weights learnt from the images the recipe names (`pretext.images`): ``unlabelled/pretext/restored``.

    Images that are also in the labelled cohort are left out, so that none that judges was seen before.

    Returns
    -------
    Artifact or None
        A folder as the stage ``weights`` writes it; None when the recipe names no such images.

    Raises
    ------
    MedsegError
        Other weights are named to begin from as well, or no image is left to learn from.
    """
    if not settings.pretext.images.root:
        return None
    if settings.transfer.source:
        raise MedsegError(
            "there are two beginnings: transfer.source and pretext.images", mend="leave one of them out"
        )
    from medseg.stages.pretext import pretext

    beside = Run(run.root / FOLDER, workers=run.workers, quiet=run.quiet)
    found = ingest_all(beside, without_labels(open_target(settings.pretext.images, run.quiet)))
    unseen = found.outside(_same_images(found, raw))
    if not unseen:
        raise MedsegError(
            "there is no image to learn from without labels",
            evidence=f"{len(found)} images, all of them also in the labelled cohort",
        )
    log.info("pretext: %d images, %d more are in the cohort", len(unseen), len(found) - len(unseen))
    images = dict(prepare_all(beside, unseen, plan))
    made = beside.map(pretext, {NAME: images}, plan=plan, settings=settings.pretext.how(), device=device)
    beside.close()
    run.failures.extend(beside.failures)
    if made.failed:
        said = made.failed[NAME].message.removeprefix(f"case {NAME}: ")
        raise MedsegError("the images without labels gave no weights", evidence=said)
    return made[NAME]


def _same_images(found: Ingested, raw: Ingested) -> set[str]:
    """Cases whose images, bit by bit, are those of a case of the cohort."""
    known = {_content(artifact) for artifact in raw.values()}
    return {case for case, artifact in found.items() if _content(artifact) in known}


def _content(case: Artifact) -> tuple[str, ...]:
    return tuple(sorted(sha for file, sha in case.files.items() if file.startswith("image")))
