"""The first steps every journey shares: ingest, look, plan, prepare."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.core.errors import MedsegError
from medseg.core.files import holds, json_text, read_json, write_text
from medseg.core.run import Run
from medseg.core.stage import Artifact
from medseg.data.cohort import Cohort, Ingesting
from medseg.data.plan import Plan
from medseg.imaging.labels import values_of


@dataclass(frozen=True)
class Ingested(Mapping[str, Artifact]):
    """The cases of a cohort that came through the door: case id -> ``ingest/<case>``."""

    cohort: Cohort
    artifacts: Mapping[str, Artifact]

    def __getitem__(self, case_id: str) -> Artifact:
        return self.artifacts[case_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.artifacts)

    def __len__(self) -> int:
        return len(self.artifacts)

    def only(self, ids: Collection[str]) -> Ingested:
        """These cases alone."""
        keep = set(ids)
        return Ingested(self.cohort, {k: v for k, v in self.artifacts.items() if k in keep})

    def outside(self, ids: Collection[str]) -> Ingested:
        """All cases but these: what training may look at when these are the test part."""
        return self.only([case for case in self.artifacts if case not in set(ids)])

    @property
    def refused(self) -> tuple[str, ...]:
        """The series that were refused before any was read."""
        return tuple(r.series for r in self.cohort.refused if r.status == "refused")

    def source(self, case_id: str) -> dict[str, Any]:
        """What is known of a case: ``source.json``."""
        return read_json(self.artifacts[case_id] / "source.json")


def ingest_all(run: Run, cohort: Cohort, settings: Ingesting | None = None) -> Ingested:
    """Read, check and store every case; write ``cohort.json`` and ``ingest.csv``.

    A case that is refused is a row in the table and in `run.failures`; the others go on.

    Raises
    ------
    MedsegError
        No case came through.
    """
    from medseg.data.tables import write_ingest_table
    from medseg.stages.ingest import ingest

    items = {case.id: case for case in cohort.cases}
    settings = settings or Ingesting()
    if cohort.ignore is not None:
        settings = settings.but(ignore=cohort.ignore)
    made = run.map(ingest, items, channels=cohort.channels, labels=cohort.labels, settings=settings)
    stored, text = run.root / "cohort.json", json_text(cohort.public())
    if not holds(stored, text):  # a finished run stays untouched
        run.lock()
        write_text(stored, text)
    write_ingest_table(run.root / "ingest.csv", cohort, {k: f.public for k, f in made.failed.items()})
    if not made:
        raise MedsegError(
            "no case could be ingested",
            evidence=f"{len(made.failed)} failed, {len(cohort.refused)} refused",
            mend="see ingest.csv in the run folder for the reason of each",
        )
    return Ingested(cohort, made.artifacts)


def reopen(run_folder: str | Path) -> Ingested:
    """The ingested cases of a run folder, without their original files.

    Raises
    ------
    MedsegError
        The folder holds no ingested cohort.
    """
    from medseg.core.stage import artifact_of

    root = Path(run_folder)
    if not (root / "cohort.json").is_file():
        raise MedsegError(
            "the folder holds no ingested cohort",
            file=str(root),
            mend="run 'medseg ingest SRC --run DIR' first, or give a data set",
        )
    cohort = Cohort.from_public(read_json(root / "cohort.json"))
    there = {c.id: root / "ingest" / c.id for c in cohort.cases if (root / "ingest" / c.id).is_dir()}
    return Ingested(cohort, {k: artifact_of(v) for k, v in there.items()})


def make_plan(run: Run, raw: Ingested, *, to: Path | None = None, **overrides: Any) -> Plan:
    """Look at every case, then choose spacing, patch, batch, intensity and network, with reasons.

    Parameters
    ----------
    run : Run
        Fingerprints are kept in ``fingerprint/<case>``; the plan is written to ``plan.yaml``.
    raw : Ingested
        The cases to look at: training cases only, so that nothing of the test part leaks in.
    to : path, optional
        Where the plan is written, for one of several; ``plan.yaml`` of the run by default.
    **overrides
        Choices to fix (``patch=(48, 64, 1)``); what depends on them derives itself again. Given a
        ``budget_minutes``, how fast this machine trains is measured once and kept in ``rate/`` of the run
        folder, so that the same command makes the same plan; ``rate_gflops=...`` sets it. ``cascade=True``
        asks for a cascade where no rule does.
    """
    from medseg.data.planning import make_plan as choose
    from medseg.stages.fingerprint import fingerprint, read_fingerprint
    from medseg.workflows.cascading import with_cascade
    from medseg.workflows.pacing import measured_rate, with_memory

    asked = overrides.get("cascade") is True and bool(overrides.pop("cascade"))
    values = values_of(raw.cohort.labels)
    looked = run.map(fingerprint, dict(raw.artifacts), label_values=values)
    prints = [read_fingerprint(a) for a in looked.values()]
    overrides = with_memory(run, overrides)
    plan = choose(prints, raw.cohort, overrides)
    if (rate := measured_rate(run, plan, overrides)) is not None:
        plan = choose(prints, raw.cohort, overrides | {"rate_gflops": rate})
    if asked and plan.cascade is None:
        plan = with_cascade(plan)
    write_plan(to or run.root / "plan.yaml", plan)
    return plan


def write_plan(file: Path, plan: Plan) -> None:
    """The plan as YAML for people: each choice under the reason for it. An equal one is left."""
    import yaml

    content = plan.model_dump(mode="json", exclude={"why"})
    blocks = []
    for name, value in content.items():
        reason = f"# {plan.why[name]}\n" if name in plan.why else ""
        style = None if isinstance(value, dict | list) else False  # lists of numbers on one line
        dumped = yaml.safe_dump({name: value}, sort_keys=False, default_flow_style=style, width=110)
        blocks.append(reason + dumped)
    text = "\n".join(blocks)
    if not holds(file, text):
        write_text(file, text)


def prepare_all(run: Run, raw: Ingested, plan: Plan) -> Mapping[str, Artifact]:
    """Every case on the plan's grid and intensity scale, as arrays that training can map."""
    from medseg.stages.prepare import prepare

    return run.map(prepare, dict(raw.artifacts), preparation=plan.preparation())
