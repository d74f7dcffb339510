"""Classes that come with a model's head, and files of which an action needs a part."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from integration import finetuning_data
from runs import read_json, read_results
from safetensors.numpy import load_file, save_file

import run_classifier
import run_pretraining
import run_squad
from bert_tf.cli import main as bert_tf
from bert_tf.config import BertConfig
from bert_tf.jobs.run.resume import weights_by_name
from bert_tf.modeling.finetuning import build_classifier_model
from bert_tf.precision import PrecisionPolicy
from bert_tf.predictors import Classifier
from bert_tf.training import checkpoints

pytestmark = pytest.mark.slow
NAMES = ["food", "travel", "weather"]  # The order of training.
OTHER = ["weather", "food", "travel"]  # Another one, each name at another place.
TEXTS = [text for text, _ in finetuning_data.class_rows()]
LABELS = [label for _, label in finetuning_data.class_rows()]


@pytest.fixture(scope="module")
def trained(folder, model):
    """A run that knows its three classes by heart, and keeps the best of it."""
    output = folder / "trained"
    command = [*model, f"--data_dir={folder}/classes", "--task_name=tsv"]
    command += [*finetuning_data.CLASS_FLAGS, "--learning_rate=3e-3"]
    command += ["--do_train", "--do_eval", "--evaluate_each_epoch", "--seed=3"]
    command += ["--num_train_steps=100", f"--output_dir={output}"]
    assert run_classifier.main(["run", *command, "--deterministic_run"]) == 0
    assert read_results(output)["accuracy"] == 1.0
    return output


@pytest.fixture(scope="module")
def converted(trained, folder):
    """The same as a folder of transformers."""
    assert bert_tf(["convert", str(trained), str(folder / "converted")]) == 0
    return folder / "converted"


@pytest.fixture
def reordered(converted, tmp_path):
    """Writes it with the head's outputs in another order, and other names for them."""

    def write(names, order=OTHER):
        output = shutil.copytree(converted, tmp_path / "reordered")
        tensors = load_file(output / "model.safetensors")
        rows = [NAMES.index(name) for name in order]
        for name in ("classifier.weight", "classifier.bias"):
            tensors[name] = np.ascontiguousarray(tensors[name][rows])
        save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
        config = read_json(output / "config.json")
        config["id2label"] = {str(place): name for place, name in enumerate(names)}
        config["label2id"] = {name: place for place, name in enumerate(names)}
        (output / "config.json").write_text(json.dumps(config))
        return output

    return write


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a script; returns what it printed, its exit code being as it must."""

    def execute(main, *arguments, code=0):
        output = [] if any("--output_dir" in str(a) for a in arguments) else [tmp_path]
        more = [f"--output_dir={path}/output" for path in output]
        assert main(["run", *map(str, arguments), *more]) == code
        captured = capsys.readouterr()
        assert code == 0 or captured.err.count("\n") == 1
        return captured.out if code == 0 else captured.err

    return execute


def on(data, checkpoint, *actions):
    """The arguments that use a model for a folder of texts."""
    flags = [f"--data_dir={data}", "--task_name=tsv", f"--init_checkpoint={checkpoint}"]
    return [run_classifier.main, *flags, *finetuning_data.CLASS_FLAGS, *actions]


def best(table):
    return [int(line.argmax()) for line in np.loadtxt(table, delimiter="\t", ndmin=2)]


# The same classes in another order, under the same or other spellings.


@pytest.mark.parametrize("packing", [(), ("--pack_sequences",)])
def test_classes_in_another_order_are_found_by_name(
    reordered, folder, run, tmp_path, packing
):
    source = reordered(OTHER)
    actions = ("--do_eval", "--do_predict", *packing)
    text = run(*on(folder / "classes", source, *actions))
    assert read_results(tmp_path / "output")["accuracy"] == 1.0
    expected = [OTHER.index(label) for label in LABELS]
    assert best(tmp_path / "output" / "test_results.tsv") == expected
    assert f"columns: {', '.join(OTHER)}" in text


@pytest.mark.parametrize(
    "names", [["Weather", "FOOD", "travel "], ["WEATHER", "Food", "Travel"]]
)
def test_names_may_differ_in_case_and_blanks(reordered, folder, run, tmp_path, names):
    text = run(*on(folder / "classes", reordered(names), "--do_eval"))
    assert read_results(tmp_path / "output")["accuracy"] == 1.0
    assert f"food = {names[1]}" in text


@pytest.mark.parametrize("place", ["", "best"])
def test_names_in_task_json_decide_without_a_train_file(
    trained, folder, run, tmp_path, place
):
    """The dev file holds two of the three classes, and sorts otherwise."""
    rows = [row for row in finetuning_data.class_rows() if row[1] != "food"]
    finetuning_data.write_table(tmp_path / "dev.tsv", [("text", "label"), *rows])
    run(*on(tmp_path, trained / place, "--do_eval"))
    assert read_results(tmp_path / "output")["accuracy"] == 1.0


def test_training_continues_with_the_head_and_its_names(
    reordered, folder, run, tmp_path
):
    """One step at a rate of nearly 0: the head is still the one that was there."""
    actions = ("--do_train", "--do_eval", "--num_train_steps=1", "--learning_rate=1e-9")
    run(*on(folder / "classes", reordered(OTHER), *actions))
    assert read_results(tmp_path / "output")["accuracy"] == 1.0
    task = read_json(tmp_path / "output" / "task.json")
    assert task["label_names"] == OTHER


def test_f1_is_that_of_the_positive_class(trained, folder, model, run, tmp_path):
    """Whatever its number is: the head's classes are those of MRPC, swapped."""
    finetuning_data.write_mrpc(tmp_path / "MRPC")
    flags = [*model, *finetuning_data.CLASS_FLAGS, "--task_name=MRPC"]
    flags += [f"--data_dir={tmp_path}/MRPC", f"--output_dir={tmp_path}/mrpc"]
    run(run_classifier.main, *flags, "--do_train", "--do_eval", "--num_train_steps=3")
    expected = read_results(tmp_path / "mrpc")
    assert bert_tf(["convert", f"{tmp_path}/mrpc", f"{tmp_path}/theirs"]) == 0
    tensors = load_file(tmp_path / "theirs" / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = np.ascontiguousarray(tensors[name][::-1])
    save_file(tensors, tmp_path / "theirs" / "model.safetensors")
    config = read_json(tmp_path / "theirs" / "config.json")
    assert config["id2label"] == {"0": "0", "1": "1"}
    config |= {"id2label": {"0": "EQUIVALENT", "1": "Not equivalent"}, "label2id": None}
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(config))
    flags = [f for f in flags if "output_dir" not in f and "config" not in f]
    run(
        *(run_classifier.main, *flags, "--do_eval", f"--output_dir={tmp_path}/again"),
        f"--init_checkpoint={tmp_path}/theirs",
    )
    ours = read_results(tmp_path / "again")
    for name in ("accuracy", "f1", "loss"):
        assert ours[name] == pytest.approx(expected[name], rel=1e-5)


