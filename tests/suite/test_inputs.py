"""What a model is judged on: files that are right, and files that are wrong."""

import gzip
import json

import pytest

from bert_tf.suite.inputs import read_inputs, read_minimal_pairs, read_rated_pairs


def pair(good, bad, **more):
    values = {"linguistics_term": "agreement", "UID": "agreement_1"}
    return json.dumps({"sentence_good": good, "sentence_bad": bad} | values | more)


def test_pairs_of_a_folder_are_in_the_order_of_its_files(tmp_path):
    """As the published archive leaves them: in a folder, beside other files."""
    inner = tmp_path / "data"
    inner.mkdir()
    (inner / "b.jsonl").write_text(pair("c", "d", UID="y", pairID="0") + "\n")
    (inner / "a.jsonl").write_text(pair("a", "b", field="syntax") + "\n")
    (inner / ".DS_Store").write_bytes(b"\xff\x00")
    first, second = read_minimal_pairs(str(tmp_path))
    location = f"{inner}/a.jsonl, line 1"
    assert first == ("a", "b", "agreement", "agreement_1", location)
    assert (second.good, second.paradigm) == ("c", "y")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "p.jsonl: there are no pairs"),
        (b'{"sentence_good": "a"}\n', "line 1: there must be a column 'sentence_bad'"),
        (pair("a", "b").encode() + b"\n[1]\n", "line 2: each line must hold one JSON"),
        (pair("a", 3).encode(), "line 1: 'sentence_bad' must be text. Received: 3"),
        (pair("a", float("nan")).encode(), "line 1: 'sentence_bad' must be text"),
        (b'{"sentence_good": "caf\xe9"}', "line 1: not UTF-8"),
        (b"\x1f\x8b\x08\x00", "not UTF-8"),
    ],
)
def test_pairs_that_cannot_be_read_are_named(tmp_path, content, message):
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_minimal_pairs(str(tmp_path / "p.jsonl"))


def test_a_folder_without_pairs_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="data download --name=blimp"):
        read_minimal_pairs(str(tmp_path))


@pytest.mark.parametrize(
    "header", ["sentence1\tsentence2\tscore", "text_a\ttext_b\tlabel"]
)
def test_columns_of_rated_pairs_have_usual_names_among_others(tmp_path, header):
    text = f"genre\t{header}\nnews\ta b\tc\t2.5\n"
    (tmp_path / "s.tsv").write_text(text)
    [found] = read_rated_pairs(str(tmp_path / "s.tsv"))
    assert (found.text_a, found.text_b, found.label) == ("a b", "c", 2.5)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "s.tsv, line 1: the file is empty"),
        (b"a\tb\t2.5\n", "line 1: the columns must be named, .* Received: 'a', 'b'"),
        (b"sentence\tscore\na\t1\n", "line 1: the columns must be named"),
        (b"sentence1\tsentence2\tscore\n", "there are no examples"),
        (b"sentence1\tsentence2\tscore\na\tb\n", "line 2: a line must have 3"),
        (b"sentence1\tsentence2\tscore\na\tb\tnan\n", "line 2: 'score' must be a num"),
        (b"sentence1\tsentence2\tscore\na\xe9\tb\t1\n", "line 2: not UTF-8"),
    ],
)
def test_rated_pairs_that_cannot_be_read_are_named(tmp_path, content, message):
    (tmp_path / "s.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_rated_pairs(str(tmp_path / "s.tsv"))


def test_a_data_folder_need_not_hold_anything(tmp_path):
    found = read_inputs(str(tmp_path / "missing"))
    assert not (found.pairs or found.tasks or found.documents or found.rated)


def test_pairs_and_tasks_are_found_in_the_data_folder(tmp_path):
    (tmp_path / "blimp").mkdir()
    (tmp_path / "blimp/a.jsonl").write_text(pair("a", "b"))
    for split in ("train", "dev"):
        for name in ("yes", "no"):
            folder = tmp_path / "tasks" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{split}.tsv").write_text("text\tlabel\na\t0\nb\t1\n")
    found = read_inputs(str(tmp_path))
    assert len(found.pairs) == 1
    assert [*found.tasks] == [f"{tmp_path}/tasks/no", f"{tmp_path}/tasks/yes"]


def test_a_compressed_task_is_found_and_what_is_not_read_is_a_line(tmp_path, caplog):
    folder = tmp_path / "tasks/letters"
    folder.mkdir(parents=True)
    text = "text\tlabel\na\tx\nb\ty\n"
    with gzip.open(folder / "train.tsv.gz", "wt") as file:
        file.write(text)
    (folder / "dev.tsv").write_text(text)
    (folder / "dev.tsv.gz").touch()
    [task] = read_inputs(str(tmp_path)).tasks.values()
    assert task.label_names == ("x", "y")
    assert f"{folder}/dev.tsv.gz is not read" in caplog.text


@pytest.mark.parametrize("given", ["gone.txt", "gone*,a.txt", "a.hdf5", "folder"])
def test_an_error_about_the_text_names_its_option(tmp_path, given):
    (tmp_path / "a.hdf5").write_text("text\na\n")
    (tmp_path / "folder/inner").mkdir(parents=True)
    with pytest.raises((OSError, ValueError), match="^`text` must name") as refused:
        read_inputs(str(tmp_path), text=str(tmp_path / given))
    assert "input" not in str(refused.value).replace(str(tmp_path), "")


def test_a_text_without_words_is_refused(tmp_path):
    (tmp_path / "t.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match="must hold text"):
        read_inputs(str(tmp_path), text=str(tmp_path / "t.txt"))
