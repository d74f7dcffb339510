"""A save that is killed at any point leaves a folder that the next run puts right."""

import os
import re
import shutil

import pytest
import tensorflow as tf
from crashing import crash_points
from runs import position

from bert_tf.errors import RunError
from bert_tf.jobs.run.resume import load_checkpoint
from bert_tf.training import checkpoints

NAME = "bert/pooler/dense/kernel"
KNOWN = re.compile(r"model\.ckpt-\d+\.(index|json|data-00000-of-00001)|checkpoint")


def tensors(value):
    return {NAME: tf.fill([2, 2], float(value))}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that can be set to its first state."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # Of no use here, slow.
    work = tmp_path / "work"

    def reset(*steps):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for step in steps:
            checkpoints.save(str(work), tensors(step), position(step))
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


def test_a_save_over_the_same_step_keeps_the_old_one_until_it_is_committed(folder):
    work, reset = folder
    values = set()

    def again():
        checkpoints.save(str(work), tensors(8), position(3, records=1))

    for _ in crash_points(work, lambda: reset(3, 5), again):
        checkpoints.remove_leftovers(str(work))
        prefix = f"{work}/model.ckpt-3"
        assert checkpoints.committed_steps(str(work)) == [3, 5]
        records = checkpoints.read_manifest(prefix).records
        variable = tf.Variable(tf.zeros([2, 2]))
        load_checkpoint(prefix, {NAME: variable})
        values.add((records, float(variable[0, 0])))
    assert values == {(48, 3.0), (1, 8.0)}


@pytest.mark.parametrize("step", [2, 5, 9])
def test_what_a_save_replaces_is_there_until_it_is_committed(folder, step):
    """Killed anywhere, the folder has the old run or the new one, never both."""
    work, reset = folder

    def overwrite():
        checkpoints.save(
            *(str(work), tensors(step), position(step, records=1)), replaces=(3, 5)
        )

    found = []
    for _ in crash_points(work, lambda: reset(3, 5), overwrite):
        checkpoints.remove_leftovers(str(work))
        steps = checkpoints.committed_steps(str(work))
        records = [
            checkpoints.read_manifest(f"{work}/model.ckpt-{x}").records for x in steps
        ]
        found.append((steps, records))
        assert tf.train.latest_checkpoint(str(work)) == f"{work}/model.ckpt-{steps[-1]}"
        assert all(map(KNOWN.fullmatch, os.listdir(work)))
    assert all(x in (([3, 5], [48, 80]), ([step], [1])) for x in found)
    assert found[0] != found[-1]


def test_files_beside_a_checkpoint_change_with_its_commit(folder):
    """Killed anywhere, a checkpoint never stands beside the files of another run."""
    work, reset = folder
    names = ("bert_config.json", "vocab.txt", "task.json", "best/best.json")
    of_new = {"bert_config.json": b"new", "vocab.txt": b"new"}
    of_new |= {"task.json": None, "best/best.json": None}

    def prepare():
        reset(3, 5)
        (work / "best").mkdir()
        for name in names:
            (work / name).write_text("old")

    found = []
    for _ in crash_points(
        work,
        prepare,
        lambda: checkpoints.save(
            *(str(work), tensors(8), position(8)), replaces=(3, 5), beside=of_new
        ),
    ):
        before_sweep = checkpoints.committed_steps(str(work))
        contents = {n: (work / n).read_text() for n in names if (work / n).exists()}
        # An evaluation, which sweeps nothing, finds no mixture either.
        if before_sweep:
            assert set(contents.values()) == {"new" if 8 in before_sweep else "old"}
        checkpoints.remove_leftovers(str(work))
        contents = {n: (work / n).read_text() for n in names if (work / n).exists()}
        found.append((checkpoints.committed_steps(str(work)), contents))
        assert all(
            KNOWN.fullmatch(name) or name in (*names, "best")
            for name in os.listdir(work)
        )
    new = {"bert_config.json": "new", "vocab.txt": "new"}
    assert all(x in (([3, 5], dict.fromkeys(names, "old")), ([8], new)) for x in found)
    assert found[0] != found[-1]


@pytest.mark.parametrize("name", ["../mine.txt", "mine", "notes/mine.txt", "é.txt"])
def test_a_commit_that_was_edited_deletes_and_moves_nothing_else(folder, name):
    work, reset = folder
    reset(5)
    committed = work / ".model.ckpt-9.bert_tf.committed"
    (committed / "beside").mkdir(parents=True)
    (committed / "replaces").write_text(name)
    path = work / name
    is_outside = not path.resolve().is_relative_to(work)
    mine = work.parent / "mine.txt" if is_outside else path
    mine.parent.mkdir(exist_ok=True)
    mine.touch()
    checkpoints.remove_leftovers(str(work))
    assert mine.exists()
    assert checkpoints.committed_steps(str(work)) == [5]


def test_sweeping_that_is_killed_anywhere_is_swept(folder):
    work, reset = folder

    def interrupted():
        reset(5, 7)
        checkpoints.save(str(work), tensors(9), position(9))
        os.rename(work / "model.ckpt-9.json", work / ".model.ckpt-9.bert_tf.removed")
        for name in (".checkpoint.0123abcd.bert_tf.tmp", "model.ckpt-8.incomplete"):
            (work / name).touch()
        (work / "model.ckpt-8.data-00000-of-00001").touch()
        (work / "model.ckpt-11.tmp.data-00000-of-00001.tempstate77").touch()
        (work / ".model.ckpt-7.bert_tf.committed").mkdir()
        os.rename(
            work / "model.ckpt-7.json",
            work / ".model.ckpt-7.bert_tf.committed/model.ckpt-7.json",
        )

    for _ in crash_points(
        work, interrupted, lambda: checkpoints.remove_leftovers(str(work))
    ):
        check(work, ([5, 7],))


@pytest.mark.parametrize("after", ["tensors", "index", "manifest", "publication"])
def test_a_save_that_fails_leaves_no_files(folder, monkeypatch, after):
    work, reset = folder
    reset(5)
    before = sorted(os.listdir(work))
    real = os.fsync
    calls = []

    def full(descriptor):
        """Fails at one of: data, index, manifest, its folder."""
        calls.append(descriptor)
        if (
            len(calls)
            == ["tensors", "index", "manifest", "publication"].index(after) + 1
        ):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="model.ckpt-9 cannot be written.*Make room"):
        checkpoints.save(str(work), tensors(9), position(9))
    assert sorted(os.listdir(work)) == before


def test_a_user_s_files_stay(folder):
    work, reset = folder
    reset(5)
    users = {
        *("notes.tmp", "checkpoint.bak", ".hidden", "model.ckpt-9.tmp"),
        *(
            "model.ckpt-900.tmp_mine.txt",
            "model.ckpt-9.tmp.mine",
            "checkpoint_mine_01.tmp",
        ),
        *(".checkpoint.mine0001.tmp", "model.ckpt-9.incomplete.txt", ".a.bert_tf.tmp"),
        *(".model.ckpt-9.bert_tf.committed", ".model.ckpt-9.bert_tf.removed.txt"),
        *(
            "model.ckpt-9.jsonabcd1234.tmp",
            "model.ckpt-05.index",
            "xmodel.ckpt-5.index",
        ),
    }
    for name in users:
        (work / name).touch()
    checkpoints.remove_leftovers(str(work))
    assert users <= set(os.listdir(work))
