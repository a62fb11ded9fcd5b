"""Does it pay to begin from other weights? Ten labelled subjects of MSD hippocampus, judged on forty cases.

    python -m benchmarks.transfer [DATA] [--run DIR] [steps=500] [before=500] [seeds=3] [arms=...]

Arms, all with the same network, ten subjects, steps (but for one) and test subjects:

- ``scratch``: fresh weights.
- ``longer``: fresh weights, and as many steps as the other arms had with what they carry.
- ``restored``: weights that learnt to restore the images of fifty other subjects, without any label.
- ``whole``: weights of a model of those fifty that knows only the whole hippocampus, not its two parts.

Each seed draws another ten subjects from those that are neither among the fifty nor in the test part. What
is printed is Dice by arm, and the paired difference to ``scratch`` over cases (mean over seeds), with its
interval over subjects. Stopped and started again it goes on.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
DATA = PROJECT.parent / "shared" / "data" / "hippocampus"
LABELLED, OTHERS = 10, 50
"""Subjects with labels; subjects that what is carried is learnt from."""
PACE = 20
"""Steps an epoch."""


def main(words: list[str]) -> int:
    """Train what is not trained yet, judge, compare."""
    chosen = dict(word.split("=") for word in words if "=" in word)
    data = next(
        (w for w in words if Path(w).is_dir() and "--run" not in words[words.index(w) - 1]), str(DATA)
    )
    if not Path(data).is_dir():
        print("no data: give the folder of MSD Task04 ('medseg fetch msd-hippocampus data')")
        return 0
    with TemporaryDirectory() as folder:
        root = Path(words[words.index("--run") + 1]) if "--run" in words else Path(folder)
        return _measure(Path(data), root, chosen)


def _measure(data: Path, root: Path, chosen: Mapping[str, str]) -> int:
    import medseg as ms
    from medseg.workflows.journey import prepare_all

    steps, before, seeds = (int(chosen.get(*w)) for w in (("steps", 500), ("before", 500), ("seeds", 3)))
    arms = chosen.get("arms", "scratch,longer,restored,whole").split(",")
    run = ms.Run(root / "runs" / "transfer", quiet=True)
    cohort = ms.Cohort.from_msd(data)
    raw = ms.ingest_all(run, cohort)
    split = cohort.split(test=0.2, folds=1, seed=0)
    seen = raw.outside(split.test)
    plan = ms.make_plan(run, seen, budget_minutes=2.0, members=1)
    prepared = prepare_all(run, seen, plan)
    rows: dict[str, list[Any]] = {arm: [] for arm in arms}
    others, rest = _parted(raw, split.folds[0].train)
    weights_of = {arm: _weights(run, raw, prepared, plan, arm, others, before) for arm in arms}
    for seed in range(seeds):
        few = _few(raw, rest, seed)
        for arm in arms:
            weights, effort = weights_of[arm], steps + (before if arm == "longer" else 0)
            rows[arm].append(_judged(run, raw, split, prepared, plan, arm, few, seed, effort, weights))
            print(f"seed {seed} {arm:<9} mean Dice {_mean(rows[arm][-1]):.4f}", flush=True)
    _tell(rows, f"{steps} steps ({before} before)", len(split.test))
    return 0


def _parted(raw: Any, cases: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Cases of the fifty subjects that are learnt from before, and of the others."""
    everyone = np.random.default_rng(0).permutation(sorted({raw.source(case)["patient"] for case in cases}))
    before = set(everyone[:OTHERS])
    parts = [[c for c in cases if (raw.source(c)["patient"] in before) == side] for side in (True, False)]
    return parts[0], parts[1]


def _few(raw: Any, cases: list[str], seed: int) -> list[str]:
    """The cases of ten of these subjects."""
    patient = {case: raw.source(case)["patient"] for case in cases}
    everyone = sorted(set(patient.values()))
    chosen = set(np.random.default_rng(seed).permutation(everyone)[:LABELLED])
    return [case for case in cases if patient[case] in chosen]


