"""Spellings, wrappers and damages of the files that other programs leave."""

import dataclasses
import re

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from interop.tiny_bert import (
    assert_equal_bytes,
    pretraining_shapes,
    random_tensors,
    write_neighbours,
    write_tf1,
)
from safetensors.numpy import save_file

from bert_tf.errors import RunError
from bert_tf.interop.huggingface import to_huggingface_names
from bert_tf.interop.tensor_shapes import conform
from bert_tf.interop.torch_files import save_torch
from bert_tf.interop.weights import Weights, assign_weights, read_weights

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 438064459\n"
PAGE = b"<!DOCTYPE html><html><body>Not found</body></html>"


def write_safetensors(folder, tiny, tensors):
    write_neighbours(folder, tiny, "config.json")
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def theirs(tiny_tensors):
    return to_huggingface_names(tiny_tensors)


@pytest.mark.parametrize(
    "wrapper", ["module.", "module.module.", "_orig_mod.", "model.", "net.encoder."]
)
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_wrapper_s_prefix_is_left_out(tmp_path, tiny, theirs, wrapper, kind, request):
    wrapped = {f"{wrapper}{name}": values for name, values in theirs.items()}
    write_neighbours(tmp_path, tiny, "config.json")
    if kind == "bin":
        save_torch(tmp_path / "pytorch_model.bin", wrapped)
    else:
        save_file(wrapped, tmp_path / "model.safetensors")
    read = read_weights(tmp_path)
    assert_equal_bytes(read.tensors, request.getfixturevalue("tiny_tensors"))
    if (wrapper, kind) != ("module.", "bin"):  # load_torch takes that one itself.
        assert any("which is left out" in note for note in read.notes)


def test_a_sentence_encoder_s_prefix_is_left_out(tmp_path, tiny, theirs, tiny_tensors):
    wrapped = {
        f"0.auto_model.{name.removeprefix('bert.')}": values
        for name, values in theirs.items()
        if name.startswith("bert.")
    }
    read = read_weights(write_safetensors(tmp_path, tiny, wrapped))
    expected = {n: t for n, t in tiny_tensors.items() if n.startswith("bert/")}
    assert_equal_bytes(read.tensors, expected)


def test_a_scope_of_tensorflow_is_left_out(tmp_path, tiny, tiny_tensors):
    scoped = {f"module/{name}": values for name, values in tiny_tensors.items()}
    read = read_weights(write_tf1(tmp_path, scoped, tiny))
    assert_equal_bytes(read.tensors, tiny_tensors)
    assert "its names begin with module/, which is left out" in read.notes


def test_two_encoders_in_a_file_are_refused(tmp_path, tiny, theirs):
    both = {f"{side}.{n}": t for n, t in theirs.items() for side in ("query", "text")}
    with pytest.raises(ValueError, match=r"one BERT.*query\., text\."):
        read_weights(write_safetensors(tmp_path, tiny, both))


def test_another_architecture_is_no_wrapper(tmp_path, tiny, theirs):
    """Positions of a RoBERTa count from 2: it must not pass for a BERT."""
    other = {
        re.sub("^bert", "roberta", name): t
        for name, t in theirs.items()
        if name.startswith("bert.")
    }
    with pytest.raises(ValueError, match="unknown tensors: roberta"):
        read_weights(write_safetensors(tmp_path, tiny, other))


def test_layer_normalisations_may_have_the_names_of_tensorflow_2(
    tmp_path, tiny, tiny_tensors
):
    """`layer_normalization`, `layer_normalization_1`, ... through the whole model."""
    renamed, scopes = {}, []
    for name, values in tiny_tensors.items():
        scope, found, leaf = name.partition("/LayerNorm/")
        if found:
            scopes += [scope] if scope not in scopes else []
            number = scopes.index(scope)
            ending = f"_{number}" if number else ""
            name = f"{scope}/layer_normalization{ending}/{leaf}"
        renamed[name] = values
    read = read_weights(write_tf1(tmp_path, renamed, tiny))
    assert_equal_bytes(read.tensors, tiny_tensors)


def test_the_state_of_a_training_is_reported_and_left_out(tmp_path, tiny, tiny_tensors):
    name = "bert/pooler/dense/bias"
    slots = ("BERTAdam", "Adam/m", "ExponentialMovingAverage")
    more = {f"{name}/{slot}": tiny_tensors[name] for slot in slots}
    path = write_tf1(tmp_path, tiny_tensors | more, tiny, with_slots=False)
    read = read_weights(path)
    assert_equal_bytes(read.tensors, tiny_tensors)
    [note] = read.notes
    assert note.startswith("state of its training, not used: ")
    assert all(f"1 x {slot}" in note for slot in slots)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.bool_])
def test_integers_are_no_weights(tmp_path, tiny, theirs, dtype):
    """A quantised file says elsewhere what they mean."""
    tensors = {name: (values * 100).astype(dtype) for name, values in theirs.items()}
    with pytest.raises(ValueError, match=f"floating type. Received: {np.dtype(dtype)}"):
        read_weights(write_safetensors(tmp_path, tiny, tensors))


