"""Models in other forms: they compute what the model computes, and hold nothing but it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from small_patients import SPACING, small_plan

from medseg.core.errors import MedsegError
from medseg.data.plan import Intensity, Plan
from medseg.data.prepare import prepare
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, read_mask, write_image
from medseg.imaging.labels import labels
from medseg.learning import exporting
from medseg.learning.bundle import metadata_of, network_from_plan, same_logits, write_bundle
from medseg.learning.bundle_config import inference_of, network_of
from medseg.learning.exporting import EXPORTS, quiet_onnxruntime, quiet_openvino, write_onnx, write_openvino
from medseg.learning.model import Model, save_model
from medseg.learning.networks import build_network
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Training
from medseg.learning.training import train_model

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:monai.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:copyreg"),
]

CPU = torch.device("cpu")
LPS = np.diag([-1.0, -1.0, 1.0])


def made(folder: Path, plan: Plan) -> Model:
    """A model with random weights (and batch statistics that are not those of the first day)."""
    torch.manual_seed(0)
    network = build_network(plan)
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
    weights = {name: value.clone() for name, value in network.state_dict().items()}  # DynUNet shares some
    save_model(folder, plan, weights, {"name": "m", "version": "0"})
    return Model.load(folder, "cpu")


def classifier() -> Plan:
    return Plan(
        task="classification",
        channels=("MR",),
        classes=("ill", "well"),
        spacing_mm=SPACING,
        patch=(16, 16, 1),
        batch=2,
        intensity={"MR": Intensity(name="zscore")},
        network="resnet",
    )


@pytest.fixture(scope="module")
def trained(make_cases: Callable[..., list[PreparedCase]], tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A network that knows the two balls: labels are surfaces, not noise."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("trained")
    plan = small_plan()
    training = Training(epochs=4, steps_per_epoch=40, rate=1e-2, monitor=0)
    train_model(make_cases(6, plan), plan, training, out=out, device=CPU)
    return Model.load(out / "model", "cpu")


def opened(bundle: Path, data: Path, out: Path):
    from monai.bundle.config_parser import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser["bundle_root"], parser["device"] = str(bundle), "cpu"
    parser["dataset_dir"], parser["output_dir"] = str(data), str(out)
    return parser


def used(bundle: Path, file: Path, out: Path) -> Image:
    """The mask MONAI makes of a NIfTI file with the bundle's own parts (no ignite needed)."""
    parser = opened(bundle, file.parent, out)
    parser.get_parsed_content("load")
    data = parser.get_parsed_content("preprocessing")({"image": str(file)})
    network = parser.get_parsed_content("network").eval()
    with torch.inference_mode():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
    parser.get_parsed_content("postprocessing")(data)
    return read_mask(out / file.name.replace(".nii.gz", "_seg.nii.gz"))


def scene(spacing_mm: tuple[float, float, float]) -> Image:
    """Two balls at any spacing, in LPS axes away from the origin."""
    size = np.array([48.0, 60.0, 48.0])
    shape = np.round(size / spacing_mm).astype(int)
    at = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * np.array(spacing_mm)
    grey = np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)
    grey[np.linalg.norm(at - size * [0.5, 0.3, 0.5], axis=-1) < 14] += 100
    grey[np.linalg.norm(at - size * [0.5, 0.8, 0.5], axis=-1) < 9] -= 100
    affine = np.eye(4)
    affine[:3, :3] = LPS * np.array(spacing_mm)
    affine[:3, 3] = [30.0, -12.5, 100.0]
    return Image(grey[None], Grid(grey.shape, affine))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * ((a > 0) & (a == b)).sum() / ((a > 0).sum() + (b > 0).sum()))


@pytest.mark.parametrize("spacing_mm", [SPACING, (2.0, 2.0, 4.0), (1.3, 1.3, 2.5)])
def test_a_bundle_gives_the_labels_of_the_model(trained: Model, tmp_path: Path, spacing_mm) -> None:
    write_bundle(trained, tmp_path / "bundle")
    image = scene(spacing_mm)
    write_image(image, tmp_path / "image.nii.gz")
    theirs = used(tmp_path / "bundle", tmp_path / "image.nii.gz", tmp_path / "out")
    ours = trained.segment(image)
    assert theirs.grid.matches(image.grid)
    assert (ours.array == 1).sum() * np.prod(spacing_mm) == pytest.approx(4 / 3 * np.pi * 14**3, rel=0.05)
    assert dice(ours.array, theirs.array) >= (0.999 if spacing_mm == SPACING else 0.98)