def _weights(run: Any, raw: Any, prepared: Any, plan: Any, arm: str, others: list[str], steps: int) -> Any:
    """What an arm begins from."""
    if arm in ("scratch", "longer"):
        return None
    from medseg.learning.settings import Pretext, Training
    from medseg.stages.pretext import pretext

    if arm == "restored":
        images = {case: prepared[case] for case in others}
        return run.map(pretext, {"others": images}, plan=plan, settings=Pretext(steps=steps))["others"]
    training = Training(epochs=steps // PACE, steps_per_epoch=PACE)
    return _whole(run, raw, others, plan, training, "others")


def _whole(run: Any, raw: Any, cases: list[str], plan: Any, training: Any, name: str) -> Any:
    """A model of one label that is the union of the two."""
    import medseg as ms
    from medseg.data.cohort import Fold, Ingesting, Split
    from medseg.workflows.journey import ingest_all, prepare_all
    from medseg.workflows.training import train_folds
    from medseg.workflows.transferring import carried_weights

    union = ms.labels(hippocampus=1)
    cohort = raw.cohort.but(labels=union, cases=tuple(c for c in raw.cohort.cases if c.id in set(cases)))
    inside = ms.Run(run.root / "whole" / name, quiet=True)
    merged = ingest_all(inside, cohort, Ingesting(label_map={1: 1, 2: 1}))
    one = plan.but(labels=union)
    split = Split(test=(), folds=(Fold(train=tuple(sorted(merged)), valid=()),), seed=0)
    models = train_folds(inside, prepare_all(inside, merged, one), split, one, training, tracking=_off())
    inside.close()
    from medseg.learning.settings import Transfer

    holder = ms.Run(run.root / "whole" / f"{name}-weights", quiet=True)
    return carried_weights(holder, Transfer(source=str(models["fold0"][0].path)))


def _judged(
    run: Any, raw: Any, split: Any, prepared: Any, plan: Any, arm: str, few: list[str], seed: int,
    steps: int, weights: Any,
) -> Any:  # fmt: skip
    import medseg as ms
    from medseg.data.cohort import Fold, Split
    from medseg.learning.settings import Prediction, Training, Transfer
    from medseg.workflows.training import postprocess_all, predict_cases, score_all, train_folds

    here = ms.Run(run.root / arm / f"seed{seed}", quiet=True)
    ten = Split(test=split.test, folds=(Fold(train=tuple(sorted(few)), valid=()),), seed=0)
    training = Training(epochs=steps // PACE, steps_per_epoch=PACE, seed=seed)
    models = train_folds(
        here, prepared, ten, plan, training, tracking=_off(),
        weights=weights, transfer=Transfer(source="pretrained") if weights else None,
    )  # fmt: skip
    masks = predict_cases(here, raw, dict.fromkeys(split.test, models["fold0"]), Prediction())
    scores = score_all(here, raw, postprocess_all(here, raw, masks), split.test)
    here.close()
    return [row for row in scores.rows if row["metric"] == "dice"]


def _off() -> Any:
    from medseg.learning.tracking import Tracking

    return Tracking(enabled=False)


def _mean(rows: list[dict[str, Any]]) -> float:
    return float(np.mean([row["value"] for row in rows]))


def _tell(rows: dict[str, list[Any]], effort: str, cases: int) -> None:
    from medseg.evaluation.paired import paired_difference

    print(f"\nhippocampus, {LABELLED} labelled subjects, {effort}, {cases} test cases, "
          f"{len(next(iter(rows.values())))} draws of subjects; {os.cpu_count()} cores, "
          f"Python {platform.python_version()}, torch {version('torch')}")  # fmt: skip
    tables = {arm: _by_case(found) for arm, found in rows.items()}
    for arm, table in tables.items():
        print(f"{arm:<9} Dice " + ", ".join(f"{k} {np.mean(list(v.values())):.4f}" for k, v in table.items()))
    for arm, table in tables.items():
        if arm == "scratch" or "scratch" not in tables:
            continue
        for label, after in table.items():
            before = tables["scratch"][label]
            names = sorted(before)
            patients = [rows[arm][0][[r["case"] for r in rows[arm][0]].index(c)]["patient"] for c in names]
            found = paired_difference(
                np.array([before[c] for c in names]), np.array([after[c] for c in names]), patients
            )
            low, high = found.interval.limits
            print(f"{arm} - scratch, {label}: {found.mean:+.4f} [{low:+.4f}, {high:+.4f}], p {found.p:.2g}")


def _by_case(found: list[list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Label (and their mean) -> case -> Dice, the mean over the seeds."""
    labels = list(dict.fromkeys(row["label"] for row in found[0]))
    cells: dict[str, dict[str, list[float]]] = {label: {} for label in [*labels, "mean"]}
    for rows in found:
        for row in rows:
            for name in (row["label"], "mean"):
                cells[name].setdefault(row["case"], []).append(row["value"])
    return {name: {case: float(np.mean(v)) for case, v in table.items()} for name, table in cells.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
