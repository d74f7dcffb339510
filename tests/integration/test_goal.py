"""A pre-training that evaluates while it runs, and ends at its target."""

import json

import pytest
import runs
from integration.launching import ROOT, mpirun
from runs import (
    assert_same_bytes,
    checkpoint_bytes,
    logged_values,
    pretraining_flags,
    read_json,
    read_log,
    read_tensors,
)

from bert_tf.errors import NotConverged

SCRIPT = ROOT / "run_pretraining.py"
NEVER = "--target_mlm_accuracy=0.99"
RECORD = {
    "e2e_time",
    "training_sequences_per_second",
    "converged",
    "final_loss",
    "final_mlm_accuracy",
    "raw_train_time",
    "init_time",
}


@pytest.fixture(scope="module")
def command(tiny_config_file, tiny_records):
    """Makes a command line of 8 steps of 16 records."""

    def make(output_dir, *more, **sizes):
        return pretraining_flags(
            *(tiny_config_file, tiny_records, output_dir, "--noscale_learning_rate"),
            *(f"--eval_files_dir={tiny_records}", "--max_eval_steps=13", *more),
            **sizes,
        )

    return make


def run(arguments):
    return runs.run("pretraining", *arguments)


def evaluations(folder):
    """Step -> results of each evaluation in the log."""
    entries = [e for e in read_log(folder) if "samples" in e.get("data", ())]
    return {entry["step"]: entry["data"] for entry in entries}


@pytest.fixture(scope="module")
def missed(command, tmp_path_factory):
    """The folder of a run that never reaches its target."""
    folder = tmp_path_factory.mktemp("missed")
    with pytest.raises(NotConverged, match="0.99. Its last step is taken"):
        run(command(folder, "--eval_steps=2", NEVER))
    return folder


@pytest.mark.slow
def test_evaluations_change_no_bit_of_the_training(command, missed, tmp_path):
    run(command(tmp_path))
    assert checkpoint_bytes(tmp_path, 8) == checkpoint_bytes(missed, 8)


def test_each_evaluation_is_logged_with_step_and_sequences(missed):
    found = evaluations(missed)
    assert {step: x["samples"] for step, x in found.items()} == {
        2: 32,
        4: 64,
        6: 96,
        8: 128,
    }
    assert len({x["masked_lm_loss"] for x in found.values()}) == 4


def test_the_result_is_a_file_and_a_line_of_the_log(missed):
    record = read_json(missed / "training_result.json")
    assert record.keys() >= RECORD
    assert record["converged"] is False
    last = evaluations(missed)[8]["masked_lm_accuracy"]
    assert record["final_mlm_accuracy"] == last
    [summary] = [e["data"] for e in read_log(missed) if "e2e_time" in e.get("data", ())]
    assert summary == record
    speed = 8 * 16 / record["raw_train_time"]
    assert record["training_sequences_per_second"] == pytest.approx(speed)
    assert record["init_time"] + record["raw_train_time"] < record["e2e_time"]


@pytest.mark.slow
def test_a_run_ends_at_its_target_and_is_resumed(command, missed, tmp_path, capsys):
    """It takes the first step whose accuracy, in a run without end, is the highest."""
    accuracies = {s: x["masked_lm_accuracy"] for s, x in evaluations(missed).items()}
    target = max(accuracies.values())
    step = min(s for s, accuracy in accuracies.items() if accuracy == target)
    again = command(tmp_path, "--eval_steps=2", f"--stop_threshold={target}")
    results = run(again)
    assert results["global_step"] == step
    assert results["masked_lm_accuracy"] == target
    assert read_json(tmp_path / f"model.ckpt-{step}.json")["step"] == step
    record = read_json(tmp_path / "training_result.json")
    assert record["converged"] is True
    assert record["global_step"] == step
    capsys.readouterr()
    assert run(again) == results  # It has converged: no step is taken.
    text = capsys.readouterr().out
    assert "is reached.\nNo step is taken: the target" in text
    assert read_json(tmp_path / "training_result.json") == record
    with pytest.raises(NotConverged):
        run(command(tmp_path, "--eval_steps=2", NEVER))
    assert checkpoint_bytes(tmp_path, 8) == checkpoint_bytes(missed, 8)


def test_a_stopped_run_has_not_converged_and_can_be_resumed(command, missed, tmp_path):
    stopped = command(tmp_path, "--eval_steps=2", NEVER, "--steps_this_run=3")
    with pytest.raises(NotConverged, match="after step 3, .* The same command resumes"):
        run(stopped)
    with pytest.raises(NotConverged, match="after step 8, "):
        run(command(tmp_path, "--eval_steps=2", NEVER))
    assert checkpoint_bytes(tmp_path, 8) == checkpoint_bytes(missed, 8)
    expected = evaluations(missed)
    assert {s: x for s, x in evaluations(tmp_path).items() if s in expected} == expected


