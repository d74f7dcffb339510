"""What a step with --use_xla is made of: TensorFlow's graph, and the code of XLA.

XLA's code is that for a CPU, before and after its optimizations.
"""

import collections
import dataclasses
import math
import re
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from bert_tf import fused_ops
from bert_tf.distribute import Communicator
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import PrecisionPolicy, PrecisionRules, read_rules
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.optimizers import build_optimizer
from bert_tf.training.trainer import Trainer

# Sizes whose products tell tensors apart.
B, S, P, H, N = 6, 32, 5, 60, 3
BF16 = PrecisionPolicy("bf16")


@pytest.fixture(autouse=True, scope="module")
def reference():
    """TensorFlow's operations alone, as on a GPU."""
    fused_ops.limit(fused_ops.REFERENCE)
    yield
    fused_ops.limit("")


def make_trainer(config, *, layers=1, use_xla=True, policy=BF16):
    config = dataclasses.replace(
        config,
        num_hidden_layers=layers,
        hidden_size=H,
        num_attention_heads=N,
        intermediate_size=4 * H,
        max_position_embeddings=S,
    )
    model = build_pretraining_model(
        config,
        max_seq_length=S,
        seed=1,
        seeded_dropout=True,
        policy=policy,
    )
    return Trainer(
        *(PretrainingTask(model), build_optimizer("lamb", 0.01), Communicator()),
        GradientSettings(seed=5, use_xla=use_xla),
    )


def make_batch():
    rng = np.random.default_rng(0)
    widths = {"masked_lm_positions": P, "masked_lm_ids": P, "input_ids": S}
    batch = {
        name: rng.integers(1, 30, (1, B, width), np.int32)
        for name, width in widths.items()
    }
    batch["input_mask"] = np.ones((1, B, S), np.int32)
    batch["segment_ids"] = np.zeros((1, B, S), np.int32)
    batch["positions"] = np.tile(np.arange(S, dtype=np.int32), (1, B, 1))
    batch["masked_lm_weights"] = np.ones((1, B, P), np.float32)
    for name in ("next_sentence_positions", "next_sentence_labels"):
        batch[name] = np.zeros((1, B, 1), np.int32)
    batch["next_sentence_weights"] = np.ones((1, B, 1), np.float32)
    return {name: tf.constant(array) for name, array in batch.items()}


def graph_of(trainer):
    return trainer._graph.get_concrete_function(make_batch())


def launched(graph):
    """What TensorFlow launches in a step; what XLA compiles is one operation.

    Arguments and constants are none.
    """
    definition = graph.as_graph_def()
    functions = {f.signature.name: f for f in definition.library.function}

    def count(nodes):
        found = collections.Counter()
        for node in nodes:
            names = [value.func.name for value in node.attr.values()]
            inner = [functions[name] for name in names if name in functions]
            compiled = [f for f in inner if f.attr["_XlaMustCompile"].b]
            if compiled:
                found["compiled"] += 1
            elif not inner and node.op not in ("Placeholder", "Const"):
                found[node.op] += 1
            else:
                found += sum((count(f.node_def) for f in inner), collections.Counter())
        return found

    return count(definition.node)


def test_more_layers_do_not_make_more_operations(tiny_config):
    one, three = (
        launched(graph_of(make_trainer(tiny_config, layers=layers)).graph)
        for layers in (1, 3)
    )
    assert one == three
    # The micro-batch, the norm and the update.
    assert one["compiled"] == 3


def test_one_vector_is_read_after_a_step(tiny_config):
    [results] = graph_of(make_trainer(tiny_config)).outputs
    # Two losses, norm, workers that left and that are to stop, whether it is saved.
    assert results.shape == [6]


class Instruction(NamedTuple):
    """A line of XLA's code.

    Attributes:
      dtype: Of the numbers of its result; empty if that is a tuple.
      shape: Of its result.
      opcode: What it does.
      operands: The names of what it reads.
    """

    dtype: str
    shape: tuple[int, ...]
    opcode: str
    operands: list[str]


def parse(program):
    """Name -> instruction of a program: what it stores, not the inside of fusions."""
    found = {}
    for line in program.partition("\nENTRY ")[2].splitlines():
        result = r"(?:\(.*?\)|(\w+)\[([\d,]*)\]\S*)"
        operands = r"\((.*?)\)(?:, \w+=|$)"
        pattern = rf"\s+(?:ROOT )?%(\S+) = {result} ([\w-]+){operands}"
        if match := re.match(pattern, line):
            name, dtype, shape, opcode, operands = match.groups(default="")
            shape = tuple(int(size) for size in shape.split(",") if size)
            operands = re.findall(r"%([\w.-]+)", operands)
            found[name] = Instruction(dtype, shape, opcode, operands)
    return found


def compiled(trainer):
    """A micro-batch by XLA: a function of the stage of its compilation."""
    gradients = trainer._gradients
    features = {name: array[0] for name, array in make_batch().items()}
    features["dropout_seed"] = tf.zeros([B, 3], tf.int32)
    with gradients._step:
        code = gradients._compute.experimental_get_compiler_ir(features, tf.ones([2]))
    return lambda stage: parse(code(stage=stage))