def test_monai_finds_everything_it_asks_of_a_bundle(trained: Model, tmp_path: Path) -> None:
    from monai.bundle.scripts import verify_net_in_out
    from monai.bundle.workflows import ConfigWorkflow

    pytest.importorskip("ignite", reason="running a bundle takes pytorch-ignite: pip install pytorch-ignite")
    bundle, data = tmp_path / "bundle", tmp_path / "data"
    write_bundle(trained, bundle)
    image = scene(SPACING)
    write_image(image, data / "a.nii.gz")
    files = {
        "config_file": str(bundle / "configs/inference.json"),
        "meta_file": str(bundle / "configs/metadata.json"),
    }
    verify_net_in_out(net_id="network_def", device="cpu", **files)
    places = {"bundle_root": str(bundle), "dataset_dir": str(data), "output_dir": str(tmp_path / "out")}
    workflow = ConfigWorkflow(workflow_type="infer", logging_file=False, device="cpu", **files, **places)
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
    mask = read_mask(tmp_path / "out" / "a_seg.nii.gz")
    assert dice(trained.segment(image).array, mask.array) > 0.999


def test_the_metadata_hold_what_the_specification_asks_for(tmp_path: Path) -> None:
    model = made(tmp_path / "model", small_plan(fingerprint={"modality": ["MR"]}))
    found = metadata_of(model.plan, model.about)
    words = "schema version changelog monai_version pytorch_version numpy_version required_packages_version"
    assert {*words.split(), "task", "description", "authors", "copyright", "network_data_format"} <= set(
        found
    )
    for tensor in (
        *found["network_data_format"]["inputs"].values(),
        *found["network_data_format"]["outputs"].values(),
    ):
        words = "type format num_channels spatial_shape dtype value_range is_patch_data channel_def"
        assert set(words.split()) <= set(tensor)
    assert found["network_data_format"]["outputs"]["pred"]["channel_def"]["2"] == "small"


def test_the_weights_are_plain_tensors(tmp_path: Path) -> None:
    model = made(tmp_path / "model", small_plan())
    write_bundle(model, tmp_path / "bundle")
    weights = torch.load(tmp_path / "bundle" / "models" / "model.pt", weights_only=True)
    wanted = model.network.state_dict()
    assert set(weights) == set(wanted) and all(torch.equal(weights[n], wanted[n]) for n in wanted)


OURS, THEIRS = "medseg.learning.unet.UNet", "monai.networks.nets"
INSTANCE = small_plan().network_arguments | {"norm": "instance"}
FLAT = {"patch": (16, 16, 1)}


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({"network_arguments": INSTANCE}, OURS),
        ({**FLAT, "network_arguments": small_plan((16, 16, 1)).network_arguments}, OURS),
        (
            {"network": "monai_unet", "network_arguments": {"channels": [4, 8], "strides": [2]}},
            f"{THEIRS}.UNet",
        ),
        ({**FLAT, "network": "monai_unet", "network_arguments": {}}, f"{THEIRS}.UNet"),
        ({"network": "segresnet", "network_arguments": {"init_filters": 8}}, f"{THEIRS}.SegResNet"),
        ({"network": "dynunet", "network_arguments": {"filters": [4, 8, 16]}}, f"{THEIRS}.DynUNet"),
        (
            {"network": "medseg.learning.networks:segresnet", "network_arguments": {"init_filters": 8}},
            "medseg.learning.bundle.network_from_plan",
        ),
    ],
)
def test_every_network_is_built_by_its_own_name(tmp_path: Path, changes, target) -> None:
    model = made(tmp_path / "model", small_plan().but(**changes))
    assert network_of(model.plan)["_target_"] == target
    assert write_bundle(model, tmp_path / "bundle")["largest_difference"] < 1e-4


