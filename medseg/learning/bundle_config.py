"""A plan said again in MONAI's words: network, transforms, windows, evaluator. Plain data, no MONAI.

What cannot be said exactly there (``docs/export.md`` lists it) moves labels at borders only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from medseg.core.errors import MedsegError
from medseg.data.plan import Intensity, Plan
from medseg.data.prepare import SAME_SPACING
from medseg.imaging.labels import Label, painting, values_of
from medseg.learning.segmenters import dynunet_arguments, fits, segresnet_arguments

Config = dict[str, Any]


def inference_of(plan: Plan) -> Config:
    """``inference.json``: everything from a NIfTI file to a mask, under the names MONAI expects."""
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "datalist": _datalist(plan),
        "network_def": network_of(plan),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing_of(plan)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": inferer_of(plan),
        "postprocessing": {"_target_": "Compose", "transforms": postprocessing_of(plan)},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "load": "$@network.load_state_dict(torch.load(@ckpt_path, map_location=@device, weights_only=True))",
        "initialize": ["$@load"],
        "run": ["$@evaluator.run()"],
    }


def network_of(plan: Plan) -> Config:
    """``network_def``: MONAI's class where the network is MONAI's, else a function of ours."""
    check_inert(plan.network_arguments)
    describe = _NETWORKS.get(plan.network)
    if describe is not None and (plan.network == "unet" or fits(plan, plan.network)):
        return describe(plan, **plan.network_arguments)
    nameless = plan.but(
        channels=tuple(f"channel{i}" for i in range(len(plan.channels))),
        labels=tuple(
            Label(value=x.value, name=f"label{i}", region=x.region) for i, x in enumerate(plan.labels)
        ),
        intensity={},
        fingerprint={},
        why={},
    )
    facts = nameless.model_dump(mode="json", exclude={"fingerprint", "why"})
    return {"_target_": "medseg.learning.bundle.network_from_plan", "plan": facts}


def check_inert(value: Any) -> None:
    """Refuse what MONAI's parser would run: it takes ``$`` as code, ``@ %`` and keys with ``_`` as orders.

    A plan comes from a file; nothing in it may be executed.

    Raises
    ------
    MedsegError
        A text with one of these signs, or a key that begins with an underscore.
    """
    if isinstance(value, Mapping):
        for key, part in value.items():
            check_inert(["$"] if str(key).startswith("_") else [str(key), part])
    elif isinstance(value, list | tuple):
        for part in value:
            check_inert(part)
    elif isinstance(value, str) and set(value) & set("$@%'\"\\"):
        raise MedsegError(
            "the plan holds a text that MONAI's configurations would execute",
            mend="rename the channel or the argument: no $ @ % quotes, no key that begins with _",
        )


def is_sliced(plan: Plan) -> bool:
    """True when the bundle's network is a flat one of MONAI's, which takes ``[B, C, I, J]``."""
    return plan.dimensions == 2 and network_of(plan)["_target_"].startswith("monai.")


def preprocessing_of(plan: Plan) -> list[Config]:
    """The transforms of `prepare`: intensities, axes RAS, spacing."""
    load = {
        "_target_": "LoadImaged",
        "keys": "image",
        "reader": "NibabelReader",
        "ensure_channel_first": True,
    }
    spacing = {
        "_target_": "Spacingd",
        "keys": "image",
        "pixdim": list(plan.spacing_mm),
        "min_pixdim": [s * (1 - SAME_SPACING) for s in plan.spacing_mm],
        "max_pixdim": [s * (1 + SAME_SPACING) for s in plan.spacing_mm],
        "mode": 3,
    }
    orientation = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None}
    return [load, *_intensities(plan), orientation, spacing, {"_target_": "EnsureTyped", "keys": "image"}]


def inferer_of(plan: Plan) -> Config:
    """Windows of the patch, overlapping by half, with the same Gaussian weights as ours."""
    windows = {
        "sw_batch_size": 4 if plan.dimensions == 3 else 16,
        "overlap": 0.5,
        "mode": "gaussian",
        "sigma_scale": 0.125,
        "padding_mode": "replicate",
    }
    if is_sliced(plan):
        return {"_target_": "SliceInferer", "roi_size": list(plan.patch[:2]), "spatial_dim": 2, **windows}
    return {"_target_": "SlidingWindowInferer", "roi_size": list(plan.patch), **windows}


def postprocessing_of(plan: Plan) -> list[Config]:
    """Probabilities back on the image's own grid, then the largest, then label values, then a file."""
    values = [label.value for label in plan.labels]
    index = list(range(1, len(values) + 1))
    back = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False, "to_tensor": True}
    rename = {"_target_": "MapLabelValued", "keys": "pred", "orig_labels": index, "target_labels": values}
    save = {
        "output_dir": "@output_dir",
        "output_ext": ".nii.gz",
        "output_postfix": "seg",
        "output_dtype": "uint8" if max(values_of(plan.labels), default=0) < 256 else "uint16",
        "data_root_dir": "@dataset_dir",
        "separate_folder": False,
        "resample": False,
    }
    linearly = {"_target_": "Lambdad", "keys": "image", "func": LINEAR, "overwrite": False}
    largest = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    chosen = _painted(plan) if plan.overlapping else largest
    return [
        {"_target_": "Activationsd", "keys": "pred", "sigmoid" if plan.overlapping else "softmax": True},
        linearly,
        {"_target_": "Invertd", "keys": "pred", **back},
        chosen,
        *([] if values == index or plan.overlapping else [rename]),
        {"_target_": "SaveImaged", "keys": "pred", **save},
    ]


