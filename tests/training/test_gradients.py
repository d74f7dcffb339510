"""Laws of accumulation: however a batch is cut, the step is the same."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.data.records.record_set import open_records
from bert_tf.data.records.schema import ValueLimits
from bert_tf.distribute import Communicator
from bert_tf.errors import NonFiniteError
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import PrecisionPolicy
from bert_tf.training.clipping import clip_by_global_norm, global_norm
from bert_tf.training.gradients import (
    GradientAccumulator,
    GradientSettings,
)
from bert_tf.training.optimizers import build_optimizer
from bert_tf.training.trainer import Trainer

LIMITS = ValueLimits(vocab_size=30, type_vocab_size=2)


@pytest.fixture(scope="module")
def tiny_config(tiny_config):
    """One layer says what two would, and traces in half the time."""
    return dataclasses.replace(tiny_config, num_hidden_layers=1)


@pytest.fixture(scope="module")
def parser(tiny_records):
    return open_records(tiny_records, LIMITS).parser


def cut(features, num_micro_batches):
    """[n, ...] -> [k, n / k, ...]."""
    return {
        name: array.reshape(num_micro_batches, -1, *array.shape[1:])
        for name, array in features.items()
    }


def make_task(config, seed=1):
    model = build_pretraining_model(
        config, max_seq_length=16, seed=seed, seeded_dropout=True
    )
    return PretrainingTask(model)


def gradients_of(task, batch, step=3, **settings):
    settings = GradientSettings(seed=11, **settings)
    accumulator = GradientAccumulator(task, Communicator(), settings)
    tensors = {name: tf.constant(array) for name, array in batch.items()}
    gradients, losses = tf.function(accumulator)(tensors, tf.constant(step))
    return [g.numpy() for g in gradients], losses.numpy()


def assert_close(ours, theirs):
    """1e-5 of each tensor's norm; the floor is for key biases, whose true is 0."""
    for a, b in zip(ours, theirs, strict=True):
        error = np.linalg.norm(a - b)
        assert error <= max(1e-5 * np.linalg.norm(b), 1e-7)


@pytest.mark.parametrize("dropout", [True, False], ids=["dropout", "no dropout"])
@pytest.mark.parametrize("num_micro_batches", [4, 32])
def test_micro_batches_give_the_gradient_of_the_whole_batch(
    tiny_config, parser, dropout, num_micro_batches
):
    config = tiny_config if dropout else tiny_config.without_dropout()
    task = make_task(config)
    features = parser(np.arange(32))
    counts = cut(features, num_micro_batches)["masked_lm_weights"].sum((1, 2))
    assert len(set(counts)) > 1  # unequal counts are what makes it hard
    whole, whole_losses = gradients_of(task, cut(features, 1))
    parts, part_losses = gradients_of(task, cut(features, num_micro_batches))
    assert_close(parts, whole)
    np.testing.assert_allclose(part_losses, whole_losses, rtol=1e-5)


class WithoutSums(PretrainingTask):
    """Every gradient by itself, and added afterwards."""

    def step_scope(self, *, accumulates=False):
        return super().step_scope(accumulates=False)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_that_products_add_up_are_the_sums(tiny_config, parser, recompute):
    config = dataclasses.replace(tiny_config, hidden_size=64, intermediate_size=96)
    model = build_pretraining_model(
        config,
        max_seq_length=16,
        policy=PrecisionPolicy("bf16"),
        seeded_dropout=True,
        allow_fused=True,
        recompute=recompute,
    )
    batch = cut(parser(np.arange(32)), 4)
    plain, _ = gradients_of(WithoutSums(model), batch)
    scopes = []

    class Watched(PretrainingTask):
        def step_scope(self, *, accumulates=False):
            scopes.append(super().step_scope(accumulates=accumulates))
            return scopes[-1]

    ours, _ = gradients_of(Watched(model), batch)
    assert_close(ours, plain)
    paths = {variable.path for variable in model.trainable_variables}
    kernels = {p for p in paths if "layer_0" in p and "kernel" in p}
    assert scopes[0].sums.keys() == kernels | {"bert/embeddings/word_embeddings"}
    # Outside of a step no memory is held.
    assert all(total.take().shape == (0, 0) for total in scopes[0].sums.values())
    # What is done to each part must not be done to the sum before it.
    gradients_of(Watched(model), batch, clip_each_micro_batch=True)
    gradients_of(Watched(model), batch, allreduce_post_accumulation=False)
    GradientAccumulator(
        Watched(model), Communicator(), GradientSettings(), tf.Variable(2.0)
    )
    assert [len(scope.sums) for scope in scopes[1:]] == [0, 0, 0]