# Heads without names.


def test_classes_without_names_are_taken_from_the_data_and_this_is_logged(
    reordered, folder, run, tmp_path
):
    names = [f"LABEL_{number}" for number in range(3)]
    text = run(*on(folder / "classes", reordered(names, NAMES), "--do_eval"))
    assert read_results(tmp_path / "output")["accuracy"] == 1.0
    assert f"their order is taken to be {', '.join(NAMES)}" in text


def test_labels_of_the_data_that_are_the_default_names_are_found_by_number(
    reordered, run, tmp_path
):
    rows = [
        (text, f"LABEL_{OTHER.index(label)}")
        for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    finetuning_data.write_table(tmp_path / "dev.tsv", [("text", "label"), *rows])
    names = [f"LABEL_{number}" for number in range(3)]
    run(*on(tmp_path, reordered(names), "--do_eval"))
    assert read_results(tmp_path / "output")["accuracy"] == 1.0


# Other classes.


def test_other_classes_are_refused_with_both_lists(trained, folder, run, tmp_path):
    rows = [
        (text, label.replace("food", "meals"))
        for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    for split in ("train", "dev"):
        finetuning_data.write_table(
            tmp_path / f"{split}.tsv", [("text", "label"), *rows]
        )
    for action in ("--do_eval", "--do_train"):
        text = run(*on(tmp_path, trained, action), code=1)
        assert "'food', 'travel', 'weather'" in text
        assert "'meals', 'travel', 'weather'" in text
        line = f"'meals' ({tmp_path}/dev.tsv, line {2 + LABELS.index('food')})"
        found = re.findall("first unknown one is (.*?)\\. ", text)
        assert found == [line] * (action == "--do_eval")
    assert "--new_head" in text
    actions = ("--do_train", "--new_head", "--num_train_steps=1")
    text = run(*on(tmp_path, trained, *actions))
    task = read_json(tmp_path / "output" / "task.json")
    assert task["label_names"] == ["meals", "travel", "weather"]
    assert "(classes food, travel, weather) is not used" in text
    # The same command resumes with the new head.
    text = run(
        *on(tmp_path, trained, "--do_train", "--new_head", "--num_train_steps=2")
    )
    assert "--new_head has no effect: a resumed run keeps its head" in text


def test_a_new_head_is_not_drawn_as_the_one_it_replaces(
    trained, folder, run, tmp_path, monkeypatch
):
    """The encoder is fitted to that one, which began with the same seed."""
    # The trial before the first step leaves what it writes.
    monkeypatch.setattr(checkpoints, "try_save", checkpoints.save)
    run(
        *on(folder / "classes", trained, "--do_train", "--new_head"),
        *("--seed=3", "--num_train_steps=1"),
    )
    prefix, name = str(tmp_path / "output/model.ckpt-0"), "output_weights"
    drawn = tf.train.load_variable(prefix, name)
    config = BertConfig.from_json_file(str(trained / "bert_config.json"))
    model = build_classifier_model(
        config, 3, max_seq_length=32, policy=PrecisionPolicy(), seed=3
    )
    before = weights_by_name(model)[name].numpy()
    # Independent draws of 3 x H numbers; the same ones would have a correlation of 1.
    assert abs(np.corrcoef(drawn.ravel(), before.ravel())[0, 1]) < 0.5


def test_another_number_of_classes_is_refused(reordered, run, tmp_path):
    rows = [row for row in finetuning_data.class_rows() if row[1] != "food"]
    for split in ("train", "dev"):
        finetuning_data.write_table(
            tmp_path / f"{split}.tsv", [("text", "label"), *rows]
        )
    source = reordered([f"LABEL_{number}" for number in range(3)])
    for action in ("--do_eval", "--do_train"):
        text = run(*on(tmp_path, source, action), code=1)
        assert "3 outputs without names" in text
        assert "'travel', 'weather'" in text
    run(*on(tmp_path, source, "--do_train", "--new_head", "--num_train_steps=1"))


def test_going_on_with_other_classes_names_a_way_that_works(
    trained, folder, run, tmp_path
):
    used = shutil.copytree(trained, tmp_path / "used")
    rows = [row for row in finetuning_data.class_rows() if row[1] != "food"]
    finetuning_data.write_table(tmp_path / "train.tsv", [("text", "label"), *rows])
    command = [run_classifier.main, f"--data_dir={tmp_path}", "--task_name=tsv"]
    command += [*finetuning_data.CLASS_FLAGS, "--do_train", "--num_train_steps=101"]
    text = run(*command, f"--output_dir={used}", code=1)
    advice = f"--init_checkpoint={used} --new_head"
    assert advice in text
    run(*command, f"--output_dir={tmp_path}/new", *advice.split())


def test_numbers_and_classes_are_told_apart(trained, folder, run, tmp_path):
    finetuning_data.write_sts_b(tmp_path / "STS-B")
    command = [run_classifier.main, "--task_name=STS-B", f"--data_dir={tmp_path}/STS-B"]
    command += [f"--init_checkpoint={trained}", *finetuning_data.CLASS_FLAGS]
    text = run(*command, "--do_eval", code=1)
    assert "'food', 'travel', 'weather'" in text
    assert "numbers as labels" in text


# Prediction and conversion.


def test_prediction_answers_with_the_names_of_the_config(reordered):
    found = Classifier(str(reordered(["W", "F", "T"])))(TEXTS)
    letters = [label[0].upper() for label in LABELS]
    assert [row["label"] for row in found] == letters


def test_several_labels_of_a_text_have_probabilities_of_their_own(reordered):
    source = reordered(OTHER)
    logits = np.log(
        [list(x["probabilities"].values()) for x in Classifier(str(source))(TEXTS)]
    )
    config = read_json(source / "config.json")
    config["problem_type"] = "multi_label_classification"
    (source / "config.json").write_text(json.dumps(config))
    found = Classifier(str(source))(TEXTS)
    likeliest = [
        max((p, name) for name, p in x["probabilities"].items()) for x in found
    ]
    assert [name for _, name in likeliest] == LABELS
    ours = np.array([list(row["probabilities"].values()) for row in found])
    # Sigmoids: their odds have the same ratios as the shares.
    odds = np.log(ours / (1 - ours))
    np.testing.assert_allclose(
        odds - odds[:, :1], logits - logits[:, :1], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", ["theirs", "model.safetensors", "pytorch_model.bin"])
def test_conversion_writes_the_names(trained, tmp_path, name):
    assert bert_tf(["convert", str(trained), str(tmp_path / "x" / name)]) == 0
    [path] = (tmp_path / "x").rglob("config.json")
    config = read_json(path)
    assert config["id2label"] == dict(zip("012", NAMES, strict=True))
    assert config["label2id"] == {name: place for place, name in enumerate(NAMES)}


def test_names_survive_transformers_to_checkpoint_to_transformers(
    reordered, folder, run, tmp_path
):
    source = reordered(OTHER)
    ours, again = tmp_path / "ours" / "bert_model.ckpt", tmp_path / "again"
    assert bert_tf(["convert", str(source), str(ours)]) == 0
    assert bert_tf(["convert", str(ours), str(again)]) == 0
    configs = [read_json(p / "config.json") for p in (source, again)]
    assert configs[0]["id2label"] == configs[1]["id2label"]
    run(*on(folder / "classes", ours, "--do_eval"))
    assert read_results(tmp_path / "output")["accuracy"] == 1.0
    assert Classifier(str(tmp_path / "ours"))(TEXTS[:1])[0]["label"] == LABELS[0]


def test_a_regression_stays_one(model, run, tmp_path):
    finetuning_data.write_sts_b(tmp_path / "STS-B")
    flags = [*model, *finetuning_data.CLASS_FLAGS, "--task_name=STS-B"]
    flags += [f"--data_dir={tmp_path}/STS-B", "--do_train", "--num_train_steps=1"]
    run(run_classifier.main, *flags)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours" / "bert_model.ckpt"
    assert bert_tf(["convert", f"{tmp_path}/output", str(theirs)]) == 0
    config = read_json(theirs / "config.json")
    assert config["problem_type"] == "regression"
    assert len(config["id2label"]) == 1
    assert bert_tf(["convert", str(theirs), str(ours)]) == 0
    task = read_json(tmp_path / "ours" / "task.json")
    assert task == {"task": "classify", "label_names": [], "problem_type": "regression"}
    # Files without --is_regression, as the model predicts a number.
    rows = [("text", "label"), ("It rained.", 1.5), ("Snow fell.", 0.5)]
    finetuning_data.write_table(tmp_path / "dev.tsv", rows)
    run(*on(tmp_path, ours, "--do_eval", f"--output_dir={tmp_path}/e"))
    assert "pearson" in read_results(tmp_path / "e")


# What an action does not need.


@pytest.mark.parametrize("label", ["-1", "", "NaN", "nan", "?", "1.0"])
def test_labels_of_a_test_file_are_ignored(trained, run, tmp_path, label):
    rows = [(text, label) for text in TEXTS]
    finetuning_data.write_table(tmp_path / "test.tsv", [("text", "label"), *rows])
    run(*on(tmp_path, trained, "--do_predict"))
    expected = [NAMES.index(label) for label in LABELS]
    assert best(tmp_path / "output" / "test_results.tsv") == expected


@pytest.mark.parametrize("label", [-1, None, float("nan"), [], "", True])
def test_labels_of_a_jsonl_test_file_are_ignored(trained, run, tmp_path, label):
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text in TEXTS]
    (tmp_path / "test.jsonl").write_text("".join(lines))
    run(*on(tmp_path, trained, "--do_predict", "--task_name=jsonl"))
    assert len(best(tmp_path / "output" / "test_results.tsv")) == len(TEXTS)


def test_prediction_in_the_folder_of_training_needs_the_test_file_alone(
    trained, run, tmp_path
):
    used = shutil.copytree(trained, tmp_path / "used")
    finetuning_data.write_table(tmp_path / "test.tsv", [("text",), *zip(TEXTS)])
    command = [f"--data_dir={tmp_path}", "--task_name=tsv", "--do_predict"]
    command += [f"--output_dir={used}", *finetuning_data.CLASS_FLAGS]
    run(run_classifier.main, *command)
    expected = [NAMES.index(label) for label in LABELS]
    assert best(used / "test_results.tsv") == expected


def test_the_columns_of_training_are_kept_for_prediction(model, run, tmp_path):
    """The test file alone would be read as a text called text."""
    rows = [("text", "body", "kind"), ("-", "It rained.", "a"), ("-", "Bread.", "b")]
    finetuning_data.write_table(tmp_path / "train.tsv", rows)
    named = ("--text_a_column=body", "--label_column=kind", f"--data_dir={tmp_path}")
    flags = (*finetuning_data.CLASS_FLAGS, "--task_name=tsv")
    train = ("--do_train", "--num_train_steps=1")
    run(run_classifier.main, *model, *named, *flags, *train)
    task = read_json(tmp_path / "output" / "task.json")
    assert task["columns"] == {"text_a": "body", "text_b": "", "label": "kind"}
    (tmp_path / "train.tsv").unlink()
    finetuning_data.write_table(tmp_path / "test.tsv", [r[:2] for r in rows])
    results = []
    for columns in (named[:2], ()):
        run(run_classifier.main, named[2], *columns, *flags, "--do_predict")
        results.append((tmp_path / "output" / "test_results.tsv").read_bytes())
    assert results[0] == results[1]


def test_a_bad_dev_label_is_refused_with_its_line(trained, run, tmp_path):
    rows = [("text", "label"), ("It rained.", "weather"), ("Bread.", "")]
    finetuning_data.write_table(tmp_path / "dev.tsv", rows)
    text = run(*on(tmp_path, trained, "--do_eval"), code=1)
    assert "dev.tsv, line 3" in text


def test_a_model_without_a_classifier_is_named_before_a_missing_train_file(
    questions, run, tmp_path
):
    finetuning_data.write_table(tmp_path / "test.tsv", [("text",), ("It rained.",)])
    text = run(*on(tmp_path, questions, "--do_predict"), code=1)
    assert "without output_weights" in text


SQUAD_FAKES = [
    {"answers": [{"text": "FAKE_ANSWER_1", "answer_start": -1}]},
    {"answers": [{"text": "", "answer_start": -1}]},
    {"answers": None},
    {"is_impossible": False},
    {"id": 101},
]


@pytest.fixture(scope="module")
def questions(folder, model):
    """A folder with a step of a training on questions."""
    output = folder / "questions"
    files = [f"--train_file={folder}/train.json", f"--output_dir={output}"]
    flags = [*model, *finetuning_data.SQUAD_FLAGS, *files, "--do_train"]
    assert run_squad.main(["run", *flags, "--num_train_steps=1"]) == 0
    return output


@pytest.mark.parametrize("change", SQUAD_FAKES)
def test_predicting_answers_needs_none(questions, run, tmp_path, change):
    data = finetuning_data.squad()
    expected = list(finetuning_data.answers())
    data["data"][0]["paragraphs"][0]["qas"][0].update(change)
    expected[0] = str(change.get("id", expected[0]))
    (tmp_path / "test.json").write_text(json.dumps(data))
    flags = [f"--init_checkpoint={questions}", f"--predict_file={tmp_path}/test.json"]
    run(run_squad.main, *flags, *finetuning_data.SQUAD_FLAGS, "--do_predict")
    found = read_json(tmp_path / "output" / "predictions.json")
    assert list(found) == expected


def test_scoring_placeholders_gives_a_warning(questions, run, tmp_path):
    data = finetuning_data.squad()
    data["data"][0]["paragraphs"][0]["qas"][1].update(SQUAD_FAKES[0])
    (tmp_path / "test.json").write_text(json.dumps(data))
    flags = [f"--init_checkpoint={questions}", f"--predict_file={tmp_path}/test.json"]
    text = run(run_squad.main, *flags, *finetuning_data.SQUAD_FLAGS, "--do_eval")
    number = len(finetuning_data.answers())
    assert f"warning: {tmp_path}/test.json: 1 of {number} questions" in text
    second = list(finetuning_data.answers())[1]
    assert f"the first: question {second!r}" in text and "leave out --do_eval" in text


def test_scoring_needs_no_places_of_answers(questions, run, tmp_path):
    data = finetuning_data.squad()
    for paragraph in data["data"][0]["paragraphs"]:
        for question in paragraph["qas"]:
            question["answers"][0]["answer_start"] = -1
    (tmp_path / "dev.json").write_text(json.dumps(data))
    flags = [f"--init_checkpoint={questions}", f"--predict_file={tmp_path}/dev.json"]
    run(run_squad.main, *flags, *finetuning_data.SQUAD_FLAGS, "--do_eval")
    assert "f1" in read_results(tmp_path / "output")


# Folders that were used for another task.


@pytest.fixture(scope="module")
def mrpc(folder, model):
    finetuning_data.write_mrpc(folder / "MRPC")
    output = folder / "mrpc"
    flags = [*model, *finetuning_data.CLASS_FLAGS, "--task_name=MRPC", "--do_train"]
    flags += [f"--data_dir={folder}/MRPC", f"--output_dir={output}"]
    assert run_classifier.main(["run", *flags, "--num_train_steps=1"]) == 0
    return output


@pytest.mark.parametrize("action", ["do_train", "do_eval", "do_predict"])
def test_questions_in_the_folder_of_classes_are_refused(
    mrpc, folder, model, run, tmp_path, action
):
    used = shutil.copytree(mrpc, tmp_path / "used")
    files = [f"--{name}_file={folder}/train.json" for name in ("train", "predict")]
    flags = [*model, *finetuning_data.SQUAD_FLAGS, *files, f"--{action}"]
    flags += ["--num_train_steps=2", "--train_batch_size=3"]
    text = run(run_squad.main, *flags, f"--output_dir={used}", code=1)
    assert "those of classification (MRPC), for SQuAD (1.1)" in text
    assert "batch" not in text
    assert not list(used.glob("squad_windows*"))
    if action == "do_train":
        advice = f"--init_checkpoint={used}"
        assert advice in text
        run(run_squad.main, *flags, f"--output_dir={tmp_path}/new", advice)
        assert "--overwrite_output_dir" in text
        run(run_squad.main, *flags, f"--output_dir={used}", "--overwrite_output_dir")
        assert read_json(used / "task.json")["task"] == "squad"


@pytest.mark.parametrize("action", ["do_train", "do_predict"])
def test_classes_in_the_folder_of_questions_are_refused(
    questions, folder, model, run, action
):
    flags = [*model, *finetuning_data.CLASS_FLAGS, f"--data_dir={folder}/classes"]
    flags += ["--task_name=tsv", f"--{action}", f"--output_dir={questions}"]
    text = run(run_classifier.main, *flags, code=1)
    assert "those of SQuAD (1.1), for classification (tsv)" in text


@pytest.mark.parametrize("action", ["do_train", "do_eval"])
def test_another_task_with_classes_of_the_same_names_is_refused(
    mrpc, folder, model, run, action
):
    finetuning_data.write_mrpc(folder / "WNLI")
    flags = [*model, *finetuning_data.CLASS_FLAGS, f"--data_dir={folder}/WNLI"]
    flags += ["--task_name=WNLI", f"--{action}", f"--output_dir={mrpc}"]
    text = run(run_classifier.main, *flags, code=1)
    assert "those of classification (MRPC), for classification (WNLI)" in text


def test_pretraining_in_the_folder_of_classes_is_refused(mrpc, model, run, tmp_path):
    flags = [*model, f"--input_files_dir={tmp_path}", f"--output_dir={mrpc}"]
    text = run(run_pretraining.main, *flags, "--do_train", code=1)
    assert "those of classification (MRPC), for pre-training" in text


@pytest.fixture
def pretrained(mrpc, tmp_path):
    """A checkpoint that a pre-training has left."""
    output = tmp_path / "pretrained"
    shutil.copytree(mrpc, output)
    (output / "task.json").unlink()
    for path in output.glob("model.ckpt-*.json"):
        manifest = read_json(path)
        del manifest["config"]["task"]
        # Of an earlier version: without a checksum of its own.
        del manifest["sha256"]
        path.write_text(json.dumps(manifest | {"format": 1}))
    return output


@pytest.mark.parametrize("action", ["do_train", "do_predict"])
def test_fine_tuning_in_the_folder_of_a_pretraining_is_refused(
    pretrained, folder, model, run, action
):
    squad = [f"--{name}_file={folder}/train.json" for name in ("train", "predict")]
    classes = [f"--data_dir={folder}/classes", "--task_name=tsv"]
    jobs = {
        "SQuAD (1.1)": (run_squad.main, *finetuning_data.SQUAD_FLAGS, *squad),
        "classification (tsv)": (
            run_classifier.main,
            *finetuning_data.CLASS_FLAGS,
            *classes,
        ),
    }
    for name, command in jobs.items():
        flags = (*model, f"--{action}", f"--output_dir={pretrained}")
        text = run(*command, *flags, code=1)
        assert f"those of pre-training, for {name}" in text


def test_another_version_of_squad_in_the_same_folder_is_refused(
    questions, folder, model, run
):
    flags = [*model, *finetuning_data.SQUAD_FLAGS, f"--train_file={folder}/train.json"]
    flags += ["--do_train", "--version_2_with_negative", "--train_batch_size=5"]
    text = run(run_squad.main, *flags, f"--output_dir={questions}", code=1)
    assert "those of SQuAD (1.1), for SQuAD (2.0)" in text


def test_files_of_ones_own_may_change_their_format(trained, run, tmp_path):
    used = shutil.copytree(trained, tmp_path / "used")
    lines = [
        json.dumps({"text": text, "label": label}) + "\n"
        for text, label in finetuning_data.class_rows()
    ]
    (tmp_path / "dev.jsonl").write_text("".join(lines))
    flags = [f"--data_dir={tmp_path}", "--task_name=jsonl", "--do_eval"]
    flags += [f"--output_dir={used}", *finetuning_data.CLASS_FLAGS]
    run(run_classifier.main, *flags)
    assert read_results(used)["accuracy"] == 1.0


# What training says of its data.


@pytest.mark.parametrize(
    "more, words",
    [
        ((), ["11 questions; ", " windows have no answer ("]),
        (["--doc_stride=128", "--max_seq_length=24"], ["no window holds the whole"]),
    ],
)
def test_training_on_questions_counts_windows_without_an_answer(
    folder, model, run, more, words
):
    flags = [*model, *finetuning_data.SQUAD_FLAGS, f"--train_file={folder}/train.json"]
    text = run(run_squad.main, *flags, "--do_train", "--num_train_steps=1", *more)
    assert all(word in text for word in words)


def test_mostly_unanswered_windows_are_warned_of(folder, model, run, tmp_path):
    data = finetuning_data.squad()
    for paragraph in data["data"][0]["paragraphs"]:
        paragraph["context"] += " The old library." * 100
    (tmp_path / "long.json").write_text(json.dumps(data))
    flags = [*model, *finetuning_data.SQUAD_FLAGS, f"--train_file={tmp_path}/long.json"]
    text = run(run_squad.main, *flags, "--do_train", "--num_train_steps=1")
    assert "of the windows have no answer, more than 90%" in text
    # What the warning says is done.
    text = run(
        *(run_squad.main, *flags, "--do_train", "--num_train_steps=1"),
        *("--max_seq_length=512", f"--output_dir={tmp_path}/longer"),
    )
    assert "more than 90%" not in text


def test_very_many_windows_are_warned_of_with_the_stride(
    questions, folder, run, tmp_path
):
    data = finetuning_data.squad()
    del data["data"][0]["paragraphs"][1:]
    data["data"][0]["paragraphs"][0]["context"] += " The old library." * 30
    (tmp_path / "long.json").write_text(json.dumps(data))
    flags = [f"--init_checkpoint={questions}", f"--predict_file={tmp_path}/long.json"]
    flags += [*finetuning_data.SQUAD_FLAGS, "--do_predict"]
    text = run(run_squad.main, *flags, "--doc_stride=1")
    assert "--doc_stride larger than 1" in text
    assert "there are fewer" not in run(run_squad.main, *flags)


def test_labels_that_differ_in_white_space_are_reported(model, run, tmp_path):
    rows = [("text", "label"), ("It rained.", "a"), ("Snow.", "a "), ("Bread.", "b")]
    finetuning_data.write_table(tmp_path / "train.tsv", rows)
    flags = [*model, *finetuning_data.CLASS_FLAGS, f"--data_dir={tmp_path}"]
    flags += ["--task_name=tsv", "--do_train", "--num_train_steps=1"]
    text = run(run_classifier.main, *flags)
    assert "warning: " in text
    assert "'a '" in text
    assert "predicting a, b" in text
