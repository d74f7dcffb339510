"""Heads and losses of fine-tuning against plain NumPy, one sequence at a time."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY
from modeling.variable_names import ENCODER
from oracles.numpy_bert import NumpyBert
from scipy.special import log_softmax

from bert_tf.config import BertConfig
from bert_tf.data.batches.example_batches import LabelledSequences
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.jobs.run.resume import weights_by_name
from bert_tf.modeling.finetuning import (
    ClassTask,
    RegressionTask,
    SpanTask,
    build_classifier_model,
    build_span_model,
)
from bert_tf.precision import PrecisionPolicy

S = 16
# Eight sequences of 4 to 8 tokens: one to a row, and two or three to a row.
LENGTHS = [5, 6, 4, 7, 8, 5, 4, 6]
PLAIN = np.arange(8)[:, None]
PACKED = np.array([[4, 3, -1], [0, 1, 2], [7, 6, 5], [-1, -1, -1]])
KINDS = ["span", "class", "regression"]
HEADS = {
    "span": {"cls/squad/output_weights": (2, 8), "cls/squad/output_bias": (2,)},
    "class": {"output_weights": (3, 8), "output_bias": (3,)},
    "regression": {"output_weights": (1, 8), "output_bias": (1,)},
}
# As of numbers below 10 in float32 after some sums.
TOLERANCE = 1e-5
# The widths of tiles.
WIDE = BertConfig(
    **TINY | dict(hidden_size=64, intermediate_size=128, initializer_range=0.1)
)


@pytest.fixture(scope="module")
def config(tiny_config):
    """Weights so large that every input has a visible effect on every logit."""
    return dataclasses.replace(tiny_config, initializer_range=0.5)


@pytest.fixture(scope="module")
def sequences():
    """Random words in two segments."""
    rng = np.random.default_rng(3)
    return [(rng.integers(5, 30, n).tolist(), [0] * 3 + [1] * (n - 3)) for n in LENGTHS]


@pytest.fixture(scope="module")
def labels():
    """Kind -> labels of the eight sequences; the fourth has no answer."""
    first, last = np.array([[1, 2, 3, 0, 7, 2, 1, 4], [3, 2, 3, 0, 7, 4, 1, 5]])
    return {
        "span": {
            "start_positions": first.astype(np.int32),
            "end_positions": last.astype(np.int32),
        },
        "class": {"labels": np.array([0, 1, 2, 2, 1, 0, 0, 1], np.int32)},
        "regression": {
            "labels": np.array([0, 5, 2.5, -1, 3, 0.2, 4, 1], np.float32),
        },
    }


def make_task(kind, config, precision="fp32", **more):
    settings = {"max_seq_length": S, "policy": PrecisionPolicy(precision), **more}
    if kind == "span":
        return SpanTask(build_span_model(config, **settings))
    num_outputs, make = (3, ClassTask) if kind == "class" else (1, RegressionTask)
    return make(build_classifier_model(config, num_outputs, **settings))


@pytest.fixture(scope="module")
def tasks(config):
    """One of each kind; the biases of the heads are not the zeros they begin with."""
    tasks = {kind: make_task(kind, config) for kind in KINDS}
    for task in tasks.values():
        bias = task.model.trainable_variables[-1]
        bias.assign(np.linspace(-0.5, 0.7, bias.shape[0]))
    return tasks


@pytest.fixture(scope="module")
def features(sequences, labels):
    """(kind, rows) -> what a task takes."""

    def make(kind, rows, max_seq_length=S):
        examples = LabelledSequences(
            TokenSequences.join(sequences),
            labels[kind],
            tuple(labels[kind]) if kind == "span" else (),
        )
        return {
            name: tf.constant(array)
            for name, array in examples.features(rows, max_seq_length).items()
        }

    return make


def numpy_logits(kind, task, config, sequences):
    """For each sequence the logits of its tokens [s, 2], or its own [C]."""
    weights = {n: v.numpy() for n, v in weights_by_name(task.model).items()}
    bert = NumpyBert(weights, dataclasses.asdict(config))
    scope = "cls/squad/" if kind == "span" else ""
    kernel = weights[f"{scope}output_weights"].astype(np.float64)
    bias = weights[f"{scope}output_bias"].astype(np.float64)
    hidden = [bert.encode(np.array(ids), np.array(seg)) for ids, seg in sequences]
    vectors = hidden if kind == "span" else [bert.pool(h) for h in hidden]
    return [vector @ kernel.T + bias for vector in vectors]


def numpy_losses(kind, logits, labels):
    """The loss of each sequence, in nats or squared units."""
    if kind == "regression":
        return np.array(
            [(x[0] - y) ** 2 for x, y in zip(logits, labels["labels"], strict=True)]
        )
    if kind == "class":
        chosen = zip(logits, labels["labels"], strict=True)
        return np.array([-log_softmax(x)[y] for x, y in chosen])
    firsts, lasts = labels["start_positions"], labels["end_positions"]
    return np.array(
        [
            -(log_softmax(x[:, 0])[first] + log_softmax(x[:, 1])[last]) / 2
            for x, first, last in zip(logits, firsts, lasts, strict=True)
        ]
    )


def by_sequence(kind, logits, features, rows):
    """Logits of rows -> those of each sequence, as `numpy_logits` has them."""
    found = {}
    for row, slot in np.argwhere(rows >= 0):
        if kind == "span":
            place = features["input_mask"][row] == slot + 1
            found[rows[row, slot]] = logits[row][place]
        else:
            found[rows[row, slot]] = logits[row, slot]
    return [found[number] for number in range(len(LENGTHS))]


@pytest.mark.parametrize("rows", [PLAIN, PACKED], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_match_the_numpy_model(tasks, features, config, sequences, kind, rows):
    inputs = features(kind, rows)
    logits = tasks[kind].logits(inputs).numpy()
    ours = by_sequence(kind, logits, inputs, rows)
    expected = numpy_logits(kind, tasks[kind], config, sequences)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE)


@pytest.mark.parametrize("rows", [PLAIN, PACKED], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_matches_the_numpy_formula(
    tasks, features, config, sequences, labels, kind, rows
):
    task = tasks[kind]
    logits = numpy_logits(kind, task, config, sequences)
    expected = numpy_losses(kind, logits, labels[kind]).sum()
    [ours] = task.loss_sums(features(kind, rows), training=False).numpy()
    assert ours == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_losses_and_gradients_are_those_of_single_rows(tasks, features, kind):
    task = tasks[kind]
    variables = weights_by_name(task.model)

    def gradients(rows):
        with tf.GradientTape() as tape:
            total = task.loss_sums(features(kind, rows), training=False)
        found = tape.gradient(total, variables, unconnected_gradients="zero")
        return total, {name: tf.convert_to_tensor(g) for name, g in found.items()}

    (plain, expected), (packed, ours) = gradients(PLAIN), gradients(PACKED)
    np.testing.assert_allclose(packed, plain, rtol=TOLERANCE)
    largest = max(np.abs(g).max() for g in expected.values())
    for name, gradient in expected.items():
        np.testing.assert_allclose(
            ours[name], gradient, atol=TOLERANCE * largest, err_msg=name
        )


@pytest.mark.parametrize("rows", [PLAIN, PACKED], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_a_mean_over_examples(tasks, features, kind, rows):
    assert tasks[kind].counts(features(kind, rows)).numpy() == [8.0]


@pytest.mark.parametrize("kind", KINDS)
def test_empty_rows_change_nothing(tasks, features, kind):
    task = tasks[kind]
    more = np.concatenate([PLAIN, np.full((3, 1), -1)])
    whole, padded = features(kind, PLAIN), features(kind, more)
    assert task.counts(padded).numpy() == task.counts(whole).numpy()
    ours, expected = (task.loss_sums(x, training=False) for x in (padded, whole))
    np.testing.assert_allclose(ours, expected, rtol=TOLERANCE)
    logits = task.logits(padded).numpy()
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[:8], task.logits(whole), atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_empty_rows_moves_nothing(tasks, features, kind):
    task = tasks[kind]
    variables = list(weights_by_name(task.model).values())
    with tf.GradientTape() as tape:
        total = task.loss_sums(features(kind, np.full((2, 3), -1)), training=False)
    assert total.numpy() == [0.0]
    gradients = tape.gradient(total, variables, unconnected_gradients="zero")
    assert not any(np.any(tf.convert_to_tensor(g)) for g in gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_variables_have_the_original_names_and_shapes(tasks, kind):
    variables = weights_by_name(tasks[kind].model)
    assert sorted(variables) == sorted([*ENCODER, *HEADS[kind]])
    for name, shape in HEADS[kind].items():
        assert variables[name].shape == shape


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_decided_by_its_seed(tasks, features, kind):
    """So that a resumed run, and any number of workers, drop the same."""
    inputs = features(kind, PLAIN)

    def logits(step):
        seed = [[1, step, row] for row in range(8)]
        inputs["dropout_seed"] = tf.constant(seed, tf.int32)
        return tasks[kind].logits(inputs, training=True).numpy()

    np.testing.assert_array_equal(logits(2), logits(2))
    assert np.abs(logits(2) - logits(3)).max() > 0.01


def test_the_classifier_drops_out_its_pooled_vector(features, config):
    """Without any other dropout, training differs by the head's alone."""
    inputs = features("class", PLAIN)
    inputs["dropout_seed"] = tf.constant([[1, 2, row] for row in range(8)], tf.int32)
    differs = {}
    for rate in (0.0, 0.5):
        model = build_classifier_model(
            config.without_dropout(),
            3,
            rate,
            max_seq_length=S,
            policy=PrecisionPolicy("fp32"),
        )
        task = ClassTask(model)
        dropped, whole = (task.logits(inputs, training=x) for x in (True, False))
        differs[rate] = np.abs(dropped - whole).max() > 0.1
    assert differs == {0.0: False, 0.5: True}


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("recompute", [False, True])
def test_padding_that_is_left_out_changes_no_bit(features, recompute):
    """Of the logits; gradients of vectors are sums over rows in other parts."""
    seed = tf.constant([[7, 5, row] for row in range(len(PACKED))])
    inputs = features("span", PACKED) | {"dropout_seed": seed}
    logits, gradients = [], []
    for leaves_out in (True, False):
        task = make_task(
            "span",
            WIDE,
            "bf16",
            allow_fused=True,
            recompute=recompute,
            unpad=leaves_out,
        )
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(task.loss_sums(inputs, training=True))
        variables = [v.value for v in task.model.trainable_variables]
        found = tape.gradient(loss, variables, unconnected_gradients="zero")
        gradients.append([tf.convert_to_tensor(g).numpy() for g in found])
        is_token = inputs["input_mask"].numpy() > 0
        logits.append(task.logits(inputs, training=True).numpy()[is_token])
    assert not is_token.all()
    np.testing.assert_array_equal(*logits)
    for one, other in zip(*gradients, strict=True):
        size = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * size)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kind", KINDS)
