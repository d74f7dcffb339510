import gzip
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert_tf.data.tasks import custom_task
from bert_tf.data.tasks.classification import ColumnNames, read_examples
from bert_tf.data.tasks.custom_task import own_task


def write_lines(path, *lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def write_objects(path, *objects):
    write_lines(path, *map(json.dumps, objects))


def read(file_format, data_dir, split="train", columns=None, **options):
    """Class names, and texts and labels without places."""
    task = own_task(file_format, str(data_dir), columns, **options)
    examples = read_examples(task, str(data_dir), split)
    return task.label_names, [tuple(example[:3]) for example in examples]


def test_classes_are_the_sorted_labels_of_train(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\tsport", "b\tart", "c\tsport")
    names, examples = read("tsv", tmp_path)
    assert names == ("art", "sport")
    assert examples == [("a", None, 1), ("b", None, 0), ("c", None, 1)]


PAIRS = [("a, b", "sport"), ('she said "no"', "art"), ("two\nlines", "sport")]


def test_csv_has_quotes_commas_and_line_ends_in_texts(tmp_path):
    (tmp_path / "train.csv").write_text(
        'text,label\n"a, b",sport\n"she said ""no""",art\n\n"two\nlines",sport\n'
    )
    names, examples = read("csv", tmp_path)
    assert names == ("art", "sport")
    assert examples == [(text, None, names.index(label)) for text, label in PAIRS]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('text,label\na,b\n"x,y\n', "line 3: not CSV: unexpected end of data"),
        ("text,label\na,b\n\nx,y,z\n", "line 4: a row must have 2 columns. Rec.*: 3"),
        ("text,label\na,b\nx,\udcff\n", "line 3: not UTF-8"),
        ("a;b\n1;2\n", "no column has a common name for texts. Received: 'a;b'"),
        ("a;b\n1;2\n", "must be separated by commas; this line has semicolons"),
        ("a\tb\n1\t2\n", "must be separated by commas; this line has tabs"),
        ("text,text,label\n", "only one column 'text'"),
        ("", "the file is empty"),
        ("text,label\n" + "a,b\n" * 50, "UTF-16LE"),
    ],
)
def test_csv_that_cannot_be_read_is_refused_with_its_line(tmp_path, content, message):
    coding = message.lower() if message == "UTF-16LE" else "utf-8"
    data = content.encode(coding, errors="surrogateescape")
    (tmp_path / "train.csv").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read("csv", tmp_path)


@pytest.mark.parametrize(
    ("header", "name", "advice"),
    [
        ("text,kind", "Kind", r"Received: 'text', 'kind'\. Did you mean kind\?$"),
        ("text,kind", "zone", r"Use one of these columns, or correct the file\.$"),
        ("Body of note;kind", "kind", r"\.csv file must be separated by commas; this"),
    ],
)
def test_a_column_that_is_missing_comes_with_advice(tmp_path, header, name, advice):
    write_lines(tmp_path / "train.csv", header, "a,b")
    columns = ColumnNames(header.split(",")[0], label=name)
    with pytest.raises(ValueError, match=advice):
        read("csv", tmp_path, columns=columns)


@pytest.mark.parametrize(
    "names, advice",
    [
        (("train.csv", "dev.csv"), "Pass --task_name=csv."),
        (("train.jsonl.gz", "train.parquet"), "Pass --task_name=jsonl or .*=parquet."),
        (("dev.csv",), "Put the file there."),
    ],
)
def test_files_of_another_format_come_with_its_task_name(tmp_path, names, advice):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=f"must hold train.tsv.* {advice}$"):
        read("tsv", tmp_path)


def test_a_table_with_commas_is_no_table_with_tabs(tmp_path):
    write_lines(tmp_path / "train.tsv", "text,label", "a,b")
    with pytest.raises(ValueError, match=r"\.tsv file must be separated by tabs; this"):
        read("tsv", tmp_path)


