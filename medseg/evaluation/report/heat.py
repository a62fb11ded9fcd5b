"""A map over a grey slice: transparent where it says nothing, orange, and yellow where it says most."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

_LOW, _HIGH = np.array([240.0, 80.0, 20.0]), np.array([255.0, 240.0, 110.0])
THICK = 0.72
"""Opacity of the strongest evidence; it falls with the value."""
FAINT = 0.1
"""Values up to this are not drawn."""


def heat_uri(values: NDArray[np.float32]) -> str:
    """Values 0..1 ``[rows, columns]`` as a PNG with transparency, as an address for an image element."""
    from PIL import Image as Pil

    part = np.clip(values, 0, 1)[..., None]
    colour = _LOW + (_HIGH - _LOW) * part
    rgba = np.concatenate([colour, 255 * THICK * part * (part > FAINT)], axis=-1)
    out = io.BytesIO()
    Pil.fromarray(np.ascontiguousarray(rgba.round().astype(np.uint8))).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
