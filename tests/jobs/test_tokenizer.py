import pytest

from bert_tf import flags
from bert_tf.config import BertConfig, PretrainingConfig
from bert_tf.config.finetuning import ClassifierConfig
from bert_tf.jobs.starting_point import StartingPoint
from bert_tf.jobs.tokenizer import finetuning_tokenizer, pretraining_tokenizer

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
    return flags.parse(PretrainingConfig, ["run", "--do_train", *files, *more])


def classification(folder, *more):
    files = ["--task_name=tsv", "--data_dir=/data", f"--output_dir={folder}"]
    return flags.parse(ClassifierConfig, ["run", "--do_train", *files, *more])


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
    [warning] = [note for note in tokenizer.notes if "beside the checkpoints" in note]
    assert warning.startswith(f"warning: {folder}/vocab.txt stays")
    (folder / "vocab.txt").unlink()  # As it says.
    [note] = pretraining_tokenizer(config, NEW, BERT, {"/records": None}).notes
    assert note.startswith("No vocabulary is stored")
