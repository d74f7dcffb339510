"""Losses of labels, tags and choices against NumPy; packed rows against single ones."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from oracles.numpy_bert import NumpyBert
from scipy.special import log_expit, log_softmax

from bert_tf.data.batches.example_batches import LabelledSequences
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.jobs.run.resume import weights_by_name
from bert_tf.modeling.finetuning import (
    ChoiceTask,
    LabelTask,
    TagTask,
    build_classifier_model,
)

LENGTHS = [5, 6, 4, 7, 8, 5, 4, 6]
KINDS = {"labels": (LabelTask, 3), "tags": (TagTask, 4), "choices": (ChoiceTask, 1)}
EACH = pytest.mark.parametrize("kind", KINDS)
TOLERANCE = 1e-5
# Examples in rows; of choices an example is two sequences.
PLAIN = {"choices": np.arange(4)[:, None], "": np.arange(8)[:, None]}
PACKED = {
    "choices": np.array([[2, 0], [3, 1], [-1, -1]]),
    "": np.array([[4, 3, -1], [0, 1, 2], [7, 6, 5], [-1, -1, -1]]),
}
WIDTH = {"choices": 32, "": 24}


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(3)
    ids = [(rng.integers(5, 30, n).tolist(), [0] * 3 + [1] * (n - 3)) for n in LENGTHS]
    sequences = TokenSequences.join(ids)
    labels = (rng.random((8, 3)) < 0.5).astype(np.float32)
    tags = rng.integers(-1, 4, sum(LENGTHS)).astype(np.int32)
    choices = {"labels": np.array([1, 0, 0, 1], np.int32)}
    return {
        "labels": LabelledSequences(sequences, {"labels": labels}),
        "tags": LabelledSequences(sequences, tags=tags),
        "choices": LabelledSequences(sequences, choices, choices=2),
    }


@pytest.fixture(scope="module")
def tasks(tiny_config):
    config, found = dataclasses.replace(tiny_config, initializer_range=0.5), {}
    for kind, (make, num_outputs) in KINDS.items():
        model = build_classifier_model(config, num_outputs, of_tokens=kind == "tags")
        model.trainable_variables[-1].assign(np.linspace(-0.5, 0.7, num_outputs))
        found[kind] = make(model)
    return found, config


def features(examples, kind, rows):
    width = WIDTH.get(kind, WIDTH[""])
    found = examples[kind].features(rows.get(kind, rows[""]), width)
    return {name: tf.constant(array) for name, array in found.items()}


def numpy_loss(kind, task, config, examples):
    """Summed loss, and how many losses there are."""
    weights = {n: v.numpy() for n, v in weights_by_name(task.model).items()}
    bert, data = NumpyBert(weights, dataclasses.asdict(config)), examples[kind]
    spans = [data.sequences.span(i) for i in range(8)]
    ids, segments = data.sequences.input_ids, data.sequences.segment_ids
    hidden = [bert.encode(ids[span], segments[span]) for span in spans]
    if kind != "tags":
        hidden = [bert.pool(h)[None] for h in hidden]
    logits = np.concatenate(hidden) @ weights["output_weights"].T.astype(float)
    logits += weights["output_bias"]
    if kind == "labels":
        sign = 2 * data.labels["labels"] - 1  # -log p, or -log (1 - p).
        return -log_expit(sign * logits).mean(axis=1).sum(), 8
    if kind == "choices":
        odds = log_softmax(logits.reshape(4, 2), axis=1)
        return -odds[np.arange(4), data.labels["labels"]].sum(), 4
    known = np.flatnonzero(data.tags >= 0)
    return -log_softmax(logits, axis=1)[known, data.tags[known]].sum(), len(known)


@EACH
@pytest.mark.parametrize("rows", [PLAIN, PACKED], ids=["plain", "packed"])
def test_loss_and_count_are_those_of_the_formula(tasks, examples, kind, rows):
    task, config = tasks[0][kind], tasks[1]
    expected, count = numpy_loss(kind, task, config, examples)
    inputs = features(examples, kind, rows)
    [ours] = task.loss_sums(inputs, training=False).numpy()
    assert ours == pytest.approx(expected, rel=TOLERANCE)
    assert task.counts(inputs).numpy() == [count]


@EACH
def test_packed_gradients_are_those_of_single_rows(tasks, examples, kind):
    task = tasks[0][kind]
    variables = weights_by_name(task.model)

    def gradients(rows):
        with tf.GradientTape() as tape:
            total = task.loss_sums(features(examples, kind, rows), training=False)
        found = tape.gradient(total, variables, unconnected_gradients="zero")
        return {name: tf.convert_to_tensor(g).numpy() for name, g in found.items()}

    expected, ours = gradients(PLAIN), gradients(PACKED)
    largest = max(np.abs(g).max() for g in expected.values())
    for name, gradient in expected.items():
        np.testing.assert_allclose(ours[name], gradient, atol=TOLERANCE * largest)


def test_a_model_of_tokens_has_no_pooler(tasks):
    names = weights_by_name(tasks[0]["tags"].model)
    assert not [name for name in names if "pooler" in name]
    assert names["output_weights"].shape == (4, 8)


def test_a_task_has_the_outputs_of_its_model(tasks):
    found = {kind: task.num_outputs for kind, task in tasks[0].items()}
    assert found == {"labels": 3, "tags": 4, "choices": 1}


def test_fit_takes_tags_of_tokens_and_leaves_out_negative_ones(tasks, examples):
    task = tasks[0]["tags"]
    inputs = features(examples, "tags", PLAIN)
    tags = inputs.pop("tags")
    inputs.pop("example_weights")
    total = task.loss_sums(inputs | {"tags": tags}, training=False)
    expected = float(total[0] / task.counts({"tags": tags})[0])
    model = task.model.from_config(task.model.get_config())
    model.set_weights(task.model.get_weights())
    model.compile()
    found = model.evaluate(inputs, tags.numpy(), verbose=0)
    assert found == pytest.approx(expected, rel=TOLERANCE)
    # Weighted, it is a sum of weighted losses over the number of tags, as in Keras.
    weights = np.where(np.arange(tags.shape[1]) % 2, 2.0, 0.5).astype(np.float32)
    weights = np.broadcast_to(weights, tags.shape)
    logits = log_softmax(model(inputs)["class_logits"].numpy(), axis=-1)
    is_tag = tags.numpy() >= 0
    each = -np.take_along_axis(logits, np.maximum(tags, 0)[..., None], axis=-1)[..., 0]
    found = model.evaluate(inputs, tags.numpy(), sample_weight=weights, verbose=0)
    expected = (weights * each)[is_tag].sum() / is_tag.sum()
    assert found == pytest.approx(expected, rel=TOLERANCE)
