"""--shard_optimizer under mpirun: equal to a run without, and resumed in any way."""

import json

import numpy as np
import pytest
from conftest import TINY
from integration.launching import run_workers
from runs import assert_same_bytes, checkpoint_bytes, pretraining_flags, read_tensors

pytestmark = [pytest.mark.slow, pytest.mark.horovod]

LAST = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def runs(folder, tiny_records):
    """All runs, in one launch of two workers."""
    config = folder / "config.json"
    config.write_text(json.dumps(TINY))

    def command(name, *more, batch=4, shards=True):
        flags = [*["--horovod", "--shard_optimizer"] * shards, *more]
        return pretraining_flags(
            *(config, tiny_records, folder / name, "--noscale_learning_rate"),
            *("--ema_decay=0.9", *flags),
            batch=batch,
            accumulation=2,
            steps=LAST,
        )

    two_of = ("--init_checkpoint", str(folder / "two" / "model.ckpt-2"), "--resume")
    launched = {
        "plain": command("plain", shards=False),
        "sharded": command("sharded"),
        "two": command("two", "--steps_this_run=2"),
        "resumed": command("resumed", *two_of),
        "two-alone": command("two", "--steps_this_run=2", batch=8, shards=False),
        "two-again": command("two"),
    }
    return run_workers("worker.py", launched, folder, ["-np", "2"])


def checkpoint(folder, name):
    return read_tensors(folder / name / f"model.ckpt-{LAST}")


def test_workers_end_with_the_same_bytes(runs):
    for name in ("sharded", "resumed", "two-again"):
        ours = [
            {n: x for n, x in each.items() if not n.startswith("result")}
            for each in runs[name]
        ]
        assert_same_bytes(*ours)


def test_state_and_averages_are_those_of_a_run_without_shards(runs, folder):
    expected, ours = checkpoint(folder, "plain"), checkpoint(folder, "sharded")
    assert ours.keys() == expected.keys()
    assert any(name.endswith("/adam_v") for name in ours)
    for name, array in expected.items():
        np.testing.assert_allclose(ours[name], array, rtol=1e-6, atol=1e-6)


def test_the_log_names_the_bytes_of_each_worker(runs):
    [line] = [x for x in runs["sharded"][0]["result messages"] if "shard_opt" in x]
    numbers = sum(
        array.size
        for name, array in runs["sharded"][0].items()
        if not name.startswith("result") and name != "losses"
    )
    own = 8 * -(-numbers // 2)
    assert f"keeps {own:,} of the {8 * numbers:,} bytes" in line


def test_resuming_is_never_having_stopped(runs, folder):
    ours, whole = (checkpoint_bytes(folder / x, LAST) for x in ("resumed", "sharded"))
    assert ours == whole


def test_one_worker_and_then_two_again_continue_a_sharded_run(runs, folder):
    expected, ours = checkpoint(folder, "plain"), checkpoint(folder, "two")
    assert len(runs["two-alone"][0]["losses"]) == 2
    for name, array in expected.items():
        # A key bias does not change the softmax: its gradient is rounding alone.
        if "key/bias" not in name:
            scale = max(np.linalg.norm(array), 1e-3)
            assert np.linalg.norm(ours[name] - array) < 1e-4 * scale, name
