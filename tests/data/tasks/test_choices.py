"""Multiple choice: the columns of SWAG and others, and what is refused."""

import json

import pytest

from bert_tf.data.tasks.choices import encode_questions, read_questions, swag_task
from bert_tf.data.tasks.row_labels import ColumnNames
from bert_tf.data.text.tokenization import WordPieceTokenizer

SWAG = (
    ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,"
    "ending3,label\n"
    '0,v,1,x,"Members, of a band, walk.",A drum line,gold,turns.,passes by.,has.,is.,1'
    "\n"
)


def read(folder, split="train", columns=None, **options):
    task = swag_task(str(folder), (split,), columns or ColumnNames())
    found = read_questions(task, str(folder), split, **options)
    return [tuple(each[:4]) for each in found]


def write_objects(path, *objects):
    path.write_text("".join(f"{json.dumps(each)}\n" for each in objects))


@pytest.mark.parametrize("change", [str.encode, lambda text: text.encode("utf-8-sig")])
def test_the_columns_of_swag_are_found(tmp_path, change):
    (tmp_path / "train.csv").write_bytes(change(SWAG.replace("\n", "\r\n")))
    endings = ("turns.", "passes by.", "has.", "is.")
    expected = ("Members, of a band, walk.", "A drum line", endings, 1)
    assert read(tmp_path) == [expected]


def test_endings_may_be_a_list(tmp_path):
    line = {"context": "It rains.", "endings": ["We go in.", "It flies."], "label": "1"}
    write_objects(tmp_path / "train.jsonl", line)
    assert read(tmp_path) == [("It rains.", "", ("We go in.", "It flies."), 1)]


def test_other_columns_can_be_named(tmp_path):
    line = {"goal": "Boil", "sent1": "x", "ending0": "eggs", "ending1": "tea", "y": 0}
    write_objects(tmp_path / "train.jsonl", line)
    columns = ColumnNames("goal", label="y")
    assert read(tmp_path, columns=columns) == [("Boil", "", ("eggs", "tea"), 0)]


def test_endings_are_in_the_order_of_their_numbers(tmp_path):
    line = {"context": "a", "label": 0} | {f"ending{i}": f"e{i}" for i in (10, 2, 1)}
    write_objects(tmp_path / "train.jsonl", line)
    assert read(tmp_path)[0][2] == ("e1", "e2", "e10")


def test_swags_name_of_the_dev_file_is_found_and_test_needs_no_label(tmp_path):
    (tmp_path / "val.csv").write_text(SWAG)
    (tmp_path / "test.csv").write_text("sent1,sent2,ending0,ending1\na,b,c,d\n")
    assert len(read(tmp_path, "dev")) == 1
    assert read(tmp_path, "test", needs_labels=False) == [("a", "b", ("c", "d"), None)]


def test_two_development_files_are_refused(tmp_path):
    (tmp_path / "valid.csv").write_text(SWAG)
    assert len(read(tmp_path, "dev")) == 1
    (tmp_path / "val.csv").write_text(SWAG)
    with pytest.raises(ValueError, match=r"one development file.*val\.csv, valid\.csv"):
        read(tmp_path, "dev")


GOOD = {"context": "a", "endings": ["b", "c"], "label": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"endings": ["b"]}, "line 2: there must be two or more endings.*Received: 1"),
        ({"endings": []}, "line 2: there must be two or more endings.*Received: 0"),
        ({"endings": ["b", ""]}, "line 2: there must be two or more endings"),
        ({"endings": ["b", None]}, "line 2: there must be two or more endings"),
        ({"endings": "bc"}, "line 2: there must be two or more endings"),
        ({"endings": ["b", "c", "d"]}, "line 2: .*as many endings as the first one, 2"),
        ({"label": 2}, "line 2: the label must be.*from 0 to 1. Received: 2"),
        ({"label": -1}, "line 2: the label must be.*Received: -1"),
        ({"label": ""}, "line 2: the label must be.*Received: ''"),
        ({"label": True}, "line 2: the label must be.*Received: True"),
        ({"label": "1" * 5000}, "line 2: the label must be"),
        ({"context": None}, "line 2: the context must be text. Received: None"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, change, message):
    write_objects(tmp_path / "train.jsonl", GOOD, GOOD | change)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label\na,0\n", "must be columns of a context.*Received: 'text'"),
        (b"context,label\na,0\n", "must be columns of a context.*endings"),
        (b"context,ending0,ending1\na,b,c\n", "must be a column 'label'"),
        (b"", "the file is empty"),
        (b"context,ending0,ending1,label\n", "there are no examples"),
        ("context,ending0,ending1,label\né,b,c,0\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, content, message):
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_each_ending_follows_the_context_and_the_beginning(tmp_path):
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a b c d".split()
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = WordPieceTokenizer(str(tmp_path / "vocab.txt"))
    (tmp_path / "test.csv").write_text("sent1,sent2,ending0,ending1\na,b,c,d\n")
    task = swag_task(str(tmp_path), ("test",), ColumnNames())
    questions = read_questions(task, str(tmp_path), "test", needs_labels=False)
    found = encode_questions(questions, tokenizer, 16)
    text = " ".join(words[i] for i in found.input_ids.tolist())
    assert text == "[CLS] a [SEP] b c [SEP] [CLS] a [SEP] b d [SEP]"
    assert found.segment_ids.tolist() == [0, 0, 0, 1, 1, 1] * 2
