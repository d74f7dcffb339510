import os
import shutil

import pytest
import tensorflow as tf

from bert_tf import flags
from bert_tf.config import PretrainingConfig
from bert_tf.errors import RunError
from bert_tf.jobs.starting_point import find_starting_point
from bert_tf.training import checkpoints
from bert_tf.training.checkpoints import RunPosition

WEIGHT = "bert/pooler/dense/kernel"


def save(folder, *steps):
    folder.mkdir(exist_ok=True)
    for step in steps:
        position = RunPosition(
            step=step,
            records=16 * step,
            global_batch_size=16,
            learning_rate=0.006,
            seed=3,
            num_records=1000,
        )
        checkpoints.save(str(folder), {WEIGHT: tf.zeros([2, 2])}, position)
    return folder


def config(output_dir, *more):
    return flags.parse(
        PretrainingConfig,
        [
            "run",
            "--preset=tiny",
            "--input_files_dir=/a",
            "--eval_files_dir=/a",
            f"--output_dir={output_dir}",
            "--num_train_steps=8",
            *more,
        ],
    )


def test_the_newest_checkpoint_wins_and_says_what_is_not_used(tmp_path):
    save(tmp_path / "run", 3, 5)
    start = find_starting_point(
        config(tmp_path / "run", "--do_train", "--init_checkpoint=/gone")
    )
    assert start.prefix == str(tmp_path / "run" / "model.ckpt-5")
    assert start.position.step == 5
    assert start.notes == (
        "--init_checkpoint=/gone is not used: the run is resumed from output_dir.",
    )


def test_overwriting_is_told(tmp_path):
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


def test_state_of_another_program_is_told(tmp_path):
    prefix = save(tmp_path / "first", 5) / "model.ckpt-5"
    os.remove(f"{prefix}.json")
    start = find_starting_point(
        config(
            tmp_path / "run", "--do_train", f"--init_checkpoint={prefix}", "--resume"
        )
    )
    [note] = start.notes
    assert (
        "has no manifest: learning rate, global batch and seed are the flags'" in note
    )


def test_files_without_an_optimizer_are_not_resumed_from(tmp_path):
    (tmp_path / "model.safetensors").touch()
    named = f"--init_checkpoint={tmp_path}/model.safetensors"
    with pytest.raises(ValueError, match="`resume` takes the state of an optimizer"):
        find_starting_point(config(tmp_path / "run", "--do_train", named, "--resume"))


def test_a_damaged_checkpoint_is_refused_and_the_advice_works(tmp_path):
    run = save(tmp_path / "run", 3, 5)
    (run / "model.ckpt-5.index").write_bytes(b"")
    with pytest.raises(RunError, match=r"or remove .*model.ckpt-5\.\* to use an older"):
        find_starting_point(config(run, "--do_train"))
    for file in run.glob("model.ckpt-5.*"):
        file.unlink()
    assert find_starting_point(config(run, "--do_train")).position.step == 3


def test_an_evaluation_beside_a_training_takes_the_next_checkpoint(
    tmp_path, monkeypatch
):
    """The training deletes the one that is being read."""
    run = save(tmp_path / "run", 3)
    read = checkpoints.read_manifest

    def read_late(prefix):
        if prefix.endswith("-3"):
            save(run, 5)
            checkpoints.remove(str(run), 3)
            raise RunError("no file")
        return read(prefix)

    monkeypatch.setattr(checkpoints, "read_manifest", read_late)
    assert find_starting_point(config(run, "--do_eval")).position.step == 5
    shutil.rmtree(run)
    save(run, 3)
    with pytest.raises(RunError, match="no file"):
        find_starting_point(config(run, "--do_train"))
