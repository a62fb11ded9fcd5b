"""One encoder for mask and class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_patients import balls, ingested, small_plan

from medseg.core.errors import MedsegError
from medseg.core.stage import artifact_of
from medseg.data.plan import Plan
from medseg.learning.joint import Logits, classify_segmented, terms_of
from medseg.learning.model import Model
from medseg.learning.networks import build_network
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Augmenting, Training
from medseg.learning.training import train_model
from medseg.stages.prepare import prepare

QUIET = Augmenting(rotation_deg=0, scale=0, shift=0)


def joint_plan(patch=(16, 24, 8), **changes) -> Plan:
    return small_plan(patch, network="joint_unet", classes=("dark", "light"), **changes)


def light_and_dark(seed: int):
    """The small patient; every second one is seen through fog."""
    image, mask = balls(seed)
    fog = np.where(mask.array[0] == 1, -60.0, 0.0) if seed % 2 else 0.0
    return image.but((image.array + fog).astype(np.float32)), mask


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> list[PreparedCase]:
    root, made, plan = tmp_path_factory.mktemp("joint"), [], joint_plan()
    for i in range(8):
        name = "dark" if i % 2 else "light"
        raw = ingested(root / "ingest" / f"c{i}", i, f"c{i}", f"p{i}", *light_and_dark(i), label_class=name)
        out = root / "prepare" / f"c{i}"
        out.mkdir(parents=True)
        prepare(artifact_of(raw), preparation=plan.preparation(), out=out)
        made.append(PreparedCase(f"c{i}", out))
    return made


@pytest.mark.parametrize("patch", [(16, 16, 8), (16, 16, 1)], ids=["3d", "2d"])
def test_masks_and_classes_come_from_one_network(patch):
    network = build_network(joint_plan(patch))
    x = torch.zeros(2, 1, *patch)
    said = network.train()(x)
    assert isinstance(said, Logits)
    assert [tuple(y.shape) for y in said] == [(2, 3, *patch)]
    assert said.classes.shape == (2, 2)
    assert network.eval()(x).shape == (2, 3, *patch)
    assert network.class_logits(x).shape == (2, 2)


def test_weights_of_the_plain_network_fit_but_for_the_class_head():
    plain = build_network(small_plan()).state_dict()
    joint = build_network(joint_plan()).state_dict()
    assert {k for k in joint if k not in plain} == {"class_head.weight", "class_head.bias"}
    assert set(plain) <= set(joint)


def test_a_plan_without_classes_is_refused():
    with pytest.raises(MedsegError, match="with a class"):
        build_network(small_plan(network="joint_unet"))
    assert terms_of(small_plan()) == []


def test_a_joint_training_learns_the_mask_and_the_class(cases, tmp_path):
    training = Training(epochs=12, steps_per_epoch=10, monitor=0, average=0.9, rate=5e-3, batch=4)
    training = training.but(augment=QUIET)
    folder = train_model(cases, joint_plan(), training, out=tmp_path, device=torch.device("cpu"), quiet=True)
    model = Model.load(folder, "cpu")
    assert model.about["classes"] == ["dark", "light"]
    right = []
    for seed in range(20, 28):
        image, mask = light_and_dark(seed)
        found = model.segment(image).array[0]
        both = ((found == 1) & (mask.array[0] == 1)).sum()
        assert 2 * both / ((found == 1).sum() + (mask.array[0] == 1).sum()) > 0.7
        said = model.classify(image)
        assert sum(said.values()) == pytest.approx(1)
        right.append((said["dark"] > 0.5) == bool(seed % 2))
    assert np.mean(right) >= 0.85


def test_a_mask_alone_tells_no_class():
    network = build_network(small_plan())
    model = Model(small_plan(), network, {}, torch.device("cpu"))
    with pytest.raises(MedsegError, match="no classes"):
        model.classify(balls(0)[0])


def test_the_patch_about_the_mask_is_classified():
    plan = joint_plan((16, 16, 8))
    network = build_network(plan)
    seen = []
    network.class_logits = lambda x: (seen.append(x), torch.zeros(1, 2))[1]
    array = np.zeros((1, 40, 40, 20), np.float32)
    array[0, 30, 8, 10] = 1
    mask = array[0] > 0
    assert classify_segmented(network, plan, array, mask, torch.device("cpu")).tolist() == [0.5, 0.5]
    assert seen[0].shape == (1, 1, 16, 16, 8)
    assert float(seen[0].sum()) == 1
