"""Files that `predict` reads: which are tables, and what is wrong in them."""

import argparse
import datetime
import gzip
import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_tf.cli import predict
from bert_tf.cli.prediction_chunks import in_chunks
from bert_tf.cli.prediction_input import Task, read_inputs
from bert_tf.cli.prediction_streams import has_ended, open_stream
from bert_tf.data.tasks.classification import SplitFile
from bert_tf.data.tasks.row_labels import ColumnNames

REQUIRED = {
    "classify": ("text_a",),
    "squad": ("question", "context"),
    "fill-mask": ("text",),
}


def read(path, name="classify"):
    options = argparse.Namespace(input=str(path), text=[])
    return read_inputs(options, Task(name, REQUIRED[name], lambda _: [], lambda: 0))


def classify(path="-", texts=(), **settings):
    task = Task("classify", ("text_a",), lambda _: [], lambda: 0, **settings)
    options = argparse.Namespace(input=str(path), text=list(texts))
    return list(read_inputs(options, task))


def write_parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.Csv"])
def test_a_table_is_known_by_its_extension_in_any_case(tmp_path, name):
    (tmp_path / name).write_text('text,label\n"a, b",cold\n')
    assert list(read(tmp_path / name)) == [{"text_a": "a, b", "given_label": "cold"}]


def test_the_extensions_of_a_compressed_table_may_be_capitals(tmp_path):
    (tmp_path / "A.TSV.GZ").write_bytes(gzip.compress(b"text\tlabel\na\tcold\n"))
    assert list(read(tmp_path / "A.TSV.GZ")) == [{"text_a": "a", "given_label": "cold"}]


@pytest.mark.parametrize("ending", ["tsv", "csv", "parquet", "jsonl"])
def test_other_columns_are_kept_whatever_the_format_is(tmp_path, ending):
    row = {"id": "7", "text_a": "no", "text": "the river", "label": "warm"}
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        write_parquet(path, **{name: [value] for name, value in row.items()})
    elif ending == "jsonl":
        path.write_text(json.dumps(row) + "\n")
    else:
        lines = (
            ("\t" if ending == "tsv" else ",").join(x) for x in (row, row.values())
        )
        path.write_text("\n".join(lines) + "\n")
    label = "label" if ending == "jsonl" else "given_label"
    expected = {"id": "7", "text_a": "no", "text": "the river", label: "warm"}
    assert list(read(path)) == [expected]


def test_a_column_with_the_name_of_an_input_does_not_replace_it(tmp_path):
    (tmp_path / "a.csv").write_text("body,text_a,text_b,n\nriver,no,no,1\n")
    files = (SplitFile("", ColumnNames("body")),)
    task = Task("classify", ("text_a",), lambda _: [], lambda: 0, files=files)
    options = argparse.Namespace(input=str(tmp_path / "a.csv"), text=[])
    assert list(read_inputs(options, task)) == [{"text_a": "river", "n": "1"}]


def test_a_table_of_pairs_is_refused_for_a_model_of_single_texts(tmp_path):
    (tmp_path / "a.csv").write_text("text_a,text_b\nriver,sea\n")
    files = (SplitFile("", ColumnNames("body")),)
    with pytest.raises(ValueError, match=r"line 1: .*single texts.* Name it 'body'"):
        classify(tmp_path / "a.csv", files=files, takes_pairs=False)
    assert classify(tmp_path / "a.csv") == [{"text_a": "river", "text_b": "sea"}]


