"""Prepared small patients, and one thread a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from small_patients import balls, ingested, small_plan

from medseg.core.stage import artifact_of
from medseg.data.plan import Plan
from medseg.learning.sampling import PreparedCase
from medseg.stages.prepare import prepare


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads on a busy machine wait for each other more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[PreparedCase]]:
    """``make_cases(n, plan)``: prepared cases, two of each patient."""

    def make(n: int, plan: Plan) -> list[PreparedCase]:
        root = tmp_path_factory.mktemp("cases")
        made = []
        for i in range(n):
            image, mask = balls(i)
            raw = ingested(root / "ingest" / f"c{i}", i, f"c{i}", f"p{i // 2}", image, mask)
            out = root / "prepare" / f"c{i}"
            out.mkdir(parents=True)
            prepare(artifact_of(raw), preparation=plan.preparation(), out=out)
            made.append(PreparedCase(f"c{i}", out))
        return made

    return make


@pytest.fixture(scope="session")
def cases(make_cases: Callable[..., list[PreparedCase]]) -> list[PreparedCase]:
    """Ten prepared cases of five patients."""
    return make_cases(10, small_plan())