@pytest.mark.parametrize(
    "rules",
    [
        [Intensity(name="zscore")],
        [Intensity(name="zscore", settings={"nonzero": 1.0})],
        [Intensity(name="window_zscore", settings={"low": -50, "high": 150, "mean": 40, "sd": 20})],
        [Intensity(name="window_unit", settings={"low": -100, "high": 100})],
        [Intensity(name="percentile_zscore", settings={"low": 2, "high": 95})],
        [
            Intensity(name="zscore", settings={"nonzero": 1.0}),
            Intensity(name="zscore", settings={"nonzero": 1.0}),
        ],
        [Intensity(name="zscore"), Intensity(name="window_unit", settings={"low": -100, "high": 100})],
    ],
)
def test_monais_transforms_prepare_what_prepare_prepares(tmp_path: Path, rules: list[Intensity]) -> None:
    from monai.bundle.config_parser import ConfigParser

    names = tuple(f"c{i}" for i in range(len(rules)))
    plan = small_plan(channels=names, intensity=dict(zip(names, rules, strict=True)))
    image = scene(SPACING)
    cut = np.where(np.abs(image.array) < 4, image.array.min(), image.array)  # much of it is background
    image = image.but(np.concatenate([cut + 7 * i for i in range(len(rules))]))
    write_image(image, tmp_path / "image.nii.gz")
    parser = ConfigParser(inference_of(plan))
    theirs = parser.get_parsed_content("preprocessing")({"image": str(tmp_path / "image.nii.gz")})["image"]
    ours = prepare(image, plan.preparation())
    np.testing.assert_allclose(theirs.numpy(), ours.array, atol=1e-4)
    np.testing.assert_allclose(theirs.affine.numpy(), ours.grid.affine, atol=1e-3)


def test_several_channels_are_read_from_a_folder_a_case(tmp_path: Path) -> None:
    from monai.bundle.config_parser import ConfigParser

    rules = {"T1": Intensity(name="zscore"), "T2": Intensity(name="zscore")}
    config = inference_of(small_plan(channels=("T1", "T2"), intensity=rules))
    for case in ("b", "a"):
        for number, name in enumerate(rules):
            image = scene(SPACING)
            write_image(image.but(image.array[0] * (1 + number)), tmp_path / case / f"image_{name}.nii.gz")
    parser = ConfigParser({**config, "dataset_dir": str(tmp_path)})
    first, second = parser.get_parsed_content("datalist")
    assert [Path(f).parent.name for f in (first[0], second[1])] == ["a", "b"]
    assert parser.get_parsed_content("preprocessing")({"image": first})["image"].shape[0] == 2


def test_label_values_with_gaps_come_out_as_they_are(tmp_path: Path) -> None:
    model = made(tmp_path / "model", small_plan(labels=labels(large=3, small=300)))
    write_bundle(model, tmp_path / "bundle")
    write_image(scene(SPACING), tmp_path / "image.nii.gz")
    mask = used(tmp_path / "bundle", tmp_path / "image.nii.gz", tmp_path / "out")
    assert set(map(int, np.unique(mask.array))) <= {0, 3, 300} and mask.array.dtype == np.uint16


def test_what_a_bundle_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="a classifier cannot be written as a MONAI bundle"):
        write_bundle(made(tmp_path / "a", classifier()), tmp_path / "out")
    own = Intensity(name="medseg.data.prepare:zscore")
    with pytest.raises(MedsegError, match="cannot be said in MONAI's transforms"):
        write_bundle(made(tmp_path / "b", small_plan(intensity={"MR": own})), tmp_path / "out")


@pytest.mark.parametrize(
    "arguments", [{"norm": "$print(1)"}, {"norm": {"_target_": "os.getcwd"}}, {"norm": ["@bundle_root"]}]
)
def test_nothing_in_a_plan_is_executed_by_monai(arguments) -> None:
    plan = small_plan()
    with pytest.raises(MedsegError, match="would execute"):
        network_of(plan.but(network_arguments=plan.network_arguments | arguments))


