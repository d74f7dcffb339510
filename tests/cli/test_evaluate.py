"""`python -m bert_tf evaluate suite`: the table, its JSON, and wrong input."""

import json
import re

import numpy as np
import pytest
from conftest import TINY
from interop.tiny_bert import (
    encoder_shapes,
    pretraining_shapes,
    random_tensors,
    write_tf1,
)

from bert_tf.cli import main
from bert_tf.config import BertConfig
from bert_tf.interop import weight_files

# Pairs of letters, which are the words of the tiny vocabulary. Both sentences of the
# last one are the same tokens to an uncased model.
PAIRS = [("a b c", "a c b"), ("d e", "e d"), ("f g h i", "f g i h"), ("a b", "A b")]
CONFIG = BertConfig(**TINY)


def write_pairs(path, pairs=PAIRS):
    rows = [
        {
            "sentence_good": good,
            "sentence_bad": bad,
            "linguistics_term": f"term_{n % 2}",
            "UID": f"paradigm_{n}",
        }
        for n, (good, bad) in enumerate(pairs)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """With both heads."""
    tensors = random_tensors(pretraining_shapes(CONFIG))
    return write_tf1(tmp_path_factory.mktemp("model"), tensors, CONFIG)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs, a text, rated pairs, and a task."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "blimp").mkdir()
    write_pairs(folder / "blimp/a.jsonl")
    (folder / "t.txt").write_text("a b c d e f g h i j k l m n o p. q r s.\n")
    (folder / "s.csv").write_text("text1,text2,score\na b,a b,5\na,q,1\nb c,d,2\n")
    task = folder / "tasks/letters"
    task.mkdir(parents=True)
    (task / "train.tsv").write_text("text\tlabel\na b\tx\nc d\ty\ne f\tx\na c\tx\n")
    (task / "dev.tsv").write_text("text\tlabel\nb a\tx\nd c\ty\n")
    return folder


def run(capsys, *words):
    """Exit code, output and errors."""
    code = main(["evaluate", "suite", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def options(data, output):
    files = [f"--text={data / 't.txt'}", f"--sts={data / 's.csv'}"]
    return [*files, f"--data_dir={data}", f"--output={output}"]


def test_all_measures_are_in_the_table_and_in_the_file(model, data, capsys, tmp_path):
    output = tmp_path / "new/suite.json"
    code, out, err = run(capsys, model, *options(data, output))
    assert code == 0 and out.splitlines()[-1] == str(output)
    assert re.search(r"^BLiMP: accuracy, % [\d.]+, 4 pairs of ", err, re.MULTILINE)
    result = json.loads(output.read_text())
    rows = {row["name"]: row for row in result["rows"]}
    names = ["BLiMP", "masked-LM loss", "sentence similarity", "probe letters"]
    assert [*rows] == names and result["model"] == model
    assert all(name in out for name in names)
    pairs = rows["BLiMP"]
    assert (pairs["count"], pairs["baseline"]) == (4, 50.0)
    assert pairs["parts"]["term_1/paradigm_3"] == 50.0  # A tie.
    of_paradigms = [v for name, v in pairs["parts"].items() if "/" in name]
    assert pairs["value"] == np.mean(of_paradigms) and len(of_paradigms) == 4
    # 15% of the 19 letters, two stops and two special tokens.
    assert rows["masked-LM loss"]["count"] in (3, 4)
    assert rows["masked-LM loss"]["baseline"] == pytest.approx(np.log(30))
    assert rows["sentence similarity"]["count"] == 3
    assert rows["probe letters"]["baseline"] == 50.0


def test_only_the_rows_that_are_asked_for_are_measured(model, data, capsys, tmp_path):
    (tmp_path / "tasks/letters").mkdir(parents=True)
    output = tmp_path / "suite.json"
    words = [f"--data_dir={tmp_path}", f"--output={output}", "--rows=text"]
    code, out, _ = run(capsys, model, *words, f"--text={data / 't.txt'}")
    assert code == 0 and "probe" not in out and "BLiMP" not in out
    assert [row["name"] for row in json.loads(output.read_text())["rows"]] == [
        "masked-LM loss"
    ]
    code, *_ = run(capsys, model, *options(data, output), "--rows=sts,text,probes")
    names = [row["name"] for row in json.loads(output.read_text())["rows"]]
    assert names == ["masked-LM loss", "sentence similarity", "probe letters"]


def test_a_text_is_read_from_the_files_that_extract_reads(
    model, data, capsys, tmp_path
):
    text = (data / "t.txt").read_text().strip()
    folder = tmp_path / "text"
    folder.mkdir()
    found = []
    for name, content in (
        ("t.txt", text),
        ("t.jsonl", json.dumps({"text": text})),
        ("t.csv", f"body\n{text}\n"),
    ):
        for each in folder.iterdir():
            each.unlink()
        (folder / name).write_text(content + "\n")
        words = [f"--text={folder}", f"--output={tmp_path / 's.json'}", "--rows=text"]
        words += ["--text_field=body"] * name.endswith(".csv")
        code, *_ = run(capsys, model, *words)
        assert code == 0
        [row] = json.loads((tmp_path / "s.json").read_text())["rows"]
        found.append((row["value"], row["count"]))
    assert found[0][1] and found == found[:1] * 3


def test_numbers_are_the_same_in_every_run(model, data, capsys, tmp_path):
    found = []
    for name in ("first", "second"):
        run(capsys, model, *options(data, tmp_path / name))
        rows = json.loads((tmp_path / name).read_text())["rows"]
        found.append([(row["value"], row["parts"]) for row in rows])
    assert found[0] == found[1]


def test_what_cannot_be_measured_is_a_row_with_the_reason(data, capsys, tmp_path):
    tensors = random_tensors(encoder_shapes(CONFIG))
    encoder = write_tf1(tmp_path / "encoder", tensors, CONFIG)
    code, out, _ = run(capsys, encoder, *options(data, tmp_path / "s.json"))
    assert code == 0
    assert out.count("not measured: the model has no masked-LM head") == 2
    rows = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert [row["value"] is None for row in rows] == [True, True, False, False]


def test_what_is_not_given_is_a_row_that_says_how(model, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, model)
    assert code == 0 and (tmp_path / "suite.json").is_file()
    advice = "`python -m bert_tf data download --name=blimp --output_dir=.data`"
    assert advice in out and "pass --text" in out and "pass --sts" in out
    assert "no task in .data/tasks" in out


@pytest.mark.parametrize(
    "files, reason",
    [
        ({}, "has no train file"),
        ({"train.tsv": "text\tlabel\na\tx\nb\ty\n"}, "without .*/task/dev.tsv"),
        (
            {"train.tsv": "text\tlabel\na\tx\nb\ty\n", "dev.tsv": "text\tlabel\na\n"},
            "dev.tsv, line 2: a line must have 2",
        ),
    ],
)
def test_a_task_that_cannot_be_read_is_a_row(model, capsys, tmp_path, files, reason):
    folder = tmp_path / "tasks/task"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    words = [f"--data_dir={tmp_path}", f"--output={tmp_path / 's.json'}"]
    code, out, _ = run(capsys, model, *words)
    assert code == 0 and re.search(f"probe task .*not measured: .*{reason}", out)


def test_a_sentence_that_is_too_long_for_the_model_is_a_row(model, capsys, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", [("a b", "b a"), ("a " * 15, "b")])
    words = [f"--blimp={pairs}", f"--output={tmp_path / 's.json'}"]
    code, out, _ = run(capsys, model, *words)
    assert code == 0
    assert f"{pairs}, line 2 has 17 tokens, more than the model's 16 positions" in out


def test_a_row_states_how_many_texts_are_cut(model, capsys, tmp_path):
    table = tmp_path / "s.csv"
    table.write_text(f"text1,text2,score\n{'a ' * 15},b,1\nc,d,2\n")
    words = [f"--sts={table}", f"--output={tmp_path / 's.json'}"]
    code, out, _ = run(capsys, model, *words)
    assert code == 0 and "; 25.0% of the texts fill 16 tokens, and are cut there" in out


def test_a_model_that_computes_nan_is_a_row(data, capsys, tmp_path):
    tensors = random_tensors(pretraining_shapes(CONFIG))
    tensors["bert/encoder/layer_0/output/dense/bias"][:] = 3e38
    tensors["bert/encoder/layer_0/attention/output/dense/bias"][:] = 3e38
    model = write_tf1(tmp_path / "model", tensors, CONFIG)
    code, out, _ = run(capsys, model, *options(data, tmp_path / "s.json"))
    assert code == 0 and out.count("the model computes NaN or infinity") == 4


@pytest.mark.parametrize(
    "words, message",
    [
        (["--blimp=missing"], "`blimp` must be a file. Received: blimp=missing, which"),
        (["--text=missing.txt"], "missing.txt does not exist"),
        (["--sts=missing"], "`sts` must be a file. Received: sts=missing, which does"),
        (["--data_dir=missing"], "`data_dir` must be a folder"),
        (["--output=."], "`output` must be a file. Received: output=."),
        (["--output="], "`output` must be a file."),
        (["--output=bad.txt/s.json"], "`output` must be a folder that can be written"),
        (["--vocab_file=missing"], "`vocab_file` must be a file"),
        (["--blimp=bad.txt"], "bad.txt, line 1: there must be a column"),
        (["--blimp=blank.jsonl"], "line 1: a sentence must have words. Received: ' '"),
        (["--text=bad.txt"], "bad.txt, line 1: byte 3 of the file (0xe9) is not UTF-8"),
        (["--text=empty.txt"], "`text` must hold text"),
        (["--rows=text,stss"], "`rows` must list names among blimp, text, sts, probes"),
        (["--rows=blimp", "--text=bad.txt"], "`text` must be given with the row text"),
        (["--precison=bf16"], "Did you mean --precision?"),
    ],
)
def test_wrong_input_ends_with_one_line_and_leaves_nothing(
    model, capsys, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "empty.txt").touch()
    write_pairs(tmp_path / "blank.jsonl", [(" ", "a")])
    if words == ["--blimp=bad.txt"]:
        (tmp_path / "bad.txt").write_text("a\tb\n")
    before = sorted(tmp_path.iterdir())
    code, out, error = run(capsys, model, *words)
    assert (code, out) == (1, "")
    [line] = [each for each in error.splitlines() if each.startswith("error: ")]
    assert message in line and "Traceback" not in error
    assert sorted(tmp_path.iterdir()) == before


def test_options_are_checked_before_a_model_of_the_hub_is_fetched(capsys, monkeypatch):
    monkeypatch.setattr(weight_files, "local_folder", lambda path: None)
    code, _, error = run(capsys, "hf://owner/name", "--rows=stss")
    assert code == 1 and "`rows` must list names among" in error


@pytest.mark.parametrize(
    "name, message",
    [
        ("missing", "`model` must be a checkpoint, or a folder or a file of weights"),
        (".", "no weights"),
        ("words.txt", ""),
    ],
)
def test_what_is_no_model_is_refused(capsys, tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("a\n")
    code, out, error = run(capsys, name)
    assert (code, out) == (1, "") and not (tmp_path / "suite.json").exists()
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
