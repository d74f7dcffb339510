"""Steps of the optimizers: float64 NumPy, numbers by hand, and tf-models."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.training.optimizers import LAMB, AdamWeightDecay, build_optimizer
from bert_tf.training.update_formulas import adam_update, lamb_update

BETA_1, BETA_2 = 0.9, 0.999
LEARNING_RATE = 0.05
NUM_STEPS = 5
# Paths like those of a BERT, with every kind of exclusion.
SHAPES = {
    "embeddings/word_embeddings": (6, 4),
    "query/kernel": (4, 3),
    "query/bias": (3,),
    "LayerNorm/gamma": (4,),
    "predictions/output_bias": (6,),
}
# Five steps of about 20 float32 roundings (6e-8 each) against float64.
TOLERANCE = {"rtol": 5e-6, "atol": 1e-6}


def random_arrays(seed: int) -> dict[str, np.ndarray]:
    """Standard normal float32 values for every path of SHAPES."""
    random = np.random.default_rng(seed)
    return {
        path: random.normal(size=shape).astype("float32")
        for path, shape in SHAPES.items()
    }


def make_variables(values: dict[str, np.ndarray]) -> list[keras.Variable]:
    """Variables whose paths are the keys."""
    variables = []
    for path, value in values.items():
        scope, name = path.split("/")
        with keras.name_scope(scope):
            variables.append(keras.Variable(value, name=name))
    return variables


def take_steps(optimizer: keras.optimizers.Optimizer) -> dict[str, np.ndarray]:
    """Weights after NUM_STEPS steps of seeded gradients, in one graph function."""
    variables = make_variables(random_arrays(seed=0))
    optimizer.build(variables)
    step = tf.function(lambda gradients: optimizer.apply(gradients, variables))
    for number in range(1, NUM_STEPS + 1):
        step([tf.constant(g) for g in random_arrays(seed=number).values()])
    return {variable.path: variable.numpy() for variable in variables}


def reference(
    *,
    is_lamb: bool,
    bias_correction: bool,
    not_decayed: tuple[str, ...] = ("bias", "LayerNorm"),
    not_adapted: tuple[str, ...] = (),
    epsilon: float = 1e-6,
    decay: float = 0.01,
    factors: dict[str, float] | None = None,
) -> dict[str, np.ndarray]:
    """Weights after the same steps by the papers' formulas in float64."""
    weights = {p: w.astype("float64") for p, w in random_arrays(seed=0).items()}
    m = {path: 0.0 for path in SHAPES}
    v = {path: 0.0 for path in SHAPES}
    for t in range(1, NUM_STEPS + 1):
        for path, g in random_arrays(seed=t).items():
            w, g = weights[path], g.astype("float64")
            m[path] = BETA_1 * m[path] + (1 - BETA_1) * g
            v[path] = BETA_2 * v[path] + (1 - BETA_2) * g**2
            m_hat = m[path] / (1 - BETA_1**t) if bias_correction else m[path]
            v_hat = v[path] / (1 - BETA_2**t) if bias_correction else v[path]
            u = m_hat / (np.sqrt(v_hat) + epsilon)
            if not any(part in path for part in not_decayed):
                u = u + decay * w
            ratio = 1.0
            if is_lamb and not any(part in path for part in not_adapted):
                ratio = np.linalg.norm(w) / np.linalg.norm(u)
            rate = LEARNING_RATE * (factors or {}).get(path, 1.0)
            weights[path] = w - rate * ratio * u
    return weights


