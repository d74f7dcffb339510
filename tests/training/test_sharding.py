"""The optimizer's state divided among workers, against one worker and NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_fit.threads import run_threads
from training.test_nonfinite import TwoWeights, batch

from bert_tf import fused_ops
from bert_tf.errors import NonFiniteError
from bert_tf.training.clipping import clip_scale, global_norm
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.optimizers import LAMB, AdamWeightDecay
from bert_tf.training.sharding import OptimizerShards, Piece, pieces_of
from bert_tf.training.trainer import Trainer

# 21 + 3 + 2 + 1 + 360 + 5 = 392 numbers: borders cut tensors, and fall between them.
SHAPES = {
    "dense_kernel": (7, 3),
    "dense_bias": (3,),
    "a": (2,),
    "LayerNorm_gamma": (1,),
    "wide_kernel": (40, 9),
    "zeros": (5,),
}
NUMBERS = 392
STEPS = 3
MAX_NORM = 2.0
MAKERS = {
    "lamb": lambda: LAMB(0.05),
    "no ratios": lambda: LAMB(0.05, exclude_from_layer_adaptation=["wide"]),
    "adamw": lambda: AdamWeightDecay(0.05, bias_correction=True),
    "adam": lambda: AdamWeightDecay(0.05),
}


@pytest.fixture(params=[False, True], ids=["formulas", "fused"])
def is_fused(request, monkeypatch):
    """Both ways to compute an update."""
    monkeypatch.setattr(fused_ops, "are_in_use", lambda: request.param)
    return request.param


def start():
    """The weights of the first step."""
    rng = np.random.default_rng(0)
    found = {n: rng.normal(size=s).astype("f4") for n, s in SHAPES.items()}
    return found | {"zeros": np.zeros(5, "f4")}


def gradients(step, rank=0, size=1):
    """The gradients of a worker; over all workers they have one sum."""
    rng = np.random.default_rng(100 + step)
    share = (1 + 0.1 * (rank - (size - 1) / 2)) / size
    return [
        tf.constant(share * rng.normal(size=s), tf.float32) for s in SHAPES.values()
    ]


def variables_of(optimizer, is_fused):
    variables = [keras.Variable(value, name=name) for name, value in start().items()]
    optimizer.is_fused = is_fused
    optimizer.build(variables)
    return variables


def alone(make, is_fused):
    """Weights, moments and iterations of one worker without shards."""
    optimizer = make()
    variables = variables_of(optimizer, is_fused)
    for step in range(STEPS):
        found = gradients(step)
        scale = clip_scale(global_norm(found), MAX_NORM)
        optimizer.apply_scaled(found, variables, scale)
    slots = {name: slot.numpy() for name, slot in optimizer.slots().items()}
    return [v.numpy() for v in variables], slots, int(optimizer.iterations)


def sharded(make, is_fused, communicator):
    """The same of one of several workers, and its shards."""
    optimizer = make()
    variables = variables_of(optimizer, is_fused)
    shards = OptimizerShards(optimizer, variables, communicator)
    for step in range(STEPS):
        parts = gradients(step, communicator.rank, communicator.size)
        own, sums, norm = shards.reduce(parts, tf.constant([1.0, 2.0]))
        np.testing.assert_allclose(sums, [communicator.size, 2 * communicator.size])
        shards.update(own, clip_scale(norm, MAX_NORM))
    shards.gather()
    return [v.numpy() for v in variables], shards, int(optimizer.iterations)


@pytest.mark.parametrize(
    "name, size",
    [
        ("lamb", 2),
        ("lamb", 4),
        ("lamb", 8),
        ("no ratios", 4),
        ("adamw", 4),
        ("adam", 2),
    ],
)
def test_sharded_steps_are_those_of_one_worker(name, size, is_fused):
    make = MAKERS[name]
    expected, slots, steps = alone(make, is_fused)
    workers = run_threads(size, lambda each: sharded(make, is_fused, each))
    for weights, shards, iterations in workers:
        assert iterations == steps == STEPS
        assert not shards._optimizer.slots()
        for ours, others, values in zip(weights, workers[0][0], expected, strict=True):
            np.testing.assert_array_equal(ours, others)
            np.testing.assert_allclose(ours, values, rtol=1e-6, atol=1e-6)
    gathered = [shards.gathered for _, shards, _ in workers]
    assert gathered[1:] == [{}] * (size - 1)
    assert list(gathered[0]) == list(slots)
    for name, values in slots.items():
        np.testing.assert_allclose(gathered[0][name], values, rtol=1e-6, atol=1e-7)


def lamb_in_numpy(weights, size):
    """LAMB in float64, with clipping: You et al. 2020, algorithm 2."""
    w = [x.astype(float) for x in weights]
    m, v = [0 * x for x in w], [0 * x for x in w]
    for step in range(STEPS):
        parts = [gradients(step, rank, size) for rank in range(size)]
        g = [
            sum(np.asarray(x, float) for x in each) for each in zip(*parts, strict=True)
        ]
        norm = np.sqrt(sum((x**2).sum() for x in g))
        for i, name in enumerate(SHAPES):
            d = g[i] * min(1.0, MAX_NORM / norm)
            m[i] = 0.9 * m[i] + 0.1 * d
            v[i] = 0.999 * v[i] + 0.001 * d**2
            m_hat = m[i] / (1 - 0.9 ** (step + 1))
            v_hat = v[i] / (1 - 0.999 ** (step + 1))
            decay = 0.0 if "bias" in name or "LayerNorm" in name else 0.01
            u = m_hat / (np.sqrt(v_hat) + 1e-6) + decay * w[i]
            norms = np.linalg.norm(w[i]), np.linalg.norm(u)
            w[i] = w[i] - 0.05 * (norms[0] / norms[1] if all(norms) else 1.0) * u
    return w


def test_norms_of_divided_tensors_are_those_of_numpy(is_fused):
    """The wide kernel is in 8 ranges."""
    workers = run_threads(8, lambda each: sharded(MAKERS["lamb"], is_fused, each))
    expected = lamb_in_numpy(start().values(), 8)
    for ours, values in zip(workers[0][0], expected, strict=True):
        np.testing.assert_allclose(ours, values, rtol=1e-5, atol=2e-6)


def num_bytes(shards):
    return sum(moment.numpy().nbytes for moment in shards.variables)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_each_worker_keeps_its_part_of_the_state(size):
    def shard(communicator):
        optimizer = MAKERS["lamb"]()
        variables = variables_of(optimizer, is_fused=False)
        return OptimizerShards(optimizer, variables, communicator)

    workers = run_threads(size, shard)
    sizes = [num_bytes(shards) for shards in workers]
    assert sum(sizes) == 8 * NUMBERS  # Two moments of 4 bytes.
    np.testing.assert_allclose(sizes, 8 * NUMBERS / size, rtol=0.05)


def test_more_workers_than_numbers(is_fused):
    def train(communicator):
        optimizer = MAKERS["lamb"]()
        variable = keras.Variable(np.asarray([3.0, 4.0], "f4"), name="w")
        optimizer.is_fused = is_fused
        optimizer.build([variable])
        shards = OptimizerShards(optimizer, [variable], communicator)
        parts = [tf.constant([0.25, -0.25])]
        own, _, norm = shards.reduce(parts, tf.constant([0.0]))
        shards.update(own, clip_scale(norm, 0.0))
        shards.gather()
        return variable.numpy(), num_bytes(shards), shards.gathered

    workers = run_threads(4, train)
    assert [size for _, size, _ in workers] == [8, 8, 0, 0]
    # The gradient is (1, -1): its direction after the bias correction is that, plus
    # the decay of 0.01 w; |w| = 5.
    u = np.asarray([1.03, -0.96])
    expected = np.asarray([3.0, 4.0]) - 0.05 * 5 / np.linalg.norm(u) * u
    for weights, _, _ in workers:
        np.testing.assert_allclose(weights, expected, rtol=1e-5)
    np.testing.assert_allclose(workers[0][2]["w/adam_m"], [0.1, -0.1], rtol=1e-6)


def test_the_moments_of_the_whole_model_are_freed():
    optimizer = MAKERS["lamb"]()
    variables = variables_of(optimizer, is_fused=False)
    slots = list(optimizer.slots().values())

    def shard(communicator):
        if communicator.rank == 0:
            OptimizerShards(optimizer, variables, communicator)

    run_threads(2, shard)
    assert [slot.numpy().size for slot in slots] == [0] * 2 * len(SHAPES)
    assert optimizer.slots() == {}


def test_moments_stay_as_they_were(is_fused):
    """What a checkpoint had is what the next one has."""

    def gather(communicator):
        optimizer = MAKERS["lamb"]()
        variables = variables_of(optimizer, is_fused)
        slots = optimizer.slots()
        rng = np.random.default_rng(1)
        values = {
            n: rng.normal(size=slot.shape).astype("f4") for n, slot in slots.items()
        }
        for name, slot in slots.items():
            slot.assign(values[name])
        shards = OptimizerShards(optimizer, variables, communicator)
        shards.gather()
        return values, shards.gathered

    [(values, gathered), _] = run_threads(2, gather)
    assert gathered.keys() == values.keys()
    for name, array in values.items():
        np.testing.assert_array_equal(gathered[name], array)


def test_pieces_of_a_range():
    # Three tensors of 4, 2 and 6 numbers: 0123 45 6789ab
    assert pieces_of([4, 2, 6], 3, 7) == [
        Piece(0, 3, 4, is_whole=False),
        Piece(1, 0, 2, is_whole=True),
        Piece(2, 0, 1, is_whole=False),
    ]
    assert pieces_of([4, 2, 6], 12, 14) == []


@pytest.mark.parametrize("skips", [True, False])
def test_a_gradient_that_is_not_finite_on_one_worker_changes_no_weight(skips):
    def train(communicator):
        task = TwoWeights()
        trainer = Trainer(
            *(task, MAKERS["lamb"](), communicator, GradientSettings()),
            shards_optimizer=True,
            skip_nonfinite=skips,
        )
        trainer.train_step(batch(1.0, 2.0))
        before = task.weight.numpy()
        wrong = np.inf if communicator.rank else 1.0
        if skips:
            result = trainer.train_step(batch(1.0, wrong), saves=not communicator.rank)
            assert result.saves and "Worker 1" in result.skipped
        else:
            with pytest.raises(NonFiniteError, match="Worker 1"):
                trainer.train_step(batch(1.0, wrong))
        assert task.weight.numpy() == before
        after = trainer.step
        trainer.gather_state()
        return after, task.weight.numpy(), trainer.shards.gathered

    [(step, one, moments), (_, other, _)] = run_threads(2, train)
    assert (step, one) == (1 + skips, other)
    assert all(np.isfinite(values).all() for values in moments.values())


def test_all_workers_learn_whether_the_first_one_saves():
    def train(communicator):
        optimizer = MAKERS["lamb"]()
        trainer = Trainer(
            *(TwoWeights(), optimizer, communicator, GradientSettings()),
            shards_optimizer=True,
        )
        is_first = communicator.rank == 0
        flags = [is_first, False, is_first]
        return [trainer.train_step(batch(1.0), saves=x).saves for x in flags]

    assert run_threads(2, train) == [[True, False, True]] * 2