def _painted(plan: Plan) -> Config:
    """Regions of probability 0.5 or more to the value that lies in just these (`painting`)."""
    table, powers = painting(plan.labels).tolist(), [2**n for n in range(len(plan.labels))]
    code = f"((x >= 0.5) * torch.tensor({powers}, device=x.device)[:, None, None, None]).sum(0, keepdim=True)"
    func = f"$lambda x: x[:1] * 0 + torch.tensor({table}, device=x.device)[{code}.long()]"
    return {"_target_": "Lambdad", "keys": "pred", "func": func}


# Splines on the way there, linear on the way back, as in medseg (and several times faster): MONAI
# inverts with the mode that it has noted on the image, so this changes the note.
LINEAR = (
    "$lambda x: x.applied_operations.__setitem__(slice(None), "
    "monai.transforms.utils.convert_applied_interp_mode(x.applied_operations, 'bilinear')) or x"
)


def _datalist(plan: Plan) -> str:
    """One file a case; with several channels one folder a case, or one file with a fourth axis."""
    if len(plan.channels) == 1:
        return "$sorted(glob.glob(@dataset_dir + '/*.nii*'))"
    check_inert(plan.channels)
    names = ", ".join(f"'/image_{name}.nii.gz'" for name in plan.channels)
    return f"$[[case + name for name in ({names})] for case in sorted(glob.glob(@dataset_dir + '/*'))]"


def _intensities(plan: Plan) -> list[Config]:
    """One rule for all channels, or each channel taken apart, normalised, and put back."""
    rules = [plan.intensity[name] for name in plan.channels]
    if all(rule == rules[0] for rule in rules):
        return _normalised("image", rules[0])
    keys = [f"image_{i}" for i in range(len(rules))]
    apart = {
        "_target_": "SplitDimd",
        "keys": "image",
        "output_postfixes": [str(i) for i in range(len(rules))],
    }
    together = {"_target_": "ConcatItemsd", "keys": keys, "name": "image", "dim": 0}
    each = [step for key, rule in zip(keys, rules, strict=True) for step in _normalised(key, rule)]
    return [apart, *each, together, {"_target_": "DeleteItemsd", "keys": keys}]


def _normalised(key: str, rule: Intensity) -> list[Config]:
    if rule.name not in _INTENSITIES:
        raise MedsegError(
            f"the intensity rule '{rule.name}' cannot be said in MONAI's transforms",
            evidence=f"known: {', '.join(_INTENSITIES)}",
            mend="export the network alone: --to onnx",
        )
    return [{"keys": key, **step} for step in _INTENSITIES[rule.name](**rule.settings)]


FLOOR = "$lambda x: x - x.amin(dim=tuple(range(1, x.ndim)), keepdim=True)"


def _zscore(nonzero: float = 0.0) -> list[Config]:
    own = {"_target_": "NormalizeIntensityd", "channel_wise": True, "nonzero": bool(nonzero)}
    # ours leaves out the smallest value, MONAI's leaves out zeros: move the one onto the other
    return [{"_target_": "Lambdad", "func": FLOOR}, own] if nonzero else [own]


def _percentile_zscore(low: float, high: float) -> list[Config]:
    ends = {"lower": low, "upper": high, "b_min": 0.0, "b_max": 1.0, "clip": True, "channel_wise": True}
    return [{"_target_": "ScaleIntensityRangePercentilesd", **ends}, *_zscore()]


def _window_zscore(low: float, high: float, mean: float, sd: float) -> list[Config]:
    return [_window(low, high, (low - mean) / sd, (high - mean) / sd)]


def _window_unit(low: float, high: float) -> list[Config]:
    return [_window(low, high, -1.0, 1.0)]


def _window(low: float, high: float, first: float, last: float) -> Config:
    ends = {"a_min": low, "a_max": high, "b_min": first, "b_max": last}
    return {"_target_": "ScaleIntensityRanged", **ends, "clip": True}


_INTENSITIES: Mapping[str, Callable[..., list[Config]]] = {
    "zscore": _zscore,
    "percentile_zscore": _percentile_zscore,
    "window_zscore": _window_zscore,
    "window_unit": _window_unit,
}


def _unet(plan: Plan, **arguments: Any) -> Config:
    sizes = {"dimensions": plan.dimensions, "inputs": len(plan.channels), "outputs": plan.outputs}
    return {"_target_": "medseg.learning.unet.UNet", **sizes, **arguments}


def _monai_unet(plan: Plan, **arguments: Any) -> Config:
    defaults = {"channels": [16, 32, 64, 128], "strides": [2, 2, 2], "num_res_units": 2, "norm": "batch"}
    return {"_target_": "monai.networks.nets.UNet", **_sizes(plan), **(defaults | arguments)}


def _segresnet(plan: Plan, **arguments: Any) -> Config:
    return {"_target_": "monai.networks.nets.SegResNet", **_sizes(plan), **segresnet_arguments(**arguments)}


def _dynunet(plan: Plan, **arguments: Any) -> Config:
    shape = dynunet_arguments(plan, **arguments)
    return {"_target_": "monai.networks.nets.DynUNet", **_sizes(plan), **shape}


def _sizes(plan: Plan) -> Config:
    return {"spatial_dims": plan.dimensions, "in_channels": len(plan.channels), "out_channels": plan.outputs}


_NETWORKS: Mapping[str, Callable[..., Config]] = {
    "unet": _unet,
    "monai_unet": _monai_unet,
    "segresnet": _segresnet,
    "dynunet": _dynunet,
}
