"""The steps after which a checkpoint is due."""

import types

import pytest

from bert_tf.config.saving import SavingConfig
from bert_tf.jobs.run.checkpoint_policy import CheckpointPolicy


def make_policy(per_step, **settings):
    """A policy of a run with so many sequences in a step."""
    of_training = {"save_checkpoints_steps": 1000, "save_checkpoints_minutes": 0.0}
    training = of_training | {n: settings.pop(n) for n in of_training if n in settings}
    config = types.SimpleNamespace(
        training=types.SimpleNamespace(**training), saving=SavingConfig(**settings)
    )
    return CheckpointPolicy(config, lambda step: per_step * step)


def due_steps(per_step, last=20, **settings):
    policy = make_policy(per_step, **settings)
    return [step for step in range(1, last + 1) if policy.is_due(step, 0.0)]


@pytest.mark.parametrize(
    "per_step, every, first, steps",
    [
        # By hand: 10 sequences a step; 25, 50, 75, 100 are reached at these steps.
        (10, 25, 0, [3, 5, 8, 10, 13, 15, 18, 20]),
        # The first one at 70, then 95, 120, 145, 170, 195.
        (10, 25, 70, [7, 10, 12, 15, 17, 20]),
        # Fewer than a step has: every step, once.
        (10, 1, 1, [*range(1, 21)]),
        # A packed record counts 1.5 on average: 16 records are 24 sequences.
        (24.0, 100, 0, [5, 9, 13, 17]),
        # min below every: the first is due at `every`.
        (10, 100, 30, [10, 20]),
    ],
)
def test_checkpoints_by_samples_are_due_at_the_first_step_that_reaches_each(
    per_step, every, first, steps
):
    settings = {
        "num_samples_per_checkpoint": every,
        "min_samples_to_start_checkpoints": first,
        "save_checkpoints_steps": 1,  # Does not count.
    }
    assert due_steps(per_step, **settings) == steps


def test_samples_that_must_be_passed_first_hold_back_those_by_steps_and_minutes():
    settings = {
        "min_samples_to_start_checkpoints": 55,
        "save_checkpoints_steps": 2,
        "save_checkpoints_minutes": 1.0,
    }
    assert due_steps(10, 12, **settings) == [6, 8, 10, 12]
    policy = make_policy(10, **settings)
    assert not policy.is_due(5, seconds=3600.0)
    assert policy.is_due(7, seconds=60.0)


def test_by_samples_the_minutes_still_count():
    policy = make_policy(
        10, num_samples_per_checkpoint=10**6, save_checkpoints_minutes=30.0
    )
    assert not policy.is_due(3, seconds=1799.0)
    assert policy.is_due(3, seconds=1800.0)


@pytest.mark.parametrize("name", ["skip_checkpoint", "benchmark"])
def test_nothing_is_due_where_nothing_is_saved_and_a_line_says_so(name):
    policy = make_policy(10, **{name: True}, save_checkpoints_steps=1)
    assert not any(policy.is_due(step, seconds=1e9) for step in range(1, 9))
    [line] = policy.notes()
    assert line.startswith(f"--{name}: no checkpoint")


def test_a_policy_that_is_not_the_default_is_one_line():
    assert make_policy(10).notes() == []
    [by_samples, since] = make_policy(
        10,
        num_samples_per_checkpoint=500000,
        min_samples_to_start_checkpoints=3000000,
    ).notes()
    assert "every 500,000 sequences, not every 1,000 steps" in by_samples
    assert "none before 3,000,000 sequences" in since
