"""The optimizers as Keras objects: fit, slots, configs, and what they refuse."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf.training.optimizers import (
    LAMB,
    AdamW,
    AdamWeightDecay,
    build_optimizer,
)
from bert_tf.training.schedules import WarmupPolynomialDecay


def test_rates_that_are_left_out_are_those_of_keras() -> None:
    for ours in (LAMB, AdamW, AdamWeightDecay):
        theirs = keras.optimizers.Lamb if ours is LAMB else keras.optimizers.AdamW
        assert float(ours().learning_rate) == float(theirs().learning_rate)


@pytest.mark.parametrize("dense_shape", [(4, 2), None])
def test_sliced_gradients_are_summed_into_dense_ones(
    dense_shape: tuple[int, int] | None,
) -> None:
    rows, indices = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [2, 0, 2]
    table = keras.Variable(np.ones((4, 2), "float32"), name="embeddings")
    optimizer = LAMB(0.1)
    optimizer.build([table])

    @tf.function
    def step() -> None:
        shape = None if dense_shape is None else tf.constant(dense_shape)
        slices = tf.IndexedSlices(tf.constant(rows), tf.constant(indices), shape)
        optimizer.apply([slices], [table])

    step()
    # Rows 0 and 2 of the slices both belong to row 2: 0.1 * ([1, 2] + [5, 6]).
    np.testing.assert_allclose(
        optimizer.slots()["embeddings/adam_m"].numpy(),
        [[0.3, 0.4], [0.0, 0.0], [0.6, 0.8], [0.0, 0.0]],
        rtol=1e-6,
    )
    # Rows without a gradient decay like the others: u = 0.01, and 1.01 elsewhere;
    # ratio = sqrt(8 / (4 * 1.0201 + 4 * 0.0001)) = 1.4001428.
    np.testing.assert_allclose(
        table.numpy(),
        1.0 - 0.1 * 1.4001428 * np.array([[1.01] * 2, [0.01] * 2] * 2),
        rtol=2e-6,
    )


def test_slots_have_the_names_of_original_bert_and_hold_the_moments() -> None:
    variables = []
    for scope, name in (("query", "kernel"), ("LayerNorm", "gamma")):
        with keras.name_scope(scope):
            variables.append(keras.Variable(np.ones(2, "float32"), name=name))
    optimizer = LAMB(0.1)
    optimizer.build(variables)
    optimizer.apply([tf.constant([1.0, 2.0]), tf.constant([3.0, 4.0])], variables)
    slots = optimizer.slots()
    expected = {
        "query/kernel/adam_m": [0.1, 0.2],  # 0.1 g
        "query/kernel/adam_v": [0.001, 0.004],  # 0.001 g^2
        "LayerNorm/gamma/adam_m": [0.3, 0.4],
        "LayerNorm/gamma/adam_v": [0.009, 0.016],
    }
    assert list(slots) == list(expected)
    for name, value in expected.items():
        assert slots[name].dtype == "float32"
        np.testing.assert_allclose(slots[name].numpy(), value, rtol=5e-7)


def test_slots_before_build_are_refused() -> None:
    with pytest.raises(ValueError, match="optimizer.build"):
        LAMB(0.1).slots()


def test_slots_of_two_variables_with_one_path_are_refused() -> None:
    optimizer = LAMB(0.1)
    optimizer.build([keras.Variable([1.0], name="w"), keras.Variable([2.0], name="w")])
    with pytest.raises(ValueError, match="w twice"):
        optimizer.slots()


def test_iterations_count_the_steps_and_lead_the_schedule() -> None:
    variable = keras.Variable(np.array([1.0], "float32"), name="bias")
    rate = WarmupPolynomialDecay(
        learning_rate=1.0, num_train_steps=100, num_warmup_steps=10, power=1.0
    )
    optimizer = AdamWeightDecay(rate, bias_correction=True)
    optimizer.apply([tf.constant([1.0])], [variable])
    # The first step has rate 0; its moments count all the same.
    assert variable.numpy() == [1.0]
    np.testing.assert_allclose(optimizer.slots()["bias/adam_m"].numpy(), [0.1])
    optimizer.apply([tf.constant([1.0])], [variable])
    # Rate 0.1; a constant gradient of 1 has corrected moments of 1.
    np.testing.assert_allclose(variable.numpy(), [0.9], rtol=2e-6)
    assert int(optimizer.iterations.numpy()) == 2


KERAS_SETTINGS = (
    *("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor"),
    *("use_ema", "ema_momentum", "ema_overwrite_frequency"),
    "gradient_accumulation_steps",
)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    ("optimizer_type", "expected"),
    [
        # Four equal errors of -2 and inputs of [1, -1]: the gradient is [-4, 4], and
        # the corrected moments of a first step give u = sign(g) + 0.01 w.
        # u = [-0.97, 1.04], |w| = 5, |u| = 1.4221463, w -= 0.1 * 3.5158126 * u.
        ("lamb", [3.3410338, 3.6343555]),
        # w -= 0.1 * u
        ("adamw", [3.097, 3.896]),
        # u = sqrt(10) sign(g) + 0.01 w
        ("adam", [3.3132278, 3.6797722]),
    ],
)
def test_compile_and_fit_take_the_step_worked_by_hand(
    optimizer_type: str, expected: list[float], jit_compile: bool
) -> None:
    line = keras.layers.Dense(1, use_bias=False, name="line")
    model = keras.Sequential([keras.Input((2,)), line])
    line.kernel.assign([[3.0], [4.0]])
    optimizer = build_optimizer(optimizer_type, 0.1)
    model.compile(optimizer=optimizer, loss="mse", jit_compile=jit_compile)
    inputs = np.array([[1.0, -1.0]] * 4, "float32")  # outputs of -1
    model.fit(inputs, np.ones((4, 1), "float32"), batch_size=4, verbose=0)
    # Epsilon, left out above, moves u by 1e-6 / 0.126 at most.
    np.testing.assert_allclose(line.kernel.numpy()[:, 0], expected, rtol=4e-6)
    assert int(optimizer.iterations.numpy()) == 1
    path = line.kernel.path
    assert list(optimizer.slots()) == [f"{path}/adam_m", f"{path}/adam_v"]


@pytest.mark.parametrize("is_built", [True, False])
def test_apply_works_inside_a_graph_built_before_or_not(is_built: bool) -> None:
    variable = keras.Variable(np.array([3.0, -4.0], "float32"), name="kernel")
    optimizer = LAMB(0.1)
    if is_built:
        optimizer.build([variable])
    step = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
    step(tf.zeros(2))
    # u = 0.01 w and ratio 100, twice.
    step(tf.zeros(2))
    np.testing.assert_allclose(variable.numpy(), [2.43, -3.24], rtol=1e-6)
    assert int(optimizer.iterations.numpy()) == 2


def test_apply_inside_a_condition_that_fails_changes_nothing() -> None:
    variable = keras.Variable(np.array([3.0, -4.0], "float32"), name="kernel")
    optimizer = LAMB(0.1)
    optimizer.build([variable])

    @tf.function
    def step(is_finite: tf.Tensor) -> None:
        def update() -> tf.Tensor:
            optimizer.apply([tf.ones(2)], [variable])
            return tf.constant(True)

        tf.cond(is_finite, update, lambda: tf.constant(False))

    step(tf.constant(False))
    assert int(optimizer.iterations.numpy()) == 0
    np.testing.assert_array_equal(variable.numpy(), [3.0, -4.0])
    np.testing.assert_array_equal(optimizer.slots()["kernel/adam_m"].numpy(), [0.0] * 2)


@pytest.mark.parametrize(
    "optimizer",
    [
        LAMB(
            WarmupPolynomialDecay(
                learning_rate=0.1, num_train_steps=9, num_warmup_steps=2, power=0.5
            ),
            beta_1=0.8,
            beta_2=0.99,
            epsilon=1e-5,
            weight_decay_rate=0.2,
            exclude_from_weight_decay=["a", "b$"],
            exclude_from_layer_adaptation=["c"],
            bias_correction=False,
            name="mine",
        ),
        LAMB(keras.optimizers.schedules.CosineDecay(0.1, 9), global_clipnorm=1.0),
        AdamW(0.1, weight_decay=0.3, clipnorm=2.0, use_ema=True, ema_momentum=0.5),
        AdamWeightDecay(0.25, bias_correction=True, exclude_from_weight_decay=()),
    ],
)
def test_config_round_trip_keeps_every_setting(
    optimizer: keras.optimizers.Optimizer,
) -> None:
    config = keras.optimizers.serialize(optimizer)
    copy = keras.optimizers.deserialize(json.loads(json.dumps(config)))
    assert type(copy) is type(optimizer)
    assert copy.get_config() == optimizer.get_config()


def test_config_holds_the_constructor_arguments_by_name() -> None:
    config = LAMB(0.5, exclude_from_layer_adaptation=["c"], name="mine").get_config()
    # Those of Keras that are not set.
    assert (
        config.items()
        >= dict.fromkeys(
            ["clipnorm", "clipvalue", "global_clipnorm", "gradient_accumulation_steps"]
        ).items()
    )
    ours = {n: value for n, value in config.items() if n not in KERAS_SETTINGS}
    assert ours == {
        "name": "mine",
        "learning_rate": 0.5,
        "rate_factors": {},
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-6,
        "weight_decay_rate": 0.01,
        "exclude_from_weight_decay": ["LayerNorm", "layer_norm", "bias"],
        "exclude_from_layer_adaptation": ["c"],
        "bias_correction": True,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta_1": 1.0}, r"`beta_1` must be in \[0, 1\)"),
        ({"beta_2": -0.1}, r"`beta_2` must be in \[0, 1\)"),
        ({"epsilon": 0.0}, "`epsilon` must be greater than 0"),
        ({"weight_decay_rate": -0.01}, "`weight_decay_rate` must be at least 0"),
        ({"exclude_from_weight_decay": "bias"}, "must be a list"),
        ({"exclude_from_weight_decay": ["("]}, "must hold regular expressions"),
        ({"exclude_from_layer_adaptation": ["["]}, "exclude_from_layer_adaptation"),
    ],
)
def test_bad_values_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LAMB(0.1, **settings)


def test_unknown_optimizer_type_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="be one of lamb, adam, adamw. Received.*sgd"):
        build_optimizer("sgd", 0.1)


def test_weight_decay_is_keras_name_of_the_decay_inside_the_trust_ratio() -> None:
    values = []
    for settings in ({"weight_decay": 0.3}, {"weight_decay_rate": 0.3}):
        variable = keras.Variable(np.array([3.0, -4.0], "float32"), name="kernel")
        LAMB(0.1, **settings).apply([tf.ones(2)], [variable])
        values.append(variable.numpy())
    # u = 1 + 0.3 w = [1.9, -0.2], |w| / |u| = 5 / 1.9104973.
    expected = [3.0 - 0.1 * 2.6171195 * 1.9, -4.0 + 0.1 * 2.6171195 * 0.2]
    np.testing.assert_allclose(values, [expected] * 2, rtol=2e-6)


def test_two_names_of_the_decay_are_refused() -> None:
    with pytest.raises(ValueError, match="`weight_decay` must be given under one name"):
        LAMB(0.1, weight_decay=0.1, weight_decay_rate=0.1)


def test_adamw_corrects_the_bias_of_the_moments() -> None:
    variable = keras.Variable(np.array([3.0], "float32"), name="bias")
    AdamW(0.1).apply([tf.constant([5.0])], [variable])
    # A first corrected step is the sign of the gradient; biases do not decay.
    np.testing.assert_allclose(variable.numpy(), [2.9], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Rows 0 and 2 get [3, 4] and [3, 4] + [3, 4]: norms 5, 10 and 125^0.5 in all.
        ({"clipnorm": 1.0}, 0.1 / 125**0.5),
        ({"global_clipnorm": 1.0}, 0.1 / (125 + 1) ** 0.5),
        ({"clipvalue": 2.0}, None),
    ],
)
def test_clipping_sees_the_sum_of_sliced_gradients(
    settings: dict[str, float], expected: float | None
) -> None:
    table = keras.Variable(np.ones((4, 2), "float32"), name="embeddings")
    other = keras.Variable(np.ones(1, "float32"), name="kernel")
    optimizer = AdamW(0.1, **settings)
    rows = tf.constant([[3.0, 4.0]] * 3)
    slices = tf.IndexedSlices(rows, tf.constant([0, 2, 2]), tf.constant((4, 2)))
    optimizer.apply([slices, tf.ones(1)], [table, other])
    moment = optimizer.slots()["embeddings/adam_m"].numpy()
    sums = np.array([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0], [0.0, 0.0]])
    if expected is None:
        np.testing.assert_allclose(moment, 0.1 * np.minimum(sums, 2.0), rtol=1e-6)
    else:
        np.testing.assert_allclose(moment, expected * sums, rtol=1e-6)


def test_accumulated_batches_are_one_step() -> None:
    variables = []
    for gradients in ([1.0, 3.0], [2.0]):
        variable = keras.Variable(np.array([3.0, -4.0], "float32"), name="kernel")
        steps = len(gradients) if len(gradients) > 1 else None
        optimizer = LAMB(0.1, gradient_accumulation_steps=steps)
        for gradient in gradients:
            optimizer.apply([tf.constant([gradient, -gradient])], [variable])
        variables.append(variable.numpy())
    np.testing.assert_allclose(variables[0], variables[1], rtol=1e-6)


def test_keras_method_of_excluding_from_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="given to the constructor"):
        LAMB(0.1).exclude_from_weight_decay(var_names=["kernel"])


def test_variables_of_low_precision_are_refused() -> None:
    variable = keras.Variable(np.zeros(2), dtype="bfloat16", name="kernel")
    with pytest.raises(ValueError, match="must be float32. Received: kernel"):
        LAMB(0.1).build([variable])
