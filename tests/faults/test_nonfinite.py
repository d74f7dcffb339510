"""A step that is not finite stops all workers and names its cause, or is skipped.

The embedding of segment 1 is so large that the LayerNorm of any token in it overflows,
and only some records have such a token.
"""

import re

import numpy as np
import pytest
import tensorflow as tf
from faults.counts import count
from faults.damaged_records import examples, write_set
from integration.launching import run_workers
from runs import (
    assert_same_bytes,
    logged_values,
    parse,
    pretraining_flags,
    read_tensors,
    run,
)

from bert_tf.config.record_ranges import parse_ranges
from bert_tf.data.records.skipping import find_records
from bert_tf.distribute import Communicator
from bert_tf.errors import NonFiniteError
from bert_tf.jobs import pretraining

# LAMB's trust ratio would be infinite: the norm of those weights is.
FLAGS = ["--optimizer_type=adam", "--num_warmup_steps=0", "--display_loss_steps=1"]


@pytest.fixture(scope="module")
def weights(tiny_config_file, tmp_path_factory):
    """A checkpoint of the weights."""
    folder = tmp_path_factory.mktemp("weights")
    command = pretraining_flags(tiny_config_file, "", folder / "run", *FLAGS)
    records = write_set(folder / "train", examples())
    command = [*command, f"--input_files_dir={records}"]
    plan = pretraining.prepare(parse("pretraining", *command), Communicator())
    tensors = {v.path: v.numpy() for v in plan.task.model.trainable_variables}
    tensors["bert/embeddings/token_type_embeddings"][1] = [3e38, -3e38] * 4
    tf.raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    return folder / "model.ckpt"


@pytest.fixture
def command(weights, tiny_config_file, tmp_path):
    """A command line of 6 steps of 16 records, of which some overflow."""

    def make(name, numbers, *more, steps=6, **batch):
        found = examples()
        for example in found:
            example["segment_ids"] = [0] * 16
        for number in numbers:
            found[number]["segment_ids"][1] = 1
        folder = tmp_path / name / "train"
        if not folder.exists():  # The same records with other flags.
            write_set(folder, found)
        return pretraining_flags(
            *(tiny_config_file, folder, tmp_path / f"{name}-out"),
            *(f"--init_checkpoint={weights}", *FLAGS, *more),
            steps=steps,
            **batch,
        )

    return make


@pytest.fixture
def reader(command):
    """The reader of such a run, whatever its records hold."""
    plan = pretraining.prepare(parse("pretraining", *command("a", [])), Communicator())
    return plan.make_reader()


def numbers_of(reader, step, micro_batch):
    """The numbers of the records of one of 4 micro-batches."""
    return np.split(reader._epochs_and_records(step)[1], 4)[micro_batch].tolist()


def named_records(reader, message):
    """The numbers of the records that a message names."""
    names = re.search(r", records (\S+): mlm_loss", message)[1].split(",")
    return find_records(reader._parser.index, parse_ranges("", names)).tolist()


def test_the_cause_is_named_and_the_step_can_be_skipped(
    command, reader, tmp_path, figure
):
    """In a random record; a run that is stopped and resumed skips in the same way."""
    attempts, named, kept = count(1, 5), 0, 0
    rng = np.random.default_rng(0)
    for attempt in range(attempts):
        step, part = int(rng.integers(6)), int(rng.integers(4))
        micro_batch = numbers_of(reader, step, part)
        plain = command(f"{attempt}", [rng.choice(micro_batch)])
        with pytest.raises(NonFiniteError) as error:
            run("pretraining", *plain)
        message = str(error.value)
        assert f"The gradient of step {step + 1} is not finite" in message
        assert f"micro-batch {part + 1} of 4, records " in message
        assert "mlm_loss is nan, nsp_loss is nan, 46 of 46 gradients" in message
        assert "bert/embeddings/word_embeddings" in message
        named += named_records(reader, message) == sorted(micro_batch)
        skipping = [*plain, "--skip_nonfinite"]
        run("pretraining", *skipping, f"--output_dir={tmp_path}/{attempt}-whole")
        run("pretraining", *skipping, "--overwrite_output_dir", "--steps_this_run=3")
        run("pretraining", *skipping)
        whole, resumed = (
            read_tensors(tmp_path / f"{attempt}-{name}" / "model.ckpt-6")
            for name in ("whole", "out")
        )
        assert_same_bytes(whole, resumed)
        assert all(np.isfinite(array).all() for array in whole.values())
        losses = logged_values(tmp_path / f"{attempt}-whole", "total_loss")
        kept += [s for s, _ in losses] == [s for s in range(1, 7) if s != step + 1]
    figure("steps that are not finite: step, records, tensors named", named, attempts)
    figure("steps that are not finite: skipped, also after a restart", kept, attempts)


@pytest.mark.slow
@pytest.mark.horovod
def test_all_workers_stop_at_the_step_and_report_the_one_that_found_it(
    command, reader, tmp_path, figure
):
    """2 workers x 2 micro-batches x 4 records; the second worker has the record."""
    micro_batch = numbers_of(reader, 2, 3)
    bad = micro_batch[:1]
    runs = {
        "stop": command("set", bad, accumulation=2),
        "skip": [
            *command("set", bad, "--skip_nonfinite", accumulation=2),
            f"--output_dir={tmp_path}/skip",
        ],
    }
    two = run_workers("../faults/records_worker.py", runs, tmp_path, ["-np", "2"])
    stopped = [str(rank["error"]) for rank in two["stop"]]
    assert stopped[0] == stopped[1]
    assert "The gradient of step 3 is not finite" in stopped[0]
    assert re.search(r"Worker 1 on \S+, micro-batch 2 of 2, records ", stopped[0])
    assert "Worker 0" not in stopped[0]
    assert named_records(reader, stopped[0]) == sorted(micro_batch)
    skipped = two["skip"]
    lines = "\n".join(skipped[0]["messages"])
    assert "skipped: The gradient of step 3 is not finite" in lines
    assert "skipped 1 step of this run" in lines
    state = [{n: x for n, x in rank.items() if "/" in n} for rank in skipped]
    assert_same_bytes(*state)
    assert all(np.isfinite(array).all() for array in state[0].values())
    figure("not finite on one worker: all stop at the step, or skip it", 2, 2)
