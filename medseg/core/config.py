"""YAML and ``key=value`` overrides to a frozen, checked settings value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel
from yaml import YAMLError

from medseg.core.errors import MedsegError
from medseg.core.values import validated

V = TypeVar("V", bound=BaseModel)


def load_config(model: type[V], file: str | Path | None, overrides: Sequence[str] = ()) -> V:
    """Settings of type `model` from a YAML file and dotted overrides, later ones winning.

    Parameters
    ----------
    model : type
        Settings model (a `Value`).
    file : path or None
        YAML file; None starts from the defaults.
    overrides : sequence of str
        ``section.key=value``; values are read as YAML, and ``1e-3`` is a number.

    Raises
    ------
    MedsegError
        No such file, not YAML, an unknown key (the nearest name is proposed) or a wrong type.
    """
    settings = OmegaConf.merge(_from_file(file), _from_overrides(overrides))
    return validated(model, _plain(settings))


def save_config(settings: BaseModel, file: Path) -> None:
    """Write settings as YAML that `load_config` reads back to an equal value."""
    text = OmegaConf.to_yaml(OmegaConf.create(settings.model_dump(mode="json")))
    file.write_text(text, encoding="utf-8")


def _from_file(file: str | Path | None) -> Any:
    if file is None:
        return OmegaConf.create({})
    try:
        loaded = OmegaConf.load(file)
    except FileNotFoundError as error:
        raise MedsegError(
            "there is no such configuration file",
            file=str(file),
            mend="give the path of a YAML file; the ones shipped lie in configs/",
        ) from error
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise MedsegError(
            "the configuration file is not readable YAML",
            file=str(file),
            evidence=" ".join(str(error).split()),
            mend="correct the line named above",
        ) from error
    if not OmegaConf.is_dict(loaded):
        raise MedsegError("the configuration file must hold 'key: value' lines, not a list", file=str(file))
    return loaded


def _from_overrides(overrides: Sequence[str]) -> Any:
    for text in overrides:
        if "=" not in text or text.startswith(("=", "-")):
            raise MedsegError(
                f"'{text}' is not an override",
                mend="write overrides as key=value, for example training.epochs=5",
            )
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except (YAMLError, OmegaConfBaseException) as error:
        raise MedsegError("an override cannot be read", evidence=" ".join(str(error).split())) from error


def _plain(settings: Any) -> dict[str, Any]:
    try:
        return OmegaConf.to_container(settings, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise MedsegError(
            "the configuration refers to something that is not there",
            evidence=" ".join(str(error).split()),
        ) from error
