"""A save that is killed at any point leaves a folder that the next run puts right."""

import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from crashing import crash_points
from runs import position

from bert_tf.jobs.run.resume import load_checkpoint
from bert_tf.training import checkpoints

NAME = "bert/pooler/dense/kernel"
KNOWN = re.compile(r"model\.ckpt-\d+\.(index|json|data-00000-of-00001)|checkpoint")


def tensors(value):
    return {NAME: tf.fill([2, 2], float(value))}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that can be set to its first state; SaveV2 without threads, in parts."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # Of no use here, slow.
    made = tmp_path / "made"
    files = {}
    for step in (3, 5, 9):
        made.mkdir()
        prefix = checkpoints.save(str(made), tensors(step), position(step))
        for ending in (".data-00000-of-00001", ".index"):
            with open(prefix + ending, "rb") as file:
                files[step, ending] = file.read()
        shutil.rmtree(made)
    real = tf.raw_ops.SaveV2

    def save_in_parts(*, prefix, tensors, **_):
        """As TensorFlow's: each file under a third name, written, then renamed."""
        step = int(max(np.max(tensor.numpy()) for tensor in tensors))
        for ending in (".data-00000-of-00001", ".index"):
            content = files[step, ending]
            unfinished = f"{prefix}{ending}.tempstate1234"
            for part in (content[:20], content[20:]):
                with open(unfinished, "ab") as file:
                    file.write(part)
            os.rename(unfinished, prefix + ending)

    work = tmp_path / "work"

    def reset(*steps):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        monkeypatch.setattr(tf.raw_ops, "SaveV2", real)
        for step in steps:
            checkpoints.save(str(work), tensors(step), position(step))
        monkeypatch.setattr(tf.raw_ops, "SaveV2", save_in_parts)
        return work

    yield work, reset


def check(work, allowed):
    """What the next run finds, after it has swept."""
    checkpoints.remove_leftovers(str(work))
    names = os.listdir(work)
    assert all(map(KNOWN.fullmatch, names)), names
    steps = checkpoints.committed_steps(str(work))
    assert steps in allowed
    assert len(names) == 3 * len(steps) + 1
    for step in steps:
        prefix = f"{work}/model.ckpt-{step}"
        assert checkpoints.read_manifest(prefix) == position(step)
        variable = tf.Variable(tf.zeros([2, 2]))
        assert load_checkpoint(prefix, {NAME: variable})[0] == step
        assert (variable.numpy() == step).all()
    assert tf.train.latest_checkpoint(str(work)) == f"{work}/model.ckpt-{steps[-1]}"


def test_a_save_that_is_killed_anywhere_is_swept(folder):
    work, reset = folder
    points = 0
    for _ in crash_points(
        work,
        lambda: reset(5),
        lambda: checkpoints.save(str(work), tensors(9), position(9)),
    ):
        check(work, ([5], [5, 9]))
        points += 1
    assert checkpoints.committed_steps(str(work)) == [5, 9]
    assert points > 20  # Of every file there are several.


def test_a_removal_that_is_killed_anywhere_is_completed(folder):
    work, reset = folder
    for _ in crash_points(
        work, lambda: reset(3, 5), lambda: checkpoints.remove(str(work), 3)
    ):
        check(work, ([3, 5], [5]))
    assert checkpoints.committed_steps(str(work)) == [5]


def test_a_save_over_the_same_step_keeps_the_others(folder):
    work, reset = folder
    for _ in crash_points(
        work,
        lambda: reset(3, 5),
        lambda: checkpoints.save(str(work), tensors(3), position(3)),
    ):
        check(work, ([3, 5], [5]))


def test_sweeping_that_is_killed_anywhere_is_swept(folder):
    work, reset = folder

    def interrupted():
        reset(5)
        checkpoints.save(str(work), tensors(9), position(9))
        os.remove(work / "model.ckpt-9.json")
        for name in ("model.ckpt-9.incomplete", ".checkpoint.abcd1234.tmp"):
            (work / name).touch()
        (work / "model.ckpt-11.tmp.data-00000-of-00001.tempstate77").touch()

    for _ in crash_points(
        work, interrupted, lambda: checkpoints.remove_leftovers(str(work))
    ):
        check(work, ([5],))


def test_a_save_that_fails_leaves_no_files(folder, monkeypatch):
    work, reset = folder
    reset(5)
    before = sorted(os.listdir(work))

    def full(**_):
        (work / "model.ckpt-9.tmp.data-00000-of-00001.tempstate1").write_bytes(b"x" * 9)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.raw_ops, "SaveV2", full)
    with pytest.raises(Exception, match="model.ckpt-9 cannot be written.*Make room"):
        checkpoints.save(str(work), tensors(9), position(9))
    assert sorted(os.listdir(work)) == before


def test_files_of_earlier_versions_are_swept(folder):
    work, reset = folder
    reset(5)
    for name in ("checkpoint0a_b1c2d.tmp", "model.ckpt-9.jsonabcd1234.tmp"):
        (work / name).touch()
    check(work, ([5],))


def test_a_user_s_files_stay(folder):
    work, reset = folder
    reset(5)
    users = {"notes.tmp", "checkpoint.bak", ".hidden", "model.ckpt-9.tmp"}
    for name in users:
        (work / name).touch()
    checkpoints.remove_leftovers(str(work))
    assert users <= set(os.listdir(work))
