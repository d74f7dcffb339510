"""run_classifier with --use_xla on packed rows: what is compiled, and the losses."""

import json
import re

import numpy as np
import pytest
import runs
from integration import finetuning_data
from integration.launching import ROOT, run_python

pytestmark = pytest.mark.slow
MICRO_BATCH, LENGTH = 16, 32


def command(folder):
    """Training on a hundred texts of 1 to 26 words, with dropout."""
    rng = np.random.default_rng(2)
    rows = [
        (" ".join(rng.choice(["rain", "bread", "train"], length)), f"is {length % 3}")
        for length in rng.integers(1, 27, 100)
    ]
    finetuning_data.write_table(folder / "train.tsv", [("text", "label"), *rows])
    model = finetuning_data.write_model(folder / "model")
    path = folder / "model" / "bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 1}))
    return [
        *(ROOT / "run_classifier.py", *model, f"--data_dir={folder}"),
        *("--task_name=tsv", "--do_train", "--pack_sequences", "--seed=3"),
        *(f"--train_batch_size={MICRO_BATCH}", "--num_accumulation_steps=2"),
        *(f"--max_seq_length={LENGTH}", "--num_train_steps=12"),
        *("--display_loss_steps=1", "--learning_rate=1e-3"),
    ]


def test_packed_rows_are_compiled_for_few_numbers(tmp_path, monkeypatch):
    arguments, dump = command(tmp_path), tmp_path / "dump"
    monkeypatch.setenv("BERT_TF_ISA", "reference")
    plain = run_python(*arguments, f"--output_dir={tmp_path}/plain")
    assert plain.returncode == 0, plain.stderr
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={dump} --xla_dump_hlo_as_text")
    compiled = run_python(*arguments, f"--output_dir={tmp_path}/xla", "--use_xla")
    assert compiled.returncode == 0, compiled.stderr
    assert "at most 4 numbers, since empty rows are added" in compiled.stdout

    def programs(name):
        return [*dump.glob(f"*{name}*before_optimizations.txt")]

    assert len(programs("global_norm")) == len(programs("_assign")) == 1
    shapes = [
        {int(rows) for rows in re.findall(rf"s32\[(\d+),{LENGTH}\]", path.read_text())}
        for path in programs("micro_batch")
    ]
    rows = sorted(count for [count] in shapes)
    assert 0 < len(rows) == len({*rows})
    assert {*rows} <= {4, 8, 12, 16}
    ours, expected = (
        runs.logged_values(tmp_path / name, "total_loss") for name in ("xla", "plain")
    )
    assert [step for step, _ in ours] == [*range(1, 13)]
    # Rounding; other dropout bits change losses by 2e-4 to 8e-3.
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
