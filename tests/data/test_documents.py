import pytest

from bert_tf.data import documents
from bert_tf.data.documents import document_bytes, read_documents
from bert_tf.data.input_files import expand_paths


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


@pytest.mark.parametrize("input_format", ["google", "text"])
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


def test_size_of_a_document_is_that_of_its_file(tmp_path):
    path = write(tmp_path / "a.txt", "Où?\nIci.\n")
    [document] = read_documents([path], "google")
    assert document_bytes(document) == (tmp_path / "a.txt").stat().st_size


def test_files_folders_and_patterns_are_found(tmp_path):
    for name in ("b.txt", "a.txt", "c.md", "d/e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, "x")
    found = expand_paths(f"{tmp_path}, {tmp_path}/?.md,{tmp_path}/d*,{tmp_path}/a.txt")
    names = [path.removeprefix(f"{tmp_path}/") for path in found]
    assert names == ["a.txt", "b.txt", "c.md", "d/e.txt"]


@pytest.mark.parametrize("name", ["none.txt", "*.none", "empty", "", ","])
def test_input_that_names_nothing_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    value = name if name in ("", ",") else f"{tmp_path}/{name}"
    with pytest.raises(FileNotFoundError, match="`input` must name"):
        expand_paths(value)
