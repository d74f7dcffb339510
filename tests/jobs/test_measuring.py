"""Workers of a measurement: the cores that they run on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bert_tf.jobs import measuring


@pytest.mark.parametrize(
    "workers, expected",
    [
        (1, {}),
        (2, {}),
        (4, {0: {4}, 1: {6}, 2: {4}, 3: {6}}),
        (5, {0: {4}, 1: {6}, 2: {4}, 3: {6}, 4: {4}}),
    ],
)
def test_workers_that_outnumber_cores_share_them_equally(
    monkeypatch, workers, expected
):
    """The cores are those that the launcher may use, as under taskset."""
    bound = {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {6, 4})
    for rank in range(workers):
        monkeypatch.setattr(
            os,
            "sched_setaffinity",
            lambda _, cores, rank=rank: bound.update({rank: cores}),
        )
        monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", str(rank))
        measuring.share_cores(workers)
    assert bound == expected


@pytest.mark.horovod
def test_mpirun_numbers_the_workers_of_a_host():
    mpirun = Path(sys.executable).parent / "mpirun"
    command = [mpirun, "--allow-run-as-root", "--oversubscribe", "-np", "3"]
    command += ["printenv", "OMPI_COMM_WORLD_LOCAL_RANK"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert sorted(result.stdout.split()) == ["0", "1", "2"], result.stderr
