import dataclasses

import keras
import numpy as np
import pytest
from modeling.variable_names import ENCODER, HEADS

from bert_tf import fused_ops
from bert_tf.modeling import ops
from bert_tf.modeling.finetuning import SpanTask, build_span_model
from bert_tf.modeling.models import build_encoder_model
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import PrecisionPolicy

S = 16
# As of numbers below 10 in float32 after some sums.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def config(tiny_config):
    """Weights so large that every input has a visible effect on every logit."""
    return dataclasses.replace(tiny_config, initializer_range=0.5)


@pytest.fixture(scope="module")
def model(config):
    return build_pretraining_model(config, max_seq_length=S)


@pytest.fixture(scope="module")
def sequences():
    """Eight sequences of 5 to 7 random words in two segments."""
    rng = np.random.default_rng(3)
    lengths = [5, 6, 7, 5, 6, 7, 5, 6]
    return [(rng.integers(5, 30, n).tolist(), [0] * 3 + [1] * (n - 3)) for n in lengths]


def with_positions(inputs, positions):
    """Adds masked positions, the same for every row."""
    rows = len(inputs["input_ids"])
    return {**inputs, "masked_lm_positions": np.tile(np.int32(positions), (rows, 1))}


def logits_of(model, inputs, **kwargs):
    outputs = model(inputs, **kwargs)
    return outputs["masked_lm_logits"].numpy(), outputs["next_sentence_logits"].numpy()


def weights_of(model):
    return {v.path: v.numpy() for v in model.trainable_variables}


def test_variables_have_the_original_names(model, config):
    assert sorted(weights_of(model)) == sorted(ENCODER + HEADS)
    encoder = build_encoder_model(config)
    assert sorted(weights_of(encoder)) == sorted(ENCODER)


def test_an_unknown_option_is_refused(config):
    for build in (build_pretraining_model, build_encoder_model):
        with pytest.raises(TypeError, match="alow_fused"):
            build(config, alow_fused=True)


def test_variables_have_the_original_shapes(model):
    shapes = {name: values.shape for name, values in weights_of(model).items()}
    assert shapes["bert/embeddings/word_embeddings"] == (30, 8)
    assert shapes["bert/embeddings/position_embeddings"] == (16, 8)
    assert shapes["bert/encoder/layer_1/intermediate/dense/kernel"] == (8, 16)
    assert shapes["bert/encoder/layer_1/output/dense/kernel"] == (16, 8)
    assert shapes["cls/predictions/output_bias"] == (30,)
    assert shapes["cls/seq_relationship/output_weights"] == (2, 8)


def test_the_seed_decides_the_initial_weights(model, config):
    first, again = weights_of(model), weights_of(build_pretraining_model(config))
    other = weights_of(build_pretraining_model(config, seed=1))
    for name, values in first.items():
        np.testing.assert_array_equal(again[name], values)
        is_drawn = name.endswith(("kernel", "embeddings", "weights"))
        assert (other[name] == values).all() != is_drawn, name


def test_initial_weights_follow_the_paper(config):
    wide = dataclasses.replace(config, initializer_range=0.02, vocab_size=5000)
    weights = weights_of(build_encoder_model(wide))
    table = weights["bert/embeddings/word_embeddings"]
    assert np.abs(table).max() <= 0.04  # Cut at two deviations.
    # The deviation of a normal distribution cut at two of its own is 0.8796 of it;
    # 40,000 draws give it to 0.5%. Keras widens none of it.
    assert np.std(table) == pytest.approx(0.8796 * 0.02, rel=0.02)
    for name, values in weights.items():
        if name.endswith(("gamma", "beta", "bias")):
            assert (values == name.endswith("gamma")).all()


def test_no_two_weights_start_equal(model):
    drawn = [w for n, w in weights_of(model).items() if n.endswith("kernel")]
    firsts = [w.ravel()[0] for w in drawn]
    assert len(set(firsts)) == len(firsts) == 14


def test_packed_sequences_have_the_logits_of_unpacked_ones(
    model, make_inputs, sequences
):
    first, second = sequences[:2]
    packed = with_positions(make_inputs([[first, second]], S), [1, 3, 6, 8])
    alone = with_positions(make_inputs([[first], [second]], S), [1, 3])
    masked_lm, next_sentence = logits_of(model, packed)
    expected = logits_of(model, alone)
    np.testing.assert_allclose(masked_lm.reshape(2, 2, -1), expected[0], atol=TOLERANCE)
    np.testing.assert_allclose(next_sentence[0], expected[1][:, 0], atol=TOLERANCE)


def test_a_packed_sequence_does_not_touch_its_neighbour(model, make_inputs, sequences):
    first, second, third = sequences[0], sequences[1], sequences[4]
    before, after = (
        logits_of(model, with_positions(make_inputs([pack], S), [1, 3, 6, 8]))
        for pack in ([first, second], [first, third])
    )
    for ours, changed, end in zip(before, after, (2, 1), strict=True):
        np.testing.assert_allclose(changed[0, :end], ours[0, :end], atol=TOLERANCE)
        assert np.abs(changed[0, end:] - ours[0, end:]).max(-1).min() > 0.01


def test_values_in_padding_do_not_matter(model, make_inputs, sequences):
    inputs = with_positions(make_inputs([[s] for s in sequences], S), [1, 4])
    is_padding = inputs["input_mask"] == 0
    filled = dict(inputs)
    for name, value in (("input_ids", 9), ("segment_ids", 1), ("positions", 7)):
        filled[name] = np.where(is_padding, value, inputs[name]).astype(np.int32)
    for ours, expected in zip(
        logits_of(model, filled), logits_of(model, inputs), strict=True
    ):
        np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


