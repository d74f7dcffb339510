"""Runs with masks drawn while training and with weighted sets of records."""

import json
import shutil

import numpy as np
import pytest
from conftest import ROOT, make_example, write_records
from data.shared import SPECIALS
from integration.launching import mpirun
from runs import (
    checkpoint_bytes,
    logged_values,
    pretraining_flags,
    run,
)

from bert_tf.config.data import PackDataConfig
from bert_tf.data.commands.pack import pack_records
from bert_tf.errors import RunError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A vocabulary of 30 words, and sets of 40 and 24 records, plain and packed."""
    top = tmp_path_factory.mktemp("sets")
    words = [*SPECIALS, *(f"w{n}" for n in range(25))]
    (top / "vocab.txt").write_text("\n".join(words) + "\n")
    rng = np.random.default_rng(5)
    for name, count in (("a", 40), ("b", 24)):
        (top / name).mkdir()
        examples = [
            make_example(rng, max_seq_length=8, max_predictions=2) for _ in range(count)
        ]
        for example in examples:
            for feature in ("input_ids", "input_mask", "segment_ids"):
                example[feature] += [0] * 8
        write_records(top / name / "part-0", examples)
    return top


@pytest.fixture
def command(data, tiny_config_file):
    """Makes a command line of 8 steps of 16 records, with both features."""

    def make(output_dir, *more, batch=4, accumulation=4, records=None):
        return pretraining_flags(
            tiny_config_file,
            records or f"{data}/a:0.75,{data}/b:0.25",
            output_dir,
            f"--vocab_file={data}/vocab.txt",
            *("--dynamic_masking", "--display_loss_steps=1", *more),
            batch=batch,
            accumulation=accumulation,
        )

    return make


@pytest.mark.slow
def test_stopped_and_resumed_is_never_stopped(command, data, tmp_path, capsys):
    """Over two epochs of the first set, and one and a third of the second."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run("pretraining", *command(whole))
    text = capsys.readouterr().out
    assert "Masks are drawn anew in each epoch: single tokens" in text
    sets = (
        f"0.75 of {data}/a (40 records, 2.4 epochs); "
        f"0.25 of {data}/b (24 records, 1.33 epochs)"
    )
    assert f"Of the 128 records that 8 steps read: {sets}." in text
    run("pretraining", *command(stopped, "--steps_this_run=3"))
    run("pretraining", *command(stopped))
    assert checkpoint_bytes(stopped, 8) == checkpoint_bytes(whole, 8)
    manifest = json.loads((whole / "model.ckpt-8.json").read_text())
    facts = manifest["fingerprint"]["data"]
    assert facts["dynamic_masking"] == "single tokens"
    assert facts["weights"] == [[40, "3/4"], [24, "1/4"]]


@pytest.mark.slow
def test_a_resumed_run_keeps_masks_and_weights(command, data, tmp_path):
    folder = tmp_path / "run"
    run("pretraining", *command(folder, "--steps_this_run=1"))
    changes = {
        "weights": [f"--input_files_dir={data}/a:0.5,{data}/b:0.5"],
        "dynamic_masking": ["--nodynamic_masking"],
    }
    for name, more in changes.items():
        with pytest.raises(RunError, match=f"training data: {name}"):
            run("pretraining", *command(folder, *more))
    moved = shutil.copytree(data, tmp_path / "moved")
    sets = f"{moved}/a:75,{moved}/b:25"
    run("pretraining", *command(folder, records=sets))


@pytest.mark.slow
def test_evaluation_records_keep_their_masks_and_have_no_weights(
    command, data, tmp_path
):
    evaluation = ("--do_eval", f"--eval_files_dir={data}/b")
    results = run("pretraining", *command(tmp_path / "run", *evaluation))
    alone = [flag for flag in command(tmp_path / "run") if flag != "--dynamic_masking"]
    again = run("pretraining", *alone, "--nodo_train", *evaluation)
    assert results == again
    with pytest.raises(RunError, match="Only the records of a training"):
        run(
            "pretraining",
            *command(tmp_path / "x", *evaluation[:1]),
            f"{evaluation[1]}:1",
        )


@pytest.mark.slow
def test_packed_sets_have_weights_too(command, data, tmp_path, capsys):
    """Sequences per record are those of the mixture: they decide the accumulation."""
    averages = []
    for name in ("a", "b"):
        folder = str(tmp_path / f"packed-{name}")
        config = PackDataConfig(
            input_dir=str(data / name), output_dir=folder, num_processes=1
        )
        averages.append(pack_records(config).avg_seq_per_sample)
    sets = ",".join(f"{tmp_path}/packed-{name}" for name in ("a:0.75", "b:0.25"))
    run("pretraining", *command(tmp_path / "run", records=sets, accumulation=2))
    mixed = 0.75 * averages[0] + 0.25 * averages[1]
    assert f"Packed records, {mixed:.3f} sequences each" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.horovod
def test_two_workers_read_what_one_reads(command, tmp_path):
    more = ("--noscale_learning_rate",)
    one, two = tmp_path / "one", tmp_path / "two"
    run("pretraining", *command(one, *more))
    script = ROOT / "run_pretraining.py"
    result = mpirun(2, script, *command(two, *more, "--horovod", accumulation=2))
    assert result.returncode == 0, result.stderr[-3000:]
    ours, theirs = (dict(logged_values(x, "total_loss")) for x in (one, two))
    assert list(ours) == list(range(1, 9))
    np.testing.assert_allclose([*ours.values()], [*theirs.values()], rtol=1e-5)