def test_names_reach_monai_as_text() -> None:
    plan = small_plan(labels=labels(**{"$import os": 1, "@device": 2}))
    found = metadata_of(plan, {"name": "%x", "weights_sha256": "0", "plan_digest": "0"})
    assert not re.search(r"[$@%]", json.dumps(found))
    dotted = plan.but(network="medseg.learning.networks:unet")
    given = network_of(dotted)
    assert not re.search(r"[$@%]", json.dumps(given))
    like, own = network_from_plan(given["plan"]).state_dict(), build_network(plan).state_dict()
    assert {n: v.shape for n, v in like.items()} == {n: v.shape for n, v in own.items()}


def test_other_logits_are_refused() -> None:
    one = torch.zeros(2, 3)
    assert same_logits(one, one + 1e-4, "it") == pytest.approx(1e-4)
    for other in (one + 1e-2, one + float("nan"), torch.zeros(2, 4)):
        with pytest.raises(MedsegError, match="it "):
            same_logits(one, other, "it")


def skip_without(*packages: str) -> None:
    """Skip where the extra is not installed (never by importing: some report that home)."""
    lacking = [package for package in packages if find_spec(package) is None]
    if lacking:
        pytest.skip(f"the extra 'export' is not installed: pip install {' '.join(lacking)}")


ONNX_PLANS = [
    small_plan(network_arguments=small_plan().network_arguments | {"norm": "instance", "supervised": 1}),
    small_plan((16, 16, 1)),
    classifier(),
]


@pytest.mark.parametrize("plan", ONNX_PLANS, ids=["3-D", "2-D", "classes"])
def test_onnx_gives_the_logits_of_torch(tmp_path: Path, plan: Plan) -> None:
    skip_without("onnx", "onnxscript", "onnxruntime")
    onnxruntime = quiet_onnxruntime()
    model = made(tmp_path / "model", plan)
    write_onnx(model, tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text())["export"]
    session = onnxruntime.InferenceSession(tmp_path / "out" / card["file"])
    x = torch.randn(4, *card["input"]["shape"][1:])
    (given,) = session.run([card["output"]["name"]], {card["input"]["name"]: x.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(given, model.network(x).numpy(), atol=1e-3)
    assert list(given.shape[1:]) == card["output"]["shape"][1:]
    assert len(card["output"]["channels"]) == len(card["output"]["values"]) == plan.outputs
    traces = rb"site-packages|\.py|" + re.escape(str(Path.home()).encode())
    assert not re.search(traces, (tmp_path / "out" / "model.onnx").read_bytes())


def test_openvino_gives_the_logits_of_torch(tmp_path: Path) -> None:
    skip_without("onnx", "onnxscript", "openvino")
    openvino = quiet_openvino()
    model = made(tmp_path / "model", small_plan())
    write_openvino(model, tmp_path / "out")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    ready = openvino.Core().compile_model(tmp_path / "out" / "model.xml", "CPU", exact)
    x = torch.randn(3, 1, *model.plan.patch)
    with torch.inference_mode():
        np.testing.assert_allclose(ready({"image": x.numpy()})["logits"], model.network(x).numpy(), atol=1e-3)
    assert str(tmp_path) not in (tmp_path / "out" / "model.xml").read_text()


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_missing_package_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch, form: str) -> None:
    model = made(tmp_path / "model", small_plan())
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(MedsegError, match="pip install onnx onnxscript") as seen:
        EXPORTS[form](model, tmp_path / "out")
    assert seen.value.exit_code == 2 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_an_export_leaves_nothing_in_the_home_folder(tmp_path: Path, form: str) -> None:
    """In a process of its own: the runtimes number their users when they are first loaded."""
    skip_without(*exporting._NEEDS[form])
    made(tmp_path / "model", small_plan())
    home = tmp_path / "home"
    home.mkdir()
    words = ["export", str(tmp_path / "model"), str(tmp_path / "out"), "--to", form]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "CI", "XDG_"))}
    subprocess.run([sys.executable, "-m", "medseg.cli", *words], check=True, env=clean | {"HOME": str(home)})
    assert not list(home.rglob("*"))