def test_padded_length_does_not_matter(config, model, make_inputs, sequences):
    any_length = build_pretraining_model(config)
    short = with_positions(make_inputs([[s] for s in sequences], 9), [1, 4])
    long = with_positions(make_inputs([[s] for s in sequences], S), [1, 4])
    for ours, expected in zip(
        logits_of(any_length, short), logits_of(model, long), strict=True
    ):
        np.testing.assert_allclose(ours, expected, atol=TOLERANCE)


@pytest.fixture(scope="module")
def seeded_model(config):
    return build_pretraining_model(config, max_seq_length=S, seeded_dropout=True)


@pytest.fixture(scope="module")
def seeded_inputs(make_inputs, sequences):
    inputs = with_positions(make_inputs([[s] for s in sequences], S), [1, 4])
    seed = [[17, 4, row] for row in range(len(sequences))]
    return {**inputs, "dropout_seed": np.array(seed, np.int32)}


def test_dropout_of_micro_batches_is_that_of_the_batch(seeded_model, seeded_inputs):
    whole = logits_of(seeded_model, seeded_inputs, training=True)
    for first in range(0, 8, 2):
        part = {name: x[first : first + 2] for name, x in seeded_inputs.items()}
        outputs = logits_of(seeded_model, part, training=True)
        for ours, expected in zip(outputs, whole, strict=True):
            # A wrong bit would move a logit by more than a tenth.
            np.testing.assert_allclose(
                ours, expected[first : first + 2], atol=TOLERANCE
            )


def test_the_step_changes_dropout_in_training_only(seeded_model, seeded_inputs):
    later = {**seeded_inputs, "dropout_seed": seeded_inputs["dropout_seed"] + [0, 1, 0]}
    for training in (False, True):
        now, then = (
            logits_of(seeded_model, inputs, training=training)[0]
            for inputs in (seeded_inputs, later)
        )
        assert np.array_equal(now, then) != training


def test_each_dropout_has_a_stream_of_its_own(seeded_model, seeded_inputs, monkeypatch):
    streams = []
    dropout = ops.dropout

    def remember(x, rate, key, stream):
        streams.append(stream)
        return dropout(x, rate, key, stream)

    monkeypatch.setattr(ops, "dropout", remember)
    seeded_model(seeded_inputs, training=True)
    # Embeddings, and attention probabilities and two outputs in each of two layers.
    assert len(streams) == len(set(streams)) == 1 + 2 * 3


def test_without_dropout_training_changes_nothing(config, make_inputs, sequences):
    model = build_pretraining_model(config.without_dropout(), max_seq_length=S)
    inputs = with_positions(make_inputs([[s] for s in sequences], S), [1, 4])
    expected = logits_of(model, inputs, training=False)[0]
    np.testing.assert_array_equal(logits_of(model, inputs, training=True)[0], expected)


def test_the_model_draws_new_dropout_for_each_call(model, make_inputs, sequences):
    inputs = with_positions(make_inputs([[s] for s in sequences], S), [1, 4])
    first, second = (logits_of(model, inputs, training=True)[0] for _ in range(2))
    assert np.abs(first - second).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("max_seq_length", [S, None])
def test_keras_fits_the_model(tiny_config, make_inputs, sequences, max_seq_length):
    model = build_pretraining_model(tiny_config, max_seq_length=max_seq_length)
    inputs = with_positions(make_inputs([[s] for s in sequences], S), [1, 4])
    labels = {
        "masked_lm_logits": inputs["input_ids"][:, [1, 4]],
        "next_sentence_logits": np.array([[0], [1]] * 4, np.int32),
    }
    losses = {
        name: keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        for name in labels
    }
    model.compile(keras.optimizers.Adam(0.01), losses)
    history = model.fit(inputs, labels, batch_size=4, epochs=25, verbose=0).history
    # Near the loss of even guesses at first; then half of it is learnt by heart.
    assert history["loss"][0] == pytest.approx(np.log(30) + np.log(2), rel=0.1)
    assert history["loss"][-1] < history["loss"][0] / 2


def test_bfloat16_logits_are_near_those_of_float32(
    config, model, make_inputs, sequences
):
    policy = PrecisionPolicy("bf16")
    rough = build_pretraining_model(config, max_seq_length=S, policy=policy)
    inputs = with_positions(make_inputs([[s] for s in sequences], S), [1, 4])
    for ours, exact in zip(
        logits_of(rough, inputs), logits_of(model, inputs), strict=True
    ):
        assert ours.dtype == np.float32
        # Each operand and product is off by up to 2^-9 of itself, 0.1% on average. Some
        # ten products one after another have thirty such errors, hence about 0.6%;
        # attention and normalisation enlarge it: 3% of the logits' spread is allowed.
        # Equal logits would mean that nothing was rounded.
        error = np.sqrt(np.mean(np.square(ours - exact)))
        assert 0 < error < 0.03 * exact.std(), error / exact.std()


@pytest.mark.parametrize("is_pretraining", [True, False])
def test_only_a_training_has_sums_of_gradients(tiny_config, is_pretraining):
    if not fused_ops.are_in_use():
        pytest.skip("needs the fused operations")
    config = dataclasses.replace(tiny_config, hidden_size=64, intermediate_size=96)
    build = build_pretraining_model if is_pretraining else build_span_model
    model = build(config, policy=PrecisionPolicy("bf16"), allow_fused=True)
    task = PretrainingTask(model) if is_pretraining else SpanTask(model)
    assert task.step_scope(accumulates=True).sums
    assert not task.step_scope().sums
