"""Tags of words, several labels and multiple choice: from files to predictions."""

import json
import os
import subprocess

import numpy as np
import pytest
import runs
from integration import finetuning_data
from oracles import files
from runs import read_json

import run_classifier
from bert_tf import Chooser, Classifier, Tagger
from bert_tf.cli import main
from bert_tf.config.models import ConvertOptions
from bert_tf.interop.pretrained import from_pretrained
from bert_tf.interop.ready_model import load_tokenizer
from bert_tf.interop.weight_conversion import convert

TORCH_PYTHON = files.ROOT / ".venv-bench/bin/python"
NAMES = ("tags", "labels", "choices")
EACH = pytest.mark.parametrize("name", NAMES)
STEPS = {"tags": 60, "labels": 500, "choices": 40}
RATES = {"tags": 3e-3, "labels": 1e-3, "choices": 3e-3}
CRITERION = {"tags": "f1", "labels": "micro_f1", "choices": "accuracy"}
PROGRAM = """
import sys, json, numpy, torch, transformers
arrays = {}
for name, (path, inputs) in json.load(open(sys.argv[1])).items():
    config = transformers.AutoConfig.from_pretrained(path)
    model_class = getattr(transformers, config.architectures[0])
    model, loading = model_class.from_pretrained(path, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"], loading
    with torch.no_grad():
        tensors = {key: torch.tensor(value) for key, value in inputs.items()}
        arrays[name] = model.eval()(**tensors).logits.numpy()
numpy.savez(sys.argv[2], **arrays)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(folder, model):
    """Folder of each trained model -> its scores."""
    found = {}
    for name in NAMES:
        data = getattr(finetuning_data, f"write_{name}")(folder / name)
        more = ["--do_train", "--do_eval", "--do_predict", "--deterministic_run"]
        more += [f"--learning_rate={RATES[name]}", f"--num_train_steps={STEPS[name]}"]
        flags = [*model, *data, *finetuning_data.CLASS_FLAGS, *more]
        output = f"--output_dir={folder}/{name}-run"
        found[name] = runs.run("classifier", *flags, output)
    return found


@EACH
def test_a_small_model_learns_it_by_heart(trained, name):
    assert trained[name][CRITERION[name]] == 1.0
    assert 0 < trained[name]["loss"] < 0.1


@EACH
def test_packed_evaluation_is_that_of_single_rows(trained, folder, tmp_path, name):
    data = getattr(finetuning_data, f"write_{name}")(tmp_path / name)
    start = [f"--init_checkpoint={folder}/{name}-run", f"--output_dir={tmp_path}/run"]
    flags = [*data, *start, "--do_eval", "--pack_sequences", "--eval_batch_size=2"]
    scores = runs.run("classifier", *flags, *finetuning_data.CLASS_FLAGS)
    assert scores == pytest.approx(trained[name], rel=1e-4)


def test_predicted_tags_are_in_a_file_of_words_and_tags(trained, folder):
    text = (folder / "tags-run" / "test_predictions.conll").read_text()
    sentences = [each.split("\n") for each in text.strip().split("\n\n")]
    found = [
        tuple(zip(*(x.split("\t") for x in each), strict=True)) for each in sentences
    ]
    assert found == finetuning_data.tagged()


def test_predicted_labels_and_endings_are_in_tables(trained, folder):
    rows = (folder / "labels-run" / "test_predictions.tsv").read_text().splitlines()
    labels = [row.split("\t")[1] for row in rows[1:]]
    expected = [",".join(sorted(each)) for each in finetuning_data.LABELS.values()]
    assert labels == expected
    odds = np.loadtxt(folder / "choices-run" / "test_results.tsv")
    np.testing.assert_allclose(odds.sum(axis=1), 1.0, rtol=1e-5)
    right = [question[-1] for question in finetuning_data.QUESTIONS]
    assert odds.argmax(axis=1).tolist() == right


def test_a_tagger_finds_entities_in_texts_and_lists_of_words(trained, folder):
    tag = Tagger(str(folder / "tags-run"))
    words, tags = finetuning_data.tagged()[0]
    text, listed, empty = tag(["Maria opened a shop in Oldbrook.", list(words), ""])
    assert (tuple(text["words"]), tuple(text["tags"])) == (words, tags)
    assert text["entities"] == [
        {"type": "PER", "text": "Maria", "start": 0, "end": 5},
        {"type": "LOC", "text": "Oldbrook", "start": 23, "end": 31},
    ]
    assert listed["tags"] == list(tags)
    assert empty == {"words": [], "tags": [], "entities": []}
    # 32 tokens are the rows of the training.
    long = tag([list(words) * 10])[0]["tags"]
    assert len(long) == 10 * len(words)


def test_a_chooser_takes_any_number_of_endings(trained, folder):
    choose = Chooser(str(folder / "choices-run"))
    asked = [("A cook is cutting an onion.", ["He rains.", "He cries."])]
    asked += [("A dog runs across the field.", ["It bakes.", "It barks.", "It rains."])]
    results = choose(asked)
    assert [result["choice"] for result in results] == [1, 1]
    assert results[0]["ending"] == "He cries."
    assert sum(results[1]["probabilities"]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="two or more endings"):
        choose([("a", ["b"])])


def test_a_classifier_of_labels_names_those_above_a_half(trained, folder):
    [result] = Classifier(str(folder / "labels-run"))(
        "They crossed the lake in a small boat."
    )
    assert result["labels"] == ["travel", "water"]
    above = {name for name, p in result["probabilities"].items() if p > 0.5}
    assert above == {"travel", "water"}


def test_predict_reads_lines_and_files_of_examples(
    trained, folder, tmp_path, capsys, caplog
):
    def predict(task, name, *more):
        assert not main(
            ["predict", task, f"--model={folder}/{name}-run", *map(str, more)]
        )
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    [line] = predict("tag", "tags", "Maria opened a shop in Oldbrook.")
    assert [each["type"] for each in line["entities"]] == ["PER", "LOC"]
    lines = predict("tag", "tags", f"--input={folder}/tags/dev.conll")
    found = [(tuple(each["words"]), tuple(each["tags"])) for each in lines]
    assert found == finetuning_data.tagged()
    (tmp_path / "test.txt").write_bytes((folder / "tags/dev.conll").read_bytes())
    command = ["predict", "tag", f"--model={folder}/tags-run"]
    assert not main([*command, f"--input={tmp_path}/test.txt"])
    found = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in found] == lines
    assert "test.txt: read as tagged words (CoNLL)" in caplog.text
    lines = predict("choose", "choices", f"--input={folder}/choices/val.csv")
    right = [question[-1] for question in finetuning_data.QUESTIONS]
    assert [line["choice"] for line in lines] == right
    [line] = predict(
        "choose", "choices", "A dog runs across the field.", "x", "It barks."
    )
    assert line["ending"] == "It barks."


@pytest.mark.parametrize(
    ("task", "name", "line", "message"),
    [
        (
            "tag",
            "tags",
            '{"words": ["a", 3]}',
            "line 1: there must be `text`, or `words`",
        ),
        ("choose", "choices", "a text", "must be a JSON object"),
        (
            "choose",
            "choices",
            '{"context": "a", "endings": ["b"]}',
            "two or more endings",
        ),
        ("choose", "choices", '{"text": "a"}', "must be columns of a context"),
        ("classify", "tags", "a", "Use `python -m bert_tf predict tag`"),
        ("tag", "labels", "a", "Use `python -m bert_tf predict classify`"),
        ("tag", "choices", "a", "Use `python -m bert_tf predict choose`"),
    ],
)
def test_predict_refuses_other_lines_and_models(
    trained, folder, tmp_path, capsys, task, name, line, message
):
    (tmp_path / "in.jsonl").write_text(f"{line}\n")
    options = [f"--model={folder}/{name}-run", f"--input={tmp_path}/in.jsonl"]
    assert main(["predict", task, *options]) == 1
    errors = [x for x in capsys.readouterr().err.splitlines() if "error: " in x]
    assert len(errors) == 1 and message in errors[0], errors


@pytest.fixture(scope="module")
def exported(trained, folder):
    """The folders for transformers."""
    for name in NAMES:
        convert(f"{folder}/{name}-run", f"{folder}/{name}-hf", ConvertOptions())
    return {name: folder / f"{name}-hf" for name in NAMES}


def test_configs_have_the_classes_of_transformers(exported):
    configs = {name: read_json(path / "config.json") for name, path in exported.items()}
    found = [configs[name]["architectures"][0] for name in NAMES]
    assert found == [
        "BertForTokenClassification",
        "BertForSequenceClassification",
        "BertForMultipleChoice",
    ]
    assert configs["tags"]["id2label"]["0"] == "O"
    assert configs["labels"]["problem_type"] == "multi_label_classification"


def test_transformers_computes_the_same_logits(exported, tmp_path):
    if not TORCH_PYTHON.is_file():
        pytest.skip("torch is not there: `make bench` installs it into .venv-bench")
    texts = list(finetuning_data.LABELS)[:4]
    request, ours = {}, {}
    for name, path in exported.items():
        model = from_pretrained(path, "classifier", of_tokens=name == "tags")
        batch = load_tokenizer(path)(texts)
        logits = model(batch)["class_logits"].numpy()
        ours[name] = logits if name == "tags" else logits[:, 0]
        theirs = {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["input_mask"],
            "token_type_ids": batch["segment_ids"],
        }
        is_choice = name == "choices"  # Of two questions with two endings each.
        shape = (2, 2, -1) if is_choice else batch["input_ids"].shape
        request[name] = (
            str(path),
            {k: x.reshape(shape).tolist() for k, x in theirs.items()},
        )
        ours[name] = logits.reshape(2, 2) if is_choice else ours[name]
        mask = batch["input_mask"] > 0
    (tmp_path / "request.json").write_text(json.dumps(request))
    more = {"OMP_NUM_THREADS": "1", "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    command = [
        TORCH_PYTHON,
        "-c",
        PROGRAM,
        tmp_path / "request.json",
        tmp_path / "a.npz",
    ]
    done = subprocess.run(
        command, env=os.environ | more, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    arrays = np.load(tmp_path / "a.npz")
    for name in ("labels", "choices"):
        np.testing.assert_allclose(ours[name], arrays[name], atol=1e-4)
    np.testing.assert_allclose(ours["tags"][mask], arrays["tags"][mask], atol=1e-4)


@EACH
def test_a_folder_of_transformers_is_evaluated_and_trained_further(
    trained, exported, folder, tmp_path, name
):
    data = getattr(finetuning_data, f"write_{name}")(folder / name)
    start = [f"--init_checkpoint={exported[name]}", f"--output_dir={tmp_path}/run"]
    flags = [*data, *start, *finetuning_data.CLASS_FLAGS, "--do_eval"]
    scores = runs.run("classifier", *flags)
    for criterion in (CRITERION[name], "loss"):
        assert scores[criterion] == pytest.approx(trained[name][criterion], rel=1e-4)
    more = ["--do_train", "--num_train_steps=1", "--learning_rate=1e-6"]
    scores = runs.run("classifier", *flags, *more, f"--output_dir={tmp_path}/more")
    assert scores[CRITERION[name]] == 1.0


@pytest.mark.parametrize("name", ["tags", "choices"])
def test_keras_hub_has_no_such_heads(trained, folder, tmp_path, capsys, name):
    """It would read them as those of a classifier of texts."""
    command = ["convert", f"{folder}/{name}-run", f"{tmp_path}/out", "--to=keras_hub"]
    assert main(command) == 1
    assert "masked LM or a text classifier. Received" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


@EACH
def test_converted_to_a_checkpoint_the_task_stays_known(exported, tmp_path, name):
    convert(str(exported[name]), str(tmp_path / "bert_model.ckpt"), ConvertOptions())
    task = read_json(tmp_path / "task.json")["task"]
    assert task == {"tags": "tag", "labels": "classify", "choices": "choose"}[name]


@pytest.fixture
def refused(trained, folder, model, tmp_path, capfd):
    """Runs a command that must fail with one line; nothing is left behind."""

    def check(message, *flags):
        output = tmp_path / "output"
        given = [*model, *finetuning_data.CLASS_FLAGS, "--num_train_steps=1", *flags]
        assert run_classifier.main(["run", *given, f"--output_dir={output}"]) == 1
        errors = [x for x in capfd.readouterr().err.splitlines() if "error: " in x]
        assert len(errors) == 1 and message in errors[0], errors
        assert not output.exists()

    return check


def test_heads_of_other_tasks_are_refused(refused, folder):
    def start(name, data, *more):
        given = getattr(finetuning_data, f"write_{data}")(folder / data)
        return [f"--init_checkpoint={folder}/{name}-run", *given, *more]

    message = "must be one for tag. Received: one for classify"
    refused(message, *start("labels", "tags", "--do_train"))
    refused(
        "must be one for choose. Received: one for tag",
        *start("tags", "choices", "--do_eval"),
    )
    refused(
        "must be one for classify. Received: one for choose",
        *start("choices", "labels", "--do_eval"),
    )
    single = [f"--data_dir={folder}/classes", "--task_name=tsv", "--do_eval"]
    refused(
        "multi_label_classification", f"--init_checkpoint={folder}/labels-run", *single
    )


def test_flags_that_do_not_fit_are_refused(refused, folder):
    tags = finetuning_data.write_tags(folder / "tags")
    choices = finetuning_data.write_choices(folder / "choices")
    labels = finetuning_data.write_labels(folder / "labels")
    refused(
        "`class_weights` must be left out: the task predicts a tag",
        *tags,
        "--do_train",
        "--class_weights=balanced",
    )
    refused(
        "`class_weights` must be left out",
        *labels,
        "--do_train",
        "--class_weights=balanced",
    )
    refused(
        "`label_column` must be left out with task_name=conll: the first column is the "
        "word",
        *tags,
        "--do_train",
        "--label_column=x",
    )
    refused(
        "`is_multi_label` must be left out with task_name=swag: one ending is right",
        *choices,
        "--do_train",
        "--is_multi_label",
    )
    refused(
        "`is_multi_label` must be left out with",
        *labels,
        "--do_train",
        "--is_regression",
    )
    refused(
        "`is_multi_label` must come with a task_name of your own files",
        f"--data_dir={folder}",
        "--task_name=MRPC",
        "--is_multi_label",
        "--do_train",
    )
