import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from interop.tiny_bert import assert_equal_bytes, write_neighbours, write_tf1
from oracles import files
from safetensors.numpy import save_file

from bert_tf.errors import RunError
from bert_tf.interop.torch_files import save_torch
from bert_tf.interop.weights import (
    Weights,
    assign_weights,
    read_weights,
    require_config,
)


def variables(**shapes):
    """Variables of ones under names whose slashes are written as two underscores."""
    return {
        name.replace("__", "/"): tf.Variable(tf.ones(shape))
        for name, shape in shapes.items()
    }


def weights(**tensors):
    tensors = {
        name.replace("__", "/"): np.asarray(values, np.float32)
        for name, values in tensors.items()
    }
    return Weights(tensors, None, "", "a test's file")


# Reading.


@pytest.mark.parametrize("remedy, end", [("", ""), ("Pass it.", " Pass it.")])
def test_what_else_to_do_without_a_config_is_a_sentence(remedy, end):
    with pytest.raises(RunError) as refused:
        require_config(None, "file a", remedy)
    assert str(refused.value).endswith(f"Put that of the model there.{end}")


def test_slots_and_counters_of_a_checkpoint_are_left_out(tf1, tiny, tiny_tensors):
    read = read_weights(tf1)
    assert_equal_bytes(read.tensors, tiny_tensors)
    assert read.config == tiny
    assert read.source == f"TensorFlow checkpoint {tf1}"
    assert read.vocab_file.endswith("/tf1/vocab.txt")


def test_heads_of_fine_tuning_are_read(tmp_path):
    theirs = {
        "bert.pooler.dense.weight": np.array([[1, 2], [3, 4]], np.float32),
        "classifier.weight": np.ones((3, 2), np.float32),
        "classifier.bias": np.zeros(3, np.float32),
        "qa_outputs.weight": np.ones((2, 2), np.float32),
    }
    save_torch(tmp_path / "pytorch_model.bin", theirs)
    tensors = read_weights(tmp_path).tensors
    assert tensors["bert/pooler/dense/kernel"].tolist() == [[1, 3], [2, 4]]
    assert tensors["output_weights"].shape == (3, 2)
    assert tensors["output_bias"].shape == (3,)
    assert tensors["cls/squad/output_weights"].shape == (2, 2)


def test_a_training_state_of_mlperf_is_read(tmp_path):
    path = tmp_path / "model.ckpt-28252.apex.pt"
    query = "bert.encoder.layer.0.attention.multi_head_attention.q_weight"
    values = np.array([[1, 2], [3, 4]], np.float32)
    save_torch(path, {f"bert_model_segment.{query}": values}, under="model")
    [(name, kernel)] = read_weights(path).tensors.items()
    assert name == "bert/encoder/layer_0/attention/self/query/kernel"
    assert kernel.tolist() == [[1, 3], [2, 4]]


def test_tensors_of_no_bert_keep_their_names(tmp_path):
    theirs = {"pooler.dense.bias": np.ones(2, np.float32), "crf.x": np.ones(1, "f4")}
    save_file(theirs, tmp_path / "model.safetensors")
    assert set(read_weights(tmp_path).tensors) == {"bert/pooler/dense/bias", "crf.x"}


def test_a_file_without_any_tensor_of_bert_is_refused(tmp_path, tiny):
    save_file({"roberta.x": np.ones(1, "f4")}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="unknown tensors: roberta.x"):
        read_weights(tmp_path)
    checkpoint = write_tf1(tmp_path / "tf", {"gpt/x": np.ones(1, "f4")}, tiny)
    with pytest.raises(
        ValueError, match="must hold tensors of a BERT. Received: gpt/x"
    ):
        read_weights(checkpoint)


def test_config_of_another_model_is_refused_with_its_path(tmp_path):
    save_file({"pooler.dense.bias": np.ones(2, "f4")}, tmp_path / "model.safetensors")
    for text in ('{"model_type": "roberta"}', "[1]", "{", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match="config.json"):
            read_weights(tmp_path)


def test_half_precision_becomes_float32(tmp_path, tiny):
    name = "bert/pooler/dense/bias"
    path = write_tf1(tmp_path, {name: np.array([1.5], np.float16)}, tiny)
    values = read_weights(path).tensors[name]
    assert values.dtype == np.float32 and values.tolist() == [1.5]


@pytest.mark.parametrize("model, count", [("minilm", 103), ("rxnfp", 206)])
def test_published_models_are_read_whole(model, count):
    # 3 tables, 2 of their normalisation, 16 a layer, 2 of the pooler, 7 of the heads.
    read = read_weights(files.DATA / "models" / model)
    assert len(read.tensors) == count
    assert read.config.num_hidden_layers == {"minilm": 6, "rxnfp": 12}[model]
    assert read.vocab_file.endswith(f"{model}/vocab.txt")


# Assigning.


