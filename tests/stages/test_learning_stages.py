"""fingerprint, prepare, train, predict as stages of a run: folders, keys, resume, classification."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medseg.core.files import read_json
from medseg.core.run import Run
from medseg.core.stage import Artifact, artifact_of
from medseg.data.cohort import Fold
from medseg.data.planning import make_plan
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, read_mask, write_image
from medseg.imaging.labels import labels
from medseg.learning.settings import Prediction, Training
from medseg.stages.fingerprint import fingerprint, read_fingerprint
from medseg.stages.predict import predict
from medseg.stages.prepare import prepare
from medseg.stages.train import train

SHORT = Training(epochs=2, steps_per_epoch=5, batch=2)
LABELS = labels(square=1)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _ingested(root: Path, case: int, label_class: str | None = None) -> Artifact:
    from medseg.core.files import write_json

    rng = np.random.default_rng(case)
    grid = Grid((16, 18, 8), np.diag([-1.0, 1.0, 2.0, 1.0]))
    mask = np.zeros((1, *grid.shape), np.uint8)
    mask[0, 4:11, 5:12, 2:6] = 1
    folder = root / "ingest" / f"c{case}"
    folder.mkdir(parents=True)
    bright = 100 if label_class in (None, "bright") else -100
    array = rng.normal(0, 10, mask.shape) + bright * mask.astype(float)
    write_image(Image(array.astype(np.float32), grid), folder / "image.nii.gz")
    if label_class is None:
        write_image(Image(mask, grid), folder / "reference.nii.gz")
    write_json(
        folder / "source.json",
        {"case": f"c{case}", "patient": f"p{case}", "channels": ["MR"], "label_class": label_class},
    )
    return artifact_of(folder)


def _cohort(**more):
    return SimpleNamespace(
        **(
            {"task": "segmentation", "channels": ("MR",), "labels": LABELS, "classes": (), "cases": ()} | more
        ),
        multilabel=False,
    )


def _small(plan):
    sizes = {"widths": [4] * 2, "strides": [[1] * 3, [2] * 3], "kernels": [[3] * 3] * 2}
    return plan.but(network_arguments=plan.network_arguments | sizes)


def test_from_ingested_cases_to_masks_and_nothing_twice(tmp_path):
    run, raw = Run(tmp_path, quiet=True), {f"c{n}": _ingested(tmp_path, n) for n in range(5)}
    seen = {k: raw[k] for k in ("c0", "c1", "c2", "c3")}

    def everything():
        looked = run.map(fingerprint, seen, label_values=(1,))
        plan = _small(make_plan([read_fingerprint(a) for a in looked.values()], _cohort()))
        prepared = run.map(prepare, seen, preparation=plan.preparation())
        item = {"fold": Fold(train=tuple(seen), valid=("c4",)), **prepared}
        models = run.map(train, {"fold0": item}, plan=plan, training=SHORT, device="cpu", tracking=None)
        part = models["fold0"].part("model")
        masks = run.map(predict, {"c4": (raw["c4"], part)}, prediction=Prediction(), device="cpu")
        return [looked, prepared, models, masks]

    first, second = everything(), everything()
    assert [len(r.made) for r in first] == [4, 4, 1, 1]
    assert [len(r.made) for r in second] == [0] * 4
    found, source = read_mask(first[-1]["c4"] / "mask.nii.gz"), read_mask(raw["c4"] / "reference.nii.gz")
    assert found.grid.matches(source.grid)


def test_prepared_arrays_are_mapped_and_described(tmp_path):
    raw, run = _ingested(tmp_path, 0), Run(tmp_path, quiet=True)
    looked = run.map(fingerprint, {"c0": raw}, label_values=(1,))
    plan = make_plan([read_fingerprint(looked["c0"])], _cohort())
    made = run.map(prepare, {"c0": raw}, preparation=plan.preparation())["c0"]
    image = np.load(made / "image.npy", mmap_mode="r", allow_pickle=False)
    info = read_json(made / "prepared.json")
    assert image.dtype == np.float16
    assert list(image.shape[1:]) == info["grid"]["shape"]
    assert info["voxels"][1] == 7 * 7 * 4
    assert info["patient"] == "p0"
    assert sum(1 for _ in made.path.glob("*.npy")) == 3


def test_a_change_of_the_patch_prepares_nothing_again(tmp_path):
    raw, run = {"c0": _ingested(tmp_path, 0)}, Run(tmp_path, quiet=True)
    looked = [read_fingerprint(a) for a in run.map(fingerprint, raw, label_values=(1,)).values()]
    for patch in ((16, 16, 8), (16, 16, 1)):
        plan = make_plan(looked, _cohort(), {"patch": patch})
        made = run.map(prepare, raw, preparation=plan.preparation())
    assert made.kept == ["c0"]


def test_training_refuses_a_held_out_case(tmp_path):
    raw, run = {"c0": _ingested(tmp_path, 0)}, Run(tmp_path, quiet=True)
    item = {"fold": Fold(train=(), valid=("c0",)), **raw}
    looked = run.map(fingerprint, raw, label_values=(1,))
    plan = make_plan([read_fingerprint(looked["c0"])], _cohort())
    made = run.map(train, {"fold0": item}, plan=plan, training=SHORT, device="cpu", tracking=None)
    assert "not in its training part" in made.failed["fold0"].public


def test_stages_load_no_torch_until_they_train():
    import subprocess

    code = "import sys, medseg.stages.train, medseg.stages.predict; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_classification_runs_through_the_same_stages(tmp_path):
    kinds = ["dark", "bright"] * 6
    raw = {f"c{n}": _ingested(tmp_path, n, kind) for n, kind in enumerate(kinds)}
    run = Run(tmp_path, quiet=True)
    looked = [read_fingerprint(a) for a in run.map(fingerprint, raw, label_values=()).values()]
    plan = make_plan(looked, _cohort(task="classification", labels=(), classes=("bright", "dark")))
    prepared = run.map(prepare, raw, preparation=plan.preparation())
    assert not prepared.failed
    seen = {k: prepared[k] for k in list(raw)[:10]}
    training = Training(epochs=3, steps_per_epoch=8, batch=4, rate=1e-3, monitor=0.2)
    item = {"fold": Fold(train=tuple(seen), valid=("c10", "c11")), **seen}
    made = run.map(train, {"fold0": item}, plan=plan, training=training, device="cpu", tracking=None)
    assert not made.failed, made.failed
    items = {k: (raw[k], made["fold0"].part("model")) for k in ("c10", "c11")}
    found = run.map(predict, items, prediction=Prediction(), device="cpu")
    for case, kind in (("c10", "dark"), ("c11", "bright")):
        p = read_json(found[case] / "probabilities.json")
        assert set(p) == {"bright", "dark"}
        assert abs(sum(p.values()) - 1) < 1e-5
        assert p[kind] > 0.5
