"""Precision files: which operation computes in which type."""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, TINY

from bert_tf.config import BertConfig
from bert_tf.config.runtime import PRECISIONS
from bert_tf.modeling.pretraining import build_pretraining_model
from bert_tf.precision import PrecisionPolicy, choose_policy, read_rules

# What Habana's file for BERT holds, as its documentation lists it.
PUBLISHED = {
    "allowlist": [
        *("_ScopedAllocatorSplit", "_ScopedAllocatorConcat", "_ScopedAllocator"),
        *("BatchMatMul", "BatchMatMulV2", "BiasAdd", "BiasAddGrad", "EuclideanNorm"),
        *("Exp", "HabanaDropout", "HabanaGelu", "HabanaLayerNorm", "L2Loss", "Log"),
        *("HorovodAllgather", "HorovodAllreduce", "LogSoftmax", "MatMul", "Softmax"),
        *("Sum", "Tanh", "TanhGrad"),
    ],
    "conditional_list": [
        *("Add", "AddV2", "AddN", "ExpandDims", "Identity", "Neg", "Reshape", "Slice"),
        *("Split", "StridedSliceGrad", "Transpose"),
    ],
    "strict_conditional_list": [],
    "non_convertible_exceptions": [[".*KEEP_FP32_PRECISION.*", ""]],
    "convertible_exceptions": [
        ["bert/encoder/layer_[0-9]+/attention/self/add", "AddV2"],
        ["bert/encoder/layer_[0-9]+/attention/self/Mul", "Mul"],
        ["clip_by_global_norm/mul", "Mul"],
        ["global_norm/global_norm", "Sqrt"],
        [".*FORCE_BF16_PRECISION.*", ""],
    ],
}


def write(tmp_path, values):
    path = tmp_path / "precision.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return str(path)


def test_published_file_is_read(tmp_path):
    policy = choose_policy("", write(tmp_path, PUBLISHED))
    assert policy.compute_dtype("MatMul", "bert/pooler/dense") == tf.bfloat16
    assert policy.compute_dtype("BatchMatMul", "bert/x") == tf.bfloat16
    kept = "bert/KEEP_FP32_PRECISION/dense"
    assert policy.compute_dtype("MatMul", kept) == tf.float32
    assert not policy.decisions  # To ask is not to compute.
    policy.record("MatMul", kept)
    assert policy.decisions == {("MatMul", kept): "float32"}


ALL = [(kind, "bert/a") for kind in ("BiasAdd", "Softmax", "MatMul", "BatchMatMul")]


def test_published_file_keeps_no_operation_of_ours_in_float32(tmp_path):
    """Its exceptions speak of none."""
    policy = choose_policy("", write(tmp_path, PUBLISHED))
    assert not policy.first_kept(ALL, [("LayerNorm", "bert/a"), ("Gelu", "bert/a")])


@pytest.mark.parametrize("pattern", ["bert/", "/a$", "a/MatMul$", ""])
def test_the_first_operation_that_is_kept_in_float32_is_named(tmp_path, pattern):
    rules = PUBLISHED | {"non_convertible_exceptions": [[pattern, "MatMul"]]}
    kept = choose_policy("", write(tmp_path, rules)).first_kept(ALL)
    assert kept == "bert/a/MatMul"


def test_every_precision_has_a_policy_of_keras():
    names = [PrecisionPolicy(name).keras_name for name in PRECISIONS]
    assert dict(zip(PRECISIONS, names, strict=True)) == {
        "fp32": "float32",
        "avx-fp32": "float32",
        "bf32": "float32",
        "bf16": "mixed_bfloat16",
        "fp16": "mixed_float16",
    }


def test_without_lists_nothing_is_exempt():
    assert not PrecisionPolicy("bf16").first_kept(ALL)


def test_our_file_is_found_by_flag_and_by_variable(monkeypatch):
    path = str(ROOT / "bf16_config" / "bert.json")
    assert not choose_policy("", path).first_kept(ALL)
    monkeypatch.setenv("TF_BF16_CONVERSION", path)
    assert choose_policy("", "").rules == read_rules(path)
    monkeypatch.setenv("TF_BF16_CONVERSION", "1")
    assert choose_policy("", "") == PrecisionPolicy("bf16")
    for off in ("", "0", "false", "False"):
        monkeypatch.setenv("TF_BF16_CONVERSION", off)
        assert choose_policy("", "") == PrecisionPolicy("fp32")
    monkeypatch.setenv("TF_BF16_CONVERSION", path)
    assert choose_policy("fp32", "") == PrecisionPolicy("fp32")


