"""A new MLflow store in SQLite: whole, or not there at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SQLITE = "sqlite:///"


def make_whole(uri: str) -> None:
    """Make a SQLite store that is not there yet beside its place, and put it there when it is whole.

    MLflow makes its tables one by one. Killed in the middle of that it would leave a store that no
    later run can open. Anything but a new SQLite file is left alone.
    """
    place = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or not place.parent.is_dir() or place.exists():
        return
    from mlflow.store.db import utils

    beside = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        engine = utils.create_sqlalchemy_engine(f"{SQLITE}{beside}")
        utils._initialize_tables(engine)
        engine.dispose()
        with suppress(FileExistsError):  # another process was first
            os.link(beside, place)
    except (AttributeError, OSError):  # another MLflow, or no links here: it makes the store itself
        return
    finally:
        beside.unlink(missing_ok=True)
