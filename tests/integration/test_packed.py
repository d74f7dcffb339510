"""Packed = unpacked: the same losses and gradients; training and evaluation run."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import make_example, write_records
from runs import run

from bert_tf.config.data import PackDataConfig
from bert_tf.data.commands.pack import pack_records
from bert_tf.data.records.record_set import open_records
from bert_tf.data.records.schema import ValueLimits
from bert_tf.distribute import Communicator
from bert_tf.errors import RunError
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.training.gradients import GradientAccumulator, GradientSettings

LIMITS = ValueLimits(vocab_size=30, type_vocab_size=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """64 records of 4 or more tokens in rows of 16, unpacked and packed."""
    top = tmp_path_factory.mktemp("sets")
    (top / "unpacked").mkdir()
    rng = np.random.default_rng(11)
    examples = []
    for _ in range(64):
        example = make_example(rng, max_seq_length=8, max_predictions=2)
        for name in ("input_ids", "input_mask", "segment_ids"):
            example[name] += [0] * 8
        examples.append(example)
    write_records(top / "unpacked" / "part-0", examples)
    config = PackDataConfig(
        input_dir=str(top / "unpacked"), output_dir=str(top / "packed"), num_processes=1
    )
    metadata = pack_records(config)
    assert metadata.avg_seq_per_sample > 1.5
    return top


@pytest.fixture(scope="module")
def task(tiny_config):
    model = build_pretraining_model(
        tiny_config.without_dropout(), seed=1, seeded_dropout=True
    )
    return PretrainingTask(model)


def whole_set(folder):
    records = open_records(str(folder), LIMITS)
    features = records.parser(np.arange(len(records)))
    return {name: tf.constant(array) for name, array in features.items()}


def test_losses_and_accuracies_are_those_of_the_unpacked_set(folders, task):
    packed, unpacked = (
        task.evaluation_sums(whole_set(folders / name)).numpy()
        for name in ("packed", "unpacked")
    )
    assert unpacked[1, 2] == 64
    np.testing.assert_allclose(packed, unpacked, rtol=1e-5)


def test_gradients_are_those_of_the_unpacked_set(folders, task):
    results = []
    for name in ("packed", "unpacked"):
        batch = {n: x[None] for n, x in whole_set(folders / name).items()}
        accumulator = GradientAccumulator(task, Communicator(), GradientSettings())
        gradients, _ = tf.function(accumulator)(batch, tf.constant(0))
        results.append([g.numpy() for g in gradients])
    for ours, theirs in zip(*results, strict=True):
        error = np.linalg.norm(ours - theirs)
        assert error <= max(1e-5 * np.linalg.norm(theirs), 1e-7)


def test_one_sequence_does_not_reach_the_others(folders, task):
    """Every token of the first sequence of each row is changed."""
    features = whole_set(folders / "packed")
    is_first = features["input_mask"] == 1
    changed = tf.where(is_first, 29 - features["input_ids"], features["input_ids"])

    def logits(ids):
        inputs = features | {"input_ids": ids}
        rows = len(ids)
        inputs["dropout_seed"] = tf.zeros([rows, 3], tf.int32)
        names = [tensor.name for tensor in task.model.inputs]
        return task.model({name: inputs[name] for name in names})

    before, after = logits(features["input_ids"]), logits(changed)
    pairs = (
        before["next_sentence_logits"].numpy(),
        after["next_sentence_logits"].numpy(),
    )
    is_later = features["next_sentence_weights"].numpy()[:, 1:] > 0
    np.testing.assert_array_equal(pairs[0][:, 1:][is_later], pairs[1][:, 1:][is_later])
    assert (pairs[0][:, 0] != pairs[1][:, 0]).all()
    owner = np.take_along_axis(
        features["input_mask"].numpy(), features["masked_lm_positions"].numpy(), 1
    )
    is_other = (features["masked_lm_weights"].numpy() > 0) & (owner > 1)
    assert is_other.any()
    np.testing.assert_array_equal(
        before["masked_lm_logits"].numpy()[is_other],
        after["masked_lm_logits"].numpy()[is_other],
    )


@pytest.mark.slow
def test_training_takes_fewer_micro_batches(
    folders, tiny_config_file, tmp_path, capsys
):
    arguments = [
        f"--bert_config_file={tiny_config_file}",
        f"--input_files_dir={folders}/packed",
        f"--eval_files_dir={folders}/packed",
        f"--output_dir={tmp_path}",
        "--do_train",
        "--do_eval",
        "--train_batch_size=2",
        "--num_accumulation_steps=6",
        "--num_train_steps=4",
        "--max_predictions_per_seq=2",
    ]
    results = run("pretraining", *arguments)
    assert results["next_sentence_count"] == 64
    text = capsys.readouterr().out
    records = open_records(f"{folders}/packed", LIMITS)
    steps = round(6 / records.avg_seq_per_sample)
    assert steps < 6
    assert f"x 2 records per micro-batch x {steps} accumulation" in text
    assert f"accumulation 6 -> {steps}" in text


@pytest.fixture
def train(folders, tiny_config_file, tmp_path):
    """Takes one step in a folder, on a set and with a batch size."""

    def train(name, batch_size):
        arguments = [
            f"--bert_config_file={tiny_config_file}",
            f"--input_files_dir={folders / name}",
            f"--output_dir={tmp_path}",
            f"--train_batch_size={batch_size}",
            "--num_train_steps=4",
            "--steps_this_run=1",
            "--do_train",
        ]
        run("pretraining", *arguments)

    return train


@pytest.mark.slow
def test_a_run_on_packed_records_does_not_resume_with_plain_ones(train):
    """Its global batch, kept in records, would hold half the sequences."""
    train("packed", 4)
    with pytest.raises(RunError, match="a run on packed records. Received: records th"):
        train("unpacked", 4)
    train("packed", 4)


@pytest.mark.slow
def test_packed_records_that_are_fewer_than_a_batch_are_refused_as_packed(train):
    """A smaller batch, the advice about too few records, would not help."""
    train("unpacked", 60)
    with pytest.raises(RunError, match="Received: packed records, with which a step"):
        train("packed", 60)
