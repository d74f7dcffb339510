"""Settings of evaluations, targets and limits of a pre-training."""

import pytest

from bert_tf import flags
from bert_tf.config import PretrainingConfig

COMMAND = ["run", "--output_dir=out", "--preset=tiny", "--input_files_dir=in"]


def parse(*arguments):
    return flags.parse(PretrainingConfig, [*COMMAND, *arguments])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--target_mlm_accuracy=72"], "must be at most 1.*For 72% pass 0.72"),
        (["--target_mlm_accuracy=0"], "must be greater than 0"),
        (["--eval_steps=0"], "`eval_steps` must be greater than 0"),
        (["--samples_start_eval=-1"], "`samples_start_eval` must be at least 0"),
        (["--max_samples=0"], "`max_samples` must be greater than 0"),
        (["--max_hours=inf"], "`max_hours` must be greater than 0 and finite"),
        (
            ["--eval_steps=2", "--samples_between_eval=9"],
            "Only one of `eval_steps` and",
        ),
        (["--nodo_train", "--do_eval", "--max_hours=1"], "with `do_train` only.*Pass"),
    ],
)
def test_wrong_goals_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse("--do_train", "--eval_files_dir=in", *arguments)


@pytest.mark.parametrize(
    "flag", ["eval_steps=2", "samples_start_eval=0", "target_mlm_accuracy=0.7"]
)
def test_an_evaluation_needs_records(flag):
    with pytest.raises(ValueError, match="`eval_files_dir` must be given with"):
        parse("--do_train", f"--{flag}")
    assert parse("--do_train", f"--{flag}", "--eval_dir=in").training.evaluates


def test_the_published_names():
    training = parse(
        *("--do_train", "--eval_dir=in", "--stop_threshold=0.72"),
        *("--eval_iter_samples=150000", "--eval_iter_start_samples=3000000"),
        *("--max_samples_termination=14000000", "--is_dist_eval_enabled"),
    ).training
    assert training.target_mlm_accuracy == 0.72
    assert training.samples_between_eval == 150_000
    assert training.samples_start_eval == 3_000_000
    assert training.max_samples == 14_000_000