def test_integers_of_a_checkpoint_are_no_weights(tmp_path, tiny, tiny_tensors):
    tensors = {name: (t * 100).astype(np.int32) for name, t in tiny_tensors.items()}
    with pytest.raises(ValueError, match="floating type. Received: int32"):
        read_weights(write_tf1(tmp_path, tensors, tiny, with_slots=False))


def test_bfloat16_becomes_float32(tmp_path, tiny, theirs, tiny_tensors):
    halved = {name: t.astype(ml_dtypes.bfloat16) for name, t in theirs.items()}
    read = read_weights(write_safetensors(tmp_path, tiny, halved)).tensors
    for name, values in tiny_tensors.items():
        expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
        assert read[name].tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(tiny, tiny_tensors, value):
    name = "bert/pooler/dense/bias"
    ruined = np.asarray([0, value, 1, value, 0, 0, 0, 0], np.float32)
    tensors = tiny_tensors | {name: ruined}
    weights = Weights(tensors, None, "", "the file")
    variable = tf.Variable(tf.zeros([8]))
    with pytest.raises(ValueError, match=f"the file: 2 of the 8 values of {name}"):
        assign_weights(weights, {name: variable})
    assert not variable.numpy().any()
    with pytest.raises(ValueError, match="2 of the 8 values"):
        conform(tensors, tiny, "the file")


def test_a_config_of_fewer_layers_is_of_other_weights(tmp_path, tiny):
    deeper = dataclasses.replace(tiny, num_hidden_layers=4)
    path = write_tf1(tmp_path, random_tensors(pretraining_shapes(deeper)), tiny)
    with pytest.raises(ValueError, match="has 4 layers, but .*num_hidden_layers=2"):
        read_weights(path)


def test_a_model_of_fewer_layers_takes_the_first_and_says_so(tiny, tiny_tensors):
    names = ("bert/encoder/layer_0/output/dense/bias", "bert/pooler/dense/bias")
    model = {name: tf.Variable(tf.zeros([8])) for name in names}
    report = assign_weights(Weights(tiny_tensors, None, "", "the file"), model)
    warning = "warning: it has 2 layers, of which the model has the first 1"
    assert warning in report.lines()
    assert not any("layer_1" in name for name in report.unused)


@pytest.mark.parametrize(
    "content, said",
    [(LFS, "a Git LFS pointer"), (PAGE, "a page of HTML"), (b"", "empty")],
    ids=["pointer", "page", "empty"],
)
@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "pytorch_model.bin", "config.json"),
        *("bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"),
        "bert_config.json",
    ],
)
def test_what_came_in_place_of_a_file_is_named(
    tmp_path, tiny, tiny_tensors, theirs, name, content, said
):
    if name.startswith("bert_"):
        path = write_tf1(tmp_path, tiny_tensors, tiny)
    else:
        path = write_safetensors(tmp_path, tiny, theirs)
    if name == "pytorch_model.bin":
        (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as raised:
        read_weights(path)
    assert name in str(raised.value)


def test_odd_paths_are_no_patterns(tmp_path, tiny, tiny_tensors):
    folder = tmp_path / "a [x] {y} *? ünï #"
    read = read_weights(write_tf1(folder, tiny_tensors, tiny))
    assert_equal_bytes(read.tensors, tiny_tensors)


def test_heads_of_a_wrapped_model_may_stand_outside(tmp_path, tiny, theirs):
    """As of a class of one's own: `encoder.bert....` and `classifier.weight`."""
    kept = {n: t for n, t in theirs.items() if n.startswith("bert.")}
    tensors = {f"encoder.{name}": values for name, values in kept.items()}
    tensors["classifier.weight"] = np.ones([3, 8], np.float32)
    tensors["classifier.bias"] = np.ones([3], np.float32)
    read = read_weights(write_safetensors(tmp_path, tiny, tensors)).tensors
    assert read["output_weights"].shape == (3, 8)
    assert "bert/pooler/dense/kernel" in read


def test_a_name_with_and_without_the_wrapper_is_refused(tmp_path, tiny, theirs):
    tensors = {f"model.{name}": values for name, values in theirs.items()}
    tensors["cls.predictions.bias"] = theirs["cls.predictions.bias"]
    with pytest.raises(ValueError, match="both with and without 'model.'"):
        read_weights(write_safetensors(tmp_path, tiny, tensors))


def test_a_missing_tensor_is_no_initial_value(tmp_path, tiny, tiny_tensors):
    short = {n: t for n, t in tiny_tensors.items() if "layer_1/output/dense" not in n}
    found = read_weights(write_tf1(tmp_path, short, tiny))
    model = {n: tf.Variable(tf.zeros(t.shape)) for n, t in tiny_tensors.items()}
    with pytest.raises(RunError, match="layer_1/output/dense/kernel .* is missing"):
        assign_weights(found, model)
