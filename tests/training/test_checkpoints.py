import json
import os

import numpy as np
import pytest
import tensorflow as tf
from runs import position

from bert_tf.errors import RunError
from bert_tf.training import checkpoints

TENSORS = {
    "bert/pooler/dense/kernel": tf.constant([[1.0, 2.0], [3.0, 4.0]]),
    "bert/pooler/dense/kernel/adam_m": tf.constant([[5.0, 6.0], [7.0, 8.0]]),
}


@pytest.fixture
def saved(tmp_path):
    return checkpoints.save(str(tmp_path), TENSORS, position(7))


def test_other_tools_read_names_and_values(saved, tmp_path):
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path)))
    assert set(reader.get_variable_to_shape_map()) == {*TENSORS, "global_step"}
    assert reader.get_tensor("global_step") == 7
    assert reader.get_tensor("global_step").dtype == np.int64
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(reader.get_tensor(name), value)


def test_the_position_is_read_back(saved):
    assert checkpoints.read_manifest(saved) == position(7)
    assert checkpoints.step_of(saved) == 7


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "removed"])
def test_damaged_files_are_found(saved, ending, damage):
    path = saved + ending
    content = bytearray(open(path, "rb").read())
    if damage == "removed":
        os.remove(path)
    else:
        content[len(content) // 2] ^= 1
        content = content[: len(content) // 2] if damage == "cut" else content
        open(path, "wb").write(content)
    with pytest.raises(RunError, match=rf"{path} must have sha256"):
        checkpoints.read_manifest(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {}, "format": 1}'])
def test_a_garbled_manifest_is_named(saved, text):
    open(f"{saved}.json", "w").write(text)
    with pytest.raises(RunError, match="is not a checkpoint manifest"):
        checkpoints.read_manifest(saved)


@pytest.mark.parametrize("stage", ["tensors", "renamed", "manifest"])
def test_an_interrupted_save_does_not_count_and_is_swept(
    saved, tmp_path, monkeypatch, stage
):
    class Interrupted(BaseException):
        pass

    replace = os.replace

    def interrupt(source, target):
        is_manifest = target.endswith("-9.json")
        if stage == "tensors" or (stage == "manifest" and is_manifest):
            raise Interrupted
        replace(source, target)
        if stage == "renamed" and target.endswith(".index"):
            raise Interrupted

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(Interrupted):
        checkpoints.save(str(tmp_path), TENSORS, position(9))
    monkeypatch.undo()
    assert checkpoints.committed_steps(str(tmp_path)) == [7]
    checkpoints.remove_leftovers(str(tmp_path))
    names = {name for name in os.listdir(tmp_path) if "-7" not in name}
    assert names == {"checkpoint"}
    assert tf.train.latest_checkpoint(str(tmp_path)) == saved


def test_an_interrupted_removal_is_finished_later(saved, tmp_path, monkeypatch):
    class Interrupted(BaseException):
        pass

    remove = os.remove

    def interrupt(path):
        remove(path)
        raise Interrupted

    monkeypatch.setattr(os, "remove", interrupt)
    with pytest.raises(Interrupted):
        checkpoints.remove(str(tmp_path), 7)
    monkeypatch.undo()
    assert checkpoints.committed_steps(str(tmp_path)) == []
    assert checkpoints.foreign_checkpoints(str(tmp_path)) == []
    checkpoints.remove_leftovers(str(tmp_path))
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_a_manifest_of_a_newer_format_is_refused(saved):
    values = json.load(open(f"{saved}.json")) | {"format": 99}
    json.dump(values, open(f"{saved}.json", "w"))
    with pytest.raises(RunError, match="of another format"):
        checkpoints.read_manifest(saved)


def test_checkpoints_of_other_programs_are_not_swept(saved, tmp_path):
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "model.ckpt-100"),
        tensor_names=["a"],
        shape_and_slices=[""],
        tensors=[tf.zeros([1])],
    )
    checkpoints.remove_leftovers(str(tmp_path))
    assert checkpoints.foreign_checkpoints(str(tmp_path)) == ["model.ckpt-100"]
    assert (tmp_path / "model.ckpt-100.index").exists()


def test_manifest_has_the_position_of_the_run(saved):
    values = json.load(open(f"{saved}.json"))
    assert values["step"] == 7
    assert values["records"] == 112
    assert set(values["files"]) == {
        "model.ckpt-7.index",
        "model.ckpt-7.data-00000-of-00001",
    }
