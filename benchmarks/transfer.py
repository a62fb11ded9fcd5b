"""Does it pay to begin from other weights? Ten labelled subjects of MSD hippocampus, judged on fifty.

    python -m benchmarks.transfer [DATA] [--run DIR] [--steps 500] [--before 500] [--draws 2]
                                  [--arms scratch,longer,restored,whole] [--rate 0.003]
                                  [--parts stem,encoder] [--choosing]

Arms, all with the same network, ten subjects, steps (but for one) and judges:

- ``scratch``: fresh weights.
- ``longer``: fresh weights, and as many steps as the other arms had with what they carry.
- ``restored``: an encoder that learnt to restore the images of fifty other subjects, without any label.
- ``whole``: weights of a model of those fifty that knows only the whole hippocampus, not its two parts.

Each draw takes another ten subjects from those that are neither among the fifty others nor judges. What is
printed is Dice by arm, and the paired difference to ``scratch`` over cases (mean over draws), with its
interval over subjects. Stopped and started again it goes on. ``--choosing`` judges on the subjects that a
draw left over, none of whom is a judge otherwise: settings are chosen there.
"""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
DATA = PROJECT.parent / "shared" / "data" / "hippocampus"
LABELLED, OTHERS, JUDGES = 10, 50, 50
"""Subjects with labels; subjects that what is carried is learnt from; subjects that judge."""
PACE = 20
"""Steps an epoch."""
SIZES = {"batch": 2, "members": 1, "network_arguments": {"widths": [8, 16, 32, 64]}}
"""The plan's, fixed so that no change of the rules changes what is compared."""


def main() -> int:
    """Train what is not trained yet, judge, compare."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("data", nargs="?", type=Path, default=DATA)
    words.add_argument("--run", type=Path, help="kept; a temporary folder by default")
    words.add_argument("--steps", type=int, default=500, help="of each training on ten subjects")
    words.add_argument("--before", type=int, default=500, help="of what is carried")
    words.add_argument("--draws", type=int, default=2)
    words.add_argument("--arms", default="scratch,longer,restored,whole")
    words.add_argument("--rate", type=float, default=3e-3, help="of the arms that carry weights")
    words.add_argument("--parts", default="stem,encoder", help="that the arm restored hands on")
    words.add_argument("--choosing", action="store_true")
    given = words.parse_args()
    if not given.data.is_dir():
        print("no data: give the folder of MSD Task04 ('medseg fetch msd-hippocampus data')")
        return 0
    with TemporaryDirectory() as folder:
        return _measure(given.run or Path(folder), given)


def _measure(root: Path, given: argparse.Namespace) -> int:
    import medseg as ms
    from medseg.workflows.journey import prepare_all

    arms = given.arms.split(",")
    run = ms.Run(root / "runs" / "transfer", quiet=True)
    raw = ms.ingest_all(run, ms.Cohort.from_msd(given.data))
    parts = _parted(raw)
    seen = raw.only([*parts["others"], *parts["pool"]])
    plan = ms.make_plan(run, seen, **SIZES)
    prepared = prepare_all(run, seen, plan)
    rows: dict[str, list[Any]] = {arm: [] for arm in arms}
    weights = {arm: _weights(run, raw, prepared, plan, arm, parts["others"], given) for arm in arms}
    for draw in range(given.draws):
        few = _few(raw, parts["pool"], draw)
        judges = sorted(set(parts["pool"]) - set(few)) if given.choosing else parts["judges"]
        for arm in arms:
            rows[arm].append(_judged(run, raw, prepared, plan, arm, few, judges, draw, weights[arm], given))
            print(f"draw {draw} {arm:<9} mean Dice {_mean(rows[arm][-1]):.4f}", flush=True)
    if not given.choosing:
        _tell(rows, f"{given.steps} steps ({given.before} before)", len(parts["judges"]))
    return 0


def _parted(raw: Any) -> dict[str, list[str]]:
    """Cases of the subjects that judge, that are learnt from before, and that the ten are drawn from."""
    patient = {case: raw.source(case)["patient"] for case in raw}
    everyone = [str(p) for p in np.random.default_rng(0).permutation(sorted(set(patient.values())))]
    ends = {"judges": (0, JUDGES), "others": (JUDGES, JUDGES + OTHERS), "pool": (JUDGES + OTHERS, None)}
    chosen = {name: set(everyone[first:last]) for name, (first, last) in ends.items()}
    return {name: sorted(c for c in raw if patient[c] in some) for name, some in chosen.items()}


def _few(raw: Any, cases: list[str], draw: int) -> list[str]:
    """The cases of ten of these subjects."""
    patient = {case: raw.source(case)["patient"] for case in cases}
    everyone = sorted(set(patient.values()))
    chosen = set(np.random.default_rng(draw).permutation(everyone)[:LABELLED])
    return [case for case in cases if patient[case] in chosen]


def _weights(run: Any, raw: Any, prepared: Any, plan: Any, arm: str, others: list[str], given: Any) -> Any:
    """What an arm begins from."""
    if arm in ("scratch", "longer"):
        return None
    from medseg.learning.settings import Pretext, Training
    from medseg.stages.pretext import pretext

    if arm == "restored":
        images = {case: prepared[case] for case in others}
        how = Pretext(steps=given.before, parts=tuple(given.parts.split(",")))
        return run.map(pretext, {"others": images}, plan=plan, settings=how)["others"]
    training = Training(epochs=given.before // PACE, steps_per_epoch=PACE, optimizer="adamw")
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
    run: Any, raw: Any, prepared: Any, plan: Any, arm: str, few: list[str], judges: list[str], draw: int,
    weights: Any, given: argparse.Namespace,
) -> Any:  # fmt: skip
    import medseg as ms
    from medseg.data.cohort import Fold, Split
    from medseg.learning.settings import Prediction, Training, Transfer
    from medseg.workflows.training import postprocess_all, predict_cases, score_all, train_folds

    here = ms.Run(run.root / arm / f"draw{draw}", quiet=True)
    ten = Split(test=(), folds=(Fold(train=tuple(sorted(few)), valid=()),), seed=0)
    steps = given.steps + (given.before if arm == "longer" else 0)
    rate = {"rate": given.rate} if weights else {}
    training = Training(epochs=steps // PACE, steps_per_epoch=PACE, seed=draw, optimizer="adamw", **rate)
    models = train_folds(
        here, prepared, ten, plan, training, tracking=_off(),
        weights=weights, transfer=Transfer(source="pretrained") if weights else None,
    )  # fmt: skip
    masks = predict_cases(here, raw, dict.fromkeys(judges, models["fold0"]), Prediction())
    scores = score_all(here, raw, postprocess_all(here, raw, masks), judges)
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
            assert found.interval.limits is not None
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
    raise SystemExit(main())
