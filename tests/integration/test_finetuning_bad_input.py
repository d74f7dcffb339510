"""Bad input of fine-tuning: one line, exit code 1, and no half-written predictions."""

import importlib
import json
import shutil

import numpy as np
import pytest
from integration import finetuning_data
from runs import read_tensors

import run_classifier
import run_squad
from bert_tf.config import BertConfig
from bert_tf.interop.pretrained import save_pretrained
from bert_tf.modeling.finetuning import build_span_model
from bert_tf.tf_checkpoint_writer import save_tf

SMALL = ("--num_train_steps=1", "--do_train")


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs a script that must fail: its one line has every given part."""

    def check(main, arguments, *parts):
        output = tmp_path / "output"
        assert main(["run", *arguments, f"--output_dir={output}"]) == 1
        text = capsys.readouterr().err
        assert text.startswith("error: ")
        assert text.count("\n") == 1
        for part in parts:
            assert part in text
        left = [path.name for path in output.glob("*")]
        assert not [name for name in left if "predictions" in name or "tmp" in name]
        assert not {"test_results.tsv", "eval_results.txt"} & {*left}

    return check


@pytest.fixture
def squad_command(folder, model):
    """A command that would work, but for the file of questions that it is given."""

    def make(train=None, *more):
        train = train or folder / "train.json"
        files = [f"--train_file={train}", f"--predict_file={folder}/train.json"]
        return [*model, *finetuning_data.SQUAD_FLAGS, *files, *SMALL, *more]

    return make


@pytest.fixture
def spoilt(tmp_path):
    """Writes the questions after a change to the first paragraph."""

    def write(change, **version):
        data = finetuning_data.squad(**version)
        change(data["data"][0]["paragraphs"][0])
        path = tmp_path / "spoilt.json"
        path.write_text(json.dumps(data))
        return path

    return write


@pytest.fixture
def table(tmp_path, folder, model):
    """Writes one file of a copy of the classes anew; returns the command."""

    def make(name, text, *more):
        data = shutil.copytree(folder / "classes", tmp_path / "classes")
        (data / name).write_text(text)
        flags = finetuning_data.CLASS_FLAGS
        return [*model, *flags, f"--data_dir={data}", "--task_name=tsv", *SMALL, *more]

    return make


def test_a_file_that_is_not_json(squad_command, refused, tmp_path):
    (tmp_path / "cut.json").write_text('{"data": [{"para')
    refused(run_squad.main, squad_command(tmp_path / "cut.json"), "line 1", "not JSON")


def test_a_file_that_is_not_squad(squad_command, refused, spoilt):
    path = spoilt(lambda paragraph: paragraph.pop("context"))
    place = "data[0].paragraphs[0]"
    refused(run_squad.main, squad_command(path), str(path), place, "`context`")


def test_an_answer_outside_of_the_context(squad_command, refused, spoilt):
    def change(paragraph):
        paragraph["qas"][1]["answers"][0]["answer_start"] = 10_000

    path = spoilt(change)
    refused(run_squad.main, squad_command(path), "question q01", "within the context")


def test_two_questions_of_one_id(squad_command, refused, spoilt):
    def change(paragraph):
        paragraph["qas"][1]["id"] = "q00"

    refused(run_squad.main, squad_command(spoilt(change)), "q00", "the same id")


def test_version_2_without_its_flag(squad_command, refused, spoilt):
    path = spoilt(lambda paragraph: None, is_version_2=True)
    refused(run_squad.main, squad_command(path), "--version_2_with_negative")


def test_training_questions_without_answers(squad_command, refused, spoilt):
    path = spoilt(lambda paragraph: paragraph["qas"][0].pop("answers"))
    refused(run_squad.main, squad_command(path), "question q00", "no answer")


@pytest.mark.parametrize("stage", ["--do_train", "--do_predict"])
def test_pairs_for_a_model_of_single_texts(refused, folder, tmp_path, stage):
    values = json.loads((folder / "model/bert_config.json").read_text())
    config = BertConfig.from_dict(values | {"type_vocab_size": 1}, "test")
    words = f"{folder}/model/vocab.txt"
    save_pretrained(build_span_model(config), tmp_path / "one", vocab_file=words)
    files = [f"--{x}={folder}/train.json" for x in ("train_file", "predict_file")]
    start = [f"--init_checkpoint={tmp_path}/one", "--num_train_steps=1", stage]
    command = [*finetuning_data.SQUAD_FLAGS, *files, *start]
    refused(run_squad.main, command, "type_vocab_size=1", "segment_ids of 1")


@pytest.mark.parametrize("content", ["", '{"data": []}'])
def test_no_questions_at_all(squad_command, refused, tmp_path, content):
    (tmp_path / "empty.json").write_text(content)
    command = squad_command(tmp_path / "empty.json")
    refused(run_squad.main, command, "empty.json")


@pytest.mark.parametrize("flag", ["train_file", "vocab_file", "bert_config_file"])
def test_missing_files_are_named(squad_command, refused, flag):
    missing = f"--{flag}=/nowhere/at/all"
    refused(run_squad.main, squad_command(None, missing), "/nowhere/at/all")


def test_a_training_without_a_file(model, refused):
    command = [*model, *finetuning_data.SQUAD_FLAGS, *SMALL]
    refused(run_squad.main, command, "`train_file` must be given")


def test_nothing_to_do(folder, model, refused):
    command = [*model, f"--predict_file={folder}/train.json"]
    refused(run_squad.main, command, "At least one of `do_train`")


def test_rows_longer_than_the_table_of_positions(squad_command, refused):
    command = squad_command(None, "--max_seq_length=600")
    parts = ("max_position_embeddings=512", "max_seq_length=600")
    refused(run_squad.main, command, *parts)


def test_a_question_that_leaves_no_room(squad_command, refused):
    command = squad_command(None, "--max_query_length=45")
    refused(run_squad.main, command, "`max_seq_length`", "max_query_length=45")


def test_a_misplaced_answer_is_left_out_with_a_warning(squad_command, spoilt, capsys):
    def change(paragraph):
        paragraph["qas"][0]["answers"][0]["answer_start"] = 1

    path = spoilt(change)
    command = squad_command(path, f"--output_dir={path.parent}/output")
    assert run_squad.main(["run", *command]) == 0
    text = capsys.readouterr().out
    assert "left out 1 question " in text
    assert "question q00" in text


def test_a_scorer_that_is_not_installed_is_missed_before_the_training(
    squad_command, refused, monkeypatch, tmp_path
):
    load = importlib.import_module

    def without_models(name, package=None):
        if name.startswith("official"):
            raise ModuleNotFoundError("No module named 'official'")
        return load(name, package)

    monkeypatch.setattr(importlib, "import_module", without_models)
    command = squad_command(None, "--do_eval")
    refused(run_squad.main, command, "tf-models-official")
    assert not list(tmp_path.glob("output/model.ckpt*"))


@pytest.fixture(scope="module")
def trained(folder, model):
    """A folder with one step of a training on questions."""
    files = [f"--train_file={folder}/train.json", f"--output_dir={folder}/trained"]
    command = [*model, *finetuning_data.SQUAD_FLAGS, *files, *SMALL]
    assert run_squad.main(["run", *command]) == 0
    return folder / "trained"


@pytest.fixture
def prediction(folder):
    """A command that answers with a checkpoint."""

    def make(checkpoint):
        files = [f"--predict_file={folder}/train.json"]
        files += [f"--init_checkpoint={checkpoint}", "--do_predict"]
        return [*finetuning_data.SQUAD_FLAGS, *files]

    return make


def changed_weights(path, trained, change):
    """Copies a checkpoint, its tensors changed."""
    tensors = change(read_tensors(trained))
    path.mkdir()
    for name in ("bert_config.json", "vocab.txt"):
        shutil.copy(trained / name, path)
    save_tf(str(path / "model.ckpt"), tensors)
    return path / "model.ckpt"


def test_prediction_with_a_checkpoint_without_a_head(
    trained, prediction, refused, tmp_path
):
    path = changed_weights(
        tmp_path / "headless",
        trained,
        lambda tensors: {n: x for n, x in tensors.items() if "squad" not in n},
    )
    parts = (f"{path} has no head for this task: cls/squad/output_weights and",)
    parts += ("Pass --do_train, which trains one",)
    refused(run_squad.main, prediction(path), *parts)


def test_evaluation_of_classes_without_a_head(trained, refused, folder, tmp_path):
    """The weights have a head for another task."""
    flags = [*finetuning_data.CLASS_FLAGS, f"--init_checkpoint={trained}", "--do_eval"]
    refused(
        *(run_classifier.main, [*flags, f"--data_dir={folder}", "--task_name=csv"]),
        *("Without `do_train` the weights must have a classifier", "Pass --do_train"),
    )
    data = tmp_path / "glue"
    data.mkdir()
    (data / "dev.tsv").write_text("sentence\tlabel\na\t1\nb\t0\n")
    refused(
        *(run_classifier.main, [*flags, f"--data_dir={data}", "--task_name=SST-2"]),
        *("has no head for this task: output_weights and output_bias are missing",),
        "Pass --do_train, which trains one",
    )


def test_prediction_with_weights_that_are_no_numbers(
    trained, prediction, refused, tmp_path
):
    name = "cls/squad/output_weights"
    path = changed_weights(
        tmp_path / "diverged",
        trained,
        lambda tensors: tensors | {name: np.full((2, 32), np.nan, np.float32)},
    )
    refused(run_squad.main, prediction(path), "are not finite numbers")


def test_a_vocabulary_beside_the_weights_that_is_not_theirs(
    trained, prediction, refused, tmp_path
):
    path = changed_weights(tmp_path / "other", trained, lambda tensors: tensors)
    with (path.parent / "vocab.txt").open("a") as file:
        file.write("".join(f"new{number}\n" for number in range(20)))
    refused(run_squad.main, prediction(path), "vocab.txt has", "vocab_size=")


def test_prediction_with_nothing_to_predict_with(folder, model, refused):
    files = [f"--predict_file={folder}/train.json", "--do_predict"]
    command = [*model, *finetuning_data.SQUAD_FLAGS, *files]
    refused(run_squad.main, command, "there must be a checkpoint")


def test_prediction_with_a_model_of_another_task(trained, folder, refused):
    command = [f"--data_dir={folder}/classes", "--task_name=tsv", "--do_predict"]
    command += [f"--init_checkpoint={trained}", *finetuning_data.CLASS_FLAGS]
    refused(run_classifier.main, command, "no head for this task: output_weights")


def test_a_table_with_a_line_of_other_columns(table, refused):
    text = "text\tlabel\nA warm day.\tweather\nNo label here.\nMore rain.\tfood\n"
    refused(
        run_classifier.main, table("train.tsv", text), "train.tsv, line 3", "2 tab-"
    )


def test_a_table_without_known_columns(table, refused):
    text = "words\tkind\nA warm day.\tweather\n"
    parts = ("no column has a common name", "'words', 'kind'")
    refused(run_classifier.main, table("train.tsv", text), *parts)


def test_a_column_that_is_named_and_not_there(table, refused):
    text = "text\tlabel\nA warm day.\tweather\nBread.\tfood\n"
    command = table("train.tsv", text, "--text_a_column=review")
    refused(run_classifier.main, command, "'review'", "train.tsv, line 1")


def test_a_label_of_the_dev_set_that_training_does_not_have(table, refused):
    text = "text\tlabel\nA warm day.\tweather\nOn stage.\ttheatre\n"
    command = table("dev.tsv", text, "--do_eval")
    refused(run_classifier.main, command, "dev.tsv, line 3", "'theatre'", "'food'")


@pytest.mark.parametrize("text", ["", "text\tlabel\n"])
def test_an_empty_training_table(table, refused, text):
    refused(run_classifier.main, table("train.tsv", text), "train.tsv")


def test_quotes_without_a_partner_are_plain_text(table, tmp_path, capsys):
    text = 'text\tlabel\n"A warm day.\tweather\nBread" and "butter.\tfood\n'
    command = table("train.tsv", text, f"--output_dir={tmp_path}/output")
    assert run_classifier.main(["run", *command]) == 0
    assert "Training: 2 examples" in capsys.readouterr().out


def test_a_folder_without_the_files_of_its_task(model, refused, tmp_path):
    command = [*model, *finetuning_data.CLASS_FLAGS, *SMALL, "--task_name=MRPC"]
    parts = ("`data_dir` must hold the files of MRPC", "train.tsv")
    refused(run_classifier.main, [*command, f"--data_dir={tmp_path}"], *parts)


def test_a_task_that_nobody_knows(model, refused, tmp_path):
    command = [*model, *SMALL, "--task_name=MRCP", f"--data_dir={tmp_path}"]
    refused(run_classifier.main, command, "`task_name` must be one of CoLA, MNLI")


def test_predictions_stay_whole_when_writing_them_fails(
    trained, prediction, refused, monkeypatch, tmp_path
):
    """A disk that is full when the first file is being written."""

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    refused(run_squad.main, prediction(trained), "No space left on device")