def test_equal_names_and_shapes_are_assigned():
    model = variables(bert__x=[2], bert__y=[1, 2])
    report = assign_weights(weights(bert__x=[3, 4], bert__y=[[5, 6]]), model)
    assert report.lines() == []
    assert model["bert/x"].numpy().tolist() == [3, 4]
    assert model["bert/y"].numpy().tolist() == [[5, 6]]


def test_what_does_not_fit_is_listed_and_nothing_is_changed():
    model = variables(bert__x=[2], bert__y=[2], cls__z=[3])
    with pytest.raises(RunError) as raised:
        assign_weights(weights(bert__x=[3, 4], bert__y=[5], other=[1]), model)
    message = str(raised.value)
    assert "a test's file does not fit the model: " in message
    assert "bert/y must have shape (2,), found (1,); cls/z (3,) is missing." in message
    assert "the model does not use: other." in message
    assert "\n" not in message
    assert model["bert/x"].numpy().tolist() == [1, 1]


def test_new_heads_are_named_and_unused_tensors_too():
    model = variables(bert__x=[1], cls__squad__output_bias=[2], output_bias=[2])
    found = weights(bert__x=[3], cls__predictions__output_bias=[0])
    report = assign_weights(found, model, new=["cls/squad/*", "output_bias"])
    assert report.newly_initialised == ("cls/squad/output_bias", "output_bias")
    assert report.unused == ("cls/predictions/output_bias",)
    assert report.lines() == [
        "newly initialised: cls/squad/output_bias, output_bias",
        "not used: cls/predictions/output_bias",
    ]
    assert model["output_bias"].numpy().tolist() == [1, 1]


def test_a_head_of_another_size_is_newly_initialised_only_where_it_may_be():
    model, found = variables(output_bias=[2]), weights(output_bias=[7, 8, 9])
    report = assign_weights(found, model, new=["output_*"])
    assert report.newly_initialised == ("output_bias",)
    assert report.adapted == ("output_bias: (3,) in the file is not (2,)",)
    with pytest.raises(RunError, match=r"output_bias must have shape \(2,\), found"):
        assign_weights(found, model)


WORDS = "bert__embeddings__word_embeddings"
POSITIONS = "bert__embeddings__position_embeddings"


@pytest.mark.parametrize(
    "have, want",
    [(30522, 30528), (30528, 30522), (5, 8), (30522, 30720), (30592, 30522)],
)
def test_a_padded_vocabulary_loads_against_the_other(have, want):
    values = np.arange(have, dtype=np.float32)
    model = variables(**{WORDS: [want, 2], "cls__predictions__output_bias": [want]})
    found = weights(
        **{
            WORDS: np.stack([values, values], 1),
            "cls__predictions__output_bias": values,
        }
    )
    report = assign_weights(found, model)
    both, expected = min(have, want), np.zeros(want)
    expected[:both] = np.arange(both)
    table, bias = (variable.numpy() for variable in model.values())
    np.testing.assert_array_equal(table[:, 1], expected)
    np.testing.assert_array_equal(bias, expected)
    assert len(report.adapted) == 2
    assert str(have) in report.adapted[0] and str(want) in report.adapted[0]


@pytest.mark.parametrize(
    "have, want", [(30522, 30530), (30536, 30522), (21128, 30522), (8, 17)]
)
def test_other_vocabularies_are_not_padded(have, want):
    model = variables(**{WORDS: [want, 1]})
    with pytest.raises(RunError, match="word_embeddings must have shape"):
        assign_weights(weights(**{WORDS: np.zeros((have, 1))}), model)


def test_positions_grow_and_the_known_ones_are_kept():
    model = variables(**{POSITIONS: [512, 1]})
    report = assign_weights(weights(**{POSITIONS: np.zeros((128, 1))}), model)
    values = model["bert/embeddings/position_embeddings"].numpy()
    assert values.ravel().tolist() == [0] * 128 + [1] * 384  # As they were, beyond.
    assert report.adapted == (
        "bert/embeddings/position_embeddings: 128 positions grown to 512, the new ones "
        "untrained",
    )


def test_fewer_positions_are_refused():
    model = variables(**{POSITIONS: [128, 1]})
    with pytest.raises(RunError, match="position_embeddings must have shape"):
        assign_weights(weights(**{POSITIONS: np.zeros((512, 1))}), model)


def test_long_lists_in_messages_are_cut():
    model = {f"bert/{i}": tf.Variable([0.0]) for i in range(30)}
    with pytest.raises(RunError, match="; and 22 more."):
        assign_weights(weights(), model)


def test_a_newer_config_beside_our_own_checkpoint_is_used(tf1, tiny, tmp_path):
    other = dataclasses.replace(tiny, hidden_dropout_prob=0.0)
    write_neighbours(tmp_path / "tf1", other, "bert_config.json")
    assert read_weights(tmp_path / "tf1").config == other
