"""Quotes of tab-separated tables: as CSV has them if a whole file does, else text."""

import argparse
import csv
import gzip
import io
import random

import pytest

from bert_tf.cli.prediction_input import Task, read_inputs
from bert_tf.data.tasks.classification import read_examples
from bert_tf.data.tasks.custom_task import own_task
from bert_tf.data.tasks.glue_tasks import find_task
from bert_tf.data.tasks.tables import column_names, read_rows
from bert_tf.evaluation.glue import write_test_predictions

# Texts that a writer of CSV puts in quotes, and one that it does not.
TEXTS = [
    'He said "hello"',
    '"',
    "a\tb",
    "two\n\nlines",
    'a\n"b\tc"',
    "plain, 'text'",
    "",
]
STYLES = [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]


def written(rows, style, end="\n"):
    text = io.StringIO(newline="")
    csv.writer(text, csv.excel_tab, quoting=style, lineterminator=end).writerows(rows)
    return text.getvalue().encode()


def read(path):
    found = [row.values for row in read_rows(str(path), column_names(str(path)))]
    return [[*each.values()] for each in found]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_a_quoted_table_is_read_as_python_wrote_it(tmp_path, style, name, caplog):
    rows = [[text, str(number)] for number, text in enumerate(TEXTS)]
    data = written([["text", "label"], *rows], style)
    (tmp_path / name).write_bytes(gzip.compress(data) if name[-1] == "z" else data)
    assert column_names(str(tmp_path / name)) == ["text", "label"]
    assert read(tmp_path / name) == rows
    assert "are read without the double quotes" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("style", STYLES)
def test_any_quoted_table_is_read_as_python_reads_it(tmp_path, style):
    draw = random.Random(5)
    for number in range(200):
        path = tmp_path / f"{number}.tsv"
        texts = ["".join(draw.choices('ab"\t\n ', k=draw.randrange(6))) for _ in "1234"]
        rows = [["a", "b", "c"], *([text, "x", text[::-1]] for text in texts)]
        path.write_bytes(written(rows, style, draw.choice(["\n", "\r\n"])))
        # A text with as many tabs as the table may be rows by itself.
        if not any("\t" in text and "\n" in text for text in texts):
            assert read(path) == rows[1:], rows


def test_the_lines_of_rows_with_line_ends_are_named(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"a\nb"\t0\n"c ""d"""\t1\tx\n')
    with pytest.raises(ValueError, match=r"line 4: .* 2 tab-separated.*: 3\. [^\"]*$"):
        read(path)


@pytest.mark.parametrize(
    "texts",
    [
        ['"We won", he said.', '"a ""b"""'],
        ['5" wide', '"a"'],
        ['"', '"a"'],
        ['"Here it begins', "and then", 'it ends."'],
        ['"a "b""', "c"],
    ],
)
def test_quotes_of_a_table_that_is_not_quoted_are_text(tmp_path, texts, caplog):
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t1\n" for text in texts))
    assert [text for text, _ in read(path)] == texts
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == ('"a ""b"""' in texts)
    assert all("of 1 fields that look quoted" in x and "line 2" in x for x in found)


def test_an_error_about_columns_names_quotes_that_are_text(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n5" wide\t0\n"a\tb"\t1\n')
    with pytest.raises(
        ValueError, match=r"line 3: .*: 3\..* begins with a double quote"
    ):
        read(path)


def test_rows_before_a_line_that_cannot_be_read_are_read(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b'text\tlabel\n"a ""b"""\t0\n\xff\t1\n')
    rows = read_rows(str(path), ["text"])
    assert next(rows).values == {"text": 'a "b"'}
    with pytest.raises(ValueError, match="line 3: not UTF-8"):
        next(rows)


def test_a_quoted_table_is_trained_on_as_text_without_quotes(tmp_path):
    (tmp_path / "train.tsv").write_text(
        'text\tlabel\n"He said ""hello"""\t0\nplain\t1\n'
    )
    task = own_task("tsv", str(tmp_path))
    found = read_examples(task, str(tmp_path), "train")
    assert [each.text_a for each in found] == ['He said "hello"', "plain"]


def test_quotes_in_files_of_glue_are_text(tmp_path, caplog):
    (tmp_path / "dev.tsv").write_text('sentence\tlabel\n"a ""b"""\t1\n')
    [found] = read_examples(find_task("sst-2"), str(tmp_path), "dev")
    assert found.text_a == '"a ""b"""'
    assert not caplog.records


def test_predict_reads_what_the_prediction_of_a_test_file_wrote(tmp_path):
    path = tmp_path / "test_predictions.tsv"
    odds = [[0.25, 0.75]] * len(TEXTS)
    write_test_predictions(str(path), [(x, None) for x in TEXTS], ["no", "yes"], odds)
    options = argparse.Namespace(input=str(path), text=[])
    task = Task("classify", ("text_a",), lambda _: [], lambda: 0)
    found = read_inputs(options, task)
    assert [each["text_a"] for each in found] == TEXTS