def test_the_advice_of_a_stopped_run_fits_its_flags(command, tmp_path):
    for flag, advice in {
        "--overwrite_output_dir": "without --overwrite_output_dir resumes",
        "--skip_checkpoint": "Nothing is saved to resume from: raise --steps_this_run",
    }.items():
        stopped = command(tmp_path / flag[2:], NEVER, "--steps_this_run=1", flag)
        with pytest.raises(NotConverged, match=f"after step 1, .* {advice}"):
            run(stopped)


def test_first_weights_that_have_reached_the_target_are_the_result(
    command, missed, tmp_path
):
    start = f"--init_checkpoint={missed}/model.ckpt-8"
    results = run(command(tmp_path, start, "--target_mlm_accuracy=0.0001"))
    assert results["global_step"] == 0
    assert (tmp_path / "model.ckpt-0.json").exists()
    record = read_json(tmp_path / "training_result.json")
    assert record["converged"] and record["training_sequences_per_second"] is None


@pytest.mark.slow
def test_a_run_ends_after_its_sequences_and_continues_with_more(command, tmp_path):
    more, whole = tmp_path / "more", tmp_path / "whole"
    for samples in (40, 40, 100):
        run(command(more, f"--max_samples={samples}"))
    run(command(whole, "--steps_this_run=7"))
    assert checkpoint_bytes(more, 7) == checkpoint_bytes(whole, 7)
    assert not (more / "model.ckpt-8.json").exists()


@pytest.mark.slow
def test_a_run_ends_after_its_time_which_its_checkpoints_keep(
    command, tmp_path, capsys
):
    run(command(tmp_path, "--max_hours=1e9", "--steps_this_run=2"))
    spent = read_json(tmp_path / "model.ckpt-2.json")["elapsed_seconds"]
    assert spent > 0
    # The budget is spent before the next step: one is taken, at the end of the decay.
    resumed = command(tmp_path, f"--max_hours={spent * 1.0001 / 3600}")
    run([*resumed, "--display_loss_steps=1"])
    assert read_json(tmp_path / "model.ckpt-3.json")["elapsed_seconds"] > spent
    assert dict(logged_values(tmp_path, "learning_rate"))[3] == 0.0
    capsys.readouterr()
    run(resumed)
    assert "The time is over: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.horovod
def test_two_workers_evaluate_and_end_as_one_does(command, missed, tmp_path):
    expected = evaluations(missed)
    sizes, more = dict(batch=4, accumulation=2), ("--horovod", "--eval_steps=2")
    never, reached = tmp_path / "never", tmp_path / "reached"
    result = mpirun(2, SCRIPT, *command(never, *more, NEVER, **sizes))
    assert result.returncode == 3, result.stderr
    assert result.stderr.count("Not converged: masked_lm_accuracy is ") == 1
    found = evaluations(never)
    assert list(found) == list(expected)
    for step, results in expected.items():
        assert found[step] == pytest.approx(results, rel=1e-4)
    target = f"--target_mlm_accuracy={found[2]['masked_lm_accuracy']}"
    result = mpirun(2, SCRIPT, *command(reached, *more, target, **sizes))
    assert result.returncode == 0, result.stderr
    assert (reached / "model.ckpt-2.json").exists()
    assert json.loads((reached / "training_result.json").read_text())["converged"]


def test_an_evaluation_in_which_a_run_was_stopped_is_repeated(command, tmp_path):
    """It is saved by then, as after a signal in the evaluation after step 4."""
    run(command(tmp_path, "--steps_this_run=4"))
    assert not evaluations(tmp_path)
    run(command(tmp_path, "--eval_steps=4"))
    assert sorted(evaluations(tmp_path)) == [4, 8]


def test_the_step_that_reaches_the_target_is_logged(command, tmp_path):
    """Between two log lines; any accuracy is above this target."""
    target = ("--eval_steps=3", "--target_mlm_accuracy=1e-9", "--display_loss_steps=5")
    run(command(tmp_path, *target))
    assert [step for step, _ in logged_values(tmp_path, "mlm_loss")] == [1, 3]


@pytest.mark.slow
def test_each_pass_over_the_records_is_evaluated_also_when_resumed(command, tmp_path):
    """150 records are read in step 10 of 16, after which the first start ends."""
    more = ("--evaluate_each_epoch", "--learning_rate=0.001")
    run(command(tmp_path / "stopped", *more, "--steps_this_run=10", steps=11))
    run(command(tmp_path / "stopped", *more, steps=11))
    run(command(tmp_path / "whole", *more, steps=11))
    found, expected = (evaluations(tmp_path / name) for name in ("stopped", "whole"))
    assert sorted(expected) == [10, 11]
    assert found == expected
    accuracies = {step: x["masked_lm_accuracy"] for step, x in expected.items()}
    best = max(accuracies, key=accuracies.__getitem__)  # The first of equal ones.
    for name in ("stopped", "whole"):
        note = read_json(tmp_path / name / "best/best.json")
        assert (note["step"], note["last_step"]) == (best, 11)
    ours, theirs = (
        read_tensors(tmp_path / name / f"best/model.ckpt-{best}")
        for name in ("stopped", "whole")
    )
    assert_same_bytes(ours, theirs)
