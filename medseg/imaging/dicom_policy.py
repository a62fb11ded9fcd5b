"""What a reader of DICOM may mend, take or leave: one value, part of the identity of what is read."""

from __future__ import annotations

from typing import Literal

from medseg.core.values import Value


class DicomPolicy(Value):
    """Choices at the door. The defaults never change a picture without saying so, and never guess."""

    tilt: Literal["resample", "shear", "refuse"] = "resample"
    """A tilted gantry: resample onto an orthogonal grid, keep the voxels on their sheared grid, or refuse."""
    uneven: Literal["refuse", "resample"] = "refuse"
    """Slices at uneven distances: refuse, or interpolate between them at their true positions."""
    gaps: Literal["refuse", "resample"] = "refuse"
    """Missing slices in an even stack: refuse, or interpolate over the gap."""
    burned_in: Literal["refuse", "take"] = "refuse"
    """Images that say, or by their kind may have, text burned into the picture."""
    secondary: Literal["skip", "take"] = "skip"
    """Secondary captures: pictures of pictures."""


DEFAULT = DicomPolicy()
