"""`python -m bert_tf predict` and its Python API, against what the scripts write."""

import csv
import io
import json
import os
import re
import shutil
import threading

import numpy as np
import pytest
import runs
import tensorflow as tf
from conftest import TINY

from bert_tf.cli import main
from bert_tf.config import BertConfig
from bert_tf.errors import NonFiniteError
from bert_tf.features import FeatureExtractor
from bert_tf.interop.pretrained import from_pretrained, save_pretrained
from bert_tf.modeling.models import build_encoder_model
from bert_tf.modeling.pretraining import build_pretraining_model
from bert_tf.predictors import Classifier, MaskFiller, QuestionAnswerer
from bert_tf.tf_checkpoint import load_tf
from bert_tf.tf_checkpoint_writer import save_tf

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = (
    "the river is long and cold a bridge was built in spring . ? who where it".split()
)
TEXTS = ["the river is cold", "a bridge was built", "it is long and cold", "who is it"]
CONTEXT = "The river is long and cold. A bridge was built in spring."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A vocabulary and an architecture for it."""
    path = tmp_path_factory.mktemp("model")
    vocabulary = SPECIAL + WORDS
    (path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    sizes = {"vocab_size": len(vocabulary), "max_position_embeddings": 64}
    (path / "bert_config.json").write_text(json.dumps(TINY | sizes))
    return path


def arguments(folder, output_dir, **more):
    values = {
        "bert_config_file": folder / "bert_config.json",
        "vocab_file": folder / "vocab.txt",
        "output_dir": output_dir,
        "num_train_steps": 2,
        "train_batch_size": 4,
        "do_train": True,
        "do_predict": True,
        "max_seq_length": 32,
        **more,
    }
    return [f"--{name}={value}" for name, value in values.items()]


@pytest.fixture(scope="module")
def classes(folder, tmp_path_factory):
    """The output of run_classifier, whose test file is its train file."""
    data = tmp_path_factory.mktemp("data")
    lines = [f"{text}\t{'warm' if n % 2 else 'cold'}" for n, text in enumerate(TEXTS)]
    for split in ("train", "test"):
        (data / f"{split}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    output = tmp_path_factory.mktemp("classes")
    more = {"task_name": "tsv", "data_dir": data}
    runs.run("classifier", *arguments(folder, output, **more))
    return output


@pytest.fixture(scope="module")
def answers(folder, tmp_path_factory):
    """The output of run_squad."""
    questions = [
        {
            "id": str(number),
            "question": question,
            "answers": [{"text": text, "answer_start": CONTEXT.index(text)}],
        }
        for number, (question, text) in enumerate(
            [("Where is it?", "river"), ("Who built a bridge?", "spring")]
        )
    ]
    file = tmp_path_factory.mktemp("data") / "train.json"
    paragraphs = [{"context": CONTEXT, "qas": questions}]
    file.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    output = tmp_path_factory.mktemp("answers")
    more = {"train_file": file, "predict_file": file, "max_query_length": 16}
    runs.run("squad", *arguments(folder, output, **more))
    return output


def run(capsys, monkeypatch, *words, text=""):
    """Exit code, lines of JSON and errors of the command."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    code = main(["predict", *map(str, words)])
    captured = capsys.readouterr()
    return code, [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_classes_are_those_of_test_results(classes):
    table = (classes / "test_results.tsv").read_text().splitlines()
    expected = [list(map(float, line.split("\t"))) for line in table]
    found = Classifier(str(classes))(TEXTS)
    values = [
        [row["probabilities"][name] for name in ("cold", "warm")] for row in found
    ]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_rows_are_not_longer_than_the_model_where_no_file_says(
    classes, answers, tmp_path
):
    """Of models of other programs: 128 and 384 tokens are more than 64 positions."""
    for model in (classes, answers):
        leave_out = shutil.ignore_patterns("task.json")
        shutil.copytree(model, tmp_path / model.name, ignore=leave_out)
    classify = Classifier(str(tmp_path / classes.name))
    assert classify.max_seq_length == 64
    # [CLS], 62 words, [SEP]: the others are cut off.
    long, cut = classify([" ".join(WORDS[:4] * n) for n in (50, 16)])
    assert long["probabilities"] == pytest.approx(cut["probabilities"])
    [found] = QuestionAnswerer(str(tmp_path / answers.name))(
        [("Where is it? " * 30, CONTEXT * 10)]
    )
    assert found["answer"] in CONTEXT * 10


def test_a_model_that_overflows_predicts_nothing(classes, tmp_path):
    for name in ("vocab.txt", "bert_config.json", "task.json"):
        shutil.copy(classes / name, tmp_path)
    tensors = load_tf(str(classes / "model.ckpt-2"), list)
    # The pooler gives 1 for each of 8 numbers, whose sum is beyond float32.
    tensors["bert/pooler/dense/bias"] = np.full(8, 100.0, np.float32)
    tensors["output_weights"] = np.full((2, 8), 3e38, np.float32)
    save_tf(str(tmp_path / "model.ckpt-2"), tensors)
    with pytest.raises(NonFiniteError, match="computes NaN or infinity.*another"):
        Classifier(str(tmp_path))(TEXTS)


def test_a_length_in_task_json_beyond_the_model_is_refused(classes, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(classes, model)
    task = json.loads((model / "task.json").read_text())
    for length in (65, "32"):
        (model / "task.json").write_text(json.dumps(task | {"max_seq_length": length}))
        with pytest.raises(ValueError, match="from 3 to .* max_position_embeddings=64"):
            Classifier(str(model))


def test_predictions_of_tests_have_names_and_texts_in_a_second_file(classes):
    """The columns of the published file, with a header; pandas reads it as it is."""
    with open(classes / "test_predictions.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["text_a"] for row in rows] == TEXTS
    assert [*rows[0]] == ["text_a", "label", "cold", "warm"]
    table = (classes / "test_results.tsv").read_text().splitlines()
    for row, line in zip(rows, table, strict=True):
        assert line == f"{row['cold']}\t{row['warm']}"
        values = {name: float(row[name]) for name in ("cold", "warm")}
        assert row["label"] == max(values, key=values.get)


def test_a_single_input_is_that_text_and_not_its_characters(classes, answers, filler):
    classify = Classifier(str(classes))
    assert classify(TEXTS[0]) == classify([TEXTS[0]])
    assert classify(text for text in TEXTS[:1]) == classify([TEXTS[0]])
    assert classify("") == classify([""]) and classify([]) == []
    answer = QuestionAnswerer(str(answers))
    assert answer(("who", CONTEXT)) == answer([("who", CONTEXT)])
    assert answer(["who", CONTEXT]) == answer([("who", CONTEXT)])
    fill = MaskFiller(str(filler))
    assert fill(GOOD) == fill([GOOD])


def test_vectors_are_those_of_a_single_text_and_of_any_model(classes):
    extract = FeatureExtractor(str(classes), layers=[-1], max_seq_length=32)
    [(tokens, vectors)] = extract(TEXTS[0])
    assert tokens == ["[CLS]", *TEXTS[0].split(), "[SEP]"]
    [(_, again)] = extract([TEXTS[0]])
    np.testing.assert_array_equal(vectors, again)
    with pytest.raises(ValueError, match="Input 0 must be a text or a pair of texts"):
        [*extract([3])]


@pytest.mark.parametrize("wrong", [[1], [None], [("a", "b", "c")], [["a", 1]], [b"a"]])
def test_an_input_that_is_no_text_is_named(classes, wrong):
    classify = Classifier(str(classes))
    with pytest.raises(ValueError, match="Input 1 must be a text or a pair of texts"):
        classify(["good", *wrong])


def test_a_question_without_a_context_and_a_pair_with_masks_are_refused(
    answers, filler
):
    with pytest.raises(ValueError, match="must have a context. Received: 'who'"):
        QuestionAnswerer(str(answers))("who")
    with pytest.raises(ValueError, match="Input 0 must be a text. Received"):
        MaskFiller(str(filler))([(GOOD, GOOD)])


def test_the_training_file_is_predicted_by_its_columns(
    classes, capsys, monkeypatch, tmp_path
):
    rows = [f"{n}\t{text}\tcold" for n, text in enumerate(TEXTS)]
    (tmp_path / "train.tsv").write_text("\n".join(["id\ttext\tlabel", *rows]) + "\n")
    lines = [json.dumps({"text": text, "label": "cold", "id": 1}) for text in TEXTS]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    expected = Classifier(str(classes))(TEXTS)
    for name in ("train.tsv", "train.jsonl"):
        command = ["classify", "--model", classes, "--input", tmp_path / name]
        code, found, _ = run(capsys, monkeypatch, *command)
        assert (code, [row["text_a"] for row in found]) == (0, TEXTS)
        assert {row["given_label"] for row in found} == {"cold"}
        for row, other in zip(found, expected, strict=True):
            assert row["label"] == other["label"]
            assert row["probabilities"] == pytest.approx(other["probabilities"])


def test_the_columns_of_the_training_come_before_common_ones(
    classes, capsys, monkeypatch, tmp_path
):
    model = shutil.copytree(classes, tmp_path / "model")
    task = json.loads((model / "task.json").read_text())
    task["columns"] = {"text_a": "body", "text_b": "", "label": "kind"}
    (model / "task.json").write_text(json.dumps(task))
    (tmp_path / "x.tsv").write_text("text\tbody\tkind\nno\tthe river\twarm\n")
    command = ["classify", "--model", model, "--input", tmp_path / "x.tsv"]
    _, [found], _ = run(capsys, monkeypatch, *command)
    assert (found["text_a"], found["given_label"]) == ("the river", "warm")


@pytest.mark.parametrize(
    "task_name, name, lines, texts",
    [
        (
            "CoLA",
            "train.tsv",
            ["gj04\t1\t*\tthe river", "x\t0\t\tit is"],
            ["the river"],
        ),
        ("CoLA", "test.tsv", ["index\tsentence", "0\tthe river"], ["the river"]),
        ("SST-2", "dev.tsv", ["sentence\tlabel", "the river\t1"], ["the river"]),
        (
            "MRPC",
            "msr_paraphrase_train.txt",
            [
                "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
                "1\t5\t6\tthe river\tit is",
            ],
            ["the river", "it is"],
        ),
    ],
)
def test_files_of_glue_are_read_as_published(
    classes, capsys, monkeypatch, tmp_path, task_name, name, lines, texts
):
    model = shutil.copytree(classes, tmp_path / "model")
    task = json.loads((model / "task.json").read_text()) | {"task_name": task_name}
    del task["columns"]
    (model / "task.json").write_text(json.dumps(task))
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    command = ["classify", "--model", model, "--input", tmp_path / name]
    code, [found, *_], _ = run(capsys, monkeypatch, *command)
    assert code == 0
    assert [found[n] for n in ("text_a", "text_b") if n in found] == texts


def test_a_table_without_a_known_column_is_refused_with_the_remedy(
    classes, capsys, monkeypatch, tmp_path
):
    path = tmp_path / "x.tsv"
    path.write_text("one\ttwo\nthe river\tit is\n")
    command = ["classify", "--model", classes, "--input", path]
    code, lines, error = run(capsys, monkeypatch, *command)
    assert (code, lines) == (1, [])
    assert "line 1: no column has the name of a text. Received: 'one', 'two'" in error
    assert "text_b" not in error  # The model was trained on single texts.
    path.write_text("text_a\ttwo\nthe river\tit is\n")  # As it says.
    _, [found], _ = run(capsys, monkeypatch, *command)
    assert (found["text_a"], found["two"]) == ("the river", "it is")


def test_an_output_file_of_classes_is_refused_with_the_way_to_write_one(
    classes, capsys, monkeypatch
):
    command = ["classify", "--model", classes, "--output=my p.jsonl", "the river"]
    code, found, error = run(capsys, monkeypatch, *command)
    assert (code, found) == (1, [])
    assert "--output is for embed. For a file of JSON lines, leave it out" in error
    assert "`> 'my p.jsonl'`" in error


def test_each_text_of_the_command_line_is_predicted(classes, capsys, monkeypatch):
    command = ["classify", "--model", classes, *TEXTS]
    code, found, _ = run(capsys, monkeypatch, *command)
    assert (code, [row["text_a"] for row in found]) == (0, TEXTS)
    assert not any("text_b" in row for row in found)


def test_a_second_text_in_a_line_of_json_is_refused(
    classes, capsys, monkeypatch, tmp_path
):
    path = tmp_path / "x.jsonl"
    path.write_text('"it is"\n{"text_a": "the river", "text_b": "it is"}\n')
    command = ["classify", "--model", classes, "--input", path]
    code, found, error = run(capsys, monkeypatch, *command)
    assert code == 1
    assert f"{path}, line 2: the model was trained on single texts" in error


def test_lines_of_a_file_in_one_column_are_texts(
    classes, capsys, monkeypatch, tmp_path
):
    (tmp_path / "x.tsv").write_text("the river\nit is\n")
    command = ["classify", "--model", classes, "--input", tmp_path / "x.tsv"]
    _, found, _ = run(capsys, monkeypatch, *command)
    assert [row["text_a"] for row in found] == ["the river", "it is"]


def test_a_file_of_squad_is_answered(answers, capsys, monkeypatch, tmp_path):
    qas = [{"id": n, "question": q} for n, q in enumerate(["who", "where is it"])]
    path = tmp_path / "dev.json"
    paragraphs = [{"context": CONTEXT, "qas": qas}]
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    command = ["squad", "--model", answers, "--input", path]
    code, found, _ = run(capsys, monkeypatch, *command)
    assert (code, [row["id"] for row in found]) == (0, ["0", "1"])
    again = QuestionAnswerer(str(answers))([("who", CONTEXT), ("where is it", CONTEXT)])
    assert [row["answer"] for row in found] == [row["answer"] for row in again]
    path.write_text(json.dumps({"question": "who", "context": CONTEXT}) + "\n")
    _, [found], _ = run(capsys, monkeypatch, *command)
    assert found["answer"] == again[0]["answer"]


def test_an_answer_is_printed_before_the_next_line_comes(classes, monkeypatch):
    """The second line is typed after the first answer."""
    answered, was_answered = threading.Event(), []

    class Output(io.StringIO):
        def flush(self):
            answered.set()

    reading, writing = os.pipe()

    def type_lines():
        with open(writing, "w") as lines:
            print(TEXTS[0], file=lines, flush=True)
            was_answered.append(answered.wait(timeout=60))
            print(TEXTS[1], file=lines, flush=True)

    output = Output()
    thread = threading.Thread(target=type_lines, daemon=True)
    with open(reading) as lines:
        monkeypatch.setattr("sys.stdin", lines)
        monkeypatch.setattr("sys.stdout", output)
        thread.start()
        assert main(["predict", "classify", "--model", str(classes)]) == 0
    thread.join()
    assert was_answered == [True]
    found = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [row["text_a"] for row in found] == TEXTS[:2]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_prompt_and_may_correct_a_line(filler, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal(f"no mask\n\n{GOOD}\n"))
    assert main(["predict", "fill-mask", "--model", str(filler)]) == 0
    captured = capsys.readouterr()
    [line] = captured.out.splitlines()
    assert json.loads(line)["text"] == GOOD
    assert "Type a text with [MASK] per line; Ctrl-D ends." in captured.err
    assert captured.err.count("> ") == 4
    assert "error: The line: A text must hold [MASK]" in captured.err


def test_answers_are_those_of_predictions_json(answers):
    expected = json.loads((answers / "predictions.json").read_text())
    questions = [("Where is it?", CONTEXT), ("Who built a bridge?", CONTEXT)]
    found = QuestionAnswerer(str(answers))(questions)
    assert [row["answer"] for row in found] == list(expected.values())
    nbest = json.loads((answers / "nbest_predictions.json").read_text())
    assert found[0]["probability"] == pytest.approx(nbest["0"][0]["probability"], 1e-4)


def test_texts_from_standard_input_file_and_command_line(
    classes, capsys, monkeypatch, tmp_path
):
    command = ["classify", "--model", classes]
    code, one, _ = run(capsys, monkeypatch, *command, TEXTS[0])
    assert code == 0
    lines = f'{TEXTS[0]}\n\n{{"text_a": "{TEXTS[0]}", "number": 3}}\n'
    _, two, _ = run(capsys, monkeypatch, *command, text=lines)
    (tmp_path / "lines").write_text(lines)
    _, file, _ = run(capsys, monkeypatch, *command, "--input", tmp_path / "lines")
    assert two == file
    assert [row["label"] for row in two] == [one[0]["label"]] * 2
    assert two[1]["number"] == 3


@pytest.fixture(scope="module")
def pretrained(folder, tmp_path_factory):
    """New weights of pre-training, with vocabulary and architecture."""
    tmp_path = tmp_path_factory.mktemp("pretrained")
    config = BertConfig.from_json_file(str(folder / "bert_config.json"))
    model = build_pretraining_model(config, seed=5)
    names = {v.path: tf.convert_to_tensor(v) for v in model.trainable_variables}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "bert_model.ckpt"),
        tensor_names=list(names),
        shape_and_slices=[""] * len(names),
        tensors=list(names.values()),
    )
    for name in ("vocab.txt", "bert_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    return tmp_path


def test_masks_are_filled_by_the_probabilities_of_the_model(
    pretrained, capsys, monkeypatch
):
    tmp_path = pretrained
    text = "the [MASK] is long [MASK]"
    [[first, second]] = MaskFiller(str(tmp_path))([text], num_words=3)
    vocabulary = SPECIAL + WORDS
    words = ["[CLS]", "the", "[MASK]", "is", "long", "[MASK]", "[SEP]"]
    ids = np.asarray([[vocabulary.index(word) for word in words]], np.int32)
    whole = from_pretrained(str(tmp_path), "pretraining")
    logits = whole(
        {
            "input_ids": ids,
            "input_mask": np.ones_like(ids),
            "segment_ids": np.zeros_like(ids),
            "positions": np.arange(7, dtype=np.int32)[None],
            "next_sentence_positions": np.zeros((1, 1), np.int32),
            "masked_lm_positions": np.asarray([[2, 5]], np.int32),
        }
    )["masked_lm_logits"].numpy()[0]
    for found, row in zip((first, second), np.exp(logits), strict=True):
        order = np.argsort(-row)[:3]
        assert [entry["token"] for entry in found] == [vocabulary[i] for i in order]
        expected = row[order] / row.sum()
        values = [entry["probability"] for entry in found]
        np.testing.assert_allclose(values, expected, rtol=1e-4)
    _, [line], _ = run(capsys, monkeypatch, "fill-mask", text, "--model", tmp_path)
    assert line["masks"][0][0]["token"] == first[0]["token"]


@pytest.mark.parametrize(
    "text, pattern",
    [
        (
            '{"question": "who?"}',
            "line 1: must be a JSON object with the texts question",
        ),
        ("just words", "line 1: must be a JSON object"),
        ('{"question": 1, "context": "x"}', "line 1"),
    ],
)
def test_a_line_that_is_wrong_is_named(answers, capsys, monkeypatch, text, pattern):
    code, _, error = run(capsys, monkeypatch, "squad", "--model", answers, text=text)
    assert code == 1
    assert pattern in error
    assert len(error.splitlines()) == 1


KINDS = {"fill-mask": "filler", "squad": "answers", "classify": "classes"}


@pytest.mark.parametrize(
    "kind, wanted, has_description",
    [
        *(("squad", "classify", True), ("classify", "squad", True)),
        *(("classify", "fill-mask", True), ("fill-mask", "classify", False)),
        *(("squad", "classify", False), ("classify", "squad", False)),
        ("squad", "fill-mask", False),
    ],
)
def test_a_model_for_another_prediction_names_its_command(
    kind, wanted, has_description, request, capsys, monkeypatch, tmp_path
):
    """By its task.json or, as of other programs' weights, by its head."""
    model = shutil.copytree(request.getfixturevalue(KINDS[kind]), tmp_path / "model")
    if not has_description:
        (model / "task.json").unlink(missing_ok=True)
    texts = {"squad": ["who", CONTEXT]}.get(wanted, ["the [MASK]"])
    command = [wanted, *texts, "--model", model]
    code, lines, error = run(capsys, monkeypatch, *command)
    assert (code, lines) == (1, [])
    assert f"`model` must be one for {wanted}. Received: {model} with" in error
    assert f"Use `python -m bert_tf predict {kind}` for it" in error


def test_an_encoder_predicts_nothing_and_says_so(folder, capsys, monkeypatch, tmp_path):
    config = BertConfig.from_json_file(str(folder / "bert_config.json"))
    encoder = build_encoder_model(config)
    save_pretrained(encoder, tmp_path, vocab_file=str(folder / "vocab.txt"))
    lines = tmp_path / "lines.txt"
    lines.write_text(f"{GOOD}\n")
    for words in (["squad", "a", "b"], ["fill-mask", "--input", lines]):
        code, _, error = run(capsys, monkeypatch, *words, "--model", tmp_path)
        assert code == 1 and "error: `model` must be one for" in error
        assert "without a head, an encoder. Pass a model" in error


def test_a_text_without_a_mask_is_refused(filler, capsys, monkeypatch):
    code, _, error = run(capsys, monkeypatch, "fill-mask", "x", "--model", filler)
    assert code == 1
    assert len(error.splitlines()) == 1


def test_a_vocabulary_with_more_words_than_the_model_is_refused(
    classes, capsys, monkeypatch, tmp_path
):
    words = (classes / "vocab.txt").read_text() + "more\nwords\n"
    (tmp_path / "vocab.txt").write_text(words)
    code, _, error = run(
        *(capsys, monkeypatch, "classify", "x", "--model", classes),
        *("--vocab_file", tmp_path / "vocab.txt"),
    )
    assert code == 1
    assert "words, but the architecture has vocab_size=" in error


@pytest.fixture(scope="module")
def filler(folder, tmp_path_factory):
    """Random weights of pre-training, for fill-mask."""
    path = tmp_path_factory.mktemp("filler")
    config = BertConfig.from_json_file(str(folder / "bert_config.json"))
    model = build_pretraining_model(config, seed=5)
    save_tf(
        str(path / "bert_model.ckpt"),
        {v.path: v.numpy() for v in model.trainable_variables},
    )
    for name in ("vocab.txt", "bert_config.json"):
        (path / name).write_bytes((folder / name).read_bytes())
    return path


GOOD = "the [MASK] is long"


@pytest.mark.parametrize(
    "bad, message",
    [
        (b"a [mask] here", "A text must hold [MASK]. Received: 'a [mask] here'"),
        (b"[MASK] " + b"the " * 80, "have at most 64 tokens"),
        (b'{"text": "the [MASK]"', "must be a JSON object with the texts text"),
        (b'{"text": 3}', "must be a JSON object with the texts text"),
        (b"the [MASK] \xff", "not UTF-8"),
    ],
)
@pytest.mark.parametrize("at_once", [1024, 1, 2])
def test_lines_before_a_bad_one_are_answered_and_it_is_named(
    filler, capsys, monkeypatch, tmp_path, bad, message, at_once
):
    monkeypatch.setattr("bert_tf.cli.predict._AT_ONCE", at_once)
    path = tmp_path / "in.txt"
    good = GOOD.encode()
    path.write_bytes(b"\n".join([good, good, b"", bad, good]) + b"\n")
    command = ["fill-mask", "--model", filler, "--input", path]
    code, lines, error = run(capsys, monkeypatch, *command)
    assert code == 1
    assert [line["text"] for line in lines] == [GOOD, GOOD]
    assert f"error: {path}, line 4: " in error and message in error


def test_standard_input_is_named(filler, capsys, monkeypatch):
    command = ["fill-mask", "--model", filler]
    code, lines, error = run(capsys, monkeypatch, *command, text=f"{GOOD}\nnone\n")
    assert code == 1 and len(lines) == 1
    assert "standard input, line 2: " in error


@pytest.mark.parametrize("task", ["squad", "classify"])
def test_bad_lines_of_the_other_tasks_are_named_too(
    answers, classes, capsys, monkeypatch, task
):
    model = answers if task == "squad" else classes
    good = {"question": "who", "context": CONTEXT, "text_a": TEXTS[0]}
    text = f'{json.dumps(good)}\n{{"text_a": 1}}\n'
    code, lines, error = run(capsys, monkeypatch, task, "--model", model, text=text)
    assert code == 1 and len(lines) == 1
    assert "standard input, line 2: must be a JSON object" in error


@pytest.mark.parametrize("name, reason", [("no", "not exist"), ("", "is a folder")])
def test_an_input_that_is_no_file_is_named(
    filler, capsys, monkeypatch, tmp_path, name, reason
):
    command = ["fill-mask", "--model", filler, "--input", tmp_path / name]
    code, lines, error = run(capsys, monkeypatch, *command)
    assert (code, lines) == (1, [])
    assert f"`input` must be a file. Received: input={tmp_path}" in error
    assert reason in error


def test_a_file_without_line_ends_is_refused(filler, capsys, monkeypatch, tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.write(b"The [MASK] sat. " * 300)  # Of zeros alone it is refused before.
        file.truncate(1 << 40)
    command = ["fill-mask", "--model", filler, "--input", tmp_path / "sparse"]
    code, lines, error = run(capsys, monkeypatch, *command)
    assert (code, lines) == (1, [])
    assert "sparse, line 1: a line must have at most 16,777,216" in error


def test_classes_without_names_are_reported(
    classes, capsys, monkeypatch, tmp_path, caplog
):
    model = shutil.copytree(classes, tmp_path / "model")
    (model / "task.json").unlink()
    code, [line], _ = run(capsys, monkeypatch, "classify", "x", "--model", model)
    assert code == 0 and sorted(line["probabilities"]) == ["0", "1"]
    assert "no file names the 2 classes" in caplog.text


def test_no_text_at_all_is_reported(filler, capsys, monkeypatch):
    code, lines, error = run(capsys, monkeypatch, "fill-mask", "--model", filler)
    assert (code, lines) == (0, [])
    assert "standard input holds no text" in error


def test_half_a_surrogate_pair_is_refused_with_its_line(filler, capsys, monkeypatch):
    text = '{"text": "the [MASK] \\ud800"}\n'
    command = ["fill-mask", "--model", filler]
    code, lines, error = run(capsys, monkeypatch, *command, text=text)
    assert (code, lines) == (1, [])
    assert "line 1" in error and "half of a surrogate pair" in error


def test_a_vocabulary_in_another_order_is_refused(
    filler, folder, capsys, monkeypatch, tmp_path
):
    words = (folder / "vocab.txt").read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:5], *words[:4:-1]]))
    command = ["fill-mask", GOOD, "--model", filler]
    command += ["--vocab_file", tmp_path / "vocab.txt"]
    code, _, error = run(capsys, monkeypatch, *command)
    assert code == 1 and "lines differ, first line 6" in error


