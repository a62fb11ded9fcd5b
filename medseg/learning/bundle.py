"""A model as a MONAI bundle: configurations, weights and words, checked by MONAI before they are kept."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medseg.core.errors import MedsegError
from medseg.core.files import write_json, write_text, written_whole
from medseg.core.values import validated
from medseg.data.plan import Plan
from medseg.learning.bundle_config import inference_of, is_sliced, network_of
from medseg.learning.model import Model
from medseg.learning.networks import build_network

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
VERSION = "0.1.0"
_SAME_LOGITS = 1e-3


def write_bundle(model: Model, out: Path) -> dict[str, Any]:
    """Write the folder of a MONAI bundle: ``configs/``, ``models/model.pt``, ``docs/``, ``LICENSE``.

    MONAI itself builds the network once from what was written, and it must give the model's logits.

    Returns
    -------
    dict
        ``largest_difference`` between the logits of both networks on random patches.

    Raises
    ------
    MedsegError
        A classifier (MONAI has no transform that shrinks an image until it fits), an intensity rule
        of the user's own, or a configuration that does not give the same network.
    """
    plan, about = model.plan, model.about
    if plan.task != "segmentation":
        raise MedsegError("a classifier cannot be written as a MONAI bundle", mend="export it --to onnx")
    write_json(out / "configs" / "inference.json", inference_of(plan))
    write_json(out / "configs" / "metadata.json", metadata_of(plan, about))
    _write_weights(out / "models" / "model.pt", _bare(plan, model.network.state_dict()))
    write_text(out / "docs" / "README.md", readme(plan, about))
    write_text(out / "LICENSE", _LICENSE)
    return {"largest_difference": _compared(model, out)}


def network_from_plan(plan: Mapping[str, Any]) -> nn.Module:
    """The network of a plan given as plain data: how a bundle names a network that is not MONAI's."""
    return build_network(validated(Plan, dict(plan)))


def metadata_of(plan: Plan, about: Mapping[str, Any]) -> dict[str, Any]:
    """``metadata.json``: versions, and the meaning of input and output. No path, nothing of a patient."""
    names = ", ".join(label.name for label in plan.labels)
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "changelog": {VERSION: f"exported by medseg {_version('medseg')}"},
        "monai_version": _version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": _version("numpy"),
        "required_packages_version": _packages(plan),
        "name": _plain(about.get("name", "model")),
        "task": _plain(f"segmentation of {names}"),
        "description": _plain(f"{plan.dimensions}-D {plan.network} at {_x(plan.spacing_mm)} mm, by medseg"),
        "authors": "those who trained the weights",
        "copyright": "of those who trained the weights",
        "intended_use": _plain(about.get("intended_use") or "not stated by those who trained it"),
        "weights_sha256": about["weights_sha256"],
        "plan_digest": about["plan_digest"],
        "network_data_format": _data_format(plan),
    }


def readme(plan: Plan, about: Mapping[str, Any]) -> str:
    """What the model is, how it is run, and where it differs from ``medseg predict``."""
    several = len(plan.channels) > 1
    files = [f"`{{case}}/image_{name}.nii.gz`" for name in plan.channels]
    rules = [
        f"- {name}: `{rule.name}` {', '.join(f'{k} {v:g}' for k, v in rule.settings.items())}".rstrip()
        for name, rule in plan.intensity.items()
    ]
    return _README.format(
        name=about.get("name", "model"),
        labels="\n".join(f"| {label.value} | {label.name} |" for label in plan.labels),
        spacing=_x(plan.spacing_mm),
        patch=_x(plan.patch),
        rules="\n".join(rules),
        layout=f"one folder a case with {', '.join(files)}" if several else "one NIfTI file a case",
        packages=" ".join(f"'{n}>={v}'" for n, v in _packages(plan).items()),
        weights=about["weights_sha256"],
    )


def _data_format(plan: Plan) -> dict[str, Any]:
    modality = ", ".join(plan.fingerprint.get("modality", [])) or "n/a"
    shape = list(plan.patch[:2] if is_sliced(plan) else plan.patch)
    both = {"type": "image", "dtype": "float32", "spatial_shape": shape, "is_patch_data": True}
    image = {
        "format": "hounsfield" if modality == "CT" else "magnitude",
        "modality": _plain(modality),
        "num_channels": len(plan.channels),
        "value_range": [],
        "channel_def": _numbered(plan.channels),
    }
    pred = {
        "format": "segmentation",
        "num_channels": plan.outputs,
        "value_range": [],
        "channel_def": _numbered(
            [*(["background"] if not plan.overlapping else []), *(x.name for x in plan.labels)]
        ),
    }
    return {"inputs": {"image": both | image}, "outputs": {"pred": both | pred}}


