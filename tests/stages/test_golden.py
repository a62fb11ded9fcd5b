"""Golden digests: a stage that gives another result must carry another version.

When a change of a result is meant: raise the stage's version and write the new digests with
``python -m tests.stages.test_golden``.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medseg.core.run import Run
from medseg.core.stage import Artifact, info_of
from medseg.data.cohort import Cohort, Ingesting
from medseg.data.phantom import write_phantoms
from medseg.data.plan import Intensity, Preparation
from medseg.evaluation.policy import Scoring
from medseg.imaging.image import read_image
from medseg.imaging.masks import Postprocessing, Step
from medseg.stages.fingerprint import fingerprint
from medseg.stages.ingest import ingest
from medseg.stages.postprocess import postprocess
from medseg.stages.prepare import prepare
from medseg.stages.score import score

GOLDEN = Path(__file__).with_name("golden.json")
DIGITS = 3
"""Numbers are compared to this many decimals: what a processor rounds differently does not count."""


def _content(file: Path) -> Any:
    """The content of a result file in plain, rounded numbers."""
    if file.suffix == ".json":
        return _rounded(json.loads(file.read_text()))
    array = np.load(file) if file.suffix == ".npy" else read_image(file).array
    if (array == np.rint(array)).all():
        return [list(array.shape), _sha(array.astype(np.int32).tobytes())]
    marks = [array.mean(), array.std(), *np.percentile(array, [1, 10, 50, 90, 99])]
    return [list(array.shape), [round(float(m), DIGITS) for m in marks]]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items() if k != "sha256"}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest(artifact: Artifact) -> str:
    content = {name: _content(artifact / name) for name in sorted(artifact.files)}
    return _sha(json.dumps(content, sort_keys=True).encode())


def golden(folder: Path) -> dict[str, str]:
    """``stage v<version>`` -> digest of its result on one tiny phantom."""
    write_phantoms(folder / "data", 1, seed=11, format="msd", size="tiny")
    cohort = Cohort.open(folder / "data", quiet=True)
    run, found = Run(folder / "run", quiet=True), {}

    def take(stage: Callable[..., None], item: Any, **shared: Any) -> Artifact:
        artifact = run.map(stage, {"case": item}, **shared)["case"]
        info = info_of(stage)
        found[f"{info.name} v{info.version}"] = _digest(artifact)
        return artifact

    raw = take(ingest, cohort.cases[0], channels=cohort.channels, labels=cohort.labels, settings=Ingesting())
    take(fingerprint, raw, label_values=(1, 2, 3))
    plan = Preparation(
        channels=cohort.channels,
        spacing_mm=(8.0, 8.0, 8.0),
        intensity={c: Intensity(name="zscore") for c in cohort.channels},
        label_values=(1, 2, 3),
    )
    take(prepare, raw, preparation=plan)
    (folder / "mask").mkdir()
    (folder / "mask" / "mask.nii.gz").write_bytes((raw / "reference.nii.gz").read_bytes())
    mask = Artifact(folder / "mask", {"mask.nii.gz": "0"})
    steps = Postprocessing(
        steps=(Step(step="keep_largest"), Step(step="drop_below_ml", settings={"ml": 20.0}))
    )
    cleaned = take(postprocess, mask, postprocessing=steps)
    take(score, (cleaned, raw), labels=cohort.labels, scoring=Scoring())
    run.close()
    return found


def test_every_stage_gives_what_it_gave(tmp_path: Path) -> None:
    now, then = golden(tmp_path), json.loads(GOLDEN.read_text())
    changed = [stage for stage in now if then.get(stage) != now[stage]]
    assert not changed, (
        f"another result from {', '.join(changed)}: raise its version, then write the digests anew"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        GOLDEN.write_text(json.dumps(golden(Path(name)), indent=2) + "\n")
