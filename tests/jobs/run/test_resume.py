"""Where a run starts, what it refuses, and how a checkpoint is loaded."""

import os

import numpy as np
import pytest
import tensorflow as tf
from runs import parse, position

from bert_tf.config import BertConfig
from bert_tf.errors import RunError
from bert_tf.jobs.run.model_files import compare_config
from bert_tf.jobs.run.resume import (
    load_checkpoint,
)
from bert_tf.jobs.run.starting_point import find_starting_point
from bert_tf.training import checkpoints

WEIGHT = "bert/pooler/dense/kernel"


def save(folder, *steps):
    folder.mkdir(exist_ok=True)
    for step in steps:
        checkpoints.save(str(folder), {WEIGHT: tf.zeros([2, 2])}, position(step))
    return folder


def config(output_dir, *more):
    return parse(
        "pretraining",
        "--preset=tiny",
        "--input_files_dir=/a",
        "--eval_files_dir=/a",
        f"--output_dir={output_dir}",
        "--num_train_steps=8",
        *more,
    )


def test_the_newest_checkpoint_wins_and_the_log_names_what_is_not_used(tmp_path):
    save(tmp_path / "run", 3, 5)
    start = find_starting_point(
        config(tmp_path / "run", "--do_train", "--init_checkpoint=/gone")
    )
    assert start.prefix == str(tmp_path / "run" / "model.ckpt-5")
    assert start.position.step == 5
    assert start.notes == (
        "--init_checkpoint=/gone is not used: the run is resumed from output_dir.",
    )


def test_overwriting_is_logged(tmp_path):
    save(tmp_path / "run", 3, 5)
    start = find_starting_point(
        config(tmp_path / "run", "--do_train", "--overwrite_output_dir")
    )
    assert start.prefix == ""
    [note] = start.notes
    assert "(newest: step 5) are deleted when the first new one is complete" in note


def test_a_folder_may_be_named_to_resume_from(tmp_path):
    save(tmp_path / "first", 3, 5)
    start = find_starting_point(
        config(
            tmp_path / "run",
            "--do_train",
            f"--init_checkpoint={tmp_path}/first",
            "--resume",
        )
    )
    assert start.prefix == str(tmp_path / "first" / "model.ckpt-5")
    assert (start.takes_state, start.position.step) == (True, 5)


def test_a_second_phase_that_would_take_no_step_is_refused(tmp_path):
    save(tmp_path / "first", 8)
    named = (f"--init_checkpoint={tmp_path}/first/model.ckpt-8", "--do_train")
    with pytest.raises(ValueError, match="the step of `init_checkpoint`, 8.*Drop --re"):
        find_starting_point(config(tmp_path / "run", *named, "--resume"))
    start = find_starting_point(config(tmp_path / "run", *named))
    assert (start.takes_state, start.position) == (False, None)


def test_state_without_a_manifest_is_logged(tmp_path):
    prefix = save(tmp_path / "first", 5) / "model.ckpt-5"
    os.remove(f"{prefix}.json")
    start = find_starting_point(
        config(
            tmp_path / "run", "--do_train", f"--init_checkpoint={prefix}", "--resume"
        )
    )
    [note] = start.notes
    assert "has no manifest: learning rate, global batch and seed are those of" in note


def test_files_without_an_optimizer_are_not_resumed_from(tmp_path):
    (tmp_path / "model.safetensors").touch()
    named = f"--init_checkpoint={tmp_path}/model.safetensors"
    with pytest.raises(ValueError, match="`resume` takes the state of an optimizer"):
        find_starting_point(config(tmp_path / "run", "--do_train", named, "--resume"))


@pytest.mark.parametrize("action", ["--do_train", "--do_eval"])
def test_the_checkpoint_before_a_damaged_one_is_used_and_both_are_named(
    tmp_path, action
):
    run = save(tmp_path / "run", 3, 5)
    (run / "model.ckpt-5.index").write_bytes(b"")
    start = find_starting_point(config(run, action))
    assert start.prefix == f"{run}/model.ckpt-3" and start.position.step == 3
    [line] = start.notes
    assert "(model.ckpt-5: " in line and f"{run}/model.ckpt-3 is used" in line


