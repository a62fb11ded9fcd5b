"""A model in the forms other programs run: MONAI bundle, ONNX, OpenVINO. One function a form."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medseg.core.errors import MedsegError
from medseg.core.files import sha256_of, write_json, written_whole
from medseg.learning.bundle import same_logits, write_bundle
from medseg.learning.model import Model
from medseg.learning.silence import silenced

Run = Callable[[Tensor], Tensor]

INPUT, OUTPUT = "image", "logits"
_NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
_DROPPED = ("metadata_props", "doc_string")


def write_onnx(model: Model, out: Path) -> dict[str, Any]:
    """Write ``model.onnx`` and ``card.json``: the network alone, any number of patches at once.

    Input ``image [batch, C, I, J, K]`` float32 of the plan's patch (prepared: axes RAS, spacing,
    intensities), output ``logits [batch, L, I, J, K]`` (classification: ``[batch, classes]``).
    Before it is kept, ONNX Runtime must give the model's logits with it. Nothing is reported to anyone.

    Returns
    -------
    dict
        ``largest_difference`` between the logits of both.

    Raises
    ------
    MedsegError
        A package is not installed (with the line that installs it), the network cannot be exported,
        or the exported one computes something else.
    """
    _need("onnx")
    quiet_onnxruntime()  # before anything else imports it
    data = _onnx_bytes(model)
    facts = {"largest_difference": _compared(model, _run_onnx(data), "the ONNX network")}
    with written_whole(out / "model.onnx") as beside:
        beside.write_bytes(data)
    _write_card(model, out, "model.onnx", facts)
    return facts


def write_openvino(model: Model, out: Path) -> dict[str, Any]:
    """Write ``model.xml``, ``model.bin`` (float32) and ``card.json``; else as `write_onnx`.

    Nothing is reported to anyone (`quiet_openvino`).
    """
    _need("openvino")
    openvino = quiet_openvino()
    network = openvino.Core().read_model(_onnx_bytes(model))
    facts = {"largest_difference": _compared(model, _run_openvino(network), "the OpenVINO network")}
    out.mkdir(parents=True, exist_ok=True)
    openvino.save_model(network, str(out / "model.xml"), compress_to_fp16=False)
    _write_card(model, out, "model.xml", facts)
    return facts


EXPORTS: Mapping[str, Callable[[Model, Path], dict[str, Any]]] = {
    "bundle": write_bundle,
    "onnx": write_onnx,
    "openvino": write_openvino,
}
"""``(model, folder) -> facts``: writes a form of the model into the folder, checked."""


def quiet_onnxruntime() -> Any:
    """The module ``onnxruntime`` without its telemetry, which is on unless the environment says otherwise."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("ORT_TELEMETRY_DISABLED", "1")  # what some versions called it
    import onnxruntime  # pyright: ignore[reportMissingImports]  # extra "export"

    onnxruntime.disable_telemetry_events()  # Windows
    return onnxruntime


def quiet_openvino() -> Any:
    """The module ``openvino`` without its telemetry.

    It tells its maker of every import unless ``openvino_telemetry`` is missing: so it is, for this process.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # pyright: ignore[reportMissingImports]  # extra "export"

    return openvino


def _need(form: str) -> None:
    lacking = [name for name in _NEEDS[form] if find_spec(name) is None]
    if lacking:
        raise MedsegError(
            f"packages that export to {form} are not installed",
            evidence=", ".join(lacking),
            mend=f"pip install {' '.join(lacking)}",
        )


def _onnx_bytes(model: Model) -> bytes:
    network = copy.deepcopy(model.network).to("cpu").eval()
    with silenced("torch.onnx"):  # the exporter talks of packages nobody asked for
        try:
            program = torch.onnx.export(
                network,
                (_patches(model, 2),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
        except Exception as error:  # the exporter has many ways to say no
            raise MedsegError(
                f"the network '{model.plan.network}' cannot be exported to ONNX",
                evidence=f"{type(error).__name__} of torch.onnx",
                mend="export a bundle, or train with another network",
            ) from error
    assert program is not None
    return _cleaned(program.model_proto).SerializeToString(deterministic=True)


def _cleaned(proto: Any) -> Any:
    """Without the exporter's notes: they hold the stack, and with it folder and user names."""
    for field, value in proto.ListFields():
        if field.name in _DROPPED:
            proto.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _cleaned(part)
    return proto


def _run_onnx(data: bytes) -> Run:
    onnxruntime = quiet_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(np.asarray(session.run([OUTPUT], {INPUT: x.numpy()})[0]))


def _run_openvino(network: Any) -> Run:
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # CPUs with bfloat16 would take that
    ready = quiet_openvino().Core().compile_model(network, "CPU", exact)
    return lambda x: torch.from_numpy(np.array(ready({INPUT: x.numpy()})[OUTPUT]))


def _compared(model: Model, run: Run, what: str) -> float:
    """Logits of one patch and of three, so that the number of patches is seen to be free."""
    network = model.network.to("cpu").eval()
    apart = []
    for count in (1, 3):
        x = _patches(model, count)
        with torch.inference_mode():
            wanted = network(x)
        apart.append(same_logits(wanted, run(x), what))
    return max(apart)


def _patches(model: Model, count: int) -> Tensor:
    shape = (count, len(model.plan.channels), *model.plan.patch)
    return torch.randn(shape, generator=torch.Generator().manual_seed(count))


def _write_card(model: Model, out: Path, name: str, facts: Mapping[str, Any]) -> None:
    """The model card with all that a program needs to feed the network and to read its answer."""
    plan = model.plan
    segments = plan.task == "segmentation"
    first = ["background"] if plan.outputs > len(plan.labels) else []
    names = [*first, *(label.name for label in plan.labels)] if segments else list(plan.classes)
    contract = {
        "file": name,
        "sha256": sha256_of(out / name),
        "input": {"name": INPUT, "shape": ["batch", len(plan.channels), *plan.patch], "dtype": "float32"},
        "output": {
            "name": OUTPUT,
            "shape": ["batch", plan.outputs, *(plan.patch if segments else ())],
            "dtype": "float32",
            "channels": names,
            "activation": "sigmoid" if plan.apart else "softmax",
            "values": [*(0 for _ in first), *(label.value for label in plan.labels)]
            if segments
            else list(range(len(names))),
        },
        "preparation": {"axes": "RAS", **plan.preparation().model_dump(mode="json")},
        "made_with": {package: metadata.version(package) for package in ("medseg", "torch")},
    }
    write_json(out / "card.json", {**model.about, "export": contract | dict(facts)})