def assert_same(tested: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """All weights agree within TOLERANCE."""
    assert list(tested) == list(expected)
    for path, value in tested.items():
        np.testing.assert_allclose(value, expected[path], err_msg=path, **TOLERANCE)


@pytest.mark.parametrize(
    ("optimizer_type", "is_lamb", "bias_correction"),
    [("lamb", True, True), ("adam", False, False), ("adamw", False, True)],
)
def test_five_steps_match_numpy_reference(
    optimizer_type: str, is_lamb: bool, bias_correction: bool
) -> None:
    tested = take_steps(build_optimizer(optimizer_type, LEARNING_RATE))
    assert_same(tested, reference(is_lamb=is_lamb, bias_correction=bias_correction))


@pytest.mark.parametrize("is_fused", [False, True])
def test_a_scale_multiplies_each_gradient(is_fused: bool) -> None:
    if is_fused and not fused_ops.are_in_use():
        pytest.skip("needs the fused operations")
    found = []
    for factor, scale in ((0.25, None), (1.0, tf.constant(0.25))):
        optimizer = build_optimizer("adamw", LEARNING_RATE, epsilon=1.0)
        variables = make_variables(random_arrays(seed=0))
        optimizer.is_fused = is_fused
        optimizer.build(variables)
        gradients = [tf.constant(factor * g) for g in random_arrays(seed=1).values()]
        optimizer.apply_scaled(gradients, variables, scale)
        found.append({variable.path: variable.numpy() for variable in variables})
    assert_same(*found)


@pytest.mark.parametrize("optimizer_type", ["lamb", "adam"])
def test_rates_by_path_match_numpy_reference(optimizer_type: str) -> None:
    """The first pattern that is found counts; 0 also stops the decay."""
    patterns = {"^query/kernel": 0.25, "^query/": 0.5, "^embeddings/": 0.0}
    tested = take_steps(
        build_optimizer(optimizer_type, LEARNING_RATE, rate_factors=patterns)
    )
    factors = {"query/kernel": 0.25, "query/bias": 0.5}
    factors["embeddings/word_embeddings"] = 0.0
    is_lamb = optimizer_type == "lamb"
    expected = reference(is_lamb=is_lamb, bias_correction=is_lamb, factors=factors)
    assert_same(tested, expected)


def test_lamb_without_bias_correction_matches_numpy_reference() -> None:
    tested = take_steps(LAMB(LEARNING_RATE, bias_correction=False))
    assert_same(tested, reference(is_lamb=True, bias_correction=False))


def test_hyperparameters_reach_the_formula() -> None:
    tested = take_steps(
        LAMB(
            LEARNING_RATE,
            epsilon=0.1,
            weight_decay_rate=0.3,
            exclude_from_weight_decay=[r"^query/"],
            exclude_from_layer_adaptation=["gamma$", "embeddings"],
        )
    )
    expected = reference(
        is_lamb=True,
        bias_correction=True,
        not_decayed=("query/",),
        not_adapted=("gamma", "embeddings"),
        epsilon=0.1,
        decay=0.3,
    )
    assert_same(tested, expected)


def test_first_lamb_step_has_the_numbers_worked_by_hand() -> None:
    variable = keras.Variable(np.array([1.0, 2.0, 3.0, 4.0], "float32"), name="kernel")
    LAMB(0.1).apply([tf.constant([1.0, -1.0, 1.0, -1.0])], [variable])
    # The corrected first moments are g and g^2, so that m_hat / sqrt(v_hat) = g.
    # u = g + 0.01 w = [1.01, -0.98, 1.03, -0.96]; |u|^2 = 3.963, |w|^2 = 30.
    # ratio = sqrt(30 / 3.963) = 2.7513674, w -= 0.1 * 2.7513674 * u.
    expected = [0.7221119, 2.2696340, 2.7166092, 4.2641313]
    # Epsilon, left out above, moves u by 1e-6.
    np.testing.assert_allclose(variable.numpy(), expected, rtol=2e-6)


@pytest.mark.parametrize("weight_decay_rate", [0.01, 0.5])
def test_lamb_weight_decay_enters_the_trust_ratio(weight_decay_rate: float) -> None:
    variable = keras.Variable(np.array([3.0, -4.0], "float32"), name="kernel")
    LAMB(0.1, weight_decay_rate=weight_decay_rate).apply([tf.zeros(2)], [variable])
    # u = wd * w, ratio = 1 / wd: the step is 0.1 * w whatever the rate of decay.
    np.testing.assert_allclose(variable.numpy(), [2.7, -3.6], rtol=1e-6)


def test_adam_weight_decay_is_scaled_by_the_learning_rate_alone() -> None:
    variable = keras.Variable(np.array([3.0, -4.0], "float32"), name="kernel")
    AdamWeightDecay(0.1, weight_decay_rate=0.5).apply([tf.zeros(2)], [variable])
    # w - 0.1 * 0.5 * w
    np.testing.assert_allclose(variable.numpy(), [2.85, -3.8], rtol=1e-6)


def test_first_adam_step_without_correction_is_root_ten_times_the_corrected() -> None:
    steps = {}
    for optimizer_type in ("adam", "adamw"):
        variable = keras.Variable(np.zeros(2, "float32"), name="kernel")
        optimizer = build_optimizer(optimizer_type, 1.0)
        optimizer.apply([tf.constant([2.0, -2.0])], [variable])
        steps[optimizer_type] = variable.numpy()
    # 0.1 g / sqrt(0.001 g^2) = sqrt(10) sign(g); corrected: sign(g). Epsilon 1e-6 is
    # added to 0.0632 in the one and to 2 in the other: 1.6e-5 and 5e-7.
    np.testing.assert_allclose(steps["adam"], [-(10**0.5), 10**0.5], rtol=2e-5)
    np.testing.assert_allclose(steps["adamw"], [-1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("update", [adam_update, lamb_update])
def test_correction_of_the_first_step_is_exact_to_float32(update: object) -> None:
    # 1 - 0.999 in float32 is off by 1.3e-5; the root of it would show here.
    options = {"layer_adaptation": False} if update is lamb_update else {}
    one, zero = tf.ones(1), tf.zeros(1)
    w, m, v = update(
        zero, zero, zero, one, one[0], one[0],
        beta_1=0.9, beta_2=0.999, epsilon=1e-12, weight_decay_rate=0.0,
        bias_correction=True, **options,
    )  # fmt: skip
    np.testing.assert_allclose(w, [-1.0], rtol=5e-7)
    np.testing.assert_allclose([m[0], v[0]], [0.1, 0.001], rtol=5e-7)


def test_lamb_ratio_is_one_where_the_weights_are_zero() -> None:
    variable = keras.Variable(np.zeros(2, "float32"), name="kernel")
    LAMB(0.1).apply([tf.constant([5.0, -5.0])], [variable])
    # m_hat / sqrt(v_hat) = sign(g), up to epsilon / 5.
    np.testing.assert_allclose(variable.numpy(), [-0.1, 0.1], rtol=1e-6)


@pytest.mark.parametrize("optimizer_type", ["lamb", "adam", "adamw"])
def test_zero_weights_and_gradients_stay_zero(optimizer_type: str) -> None:
    variable = keras.Variable(np.zeros(3, "float32"), name="kernel")
    optimizer = build_optimizer(optimizer_type, 0.1)
    for _ in range(2):
        optimizer.apply([tf.zeros(3)], [variable])
    np.testing.assert_array_equal(variable.numpy(), np.zeros(3))


def test_beta_1_of_zero_has_no_momentum() -> None:
    variable = keras.Variable(np.zeros(1, "float32"), name="kernel")
    optimizer = AdamWeightDecay(1.0, beta_1=0.0, bias_correction=True)
    optimizer.apply([tf.constant([2.0])], [variable])
    np.testing.assert_allclose(variable.numpy(), [-1.0], rtol=1e-6)


PEER_SCRIPT = """
import json, sys
import tensorflow as tf
from official.modeling.optimization import lamb, legacy_adamw

request = json.load(sys.stdin)
if request["is_lamb"]:
    # A pattern that matches nothing: an empty list would mean the other exclusions.
    optimizer = lamb.LAMB(exclude_from_layer_adaptation=["None"], **request["settings"])
else:
    optimizer = legacy_adamw.AdamWeightDecay(
        gradient_clip_norm=0.0, **request["settings"])
variables = [tf.Variable(w, name=path) for path, w in request["weights"].items()]
for gradients in request["gradients"]:
    gradients = [tf.constant(g) for g in gradients.values()]
    optimizer.apply_gradients(zip(gradients, variables))
weights = [v.numpy().tolist() for v in variables]
print(json.dumps(dict(zip(request["weights"], weights))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer_type", ["lamb", "adamw"])
def test_five_steps_match_tf_models(optimizer_type: str) -> None:
    # tf-models' Adam decays first and then steps, which is the same since the step
    # does not read the weights; but its epsilon is added to the root of the
    # uncorrected v, so the two agree where epsilon is negligible. Its LAMB is ours.
    epsilon = 1e-6 if optimizer_type == "lamb" else 1e-12
    as_lists = [
        {path: value.tolist() for path, value in random_arrays(seed=t).items()}
        for t in range(NUM_STEPS + 1)
    ]
    request = {
        "is_lamb": optimizer_type == "lamb",
        "weights": as_lists[0],
        "gradients": as_lists[1:],
        "settings": {
            "learning_rate": LEARNING_RATE,
            "epsilon": epsilon,
            "weight_decay_rate": 0.1,
            "exclude_from_weight_decay": ["LayerNorm", "layer_norm", "bias"],
        },
    }
    # A process of its own: tf-models brings the Keras of TensorFlow 2.15 along.
    peer = subprocess.run(
        [sys.executable, "-c", PEER_SCRIPT],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    expected = json.loads(peer.stdout.splitlines()[-1])
    ours = build_optimizer(
        optimizer_type, LEARNING_RATE, epsilon=epsilon, weight_decay_rate=0.1
    )
    tested = take_steps(ours)
    # Two float32 computations, each as close to the exact one as TOLERANCE says.
    assert_same(tested, {path: np.array(value) for path, value in expected.items()})
