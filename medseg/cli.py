"""``medseg VERB``: the command line. Knows words and exit codes, no craft; heavy imports happen in verbs."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from medseg.core.errors import MedsegError, unexpected
from medseg.core.version import __version__
from medseg.grammar import RUN, SETTINGS, VERBS

if TYPE_CHECKING:
    from medseg.core.values import Value
    from medseg.workflows.outcome import Outcome

Parser = argparse.ArgumentParser
_Raw = argparse.RawDescriptionHelpFormatter


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the return value is the exit code of the contract (0, 1, 2, 3, 130)."""
    args = _parsed(parser(), argv)
    work = importlib.import_module("medseg.verbs").VERBS[args.verb]
    return _guarded(f"medseg {args.verb}", args, lambda: work(args))


def launch(main: Callable[..., Outcome], model: type[Value]) -> int:
    """Run a pipeline script: ``script.py [CONFIG] [key=value ...] [common options]``.

    Parameters
    ----------
    main : function
        ``main(settings, run, device) -> Outcome``.
    model : type
        Its settings model; a field ``name`` gives the default run folder.

    Returns
    -------
    int
        Exit code of the contract.
    """
    script = Parser(description=sys.modules[main.__module__].__doc__, formatter_class=_Raw)
    script.add_argument("config", nargs="?", help="a YAML file, see configs/")
    for argument in (SETTINGS, RUN):
        script.add_argument(*argument.names, **argument.options)  # type: ignore[arg-type]
    _add_common(script)
    args = _parsed(script, None)
    if args.config and "=" in args.config:  # no file given: the first word is an override
        args.config, args.overrides = None, [args.config, *args.overrides]
    return _guarded(script.prog, args, lambda: _launched(main, model, args))


def _launched(main: Callable[..., Outcome], model: type[Value], args: argparse.Namespace) -> Outcome:
    from medseg.core.config import load_config
    from medseg.verbs import open_run

    settings = load_config(model, args.config, args.overrides)
    return main(settings, open_run(args, getattr(settings, "name", "run")), args.device)


def _guarded(what: str, args: argparse.Namespace, work: Callable[[], Outcome]) -> int:
    """Do the work; every way it can end becomes a message and an exit code of the contract."""
    _speak(quiet=args.quiet)
    try:
        from medseg.workflows.company import in_company

        outcome = in_company(work)
    except MedsegError as error:
        print(f"{what}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{what}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:  # the last resort: say it shortly, show the trace when asked
        return _crashed(what, error)
    if args.json:
        print(json.dumps(outcome.summary, indent=2, sort_keys=True))
    elif outcome.text:
        print(outcome.text)
    return outcome.exit_code


def parser() -> Parser:
    """The whole command line."""
    top = Parser(prog="medseg", description="From the hospital's DICOM to a validated model and back.")
    top.add_argument("--version", action="version", version=f"medseg {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (says, arguments) in VERBS.items():
        verb = verbs.add_parser(name, help=says, description=says[0].upper() + says[1:] + ".")
        for argument in arguments:
            verb.add_argument(*argument.names, **argument.options)  # type: ignore[arg-type]
        _add_common(verb)
    return top


def _parsed(top: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, taking ``key=value`` wherever it stands: before or after the options."""
    args, rest = top.parse_known_args(argv)
    if hasattr(args, "words"):  # words of any kind, in any order
        args.words += [text for text in rest if not text.startswith("-")]
        rest = [text for text in rest if text.startswith("-")]
    wrong = [text for text in rest if text.startswith("-") or "=" not in text]
    if wrong or (rest and not hasattr(args, "overrides")):
        top.error(f"not understood: {' '.join(wrong or rest)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


def _add_common(verb: Parser) -> None:
    common = verb.add_argument_group("common")
    common.add_argument(
        "--workers", default="1", metavar="N|dask:ADDR", help="processes, or a Dask scheduler"
    )
    common.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda[:i]|mps", help="where networks run"
    )
    common.add_argument("--json", action="store_true", help="a machine-readable summary on stdout")
    common.add_argument("--quiet", action="store_true", help="no progress, only problems")


def _speak(*, quiet: bool) -> None:
    """Messages of medseg go to stderr, plainly; stdout belongs to results."""
    logger = logging.getLogger("medseg")
    logger.handlers.clear()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


def _crashed(what: str, error: Exception) -> int:
    if os.environ.get("MEDSEG_DEBUG"):
        raise error
    print(f"{what}: unexpected {unexpected(error)}", file=sys.stderr)
    print(
        "  mend: this is a fault of medseg; run again with MEDSEG_DEBUG=1 for the trace and report it",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
