"""What each word of the command line does: arguments -> one journey -> text, summary and exit code."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.run import Run
from medseg.core.words import names_nobody
from medseg.data.cohort import Cohort
from medseg.imaging.labels import parse_labels
from medseg.workflows.outcome import Outcome, named_failures


def open_run(args: Namespace, name: str) -> Run:
    """The run folder of ``--run`` (default ``runs/<name>``) with the workers asked for."""
    return Run(args.run or Path("runs") / name, workers=_workers(args), quiet=args.quiet)


def _workers(args: Namespace) -> int | str:
    """``--workers``: a number of processes, or ``dask:ADDRESS``."""
    if args.workers.startswith("dask:"):
        return args.workers
    if not args.workers.isdecimal() or int(args.workers) < 1:
        raise MedsegError(
            f"--workers {args.workers} is no number of processes",
            mend="give a number from 1 on, dask:ADDRESS or dask:SCHEDULER_FILE",
        )
    return int(args.workers)


def _processes(args: Namespace) -> int:
    """``--workers`` of a verb that spreads over this machine's processes alone."""
    workers = _workers(args)
    if isinstance(workers, str):
        raise MedsegError("this verb works on this machine alone", mend="give a number to --workers")
    return workers


def _options(args: Namespace) -> dict[str, Any]:
    return {"labels": parse_labels(args.labels)} if getattr(args, "labels", None) else {}


def _cohort(args: Namespace, src: str, **options: Any) -> Cohort:
    given = _options(args) | options
    return Cohort.open(src, format=args.cohort_format, quiet=args.quiet, **given)


def demo(args: Namespace) -> Outcome:
    """Phantoms all the way."""
    from medseg.workflows.demo import demo as journey

    return journey(open_run(args, "demo"), device=args.device)


def ingest(args: Namespace) -> Outcome:
    """Images of any layout -> ``ingest/<case>`` and the table."""
    from medseg.data.review import reviewed
    from medseg.workflows.journey import ingest_all
    from medseg.workflows.opening import ingest_settings
    from medseg.workflows.previewing import preview

    settings = ingest_settings(args.overrides, args.select)
    options = _options(args) | settings.options()
    if args.dry_run:
        show = args.show_text or (sys.stdout.isatty() and not args.json)
        return preview(args.src, args.cohort_format, options, show_text=show, quiet=args.quiet)
    run = open_run(args, _name(args.src))
    cohort = reviewed(_cohort(args, args.src, need_reference=False, **options), settings.marks)
    raw = ingest_all(run, cohort, settings.ingest)
    refused = [r for r in cohort.refused if r.status == "refused"]
    counts = {
        "taken": len(raw),
        "refused": len(refused) + len(run.failures),
        "skipped": len(cohort.refused) - len(refused),
    }
    said = ", ".join(f"{n} {state}" for state, n in counts.items())
    text = f"ingest: {said}; the reason of each in {run.root / 'ingest.csv'}"
    bad = counts["refused"]
    return Outcome(counts, text + named_failures(run), 3 if bad else 0)


def audit(args: Namespace) -> Outcome:
    """What is wrong in a cohort."""
    from medseg.workflows.looking import audit as journey

    return journey(args.folder, lambda: _cohort(args, args.folder), open_run(args, _name(args.folder)))


def plan(args: Namespace) -> Outcome:
    """Cohort -> plan.yaml."""
    from medseg.workflows.looking import plan as journey
    from medseg.workflows.opening import ingest_settings, words_of_cohort

    asked, overrides = words_of_cohort(args.overrides)
    options = ingest_settings(asked).options() if asked else {}
    if options and (Path(args.folder) / "cohort.json").is_file():
        raise MedsegError(
            f"'{asked[0]}' comes too late: the cases of this folder were taken in already",
            mend="say it to medseg ingest, or give the data set and another --run",
        )
    run = open_run(args, _name(args.folder))
    opened = partial(_cohort, args, args.folder, **options)
    return journey(args.folder, opened, run, overrides, args.device, args.preview)


def train(args: Namespace) -> Outcome:
    """A recipe -> models and scores."""
    from medseg.core.config import load_config
    from medseg.workflows.settings import TrainSettings
    from medseg.workflows.training import train as journey

    settings = load_config(TrainSettings, args.config, args.overrides)
    return journey(settings, open_run(args, settings.name), args.device)


def sweep(args: Namespace) -> Outcome:
    """Settings tried on the same folds."""
    from medseg.core.config import load_config
    from medseg.workflows.settings import TrainSettings
    from medseg.workflows.sweeping import sweep as journey

    for option in ("trials", "folds"):
        if (given := getattr(args, option)) is not None and given < 1:
            raise MedsegError(f"--{option} {given} is no number of {option}", mend="give a number from 1 on")
    name = load_config(TrainSettings, args.config).name
    run = open_run(args, f"{name}-sweep")
    return journey(args.config, args.overrides, run, trials=args.trials, folds=args.folds, device=args.device)


def predict(args: Namespace) -> Outcome:
    """A model on new images."""
    from medseg.core.config import load_config
    from medseg.workflows.predicting import predict as journey
    from medseg.workflows.settings import PredictSettings

    formats = tuple(part.strip() for part in args.format.split(",") if part.strip())
    chosen = dict(load_config(PredictSettings, None, args.overrides))
    return journey(
        args.model, args.src, args.out, formats=formats, device=args.device, quiet=args.quiet, **chosen
    )


