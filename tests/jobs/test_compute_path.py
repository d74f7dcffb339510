"""The best path of several workers, and the line that is printed of it."""

import types

import pytest

from bert_tf import kernels
from bert_tf.config import BertConfig
from bert_tf.jobs.compute_path import (
    ComputePath,
    best_path,
    describe_path,
    unpad_notes,
)
from bert_tf.precision import PrecisionPolicy, PrecisionRules

LEVELS = ("amx", "avx512bf16", "avx2")
NOT_BUILT = "the library is not built (run `python -m bert_tf build`)"


def worker(host, *levels, code="c", missing="", library=None, lacks=None):
    paths = [(level, code) for level in levels] + [("reference", "")]
    return {
        "host": host,
        "paths": paths,
        "lacks": {
            name: lacks or missing or f"this processor has no {kernels.TITLES[name]}"
            for name in kernels.ISA_FLAGS
            if name not in levels
        },
        "missing": missing,
        "library": library or f"/{host}/{kernels.library_name()}",
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


def test_each_reason_of_several_workers_is_said():
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
        f"/a/{kernels.library_name()} of worker 0 (a) to /b of worker 1 (b))",
    )


def test_the_library_of_more_instruction_sets_is_the_one_to_copy():
    partial = f"/home/.cache/{kernels.library_name('avx512')}"
    workers = [
        worker("a", "avx2", code="d", library=partial),
        worker("b", "avx2"),
    ]
    assert best_path(workers).reason.endswith(
        f"(copy /b/{kernels.library_name()} of worker 1 (b) to /home/.cache of worker "
        "0 (a))"
    )


def test_many_workers_are_counted():
    workers = [worker("a", "avx2")] + [worker(f"b{n}", missing="x") for n in range(9)]
    expected = "workers 1 (b0), 2 (b1), 3 (b2) and 6 others: x"
    assert best_path(workers).reason == expected


def model(*, is_fused, unpads=True, hidden_act="gelu"):
    """As much of a model as the line needs."""
    settings = types.SimpleNamespace(
        is_fused=is_fused,
        unpads=unpads,
        config=BertConfig(hidden_act=hidden_act),
    )
    return types.SimpleNamespace(
        get_layer=lambda name: types.SimpleNamespace(settings=settings)
    )


BF16, VECTORS = PrecisionPolicy("bf16"), ComputePath("avx512bf16")


def test_used_operations_are_named():
    line = describe_path(model(is_fused=True), BF16, VECTORS)
    assert line == "fused operations: AVX512-BF16."


def test_a_path_below_the_best_is_explained():
    path = ComputePath("avx512bf16", "worker 1 (b): it has no AMX")
    line = describe_path(model(is_fused=True), BF16, path)
    reason = "worker 1 (b): it has no AMX"
    assert line == f"fused operations: AVX512-BF16, not better: {reason}."


def test_a_missing_library_is_said_in_every_precision():
    for name in ("fp32", "bf16"):
        policy, path = PrecisionPolicy(name), ComputePath(kernels.REFERENCE, NOT_BUILT)
        line = describe_path(model(is_fused=False), policy, path)
        assert line == f"fused operations: not used, {NOT_BUILT}."


def test_the_reason_of_a_model_without_them_is_said():
    def reason(policy=BF16, *, use_xla=False, **settings):
        line = describe_path(
            model(is_fused=False, **settings), policy, VECTORS, use_xla=use_xla
        )
        start = "fused operations: not used but by the optimizer (AVX512-BF16), "
        assert line.startswith(start)
        return line.removeprefix(start).removesuffix(".")

    assert reason(use_xla=True) == "--use_xla"
    assert reason(PrecisionPolicy("fp16")) == "precision fp16"
    assert reason(hidden_act="relu").startswith("hidden_act is relu")
    rules = PrecisionRules(
        allowlist=("MatMul", "BatchMatMul", "BiasAdd", "Softmax"),
        non_convertible_exceptions=(("layer_7/output/dense", "MatMul"),),
    )
    assert reason(PrecisionPolicy("bf16", rules)) == (
        "the bf16 config exempts bert/encoder/layer_7/output/dense/MatMul"
    )


def test_widths_that_do_not_fit_are_said():
    config = BertConfig(hidden_size=768, num_attention_heads=48)
    settings = types.SimpleNamespace(is_fused=False, config=config)
    narrow = types.SimpleNamespace(
        get_layer=lambda name: types.SimpleNamespace(settings=settings)
    )
    assert "the width of a head is 16" in describe_path(narrow, BF16, VECTORS)


def test_padding_that_only_the_fused_operations_leave_out_is_said():
    [line] = unpad_notes(model(is_fused=False))
    assert line == (
        "--unpad has no effect: padding is computed where operations are not fused."
    )
    assert not unpad_notes(model(is_fused=True))
    assert not unpad_notes(model(is_fused=False, unpads=False))
