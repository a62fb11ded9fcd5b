"""Learning without labels: what is hidden, what is learnt, and what is carried."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_patients import small_plan

from medseg.core.errors import MedsegError
from medseg.learning.networks import build_network
from medseg.learning.pretext import pretrain, restoring, spoiled
from medseg.learning.sampling import PreparedCase
from medseg.learning.settings import Pretext, Transfer
from medseg.learning.transfer import fit
from medseg.learning.weights import load_weights

CPU = torch.device("cpu")


def _unlabelled(cases, tmp_path) -> list[PreparedCase]:
    out = []
    for case in cases[:4]:
        folder = tmp_path / "unlabelled" / case.id
        folder.mkdir(parents=True)
        for name in ("image.npy", "prepared.json"):
            (folder / name).write_bytes((case.folder / name).read_bytes())
        out.append(PreparedCase(case.id, folder))
    return out


@pytest.mark.parametrize("parts", [("stem", "encoder"), ("stem", "encoder", "decoder")])
def test_the_parts_asked_for_are_carried_into_the_network_that_segments(cases, tmp_path, parts):
    plan, how = small_plan(), Pretext(steps=3, parts=parts)
    pretrain(_unlabelled(cases, tmp_path), plan, how, out=tmp_path / "w", device=CPU, quiet=True)
    found = load_weights(tmp_path / "w")
    assert found.format == "pretext"
    assert len(found.sha256) == 64
    done = fit(build_network(plan), plan, found, Transfer())
    assert {p for p, t in done.account.parts.items() if t.share == 1} == set(parts)
    assert done.account.share == 1
    assert done.account.parts["head"].share == 0


def test_it_learns_to_restore_and_the_same_seed_gives_the_same_bytes(cases, tmp_path):
    losses = []
    for name, steps in (("a", 3), ("b", 3), ("c", 150)):
        pretrain(
            cases, small_plan(), Pretext(steps=steps, rate=1e-2), out=tmp_path / name, device=CPU, quiet=True
        )
        losses.append(float(load_weights(tmp_path / name).facts["notes"][0].rpartition(" ")[2]))
    assert losses[2] < 0.88 * losses[0], "what is not noise is restored"
    same = [(tmp_path / name / "weights.safetensors").read_bytes() for name in "ab"]
    assert same[0] == same[1]


@pytest.mark.parametrize("shape", [(2, 1, 16, 16, 8), (3, 2, 17, 20, 1)])
def test_about_the_asked_share_is_hidden_in_blocks_and_the_rest_is_noisy(shape):
    image = torch.full(shape, 100.0)
    given, hidden = spoiled(image, Pretext(hidden=0.5, block=4, noise=0.3), np.random.default_rng(0))
    assert given.shape == image.shape
    assert 0.3 < hidden.float().mean() < 0.7
    where = hidden.expand_as(image)
    assert given[where].abs().max() < 10, "nothing of the image is left where it is hidden"
    assert (given[~where] - 100).std() == pytest.approx(0.3, rel=0.15)
    assert (hidden[:, :, :4, :4, :1] == hidden[:, :, :1, :1, :1]).all()


def test_each_channel_is_restored():
    plan = small_plan().but(channels=("T1", "T2"), intensity={n: {"name": "zscore"} for n in ("T1", "T2")})
    assert restoring(plan).outputs == 2


def test_a_classifier_has_no_image_to_give(cases, tmp_path):
    plan = small_plan().but(task="classification", classes=("a", "b"), labels=())
    with pytest.raises(MedsegError, match="plan of segmentation"):
        pretrain(cases, plan, Pretext(steps=1), out=tmp_path, device=CPU)


def test_the_second_network_of_a_cascade_has_no_pretext(cases, tmp_path):
    from medseg.data.plan import Cascade

    plan = small_plan()
    plan = plan.but(cascade=Cascade(spacing_mm=plan.spacing_mm, patch=plan.patch))
    with pytest.raises(MedsegError, match=r"second network of a cascade(.|\n)*plan\.cascade=null"):
        pretrain(cases, plan, Pretext(steps=1), out=tmp_path, device=CPU)
