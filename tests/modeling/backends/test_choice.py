"""Which layer is computed by which backend, and that a model may have both."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from bert_tf.config import PRESETS
from bert_tf.modeling.backends.choice import Backends
from bert_tf.modeling.backends.fused import Fused
from bert_tf.modeling.models import backends_of
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import PrecisionPolicy, PrecisionRules, read_rules

pytestmark = pytest.mark.usefixtures("isa")

CONFIG = dataclasses.replace(PRESETS["tiny"], vocab_size=100)
LAYERS = ("bert/encoder/layer_0", "bert/encoder/layer_1")
HEAD = "cls/predictions"
EVERYTHING = ("MatMul", "BatchMatMul", "BiasAdd", "Softmax")


def exempting(*patterns, operation="MatMul"):
    exceptions = tuple((pattern, operation) for pattern in patterns)
    rules = PrecisionRules(EVERYTHING, non_convertible_exceptions=exceptions)
    return PrecisionPolicy("bf16", rules)


def fused_layers(policy, config=CONFIG, **settings):
    backends = Backends(config, policy, **{"allow_fused": True} | settings)
    return {
        path
        for path in (*LAYERS, HEAD, "bert/embeddings", "bert/pooler")
        if isinstance(backends.choose_backend(path), Fused)
    }


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_every_layer_that_can_is_fused(name):
    assert fused_layers(PrecisionPolicy(name)) == {*LAYERS, HEAD}


def test_our_file_exempts_nothing():
    rules = read_rules(str(ROOT / "bf16_config" / "bert.json"))
    assert fused_layers(PrecisionPolicy("bf16", rules)) == {*LAYERS, HEAD}


@pytest.mark.parametrize(
    "pattern, exempt",
    [
        ("layer_1/", {LAYERS[1]}),
        ("layer_0/output/dense", {LAYERS[0]}),
        ("layer_10/", set()),
        ("attention/self", {*LAYERS}),
        ("query", {*LAYERS}),
        ("cls/predictions/", {HEAD}),
        ("cls/predictions/transform", set()),
        ("", {*LAYERS, HEAD}),
    ],
)
def test_an_exception_takes_only_the_layers_that_it_names(pattern, exempt):
    assert fused_layers(exempting(pattern)) == {*LAYERS, HEAD} - exempt


@pytest.mark.parametrize(
    "operation, exempt",
    [
        ("LayerNorm", {*LAYERS}),
        ("HabanaGelu", {*LAYERS}),
        ("LogSoftmax", {HEAD}),
        ("Tanh", set()),
    ],
)
def test_an_exception_of_an_operation_takes_the_layers_that_have_it(operation, exempt):
    """Lists that do not name it leave these layers fused, see `test_our_file`."""
    assert fused_layers(exempting("", operation=operation)) == {*LAYERS, HEAD} - exempt


def test_a_list_without_an_operation_exempts_all_that_has_it():
    rules = PrecisionRules(allowlist=("MatMul", "BatchMatMul"))
    assert fused_layers(PrecisionPolicy("bf16", rules)) == set()


def test_parts_of_a_layer_have_its_backend():
    backends = Backends(CONFIG, exempting("layer_0/output/dense"), allow_fused=True)
    for path in (*LAYERS, HEAD):
        backend = backends.choose_backend(path)
        assert backends.choose_backend(f"{path}/attention/self") is backend
    assert list(backends.exempt) == [LAYERS[0]]
    assert backends.exempt[LAYERS[0]] == f"{LAYERS[0]}/output/dense/MatMul"


def test_what_the_operations_lack_is_reported_and_not_used():
    relu = dataclasses.replace(CONFIG, hidden_act="relu")
    narrow = dataclasses.replace(CONFIG, num_attention_heads=8)
    for policy, config, reason in (
        (PrecisionPolicy("fp16"), CONFIG, "precision fp16"),
        (PrecisionPolicy("bf16"), relu, "hidden_act is relu"),
        (PrecisionPolicy("bf16"), narrow, "the width of a head is 16"),
    ):
        assert fused_layers(policy, config) == set()
        backends = Backends(config, policy, allow_fused=True)
        assert backends.why_not_fused.startswith(reason)
    assert fused_layers(PrecisionPolicy("bf16"), allow_fused=False) == set()


def build(policy, **settings):
    return build_pretraining_model(
        CONFIG, max_seq_length=32, policy=policy, seeded_dropout=True, **settings
    )


def test_decisions_are_those_of_the_model_whoever_computes_it():
    policies = [PrecisionPolicy("bf16"), PrecisionPolicy("bf16")]
    for policy, allow_fused in zip(policies, (True, False), strict=True):
        build(policy, allow_fused=allow_fused)
    fused, reference = (policy.decisions for policy in policies)
    assert fused == reference
    products = {each: t for each, t in fused.items() if each[0].endswith("MatMul")}
    assert set(products.values()) == {"bfloat16"}
    assert {t for each, t in fused.items() if each not in products} == {"float32"}
    # Seven of each layer, the pooler, both products of the masked-LM head.
    assert len(products) == 2 * 7 + 1 + 2
    assert ("BatchMatMul", "bert/encoder/layer_1/attention/self") in fused
    assert ("MatMul", "cls/predictions") in fused


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("pattern", ["layer_0/", "layer_1/", "cls/predictions"])
def test_a_model_with_one_exempt_layer_is_near_its_reference(
    pretraining_features, recompute, pattern
):
    """The reference computes all layers in the types that the list says."""
    features = pretraining_features(CONFIG, packed=True)
    results = []
    for allow_fused in (True, False):
        policy = exempting(pattern)
        model = build(policy, allow_fused=allow_fused, recompute=recompute)
        task = PretrainingTask(model)
        is_fused = backends_of(model).fused_dtype is not None
        assert is_fused == allow_fused
        kept = [
            name
            for (operation, name), kind in policy.decisions.items()
            if operation in EVERYTHING and kind[0] == "f"
        ]
        assert kept and all(pattern in f"{name}/" or pattern in name for name in kept)
        variables = [v.value for v in model.trainable_variables]
        with tf.GradientTape() as tape:
            losses = task.loss_sums(features, training=True)
            total = tf.reduce_sum(losses)
        gradients = tape.gradient(total, variables, unconnected_gradients="zero")
        results.append((losses, [tf.convert_to_tensor(g) for g in gradients]))
    (losses, gradients), (expected, expected_gradients) = results
    np.testing.assert_allclose(losses, expected, rtol=5e-3)
    norm = tf.linalg.global_norm(expected_gradients)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert tf.norm(one - other) < 0.03 * (tf.norm(other) + 0.03 * norm)


@pytest.mark.parametrize("pattern, count", [("layer_0/", 1), ("cls/predictions", 2)])
def test_the_other_layers_stay_fused(pretraining_features, pattern, count):
    model = build(exempting(pattern), allow_fused=True)
    task = PretrainingTask(model)
    features = pretraining_features(CONFIG, packed=False)
    graph = tf.function(lambda: task.loss_sums(features, training=True))
    kinds = [node.type for node in graph.get_concrete_function().graph.get_operations()]
    assert kinds.count("BertAttention") == count
    assert kinds.count("BertCrossEntropy") == (pattern != "cls/predictions")
