"""Checkpoints are written while the training continues, one at a time, and once."""

import os
import threading
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.config.saving import SavingConfig
from bert_tf.errors import RunError
from bert_tf.jobs.run import saving
from bert_tf.jobs.run.saving import CheckpointSaver
from bert_tf.jobs.run.starting_point import StartingPoint
from bert_tf.tf_checkpoint import load_tf
from bert_tf.training import checkpoints
from bert_tf.training.runlog import RunLog

WEIGHT = "bert/pooler/dense/bias"


class Log(RunLog):
    def __init__(self):
        self.saves, self.lines = [], []

    def saved(self, step, values):
        self.saves.append(step)

    def message(self, text):
        self.lines.append(text)


@pytest.fixture
def run(tmp_path):
    """A run with one weight, which saves every other step."""
    weight = types.SimpleNamespace(path=WEIGHT, value=tf.Variable(tf.zeros([2])))
    files = types.SimpleNamespace(
        output_dir=str(tmp_path), overwrite_output_dir=False, keep_checkpoint_max=9
    )
    training = types.SimpleNamespace(
        save_checkpoints_steps=2, save_checkpoints_minutes=0.0
    )
    plan = types.SimpleNamespace(
        config=types.SimpleNamespace(
            files=files, training=training, saving=SavingConfig()
        ),
        start=StartingPoint(),
        step=0,
        task=types.SimpleNamespace(
            model=types.SimpleNamespace(trainable_variables=[weight])
        ),
        optimizer=types.SimpleNamespace(slots=dict),
        averages=None,
        shape=types.SimpleNamespace(global_batch_size=16),
        learning_rate=0.1,
        seed=1,
        training_set=types.SimpleNamespace(
            num_records=32, sha256="", is_packed=False, sequences_per_record=1.0
        ),
        settings=dict,
        fingerprint={},
        clock=None,
        model_files={},
    )
    reader = types.SimpleNamespace(position=lambda step: 16 * step)
    log = Log()
    with CheckpointSaver(plan, reader, None, log) as saver:
        yield types.SimpleNamespace(
            saver=saver,
            plan=plan,
            log=log,
            variable=weight.value,
            folder=str(tmp_path),
            reader=reader,
        )


@pytest.fixture
def gate(monkeypatch):
    """Holds every write until it is opened."""
    opened, save = threading.Event(), checkpoints.save

    def wait(*arguments, **more):
        assert opened.wait(timeout=30)
        return save(*arguments, **more)

    monkeypatch.setattr(checkpoints, "save", wait)
    yield opened
    opened.set()


def saved_value(run, step):
    values = load_tf(f"{run.folder}/model.ckpt-{step}", lambda shapes: [WEIGHT])
    return float(values[WEIGHT][0])


def take_step(run, step, *, is_last=False):
    run.variable.assign([step, step])
    run.saver.before_report(step)
    run.saver.after_step(step, is_last=is_last)


def test_the_state_of_its_step_is_saved_while_later_ones_are_taken(run, gate):
    for step in (1, 2, 3):
        take_step(run, step)
    assert checkpoints.committed_steps(run.folder) == []
    gate.set()
    run.saver.wait()
    assert checkpoints.committed_steps(run.folder) == [2]
    assert saved_value(run, 2) == 2.0
    assert run.log.saves == [2]


def test_a_second_save_waits_for_the_first(run, gate):
    take_step(run, 2)
    threading.Timer(0.1, gate.set).start()
    take_step(run, 4)
    assert checkpoints.committed_steps(run.folder)[0] == 2
    run.saver.wait()
    assert [saved_value(run, step) for step in (2, 4)] == [2.0, 4.0]
    assert run.log.saves == [2, 4]


def test_the_last_checkpoint_is_complete_when_the_training_ends(run):
    take_step(run, 3, is_last=True)
    assert checkpoints.committed_steps(run.folder) == [3]
    assert saved_value(run, 3) == 3.0


def test_a_step_is_saved_at_once_whatever_is_being_written(run, gate):
    take_step(run, 2)
    run.variable.assign([3, 3])
    threading.Timer(0.1, gate.set).start()
    run.saver.save_now(3)
    assert checkpoints.committed_steps(run.folder) == [2, 3]
    assert [saved_value(run, step) for step in (2, 3)] == [2.0, 3.0]


def test_a_step_that_is_being_saved_is_not_saved_again(run, gate):
    take_step(run, 2)
    threading.Timer(0.1, gate.set).start()
    run.saver.save_now(2)
    run.saver.save_now(2)
    assert checkpoints.committed_steps(run.folder) == [2]
    assert run.log.saves == [2]


