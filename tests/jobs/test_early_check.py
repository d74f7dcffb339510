"""Mistakes that flags and the first lines of files show, before TensorFlow loads."""

import pytest

from bert_tf import entry, flags
from bert_tf.config import PretrainingConfig
from bert_tf.config.finetuning import ClassifierConfig, SquadConfig
from bert_tf.config.sentences import SentencesConfig
from bert_tf.data.records.metadata import Metadata, write_metadata
from bert_tf.errors import CorruptRecordError, RunError
from bert_tf.jobs import early_check
from bert_tf.jobs.early_check import check_examples

SCRIPTS = {"classifier": ClassifierConfig, "squad": SquadConfig}
WORDS = "EU\tB-ORG\nis\tO\n"


@pytest.fixture
def check(tmp_path):
    """Checks a command line; its folder of data is `tmp_path`."""

    def run(script, *more):
        words = ["run", f"--data_dir={tmp_path}", f"--output_dir={tmp_path}/out"]
        config = flags.parse(SCRIPTS[script], [*words, "--do_train", *more])
        check_examples(config)

    return run


@pytest.mark.parametrize(
    "name, content, flags_, message",
    [
        ("train.tsv", "", ["--task_name=MRCP"], "Did you mean MRPC"),
        ("train.tsv", "", ["--task_name=MNLI", "--do_eval"], "files of MNLI"),
        ("train.tsv", "text\tlabel\n", ["--task_name=jsonl"], "hold train.jsonl"),
        ("train.CSV", "", ["--task_name=csv"], "Rename train.CSV to train.csv."),
        ("train.TSV.gz", "", ["--task_name=tsv"], "Rename train.TSV.gz to train.t"),
        ("Train.Conll", "", ["--task_name=conll"], "Rename Train.Conll to train.conll"),
        ("train.CSV", "", ["--task_name=swag"], "Rename train.CSV to train.csv."),
        ("train.tsv", "words\tkind\n", ["--task_name=tsv"], "common name for texts"),
        ("train.tsv", "text\tkind\n", ["--task_name=tsv"], "common name for labels"),
        (
            "train.tsv",
            "text\tlabel\n",
            ["--task_name=tsv", "--text_a_column=review"],
            "there must be a column 'review'. Received: 'text', 'label'",
        ),
        (
            "train.csv",
            "sent1,sent2,ending0,ending1,label\n",
            ["--task_name=swag", "--label_column=right"],
            "there must be a column 'right'",
        ),
        ("train.conll", WORDS, ["--task_name=conll", "--do_predict"], "test.conll"),
    ],
)
def test_a_classification_is_refused(check, tmp_path, name, content, flags_, message):
    (tmp_path / name).write_text(content)
    with pytest.raises((OSError, ValueError), match=message):
        check("classifier", *flags_)


@pytest.mark.parametrize(
    "name, content, more",
    [
        ("train.tsv", "text\tlabel\n", ["--task_name=tsv"]),
        ("train.tsv", "text\tlabel\n", ["--task_name=tsv", "--is_regression"]),
        ("train.jsonl", '{"text": "a", "x": 1, "y": 0}', ["--is_multi_label"]),
        ("train.conll", WORDS, ["--task_name=conll"]),
        # What a file holds is found when it is read.
        ("train.tsv", "text\tlabel\nonly a text\n", ["--task_name=tsv"]),
        ("RTE/train.tsv", "index\n", ["--task_name=rte"]),
        # Its reader takes a second to load.
        ("train.parquet", "no parquet", ["--task_name=parquet"]),
    ],
)
def test_a_classification_that_may_be_right_passes(
    check, tmp_path, name, content, more
):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    if name == "train.jsonl":
        more = [*more, "--task_name=jsonl", "--label_column=x,y"]
    check("classifier", *more)


@pytest.mark.parametrize("place", ["out", "model"])
def test_columns_are_not_checked_where_a_model_may_know_them(check, tmp_path, place):
    (tmp_path / "train.tsv").write_text("words\tkind\n")
    (tmp_path / place).mkdir()
    (tmp_path / place / "task.json").write_text("{}")
    check("classifier", "--task_name=tsv", f"--init_checkpoint={tmp_path}/model/m.ckpt")