def test_if_none_is_whole_all_are_named_and_nothing_starts(tmp_path):
    run = save(tmp_path / "run", 3, 5)
    for step in (3, 5):
        (run / f"model.ckpt-{step}.index").write_bytes(b"")
    for action in ("--do_train", "--do_eval"):
        with pytest.raises(RunError, match="model.ckpt-5: .*; model.ckpt-3: .*"):
            find_starting_point(config(run, action))
    start = find_starting_point(config(run, "--do_train", "--overwrite_output_dir"))
    assert start.prefix == ""


def test_an_evaluation_beside_a_training_takes_the_next_checkpoint(
    tmp_path, monkeypatch
):
    """The training deletes the one that is being read."""
    run = save(tmp_path / "run", 3)
    read = checkpoints.verify

    def read_late(prefix, **more):
        if prefix.endswith("-3"):
            save(run, 5)
            checkpoints.remove(str(run), 3)
            raise ValueError("no file")
        return read(prefix)

    monkeypatch.setattr(checkpoints, "verify", read_late)
    start = find_starting_point(config(run, "--do_eval"))
    assert (start.position.step, start.notes) == (5, ())


BERT = BertConfig(
    vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2
)


def changed(**values):
    return BertConfig(**BERT.to_dict() | values)


def test_equal_configs_make_no_line():
    assert compare_config(BERT, BERT, "c.json") == []
    assert compare_config(None, BERT, "") == []


def test_other_heads_than_the_weights_have_are_refused():
    expected = r"c.json.*num_attention_heads=2\. Received: num_attention_heads=4"
    with pytest.raises(ValueError, match=expected):
        compare_config(BERT, changed(num_attention_heads=4), "c.json")


def test_another_activation_is_a_warning():
    [line] = compare_config(BERT, changed(hidden_act="relu"), "c.json")
    assert line == (
        "warning: hidden_act=relu is used; c.json next to the initial weights has gelu."
    )


def test_names_of_one_activation_are_one():
    assert not compare_config(
        changed(hidden_act="gelu_new"), changed(hidden_act="gelu_tanh"), "c.json"
    )


def test_another_dropout_is_logged():
    [line] = compare_config(BERT, changed(hidden_dropout_prob=0.0), "c.json")
    assert line.startswith("hidden_dropout_prob=0.0 is used; c.json next to")


TENSORS = {
    "bert/pooler/dense/kernel": tf.constant([[1.0, 2.0], [3.0, 4.0]]),
    "bert/pooler/dense/kernel/adam_m": tf.constant([[5.0, 6.0], [7.0, 8.0]]),
}


@pytest.fixture
def saved(tmp_path):
    return checkpoints.save(str(tmp_path), TENSORS, position(7))


def variables():
    weights = {"bert/pooler/dense/kernel": tf.Variable(tf.zeros([2, 2]))}
    slots = {"bert/pooler/dense/kernel/adam_m": tf.Variable(tf.zeros([2, 2]))}
    return weights, slots


def test_weights_and_state_are_loaded(saved):
    weights, slots = variables()
    step, report = load_checkpoint(saved, weights, slots)
    assert (step, report.lines()) == (7, [])
    for name, variable in (weights | slots).items():
        np.testing.assert_array_equal(variable, TENSORS[name])


def test_weights_alone_leave_state_alone(saved):
    weights, slots = variables()
    _, report = load_checkpoint(saved, weights)
    assert not report.lines()  # adam_m is state of the optimizer
    assert not np.any(slots["bert/pooler/dense/kernel/adam_m"])


