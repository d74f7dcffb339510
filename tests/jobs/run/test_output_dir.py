import types

import pytest
from runs import position

from bert_tf.jobs.run.output_dir import (
    PRETRAINING,
    FolderTask,
    require_same_task,
    squad_task,
)
from bert_tf.jobs.run.resume import StartingPoint

MRPC = FolderTask("classify", "MRPC")
SETTINGS = {
    "pretraining": {"files": {}},
    "squad": {"squad": {"version_2_with_negative": False}},
    "classify": {"task": {"task_name": "mrpc"}},
}


def check(known, task, *, do_train=True):
    """Resumes `task` in /used, whose newest manifest is of `known`."""
    manifest = position(config=SETTINGS[known])
    start = StartingPoint("/used/model.ckpt-3", True, manifest, is_own=True)
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


def test_pretraining_is_not_advised_to_start_from_weights_without_its_heads():
    with pytest.raises(
        ValueError, match="Pass another --output_dir, or --overw"
    ) as caught:
        check("classify", FolderTask(PRETRAINING))
    assert "--init_checkpoint" not in str(caught.value)


def test_other_classes_are_advised_a_new_head():
    wanted = "--init_checkpoint=/used .and --new_head for other classes. to start"
    with pytest.raises(ValueError, match=wanted):
        check("classify", FolderTask("classify", "RTE"))
    with pytest.raises(ValueError, match="--init_checkpoint=/used to start"):
        check("squad", MRPC)


def test_without_training_another_folder_is_advised():
    wanted = r"Pass an --output_dir with checkpoints of classification \(MRPC\)\."
    with pytest.raises(ValueError, match=wanted):
        check("pretraining", MRPC, do_train=False)
