"""Which compressed DICOM pixels this installation can decode."""

from __future__ import annotations


def codecs() -> dict[str, bool]:
    """Name of each common transfer syntax -> whether a decoder for it is installed."""
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    syntaxes = {
        "RLE": uid.RLELossless,
        "JPEG": uid.JPEGBaseline8Bit,
        "JPEG lossless": uid.JPEGLosslessSV1,
        "JPEG-LS": uid.JPEGLSLossless,
        "JPEG 2000": uid.JPEG2000Lossless,
        "HTJ2K": uid.HTJ2KLossless,
    }
    return {name: bool(get_decoder(syntax).is_available) for name, syntax in syntaxes.items()}