def evaluate(args: Namespace) -> Outcome:
    """Two folders of masks -> scores and report."""
    from medseg.workflows.judging import evaluate as journey

    marks = [word.partition("=")[2] for word in args.overrides if word.startswith("marks=")]
    args.overrides = [word for word in args.overrides if not word.startswith("marks=")]
    return journey(
        args.pred,
        args.ref,
        args.out,
        labels=args.labels,
        tolerance_mm=args.tolerance_mm,
        workers=_processes(args),
        scoring=_scoring(args),
        images=args.images,
        groups=args.groups,
        quality=args.quality,
        readers=_readers(args.reader),
        probabilities=args.probabilities,
        marks=marks[-1] if marks else None,
        quiet=args.quiet,
    )


def _scoring(args: Namespace) -> Any:
    from medseg.core.config import load_config
    from medseg.evaluation.policy import Scoring

    return load_config(Scoring, None, [word.removeprefix("scoring.") for word in args.overrides])


def _readers(given: list[str] | None) -> dict[str, str] | None:
    """``NAME=DIR`` of each further reader."""
    pairs = [text.partition("=") for text in given or []]
    for name, _, folder in pairs:
        if not name or not folder:
            raise MedsegError("a reader is given as NAME=DIR", mend="for example --reader second=masks_b")
    return {name: folder for name, _, folder in pairs} or None


def validate(args: Namespace) -> Outcome:
    """A model on an unseen cohort, against criteria."""
    from medseg.core.config import load_config
    from medseg.workflows.validating import ValidateSettings
    from medseg.workflows.validating import validate as journey

    settings = load_config(ValidateSettings, None, args.overrides)
    cohort = _cohort(args, args.cohort, **settings.cohort_options())
    run = open_run(args, "validate")
    return journey(args.model, cohort, run, accept=args.accept, device=args.device, settings=settings)


def compare(args: Namespace) -> Outcome:
    """Two score tables on the same cases."""
    from medseg.workflows.judging import compare as journey

    return journey(args.a, args.b, args.out, _scoring(args))


def report(args: Namespace) -> Outcome:
    """A report again, from its table."""
    from medseg.workflows.redrawing import redraw

    return redraw(args.folder)


def view(args: Namespace) -> Outcome:
    """A report and its cases in the browser, on this machine alone."""
    from medseg.workflows.viewing import view as journey

    given = {name: getattr(args, name) for name in ("case", "images", "reference", "prediction", "labels")}
    return journey(args.place, browser=not args.no_browser, quiet=args.quiet, **given)


def explain(args: Namespace) -> Outcome:
    """Where a model looked."""
    from medseg.core.config import load_config
    from medseg.learning.settings import Explaining
    from medseg.workflows.explaining import explain as journey

    words = [word.removeprefix("explain.") for word in args.overrides]
    explaining = load_config(Explaining, None, [f"method={args.method}", *words])
    run = Run(args.out, workers=_workers(args), quiet=args.quiet)
    return journey(args.model, args.src, run, explaining=explaining, cases=args.cases, device=args.device)


def adapt(args: Namespace) -> Outcome:
    """A model brought to another site."""
    from medseg.core.config import load_config
    from medseg.learning.settings import Adaptation
    from medseg.workflows.adapting import adapt as journey
    from medseg.workflows.adapting import looks_at_masks

    settings = load_config(Adaptation, None, [f"method={args.method}", *args.overrides])
    target = _cohort(args, args.target, need_reference=False, images_alone=not looks_at_masks(args.model))
    run = Run(args.out, workers=_workers(args), quiet=args.quiet)
    return journey(args.model, target, run, adaptation=settings, source=args.source, device=args.device)


def probe(args: Namespace) -> Outcome:
    """What a frozen encoder tells of classes."""
    from medseg.core.config import load_config
    from medseg.workflows.probing import ProbeSettings, probe_all

    settings = load_config(ProbeSettings, None, args.overrides)
    cohort = _cohort(args, args.cohort)
    return probe_all(args.source, cohort, open_run(args, "probe"), settings, args.device)


def export(args: Namespace) -> Outcome:
    """A model in another form."""
    from medseg.workflows.exporting import export as journey

    return journey(args.model, args.out, to=args.to)


def import_weights(args: Namespace) -> Outcome:
    """Published weights -> a folder that recipes take."""
    from medseg.workflows.transferring import import_weights as journey

    prefix = dict(text.partition("=")[::2] for text in args.prefix)
    return journey(args.src, args.out, format=args.format, sha256=args.sha256, prefix=prefix)


def fetch(args: Namespace) -> Outcome:
    """Download a public data set."""
    from medseg.data.public import describe, fetch

    if args.name == "list":
        return Outcome({}, describe())
    folder = fetch(args.name, args.folder, url=args.url, quiet=args.quiet)
    return Outcome({"folder": str(folder)}, f"fetch: {args.name} lies in {folder}")


def pacs(args: Namespace) -> Outcome:
    """Fetch from, send to, or serve an archive."""
    from medseg.workflows.pacs_words import act

    return act(args)


def doctor(args: Namespace) -> Outcome:
    """What this installation can do."""
    from medseg.doctor import examine

    return examine()


def _name(src: str) -> str:
    """A run's name after its source, unless that may be the name of a person."""
    name = Path(src).resolve().name.partition(".")[0]
    return name if name and names_nobody(name) else "cohort"


VERBS: dict[str, Callable[[Namespace], Outcome]] = {
    "demo": demo,
    "ingest": ingest,
    "audit": audit,
    "plan": plan,
    "train": train,
    "sweep": sweep,
    "predict": predict,
    "evaluate": evaluate,
    "validate": validate,
    "compare": compare,
    "report": report,
    "view": view,
    "adapt": adapt,
    "explain": explain,
    "probe": probe,
    "export": export,
    "import-weights": import_weights,
    "fetch": fetch,
    "pacs": pacs,
    "doctor": doctor,
}
