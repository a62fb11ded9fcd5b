"""Case ids: names where they are a study's own, keyed hashes where they may be a person's.

Series of DICOM always get keyed hashes. The names of files and folders are judged here, by the words they
are made of (`medseg.core.words`): nobody can list all names of people, so what is not known is hashed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

from medseg.core.errors import MedsegError
from medseg.core.words import names_nobody, shared_words, words_of
from medseg.data.discover import Draft, case_id

log = logging.getLogger("medseg")

Ids = Literal["auto", "names", "hashed"]
"""How cases get their ids: looked at one by one, the names as they are, or keyed hashes for all."""


def case_ids(
    names: Iterable[str], policy: Ids = "auto", *, described: bool = False, classes: Iterable[str] = ()
) -> dict[str, str]:
    """Name as found -> case id.

    Parameters
    ----------
    names : iterable of str
        Names of the cases: of their files or folders, without suffix.
    policy : {"auto", "names", "hashed"}
        ``auto`` keeps a name made of study words and study numbers (``case_017``) and hashes the others;
        the warning says how many, and how to keep them.
    described : bool
        The names come from a data set that describes itself: words that more than half of them share
        (and three at least) are its own.
    classes : iterable of str
        Names of class folders, which may be part of a name; their words are the study's own.

    Raises
    ------
    MedsegError
        An unknown policy.
    """
    if policy not in get_args(Ids):
        raise MedsegError(f"unknown way of naming cases '{policy}'", mend="use auto, names or hashed")
    found = list(dict.fromkeys(names))
    own = {word for name in classes for word in words_of(name)}
    own |= shared_words(found) if described else set()
    kept = {n: policy == "names" or (policy == "auto" and names_nobody(n, own)) for n in found}
    hashed = sum(not keep for keep in kept.values())
    if hashed and policy == "auto":
        log.warning(
            "%d of %d case ids were names that may say who somebody is: they are keyed hashes now; "
            "ids=names keeps names (cohort.ids=names in a recipe)",
            hashed,
            len(found),
        )
    return {name: case_id(name) if keep else hashed_name(name) for name, keep in kept.items()}


def hashed_name(name: str, kind: str = "case") -> str:
    """A keyed hash in place of a name: the same name gives the same id under the same key."""
    from medseg.imaging.deidentify import keyed_hash, project_key

    return f"{kind}-{keyed_hash(f'name|{name}', project_key())}"


def renamed(drafts: Sequence[Draft], ids: Mapping[str, str]) -> list[Draft]:
    """The drafts under their ids; a patient who was named after the case is named after its id."""
    return [_renamed(draft, ids[draft.id]) for draft in drafts]


def safe_channels(channels: Mapping[str, int], cases: int) -> dict[str, str]:
    """Channel as found -> channel, hashed when its name may be a person's.

    Parameters
    ----------
    channels : mapping of str to int
        How many cases have the channel. What three and more than half of them share is no one's name.
    cases : int
        How many cases there are.
    """
    shared = {c for c, n in channels.items() if n >= 3 and 2 * n > cases}
    return {c: c if c in shared or names_nobody(c) else hashed_name(c, "channel") for c in channels}


def _renamed(draft: Draft, new: str) -> Draft:
    patient = new if draft.patient in (None, draft.id) else draft.patient
    return replace(draft, id=new, patient=patient)
