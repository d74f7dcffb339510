import dataclasses
import json

import pytest
from runs import parse

from bert_tf.config import PRESETS, BertConfig
from bert_tf.data.records.metadata import Metadata
from bert_tf.jobs.run.model_files import (
    finetuning_tokenizer,
    fit_preset,
    load_bert_config,
    pretraining_tokenizer,
)
from bert_tf.jobs.run.starting_point import StartingPoint
from bert_tf.training.manifest import RunPosition

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]
BERT = BertConfig(vocab_size=8, hidden_size=8, num_attention_heads=2)
NEW, OWN = StartingPoint(), StartingPoint("/run/model.ckpt-3", True, is_own=True)


@pytest.fixture
def folder(tmp_path):
    """An output_dir with a vocabulary."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path


def pretraining(folder, *more):
    files = ["--preset=tiny", "--input_files_dir=/records", f"--output_dir={folder}"]
    return parse("pretraining", "--do_train", *files, *more)


def classification(folder, *more):
    files = ["--task_name=tsv", "--data_dir=/data", f"--output_dir={folder}"]
    return parse("classifier", "--do_train", *files, *more)


def test_a_resumed_pretraining_does_not_need_its_initial_weights(folder):
    config = pretraining(folder, "--init_checkpoint=/gone")
    tokenizer = pretraining_tokenizer(config, OWN, BERT, {"/records": None})
    assert tokenizer.vocab_file == str(folder / "vocab.txt")
    with pytest.raises(FileNotFoundError, match="no weights at /gone"):
        pretraining_tokenizer(config, NEW, BERT, {"/records": None})


def test_a_resumed_fine_tuning_does_not_need_its_initial_weights(folder):
    config = classification(folder, "--init_checkpoint=/gone")
    assert finetuning_tokenizer(config, OWN).vocab_file == str(folder / "vocab.txt")
    with pytest.raises(FileNotFoundError, match="no weights at /gone"):
        finetuning_tokenizer(config, NEW)


def test_a_vocabulary_that_stays_from_an_earlier_run_is_warned_of(folder):
    config = pretraining(folder, "--overwrite_output_dir")
    tokenizer = pretraining_tokenizer(config, NEW, BERT, {"/records": None})
    assert (tokenizer.vocab_file, tokenizer.settings) == ("", None)
    [warning] = [note for note in tokenizer.notes if "next to the checkpoints" in note]
    assert warning.startswith(f"warning: {folder}/vocab.txt stays")
    (folder / "vocab.txt").unlink()  # As it says.
    [note] = pretraining_tokenizer(config, NEW, BERT, {"/records": None}).notes
    assert note.startswith("No vocabulary is stored")


def write_config(folder, hidden_act):
    folder.mkdir()
    config = BertConfig(vocab_size=8, hidden_size=8, num_attention_heads=2)
    values = config.to_dict() | {"hidden_act": hidden_act}
    (folder / "bert_config.json").write_text(json.dumps(values))
    (folder / "model.safetensors").touch()
    return folder


def settings(output_dir, *more):
    return classification(output_dir, *more).files


def test_a_resumed_run_has_its_own_architecture(tmp_path):
    run, first = write_config(tmp_path / "run", "relu"), tmp_path / "first"
    named = f"--init_checkpoint={write_config(first, 'gelu')}"
    assert load_bert_config(settings(run, named), OWN).hidden_act == "relu"
    assert load_bert_config(settings(run, named), NEW).hidden_act == "gelu"
    gone = settings(run, "--init_checkpoint=/gone")
    assert load_bert_config(gone, OWN).hidden_act == "relu"
    with pytest.raises(FileNotFoundError, match="no weights at /gone"):
        load_bert_config(gone, NEW)


def test_a_resumed_run_without_files_has_the_architecture_of_its_manifest(tmp_path):
    numbers = {"step": 3, "records": 96, "global_batch_size": 32, "num_records": 150}
    saved = {"bert": BERT.to_dict() | {"vocab_size": 9}}
    position = RunPosition(**numbers, learning_rate=1e-4, seed=42, config=saved)
    start = dataclasses.replace(OWN, position=position)
    gone = settings(tmp_path, "--init_checkpoint=/gone")
    assert load_bert_config(gone, start).vocab_size == 9
    preset = pretraining(tmp_path, "--init_checkpoint=/gone")
    assert fitted(preset, start)[0] == 9


def test_flags_come_before_files(tmp_path):
    run = write_config(tmp_path / "run", "relu")
    other = write_config(tmp_path / "other", "tanh") / "bert_config.json"
    named = settings(run, f"--bert_config_file={other}")
    assert load_bert_config(named, OWN).hidden_act == "tanh"


def test_without_any_config_the_message_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match="no config next to `init_checkpoint` or in"):
        load_bert_config(settings(tmp_path), NEW)


# The size of a preset's word table.


def fitted(config, start=NEW, records=None):
    """Its vocab_size, and the lines about it."""
    bert = load_bert_config(config.files, start)
    bert, notes = fit_preset(bert, config.files, start, records or {})
    return bert.vocab_size, notes


def made_with(vocab_size):
    return Metadata(packed=False, avg_seq_per_sample=1.0, vocab_size=vocab_size)


def test_a_preset_is_as_large_as_the_vocabulary_file(folder):
    config = pretraining(folder, f"--vocab_file={folder}/vocab.txt")
    size, [note] = fitted(config, records={"/records": made_with(4000)})
    assert size == len(WORDS)
    assert note == (
        f"--preset=tiny: vocab_size=8 instead of 30522, from {folder}/vocab.txt."
    )


def test_a_preset_is_as_large_as_the_vocabulary_of_the_records(tmp_path):
    records = {"/bare": None, "/records": made_with(4000)}
    size, [note] = fitted(pretraining(tmp_path), records=records)
    assert size == 4000 and note.endswith("from /records_metadata.json.")


def test_a_preset_keeps_its_size_where_nothing_is_known(tmp_path):
    assert fitted(pretraining(tmp_path)) == (30522, [])
    config = pretraining(tmp_path)
    assert fitted(config, records={"/records": made_with(30522)}) == (30522, [])


def test_a_preset_is_as_large_as_the_table_of_the_weights(tmp_path):
    """With the vocabulary of 8 words next to it: the table may be padded."""
    values = PRESETS["tiny"].to_dict() | {"vocab_size": 16}
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "bert_config.json").write_text(json.dumps(values))
    (weights / "model.safetensors").touch()
    vocabulary = weights / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n")
    more = (f"--init_checkpoint={weights}", f"--vocab_file={vocabulary}")
    assert fitted(pretraining(tmp_path / "run", *more))[0] == 16
    (weights / "bert_config.json").unlink()
    assert fitted(pretraining(tmp_path / "run", *more[:1]))[0] == 8


def test_a_resumed_run_keeps_the_size_of_its_preset(tmp_path):
    """Also one of an earlier version, whose table had all 30,522 rows."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "bert_config.json").write_text(json.dumps(PRESETS["tiny"].to_dict()))
    records = {"/records": made_with(4000)}
    assert fitted(pretraining(run), OWN, records) == (30522, [])


def test_a_fine_tuning_takes_the_size_of_its_vocabulary_too(folder):
    config = classification(folder, "--preset=tiny", f"--vocab_file={folder}/vocab.txt")
    assert fitted(config)[0] == 8
