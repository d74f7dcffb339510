import json

import pytest
from runs import parse

from bert_tf.config import BertConfig
from bert_tf.jobs.run.model_files import (
    finetuning_tokenizer,
    load_bert_config,
    pretraining_tokenizer,
)
from bert_tf.jobs.run.resume import StartingPoint

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


def test_flags_come_before_files(tmp_path):
    run = write_config(tmp_path / "run", "relu")
    other = write_config(tmp_path / "other", "tanh") / "bert_config.json"
    named = settings(run, f"--bert_config_file={other}")
    assert load_bert_config(named, OWN).hidden_act == "tanh"


def test_without_any_config_the_message_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match="no config next to `init_checkpoint` or in"):
        load_bert_config(settings(tmp_path), NEW)
