"""Models as Keras objects: inputs that may be left out, files, clones, and `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf.modeling import model_inputs
from bert_tf.modeling.finetuning import (
    ClassTask,
    SpanTask,
    build_classifier_model,
    build_span_model,
)
from bert_tf.modeling.models import build_encoder_model
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import PrecisionPolicy, PrecisionRules
from bert_tf.training.optimizers import LAMB

IDS = np.random.default_rng(0).integers(5, 30, (4, 7)).astype(np.int32)
MASK = np.array([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4, [1] * 7], np.int32)
PLAIN = {
    "input_ids": IDS,
    "input_mask": MASK,
    "segment_ids": np.zeros_like(IDS),
    "positions": np.tile(np.arange(7, dtype=np.int32), (4, 1)),
    "next_sentence_positions": np.zeros((4, 1), np.int32),
}
LABELS = np.array([0, 1, 2, 0])
RECORDS = PLAIN | {
    "masked_lm_positions": np.array([[1, 2]] * 4, np.int32),
    "masked_lm_ids": IDS[:, 1:3],
    "masked_lm_weights": np.array([[1, 1], [1, 0], [0, 0], [1, 1]], np.float32),
    "next_sentence_labels": np.array([[0], [1], [1], [0]], np.int32),
    "next_sentence_weights": np.array([[1], [1], [0], [1]], np.float32),
}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.fixture(scope="module")
def encoder(tiny_config):
    return build_encoder_model(tiny_config)


@pytest.fixture
def classifier(tiny_config):
    return build_classifier_model(tiny_config, 3)


def test_what_is_left_out_has_defaults(encoder):
    assert_equal(encoder({"input_ids": IDS, "input_mask": MASK}), encoder(PLAIN))


def test_ids_alone_are_rows_without_padding(encoder):
    full = PLAIN | {"input_mask": np.ones_like(MASK)}
    for ids in (IDS, IDS.tolist(), tf.constant(IDS)):
        assert_equal(encoder(ids), encoder(full))


def test_names_and_types_of_transformers_are_taken(encoder):
    inputs = {
        "input_ids": IDS.astype(np.int64),
        "attention_mask": MASK.astype(bool),
        "token_type_ids": PLAIN["segment_ids"].astype(np.int64),
        "position_ids": PLAIN["positions"],
    }
    assert_equal(encoder(inputs), encoder(PLAIN))


def test_positions_of_packed_rows_follow_from_the_mask(make_inputs):
    packs = [[([7, 8, 9], [0] * 3), ([7, 8], [0] * 2)], [([5], [0])]]
    inputs = make_inputs(packs, 8)
    mask = tf.constant(inputs["input_mask"])
    is_token = inputs["input_mask"] > 0
    positions = model_inputs.default_positions(mask).numpy()
    np.testing.assert_array_equal(positions[is_token], inputs["positions"][is_token])
    with pytest.raises(tf.errors.InvalidArgumentError, match="for packed rows"):
        model_inputs.default_starts(mask)


def test_rows_that_begin_with_padding_count_from_their_first_position():
    # As in transformers, whose positions do not depend on the mask.
    positions = model_inputs.default_positions(tf.constant([[0, 0, 1, 1, 0, 1]]))
    np.testing.assert_array_equal(positions, [[0, 1, 2, 3, 4, 5]])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": IDS, "attention_mask": MASK, "input_mask": MASK}, "given once"),
        ({"input_ids": IDS, "attention_masks": MASK}, "Received: attention_masks"),
        ({"input_mask": MASK}, "must have input_ids"),
        ({"input_ids": IDS.astype(float)}, "Received: type float64"),
        ({"input_ids": IDS, "input_mask": MASK.astype("f4")}, "`input_mask` must be"),
        (["a text"], "pass texts to a tokenizer"),
        (IDS[0], "needs a batch axis"),
        ([[5, 6], [7]], "rows of unequal length. Pad them"),
        (tf.ragged.constant([[5, 6], [7]]), r"RaggedTensor. Call `.to_tensor\(\)`"),
        (np.ones((2, 17), int), "has 16 positions .* rows of 17 tokens. Cut them"),
        ({"input_ids": IDS, "input_mask": MASK[:, :3]}, "must have the shape"),
    ],
)
def test_inputs_that_it_cannot_take_are_refused_in_a_line(encoder, inputs, message):
    with pytest.raises(ValueError, match=message):
        encoder(inputs)


def test_rows_of_another_length_than_the_model_has_are_refused(tiny_config):
    model = build_encoder_model(tiny_config, max_seq_length=8)
    with pytest.raises(ValueError, match="max_seq_length=8 tokens .* Received: 7"):
        model(IDS)


def test_dropout_is_drawn_anew_and_by_the_seed(tiny_config):
    draws = []
    for seed in (0, 0, 1):
        model = build_classifier_model(tiny_config, 3, seed=seed)
        model.set_weights(build_classifier_model(tiny_config, 3).get_weights())
        draws.append([model(IDS, training=True)["class_logits"] for _ in range(2)])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0][0] - draws[0][1]).max() > 1e-6
    assert np.abs(draws[0][0] - draws[2][0]).max() > 1e-6


def test_a_file_restores_weights_optimizer_and_next_steps(classifier, tmp_path):
    classifier.compile(LAMB(0.01, global_clipnorm=1.0), metrics=["accuracy"])
    classifier.fit(IDS, LABELS, verbose=0)
    classifier.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(copy(IDS), classifier(IDS))
    assert [v.path for v in copy.weights] == [v.path for v in classifier.weights]
    for model in (classifier, copy):
        model.fit(IDS, LABELS, shuffle=False, verbose=0)
    assert_equal(copy(IDS), classifier(IDS))


@pytest.mark.parametrize("build", [build_encoder_model, build_span_model])
def test_files_of_other_models_give_equal_outputs(tiny_config, tmp_path, build):
    model = build(tiny_config, max_seq_length=7, seed=3, recompute=True)
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(copy(IDS), model(IDS))
    assert copy.get_config() == model.get_config()


def test_the_file_of_a_pretraining_model_keeps_the_table_tied(tiny_config, tmp_path):
    model = build_pretraining_model(tiny_config)
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    table = copy.get_layer("bert").embeddings.word_embeddings
    table.assign(2.0 * table.numpy())
    changed = copy(RECORDS)["masked_lm_logits"]
    assert np.abs(changed - model(RECORDS)["masked_lm_logits"]).max() > 0.01
    assert len(copy.weights) == len(model.weights)


def test_a_masked_lm_alone_is_saved_and_has_one_loss(tiny_config, tmp_path):
    model = build_pretraining_model(tiny_config, do_nsp=False, frozen_layers=1)
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    assert copy.get_config() == model.get_config()
    np.testing.assert_array_equal(
        *(list(m(RECORDS).values())[0] for m in (copy, model))
    )
    copy.compile(LAMB(1e-3))
    task = PretrainingTask(model, do_nsp=False)
    features = {n: tf.constant(x) for n, x in RECORDS.items()}
    [mean] = task.loss_sums(features, training=False) / task.counts(features)
    assert loss_of(copy, RECORDS) == pytest.approx(float(mean), rel=1e-6)


def test_a_copy_has_the_same_architecture_and_frozen_layers(classifier):
    encoder = classifier.get_layer("bert").encoder
    encoder.trainable = False
    encoder.encoder_layers[1].trainable = True
    copy = classifier.from_config(classifier.get_config())
    for name in ("weights", "trainable_weights"):
        paths = [[v.path for v in getattr(m, name)] for m in (copy, classifier)]
        assert paths[0] == paths[1]


def test_a_clone_is_a_functional_model_of_the_same_layers(classifier):
    clone = keras.models.clone_model(classifier)
    clone.set_weights(classifier.get_weights())
    inputs = PLAIN | {"dropout_seed": np.zeros((4, 3), np.int32)}
    assert_equal(clone(inputs), classifier(PLAIN))


def test_a_clone_that_would_untie_the_word_embeddings_is_refused(tiny_config):
    model = build_pretraining_model(tiny_config)
    with pytest.raises(ValueError, match="word embeddings, which `clone_model`"):
        keras.models.clone_model(model)


def test_a_model_of_our_layers_saves_and_loads(tiny_config, tmp_path):
    model = build_pretraining_model(tiny_config)
    extra = keras.layers.Dense(2)(model.output["masked_lm_logits"])
    model = keras.Model(model.input, extra)
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    inputs = {name: RECORDS[name] for name in model.input}
    np.testing.assert_array_equal(copy(inputs), model(inputs))
    assert len(copy.weights) == len(model.weights)


def test_an_encoder_is_a_layer_of_another_model(encoder, tmp_path):
    names = ("input_ids", "attention_mask")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    pooled = encoder(inputs)["pooled_output"][:, 0]
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    batch = {"input_ids": IDS, "attention_mask": MASK}
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(copy(batch), model(batch))
    expected = model.layers[-1](encoder(PLAIN)["pooled_output"][:, 0])
    np.testing.assert_allclose(model(batch), expected, rtol=1e-6)


def loss_of(model, *data, **settings):
    """The loss of a first batch, before its step; dropout is off."""
    return model.evaluate(*data, verbose=0, return_dict=True, **settings)["loss"]


def test_compiled_without_a_loss_pretraining_has_the_mean_losses(tiny_config):
    model = build_pretraining_model(tiny_config)
    model.compile(LAMB(1e-3))
    features = {n: tf.constant(x) for n, x in RECORDS.items()}
    task = PretrainingTask(model)
    sums = task.loss_sums(features, training=False) / task.counts(features)
    expected = float(tf.reduce_sum(sums))
    assert loss_of(model, RECORDS) == pytest.approx(expected, rel=1e-6)
    dataset = tf.data.Dataset.from_tensor_slices(RECORDS).batch(4)
    assert loss_of(model, dataset) == pytest.approx(expected, rel=1e-6)
    labels = {name: RECORDS[name] for name in model.labels}
    inputs = {n: x for n, x in RECORDS.items() if n not in labels}
    assert loss_of(model, inputs, labels) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(model.fit(RECORDS, verbose=0).history["loss"]).all()


def test_a_loss_of_keras_equals_that_of_the_task(classifier):
    losses = []
    for settings in (
        {},
        {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
    ):
        classifier.compile(LAMB(1e-3), metrics=["accuracy"], **settings)
        losses.append(loss_of(classifier, IDS, LABELS))
        weighted = {"sample_weight": np.array([1.0, 2.0, 0.0, 0.5])}
        losses.append(loss_of(classifier, IDS, LABELS, **weighted))
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-6)
    features = {n: tf.constant(x) for n, x in PLAIN.items()}
    features |= {
        "input_mask": tf.ones_like(IDS),
        "labels": tf.constant(LABELS[:, None]),
    }
    task = ClassTask(classifier)
    expected = task.losses(task.logits(features), features)
    assert losses[0] == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-6)


def test_class_weights_callbacks_and_validation_work(classifier, tmp_path):
    classifier.compile(LAMB(0.01), metrics=["accuracy"])
    history = classifier.fit(
        *(PLAIN, LABELS),
        class_weight={0: 1.0, 1: 2.0, 2: 0.5},
        validation_data=(PLAIN, LABELS),
        callbacks=[
            keras.callbacks.EarlyStopping(),
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras"),
        ],
        epochs=2,
        verbose=0,
    ).history
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= history.keys()
    assert keras.models.load_model(tmp_path / "best.keras")


def test_numbers_have_the_squared_error(tiny_config):
    model = build_classifier_model(tiny_config, 1)
    model.compile(LAMB(1e-3))
    values = np.array([0.5, 1.0, -1.0, 2.0], np.float32)
    outputs = model(IDS)["class_logits"].numpy()[:, 0, 0]
    expected = np.mean((outputs - values) ** 2)
    assert loss_of(model, IDS, values) == pytest.approx(expected, rel=1e-6)


def test_answers_have_the_loss_of_spans(tiny_config):
    model = build_span_model(tiny_config)
    model.compile(LAMB(1e-3))
    labels = {"start_positions": [1, 2, 0, 4], "end_positions": [2, 3, 1, 5]}
    labels = {name: np.array(values) for name, values in labels.items()}
    features = {n: tf.constant(x) for n, x in PLAIN.items()}
    features |= {n: tf.constant(x[:, None]) for n, x in labels.items()}
    task = SpanTask(model)
    losses = task.losses(task.logits(features), features)
    expected = pytest.approx(float(tf.reduce_mean(losses)), rel=1e-6)
    assert loss_of(model, PLAIN, labels) == expected
    assert loss_of(model, PLAIN, tuple(labels.values())) == expected
    assert loss_of(model, PLAIN | labels) == expected
    with pytest.raises(ValueError, match="end_positions. Received: start_positions"):
        loss_of(model, PLAIN, {"start_positions": labels["start_positions"]})
    with pytest.raises(ValueError, match="end_positions. Received: tuple"):
        loss_of(model, PLAIN, (*labels.values(), labels["end_positions"]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.eye(3, dtype="f4")[LABELS], "Received: type float32"), (None, "no labels")],
)
def test_labels_without_a_loss_are_refused(classifier, labels, message):
    classifier.compile(LAMB(1e-3))
    with pytest.raises(ValueError, match=message):
        classifier.fit(IDS, labels, verbose=0)


@pytest.fixture
def keras_policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("policy", "precision"), [("mixed_bfloat16", "bf16"), ("mixed_float16", "fp16")]
)
def test_the_global_policy_of_keras_is_followed(
    tiny_config, keras_policy, tmp_path, policy, precision
):
    keras_policy(policy)
    model = build_classifier_model(tiny_config, 3)
    keras_policy("float32")
    same = build_classifier_model(tiny_config, 3, policy=PrecisionPolicy(precision))
    assert_equal(model(IDS), same(IDS))
    assert {v.dtype for v in model.trainable_weights} == {"float32"}
    model.compile(LAMB(0.01))
    assert np.isfinite(model.fit(IDS, LABELS, verbose=0).history["loss"]).all()
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(copy(IDS), model(IDS))
    # float16 needs a scaled loss; its state is loaded too.
    kind = keras.optimizers.LossScaleOptimizer if precision == "fp16" else LAMB
    assert type(model.optimizer) is type(copy.optimizer) is kind
    assert len(copy.optimizer.variables) == len(model.optimizer.variables)


def test_policies_with_weights_of_16_bits_are_refused(tiny_config, keras_policy):
    keras_policy("bfloat16")
    with pytest.raises(ValueError, match="float32. Received: bfloat16. Call"):
        build_encoder_model(tiny_config)


def test_the_lists_of_a_precision_file_are_in_the_file_of_a_model():
    rules = PrecisionRules(("MatMul",), (), (), (("a/b", "MatMul"),), (("c", ""),))
    policy = PrecisionPolicy("bf16", rules)
    assert PrecisionPolicy.from_config(policy.get_config()) == policy


@pytest.mark.parametrize("wrong", [2, -1])
def test_unknown_segments_are_refused(encoder, wrong):
    segments = np.zeros_like(IDS)
    segments[1, 2] = wrong
    with pytest.raises(tf.errors.InvalidArgumentError, match="type_vocab_size=2"):
        encoder.predict(PLAIN | {"segment_ids": segments}, verbose=0)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "2"])
def test_a_classifier_has_a_number_of_outputs(tiny_config, wrong):
    with pytest.raises(ValueError, match="`num_outputs` must be a whole number"):
        build_classifier_model(tiny_config, wrong)


def test_a_number_of_outputs_may_be_of_numpy(tiny_config, tmp_path):
    model = build_classifier_model(tiny_config, np.int64(3))
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").output_shape == (
        model.output_shape
    )
