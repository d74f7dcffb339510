"""The estimate of a training's memory, and its warnings."""

import dataclasses

import pytest

from bert_tf import resources
from bert_tf.config import PRESETS
from bert_tf.errors import RunError
from bert_tf.jobs.run import memory
from bert_tf.jobs.run.memory import ERROR, Rows, estimate_training, num_weights
from bert_tf.modeling.backends.choice import Backends
from bert_tf.precision import PrecisionPolicy, PrecisionRules

GIB, MB, MIB = 2**30, 10**6, 2**20
FUSED, FP32 = {"fused_bytes": 2}, {"fused_bytes": 4}


@pytest.mark.parametrize(
    "preset, published", [("base", 109_482_240), ("large", 335_141_888)]
)
def test_the_number_of_weights_is_the_published_one(preset, published):
    assert num_weights(PRESETS[preset]) == published


# Peaks of processes that took steps of two micro-batches (of base: of docs/
# performance.md), as VmHWM of /proc/self/status has them; of tiny and small with the
# fused operations RssAnon and 190 MiB of library files, where a newer Linux shows 430.
@pytest.mark.parametrize(
    "preset, rows, settings, peak",
    [
        ("base", Rows(32, 128, 20), FUSED, 4030 * MB),
        ("base", Rows(64, 128, 20), FUSED, 5524 * MB),
        ("base", Rows(32, 128, 20), FUSED | {"recompute": True}, 3051 * MB),
        ("base", Rows(64, 128, 20), FUSED | {"recompute": True}, 3331 * MB),
        ("tiny", Rows(8, 512, 77), {}, 927 * MIB),
        ("mini", Rows(8, 128, 20), {}, 1032 * MIB),
        ("mini", Rows(32, 128, 20), {}, 1570 * MIB),
        ("mini", Rows(8, 512, 77), {}, 1843 * MIB),
        ("mini", Rows(32, 128, 20), {"recompute": True}, 1099 * MIB),
        ("mini", Rows(8, 512, 77), {"recompute": True}, 1148 * MIB),
        ("small", Rows(8, 128, 20), {}, 1531 * MIB),
        ("tiny", Rows(8, 128, 20), FP32, 749 * MIB),
        ("tiny", Rows(32, 128, 20), FP32, 983 * MIB),
        ("tiny", Rows(8, 512, 77), FP32, 942 * MIB),
        ("tiny", Rows(32, 128, 20), FP32 | {"recompute": True}, 937 * MIB),
        ("tiny", Rows(8, 512, 77), FP32 | {"recompute": True}, 957 * MIB),
        ("small", Rows(8, 128, 20), FP32, 1408 * MIB),
        ("small", Rows(32, 128, 20), FP32, 2029 * MIB),
        ("small", Rows(8, 512, 77), FP32, 1938 * MIB),
        ("small", Rows(32, 128, 20), FP32 | {"recompute": True}, 1563 * MIB),
        ("small", Rows(8, 512, 77), FP32 | {"recompute": True}, 1549 * MIB),
        ("tiny", Rows(8, 512, 77), FUSED, 818 * MIB),
        ("small", Rows(32, 128, 20), FUSED, 1653 * MIB),
        ("small", Rows(8, 512, 77), FUSED, 1638 * MIB),
    ],
)
def test_the_estimate_is_within_its_error_of_what_was_measured(
    preset, rows, settings, peak
):
    estimate = estimate_training(PRESETS[preset], rows, **settings)
    assert abs(estimate.total / peak - 1) < ERROR


@pytest.fixture
def machine(monkeypatch):
    """Gives this machine a size, and maybe a container's limit."""

    def make(total, limit=None, free=None, own=0):
        monkeypatch.setattr(resources, "memory_limit", lambda: limit)
        monkeypatch.setattr(resources, "memory_total", lambda: limit or total)
        monkeypatch.setattr(resources, "memory_free", lambda: free)
        monkeypatch.setattr(resources, "own_memory", lambda: own)

    return make


def test_a_model_whose_weights_cannot_fit_is_refused_before_it_is_made(machine):
    """Of large, 335 million weights: 3.7 GiB with both moments."""
    machine(64 * GIB, limit=4 * GIB)
    memory.require_memory(PRESETS["large"], 1)
    with pytest.raises(RunError) as caught:
        memory.require_memory(PRESETS["large"], 2)
    message = str(caught.value)
    assert "335,141,888 weights take 3.7 GiB for each worker" in message
    assert "there are 4.0 GiB for 2 workers (the container's limit)" in message


def test_where_nothing_is_known_nothing_is_refused(machine):
    machine(None)
    memory.require_memory(PRESETS["large"], 99)