def test_missing_and_misshaped_names_are_listed_and_nothing_is_changed(saved):
    weights, _ = variables()
    weights["bert/pooler/dense/bias"] = tf.Variable(tf.zeros([2]))
    with pytest.raises(RunError, match=r"dense/bias \(2,\) is missing"):
        load_checkpoint(saved, weights)
    assert not np.any(weights["bert/pooler/dense/kernel"])
    wrong = {"bert/pooler/dense/kernel": tf.Variable(tf.zeros([3, 2]))}
    pattern = r"kernel must have shape \(3, 2\), found \(2, 2\)"
    with pytest.raises(RunError, match=pattern):
        load_checkpoint(saved, wrong)


def test_names_that_the_model_lacks_are_listed(tmp_path):
    tensors = TENSORS | {"cls/squad/output_weights": tf.zeros([2])}
    saved = checkpoints.save(str(tmp_path), tensors, position(7))
    _, report = load_checkpoint(saved, variables()[0])
    assert report.unused == ("cls/squad/output_weights",)


def test_no_checkpoint_is_named(tmp_path):
    with pytest.raises(RunError, match="no file .*bert_model.ckpt.index"):
        load_checkpoint(str(tmp_path / "bert_model.ckpt"), variables()[0])


def test_weights_without_the_state_of_an_optimizer_are_not_resumed(tmp_path):
    saved = checkpoints.save(str(tmp_path), {WEIGHT: TENSORS[WEIGHT]}, position(7))
    weights, slots = variables()
    with pytest.raises(RunError, match="without the state and step of an optimizer"):
        load_checkpoint(saved, weights, slots)
    assert not np.any(weights[WEIGHT])


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
def test_a_damaged_file_is_refused_and_nothing_is_changed(saved, ending):
    with open(saved + ending, "r+b") as file:
        file.write(b"\xff" * 8)
    weights, slots = variables()
    with pytest.raises(RunError, match=f"{saved} cannot be read"):
        load_checkpoint(saved, weights, slots)
    assert not any(np.any(x) for x in (weights | slots).values())


def test_values_that_are_not_finite_are_refused(tmp_path):
    tensors = TENSORS | {WEIGHT: tf.fill([2, 2], float("nan"))}
    saved = checkpoints.save(str(tmp_path), tensors, position(7))
    with pytest.raises(RunError, match="not finite"):
        load_checkpoint(saved, *variables())


AVERAGES = {f"{WEIGHT}/ExponentialMovingAverage": tf.constant([[9.0, 8.0], [7.0, 6.0]])}


def averages():
    return {name: tf.Variable(tf.zeros([2, 2])) for name in AVERAGES}


def test_averages_are_resumed_next_to_the_weights(tmp_path):
    saved = checkpoints.save(str(tmp_path), TENSORS | AVERAGES, position(7))
    weights, slots = variables()
    slots |= averages()
    assert load_checkpoint(saved, weights, slots)[1].lines() == []
    for name, variable in (weights | slots).items():
        np.testing.assert_array_equal(variable, (TENSORS | AVERAGES)[name])


def test_averages_that_a_checkpoint_lacks_start_with_its_weights(saved):
    weights, slots = variables()
    slots |= averages()
    _, report = load_checkpoint(saved, weights, slots)
    assert report.lines() == ["no moving averages in it: they start with its weights"]
    [name] = AVERAGES
    np.testing.assert_array_equal(slots[name], TENSORS[WEIGHT])


def test_a_run_without_averages_takes_the_weights_and_one_without_state_averages(
    tmp_path,
):
    saved = checkpoints.save(str(tmp_path), TENSORS | AVERAGES, position(7))
    weights, slots = variables()
    assert load_checkpoint(saved, weights, slots)[1].lines() == []
    np.testing.assert_array_equal(weights[WEIGHT], TENSORS[WEIGHT])
    _, report = load_checkpoint(saved, weights)
    assert report.lines() == [
        "its moving averages (--ema_decay) are used as the weights"
    ]
    np.testing.assert_array_equal(weights[WEIGHT], *AVERAGES.values())
