"""Stage ``pretext``: prepared images, labelled or not -> weights to begin a training from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medseg.core.stage import Artifact, stage
from medseg.data.plan import Plan
from medseg.learning.settings import Pretext


@stage(version=1, ignore=("device",), in_process=True, essential=True)
def pretext(
    item: Mapping[str, Artifact], *, plan: Plan, settings: Pretext, device: str = "auto", out: Path
) -> None:
    """Write ``weights.safetensors`` and ``origin.json``, as the stage ``weights`` does.

    Parameters
    ----------
    item : mapping
        Case id -> prepared case. No reference is looked at; leave out the cases that will judge.
    """
    from medseg.learning.devices import pick_device
    from medseg.learning.pretext import pretrain
    from medseg.learning.sampling import PreparedCase

    cases = [PreparedCase(case, item[case].path) for case in sorted(item)]
    pretrain(cases, plan, settings, out=out, device=pick_device(device))