def test_parquet_is_read_as_json_lines_are(tmp_path):
    rows = [{"text": t, "label": n, "more": [1]} for n, (t, _) in enumerate(PAIRS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    write_objects(tmp_path / "train.jsonl", *rows)
    assert read("parquet", tmp_path) == read("jsonl", tmp_path)
    (tmp_path / "train.parquet").write_text("text")
    with pytest.raises(ValueError, match="train.parquet is not a Parquet file"):
        read("parquet", tmp_path)


def test_parquet_without_its_package_is_refused_with_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "train.parquet").write_text("x")
    with pytest.raises(ValueError, match="pip install pyarrow"):
        read("parquet", tmp_path)


def test_a_damaged_page_of_parquet_is_named_with_its_file(tmp_path):
    path = tmp_path / "train.parquet"
    table = pa.table({"text": ["a text", "other"], "label": ["x", "y"]})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    content = path.read_bytes()
    length = (6).to_bytes(4, "little")
    assert content.count(length + b"a text") == 1
    path.write_bytes(content.replace(length + b"a text", b"\xff\xff\xff\x7fa text"))
    with pytest.raises(ValueError, match=r"train\.parquet is not a whole Parquet file"):
        read("parquet", tmp_path)


@pytest.mark.parametrize("version", ["14.0.0", "9.0.1", "13.0.0.dev5"])
def test_versions_of_pyarrow_that_run_code_are_refused(tmp_path, monkeypatch, version):
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"]})
    pq.write_table(table, tmp_path / "train.parquet")
    monkeypatch.setattr(pa, "__version__", version)
    with pytest.raises(ValueError, match=r"pip install 'pyarrow>=14\.0\.1'"):
        read("parquet", tmp_path)
    monkeypatch.setattr(pa, "__version__", "14.0.1")
    assert read("parquet", tmp_path)[0] == ("x", "y")


@pytest.mark.parametrize("file_format", ["tsv", "csv", "jsonl"])
def test_compressed_files_are_read_where_there_are_no_others(tmp_path, file_format):
    lines = {
        "tsv": ["text\tlabel", "a\tsport", "b\tart"],
        "csv": ["text,label", "a,sport", "b,art"],
        "jsonl": ['{"text": "a", "label": "sport"}', '{"text": "b", "label": "art"}'],
    }[file_format]
    for split in ("train", "test"):
        path = tmp_path / f"{split}.{file_format}.gz"
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
    expected = [("a", None, 1), ("b", None, 0)]
    assert read(file_format, tmp_path) == (("art", "sport"), expected)
    assert read(file_format, tmp_path, "test")[1] == expected
    write_lines(tmp_path / f"train.{file_format}", *lines, *lines[-1:])
    assert len(read(file_format, tmp_path)[1]) == 3
    [note] = own_task(file_format, str(tmp_path)).notes
    assert f"train.{file_format}.gz is not read" in note


def test_a_damaged_compressed_file_is_refused(tmp_path):
    data = gzip.compress(b"text\tlabel\na\tsport\nb\tart\n")
    (tmp_path / "train.tsv.gz").write_bytes(data[:-9])
    with pytest.raises(ValueError, match="train.tsv.gz is not a whole gzip file"):
        read("tsv", tmp_path)


def test_whole_numbers_are_sorted_by_value(tmp_path):
    lines = [f"word\t{number}" for number in (10, 9, -1, 0)]
    write_lines(tmp_path / "train.tsv", "text\tlabel", *lines)
    names, examples = read("tsv", tmp_path)
    assert names == ("-1", "0", "9", "10")
    assert [label for _, _, label in examples] == [3, 2, 0, 1]


def test_labels_of_json_may_be_numbers_or_booleans(tmp_path):
    write_objects(
        tmp_path / "train.jsonl",
        {"text": "a", "label": 2},
        {"text": "b", "label": True},
        {"text": "c", "label": "2"},
    )
    names, examples = read("jsonl", tmp_path)
    assert names == ("2", "True")
    assert examples == [("a", None, 0), ("b", None, 1), ("c", None, 0)]


@pytest.mark.parametrize(
    ("header", "text_a", "text_b"),
    [
        ("id text label", 1, None),
        ("sentence gold_label", 0, None),
        ("id label sentence1 sentence2", 2, 3),
        ("premise hypothesis label", 0, 1),
        ("label sentence question", 2, 1),
        ("Text Label", 0, None),
    ],
)
def test_usual_names_of_columns_are_found(tmp_path, header, text_a, text_b):
    columns = header.split()
    rows = []
    for label in "xy":
        rows.append([f"{label}{place}" for place in range(len(columns))])
    write_lines(tmp_path / "train.tsv", *("\t".join(row) for row in [columns, *rows]))
    _, examples = read("tsv", tmp_path)
    expected = [
        (row[text_a], None if text_b is None else row[text_b], label)
        for label, row in enumerate(rows)
    ]
    assert examples == expected


def test_given_columns_are_taken(tmp_path):
    write_objects(
        tmp_path / "train.jsonl",
        {"text": "-", "head": "a", "body": "b", "kind": "x", "label": 5},
        {"text": "-", "head": "c", "body": "d", "kind": "y", "label": 5},
    )
    names, examples = read(
        "jsonl", tmp_path, "train", ColumnNames("head", "body", "kind")
    )
    assert names == ("x", "y")
    assert examples == [("a", "b", 0), ("c", "d", 1)]


def test_given_first_text_alone_means_one_text(tmp_path):
    lines = ["sentence1\tsentence2\tlabel", "a\tb\t0", "c\td\t1"]
    write_lines(tmp_path / "train.tsv", *lines)
    _, examples = read("tsv", tmp_path, "train", ColumnNames("sentence2"))
    assert examples == [("b", None, 0), ("d", None, 1)]


@pytest.mark.parametrize("what, header", [("texts", "a\tlabel"), ("labels", "text\ta")])
def test_unusual_columns_are_refused_with_the_existing_ones(tmp_path, what, header):
    write_lines(tmp_path / "train.tsv", header, "b\tc")
    listed = ", ".join(map(repr, header.split("\t")))
    with pytest.raises(
        ValueError, match=rf"train\.tsv, line 1: .* for {what}\. Received: {listed}\."
    ):
        own_task("tsv", str(tmp_path))


def test_given_column_that_is_not_there_is_refused(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\t0", "b\t1")
    with pytest.raises(
        ValueError, match=r"train\.tsv, line 1: .*'words'.* 'text', 'label'"
    ):
        own_task("tsv", str(tmp_path), ColumnNames("words"))


def test_label_that_train_does_not_have_is_refused(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\tart", "b\tsport")
    write_lines(tmp_path / "dev.tsv", "text\tlabel", "c\tart", "d\tmusic")
    with pytest.raises(
        ValueError, match=r"dev\.tsv, line 3: .*'art', 'sport'\. Received: 'music'"
    ):
        read("tsv", tmp_path, "dev")


def test_long_list_of_known_labels_is_cut(tmp_path):
    lines = [f"a\tclass{number:02}" for number in range(30)]
    write_lines(tmp_path / "train.tsv", "text\tlabel", *lines)
    write_lines(tmp_path / "dev.tsv", "text\tlabel", "a\tother")
    with pytest.raises(ValueError, match=r"'class19', and 10 more\. Received: 'other'"):
        read("tsv", tmp_path, "dev")


def test_test_file_with_labels_keeps_them(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\tart", "b\tsport")
    write_lines(tmp_path / "test.tsv", "label\ttext", "sport\tc")
    assert read("tsv", tmp_path, "test")[1] == [("c", None, 1)]


@pytest.mark.parametrize("file_format", ["tsv", "jsonl"])
def test_test_file_without_labels_is_read(tmp_path, file_format):
    if file_format == "tsv":
        write_lines(tmp_path / "train.tsv", "text\tlabel", "a\t0", "b\t1")
        write_lines(tmp_path / "test.tsv", "text", "c", "d")
    else:
        objects = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
        write_objects(tmp_path / "train.jsonl", *objects)
        write_objects(tmp_path / "test.jsonl", {"text": "c"}, {"text": "d"})
    _, examples = read(file_format, tmp_path, "test")
    assert examples == [("c", None, None), ("d", None, None)]


def test_dev_file_without_labels_is_refused(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\t0", "b\t1")
    write_lines(tmp_path / "dev.tsv", "text", "c")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 1: .*'label'.*'text'\."):
        read("tsv", tmp_path, "dev")


def test_numbers_are_labels_if_regression_is_asked_for(tmp_path):
    write_objects(
        tmp_path / "train.jsonl",
        {"text": "a", "score": 2},
        {"text": "b", "score": -0.5},
        {"text": "c", "score": "1e1"},
    )
    names, examples = read("jsonl", tmp_path, is_regression=True)
    assert names == ()
    assert [label for _, _, label in examples] == [2.0, -0.5, 10.0]


@pytest.mark.parametrize("value", ["true", "null", '"nan"', '"1e999"', '"high"', "[1]"])
def test_what_is_no_number_is_refused_in_regression(tmp_path, value):
    write_lines(tmp_path / "train.jsonl", f'{{"text": "a", "label": {value}}}')
    with pytest.raises(ValueError, match=r"train\.jsonl, line 1: 'label' .* a number"):
        read("jsonl", tmp_path, is_regression=True)


def test_decimal_labels_are_refused_without_is_regression(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\t0.5", "b\t1")
    with pytest.raises(
        ValueError, match=r"train\.tsv, line 2: .*'0\.5'.*pass --is_regression"
    ):
        own_task("tsv", str(tmp_path))


@pytest.mark.parametrize("value", ["1.5", "null", '""', "[1]", '{"a": 1}'])
def test_what_is_no_class_is_refused(tmp_path, value):
    write_lines(
        tmp_path / "train.jsonl",
        '{"text": "a", "label": 0}',
        f'{{"text": "a", "label": {value}}}',
    )
    with pytest.raises(
        ValueError, match=r"train\.jsonl, line 2: 'label' must be a class"
    ):
        own_task("jsonl", str(tmp_path))


def test_a_single_class_is_refused(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\tart", "b\tart")
    with pytest.raises(ValueError, match=r"two or more classes\. Received: 'art'"):
        own_task("tsv", str(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "b", "label": 1', r"not JSON"),
        ('["b", 1]', r"must hold one JSON object\. Received: \[\"b\", 1\]"),
        ('{"text": "b"}', r"a column 'label'\. Received: 'text'\."),
        ("[" * 100_000, r"not JSON"),
        ("\n{}", r"not JSON"),
    ],
)
def test_broken_line_of_json_is_refused_with_its_number(tmp_path, line, message):
    write_lines(tmp_path / "train.jsonl", '{"text": "a", "label": 0}', line)
    with pytest.raises(ValueError, match=rf"train\.jsonl, line 2: .*{message}"):
        own_task("jsonl", str(tmp_path))


@pytest.mark.parametrize("value", ["null", "3", '["a"]'])
def test_text_that_is_no_string_is_refused(tmp_path, value):
    write_lines(
        tmp_path / "train.jsonl",
        '{"text": "a", "label": 0}',
        f'{{"text": {value}, "label": 1}}',
    )
    with pytest.raises(ValueError, match=r"train\.jsonl, line 2: 'text' must be text"):
        read("jsonl", tmp_path)


@pytest.mark.parametrize("file_format", ["tsv", "jsonl"])
def test_empty_train_file_is_refused(tmp_path, file_format):
    (tmp_path / f"train.{file_format}").write_text("\n")
    with pytest.raises(ValueError, match=r"train\.\w+, line 1: the file is empty"):
        own_task(file_format, str(tmp_path))


def test_missing_train_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"train\.tsv.*data_dir={tmp_path},"):
        own_task("tsv", str(tmp_path))


def test_missing_dev_file_is_refused_when_it_is_read(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\t0", "b\t1")
    with pytest.raises(FileNotFoundError, match=r"without .*/dev\.tsv\. The fold"):
        read("tsv", tmp_path, "dev")


def test_a_missing_file_is_named_with_those_that_are_there(tmp_path):
    write_lines(tmp_path / "training.tsv", "text\tlabel", "a\t0", "b\t1")
    with pytest.raises(FileNotFoundError, match=r"folder holds training\.tsv\. Put"):
        own_task("tsv", str(tmp_path))
    (tmp_path / "training.tsv").rename(tmp_path / "train.tsv")
    (tmp_path / "development.tsv").write_text("text\tlabel\na\t0\n")
    with pytest.raises(FileNotFoundError, match=r"holds development\.tsv, train\.tsv"):
        read("tsv", tmp_path, "dev")
    with pytest.raises(FileNotFoundError, match=r"There is no such folder\. Put"):
        own_task("tsv", str(tmp_path / "x"))


@pytest.mark.parametrize("name", ["val.tsv", "valid.tsv", "validation.tsv.gz"])
def test_the_development_file_has_one_of_its_usual_names(tmp_path, name):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\t0", "b\t1")
    data = b"text\tlabel\nc\t1\n"
    (tmp_path / name).write_bytes(gzip.compress(data) if name[-1] == "z" else data)
    assert read("tsv", tmp_path, "dev")[1] == [("c", None, 1)]
    (tmp_path / "dev.tsv").write_bytes(data)
    message = rf"one development file.*, with dev\.tsv, {name.removesuffix('.gz')}\."
    with pytest.raises(ValueError, match=message):
        own_task("tsv", str(tmp_path), splits=("train", "dev"))
    own_task("tsv", str(tmp_path), splits=("train",))  # It is not read.


def test_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tsv, jsonl.*file_format=xls"):
        own_task("xls", str(tmp_path))


def test_labels_that_differ_in_white_space_are_one_class_with_a_note(tmp_path):
    lines = ["text\tlabel", "a\tpos", "b\tpos ", "c\t neg", "d\tvery  good"]
    write_lines(tmp_path / "train.tsv", *lines)
    task = own_task("tsv", str(tmp_path))
    assert task.label_names == ("neg", "pos", "very good")
    [note] = task.notes
    assert "train.tsv: white space in ' neg', 'pos ', 'very  good'" in note
    labels = [each.label for each in read_examples(task, str(tmp_path), "train")]
    assert labels == [1, 1, 0, 2]


def test_labels_that_differ_in_case_are_classes_with_a_note(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\tO", "b\to", "c\tx")
    task = own_task("tsv", str(tmp_path))
    assert task.label_names == ("O", "o", "x")
    assert "'O', 'o' differ only in case" in task.notes[0]


def test_digits_with_and_without_zeros_have_one_order(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\t7", "b\t007", "c\t07")
    assert own_task("tsv", str(tmp_path)).label_names == ("007", "07", "7")


def test_a_test_file_is_enough_where_the_classes_are_known(tmp_path):
    write_lines(tmp_path / "test.tsv", "label\ttext", "-1\ta")
    task = own_task("tsv", str(tmp_path), splits=["test"], label_names=["y", "x"])
    assert task.label_names == ("y", "x")
    found = read_examples(task, str(tmp_path), "test", needs_labels=False)
    assert [tuple(each[:3]) for each in found] == [("a", None, None)]


def test_the_columns_of_the_model_come_before_usual_ones(tmp_path):
    write_lines(tmp_path / "test.tsv", "text\tbody", "a\tb")
    options = {"splits": ["test"], "label_names": ["x", "y"]}
    usual = ColumnNames("body", "", "kind")
    task = own_task("tsv", str(tmp_path), **options, usual_columns=usual)
    [example] = read_examples(task, str(tmp_path), "test")
    assert example.text_a == "b"
    write_lines(tmp_path / "test.tsv", "id\ttext", "1\ta")
    task = own_task("tsv", str(tmp_path), **options, usual_columns=usual)
    assert read_examples(task, str(tmp_path), "test")[0].text_a == "a"


def test_a_repeated_header_line_is_refused(tmp_path):
    lines = ["text\tlabel", "a\tx", "\ufefftext\tlabel", "b\ty"]
    write_lines(tmp_path / "train.tsv", *lines)
    with pytest.raises(ValueError, match=r"train\.tsv, line 3: the header line"):
        own_task("tsv", str(tmp_path))


def test_a_column_that_occurs_twice_is_refused(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel\tlabel", "a\tx\ty", "b\ty\tx")
    with pytest.raises(
        ValueError, match=r"line 1: there must be only one column 'label'"
    ):
        own_task("tsv", str(tmp_path))


def test_half_a_character_is_no_class(tmp_path):
    lines = ['{"text": "a", "label": "\\ud800"}', '{"text": "b", "label": "x"}']
    write_lines(tmp_path / "train.jsonl", *lines)
    with pytest.raises(
        ValueError, match=r"line 1: .* half of a surrogate pair"
    ) as error:
        own_task("jsonl", str(tmp_path))
    str(error.value).encode()


@pytest.mark.parametrize("label", ["1.0", "1" + "0" * 30, "+1"])
def test_a_number_that_is_no_class_is_named_with_its_line(tmp_path, label):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\t0", f"b\t{label}")
    message = f"line 3: 'label' must be classes: .* 18 digits. Received: '.?{label[1:]}"
    with pytest.raises(ValueError, match=message):
        read("tsv", tmp_path)


MULTI = {"is_multi_label": True}


@pytest.mark.parametrize(
    ("file_format", "lines"),
    [
        ("tsv", ["text\tlabels", "a\tsad,angry", "b\t", "c\tsad"]),
        ("csv", ["text,labels", 'a,"sad, angry"', "b,", "c,sad"]),
        (
            "jsonl",
            [
                '{"text": "a", "labels": ["sad", "angry", "sad"]}',
                '{"text": "b", "labels": []}',
                '{"text": "c", "labels": "sad"}',
            ],
        ),
    ],
)
def test_a_text_may_have_any_number_of_labels(tmp_path, file_format, lines):
    write_lines(tmp_path / f"train.{file_format}", *lines)
    names, examples = read(file_format, tmp_path, **MULTI)
    assert names == ("angry", "sad")
    labels = [{*label} for _, _, label in examples]
    assert labels == [{0, 1}, set(), {1}]


@pytest.mark.parametrize(
    ("labels", "number"),
    [
        ([[1, 0], [1, 1]], 2),
        ([[2], [0, 1, 0]], 2),
        ([[True, False, True]], 1),
        (["sad", "0, 0, 1"], 2),
    ],
)
def test_a_1_or_0_for_each_label_is_no_list_of_labels(tmp_path, labels, number):
    rows = [{"text": "a", "labels": each} for each in labels]
    write_objects(tmp_path / "train.jsonl", *rows)
    message = f"line {number}: 'labels' must be the labels .* a 1 or 0 for each label"
    with pytest.raises(ValueError, match=message):
        read("jsonl", tmp_path, **MULTI)


TOXIC = ["id,comment_text,toxic,insult,threat", "1,a,1,0,1", "2,b,0,0,0", "3,c,0,1.0,0"]


def test_labels_may_have_a_column_each(tmp_path):
    write_lines(tmp_path / "train.csv", *TOXIC)
    columns = ColumnNames("comment_text", "", "toxic,threat, insult")
    names, examples = read("csv", tmp_path, "train", columns, **MULTI)
    assert names == ("toxic", "threat", "insult")
    assert [label for _, _, label in examples] == [(0, 1), (), (2,)]


def test_columns_of_labels_are_found_by_the_names_of_a_model(tmp_path):
    write_lines(tmp_path / "dev.csv", *TOXIC)
    usual = ColumnNames("comment_text", labels=("threat", "toxic", "insult"))
    more = {"usual_columns": usual, "label_names": ("threat", "toxic", "insult")}
    names, examples = read(
        "csv", tmp_path, "dev", None, splits=["dev"], **MULTI, **more
    )
    assert names == ("threat", "toxic", "insult")
    assert [label for _, _, label in examples] == [(0, 1), (), (2,)]


@pytest.mark.parametrize(
    ("columns", "line", "message"),
    [
        ("toxic,insult", "4,d,2,0,0", "line 5: 'toxic' must be 1 or 0.*Received: '2'"),
        ("toxic,insult", "4,d,1,-1,0", "line 5: 'insult' must be 1 or 0"),
        ("toxic,insult", "4,d,,0,0", "line 5: 'toxic' must be 1 or 0"),
        ("toxic,mild", "4,d,1,0,0", "line 1: there must be a column 'mild'"),
        ("toxic,toxic", "4,d,1,0,0", "must name each column once"),
        ("toxic,", "4,d,1,0,0", "must name each column once"),
    ],
)
def test_wrong_columns_of_labels_are_named(tmp_path, columns, line, message):
    write_lines(tmp_path / "train.csv", *TOXIC, line)
    columns = ColumnNames("comment_text", "", columns)
    with pytest.raises(ValueError, match=message):
        read("csv", tmp_path, "train", columns, **MULTI)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a\tsad", "b\t"], "must have two or more classes. Received: 'sad'"),
        (["a\t", "b\t"], "must have two or more classes. Received: no examples"),
        (["a\tsad,,angry"], "line 2: 'label' must be a class"),
    ],
)
def test_fewer_than_two_labels_or_an_empty_one_are_refused(tmp_path, lines, message):
    write_lines(tmp_path / "train.tsv", "text\tlabel", *lines)
    with pytest.raises(ValueError, match=message):
        read("tsv", tmp_path, **MULTI)


def test_a_label_that_train_has_not_is_named_with_its_line(tmp_path):
    write_lines(tmp_path / "train.tsv", "text\tlabel", "a\tsad,angry")
    write_lines(tmp_path / "dev.tsv", "text\tlabel", "a\tsad", "b\tsad,glad")
    with pytest.raises(ValueError, match=r"dev.tsv, line 3: .*Received: 'glad'"):
        read("tsv", tmp_path, "dev", **MULTI)


@pytest.mark.parametrize("name", ["train.tsv", "train.tsv.gz", "train.jsonl"])
def test_a_table_without_a_header_is_refused_with_the_names_that_are_looked_for(
    tmp_path, name
):
    is_json = name.endswith(".jsonl")
    content = b'{"words": "A film.", "x": 1}\n' if is_json else b"A film.\tgood\n"
    if name.endswith(".gz"):
        content = gzip.compress(content)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="common name for texts") as error:
        read("jsonl" if is_json else "tsv", tmp_path)
    header = "The first line must be a header with the names of the columns."
    assert (header in str(error.value)) != is_json
    assert "or use a common name: text_a, text, sentence, review" in str(error.value)
    assert "of two texts text_a and text_b, text1 and text2" in str(error.value)


def test_a_table_without_a_label_is_refused_with_the_names_that_are_looked_for(
    tmp_path,
):
    (tmp_path / "train.tsv").write_text("text\tkind\nA film.\tgood\n")
    with pytest.raises(ValueError, match="or use a common name: label, labels, gold"):
        read("tsv", tmp_path)


def test_the_document_lists_the_common_names():
    path = Path(__file__).parents[3] / "docs" / "finetuning.md"
    text = " ".join(path.read_text(encoding="utf-8").split())
    pairs = ", ".join(f"`{a}` and `{b}`" for a, b in custom_task._PAIRS)
    texts, labels = (
        ", ".join(f"`{name}`" for name in names)
        for names in (custom_task._TEXTS, custom_task._LABELS)
    )
    assert f"Two texts: {pairs}. One text: {texts}. Labels: {labels}." in text