def test_a_resumed_run_that_takes_no_step_saves_nothing(run):
    run.plan.start, run.plan.step = StartingPoint(is_own=True), 6
    CheckpointSaver(run.plan, run.reader, None, run.log).save_now(6)
    assert run.log.saves == []


def fail(*arguments, **more):
    raise RunError("The disk is full.")


def test_an_error_while_writing_ends_the_training_at_the_next_step(run, monkeypatch):
    monkeypatch.setattr(checkpoints, "save", fail)
    take_step(run, 2)
    deadline = time.monotonic() + 10
    with pytest.raises(RunError, match="The disk is full"):
        while time.monotonic() < deadline:
            take_step(run, 3)
    take_step(run, 5)  # It is raised once.


def test_an_error_while_writing_the_last_checkpoint_is_raised(run, monkeypatch):
    monkeypatch.setattr(checkpoints, "save", fail)
    with pytest.raises(RunError, match="The disk is full"):
        take_step(run, 3, is_last=True)


def test_another_error_ends_the_training_after_what_is_being_written(run, gate):
    saver = CheckpointSaver(run.plan, run.reader, None, run.log)
    threading.Timer(0.1, gate.set).start()
    with pytest.raises(ValueError, match="another"), saver:
        saver.save(2)
        raise ValueError("another")
    assert checkpoints.committed_steps(run.folder) == [2]


def test_another_error_is_not_hidden_by_that_of_a_save(run, monkeypatch):
    monkeypatch.setattr(checkpoints, "save", fail)
    saver = CheckpointSaver(run.plan, run.reader, None, run.log)
    with pytest.raises(ValueError, match="another"), saver:
        saver.save(2)
        raise ValueError("another")
    assert run.log.lines == ["warning: The disk is full."]


def test_a_slow_run_is_saved_by_the_minute(run, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    run.plan.config.training.save_checkpoints_steps = 1000
    run.plan.config.training.save_checkpoints_minutes = 30.0
    saver = CheckpointSaver(run.plan, run.reader, None, run.log)
    # Minutes -> the steps that have been saved when they have passed.
    for step, (minutes, saved) in enumerate(
        [(10, []), (29, []), (31, [3]), (60, [3]), (61, [3, 5]), (62, [3, 5])], 1
    ):
        now[0] = 60.0 * minutes
        saver.after_step(step, is_last=False)
        saver.wait()
        assert checkpoints.committed_steps(run.folder) == saved
    run.plan.config.training.save_checkpoints_minutes = 0.0
    now[0] = 1e9
    saver.after_step(7, is_last=False)
    saver.wait()
    assert checkpoints.committed_steps(run.folder) == [3, 5]


def test_old_checkpoints_are_deleted_after_the_new_one(run):
    run.plan.config.files.keep_checkpoint_max = 2
    for step in (2, 4, 6):
        take_step(run, step)
    run.saver.wait()
    assert checkpoints.committed_steps(run.folder) == [4, 6]


def test_the_first_checkpoint_replaces_what_an_earlier_run_left(run, gate):
    best = f"{run.folder}/best"
    os.mkdir(best)
    for name in ("bert_config.json", "task.json", "best/best.json"):
        with open(f"{run.folder}/{name}", "w") as file:
            file.write("earlier")
    run.plan.model_files = {"bert_config.json": b"new", "task.json": None}
    take_step(run, 2)
    assert set(os.listdir(run.folder)) == {"bert_config.json", "task.json", "best"}
    assert os.listdir(best) == ["best.json"]
    gate.set()
    run.saver.wait()
    assert open(f"{run.folder}/bert_config.json").read() == "new"
    assert not os.path.exists(f"{run.folder}/task.json")
    assert os.listdir(best) == []


def test_a_run_without_a_checkpoint_is_saved_before_its_best_weights(run):
    run.saver.save_first(1)
    assert checkpoints.committed_steps(run.folder) == [1]
    run.saver.save_first(3)
    assert checkpoints.committed_steps(run.folder) == [1]


def test_a_sharded_state_is_saved_at_the_steps_for_which_it_was_gathered(run):
    shards = types.SimpleNamespace(gathered=None)
    saver = CheckpointSaver(run.plan, run.reader, None, run.log, shards)
    moment, step = f"{WEIGHT}/adam_m", 2
    assert saver.is_due(step)  # All workers must know it first.
    saver.after_step(step, is_last=False)
    shards.gathered = {moment: np.asarray([5.0, 6.0], np.float32)}
    saver.after_step(3, is_last=False)
    saver.wait()
    assert checkpoints.committed_steps(run.folder) == [3]
    found = load_tf(f"{run.folder}/model.ckpt-3", lambda shapes: [moment])
    np.testing.assert_array_equal(found[moment], [5.0, 6.0])
