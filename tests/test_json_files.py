"""JSON files are read strictly, with the reason where one is refused."""

import json
import os

import pytest

from bert_tf.json_files import parse_json, read_json, read_object


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"\xef\xbb\xbf", "it is empty"),
        (b'{"a": 1', "at line 1, column 8"),
        (b'{"a": 1}\n]', "Extra data at line 2, column 1"),
        (b"{'a': 1}", "double quotes at line 1, column 2"),
        (b'{"a": "caf\xe9"}', r"byte 10 \(0xe9\) is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "stored as UTF-16"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice"),
        (b'{"b": {"a": 1, "a": 1}}', "the key 'a' occurs twice"),
        (b"[NaN]", "it must hold finite numbers"),
        (b"[-Infinity]", "it must hold finite numbers"),
        (b'{"a": [1e400]}', "`a` must hold finite numbers"),
        (b"[" + b"9" * 99 + b"e299]", "it must hold finite numbers"),
        (b"[" + b"9" * 5000 + b"]", "a number of 5000 digits"),
        (b"[" * 101 + b"]" * 101, "nested deeper than 100 levels"),
        (b"[" * 100_000, "nested deeper than 100 levels"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested deeper than 100 levels"),
        (rb'["\ud800"]', r"holds \\ud800, half of a surrogate pair"),
        (rb'{"\udc00": 1}', r"holds \\udc00, half of a surrogate pair"),
    ],
)
def test_what_is_not_plain_json_is_refused_with_the_reason(data, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(data)


@pytest.mark.parametrize(
    "data, value",
    [
        (b'\xef\xbb\xbf{"a": "\xc3\xa9"}', {"a": "é"}),
        (rb'["\ud83d\ude00"]', ["😀"]),
        (b'{"a": [1, 2.5, true, null]}\r\n', {"a": [1, 2.5, True, None]}),
        (b"[" * 100 + b"]" * 100, json.loads("[" * 100 + "]" * 100)),
        (b"[123456789012345678901234567890]", [123456789012345678901234567890]),
    ],
)
def test_plain_json_is_read(data, value):
    assert parse_json(data) == value


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html>", "a page of HTML"),
        (b"", "it is empty"),
    ],
)
def test_a_file_that_is_refused_is_named(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json is not JSON: .*{reason}"):
        read_json(path)


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"{" + b" " * 100 + b"}")
    with pytest.raises(ValueError, match=r"at most 64 bytes\. Received: 102 bytes"):
        read_json(path, max_bytes=64)


def test_folders_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is a pipe or a device"),
        ("/dev/zero", "is a pipe or a device"),
    ):
        with pytest.raises(ValueError, match=reason):
            read_json(path)


def test_an_object_of_a_missing_file_is_empty(tmp_path):
    assert read_object(tmp_path / "task.json") == {}
    (tmp_path / "task.json").write_bytes(b'\xef\xbb\xbf{"task": "classify"}')
    assert read_object(tmp_path / "task.json") == {"task": "classify"}
    (tmp_path / "task.json").write_text("[]")
    with pytest.raises(ValueError, match=r"must hold a JSON object\. Received: list"):
        read_object(tmp_path / "task.json")