def test_packed_agrees_with_single_rows(features, kind):
    """In bfloat16: rounding is all that differs."""
    rough = make_task(kind, WIDE, "bf16", allow_fused=True)
    exact = make_task(kind, WIDE)
    plain, packed, true = (
        np.concatenate(
            by_sequence(kind, task.logits(inputs).numpy(), inputs, rows), axis=None
        )
        for task, rows in ((rough, PLAIN), (rough, PACKED), (exact, PLAIN))
        for inputs in (features(kind, rows),)
    )
    # Each operand is off by up to 2^-9 of itself, and errors grow from layer to layer:
    # 3% of the logits' size, as for the model of pre-training. None at all would mean
    # that nothing was rounded.
    size = np.sqrt(np.mean(np.square(true)))
    assert 0 < np.sqrt(np.mean(np.square(plain - true))) < 0.03 * size
    assert np.sqrt(np.mean(np.square(packed - plain))) < 0.03 * size


@pytest.mark.parametrize("allow_fused", [False, True], ids=["reference", "fused"])
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_layers_have_no_gradient_and_the_others_theirs(
    features, allow_fused, frozen
):
    """Those of a model that is not frozen, which other tests compare with NumPy."""

    def gradients(frozen_layers):
        more = {"allow_fused": allow_fused, "frozen_layers": frozen_layers}
        task = make_task("class", WIDE, "bf16" if allow_fused else "fp32", **more)
        variables = task.model.trainable_variables
        given = features("class", PACKED)
        given["dropout_seed"] = tf.zeros([len(PACKED), 3], tf.int32)
        step = task.step_scope(accumulates=True)
        with step:
            with step.micro_batch(variables) as part:
                [loss] = tf.unstack(task.loss_sums(given, training=True))
            found = part.gradients(loss)
            return {
                v.path: (step.take_sum(v.path) if g is None else g).numpy()
                for v, g in zip(variables, found, strict=True)
            }

    ours, expected = gradients(frozen), gradients(None)
    layers = [f"bert/encoder/layer_{n}/" for n in range(frozen)]
    for path, gradient in expected.items():
        if path.startswith(("bert/embeddings/", *layers)):
            assert not ours[path].any(), path
        else:
            np.testing.assert_array_equal(ours[path], gradient, err_msg=path)


def test_a_weighted_loss_matches_numpy(tasks, sequences, labels, features):
    """Sum of weight times cross entropy, over the sum of the weights."""
    weights = np.array([0.5, 2.0, 3.0], np.float32)
    numbers = labels["class"]["labels"]
    task = tasks["class"]
    examples = LabelledSequences(
        TokenSequences.join(sequences), labels["class"], (), weights[numbers]
    )
    results = []
    for rows in (PLAIN, PACKED):
        given = {n: tf.constant(x) for n, x in examples.features(rows, S).items()}
        total = task.loss_sums(given, training=False).numpy()
        results.append(total / task.counts(given).numpy())
    logits = task.logits(features("class", PLAIN)).numpy()[:, 0].astype(np.float64)
    losses = -log_softmax(logits, axis=1)[np.arange(8), numbers]
    chosen = np.array([0.5, 2.0, 3.0])[numbers]
    expected = (chosen * losses).sum() / chosen.sum()
    np.testing.assert_allclose(results, expected, rtol=TOLERANCE)
