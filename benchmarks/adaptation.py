"""Adaptation to a second site without its labels: target Dice with and without, on two pairs of sites.

    python -m benchmarks.adaptation [phantoms|hippocampus] [--epochs 12] [--more 4] [--methods a,b+c]
                                    [--folder DIR]

``phantoms``: one scanner, and a second one that bends the same grey values (monotone) and shades them (a slow
field); other patients. ``hippocampus``: the set of ../shared/data holds images on scales that differ by
orders of magnitude; a model trained on one of them with a fixed window meets another one (both at 2 mm, to
be quick). Every model is judged on target patients none of whom gave an image to the adaptation. Differences
are those to the source model, by case, with 95 % intervals over patients. Each training is one of half a
minute on one core: the differences count here, not the heights.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.data.cohort import Cohort
from medseg.data.plan import Plan
from medseg.evaluation.paired import paired_difference
from medseg.evaluation.scoring import Scores
from medseg.imaging.image import Image, read_image, write_image
from medseg.learning.settings import Adaptation, Prediction, Training
from medseg.workflows import ingest_all, make_plan, postprocess_all, predict_cases, prepare_all, score_all
from medseg.workflows.adapting import adapt_models
from medseg.workflows.journey import Ingested
from medseg.workflows.training import train_folds

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
METHODS = (
    "histogram,adabn,fourier,adversarial_features,adversarial_output,self_training,"
    "histogram+self_training,adabn+self_training"
)
SMALL = {"batch": 4, "network_arguments": {"widths": [8, 16, 32, 64]}}
COARSE = {"batch": 4, "spacing_mm": (2.0, 2.0, 2.0), "network_arguments": {"widths": [12, 24, 48]}}
STEPS = 20
"""Of an epoch."""


def main() -> int:
    """Train at one site, adapt to the other, print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("sites", nargs="?", choices=sorted(SITES), default="phantoms")
    words.add_argument("--epochs", type=int, default=12, help="of the source model's training")
    words.add_argument("--more", type=int, default=4, help="of each adaptation that trains")
    words.add_argument("--methods", default=METHODS)
    words.add_argument("--folder", type=Path, help="kept; a temporary one by default")
    given = words.parse_args()
    if given.sites == "hippocampus" and not (SHARED / "hippocampus").is_dir():
        print("no data: ../shared/data/hippocampus is not beside this checkout")
        return 0
    folder = given.folder or Path(tempfile.mkdtemp())
    try:
        _measure(folder, given)
    finally:
        if not given.folder:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _measure(folder: Path, given: argparse.Namespace) -> None:
    source, target, choices = SITES[given.sites](folder / "sites")
    run = Run(folder / "source", quiet=True)
    model = _source_model(run, source, choices, given.epochs)
    ids = sorted(case.id for case in target.cases)
    patients = {case.id: case.patient for case in target.cases}
    names = sorted(set(patients.values()))
    seen = {p for n, p in enumerate(names) if n % 2 == 0}
    unlabelled = target.subset([i for i in ids if patients[i] in seen])
    judged = target.subset([i for i in ids if patients[i] not in seen])
    raw, there = ingest_all(Run(folder / "judged", quiet=True), judged), Run(folder / "adapted", quiet=True)
    print(f"{given.sites}: {len(source)} source cases, {len(unlabelled)} target cases without labels, "
          f"{len(judged)} target cases judged")  # fmt: skip
    before = _dice(folder / "judge-none", raw, model)
    at_home = _at_home(folder, run, source, model)
    print(f"  {'source model, at home':<26} {at_home:.3f}   (its own held-out cases)")
    print(f"  {'source model, as it is':<26} {np.mean(list(before.values())):.3f}")
    for method in given.methods.split(","):
        training = Training(epochs=given.more, steps_per_epoch=STEPS, rate=1e-3, monitor=0.0)
        settings = Adaptation(method=method, training=training)
        start = time.perf_counter()
        try:
            done = adapt_models({method: model}, unlabelled, there, settings)
        except Exception as error:
            print(f"  {method:<26} {str(error).splitlines()[0]}")
            continue
        seconds = time.perf_counter() - start
        if method == given.methods.split(",")[0]:
            print(_indented(done.text))
        after = _dice(folder / f"judge-{method}", raw, done.models[method])
        _tell(method, before, after, patients, seconds)