@pytest.fixture(scope="module")
def programs(tiny_config):
    """A micro-batch by XLA: as TensorFlow hands it over, and as it runs."""
    program = compiled(make_trainer(tiny_config))
    return {stage: program(stage) for stage in ("hlo", "optimized_hlo")}


def test_products_read_bfloat16_but_those_of_two_columns(programs):
    program = programs["hlo"]
    products = [each for each in program.values() if each.opcode == "dot"]
    sides = [[program[name] for name in each.operands] for each in products]
    wide = [pair for pair in sides if all(2 not in side.shape for side in pair)]
    # Forward, and two gradients each: six kernels of the layer, scores, context, the
    # pooler, and transform and logits of the masked tokens.
    assert len(wide) == 3 * 11
    assert {side.dtype for pair in wide for side in pair} == {"bf16"}
    # The sums of kernels' gradients are float32.
    of_kernels = [x for x in products if x.shape in ((H, H), (H, 4 * H), (4 * H, H))]
    assert {x.dtype for x in of_kernels} == {"f32"}


def masks(program):
    """Names of what is as large as the scores, and no function of a product.

    The random bytes of dropout are no mask yet: a quarter of one.
    """
    of_products = set()
    for name, each in program.items():
        if each.opcode == "dot" or not of_products.isdisjoint(each.operands):
            of_products.add(name)
    return [
        name
        for name, each in program.items()
        if math.prod(each.shape) in (B * S * S, B * N * S * S)
        and each.dtype != "u8"
        and name not in of_products
    ]


def test_no_mask_of_the_scores_is_stored(programs):
    assert masks(programs["hlo"])
    assert masks(programs["optimized_hlo"]) == []


def above(program, name):
    """The names of an instruction, and of all that it is a function of."""
    found, left = set(), [name]
    while left:
        name = left.pop()
        if name in program and name not in found:
            found.add(name)
            left += program[name].operands
    return found


def kept(program):
    """What the backward pass reads of the forward pass, but for kernels: their sizes.

    Of numbers of each type that are as many as hidden states, or more. That XLA may
    make any of these again instead is not seen.
    """
    [*_, end] = program
    losses = program[end].operands[-1]
    assert program[losses].shape == (2,)
    forward, everything = (above(program, name) for name in (losses, end))
    moved = ("reshape", "transpose", "tuple", "get-tuple-element", "opt-barrier")

    def sources(name):
        each = program[name]
        if each.opcode not in moved:
            return {name}
        return set().union(*map(sources, each.operands))

    backward = [program[name] for name in everything - forward]
    read = [name for each in backward for name in each.operands if name in forward]
    found = collections.Counter()
    for name in set().union(*map(sources, read)):
        each = program[name]
        size = math.prod(each.shape)
        if size >= B * S * H and each.shape not in ((H, 4 * H), (4 * H, H)):
            found[each.dtype, size] += 1
    return found


def of_a_layer(config, **settings):
    """`kept` of a layer of the encoder."""
    one, two = (
        kept(compiled(make_trainer(config, layers=layers, **settings))("hlo"))
        for layers in (1, 2)
    )
    return two - one


STATES, SCORES = B * S * H, B * N * S * S
LIST = read_rules(str(ROOT / "bf16_config" / "bert.json"))


def test_a_layer_keeps_bfloat16_alone(tiny_config):
    found = of_a_layer(tiny_config)
    assert set(found) == {("bf16", size) for size in (STATES, SCORES, 4 * STATES)}
    # Scores and probabilities; product and result of the activation.
    assert found["bf16", SCORES] == found["bf16", 4 * STATES] == 2
    # Queries, keys, values, context; product and result of both blocks.
    assert found["bf16", STATES] == 8


def test_gradients_between_blocks_are_bfloat16(tiny_config):
    program = compiled(make_trainer(tiny_config, layers=2))("hlo")
    types = [
        each.dtype
        for each in program.values()
        if each.opcode == "opt-barrier" and each.shape == (B, S, H)
    ]
    # The results of both blocks of each layer, and their gradients.
    assert types == ["bf16"] * 8


def exempting(pattern, kind):
    allowed = (*LIST.allowlist, "Tanh")
    return PrecisionRules(allowed, non_convertible_exceptions=((pattern, kind),))


@pytest.mark.parametrize(
    ("rules", "types"),
    [
        (LIST, {"bf16"}),
        (exempting("layer_0/", ""), {"bf16"}),
        (exempting("layer_1/output/dense", "MatMul"), {"bf16", "f32"}),
        (exempting("layer_1/", "LayerNorm"), {"bf16", "f32"}),
        (PrecisionRules(("MatMul", "BatchMatMul")), {"bf16", "f32"}),
    ],
)
def test_a_list_decides_about_each_layer_as_about_fused_ones(tiny_config, rules, types):
    found = of_a_layer(tiny_config, policy=PrecisionPolicy("bf16", rules))
    assert {kind for kind, _ in found} == types


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_other_precisions_keep_float32(tiny_config, name):
    found = of_a_layer(tiny_config, policy=PrecisionPolicy(name))
    assert found["f32", STATES] >= 6
    assert {kind for kind, _ in found} <= {"f32", "f16"}
