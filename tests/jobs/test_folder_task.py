import types

import pytest

from bert_tf.jobs.folder_task import (
    PRETRAINING,
    FolderTask,
    require_same_task,
    squad_task,
)
from bert_tf.jobs.starting_point import StartingPoint
from bert_tf.training.checkpoints import RunPosition

MRPC = FolderTask("classify", "MRPC")
SETTINGS = {
    "pretraining": {"files": {}},
    "squad": {"squad": {"version_2_with_negative": False}},
    "classify": {"task": {"task_name": "mrpc"}},
}


def check(known, task, *, do_train=True):
    """Goes on with `task` in /used, whose newest manifest is of `known`."""
    position = RunPosition(
        step=3,
        records=48,
        global_batch_size=16,
        learning_rate=0.01,
        seed=42,
        num_records=150,
        config=SETTINGS[known],
    )
    start = StartingPoint("/used/model.ckpt-3", True, position, is_own=True)
    config = types.SimpleNamespace(
        files=types.SimpleNamespace(output_dir="/used"),
        training=types.SimpleNamespace(do_train=do_train),
    )
    require_same_task(config, start, task)


def test_the_same_task_passes():
    check("pretraining", FolderTask(PRETRAINING))
    check("squad", squad_task(False))
    check("classify", MRPC)


def test_both_tasks_are_named():
    wanted = r"/used with those of classification \(mrpc\), for SQuAD \(1.1\)\."
    with pytest.raises(ValueError, match=wanted):
        check("classify", squad_task(False))


def test_pretraining_is_not_told_to_start_from_weights_without_its_heads():
    with pytest.raises(ValueError, match="Name another output_dir, or add") as caught:
        check("classify", FolderTask(PRETRAINING))
    assert "--init_checkpoint" not in str(caught.value)


def test_a_head_of_other_classes_is_thought_of():
    wanted = "--init_checkpoint=/used .and --new_head for other classes. to start"
    with pytest.raises(ValueError, match=wanted):
        check("classify", FolderTask("classify", "RTE"))
    with pytest.raises(ValueError, match="--init_checkpoint=/used to start"):
        check("squad", MRPC)


def test_without_training_another_folder_is_asked_for():
    wanted = r"Name an output_dir with checkpoints of classification \(MRPC\)\."
    with pytest.raises(ValueError, match=wanted):
        check("pretraining", MRPC, do_train=False)
