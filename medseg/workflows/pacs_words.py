"""``medseg pacs ACTION WORD...``: which words are a query, which are settings, which are places."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.core.config import load_config
from medseg.core.errors import MedsegError
from medseg.imaging.dicom_query import KEYS
from medseg.workflows.outcome import Outcome
from medseg.workflows.pacs_settings import PacsSettings


@dataclass(frozen=True)
class Words:
    """The words of a command, sorted."""

    query: dict[str, str]
    overrides: list[str]
    places: list[str]


def sort_words(words: Sequence[str]) -> Words:
    """Tell query (``PatientID=4711``), settings (``pacs.port=104``) and places (``OUT``) apart, in any order.

    DICOM's keywords begin with a capital and have no dot, settings never do.

    >>> sort_words(["PatientID=4711", "pacs.port=104", "out"])
    Words(query={'PatientID': '4711'}, overrides=['pacs.port=104'], places=['out'])
    """
    pairs = [word for word in words if "=" in word]
    asked = [word for word in pairs if word[0].isupper() and "." not in word.partition("=")[0]]
    return Words(
        query={key: value for key, _, value in (word.partition("=") for word in asked)},
        overrides=[word for word in pairs if word not in asked],
        places=[word for word in words if "=" not in word],
    )


def act(args: Namespace) -> Outcome:
    """Carry out one action of ``medseg pacs``.

    Raises
    ------
    MedsegError
        Words that do not fit the action, and whatever the action raises.
    """
    words = sort_words(args.words)
    settings = load_config(PacsSettings, args.config, words.overrides)
    if words.query and args.action != "pull":
        raise MedsegError(
            f"only pull takes a query: {', '.join(words.query)}", mend=f"known: {', '.join(KEYS)}"
        )
    return _ACTIONS[args.action](args, settings, words)


def _pull(args: Namespace, settings: PacsSettings, words: Words) -> Outcome:
    from medseg.workflows.pacs import pull

    places = words.places or (["."] if args.dry_run else [])
    out = _one(places, "pull needs one folder for what comes", "medseg pacs pull PatientID=... OUT")
    query = {**settings.query, **words.query}
    return pull(settings, query, out, dry_run=args.dry_run, quiet=args.quiet)


def _push(args: Namespace, settings: PacsSettings, words: Words) -> Outcome:
    from medseg.workflows.pacs_push import push

    if not words.places:
        raise MedsegError("push needs files or folders to send", mend="medseg pacs push FILES")
    return push(settings, words.places, receipt=args.receipt, quiet=args.quiet)


def _listen(args: Namespace, settings: PacsSettings, words: Words) -> Outcome:
    from medseg.workflows.listening import listen

    model = _one(words.places, "listen needs one model", "medseg pacs listen MODEL --config pacs.yaml")
    formats = tuple(part.strip() for part in args.format.split(",") if part.strip())
    spool = args.run or Path("runs") / settings.name
    return listen(settings, model, spool, formats=formats, device=args.device)


def _echo(args: Namespace, settings: PacsSettings, words: Words) -> Outcome:
    from medseg.workflows.pacs import echo

    if words.places:
        raise MedsegError(f"echo takes settings only, not {' '.join(words.places)}")
    return echo(settings)


def _one(places: list[str], what: str, mend: str) -> str:
    if len(places) != 1:
        raise MedsegError(what, evidence=f"given: {' '.join(places) or 'none'}", mend=mend)
    return places[0]


_ACTIONS = {"pull": _pull, "push": _push, "listen": _listen, "echo": _echo}
