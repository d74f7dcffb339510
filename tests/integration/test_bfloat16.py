"""The invariants of training in 16 bits, to rounding."""

import json

import numpy as np
import pytest
import runs
from conftest import WIDE
from integration.launching import ROOT, mpirun, run_python
from runs import checkpoint_bytes, logged_values, pretraining_flags, read_tensors

pytestmark = pytest.mark.slow
SCRIPT = ROOT / "run_pretraining.py"


@pytest.fixture
def command(tiny_records, tmp_path):
    """Makes a command line of 6 steps of 16 records, with dropout."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(WIDE))

    def make(output_dir, *more, batch=4, accumulation=4, precision="bf16"):
        return pretraining_flags(
            *(config, tiny_records, output_dir),
            *("--learning_rate=0.005", "--noscale_learning_rate"),
            *(f"--precision={precision}", *more),
            batch=batch,
            accumulation=accumulation,
            steps=6,
        )

    return make


def run(arguments):
    return runs.run("pretraining", *arguments)


def weights(folder):
    """All weights and moments as one vector."""
    tensors = read_tensors(folder / "model.ckpt-6")
    names = sorted(n for n, x in tensors.items() if x.dtype == np.float32)
    return np.concatenate([tensors[name].ravel() for name in names])


def loss_scales(folder):
    return [scale for _, scale in logged_values(folder, "loss_scaler")]


BY = pytest.mark.parametrize("by", [(), ("--use_xla",)], ids=["CPU", "XLA"])


@BY
def test_stopped_and_resumed_is_never_stopped(command, tmp_path, by):
    run(command(tmp_path / "whole", *by))
    run(command(tmp_path / "parts", "--steps_this_run=2", *by))
    run(command(tmp_path / "parts", *by))
    parts, whole = (checkpoint_bytes(tmp_path / n, 6) for n in ("parts", "whole"))
    assert parts == whole


@BY
def test_micro_batches_of_any_size(command, tmp_path, by):
    run(command(tmp_path / "4x4", *by))
    run(command(tmp_path / "1x16", *by, batch=16, accumulation=1))
    several, one = weights(tmp_path / "4x4"), weights(tmp_path / "1x16")
    assert np.linalg.norm(several - one) < 1e-3 * np.linalg.norm(one)


@pytest.mark.parametrize(
    ("precision", "by"), [("bf16", ()), ("fp32", ()), ("bf16", ("--use_xla",))]
)
def test_activations_made_again_are_the_same(command, tmp_path, precision, by):
    run(command(tmp_path / "kept", *by, precision=precision))
    run(command(tmp_path / "again", "--recompute", *by, precision=precision))
    kept, again = weights(tmp_path / "kept"), weights(tmp_path / "again")
    np.testing.assert_allclose(again, kept, rtol=1e-4, atol=1e-6)


@pytest.mark.horovod
@BY
def test_two_workers(command, tmp_path, by):
    run(command(tmp_path / "one", *by))
    flags = command(tmp_path / "two", "--horovod", *by, accumulation=2)
    result = mpirun(2, SCRIPT, *flags)
    assert result.returncode == 0, result.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert np.linalg.norm(two - one) < 1e-3 * np.linalg.norm(one)


def test_profile(command, tmp_path, capsys):
    run(command(tmp_path / "run", "--profile=2,3"))
    output = capsys.readouterr().out
    assert "Trace of steps 2 to 3" in output
    table = output.split("operation\n")[1].splitlines()
    # Of two steps, each operation of the optimizer once for each of the weights.
    assert any("Mul" in line or "Bert" in line for line in table[:20])
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    run(command(tmp_path / "other", "--profile=7,9"))
    assert "step 7 of `profile` is not among this run's" in capsys.readouterr().out


@pytest.mark.horovod
def test_float16_on_one_worker_two_workers_and_resumed(command, tmp_path):
    scale = "--init_loss_scale=4294967296"
    run(command(tmp_path / "fp32", precision="fp32"))
    run(command(tmp_path / "one", scale, precision="fp16"))
    expected, one = weights(tmp_path / "fp32"), weights(tmp_path / "one")
    assert np.linalg.norm(one - expected) < 0.02 * np.linalg.norm(expected)
    [first, *_, last] = loss_scales(tmp_path / "one")
    assert first < 2**32  # Overflows, and is lowered.
    run(command(tmp_path / "parts", scale, "--steps_this_run=2", precision="fp16"))
    run(command(tmp_path / "parts", precision="fp16"))
    parts, whole = (checkpoint_bytes(tmp_path / n, 6) for n in ("parts", "one"))
    assert parts == whole
    assert loss_scales(tmp_path / "parts")[-1] == last
    command_line = command(
        tmp_path / "two", "--horovod", scale, "--amp", accumulation=2, precision="fp16"
    )
    result = mpirun(2, SCRIPT, *command_line)
    assert result.returncode == 0, result.stderr
    two = weights(tmp_path / "two")
    assert np.linalg.norm(two - one) < 5e-3 * np.linalg.norm(one)


@pytest.mark.parametrize("precision", ["avx-fp32", "bf32"])
def test_float32_of_other_kinds(command, tmp_path, precision):
    """The choice reaches oneDNN only in a separate process."""
    run(command(tmp_path / "fp32", precision="fp32"))
    arguments = command(tmp_path / "other", precision=precision)
    result = run_python(SCRIPT, *arguments)
    assert result.returncode == 0, result.stderr
    expected, other = weights(tmp_path / "fp32"), weights(tmp_path / "other")
    assert np.linalg.norm(other - expected) < 0.02 * np.linalg.norm(expected)
