"""The best path of several workers, and the line that is printed of it."""

import dataclasses

import pytest
import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.config import PRESETS
from bert_tf.jobs.run.compute_path import (
    ComputePath,
    best_path,
    describe_path,
    unpad_notes,
    xla_notes,
)
from bert_tf.modeling.backends.choice import Backends
from bert_tf.precision import PrecisionPolicy, PrecisionRules

LEVELS = ("amx", "avx512bf16", "avx2")
BF16, VECTORS = PrecisionPolicy("bf16"), ComputePath("avx512bf16")
NOT_BUILT = "the library is not built (run `python -m bert_tf build`)"


def worker(host, *levels, code="c", missing="", library=None, lacks=None):
    paths = [(level, code) for level in levels] + [("reference", "")]
    return {
        "host": host,
        "paths": paths,
        "lacks": {
            name: lacks or missing or f"this processor has no {fused_ops.TITLES[name]}"
            for name in fused_ops.ISA_FLAGS
            if name not in levels
        },
        "missing": missing,
        "library": library or f"/{host}/{fused_ops.library_name()}",
    }


def test_equal_workers_take_their_best():
    workers = [worker("a", *LEVELS), worker("b", *LEVELS)]
    assert best_path(workers) == ComputePath("amx")


@pytest.mark.parametrize("order", [1, -1])
def test_the_best_that_all_have_is_taken_and_who_lacks_more_is_named(order):
    workers = [worker("a", *LEVELS), worker("b", *LEVELS[1:])][::order]
    number = 1 if order == 1 else 0
    reason = f"worker {number} (b): this processor has no AMX"
    assert best_path(workers) == ComputePath("avx512bf16", reason)


def test_a_worker_that_another_variable_holds_back_is_named():
    workers = [worker("a", *LEVELS), worker("b", "avx2", lacks="BERT_TF_ISA=avx2")]
    assert best_path(workers) == ComputePath("avx2", "worker 1 (b): BERT_TF_ISA=avx2")


def test_each_reason_of_several_workers_is_logged():
    asked = "BERT_TF_ISA=amx, but this processor has no AMX"
    workers = [
        worker("a", *LEVELS[1:], missing=asked),
        *(worker(host, "avx2", lacks="it is old") for host in "bc"),
    ]
    expected = f"worker 0 (a): {asked}; workers 1 (b) and 2 (c): it is old"
    assert best_path(workers) == ComputePath("avx2", expected)


@pytest.mark.parametrize("order", [1, -1])
def test_a_worker_without_the_library_and_its_reason_are_named(order):
    workers = [worker("a", *LEVELS), worker("b", missing=NOT_BUILT)][::order]
    number = 1 if order == 1 else 0
    assert best_path(workers) == ComputePath(
        "reference", f"worker {number} (b): {NOT_BUILT}"
    )


def test_one_worker_alone_says_its_reason_alone():
    workers = [worker("a", missing=NOT_BUILT)] * 2
    assert best_path(workers) == ComputePath("reference", NOT_BUILT)
    assert best_path(workers[:1]) == ComputePath("reference", NOT_BUILT)


def test_libraries_of_one_name_and_other_code_are_not_used_together():
    """Also where one of the processors has more."""
    workers = [worker("a", *LEVELS), worker("b", "avx2", code="d"), worker("c", "avx2")]
    assert best_path(workers) == ComputePath(
        "reference",
        "the libraries of workers 0 (a) and 1 (b) are not the same file (copy "
        f"/a/{fused_ops.library_name()} of worker 0 (a) to /b of worker 1 (b))",
    )


def test_the_library_of_more_instruction_sets_is_the_one_to_copy():
    partial = f"/home/.cache/{fused_ops.library_name('avx512')}"
    workers = [
        worker("a", "avx2", code="d", library=partial),
        worker("b", "avx2"),
    ]
    assert best_path(workers).reason.endswith(
        f"(copy /b/{fused_ops.library_name()} of worker 1 (b) "
        "to /home/.cache of worker 0 (a))"
    )


def test_many_workers_are_counted():
    workers = [worker("a", "avx2")] + [worker(f"b{n}", missing="x") for n in range(9)]
    expected = "workers 1 (b0), 2 (b1), 3 (b2) and 6 others: x"
    assert best_path(workers).reason == expected