@pytest.mark.parametrize("sizes", [[1], [65536, 3], [70_000, 131_073, 5], [0, 7]])
def test_the_norm_of_tensors_of_many_blocks(sizes):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=n).astype(np.float32) for n in sizes]
    expected = np.sqrt(sum((a.astype(np.float64) ** 2).sum() for a in arrays))
    found = global_norm([tf.constant(a) for a in arrays])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for bad in (np.nan, np.inf):
        arrays[-1][-1] = bad
        assert not np.isfinite(global_norm([tf.constant(a) for a in arrays]))


class RowCount(PretrainingTask):
    """A loss that is the number of rows, whatever is in them."""

    def loss_sums(self, features, *, training):
        rows = tf.cast(tf.shape(features["input_ids"])[0], tf.float32)
        return 0.0 * super().loss_sums(features, training=training) + rows


def test_empty_rows_at_the_end_of_a_part_are_left_out(tiny_config, parser):
    task = make_task(tiny_config)
    features = parser(np.arange(16))
    for name in ("input_mask", "masked_lm_weights", "next_sentence_weights"):
        features[name][13:] = 0
    batch = cut(features, 2)
    whole, _ = gradients_of(task, batch)

    def of_any_rows(task):
        accumulator = GradientAccumulator(
            task, Communicator(), GradientSettings(seed=11)
        )
        signature = {
            name: tf.TensorSpec([2, None, *x.shape[2:]], x.dtype)
            for name, x in batch.items()
        }
        graph = tf.function(accumulator).get_concrete_function(
            signature, tf.constant(3)
        )
        tensors = {name: tf.constant(x) for name, x in batch.items()}
        return graph(tensors, tf.constant(3))

    assert_close([g.numpy() for g in of_any_rows(task)[0]], whole)
    _, rows = of_any_rows(RowCount(task.model))
    np.testing.assert_allclose(rows, 13 / task.counts(features).numpy(), rtol=1e-6)


def test_two_workers_add_up_to_one(tiny_config, parser):
    """Each worker's part by itself, divided by the counts of both."""
    task = make_task(tiny_config)
    features = parser(np.arange(32))
    whole, _ = gradients_of(task, cut(features, 1))
    halves = [{n: a[i : i + 16] for n, a in features.items()} for i in (0, 16)]
    counts = [task.counts(half) for half in halves]

    class Half(Communicator):
        """What one of two workers sees of a sum, its partner's counts being known."""

        def __init__(self, other):
            self.other, self.size = other, 2

        def sum(self, tensors, name):
            return [tensors[0] + self.other] if name == "counts" else list(tensors)

    total = None
    for rank, half in enumerate(halves):
        settings = GradientSettings(seed=11, rank=rank)
        accumulator = GradientAccumulator(task, Half(counts[1 - rank]), settings)
        batch = {n: tf.constant(a) for n, a in cut(half, 2).items()}
        gradients, _ = tf.function(accumulator)(batch, tf.constant(3))
        parts = [g.numpy() for g in gradients]
        total = (
            parts
            if total is None
            else [a + b for a, b in zip(total, parts, strict=True)]
        )
    assert_close(total, whole)


def test_eight_micro_batches_are_one_reduction_of_gradients(tiny_config, parser):
    """Horovod sums once per step, outside of the loop over micro-batches."""
    sums = []

    class Recorder(Communicator):
        def sum(self, tensors, name):
            graph = tf.compat.v1.get_default_graph()
            sums.append((name, len(tensors), graph.name))
            return list(tensors)

    task = make_task(tiny_config)
    accumulator = GradientAccumulator(task, Recorder(), GradientSettings())
    batch = {n: tf.constant(x) for n, x in cut(parser(np.arange(16)), 8).items()}
    step = tf.function(accumulator)
    step.get_concrete_function(batch, tf.constant(0))
    names = [name for name, _, _ in sums]
    assert names == ["counts", "gradients"]
    _, count, graph = sums[1]
    assert count == len(task.model.trainable_variables) + 1  # And the losses.
    assert "while" not in graph


def test_dropout_differs_by_step_and_row(tiny_config, parser):
    task = make_task(tiny_config)
    batch = cut(parser(np.arange(8)), 1)
    first, _ = gradients_of(task, batch)
    again, _ = gradients_of(task, batch)
    other_step, _ = gradients_of(task, batch, step=4)
    other_row, _ = gradients_of(task, batch, rank=1)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(a != b) for a, b in zip(first, other_step, strict=True))
    assert any(np.any(a != b) for a, b in zip(first, other_row, strict=True))


