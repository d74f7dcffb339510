"""A run logs the loss without context, and once what keeps it from getting below."""

import types

import numpy as np
import pytest
from runs import logged_values, pretraining_flags, read_log, run

from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.data.records.masked_tokens import MaskedTokens
from bert_tf.jobs.run.loss_watch import LossWatch
from bert_tf.training.trainer import StepResult

TOKENS = MaskedTokens(
    entropy=6.0,
    num_masked=4000,
    num_records=200,
    masked_per_record=20.0,
    tokens_per_record=100.0,
    unknown_share=0.0,
    letter_share=0.1,
    kept_share=0.5,
    copies=0.0,
    order_gain=0.0,
    repeated_documents=0.0,
)


def watch(steps=400, measure=lambda: TOKENS, begins=0, is_first=True, max_hours=None):
    """The watch of a run of 16 records a step, and its lines."""
    lines = []
    plan = types.SimpleNamespace(
        config=types.SimpleNamespace(
            optimizer=types.SimpleNamespace(warmup_steps=40, optimizer_type="adam"),
            training=types.SimpleNamespace(
                deterministic_run=False, max_hours=max_hours
            ),
        ),
        bert=types.SimpleNamespace(vocab_size=30_000),
        learning_rate=0.1,
        last_step=steps,
        step=begins,
        shape=BatchShape(micro_batch_size=16, num_micro_batches=1),
        start=types.SimpleNamespace(position=None, prefix="", is_own=False),
        training_set=types.SimpleNamespace(measure_masked_tokens=measure),
    )
    log = types.SimpleNamespace(message=lines.append)
    return LossWatch(plan, log, is_first=is_first), lines


def train(watched, losses, first=1):
    for step, loss in enumerate(losses, first):
        watched.step(StepResult(step, {"mlm_loss": loss, "nsp_loss": 0.7}, 1.0))


def test_the_entropy_is_logged_with_when_it_is_compared():
    watched, [line] = watch()
    assert "6.0000 nats" in line and "480,000 tokens, step 300" in line
    assert watched.parameters == {"masked_token_entropy": 6.0}


def test_a_stuck_loss_makes_one_line_after_three_quarters_of_the_run():
    watched, lines = watch()
    train(watched, [6.02] * 299)
    assert len(lines) == 1
    train(watched, [6.02] * 101, first=300)
    assert len(lines) == 2
    assert "after 480,000 tokens (step 300)" in lines[1]
    assert "Likely cause: learning rate too high: 0.1 for adam." in lines[1]


def test_a_loss_that_gets_below_makes_none():
    watched, lines = watch()
    train(watched, np.linspace(10, 4, 400))
    assert len(lines) == 1


def test_a_long_run_is_checked_ten_thousand_steps_after_its_warm_up():
    _, [line] = watch(steps=1_000_000)
    assert "step 10040" in line


def test_a_short_run_is_not_checked():
    watched, lines = watch(steps=200)
    train(watched, [7.0] * 200)
    assert len(lines) == 1 and "too short" in lines[0]


def test_a_run_that_is_too_short_says_how_many_steps_it_needs():
    """Three quarters of 267 steps are 200, those of 266 are 199."""
    _, [line] = watch(steps=266)
    assert "too short to check that: less than 267 steps" in line
    _, [line] = watch(steps=267)
    assert "step 200." in line


def test_a_run_that_ends_by_time_may_end_before_the_check():
    _, [line] = watch(max_hours=1.0)
    assert "step 300, if the time of --max_hours is enough for it." in line


def test_a_run_that_is_resumed_behind_the_check_makes_no_second_line():
    watched, lines = watch(begins=350)
    train(watched, [7.0] * 50, first=351)
    assert len(lines) == 1 and "Checked at step 300" in lines[0]


def test_records_that_cannot_be_read_are_no_error_here():
    def fail():
        raise ValueError("part-0: damaged")

    watched, lines = watch(measure=fail)
    train(watched, [7.0] * 400)
    assert lines == [
        "The entropy of the masked tokens is not measured: part-0: damaged"
    ]


@pytest.mark.parametrize(
    "options",
    [dict(is_first=False), dict(measure=lambda: None)],
    ids=["another worker", "another job"],
)
def test_other_workers_and_other_jobs_log_nothing(options):
    watched, lines = watch(**options)
    train(watched, [7.0] * 400)
    assert not lines and not watched.parameters


def test_a_training_writes_the_entropy_to_its_log_and_its_report(
    tiny_config_file, tiny_records, tmp_path, capsys
):
    run("pretraining", *pretraining_flags(tiny_config_file, tiny_records, tmp_path))
    [entropy] = [
        entry["data"]["masked_token_entropy"]
        for entry in read_log(tmp_path)
        if entry.get("step") == "PARAMETER"
    ]
    assert f"{entropy:.4f} nats" in capsys.readouterr().out
    assert logged_values(tmp_path, "mlm_loss")
    assert "masked LM without context" in (tmp_path / "report.html").read_text()
