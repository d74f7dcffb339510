import json
import os

import numpy as np
import pytest
import tensorflow as tf
from runs import position

from bert_tf.errors import RunError
from bert_tf.training import checkpoints, manifest

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
    expected = "its files must be" if damage == "removed" else f"{path} must have sha"
    with pytest.raises(RunError, match=f"{saved} is damaged: {expected}"):
        checkpoints.read_manifest(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {}, "format": 1}'])
def test_a_garbled_manifest_is_named(saved, text):
    open(f"{saved}.json", "w").write(text)
    with pytest.raises(RunError, match="is not a checkpoint manifest"):
        checkpoints.read_manifest(saved)


@pytest.mark.parametrize("ending", ["json", "index", "data-00000-of-00001"])
def test_a_folder_in_the_place_of_a_file_is_damage(saved, ending):
    os.remove(f"{saved}.{ending}")
    os.mkdir(f"{saved}.{ending}")
    with pytest.raises(RunError, match=f"ckpt-7.{ending} is not a file"):
        checkpoints.read_manifest(saved)


def edit(saved, change, version=1):
    """Changes the values of a manifest, as of a version without its own checksum."""
    values = json.load(open(f"{saved}.json")) | {"format": version}
    if version == 1:
        del values["sha256"]
    change(values)
    json.dump(values, open(f"{saved}.json", "w"))


def test_a_manifest_of_an_earlier_version_has_no_checksum(saved):
    edit(saved, lambda values: [values.pop("is_packed"), values.pop("data_sha256")])
    assert checkpoints.read_manifest(saved) == position(7)


@pytest.mark.parametrize(
    "name, value",
    [
        *(("step", x) for x in (-1, 7.0, "7", None, True, 2**63, [7])),
        *(("records", x) for x in (-1, 1.5, "16", None)),
        *(("learning_rate", x) for x in (-0.1, float("nan"), float("inf"), "1")),
        *(("loss_scale", x) for x in (-1.0, float("inf"), "2")),
        *(("global_batch_size", x) for x in (0, -4, 1.0)),
        *(("seed", -1), ("num_records", -1), ("num_finite_steps", -1)),
        *(("is_packed", 1), ("data_sha256", 5), ("config", []), ("unknown", 1)),
    ],
)
def test_a_manifest_with_a_value_that_cannot_be_is_refused(saved, name, value):
    edit(saved, lambda values: values.update({name: value}))
    with pytest.raises(RunError, match=f"is not a checkpoint manifest: .*{name}"):
        checkpoints.read_manifest(saved)


@pytest.mark.parametrize("name", ["step", "records", "learning_rate", "files"])
def test_a_manifest_without_a_value_is_refused(saved, name):
    edit(saved, lambda values: values.pop(name))
    with pytest.raises(RunError, match="is not a checkpoint manifest"):
        checkpoints.read_manifest(saved)


def test_any_change_of_a_manifest_is_found_by_its_checksum(saved):
    content = bytearray(open(f"{saved}.json", "rb").read())
    for index in range(0, len(content), 3):
        changed = bytearray(content)
        changed[index] ^= 1
        open(f"{saved}.json", "wb").write(changed)
        with pytest.raises(RunError, match="is not a checkpoint manifest"):
            checkpoints.read_manifest(saved)
    open(f"{saved}.json", "wb").write(content)
    edit(saved, lambda values: values.pop("sha256"), version=2)
    with pytest.raises(RunError, match="its own sha256 differs"):
        checkpoints.read_manifest(saved)


def test_another_step_than_that_of_name_and_tensor_is_refused(saved, tmp_path):
    edit(saved, lambda values: values.update(step=6))
    with pytest.raises(RunError, match="must have one step. Received: 6, 7"):
        checkpoints.read_manifest(saved)
    checkpoints.save(str(tmp_path), TENSORS, position(7))
    edit(saved, lambda values: values.update(step=8))
    for ending in ("json", "index", "data-00000-of-00001"):
        os.rename(f"{saved}.{ending}", tmp_path / f"model.ckpt-8.{ending}")
    values = (tmp_path / "model.ckpt-8.json").read_text()
    (tmp_path / "model.ckpt-8.json").write_text(values.replace("ckpt-7", "ckpt-8"))
    with pytest.raises(RunError, match="must have one step. Received: 7, 8"):
        checkpoints.read_manifest(str(tmp_path / "model.ckpt-8"))


@pytest.mark.parametrize("name", ["../a.index", "/etc/passwd", "model.ckpt-8.index"])
def test_files_that_are_not_of_the_checkpoint_are_refused(saved, name):
    edit(saved, lambda values: values["files"].update({name: "0" * 64}))
    with pytest.raises(RunError, match=f"its manifest lists .*{name}"):
        checkpoints.read_manifest(saved)


def test_a_tensor_file_that_the_manifest_does_not_list_is_found(saved):
    edit(saved, lambda values: values["files"].pop("model.ckpt-7.index"))
    with pytest.raises(RunError, match="its files must be"):
        checkpoints.read_manifest(saved)


def test_a_user_s_file_of_a_like_name_is_no_damage(saved):
    open(f"{saved}.data-notes.txt", "w").close()
    assert checkpoints.read_manifest(saved) == position(7)


def test_what_is_set_aside_is_never_taken_for_a_checkpoint(saved, tmp_path):
    names = checkpoints.checkpoint_files(str(tmp_path))[7]
    moved = checkpoints.set_aside(str(tmp_path), names)
    assert moved == str(tmp_path / "damaged-model.ckpt-7")
    assert sorted(os.listdir(moved)) == sorted(names)
    assert checkpoints.checkpoint_files(str(tmp_path)) == {}
    checkpoints.save(str(tmp_path), TENSORS, position(7))
    assert checkpoints.set_aside(str(tmp_path), names) == f"{moved}-2"


@pytest.fixture
def hashed(monkeypatch):
    """The files whose sha256 is computed."""
    found, compute = [], manifest.file_sha256
    monkeypatch.setattr(
        manifest, "file_sha256", lambda path: found.append(path) or compute(path)
    )
    manifest._known_sha256.cache_clear()
    return found


def test_files_that_stay_are_hashed_once(saved, hashed, monkeypatch):
    monkeypatch.setattr(manifest, "_SETTLED_NS", 0)
    for _ in range(3):
        checkpoints.verify(saved)
    assert len(hashed) == len(set(hashed)) == 2


def test_files_that_change_are_hashed_again(saved, hashed, monkeypatch):
    monkeypatch.setattr(manifest, "_SETTLED_NS", 0)
    checkpoints.verify(saved)
    with open(f"{saved}.data-00000-of-00001", "r+b") as file:
        file.write(b"x")
    os.utime(f"{saved}.data-00000-of-00001", ns=(1, 1))
    with pytest.raises(ValueError, match="must have sha256"):
        checkpoints.verify(saved)


def test_files_of_this_moment_are_hashed_each_time(saved, hashed):
    checkpoints.verify(saved)
    checkpoints.verify(saved)
    assert len(hashed) == 4


def test_the_other_workers_of_a_host_compute_no_hashes(saved, hashed):
    assert checkpoints.verify(saved, hashes=False) == checkpoints.verify(saved)
    assert len(hashed) == 2


def test_a_trial_leaves_nothing(tmp_path):
    checkpoints.try_save(str(tmp_path), TENSORS, position(7))
    assert os.listdir(tmp_path) == []


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
