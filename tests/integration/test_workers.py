"""Real workers under mpirun: equal to the last bit, and equal to one process."""

import json

import numpy as np
import pytest
from conftest import TINY
from integration.launching import run_python, run_workers
from integration.worker import train_and_evaluate
from runs import assert_same_bytes, pretraining_flags

from bert_tf.distribute import Communicator

pytestmark = [pytest.mark.slow, pytest.mark.horovod]


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """Architectures with and without dropout."""
    folder = tmp_path_factory.mktemp("configs")
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "with.json").write_text(json.dumps(TINY))
    (folder / "without.json").write_text(json.dumps(TINY | rates))
    return folder


@pytest.fixture(scope="module")
def command(configs, tiny_records, tmp_path_factory):
    """Makes a command line of 20 steps of 32 records."""
    folder = tmp_path_factory.mktemp("runs")

    def make(name, batch, accumulation, *more, dropout="with"):
        return pretraining_flags(
            *(configs / f"{dropout}.json", tiny_records, folder / name),
            *("--noscale_learning_rate", *more),
            batch=batch,
            accumulation=accumulation,
            steps=20,
        )

    return make


def single(arguments):
    return train_and_evaluate(arguments, Communicator())


@pytest.fixture(scope="module")
def two(command, tiny_records, tmp_path_factory):
    """All runs on two workers, in one launch."""
    evaluation = [
        "--do_eval",
        f"--eval_files_dir={tiny_records}",
        "--max_eval_steps=13",
    ]
    runs = {
        "dropout": command("two", 16, 1, *evaluation),
        "plain": command("two-plain", 16, 1, dropout="without"),
        "post": command("two-post", 4, 4),
        "each": command("two-each", 4, 4, "--noallreduce_post_accumulation"),
        "adamw": command("two-adamw", 16, 1, "--optimizer_type=adamw"),
        "averages": command("two-averages", 16, 1, "--ema_decay=0.9"),
        "time": command("two-time", 16, 1, "--max_hours=0.1"),
        "float16": command("two-float16", 16, 1, "--horovod_compression=fp16"),
    }
    return run_workers("worker.py", runs, tmp_path_factory.mktemp("two"), ["-np", "2"])


@pytest.mark.parametrize(
    "name",
    ["dropout", "plain", "post", "each", "adamw", "averages", "time", "float16"],
)
def test_two_workers_end_with_the_same_bytes(two, name):
    assert len(two[name][0]["losses"]) == 20
    assert_same_bytes(*two[name])


@pytest.mark.parametrize(
    "name, dropout, more",
    [
        ("dropout", "with", ()),
        ("plain", "without", ()),
        ("adamw", "with", ("--optimizer_type=adamw",)),
        ("averages", "with", ("--ema_decay=0.9",)),  # The weights are the averages.
    ],
)
def test_two_workers_train_as_one_does(two, command, name, dropout, more):
    """Loss of all 20 steps within 1e-5, and the weights they end with."""
    one = single(command(f"one-{name}", 32, 1, *more, dropout=dropout))
    ours = two[name][0]
    np.testing.assert_allclose(ours["losses"], one["losses"], rtol=1e-5)
    for path, array in one.items():
        # A key bias does not change the softmax: its gradient is rounding alone.
        if not path.startswith("result") and "key/bias" not in path:
            scale = max(np.linalg.norm(array), 1e-3)
            assert np.linalg.norm(ours[path] - array) < 1e-4 * scale, path


def test_gradients_sent_as_float16_train_alike(two):
    """Rounded to 11 bits, 20 times: the losses stay within 1e-3."""
    ours, exact = two["float16"][0]["losses"], two["dropout"][0]["losses"]
    np.testing.assert_allclose(ours, exact, rtol=1e-3)
    assert (ours != exact).any()


def test_accumulation_on_two_workers_is_one_large_batch(two):
    np.testing.assert_allclose(
        two["post"][0]["losses"], two["dropout"][0]["losses"], rtol=1e-5
    )


def test_reducing_each_micro_batch_is_reducing_once(two):
    np.testing.assert_allclose(
        two["each"][0]["losses"], two["post"][0]["losses"], rtol=1e-5
    )


def test_evaluation_on_two_workers_is_that_of_one(two, command, tiny_records):
    evaluation = [
        "--do_eval",
        f"--eval_files_dir={tiny_records}",
        "--max_eval_steps=13",
    ]
    one = single(command("one-eval", 32, 1, *evaluation))
    for name in (
        "result masked_lm_count",
        "result next_sentence_count",
        "result masked_lm_loss",
        "result next_sentence_loss",
        "result masked_lm_accuracy",
    ):
        np.testing.assert_allclose(two["dropout"][0][name], one[name], rtol=1e-4)
    assert one["result next_sentence_count"] == 104  # 13 batches of 8


def test_four_workers_end_with_the_same_bytes_and_losses(two, command, tmp_path):
    runs = {"four": command("four", 8, 1)}
    four = run_workers("worker.py", runs, tmp_path, ["-np", "4"])["four"]
    assert_same_bytes(*four)
    np.testing.assert_allclose(
        four[0]["losses"], two["dropout"][0]["losses"], rtol=1e-5
    )


def test_horovods_settings_are_the_users_where_there_are_any(monkeypatch):
    code = """
import os
from bert_tf.distribute import connect
connect(horovod=True)
print(os.environ["HOROVOD_CYCLE_TIME"], os.environ["OMPI_MCA_mpi_yield_when_idle"])
"""
    for name in ("HOROVOD_CYCLE_TIME", "OMPI_MCA_mpi_yield_when_idle"):
        monkeypatch.delenv(name, raising=False)
    assert run_python("-c", code).stdout.split() == ["5", "1"]
    monkeypatch.setenv("HOROVOD_CYCLE_TIME", "2")
    assert run_python("-c", code).stdout.split() == ["2", "1"]