def test_a_table_padded_for_its_vocabulary_is_used(folder, tmp_path):
    """21 words in a table of 64 rows, of which the last 43 are padding."""
    values = json.loads((folder / "bert_config.json").read_text())
    config = BertConfig(**values | {"vocab_size": 64})
    model = build_pretraining_model(config, seed=5)
    save_tf(
        str(tmp_path / "bert_model.ckpt"),
        {v.path: v.numpy() for v in model.trainable_variables},
    )
    (tmp_path / "bert_config.json").write_text(json.dumps(config.to_dict()))
    (tmp_path / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    [[found]] = MaskFiller(str(tmp_path))([GOOD], num_words=64)
    assert {entry["token"] for entry in found} == set(SPECIAL + WORDS)


def test_blank_contexts_and_questions_have_no_answer(answers, capsys, monkeypatch):
    lines = [("who", ""), ("", CONTEXT), ("who", " \u200b "), ("who", CONTEXT)]
    text = "\n".join(json.dumps({"question": q, "context": c}) for q, c in lines)
    command = ["squad", "--model", answers]
    code, found, error = run(capsys, monkeypatch, *command, text=text)
    assert (code, error) == (0, "")
    assert [found[0]["answer"], found[2]["answer"]] == ["", ""]


def test_a_text_without_words_is_classified(classes, capsys, monkeypatch):
    command = ["classify", "--model", classes]
    text = '{"text_a": ""}\n{"text_a": " ", "text_b": null}\n'
    code, found, _ = run(capsys, monkeypatch, *command, text=text)
    assert code == 0 and len(found) == 2


FIGURES = r"(Throughput|Latency) .* \((sentences/sec|ms)\) = [\d.]+"


def speed_lines(text):
    """The lines about speed: the first, and those of figures."""
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("Speed of "))
    assert all(re.fullmatch(FIGURES, line) for line in lines[first + 1 : first + 6])
    return lines[first]


