"""What a journey hands to the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medseg.core.run import Run


@dataclass(frozen=True)
class Outcome:
    """Text for people, a summary for machines (``--json``), and an exit code of the contract."""

    summary: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    exit_code: int = 0


def named_failures(run: Run) -> str:
    """The quarantined items of a run, a line each; empty when there are none."""
    lines = [f"  {f.item} ({f.stage}): {f.public.splitlines()[0]}" for f in run.failures]
    return "\n" + "\n".join(["quarantined:", *lines]) if lines else ""