def _source_model(run: Run, source: Cohort, choices: dict, epochs: int) -> Artifact:
    raw = ingest_all(run, source)
    split = source.split(test=0.2, folds=1, seed=0)
    known = raw.outside(split.test)
    plan: Plan = make_plan(run, known, budget_minutes=2.0, device="cpu", **choices)
    prepared = prepare_all(run, known, plan.but(members=1))
    models = train_folds(
        run,
        prepared,
        split,
        plan.but(members=1),
        Training(epochs=epochs, steps_per_epoch=STEPS),
        device="cpu",
    )
    return models["fold0"][0]


def _at_home(folder: Path, run: Run, source: Cohort, model: Artifact) -> float:
    held = source.split(test=0.2, folds=1, seed=0).test
    raw = ingest_all(run, source).only(held)
    return float(np.mean(list(_dice(folder / "judge-home", raw, model).values())))


def _dice(folder: Path, raw: Ingested, model: Artifact) -> dict[str, float]:
    """Mean Dice over labels of each case."""
    run = Run(folder, quiet=True)
    found = predict_cases(run, raw, dict.fromkeys(raw, (model,)), Prediction(), "cpu")
    scores: Scores = score_all(run, raw, postprocess_all(run, raw, found), list(raw))
    rows = [r for r in scores.rows if r["metric"] == "dice" and r["value"] is not None]
    return {case: float(np.mean([r["value"] for r in rows if r["case"] == case])) for case in raw}


def _tell(method: str, before: dict, after: dict, patients: dict, seconds: float) -> None:
    cases = [case for case in before if case in after]
    a, b = (np.array([side[c] for c in cases]) for side in (before, after))
    found = paired_difference(a, b, [patients[c] for c in cases])
    assert found.interval.limits is not None
    low, high = found.interval.limits
    print(
        f"  {method:<26} {b.mean():.3f}   {found.mean:+.3f} [{low:+.3f}, {high:+.3f}]   "
        f"better in {found.wins} of {len(cases)}   {seconds:.0f} s",
        flush=True,
    )


def _phantoms(folder: Path) -> tuple[Cohort, Cohort, dict]:
    """Two scanners: the second bends the grey values and shades them."""
    from medseg.data.phantom import write_phantoms

    for name, seed, count in (("source", 11, 40), ("target", 12, 40)):
        if not (folder / name).is_dir():
            write_phantoms(folder / name, count, seed=seed, format="msd", size="tiny")
            if name == "target":
                for file in sorted((folder / name / "imagesTr").glob("*.nii.gz")):
                    write_image(_other_law(read_image(file)), file)
    return Cohort.open(folder / "source", quiet=True), Cohort.open(folder / "target", quiet=True), SMALL


def _other_law(image: Image) -> Image:
    """``v -> 75 + 0.6 v + 15 tanh((v - 60) / 40)``, shaded by up to 10 along one axis; noise as it is."""
    shape = image.grid.shape
    field = 10 * np.sin(np.linspace(-1.5, 1.5, shape[0]))[:, None, None]
    bent = 75 + 0.6 * image.array + 15 * np.tanh((image.array - 60) / 40) + field
    return image.but(bent.astype(np.float32))


def _hippocampus(folder: Path) -> tuple[Cohort, Cohort, dict]:
    """Cases of float images up to a few thousand, and those of 0..255; a window fixed to the first."""
    root = SHARED / "hippocampus"
    rows = list(csv.DictReader((root / "cases.csv").read_text().splitlines()))
    whole = Cohort.open(root, quiet=True)
    regime = {f"hippocampus_{int(r['id']):03d}": r for r in rows}
    cases = [
        case.but(patient=f"s{int(regime[case.id]['subject_guess']):03d}")
        for case in whole.cases
        if case.id in regime
    ]
    whole = whole.but(cases=tuple(cases))
    byte = [c.id for c in cases if regime[c.id]["image_dtype"] == "uint8"]
    usual = [c.id for c in cases if c.id not in byte and float(regime[c.id]["imax"]) < 2e4]
    window = {"name": "window_unit", "settings": {"low": 0.0, "high": 1500.0}}
    channel = whole.channels[0]
    return (
        whole.subset(usual[:80]),
        whole.subset(byte),
        COARSE | {"intensity": {channel: window}},
    )


SITES = {"phantoms": _phantoms, "hippocampus": _hippocampus}


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


if __name__ == "__main__":
    raise SystemExit(main())