@pytest.mark.parametrize("jobs, missing", [([], "train"), (["--do_predict"], "dev")])
def test_the_default_files_of_squad_must_exist(check, tmp_path, jobs, missing):
    for name in {"train", "dev"} - {missing}:
        (tmp_path / f"{name}-v1.1.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=f"{missing}-v1.1.json, which does not"):
        check("squad", *jobs)
    (tmp_path / f"{missing}-v1.1.json").write_text("{}")
    check("squad", *jobs)


def test_a_table_of_pairs_is_checked_for_either_use(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("text\tlabel\n")
    words = ["run", "--do_train", f"--output_dir={tmp_path}/out"]
    words += [f"--train_file={path}", f"--dev_file={path}"]
    with pytest.raises(ValueError, match="columns anchor and positive"):
        check_examples(flags.parse(SentencesConfig, words))


def test_a_checkpoint_that_is_being_published_is_not_looked_for(tmp_path):
    """A kill may have left it so: the training that resumes publishes it first."""
    (tmp_path / "checkpoint").write_text("")
    (tmp_path / "train-v1.1.json").write_text("")
    words = ["run", "--do_train", "--preset=tiny", f"--output_dir={tmp_path}"]
    words += [f"--train_file={tmp_path}/train-v1.1.json"]
    config = flags.parse(SquadConfig, words)
    with pytest.raises(RunError, match="none of which can be used"):
        early_check.check(config)
    (tmp_path / ".model.ckpt-3.bert_tf.committed").mkdir()
    early_check.check(config)


@pytest.fixture
def describe(tmp_path):
    """Writes metadata of a folder with one file of packed records."""

    def write(name, predictions):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "part.tfrecord").touch()
        lengths = {"max_seq_length": 16, "max_predictions_per_seq": predictions}
        metadata = Metadata(avg_seq_per_sample=2.0, packed=True, **lengths)
        write_metadata(tmp_path / name, metadata)

    return write


@pytest.fixture
def check_records(tmp_path):
    """Checks a pre-training on the folders of `describe`."""

    def run(records, *more):
        words = ["run", "--do_train", "--preset=tiny", f"--output_dir={tmp_path}/out"]
        words.append(f"--input_files_dir={records}")
        early_check.check(flags.parse(PretrainingConfig, [*words, *more]))

    return run


def test_a_mixture_of_packed_records_needs_the_most_predictions(
    tmp_path, describe, check_records
):
    describe("a", 4)
    describe("b", 8)
    mixture = f"{tmp_path}/a:0.7,{tmp_path}/b:0.3"
    check_records(mixture, "--max_predictions_per_seq=8")
    with pytest.raises(CorruptRecordError, match="must be 8, that of.*=4\\.$"):
        check_records(mixture, "--max_predictions_per_seq=4")
    describe("b", None)
    check_records(mixture, "--max_predictions_per_seq=4")


@pytest.mark.parametrize("name", ["none.json", "folder", "/dev/null"])
def test_a_path_in_the_variable_of_precision_is_checked(
    tmp_path, describe, check_records, monkeypatch, name
):
    (tmp_path / "folder").mkdir()
    describe("a", 4)
    path = tmp_path / name
    monkeypatch.setenv("TF_BF16_CONVERSION", str(path))
    with pytest.raises(OSError, match=f"Received: TF_BF16_CONVERSION={path}, which"):
        check_records(tmp_path / "a")
    check_records(tmp_path / "a", "--precision=fp32")


def test_metadata_that_may_be_out_of_date_are_named_with_the_command(
    tmp_path, describe, check_records
):
    """Records may fit a flag that their metadata do not fit."""
    describe("a", 4)
    with pytest.raises(CorruptRecordError) as refused:
        check_records(f"{tmp_path}/a", "--max_seq_length=128")
    command = f"`python -m bert_tf data index --input_dir={tmp_path}/a --overwrite`"
    assert f"If they have it, update their metadata with {command}" in str(
        refused.value
    )


def test_a_script_does_not_load_its_job_first(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(entry, "importlib", None)  # What loads the job.
    words = ["run", "--task_name=MRCP", f"--data_dir={tmp_path}", "--preset=tiny"]
    words += [f"--output_dir={tmp_path}/out", "--do_train"]
    assert entry.run_script(ClassifierConfig, "classifier", words) == 1
    assert "error: `task_name` must be one of" in capsys.readouterr().err
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    # Several workers compare what they find.
    assert entry.run_script(ClassifierConfig, "classifier", [*words, "--horovod"]) == 1
    assert "import_module" in capsys.readouterr().err
