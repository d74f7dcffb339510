"""What run_sentences reads of a table."""

from integration import finetuning_data
from runs import parse

from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.jobs.sentences import _read


def test_columns_that_are_not_read_are_listed(tmp_path):
    """A table of rated pairs may hold pairs that do not belong together."""
    model = finetuning_data.write_model(tmp_path / "model")
    path = f"{tmp_path}/pairs.tsv"
    rows = [("sentence1", "sentence2", "score"), ("a dog", "a cat", 0)]
    finetuning_data.write_table(tmp_path / "pairs.tsv", rows)
    flags = ["--do_train", "--num_train_steps=1", f"--output_dir={tmp_path}/out"]
    config = parse("sentences", *model, *flags, f"--train_file={path}")
    found = _read(config, path, WordPieceTokenizer(f"{tmp_path}/model/vocab.txt"))
    assert found.notes == [
        f"{path}: 1 row of sentence1, sentence2. Columns that are not read: 'score'."
    ]
