"""The learning rate against the formulas of google-research/bert and NVIDIA's BERT."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf.training.schedules import WarmupPolynomialDecay

PEAK = 0.006
TOTAL = 1000
WARMUP = 250
# A few float32 roundings (6e-8 each), one of them inside a power.
TOLERANCE = 1e-6


def schedule(**changes: object) -> WarmupPolynomialDecay:
    """A schedule of 1000 steps, 250 of them warm-up, linear decay."""
    settings = {
        "learning_rate": PEAK,
        "num_train_steps": TOTAL,
        "num_warmup_steps": WARMUP,
        "power": 1.0,
    }
    return WarmupPolynomialDecay(**(settings | changes))


def rates(tested: WarmupPolynomialDecay, steps: np.ndarray) -> np.ndarray:
    """The rate at each step."""
    return np.array([float(tested(step)) for step in steps])


def polynomial(steps: np.ndarray, start: float, power: float, end: float = 0.0):  # noqa: ANN201
    """tf.train.polynomial_decay in float64."""
    return end + (start - end) * (1.0 - np.minimum(steps, TOTAL) / TOTAL) ** power


STEPS = np.array([0, 1, 100, 249, 250, 251, 600, 998, 999, 1000, 1001, 10**7])


def test_lamb_rate_matches_formula_and_keeps_its_jump() -> None:
    expected = np.where(
        STEPS < WARMUP, PEAK * STEPS / WARMUP, polynomial(STEPS, PEAK, 0.5)
    )
    tested = schedule(power=0.5)
    np.testing.assert_allclose(rates(tested, STEPS), expected, rtol=TOLERANCE)
    # By hand: 249 / 250 of 0.006, then sqrt(1 - 250 / 1000) = 0.8660254 of it.
    np.testing.assert_allclose(
        rates(tested, np.array([249, 250])), [0.005976, 0.0051961524], rtol=TOLERANCE
    )


def test_adam_rate_matches_formula_of_the_raised_start() -> None:
    raised = PEAK / (1.0 - WARMUP / TOTAL)  # 0.008
    expected = np.where(
        STEPS < WARMUP, PEAK * STEPS / WARMUP, polynomial(STEPS, raised, 1.0)
    )
    tested = schedule(compensate_warmup=True)
    np.testing.assert_allclose(rates(tested, STEPS), expected, rtol=TOLERANCE)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("end", [0.0, 0.001])
def test_compensated_decay_starts_at_the_peak(power: float, end: float) -> None:
    tested = schedule(power=power, end_learning_rate=end, compensate_warmup=True)
    np.testing.assert_allclose(float(tested(WARMUP)), PEAK, rtol=TOLERANCE)
    # No step near the crossover is longer than the slope of the warm-up.
    near = rates(tested, np.arange(WARMUP - 3, WARMUP + 4))
    assert np.abs(np.diff(near)).max() <= PEAK / WARMUP * (1.0 + 1e-3)


def test_uncompensated_linear_decay_is_that_of_original_bert() -> None:
    expected = np.where(
        STEPS < WARMUP, PEAK * STEPS / WARMUP, polynomial(STEPS, PEAK, 1.0)
    )
    np.testing.assert_allclose(rates(schedule(), STEPS), expected, rtol=TOLERANCE)


def test_first_step_has_rate_zero_with_warmup_and_the_peak_without() -> None:
    assert float(schedule()(0)) == 0.0
    assert float(schedule(num_warmup_steps=0)(0)) == np.float32(PEAK)


def test_end_rate_holds_from_the_last_step_on() -> None:
    tested = schedule(end_learning_rate=0.001)
    steps = np.array([250, 625, 1000, 1001, 5000])
    expected = polynomial(steps, PEAK, 1.0, end=0.001)
    np.testing.assert_allclose(rates(tested, steps), expected, rtol=TOLERANCE)
    assert float(tested(TOTAL)) == np.float32(0.001)


def test_warmup_longer_than_training_ends_at_the_end_rate() -> None:
    tested = schedule(num_train_steps=100, num_warmup_steps=200)
    np.testing.assert_allclose(
        rates(tested, np.array([50, 99, 100, 150])),
        [PEAK / 4, PEAK * 99 / 200, 0.0, 0.0],
        rtol=TOLERANCE,
    )


def test_steps_near_the_end_of_a_long_run_keep_their_digits() -> None:
    total = 10_000_000
    tested = schedule(num_train_steps=total, num_warmup_steps=0, learning_rate=1.0)
    # 1 - t / T would be off by a tenth here: float32 has steps of 6e-8 below 1.
    np.testing.assert_allclose(float(tested(total - 3)), 3.0 / total, rtol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_rate_is_a_float32_scalar_inside_a_graph(dtype: str) -> None:
    tested = tf.function(schedule(num_warmup_steps=500))
    rate = tested(tf.constant(100, dtype))
    assert rate.dtype == tf.float32
    assert rate.shape == ()
    np.testing.assert_allclose(float(rate), PEAK / 5, rtol=TOLERANCE)


def test_optimizer_feeds_the_steps_already_taken() -> None:
    variable = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(schedule(learning_rate=1.0))
    for _ in range(3):
        optimizer.apply([tf.constant([1.0])], [variable])
    # Steps 0, 1 and 2 of a warm-up of 250 steps to 1.0.
    expected = 1.0 - (0 + 1 + 2) / WARMUP
    np.testing.assert_allclose(variable.numpy(), [expected], rtol=TOLERANCE)


def test_config_round_trip_keeps_every_setting() -> None:
    settings = {
        "learning_rate": 0.01,
        "num_train_steps": 90,
        "num_warmup_steps": 9,
        "power": 0.7,
        "start_warmup_step": -3,
        "end_learning_rate": 0.002,
        "compensate_warmup": True,
    }
    serialized = keras.optimizers.schedules.serialize(WarmupPolynomialDecay(**settings))
    copy = keras.optimizers.schedules.deserialize(serialized)
    assert isinstance(copy, WarmupPolynomialDecay)
    assert copy.get_config() == settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "`learning_rate` must be greater than 0"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be greater than 0"),
        ({"num_train_steps": 0}, "`num_train_steps` must be greater than 0"),
        ({"num_warmup_steps": -1}, "`num_warmup_steps` must be at least 0"),
        ({"power": 0.0}, "`power` must be greater than 0"),
        ({"end_learning_rate": -1e-9}, "`end_learning_rate` must be at least 0"),
        ({"end_learning_rate": 1.0}, "`end_learning_rate` must be at most"),
        (
            {"num_warmup_steps": TOTAL, "compensate_warmup": True},
            "`num_warmup_steps` must be less than num_train_steps=1000. "
            "Received: num_warmup_steps=1000",
        ),
    ],
)
def test_bad_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(**changes)


def mlperf_rate(step: int, start: int, warmup: int) -> float:
    """Its formula: the warm-up is moved, and the decay is not; power 1."""
    if step - start < warmup:
        return PEAK * (step - start) / warmup
    return PEAK * (1.0 - min(step / TOTAL, 1.0))


@pytest.mark.parametrize("start", [-100, 0, 40])
def test_a_moved_warmup_matches_mlperf_s_formula(start: int) -> None:
    steps = np.array([40, 41, 149, 150, 151, 249, 250, 289, 290, 999, 1000])
    expected = [mlperf_rate(step, start, WARMUP) for step in steps]
    found = rates(schedule(start_warmup_step=start), steps)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


def test_before_a_later_warmup_the_rate_is_0() -> None:
    assert rates(schedule(start_warmup_step=40), np.array([0, 39, 40])).tolist() == [
        0.0,
        0.0,
        0.0,
    ]


def test_a_warmup_that_ended_before_the_run_has_no_effect() -> None:
    tested = schedule(start_warmup_step=-WARMUP, compensate_warmup=True)
    np.testing.assert_allclose(
        rates(tested, STEPS), polynomial(STEPS, PEAK, 1.0), rtol=TOLERANCE
    )


def test_a_moved_warmup_meets_the_compensated_decay_at_the_peak() -> None:
    tested = schedule(start_warmup_step=50, compensate_warmup=True)
    np.testing.assert_allclose(float(tested(WARMUP + 50)), PEAK, rtol=TOLERANCE)