def warnings(rows, num_workers=1, *, exempt=(), recompute=False):
    """Of a training of BERT-base with the fused operations in bfloat16."""
    rows = Rows(rows, 128, 20)
    estimate = estimate_training(
        *(PRESETS["base"], rows),
        fused_bytes=2,
        exempt=exempt,
        recompute=recompute,
        num_workers=num_workers,
        saves=True,
    )
    return memory.memory_warnings(estimate, rows, num_workers, recompute=recompute)


def test_what_fits_is_not_warned_of(machine):
    machine(64 * GIB, limit=6 * GIB, free=64 * GIB)
    assert warnings(32) == []


def test_too_large_a_micro_batch_is_warned_of_with_what_to_do(machine):
    machine(64 * GIB, limit=4 * GIB, free=64 * GIB)
    [line] = warnings(64)
    assert line.startswith("warning: a worker needs about 6.7 GiB to train")
    assert "64 rows of 128 tokens" in line
    assert "there are 4.0 GiB for each of 1 worker (the container's limit)" in line
    assert line.endswith("more --num_accumulation_steps, or --recompute.")


def test_what_can_never_fit_is_refused(machine):
    machine(64 * GIB, limit=4 * GIB, free=64 * GIB)
    with pytest.raises(RunError, match="A worker needs about .* Pass a smaller --tr"):
        warnings(640)


def test_the_advice_makes_it_fit(machine):
    machine(64 * GIB, limit=5 * GIB, free=64 * GIB)
    assert warnings(64, recompute=True) == []
    assert warnings(8) == []


def test_the_worker_that_saves_needs_a_copy_of_weights_and_both_moments():
    base, rows = PRESETS["base"], Rows(32, 128, 20)
    plain, saving = (estimate_training(base, rows, saves=x) for x in (False, True))
    assert saving.total - plain.total == 3 * 4 * 109_482_240


def test_shards_of_four_workers_leave_out_three_quarters_of_both_moments():
    base, rows = PRESETS["base"], Rows(32, 128, 20)
    plain, sharded = (
        estimate_training(base, rows, num_workers=4, shards_optimizer=x)
        for x in (False, True)
    )
    assert plain.total - sharded.total == 0.75 * 2 * 4 * 109_482_240


def test_the_workers_of_a_host_share_its_memory(machine):
    machine(9 * GIB, free=8 * GIB)
    assert warnings(32) == []
    [line] = warnings(32, 2)
    assert "there are 4.0 GiB for each of 2 workers (this machine's memory)" in line


def test_memory_that_other_programs_have_does_not_count(machine):
    machine(64 * GIB, free=2 * GIB, own=1 * GIB)
    [line] = warnings(32)
    assert "there are 3.0 GiB for each of 1" in line


def test_a_layer_that_a_precision_list_exempts_needs_what_the_reference_needs(machine):
    """A layer of base keeps 18 x 768 + 5 x 3072 = 29,184 bytes for each token if fused,
    and 54 x 768 + 14 x 3072 + 12 x 12 x 128 = 102,912 if not."""
    exceptions = (("layer_3/", "MatMul"), ("cls/predictions/", "MatMul"))
    types = ("MatMul", "BatchMatMul", "BiasAdd", "Softmax")
    rules = PrecisionRules(types, non_convertible_exceptions=exceptions)
    rows, base = Rows(32, 128, 20), PRESETS["base"]
    mixed = Backends(base, PrecisionPolicy("bf16", rules), allow_fused=True)
    layers = [f"bert/encoder/layer_{number}" for number in range(12)]
    for path in (*layers, "cls/predictions"):
        mixed.choose_backend(path)
    assert [*mixed.exempt] == [layers[3], "cls/predictions"]
    fused, partly, reference = (
        estimate_training(base, rows, **settings).activations
        for settings in (FUSED, FUSED | {"exempt": mixed.exempt}, {})
    )
    logits = 32 * 20 * 30522 * 4
    assert partly - fused == 32 * 128 * (102_912 - 29_184) + logits
    assert fused < partly < reference
    machine(64 * GIB, limit=5600 * MIB)
    assert warnings(32) == []
    [line] = warnings(32, exempt=mixed.exempt)
    assert "a worker needs about" in line


def test_each_part_of_the_architecture_counts():
    base, rows = PRESETS["base"], Rows(8, 128, 20)
    found = [estimate_training(base, rows).total]
    for name in ("num_hidden_layers", "intermediate_size", "vocab_size"):
        larger = dataclasses.replace(base, **{name: 2 * getattr(base, name)})
        found.append(estimate_training(larger, rows).total)
    assert min(found) == found[0] and len({*found}) == len(found)