def test_gradient_agrees_with_finite_differences(tiny_config, parser):
    """Central differences in float32 along a random direction: 1% is reachable."""
    task = make_task(tiny_config.without_dropout())
    features = {n: tf.constant(a) for n, a in parser(np.arange(16)).items()}
    gradients, _ = gradients_of(task, cut(parser(np.arange(16)), 1))
    rng = np.random.default_rng(0)
    variables = task.model.trainable_variables
    directions = [rng.standard_normal(g.shape).astype("f4") for g in gradients]
    slope = sum(np.vdot(g, d) for g, d in zip(gradients, directions, strict=True))

    def loss_at(distance):
        for variable, direction in zip(variables, directions, strict=True):
            variable.assign_add(distance * direction)
        sums = task.loss_sums(features, training=False) / task.counts(features)
        for variable, direction in zip(variables, directions, strict=True):
            variable.assign_sub(distance * direction)
        return float(tf.reduce_sum(sums))

    measured = (loss_at(5e-4) - loss_at(-5e-4)) / 1e-3
    assert measured == pytest.approx(slope, rel=0.01)


def test_mean_of_means_weighs_micro_batches_equally(tiny_config, parser):
    task = make_task(tiny_config.without_dropout())
    features = parser(np.arange(32))
    parts = [{n: a[i : i + 8] for n, a in features.items()} for i in range(0, 32, 8)]
    singles = [gradients_of(task, cut(part, 1)) for part in parts]
    expected = [
        np.mean(gs, axis=0) for gs in zip(*(g for g, _ in singles), strict=True)
    ]
    gradients, losses = gradients_of(task, cut(features, 4), is_micro_batch_mean=True)
    assert_close(gradients, expected)
    np.testing.assert_allclose(losses, np.mean([x for _, x in singles], 0), rtol=1e-5)
    whole, _ = gradients_of(task, cut(features, 4))
    assert any(
        np.linalg.norm(a - b) > 1e-3 * np.linalg.norm(b)
        for a, b in zip(gradients, whole, strict=True)
    )


def test_clipping_each_micro_batch_is_the_mean_of_clipped_gradients(
    tiny_config, parser
):
    task = make_task(tiny_config.without_dropout())
    features = parser(np.arange(32))
    limit = 0.05
    clipped = []
    for i in range(0, 32, 8):
        part = {n: a[i : i + 8] for n, a in features.items()}
        gradients, _ = gradients_of(task, cut(part, 1))
        norm = np.sqrt(sum(np.sum(np.square(g, dtype="f8")) for g in gradients))
        assert norm > limit
        clipped.append([g * (limit / norm) for g in gradients])
    expected = [np.mean(gs, axis=0) for gs in zip(*clipped, strict=True)]
    gradients, _ = gradients_of(
        task,
        cut(features, 4),
        is_micro_batch_mean=True,
        clip_each_micro_batch=True,
        max_grad_norm=limit,
    )
    assert_close(gradients, expected)


def test_xla_gives_the_same_gradient(tiny_config, parser):
    task = make_task(tiny_config)
    batch = cut(parser(np.arange(16)), 2)
    plain, _ = gradients_of(task, batch)
    compiled, _ = gradients_of(task, batch, use_xla=True)
    assert_close(compiled, plain)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 5.0, 100.0])
def test_clipping_scales_to_the_norm(max_norm):
    gradients = [np.asarray([3.0, 4.0], "f4"), np.asarray([[12.0]], "f4")]  # norm 13
    clipped, norm = clip_by_global_norm([tf.constant(g) for g in gradients], max_norm)
    scale = min(1.0, max_norm / 13.0) if max_norm else 1.0
    assert float(norm) == pytest.approx(13.0)
    for a, b in zip(clipped, gradients, strict=True):
        np.testing.assert_allclose(a.numpy(), b * scale, rtol=1e-6)


def test_a_gradient_that_is_not_finite_stops_before_the_update(tiny_config, parser):
    task = make_task(tiny_config)
    variable = task.model.trainable_variables[-1]
    variable.assign(tf.fill(variable.shape, float("nan")))
    before = [v.numpy() for v in task.model.trainable_variables]
    optimizer = build_optimizer("lamb", 0.1)
    trainer = Trainer(task, optimizer, Communicator(), GradientSettings())
    with pytest.raises(NonFiniteError, match="step 1 is not finite"):
        trainer.train_step(cut(parser(np.arange(8)), 1))
    assert trainer.step == 0
    for a, b in zip(before, task.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_the_norm_is_the_same_number_every_time():
    """Sums whose order is up to the scheduler would differ in the last bit."""
    rng = np.random.default_rng(0)
    parts = [tf.constant(rng.normal(size=n), tf.float32) for n in range(1, 3000, 15)]
    norm = tf.function(lambda: global_norm([part * 1.5 for part in parts]))
    assert len({float(norm()) for _ in range(200)}) == 1