def test_a_second_text_that_is_not_read_is_reported(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("text_a,text_b\nriver,sea\n")
    files = (SplitFile("", ColumnNames("text_a")),)
    found = classify(tmp_path / "a.csv", files=files, takes_pairs=False)
    assert found == [{"text_a": "river"}]
    assert "'text_b' is not read: the text is 'text_a'" in capsys.readouterr().err


def test_texts_of_the_command_line_are_a_pair_unless_the_model_takes_one():
    texts = ["a", "b"]
    pair, both = [{"text_a": "a", "text_b": "b"}], [{"text_a": "a"}, {"text_a": "b"}]
    assert classify(texts=texts, takes_pairs=False) == both
    assert classify(texts=texts, takes_pairs=True) == pair
    assert classify(texts=texts) == pair
    with pytest.raises(ValueError, match="Received: 3 texts. Pass several inputs"):
        classify(texts=["a", "b", "c"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_has_no_form_for_is_a_string(value, capsys):
    predict._print({"size": value})
    assert json.loads(capsys.readouterr().out) == {"size": str(value)}


def test_the_only_column_of_a_csv_file_is_the_text(tmp_path):
    (tmp_path / "a.csv").write_text('remark\n"a, b"\nc\n')
    assert list(read(tmp_path / "a.csv")) == [{"text_a": "a, b"}, {"text_a": "c"}]


def test_a_csv_file_with_semicolons_is_no_column_of_texts(tmp_path):
    (tmp_path / "a.csv").write_text("body of note;kind\nriver;cold\n")
    with pytest.raises(ValueError, match="separated by commas; this line has semicol"):
        list(read(tmp_path / "a.csv"))


def test_the_only_column_of_a_parquet_file_is_the_text(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", remark=["a", "b"])
    assert list(read(path)) == [{"text_a": "a"}, {"text_a": "b"}]


def test_a_null_text_is_named_and_the_rows_before_it_are_predicted(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", text=["a", "b", None, "c"])
    chunks = in_chunks(read(path), 1024)
    assert next(chunks) == [{"text_a": "a"}, {"text_a": "b"}]
    with pytest.raises(ValueError, match=r"a\.parquet, row 3: 'text' must be text"):
        next(chunks)


def test_a_second_text_may_be_null_but_no_number(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", text_a=["a"], text_b=[None])
    assert list(read(path)) == [{"text_a": "a", "text_b": None}]
    path = write_parquet(tmp_path / "a.parquet", text_a=["a"], text_b=[3])
    with pytest.raises(ValueError, match="row 1: 'text_b' must be text. Received: 3"):
        list(read(path))


def test_a_label_that_json_has_no_form_for_is_printed_as_text(capsys):
    predict._print({"given_label": datetime.date(2020, 5, 17), "label": "ä"})
    expected = {"given_label": "2020-05-17", "label": "ä"}
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.parametrize("name", ["a.json.gz", "A.JSON", "A.JSON.GZ"])
def test_a_file_of_squad_may_be_compressed_and_have_capitals(tmp_path, name):
    qas = [{"id": "1", "question": "Who?", "answers": []}]
    paragraphs = [{"context": "It was Ada.", "qas": qas}]
    content = json.dumps({"data": [{"paragraphs": paragraphs}]}).encode()
    is_gzip = name.lower().endswith("gz")
    (tmp_path / name).write_bytes(gzip.compress(content) if is_gzip else content)
    expected = {"id": "1", "question": "Who?", "context": "It was Ada."}
    assert list(read(tmp_path / name, "squad")) == [expected]


def test_lines_of_json_in_a_compressed_file_are_questions(tmp_path):
    line = {"question": "Who?", "context": "It was Ada."}
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(line).encode()))
    assert list(read(tmp_path / "a.json.gz", "squad")) == [line]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a\n\nb\n \n\nc\n", "3, the first of them line 2."),
        ("\na\n", "1, the first of them line 1."),
        ("a\nb\n\n \n", ""),
        ("\n\n", ""),
    ],
)
@pytest.mark.parametrize("is_file", [True, False])
def test_blank_lines_before_a_text_are_reported(
    tmp_path, capsys, monkeypatch, content, expected, is_file
):
    path = tmp_path / "a.txt"
    path.write_text(content)
    monkeypatch.setattr("sys.stdin", io.StringIO(content))
    found = [one["text_a"] for one in read(path if is_file else "-")]
    assert found == content.split()
    name = path if is_file else "standard input"
    warning = f"warning: {name}: blank lines are left out and have no result: "
    assert capsys.readouterr().err == (f"{warning}{expected}\n" if expected else "")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_stream_of_utf_16_without_a_mark_is_refused(encoding):
    """Also of a single short line, in which few bytes are 0."""
    reader, writer = os.pipe()
    os.write(writer, "Hi.\nA warm day.\n".encode(encoding))
    os.close(writer)
    with pytest.raises(ValueError, match="line 1: it holds bytes that are 0.*iconv"):
        next(read(f"/dev/fd/{reader}"))
    os.close(reader)


@pytest.mark.parametrize(
    ("task", "name"),
    [("squad", "a.csv"), ("squad", "a.parquet"), ("fill-mask", "a.Parquet")],
)
def test_tables_are_refused_for_other_tasks(tmp_path, task, name):
    (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="classify, embed and choose"):
        list(read(tmp_path / name, task))


def test_a_stream_that_is_not_utf_8_is_refused_with_a_command():
    reader, writer = os.pipe()
    os.write(writer, "A café.\n".encode("latin-1"))
    os.close(writer)
    with pytest.raises(ValueError, match="line 1: not UTF-8.*iconv -f WINDOWS-1252 -t"):
        next(read(f"/dev/fd/{reader}"))
    os.close(reader)


def test_a_string_on_a_line_of_a_jsonl_file_is_that_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('"a \\"city\\""\n{"text_a": "b"}\nplain\n')
    expected = ['a "city"', "b", "plain"]
    assert [each["text_a"] for each in read(tmp_path / "a.jsonl")] == expected
    (tmp_path / "a.jsonl").write_text('"a" or b\n')
    message = r"a\.jsonl, line 1: must be a JSON object .*\(Extra data.*'\"a\" or b'"
    with pytest.raises(ValueError, match=message):
        list(read(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_text('"Who?"\n')
    with pytest.raises(ValueError, match="line 1: must be a JSON object with the text"):
        list(read(tmp_path / "a.jsonl", "squad"))


def test_quotes_in_plain_text_and_standard_input_are_text(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "a.txt").write_text('"a city"\n')
    assert list(read(tmp_path / "a.txt")) == [{"text_a": '"a city"'}]
    assert not capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO('"a" or b\n"a city"\n"c"\n'))
    found = [each["text_a"] for each in read("-")]
    assert found == ['"a" or b', '"a city"', '"c"']
    [warning] = capsys.readouterr().err.splitlines()
    assert "standard input, line 2: the quotes are part of the text" in warning


def test_a_stream_without_a_line_is_waited_for():
    reader, writer = os.pipe()
    with open_stream(f"/dev/fd/{reader}") as waiting:
        assert not has_ended(waiting)
        os.write(writer, b"a line\n")
        assert not has_ended(waiting)
        assert waiting.readline() == "a line\n"
    with open_stream(f"/dev/fd/{reader}") as ended:
        os.close(writer)
        assert has_ended(ended)
    os.close(reader)