def backends(policy=BF16, *, allow_fused=True, unpads=True, **settings):
    """Of a model of two layers, after each has chosen."""
    config = dataclasses.replace(
        PRESETS["tiny"], **{"hidden_size": 64, "num_hidden_layers": 2} | settings
    )
    found = Backends(config, policy, allow_fused=allow_fused, unpads=unpads)
    for path in ("bert/encoder/layer_0", "bert/encoder/layer_1", "cls/predictions"):
        found.choose_backend(path)
    return found


@pytest.mark.usefixtures("isa")
def test_used_operations_are_named():
    assert describe_path(backends(), VECTORS) == "fused operations: AVX512-BF16."


def test_gradients_of_tensorflow_are_named(isa):
    text = "gradients of large kernels by TensorFlow, which is faster here"
    for policy, size, takes in (
        (BF16, 512, isa in ("avx512", "avx2")),
        (BF16, 128, isa == "avx2"),
        (BF16, 64, False),
        (PrecisionPolicy("fp32"), 512, False),
    ):
        line = describe_path(backends(policy, hidden_size=size), ComputePath(isa, ""))
        assert (text in line) == takes


@pytest.mark.usefixtures("isa")
def test_a_path_below_the_best_is_explained():
    path = ComputePath("avx512bf16", "worker 1 (b): no AMX")
    line = describe_path(backends(), path)
    assert line == "fused operations: AVX512-BF16, not better: worker 1 (b): no AMX."


def test_a_missing_library_is_logged_in_every_precision():
    for name in ("fp32", "bf16"):
        path = ComputePath(fused_ops.REFERENCE, NOT_BUILT)
        line = describe_path(backends(PrecisionPolicy(name)), path)
        assert line == f"fused operations: not used, {NOT_BUILT}."


def test_a_run_on_a_gpu_names_what_takes_less_memory(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    path = ComputePath(fused_ops.REFERENCE, "no AVX2")
    plain = describe_path(backends(), path)
    assert "--use_xla takes less memory" in plain
    assert "--use_xla" not in describe_path(backends(), path, use_xla=True)


def exempting(pattern):
    rules = PrecisionRules(
        allowlist=("MatMul", "BatchMatMul", "BiasAdd", "Softmax"),
        non_convertible_exceptions=((pattern, "MatMul"),),
    )
    return PrecisionPolicy("bf16", rules)


@pytest.mark.usefixtures("isa")
def test_the_reason_of_a_model_without_them_is_logged():
    def reason(policy=BF16, *, use_xla=False, **settings):
        found = backends(policy, allow_fused=not use_xla, **settings)
        line = describe_path(found, VECTORS, use_xla=use_xla)
        start = "fused operations: used by the optimizer alone (AVX512-BF16), "
        assert line.startswith(start)
        return line.removeprefix(start).removesuffix(".")

    assert reason(use_xla=True) == "--use_xla"
    assert reason(PrecisionPolicy("fp16")) == "precision fp16"
    assert reason(hidden_act="relu").startswith("hidden_act is relu")
    assert "the width of a head is 16" in reason(num_attention_heads=4)
    assert reason(exempting("")) == (
        "the bf16 config exempts bert/encoder/layer_0/attention/self/MatMul"
    )


@pytest.mark.usefixtures("isa")
def test_the_layers_that_a_list_exempts_are_named():
    line = describe_path(backends(exempting("layer_1/output/dense")), VECTORS)
    assert line == (
        "fused operations: AVX512-BF16, not used in bert/encoder/layer_1: the bf16 "
        "config exempts bert/encoder/layer_1/output/dense/MatMul."
    )


def test_layers_with_float32_activations_under_xla_are_named():
    assert xla_notes(backends(allow_fused=False)) == []
    [line] = xla_notes(backends(exempting("layer_1/output/dense"), allow_fused=False))
    assert line == (
        "--use_xla: activations are float32 in bert/encoder/layer_1: the bf16 config "
        "exempts bert/encoder/layer_1/output/dense/MatMul."
    )


def test_padding_that_only_the_fused_operations_leave_out_is_reported():
    [line] = unpad_notes(backends(allow_fused=False))
    assert line == (
        "--unpad has no effect: padding is computed where operations are not fused."
    )


@pytest.mark.usefixtures("isa")
def test_padding_that_is_left_out_is_not_worth_a_line():
    assert not unpad_notes(backends())
    assert not unpad_notes(backends(allow_fused=False, unpads=False))
