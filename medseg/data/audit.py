"""What is wrong or unusual in a cohort, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medseg.core.progress import progress
from medseg.core.stage import Artifact
from medseg.data.audit_checks import CHECKS, Finding, copies, left_out
from medseg.data.audit_facts import look_at
from medseg.data.cohort import Cohort

__all__ = ["Finding", "audit", "must_fix", "summary", "table"]


def audit(
    ingested: Mapping[str, Artifact],
    cohort: Cohort,
    failures: Mapping[str, str] | None = None,
    *,
    quiet: bool = False,
) -> list[Finding]:
    """Look at every ingested case, alone and beside the others.

    Parameters
    ----------
    ingested : mapping of case id to Artifact
        Finished ``ingest/<case>`` folders.
    cohort : Cohort
        What was found, with what was refused at discovery.
    failures : mapping of case id to str, optional
        Public messages of cases that the ingest stage refused.

    Returns
    -------
    list of Finding
        Those that must be fixed first; empty when there is nothing to say.
    """
    names = progress(sorted(ingested), "audit", quiet=quiet)
    facts = [look_at(name, ingested[name], cohort.labels) for name in names]
    found = [*left_out(cohort, ingested, failures or {}), *copies(facts, cohort)]
    for check in CHECKS:
        found.extend(check(facts, cohort))
    return sorted(found, key=lambda f: (f.severity != "fix", f.what, f.case))


def must_fix(findings: Iterable[Finding]) -> bool:
    """Whether anything must be fixed (exit code 3)."""
    return any(f.severity == "fix" for f in findings)


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as JSON: ``must_fix``, counts, and one record each."""
    counts = Counter(f.severity for f in findings)
    records = [f.model_dump() for f in findings]
    return {"must_fix": must_fix(findings), "fix": counts["fix"], "look": counts["look"], "findings": records}


def table(findings: Sequence[Finding], most: int = 5) -> str:
    """The findings as text, like ones together, at most `most` cases of a kind in full."""
    if not findings:
        return "nothing unusual found"
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.what), []).append(finding)
    blocks = []
    for (severity, what), some in kinds.items():
        lines = [f"{severity:<5} {what}" + (f"  ({len(some)} cases)" if len(some) > 1 else "")]
        lines += [f"        {f.case + ': ' if f.case else ''}{f.evidence}" for f in some[:most]]
        lines += [f"        ... and {len(some) - most} more"] * (len(some) > most)
        blocks.append("\n".join([*lines, f"      mend: {some[0].mend}"]))
    return "\n".join(blocks)
