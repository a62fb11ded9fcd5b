"""Where a training comes from: its run folder under a random name, its settings, versions and commit."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.core.files import read_json, write_json
from medseg.core.values import digest

STATE = ".tracking.json"
"""In the run folder: a random name for it and the workflow last tracked. No path, no id of a person."""


def workflow_tag(run_root: Path, info: Mapping[str, Any], mark: str = "") -> str:
    """The tag of the parent run: the same run folder and settings (or `mark`) are the same workflow."""
    state = read_state(run_root)
    folder = state.get("folder") or secrets.token_hex(8)
    settings = {k: json.loads(json.dumps(info[k], default=str)) for k in ("plan", "training") if k in info}
    parent = digest([folder, mark or settings])[:32]
    if state.get("parent") != parent:
        write_state(run_root, {"folder": folder, "parent": parent})
    return parent


def read_state(run_root: Path) -> dict[str, Any]:
    """What a run folder remembers of its tracking; empty when nothing that can be read is there."""
    try:
        state = read_json(run_root / STATE)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(run_root: Path, state: Mapping[str, Any]) -> None:
    """Keep the state, whole or not at all."""
    write_json(run_root / STATE, dict(state))


def versions() -> dict[str, str]:
    """Versions of medseg and torch, as parameters."""
    import torch

    from medseg.core.version import __version__

    return {"versions.medseg": __version__, "versions.torch": str(torch.__version__)}


def git_commit_tag() -> dict[str, str]:
    """The commit of the working folder (or else of medseg's checkout) as MLflow's tag; none outside git."""
    for folder in (Path.cwd(), Path(__file__).parent):
        call = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        try:
            done = subprocess.run(call, capture_output=True, text=True, timeout=5, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return {"mlflow.source.git.commit": done.stdout.strip()}
    return {}
