"""A verb in several processes, as ``torchrun`` or ``srun`` start them: one works, the others help."""

from __future__ import annotations

import logging
from collections.abc import Callable

from medseg.core.ranks import ranks_of
from medseg.workflows.outcome import Outcome


def in_company(work: Callable[[], Outcome]) -> Outcome:
    """Do `work` alone, or as the leader of those who help wherever a network is trained.

    Raises
    ------
    SystemExit
        In the processes that help, with 0, when the leader has no more use for them.
    """
    ranks = ranks_of()
    if ranks.size == 1:
        return work()
    from medseg.learning.together import follow, join, leave
    from medseg.learning.training import train_along

    if not join(ranks).leads:
        logging.getLogger("medseg").setLevel(logging.WARNING)
        follow(train_along)
        raise SystemExit(0)
    try:
        return work()
    finally:
        leave()
