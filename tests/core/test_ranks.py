"""Which process of several: torchrun's variables, SLURM's, none."""

from __future__ import annotations

import pytest

from medseg.core.errors import MedsegError
from medseg.core.ranks import Ranks, first_host, ranks_of


def test_a_process_started_plainly_is_alone():
    assert ranks_of({}) == Ranks(rank=0, size=1, local=0)


def test_the_script_of_a_batch_job_is_alone_however_many_tasks_were_asked_for():
    assert ranks_of({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}).size == 1


def test_torchrun_says_it():
    given = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "1234"}
    assert ranks_of(given) == Ranks(rank=3, size=4, local=1, host="n1", port=1234)


def test_srun_says_it():
    given = {
        "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1",
        "SLURM_STEP_NODELIST": "gpu[07-10]", "SLURM_JOB_ID": "4711",
    }  # fmt: skip
    assert ranks_of(given) == Ranks(rank=5, size=8, local=1, host="gpu07", port=29500 + 711)
    assert ranks_of({**given, "CUDA_VISIBLE_DEVICES": "0,1"}).local == 1
    assert ranks_of({**given, "CUDA_VISIBLE_DEVICES": "1"}).local == 0
    assert ranks_of({**given, "MASTER_ADDR": "x", "MASTER_PORT": "9"}).port == 9


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a1", "a1"), ("a1,b2", "a1"), ("gpu[03-05,9],cpu1", "gpu03"), ("n[1,3]-ib", "n1-ib"), ("x[2]", "x2")],
)
def test_the_first_host_of_a_node_list(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize("given", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "2"}])
def test_contradictions_are_told(given):
    with pytest.raises(MedsegError):
        ranks_of(given)
