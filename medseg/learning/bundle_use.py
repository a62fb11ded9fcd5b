"""A MONAI bundle in use: its own preprocessing, network, inferer and postprocessing on one case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.core.errors import CaseError, MedsegError
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.resample import resample_labels
from medseg.learning.bundle_read import Reader, read_config
from medseg.learning.devices import keep_memory, pick_device
from medseg.learning.silence import silenced

WEIGHTS, SCRIPT = "models/model.pt", "models/model.ts"


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle."""

    network: torch.nn.Module
    before: Any
    inferer: Any
    after: Any
    device: torch.device

    def segment(self, files: Sequence[Path], image: Image) -> Image:
        """The mask of one case on its own grid.

        Parameters
        ----------
        files : sequence of path
            The image, one file a channel in the bundle's order: what its first transform loads.
        image : Image
            The same image, for its grid.

        Raises
        ------
        CaseError
            A transform of the bundle fails on it, or what comes out is no mask.
        """
        names = [str(file) for file in files]
        try:
            with torch.inference_mode():
                data = self.before({"image": names if len(names) > 1 else names[0]})
                found = self.inferer(data["image"][None].to(self.device), self.network)[0]
                data = self.after({**data, "pred": _with_meta(found.cpu(), data["image"])})
        except MedsegError:
            raise
        except Exception as error:
            raise CaseError(
                "the bundle fails on this image", evidence=f"{type(error).__name__}: {str(error)[:200]}"
            ) from error
        return _mask(data["pred"], image)


def open_bundle(folder: Path, device: str = "auto", *, trust: bool = False) -> Bundle:
    """Open a bundle: nothing in it is run but MONAI's own classes, unless `trust`.

    Raises
    ------
    MedsegError
        A part is missing, needs code, or the weights do not fit the network.
    """
    keep_memory()
    where = pick_device(device)
    config = read_config(folder)
    make = _trusted(config, folder) if trust else Reader(config).section
    network = _network(folder, config, make, where, trust=trust)
    # MONAI's loader warns of every reader of files that is not installed, whether it is needed or not
    with silenced("monai.data.nvimgcodec_pydicom_plugin", ".*nvImageCodec.*"):
        after = make("postprocessing") if "postprocessing" in config else (lambda data: data)
        before = make("preprocessing")
    return Bundle(network.to(where).eval(), before, make("inferer"), after, where)


def _trusted(config: Mapping[str, Any], folder: Path) -> Any:
    """MONAI's parser itself, which runs what it reads."""
    import sys

    from monai.bundle.config_parser import ConfigParser

    sys.path.insert(0, str(folder))
    parser = ConfigParser(dict(config))
    return parser.get_parsed_content


def _network(
    folder: Path, config: Mapping[str, Any], make: Any, device: torch.device, *, trust: bool
) -> torch.nn.Module:
    if not (folder / WEIGHTS).is_file():
        if (folder / SCRIPT).is_file() and trust:
            return torch.jit.load(str(folder / SCRIPT), map_location=device)
        script = " TorchScript is a program: trust=true runs it." if (folder / SCRIPT).is_file() else ""
        raise MedsegError(f"the bundle has no {WEIGHTS}.{script}", file=str(folder))
    network = make("network_def" if "network_def" in config else "network")
    network.load_state_dict(_weights(folder / WEIGHTS, network))
    return network


def _weights(file: Path, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights, whatever they are wrapped in; unpickling runs no code (``weights_only``)."""
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise MedsegError(
            "the bundle's weights cannot be read without running code from them",
            file=str(file),
            evidence=type(error).__name__,
            mend="save the network's state_dict alone",
        ) from error
    for key in ("model", "state_dict", "network", "net"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    known = network.state_dict()
    plain = {name.removeprefix("module."): value for name, value in dict(found).items()}
    wrong = sorted(set(known) ^ set(plain))
    wrong += [n for n in known if n in plain and known[n].shape != plain[n].shape]
    if wrong:
        raise MedsegError("the bundle's weights do not fit its network", evidence=", ".join(wrong[:5]))
    return plain


def _with_meta(found: torch.Tensor, image: Any) -> Any:
    from monai.data.meta_tensor import MetaTensor

    plain = found.as_tensor() if isinstance(found, MetaTensor) else found
    return MetaTensor(plain.clone(), meta=dict(image.meta))


def _mask(pred: Any, image: Image) -> Image:
    """What the bundle gives as label values on the image's grid."""
    array = np.asarray(pred.cpu(), dtype=np.float64)
    if array.ndim == 3:
        array = array[None]
    values = array.argmax(0) if array.shape[0] > 1 else array[0]
    whole = np.rint(values)
    if np.abs(values - whole).max(initial=0) > 1e-3 and values.min() >= 0 and values.max() <= 1:
        whole = values > 0.5  # probabilities of a single label
    elif np.abs(values - whole).max(initial=0) > 1e-3 or whole.min() < 0 or whole.max() > 65535:
        raise CaseError(
            "what the bundle gives is no mask", evidence=f"values {values.min():g} to {values.max():g}"
        )
    affine = np.asarray(getattr(pred, "affine", image.grid.affine), dtype=np.float64)
    kind = np.uint8 if whole.max(initial=0) < 256 else np.uint16
    shape = (whole.shape[0], whole.shape[1], whole.shape[2])
    mask = Image(whole.astype(kind)[None], Grid(shape, affine))
    return mask if mask.grid.matches(image.grid) else resample_labels(mask, image.grid)
