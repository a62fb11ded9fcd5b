"""Stage ``weights``: published weights of any form -> ``weights/<name>``, ready for our networks."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.core.stage import stage

if TYPE_CHECKING:
    from medseg.learning.weights_fetch import Source


@stage(version=1, in_process=True, essential=True)
def weights(item: Source, *, format: str, prefix: Mapping[str, str], out: Path) -> None:
    """Write ``weights.safetensors`` (tensors by our networks' names) and ``origin.json``.

    Parameters
    ----------
    item : Source
        Where they are, and the sha256 they must have.
    format : str
        A name of `medseg.learning.weights.FORMATS`, or ``auto``.
    prefix : mapping
        What names begin with there -> what they begin with in our network.

    Raises
    ------
    MedsegError
        No such file, another sha256, a pickle of more than tensors, or not of this form.
    """
    from medseg.learning.weights import load_weights, save_weights
    from medseg.learning.weights_fetch import fetch_weights

    fetched = out / ".fetched"
    place = fetch_weights(item, fetched)
    found = load_weights(place, format, prefix, "" if item.remote else item.sha256)
    save_weights(out, found)
    shutil.rmtree(fetched, ignore_errors=True)
