"""The best checkpoint and its note agree, wherever a run is killed."""

import json
import os
import shutil
import types

import pytest
import tensorflow as tf
from crashing import crash_points
from runs import position

from bert_tf.errors import RunError
from bert_tf.jobs.run.best_checkpoint import FORGET_BEST, BestCheckpoint
from bert_tf.jobs.run.resume import StartingPoint
from bert_tf.training import checkpoints

DESCRIPTION = {"bert_config.json", "vocab.txt", "tokenizer_config.json", "task.json"}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A run with one weight."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # Of no use here, slow.
    weight = types.SimpleNamespace(path="bert/pooler/dense/bias", value=tf.zeros([2]))
    return types.SimpleNamespace(
        config=types.SimpleNamespace(
            files=types.SimpleNamespace(output_dir=str(tmp_path / "run"))
        ),
        start=StartingPoint(is_own=True),
        model_files={name: name.encode() for name in DESCRIPTION},
        task=types.SimpleNamespace(
            model=types.SimpleNamespace(trainable_variables=[weight])
        ),
        shape=types.SimpleNamespace(global_batch_size=16),
        learning_rate=0.1,
        seed=1,
        training_set=types.SimpleNamespace(num_records=32),
    )


def reset(plan, step):
    """A folder whose best checkpoint is of some step."""
    folder = plan.config.files.output_dir
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for name in DESCRIPTION:
        with open(os.path.join(folder, name), "w") as file:
            file.write(name)
    BestCheckpoint(plan, "f1", 0).offer(step, {"f1": 50.0})


@pytest.mark.slow
def test_an_offer_that_is_killed_anywhere_is_made_again(plan):
    best = f"{plan.config.files.output_dir}/best"
    for _ in crash_points(
        plan.config.files.output_dir,
        lambda: reset(plan, 5),
        lambda: BestCheckpoint(plan, "f1", 0).offer(9, {"f1": 60.0}),
    ):
        checkpoints.remove_leftovers(best)
        again = BestCheckpoint(plan, "f1", 0)
        assert again.last_step in (5, 9)
        again.offer(9, {"f1": 60.0})
        assert set(os.listdir(best)) == {
            *DESCRIPTION,
            *("best.json", "checkpoint", "model.ckpt-9.json"),
            *("model.ckpt-9.data-00000-of-00001", "model.ckpt-9.index"),
        }
        with open(f"{best}/best.json") as file:
            assert json.load(file) == {"step": 9, "f1": 60.0, "last_step": 9}


def test_a_note_without_its_checkpoint_is_found_at_the_start(plan):
    reset(plan, 5)
    best = f"{plan.config.files.output_dir}/best"
    os.remove(f"{best}/model.ckpt-5.json")
    with pytest.raises(RunError, match="names step 5, but there is no .*ckpt-5.json"):
        BestCheckpoint(plan, "f1", 0)
    shutil.rmtree(best)  # As the message advises.
    assert BestCheckpoint(plan, "f1", 0).last_step == 0


def test_damaged_best_weights_are_found_at_the_start(plan):
    reset(plan, 5)
    index = f"{plan.config.files.output_dir}/best/model.ckpt-5.index"
    with open(index, "wb") as file:
        file.write(b"damaged")
    with pytest.raises(RunError, match="is damaged: .*must have sha256"):
        BestCheckpoint(plan, "f1", 0)


@pytest.mark.parametrize(
    "note",
    [
        "[]",
        '{"step": "abc", "f1": 1.0, "last_step": 5}',
        '{"step": 5, "f1": NaN, "last_step": 5}',
        '{"step": 5, "f1": 1.0}',
    ],
)
def test_a_damaged_note_is_found_at_the_start(plan, note):
    reset(plan, 5)
    with open(f"{plan.config.files.output_dir}/best/best.json", "w") as file:
        file.write(note)
    with pytest.raises(RunError, match="best.json is damaged"):
        BestCheckpoint(plan, "f1", 0)


def test_the_best_of_a_run_that_is_replaced_is_forgotten(plan):
    reset(plan, 5)
    folder = plan.config.files.output_dir
    weights = {"bert/pooler/dense/bias": tf.zeros([2])}
    checkpoints.save(folder, weights, position(3), beside=FORGET_BEST)
    assert BestCheckpoint(plan, "f1", 0).last_step == 0
    # There is none any more.
    checkpoints.save(folder, weights, position(4), beside=FORGET_BEST)
