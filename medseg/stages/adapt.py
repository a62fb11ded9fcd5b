"""Stage ``adapt``: a model, prepared cases of its source and of the target -> ``adapt/<name>/model``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medseg.core.stage import Artifact, stage
from medseg.learning.settings import Adaptation

MODEL, SOURCE, TARGET = "model", "source ", "target "
"""Parts of an item: the model, and what names of cases begin with."""


@stage(version=1, ignore=("device", "quiet"), in_process=True, essential=True)
def adapt(
    item: Mapping[str, Artifact],
    *,
    adaptation: Adaptation,
    device: str = "auto",
    quiet: bool = True,
    out: Path,
) -> None:
    """Adapt one model by one method.

    Parameters
    ----------
    item : mapping
        ``{"model": Artifact, "source <case>": ..., "target <case>": ...}``: cases prepared by the model's
        plan, those of the source with their labels.
    adaptation : Adaptation
        Its method is a single one.

    Raises
    ------
    MedsegError
        See `medseg.learning.adapt.adapt_model`.
    """
    from medseg.learning.adapt import Given, adapt_model
    from medseg.learning.model import Model
    from medseg.learning.sampling import PreparedCase

    def cases(kind: str) -> list[PreparedCase]:
        return [PreparedCase(n.removeprefix(kind), item[n].path) for n in sorted(item) if n.startswith(kind)]

    model = Model.load(item[MODEL].path, device)
    adapt_model(adaptation.method, Given(model, cases(SOURCE), cases(TARGET), adaptation, out, quiet))
