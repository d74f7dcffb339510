"""The laws of training on each compute path, at widths that the library takes.

1 worker = micro-batches = 2 workers: a row of a product does not depend on the rows
beside it, and gradients of weights are float32 sums, so that only the order of these
sums differs: by less than 1e-6 of a tensor's norm. In bfloat16 a weight that lies
between two of its numbers may then be rounded to the one or the other, after which
losses differ by 1e-6 to 1e-4; at the learning rate here no weight moves so far in 20
steps that one of them does.
"""

import json
import types

import numpy as np
import pytest
from conftest import (
    INSTRUCTION_SETS,
    WIDE,
    make_example,
    require_isa,
    write_records,
)
from integration.launching import run_workers
from integration.worker import train_and_evaluate
from runs import assert_same_bytes, pretraining_flags

from bert_tf import fused_ops
from bert_tf.distribute import Communicator
from bert_tf.jobs.run.compute_path import ComputePath

pytestmark = [pytest.mark.slow, pytest.mark.horovod]
PATHS = [*INSTRUCTION_SETS, fused_ops.REFERENCE]
LEARNING_RATES = {"bf16": 1e-4, "fp32": 5e-3}
S, V = 48, 100


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An architecture with dropout, and records of 8 to 48 tokens."""
    folder = tmp_path_factory.mktemp("data")
    sizes = {"vocab_size": V, "max_position_embeddings": S}
    (folder / "config.json").write_text(json.dumps(WIDE | sizes))
    (folder / "records").mkdir()
    rng = np.random.default_rng(7)
    write_records(
        folder / "records" / "part-0",
        [make_example(rng, vocab_size=V, max_seq_length=S) for _ in range(90)],
    )
    return folder


@pytest.fixture(scope="module", params=PATHS)
def runs(request, data, tmp_path_factory):
    """All that is compared of one path.

    On two workers, in one launch: never stopped; stopped and resumed. On one: all rows
    of a step at once, and in two micro-batches.
    """
    name = request.param
    require_isa(name)
    folder = tmp_path_factory.mktemp(name)

    def command(output_dir, precision, batch, accumulation, *more):
        output_dir = folder / f"{output_dir}-{precision}"
        return pretraining_flags(
            *(data / "config.json", data / "records", output_dir),
            f"--precision={precision}",
            f"--learning_rate={LEARNING_RATES[precision]}",
            *("--noscale_learning_rate", *more),
            batch=batch,
            accumulation=accumulation,
            steps=20,
        )

    of_two = {}
    for precision in LEARNING_RATES:
        whole = command("two", precision, 4, 2, "--save_checkpoints_steps=11")
        stopped = f"--init_checkpoint={folder}/two-{precision}/model.ckpt-11"
        resumed = command("resumed", precision, 4, 2, stopped, "--resume")
        of_two |= {f"two-{precision}": whole, f"resumed-{precision}": resumed}
    program = ["-np", "2", "-x", f"{fused_ops.ENVIRONMENT_VARIABLE}={name}"]
    ranks = run_workers("worker.py", of_two, folder, program)
    fused_ops.limit(name)
    try:
        of_one = {
            f"{batch}x{count}-{precision}": train_and_evaluate(
                command(f"{batch}x{count}", precision, batch, count),
                Communicator(),
                ComputePath(name),
            )
            for precision in LEARNING_RATES
            for batch, count in ((16, 1), (8, 2))
        }
    finally:
        fused_ops.limit("")
    return types.SimpleNamespace(name=name, folder=folder, ranks=ranks, of_one=of_one)


def test_every_run_computes_by_that_path(runs):
    lines = {str(state["result path"]) for state in runs.of_one.values()}
    lines |= {str(s["result path"]) for ranks in runs.ranks.values() for s in ranks}
    if runs.name == fused_ops.REFERENCE:
        assert all("not used" in line for line in lines)
    else:
        start = f"fused operations: {fused_ops.TITLES[runs.name]}"
        ends = (".", f", not better: BERT_TF_ISA={runs.name}.")
        assert lines <= {start + end for end in ends}


@pytest.mark.parametrize("precision", LEARNING_RATES)
def test_workers_end_with_the_same_bytes(runs, precision):
    for run in ("two", "resumed"):
        assert_same_bytes(*runs.ranks[f"{run}-{precision}"])


@pytest.mark.parametrize("precision", LEARNING_RATES)
def test_stopped_and_resumed_is_never_stopped(runs, precision):
    files = [
        runs.folder / f"{run}-{precision}" / "model.ckpt-20.data-00000-of-00001"
        for run in ("two", "resumed")
    ]
    assert len(runs.ranks[f"resumed-{precision}"][0]["losses"]) == 9
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("precision", LEARNING_RATES)
def test_micro_batches_and_workers_are_one_large_batch(runs, precision):
    one = runs.of_one[f"16x1-{precision}"]
    for other in (runs.of_one[f"8x2-{precision}"], runs.ranks[f"two-{precision}"][0]):
        assert len(other["losses"]) == 20
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-5)
        names = [name for name in one if name.startswith("gradient")]
        assert len(names) > 40
        for name in names:
            # A moment is a tenth of the gradient. That of a key bias is rounding alone:
            # it does not change the softmax.
            limit = max(1e-5 * np.linalg.norm(one[name]), 1e-8)
            assert np.linalg.norm(other[name] - one[name]) <= limit, name