def _packages(plan: Plan) -> dict[str, str]:
    ours = network_of(plan)["_target_"].startswith("medseg.")
    fixed = {"nibabel": _version("nibabel"), "pytorch-ignite": "0.5.0"}
    return fixed | ({"medseg": _version("medseg")} if ours else {})


def _bare(plan: Plan, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Plain contiguous tensors under the names the bundle's own network gives them."""
    wrapped = network_of(plan)["_target_"].startswith("monai.")
    prefix = "network." if wrapped else ""
    return {name.removeprefix(prefix): value.detach().cpu().contiguous() for name, value in weights.items()}


def _write_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """The only pickle we write, because a bundle must hold one: tensors alone, opened by weights_only."""
    buffer = io.BytesIO()
    torch.save(dict(weights), buffer)
    with written_whole(file) as beside:
        beside.write_bytes(buffer.getvalue())


def _compared(model: Model, folder: Path) -> float:
    """Build the network as MONAI does, fill it from the file, and compare logits with the model's."""
    from monai.bundle.config_parser import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.read_meta(str(folder / "configs" / "metadata.json"))
    parser["bundle_root"], parser["device"] = str(folder), "cpu"
    parser.get_parsed_content("load")
    theirs = parser.get_parsed_content("network").eval()
    x = torch.randn(
        2, len(model.plan.channels), *model.plan.patch, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        wanted = model.network.eval()(x)
        given = theirs(x.squeeze(-1)).unsqueeze(-1) if is_sliced(model.plan) else theirs(x)
    return same_logits(wanted, given, "the network of the bundle")


def same_logits(wanted: Tensor, given: Tensor, what: str) -> float:
    """Largest difference of two sets of logits.

    Raises
    ------
    MedsegError
        Shapes differ, or a logit differs by more than 1e-3 of the largest (at least 1).
    """
    if wanted.shape != given.shape:
        raise MedsegError(
            f"{what} gives another shape", evidence=f"{tuple(given.shape)} for {tuple(wanted.shape)}"
        )
    apart = float((wanted - given).abs().max())
    if not apart <= _SAME_LOGITS * max(1.0, float(wanted.abs().max())):
        raise MedsegError(
            f"{what} does not compute what the model computes", evidence=f"logits {apart:.3g} apart"
        )
    return apart


def _numbered(names: Iterable[str]) -> dict[str, str]:
    return {str(i): _plain(name) for i, name in enumerate(names)}


def _plain(text: str) -> str:
    """Text that MONAI's parser takes as text: there ``$`` is code, ``@`` and ``%`` are references."""
    return "".join(" " if sign in "$@%" else sign for sign in str(text)).strip()


def _x(sizes: Iterable[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)


def _version(package: str) -> str:
    return metadata.version(package)


_LICENSE = """\
The weights in models/ belong to those who trained them, and the data they were trained on may bind
them further: state the licence here before this folder is passed on.

The configurations in configs/ were written by medseg (Apache License 2.0) and call MONAI (Apache
License 2.0).
"""

_README = """\
# {name}

A segmentation model trained with medseg, as a MONAI bundle.

| value | label |
|---|---|
{labels}

## Run it

    pip install 'monai>=1.6' fire {packages}
    DO_NOT_TRACK=1 python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
        --dataset_dir IMAGES --output_dir MASKS

IMAGES holds {layout}. A mask lies on its image's own grid.

## What it expects

Axes RAS, {spacing} mm, windows of {patch} voxels; intensities:

{rules}

`configs/inference.json` does all of this.

## Where it differs from `medseg predict`

Labels can differ at borders, where an image has to be resampled: MONAI's grid starts at the centre of
the first voxel, medseg's at its edge; and medseg averages when it makes voxels coarser, MONAI does not.
Windows are averaged before softmax here, after it there. Postprocessing steps of a medseg run (such as
keeping the largest part) are not in the bundle.

Weights: sha256 {weights}
"""