@pytest.mark.parametrize(
    ("rules", "operation", "name", "expected"),
    [
        ({}, "MatMul", "a", "float32"),
        ({"allowlist": ["MatMul"]}, "MatMul", "a", "bfloat16"),
        ({"allowlist": ["MatMul"]}, "BatchMatMul", "a", "float32"),
        ({"allowlist": ["BatchMatMulV2"]}, "BatchMatMul", "a", "bfloat16"),
        ({"conditional_list": ["MatMul"]}, "MatMul", "a", "float32"),
        (
            {"allowlist": ["MatMul"], "non_convertible_exceptions": [["cls/", ""]]},
            "MatMul",
            "cls/predictions",
            "float32",
        ),
        ({"convertible_exceptions": [["layer_1/", "MatMul"]]}, "MatMul",
         "bert/encoder/layer_1/output", "bfloat16"),
        ({"allowlist": ["HabanaLayerNorm"]}, "LayerNorm", "a", "bfloat16"),
        ({"allowlist": ["LayerNorm"]}, "LayerNorm", "a", "bfloat16"),
        ({"allowlist": ["HabanaGelu"]}, "Gelu", "a", "bfloat16"),
        ({"allowlist": ["Softmax"]}, "LogSoftmax", "a", "float32"),
        ({"allowlist": ["SparseSoftmaxCrossEntropyWithLogits"]}, "LogSoftmax", "a",
         "bfloat16"),
        ({"convertible_exceptions": [["layer_1/", "Add"]]}, "MatMul",
         "bert/encoder/layer_1/output", "float32"),
    ],
)  # fmt: skip
def test_lists_decide(tmp_path, rules, operation, name, expected):
    policy = choose_policy("", write(tmp_path, rules))
    assert policy.compute_dtype(operation, name).name == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{", "is not JSON"),
        ([], "must hold a JSON object"),
        ({"allow_list": []}, "keys must be among allowlist, .*Received: allow_list"),
        ({"allowlist": ["MatMull"]}, r"such as .*MatMul.* Received: 'MatMull'"),
        ({"allowlist": [5]}, "Received: 5"),
        ({"convertible_exceptions": ["a"]}, "must hold pairs"),
        ({"convertible_exceptions": [["(", ""]]}, "must hold regular expressions"),
        ({"convertible_exceptions": [["a", "Matmul"]]}, "Received: 'Matmul'"),
    ],
)
def test_wrong_files_are_refused(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        choose_policy("", write(tmp_path, values))


def test_missing_file_is_refused():
    with pytest.raises(FileNotFoundError, match="Received: bf16_config_path=/none"):
        choose_policy("", "/none")


def logits(policy, config):
    model = build_pretraining_model(config, max_seq_length=8, policy=policy)
    places = np.tile(np.arange(8), (2, 1))
    inputs = {
        "input_ids": places + 5,
        "input_mask": np.ones((2, 8)),
        "segment_ids": np.zeros((2, 8)),
        "positions": places,
        "next_sentence_positions": np.zeros((2, 1)),
        "masked_lm_positions": np.ones((2, 2)),
    }
    outputs = model({name: tf.constant(x, tf.int32) for name, x in inputs.items()})
    return outputs["masked_lm_logits"].numpy()


def test_empty_lists_are_float32_to_the_last_bit(tmp_path):
    config = BertConfig.from_dict(TINY, source="test")
    exact = logits(PrecisionPolicy(), config)
    empty = choose_policy("", write(tmp_path, {}))
    np.testing.assert_array_equal(logits(empty, config), exact)
    assert set(empty.decisions.values()) == {"float32"}
    one = {"convertible_exceptions": [["layer_0/intermediate", "MatMul"]]}
    some = choose_policy("", write(tmp_path, one))
    assert np.any(logits(some, config) != exact)
    converted = [name for (_, name), d in some.decisions.items() if d == "bfloat16"]
    assert converted == ["bert/encoder/layer_0/intermediate/dense"]


def entries(policy):
    """The line about entries without effect: list -> entries."""
    [line] = policy.unused_entries()
    start, parts = line.removesuffix(".").split("here: ")
    assert start == "bf16 config: entries without effect "
    return {key: x.split(", ") for key, x in (p.split(": ") for p in parts.split("; "))}


def test_entries_that_decide_nothing_are_listed(tmp_path):
    rules = {
        "allowlist": ["MatMul", "Conv2D", "HorovodAllreduce", "Softmax", "HabanaGelu"],
        "conditional_list": ["Add"],
        "non_convertible_exceptions": [["layer_7/", ""], ["layer_1/", ""], ["", "Exp"]],
        "convertible_exceptions": [["pooler", "MatMul"], ["pooler", "Softmax"]],
    }
    policy = choose_policy("", write(tmp_path, rules))
    logits(policy, BertConfig.from_dict(TINY, source="test"))
    assert entries(policy) == {
        "allowlist": ["Conv2D", "HorovodAllreduce"],
        "conditional_list": ["Add"],
        "non_convertible_exceptions": ["layer_7/ ", " Exp"],
        "convertible_exceptions": ["pooler Softmax"],
    }


def test_without_lists_no_entry_is_without_effect():
    assert PrecisionPolicy("bf16").unused_entries() == []


def test_a_missing_file_of_the_environment_names_the_variable(tmp_path, monkeypatch):
    path = str(tmp_path / "none.json")
    monkeypatch.setenv("TF_BF16_CONVERSION", path)
    with pytest.raises(FileNotFoundError, match=f"TF_BF16_CONVERSION={path}"):
        choose_policy("", "")