@pytest.mark.parametrize("task", ["classify", "squad", "fill-mask"])
def test_benchmark_prints_figures_of_each_task(
    task, classes, answers, folder, capsys, monkeypatch, request
):
    if task == "fill-mask":
        model = request.getfixturevalue("pretrained")
        text = "the [MASK] is long\nwho [MASK] it built a bridge\n"
    elif task == "squad":
        model = answers
        text = json.dumps({"question": "Where is it?", "context": CONTEXT})
    else:
        model, text = classes, "\n".join(TEXTS)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    words = ["predict", task, "--model", str(model), "--batch_size=3", "--benchmark"]
    assert main(words) == 0
    line = speed_lines(capsys.readouterr().out)
    assert line.startswith(f"Speed of {task}: 120 sequences in 40 batches of 3; left")


def test_benchmark_of_no_text_is_a_warning(classes, capsys, monkeypatch):
    code, lines, errors = run(
        capsys, monkeypatch, "classify", "--model", classes, "--benchmark"
    )
    assert (code, lines) == (0, [])
    assert "holds no text" in errors


def test_scripts_report_the_speed_of_prediction(
    folder, classes, answers, tmp_path, capsys
):
    """Three batches of two rows, of which the first traces the model."""
    data = tmp_path / "data"
    data.mkdir()
    rows = ["text\tlabel", *(f"{text}\tcold" for text in TEXTS + TEXTS[:1])]
    (data / "test.tsv").write_text("\n".join(rows) + "\n")
    shutil.copytree(classes, tmp_path / "run")
    more = {"task_name": "tsv", "data_dir": data, "predict_batch_size": 2}
    more |= {"do_train": False}
    runs.run("classifier", *arguments(folder, tmp_path / "run", **more))
    line = speed_lines(capsys.readouterr().out)
    assert line == (
        "Speed of prediction of test: 3 sequences in 2 batches of 2; left out: 1 "
        "batch, which traced the model."
    )
    summary = runs.read_log(tmp_path / "run")[-1]
    assert summary["step"] == []
    names = ["latency_mean", "latency_p50", "latency_p95", "latency_p99"]
    assert [*summary["data"]] == ["throughput_val", *names]
