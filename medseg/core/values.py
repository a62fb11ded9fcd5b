"""Frozen values and their digests: what is equal has the same digest, wherever it lies."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from medseg.core.errors import MedsegError

V = TypeVar("V", bound=BaseModel)


class Value(BaseModel):
    """A frozen record: unknown fields are refused, changes make a new, re-validated value."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    outside_identity: ClassVar[frozenset[str]] = frozenset()
    """Fields that cannot change a result (comments, locations): left out of `identity_of`."""

    def but(self, **changes: Any) -> Self:
        """A copy with `changes`, validated as if it were new.

        Raises
        ------
        MedsegError
            An unknown field (the nearest name is proposed) or a value of the wrong type.
        """
        return validated(type(self), {**dict(self), **changes})


def validated(model: type[V], fields: Mapping[str, Any]) -> V:
    """`model(**fields)`, with pydantic's complaint turned into ours."""
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        what = model.model_config.get("title") or model.__name__
        raise MedsegError(
            f"{what}: {len(error.errors())} setting(s) cannot be used",
            evidence="; ".join(_explain(model, e) for e in error.errors()),
            mend="correct the settings named above and run the same command again",
        ) from error


def identity_of(thing: Any) -> Any:
    """JSON-able identity of a value by content: never by location, never by time.

    Objects may say it themselves with a method `identity()`. A bare path is refused: it names a
    place, not a content.
    """
    if hasattr(thing, "identity"):
        return thing.identity()
    if isinstance(thing, BaseModel):
        left_out = getattr(thing, "outside_identity", frozenset())
        return {k: identity_of(v) for k, v in thing if k not in left_out}
    if isinstance(thing, Mapping):
        return {str(k): identity_of(v) for k, v in thing.items()}
    if thing is None or isinstance(thing, str | int | float | bool):
        return thing
    if isinstance(thing, Sequence):
        return [identity_of(v) for v in thing]
    if isinstance(thing, PurePath):
        raise TypeError("a bare path has no identity: pass an Artifact or a Source")
    raise TypeError(f"{type(thing).__name__} has no identity")


def digest(thing: Any) -> str:
    """sha256 (hex, 64 characters) of the identity of `thing`; blind to the order of mappings."""
    text = json.dumps(identity_of(thing), sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name most like `name`, or None when none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return close[0] if close else None


def _explain(model: type[BaseModel], error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        seen = repr(error["input"])
        seen = seen if len(seen) <= 80 else seen[:77] + "..."
        return f"{where} = {seen}: {error['msg']}"
    known = _fields_at(model, error["loc"][:-1])
    guess = nearest(str(error["loc"][-1]), known)
    hint = f"did you mean '{guess}'?" if guess else f"known here: {', '.join(known)}"
    return f"unknown setting '{where}': {hint}"


def _fields_at(model: type[BaseModel], path: Sequence[Any]) -> list[str]:
    """Names of the fields of the model found by walking `path` down from `model`."""
    for step in path:
        field = model.model_fields.get(str(step))
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            break
        model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first pydantic model named in a type annotation such as `X | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _model_in(part)
        if found is not None:
            return found
    return None
