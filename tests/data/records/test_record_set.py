import numpy as np
import pytest
from conftest import make_example, write_records

from bert_tf.config.data import IndexDataConfig
from bert_tf.data.commands.index import index_records
from bert_tf.data.records.metadata import metadata_file
from bert_tf.data.records.record_set import open_records
from bert_tf.data.records.schema import ValueLimits
from bert_tf.errors import CorruptRecordError

LIMITS = ValueLimits(vocab_size=30, type_vocab_size=2)


@pytest.fixture
def folder(tmp_path):
    """Three files of ten records."""
    folder = tmp_path / "records"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(3):
        examples = [make_example(rng) for _ in range(10)]
        write_records(folder / f"part-{number}", examples)
    return folder


@pytest.mark.parametrize("num_unmasked", [9, 30])
def test_records_without_masks_are_pointed_out(tmp_path, num_unmasked, capsys):
    rng = np.random.default_rng(1)
    examples = []
    while len(examples) < 30:
        example = make_example(rng)
        if len(examples) < num_unmasked:
            example["masked_lm_weights"] = [0.0] * 4
        elif not any(example["masked_lm_weights"]):
            continue
        examples.append(example)
    (tmp_path / "records").mkdir()
    write_records(tmp_path / "records" / "part-0", examples)
    assert len(open_records(str(tmp_path / "records"), LIMITS)) == 30
    said = capsys.readouterr().err
    assert ("100.0% of the records of" in said) == (num_unmasked == 30)


@pytest.mark.parametrize("change", ["missing", "more", "damaged metadata", "shorter"])
def test_the_advice_about_other_files_than_listed_works(folder, change):
    index_records(IndexDataConfig(input_dir=str(folder)))
    path = folder / "part-1"
    content = path.read_bytes()
    if change == "missing":
        path.unlink()
    elif change == "more":
        (folder / "part-9").write_bytes(content)
    elif change == "shorter":
        path.write_bytes((folder / "part-0").read_bytes() + content)
    else:
        with open(metadata_file(folder), "w") as file:
            file.write("{")
    advice = f"data index --input_dir={folder} --overwrite"
    with pytest.raises((CorruptRecordError, ValueError), match=advice):
        open_records(str(folder), LIMITS)
    index_records(IndexDataConfig(input_dir=str(folder), overwrite=True))
    expected = {"missing": 20, "more": 40, "shorter": 40, "damaged metadata": 30}
    assert len(open_records(str(folder), LIMITS)) == expected[change]
