import time

import pytest
from texts import read_documents

from bert_tf.data.text import documents
from bert_tf.data.text.documents import read_ranges
from bert_tf.data.text.tokenization import UNCASED, WordSplitter


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    "content",
    [
        "One.\nTwo.\n\nThree.\n",
        "\r\n\r\nOne.\r\nTwo.\r\n\r\n \r\n\r\nThree.",
        "\ufeffOne.\n  Two.\t\n\n\n\nThree.\n\n",
    ],
    ids=["plain", "crlf", "byte order mark"],
)
def test_google_format_is_read(tmp_path, content):
    path = write(tmp_path / "a.txt", content)
    found = list(read_documents([path], "google"))
    assert found == [["One.", "Two."], ["Three."]]


def test_end_of_file_ends_a_document(tmp_path):
    paths = [write(tmp_path / name, f"{name}\n") for name in ("a.txt", "b.txt")]
    assert list(read_documents(paths, "google")) == [["a.txt"], ["b.txt"]]


def test_file_of_plain_text_is_one_document(tmp_path):
    text = "A heading\r\n\r\nOne is here. Two\r\nis there.\n\n\nThree."
    path = write(tmp_path / "a.txt", text)
    found = list(read_documents([path], "text"))
    assert found == [["A heading", "One is here.", "Two is there.", "Three."]]


@pytest.mark.parametrize("target_bytes", [1, 30, 1000])
def test_each_line_is_a_document(tmp_path, target_bytes):
    text = "\ufeffOne is here. Two is there.\r\n\r\nThree.\r\n  \nFour? Five!\n"
    path = write(tmp_path / "a.txt", text)
    ranges = list(documents.cut_into_ranges([path], "lines", target_bytes))
    assert [part.begin for part in ranges[1:]] == [part.end for part in ranges[:-1]]
    assert ranges[-1].end == len(text.encode())
    found = list(read_ranges(ranges, "lines"))
    assert found == [
        ["One is here.", "Two is there."],
        ["Three."],
        ["Four?", "Five!"],
    ]
    whole = documents.FileRange(path, 0, len(text.encode()))
    splitter = WordSplitter(UNCASED)
    assert documents.count_documents(whole, "lines", splitter) == 2
    assert documents.count_documents(whole, "text", splitter) == 1


@pytest.mark.parametrize("input_format", ["google", "text", "lines"])
def test_blank_files_hold_no_documents(tmp_path, input_format):
    path = write(tmp_path / "a.txt", "\n \r\n\ufeff"[:-1])
    assert list(read_documents([path], input_format)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"ok\nf\xc3\xbcr\nna\xefve\n",
            r"a\.txt, line 3: byte 10 of the file \(0xef\)",
        ),
        (b"\xef\xbb\xbfab\xff", r"a\.txt, line 1: byte 5 of the file \(0xff\)"),
    ],
)
def test_text_that_is_not_utf8_is_refused_with_its_place(tmp_path, content, message):
    path = write(tmp_path / "a.txt", content)
    with pytest.raises(ValueError, match=message):
        list(read_documents([path], "google"))


def test_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_LINE_BYTES", 100)
    path = write(tmp_path / "a.txt", "short\n" + "x" * 101)
    with pytest.raises(ValueError, match=r"a\.txt, line 2: the line has more than 100"):
        list(read_documents([path], "google"))


@pytest.mark.parametrize("input_format", ["google", "text"])
def test_very_long_document_comes_in_parts(tmp_path, monkeypatch, input_format):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 1000)
    lines = [f"The sentence number {number} is here." for number in range(100)]
    path = write(tmp_path / "a.txt", "\n".join(lines))
    found = list(read_documents([path], input_format))
    assert len(found) > 2
    assert [sentence for document in found for sentence in document] == lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_any_line_end_ends_a_line(tmp_path, end, monkeypatch):
    monkeypatch.setattr(documents, "_BYTES_AT_ONCE", 3)
    lines = ["One.", "Two.", "", "Three.", "", "", "Four."]
    path = write(tmp_path / "a.txt", end.join(lines))
    expected = [["One.", "Two."], ["Three."], ["Four."]]
    assert list(read_documents([path], "google")) == expected
    assert list(documents.read_lines(path)) == lines


def test_a_run_of_line_ends_costs_no_time(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\r\r\nb" + b"\r" * 200_000 + b"c")
    begin = time.monotonic()
    assert len(list(documents.read_lines(str(path)))) == 200_002
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("target", range(1, 60, 7))
def test_stretches_hold_whole_documents_for_any_line_end(tmp_path, end, target):
    blocks = [[f"{n} a", f"{n} b"] for n in range(9)]
    text = (end * 2).join(end.join(block) for block in blocks)
    path = write(tmp_path / "a.txt", text)
    ranges = list(documents.cut_into_ranges([path], "google", target))
    assert sum(file_range.num_bytes for file_range in ranges) == len(text)
    found = list(read_ranges(ranges, "google"))
    assert found == blocks


def test_lines_of_mixed_files_are_counted_for_messages(tmp_path):
    path = write(tmp_path / "a.txt", b"One.\rTwo.\r\nThree.\n\rF\xffour.\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 5: byte 20"):
        list(read_documents([path], "google"))


# One 0x1A, a zero-width space, a byte order mark, a soft hyphen, a lone accent.
NO_WORDS = ["\x1a", "\u200b", "\ufeff", "\x01\x02", "\xad", "\x00", "\ufffd", "\u0301"]


@pytest.mark.parametrize("junk", NO_WORDS)
def test_documents_without_tokens_do_not_count(tmp_path, junk):
    path = write(tmp_path / "a.txt", f"The cat.\nSat.\n\n{junk}\n\n{junk}\n")
    [file_range] = documents.cut_into_ranges([path], "google", 1000)
    splitter = WordSplitter(UNCASED)
    assert documents.count_documents(file_range, "google", splitter) == 1
    assert documents.count_documents(file_range, "text", splitter) == 1
    path = write(tmp_path / "b.txt", f"{junk}\n\n{junk}.\nx\n\n{junk}\n\ny\n\nz\n")
    [file_range] = documents.cut_into_ranges([path], "google", 1000)
    assert documents.count_documents(file_range, "google", splitter) == 2


@pytest.mark.parametrize("text", ["a", ".", "北", "1", "é", "😀", "  x"])
def test_whatever_becomes_a_token_is_a_word(text):
    assert documents.holds_words(text)
