"""The time budget of a training, and the learning rate that follows it."""

import pytest
import tensorflow as tf

from bert_tf.training import clock
from bert_tf.training.clock import TrainingClock
from bert_tf.training.schedules import (
    TIME_PARTS,
    DecayByTime,
    WarmupPolynomialDecay,
)


def test_a_clock_counts_from_what_earlier_starts_have_spent(monkeypatch):
    times = iter([100.0, 130.0, 130.0, 900.0])
    monkeypatch.setattr(clock.time, "monotonic", lambda: next(times))
    ours = TrainingClock(budget_seconds=200.0, spent_seconds=50.0)
    assert ours.seconds() == 50.0  # It has not been started.
    ours.start()
    assert ours.seconds() == 80.0
    assert ours.own_share() == pytest.approx(0.4)
    assert ours.own_share() == 1.0


@pytest.mark.parametrize(
    "share, rate",
    # Warm-up in the first tenth: half of the peak at 0.05. From there on the power 0.5
    # of what is left: sqrt(0.25) = 0.5.
    [(0.0, 0.0), (0.05, 0.004), (0.75, 0.004), (1.0, 0.0)],
)
def test_the_learning_rate_follows_the_time(share, rate):
    spent = tf.Variable(share)
    schedule = DecayByTime(
        WarmupPolynomialDecay(
            learning_rate=0.008,
            num_train_steps=TIME_PARTS,
            num_warmup_steps=TIME_PARTS // 10,
            power=0.5,
        ),
        spent,
    )
    for step in (0, 7, 10**6):
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-5)
