"""Runs with other checkpoints than those by steps: which files they leave."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import runs
from conftest import WIDE
from integration.launching import ROOT, environment
from runs import assert_same_bytes, checkpoint_bytes, pretraining_flags, read_tensors

from bert_tf.cli.convert import main as convert
from bert_tf.errors import RunError
from bert_tf.interop.pretrained import from_pretrained
from bert_tf.interop.weights import read_weights
from bert_tf.training import checkpoints

STEPS = 8
AVERAGE = "/ExponentialMovingAverage"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(tmp_path_factory, tiny_records):
    """Makes a command line of 8 steps of 16 records, of widths for any backend."""
    config = tmp_path_factory.mktemp("config") / "bert_config.json"
    config.write_text(json.dumps(WIDE | {"num_hidden_layers": 1}))

    def make(output_dir, *more):
        flags = ("--keep_checkpoint_max=20", "--display_loss_steps=1", *more)
        return pretraining_flags(config, tiny_records, output_dir, *flags, steps=STEPS)

    return make


def run(arguments):
    return runs.run("pretraining", *arguments)


def test_checkpoints_by_samples_are_those_of_a_run_that_was_stopped(command, tmp_path):
    by_samples = ("--num_samples_per_checkpoint=50", "--save_checkpoints_steps=1")
    run(command(tmp_path / "whole", *by_samples))
    # 16 sequences a step: 50 are reached at step 4, 100 at 7; 8 is the last one.
    assert checkpoints.committed_steps(tmp_path / "whole") == [4, 7, 8]
    run(command(tmp_path / "part", *by_samples, "--steps_this_run=5"))
    run(command(tmp_path / "part", *by_samples))
    assert checkpoints.committed_steps(tmp_path / "part") == [4, 5, 7, 8]
    assert checkpoint_bytes(tmp_path / "part", 8) == checkpoint_bytes(
        tmp_path / "whole", 8
    )


def test_a_run_without_checkpoints_evaluates_and_says_that_its_weights_are_lost(
    command, tiny_records, tmp_path, capsys
):
    evaluation = ("--do_eval", f"--eval_files_dir={tiny_records}", "--max_eval_steps=2")
    more = ("--save_checkpoints_steps=1", "--skip_checkpoint", "--log_freq=0")
    results = run([x for x in command(tmp_path) if "display" not in x] + [*more])
    assert results == {}
    output = capsys.readouterr().out
    assert "--skip_checkpoint: no checkpoint is saved" in output
    assert "Step 8 is not saved: its weights are lost." in output
    assert "step 1/8" not in output  # --log_freq=0.
    assert re.search(r"Training throughput: [0-9.]+ sequences/s", output)
    assert not list(tmp_path.glob("**/*model.ckpt*"))
    assert run(command(tmp_path, *more[:2], *evaluation))["global_step"] == 8


def test_a_benchmark_measures_40_steps_and_leaves_no_checkpoint(
    command, tiny_records, tmp_path
):
    evaluation = ("--do_eval", f"--eval_files_dir={tiny_records}")
    arguments = command(tmp_path, "--benchmark", "--enable_device_warmup", *evaluation)
    result = subprocess.run(
        [sys.executable, str(ROOT / "run_pretraining.py"), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    [line] = re.findall(r"^Throughput: ([0-9.]+) sentence/s$", result.stdout, re.M)
    assert float(line) > 0
    assert not list(tmp_path.glob("**/*model.ckpt*"))
    assert not (tmp_path / "eval_results.txt").exists()
    steps = [step for step, _ in runs.logged_values(tmp_path, "total_loss")]
    assert steps == [*range(1, 51)]  # Though there are 8 --num_train_steps.
    [*_, (last, speed)] = [
        (each["step"], each["data"]["throughput_train"])
        for each in runs.read_log(tmp_path)
        if "throughput_train" in each.get("data", {})
    ]
    assert last == []  # Of the whole run.
    assert speed == pytest.approx(float(line), rel=1e-3)


def test_steps_on_made_up_rows_change_nothing(command, tmp_path, capsys):
    flags = ("--save_checkpoints_steps=1", "--ema_decay=0.9")
    run(command(tmp_path / "cold", *flags))
    run(command(tmp_path / "warm", *flags, "--enable_device_warmup"))
    assert "Device warm-up: 2 steps" in capsys.readouterr().out
    for step in range(1, STEPS + 1):
        assert checkpoint_bytes(tmp_path / "warm", step) == checkpoint_bytes(
            tmp_path / "cold", step
        )


def test_a_run_that_is_complete_has_nothing_to_measure(command, tmp_path):
    run(command(tmp_path))
    with pytest.raises(RunError, match="`benchmark` needs some: pass another"):
        run(command(tmp_path, "--benchmark"))


@pytest.fixture(scope="module")
def averaged(command, tiny_records, tmp_path_factory):
    """A run with averages, all of its checkpoints, exports, and its results."""
    folder = tmp_path_factory.mktemp("averaged") / "run"
    evaluation = ("--do_eval", f"--eval_files_dir={tiny_records}", "--max_eval_steps=5")
    flags = ("--ema_decay=0.7", "--save_checkpoints_steps=1", *evaluation)
    results = run(command(folder, *flags, "--export_steps=0,3,8"))
    return folder, flags, results


def test_averages_in_checkpoints_follow_the_formula(averaged):
    folder, _, _ = averaged
    average = dict(read_weights(folder / "export" / "step-0").tensors)  # Before step 1.
    for step in range(1, STEPS + 1):
        tensors = read_tensors(folder / f"model.ckpt-{step}")
        for name, value in average.items():
            average[name] = 0.7 * value.astype(float) + 0.3 * tensors[name]
            # Roundings of float32, at most one a step.
            np.testing.assert_allclose(
                tensors[name + AVERAGE], average[name], rtol=1e-5, atol=1e-7
            )


def test_averages_of_a_stopped_run_are_those_of_one_that_was_not(
    averaged, command, tmp_path
):
    folder, flags, results = averaged
    run(command(tmp_path, *flags, "--steps_this_run=3"))
    assert run(command(tmp_path, *flags)) == results
    assert checkpoint_bytes(tmp_path, STEPS) == checkpoint_bytes(folder, STEPS)


def test_the_averages_are_what_is_evaluated_converted_and_started_from(
    averaged, command, tmp_path, capsys
):
    folder, flags, results = averaged
    tensors = read_tensors(folder / "model.ckpt-8")
    convert([str(folder), str(tmp_path / "converted")])
    assert "its moving averages (--ema_decay) are used" in capsys.readouterr().out
    converted = read_weights(tmp_path / "converted").tensors
    averages = {name: tensors[name + AVERAGE] for name in converted}
    assert_same_bytes(averages, converted)
    alone = [x for x in command(folder, *flags[2:]) if x != "--do_train"]
    assert run(alone) == results
    initial = command(tmp_path / "new", *flags[2:], f"--init_checkpoint={folder}")
    more = (f"--init_checkpoint={tmp_path / 'converted'}", *flags[2:])
    assert run([*initial, "--steps_this_run=1"]) == run(
        command(tmp_path / "other", *more, "--steps_this_run=1")
    )


def test_averages_can_be_turned_on_and_off_in_a_resumed_run(command, tmp_path, capsys):
    run(command(tmp_path, "--steps_this_run=2"))
    run(command(tmp_path, "--steps_this_run=2", "--ema_decay=0.5"))
    output = capsys.readouterr().out
    assert "no moving averages in it: they start with its weights" in output
    before, after = (read_tensors(tmp_path / f"model.ckpt-{n}") for n in (2, 4))
    assert not [name for name in before if name.endswith(AVERAGE)]
    assert [name for name in after if name.endswith(AVERAGE)]
    run(command(tmp_path, "--steps_this_run=2"))
    assert "ema_decay 0.5 -> 0.0" in capsys.readouterr().out
    last = read_tensors(tmp_path / "model.ckpt-6")
    assert not [name for name in last if name.endswith(AVERAGE)]


def test_the_export_of_the_last_step_is_made_up_for(command, tmp_path, capsys):
    """As after a kill between the last save and its export."""
    run(command(tmp_path))
    run(command(tmp_path, "--export_steps=8"))
    exported = read_weights(tmp_path / "export" / "step-8").tensors
    assert_same_bytes(exported, read_tensors(tmp_path / "model.ckpt-8"))
    run(command(tmp_path / "short", "--export_steps=8", "--max_samples=64"))
    line = "--export_steps: the run ends before these, at step 4: 8."
    assert line in capsys.readouterr().out


def test_exports_are_the_averages_of_their_steps(averaged):
    folder, _, _ = averaged
    exports = folder / "export"
    assert sorted(x.name for x in exports.iterdir()) == ["step-0", "step-3", "step-8"]
    for step in (3, 8):
        config = json.loads((exports / f"step-{step}" / "config.json").read_text())
        assert config["architectures"] == ["BertForPreTraining"]
        tensors = read_tensors(folder / f"model.ckpt-{step}")
        exported = read_weights(exports / f"step-{step}").tensors
        averages = {name: tensors[name + AVERAGE] for name in exported}
        assert_same_bytes(averages, exported)
    model = from_pretrained(exports / "step-3", "pretraining", max_seq_length=16)
    assert len(model.trainable_variables) == len(averages)


def test_exports_without_averages_are_the_weights_and_are_made_up_for_when_resumed(
    command, tmp_path, capsys
):
    run(command(tmp_path, "--steps_this_run=3"))
    run(command(tmp_path, "--export_steps=2,3,5"))
    output = capsys.readouterr().out
    assert "--export_steps: the run is past these, at step 3: 2." in output
    exports = tmp_path / "export"
    assert sorted(x.name for x in exports.iterdir()) == ["step-3", "step-5"]
    exported = read_weights(exports / "step-3").tensors
    assert_same_bytes(exported, read_tensors(tmp_path / "model.ckpt-3"))
    run(command(tmp_path, "--export_steps=0,3", "--overwrite_output_dir", "--seed=3"))
    assert "an earlier run, which stay until this run exports the same steps: 3, 5" in (
        capsys.readouterr().out
    )
    assert sorted(x.name for x in exports.iterdir()) == ["step-0", "step-3", "step-5"]
    new = read_weights(exports / "step-3").tensors
    assert any(not np.array_equal(new[name], x) for name, x in exported.items())


def test_an_export_that_cannot_be_written_ends_the_run_with_a_line(command, tmp_path):
    (tmp_path / "export").write_text("")
    with pytest.raises(RunError, match="step-2 cannot be written"):
        run(command(tmp_path, "--export_steps=2"))
