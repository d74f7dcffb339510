"""The older systems' script names, with their own command lines."""

import pytest
from integration.launching import ROOT, run_python

from bert_tf.data.records.metadata import read_metadata

pytestmark = pytest.mark.slow
PACKER = ROOT / "scripts" / "pack_pretraining_data_tfrec.py"


def command(tiny_records, output, length=16, files=1472):
    return [
        PACKER,
        "--input-glob",
        f"{tiny_records}/",
        "--output-dir",
        f"{output}/",
        "--max-sequence-length",
        length,
        "--max-files",
        files,
        "--max-predictions-per-sequence",
        "4",
    ]


def test_published_packing_command(tiny_records, tmp_path):
    result = run_python(*command(tiny_records, tmp_path / "training"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "training_metadata.json").exists()
    metadata = read_metadata(tmp_path / "training")
    assert metadata.original_number_of_samples == 150
    # What Habana's own model reads: P + 3 predictions, 3 sequences.
    assert metadata.max_predictions_per_pack == 4 + 3
    assert metadata.max_sequences_per_pack == 3


def test_some_of_the_files(tiny_records, tmp_path):
    result = run_python(*command(tiny_records, tmp_path / "training", files=1))
    assert result.returncode == 0, result.stderr
    count = read_metadata(tmp_path / "training").original_number_of_samples
    assert count in (60, 50, 40)


def test_another_length_is_refused(tiny_records, tmp_path):
    result = run_python(*command(tiny_records, tmp_path / "training", length=128))
    assert result.returncode == 1
    _, line = result.stderr.splitlines()  # Records are parsed, by TensorFlow.
    assert (
        "the records, 16 and 4. Received: 128 and 4. Pass --max-sequence-length=16"
        in line
    )


def test_more_sequences_than_that_model_reads_are_refused(tiny_records, tmp_path):
    words = command(tiny_records, tmp_path / "training")
    result = run_python(*words, "--max-sequences-per-pack", "4")
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert "must be one of" in line and "Received: 4" in line
