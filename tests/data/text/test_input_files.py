import bz2
import gzip
import lzma
import os
import re
import shutil
import subprocess

import pytest

from bert_tf.data.tasks import tables
from bert_tf.data.text import documents
from bert_tf.data.text.input_files import check_content, expand_paths, named_paths


def write(path, content="The text."):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return str(path)


def names(paths, folder):
    return [path.removeprefix(f"{folder}/") for path in paths]


def test_files_folders_and_patterns_are_found(tmp_path):
    for name in ("b.txt", "a.txt", "c.md", "d/e.txt"):
        write(tmp_path / name)
    found = expand_paths(f"{tmp_path}, {tmp_path}/?.md,{tmp_path}/d*,{tmp_path}/a.txt")
    assert names(found, tmp_path) == ["a.txt", "b.txt", "c.md", "d/e.txt"]


@pytest.mark.parametrize("name", ["none.txt", "*.none", "empty", "", ","])
def test_input_that_names_nothing_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    value = name if name in ("", ",") else f"{tmp_path}/{name}"
    with pytest.raises(FileNotFoundError, match="`input` must name"):
        expand_paths(value)


def test_files_without_an_extension_are_text(tmp_path, capsys):
    read = ["eval.txt", "part-00000-of-00500", "part-00001-of-00500", "wiki_00"]
    other = [".DS_Store", "_SUCCESS", "eval.md5", "notes.md", "part.crc"]
    for name in (*read, *other):
        write(tmp_path / name, name)
    os.symlink("/nowhere", tmp_path / "lost")
    (tmp_path / "more").mkdir()
    assert names(expand_paths(str(tmp_path)), tmp_path) == read
    lines = capsys.readouterr().err.splitlines()
    assert "7 entries are not read: .DS_Store, _SUCCESS, eval.md5, lost" in lines[0]
    assert lines[0].endswith("and 2 more")
    assert f"input: 4 files, {sum(map(len, read))} bytes: eval.txt, part-0" in lines[2]


@pytest.mark.parametrize("name", ["train.txt.00", "train.txt-00001-of-00002", "A.TXT"])
def test_the_number_of_a_shard_is_no_extension(tmp_path, name):
    path = write(tmp_path / name)
    assert expand_paths(str(tmp_path)) == [path]


def test_a_name_of_evaluation_text_gives_a_warning(tmp_path, capsys):
    for name in ("eval.txt", "part-00-of-12", "part-11-of-12", "notes.md"):
        write(tmp_path / name, name)
    expand_paths(str(tmp_path))
    [warning] = [x for x in capsys.readouterr().err.splitlines() if "warning" in x]
    assert "holds eval.txt next to 2 other files" in warning
    # Its advice leaves the file out.
    pattern = warning.split("--input='")[1].split("'")[0]
    assert names(expand_paths(pattern), tmp_path) == ["part-00-of-12", "part-11-of-12"]


def test_a_folder_of_evaluation_text_alone_is_fine(tmp_path, capsys):
    for name in ("test-0.txt", "test-1.txt"):
        write(tmp_path / name, name)
    assert len(expand_paths(str(tmp_path))) == 2
    assert "warning" not in capsys.readouterr().err


def test_a_folder_that_is_named_twice_is_one_line(tmp_path, capsys):
    for number in range(7):
        write(tmp_path / f"{number}.txt", str(number))
    assert len(expand_paths(f"{tmp_path},{tmp_path}/")) == 7
    [line] = [x for x in capsys.readouterr().err.splitlines() if "same file" in x]
    assert line.endswith("4.txt, and 2 more: read once.")


@pytest.mark.parametrize("kind", ["path", "link", "hard link", "same"])
def test_a_file_with_two_names_is_read_once(tmp_path, kind, capsys):
    first = write(tmp_path / "a.txt")
    other = tmp_path / "sub" / "b.txt"
    other.parent.mkdir()
    if kind == "link":
        other.symlink_to(first)
    elif kind == "hard link":
        os.link(first, other)
    elif kind == "path":
        other = f"{tmp_path}/sub/../a.txt"
    else:
        other = first
    assert expand_paths(f"{first},{other}") == [first]
    assert f"{other} is the same file as {first}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a,b.txt", "a b.txt", "a[1].txt", "x,y,z/a.txt"])
def test_commas_blanks_and_brackets_may_be_in_names(tmp_path, name):
    path = write(tmp_path / name)
    assert expand_paths(path) == [path]
    other = write(tmp_path / "other.txt")
    assert expand_paths(f"{path},{other}") == [path, other]


def test_brackets_in_a_folder_and_a_pattern_after_it(tmp_path):
    path = write(tmp_path / "set[1]" / "a.txt")
    assert expand_paths(f"{tmp_path}/set[1]/*.txt") == [path]
    assert expand_paths(f"{tmp_path}/set[[]1]/[a-c].txt") == [path]


def test_subfolders_are_named_with_a_pattern_that_reads_them(tmp_path):
    write(tmp_path / "AA" / "wiki_00")
    write(tmp_path / "README.md")
    with pytest.raises(FileNotFoundError, match="To read its subfolders") as refused:
        expand_paths(str(tmp_path))
    pattern = str(refused.value).split("--input='")[1].split("'")[0]
    assert names(expand_paths(pattern), tmp_path) == ["AA/wiki_00"]


def test_a_link_to_nothing_and_a_pipe_are_refused(tmp_path):
    os.symlink("/nowhere", tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="a link to /nowhere"):
        expand_paths(str(tmp_path / "*.txt"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe, which is neither"):
        expand_paths(str(tmp_path / "pipe"))


def test_files_of_a_folder_without_text_are_named(tmp_path, capsys):
    (tmp_path / "a.txt.xz").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match="holds no"):
        expand_paths(str(tmp_path))
    assert "1 entry is not read: a.txt.xz" in capsys.readouterr().err


def write_gzip(path, content="The text."):
    path.write_bytes(gzip.compress(content.encode()))
    return str(path)


def test_text_compressed_by_gzip_is_found_in_a_folder(tmp_path, capsys):
    paths = [write_gzip(tmp_path / name) for name in ("a.TXT.GZ", "wiki_00.gz")]
    for name in ("b.tar.gz", "c.jsonl.gz"):
        write_gzip(tmp_path / name)
    assert expand_paths(str(tmp_path)) == paths
    assert "not read: b.tar.gz, c.jsonl.gz" in capsys.readouterr().err


def test_a_compressed_copy_of_a_text_is_left_out_and_named(tmp_path, capsys):
    path = write(tmp_path / "a.txt")
    write_gzip(tmp_path / "a.txt.gz")
    assert expand_paths(str(tmp_path)) == [path]
    assert "1 entry is not read: a.txt.gz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain", "a.txt.gz is not a whole gzip file: Not a gzipped file"),
        (gzip.compress(b"The cat sat on the mat." * 9)[:-12], "not a whole gzip file"),
        (gzip.compress(b'{"text": "Hello."}'), "holds JSON, not plain text"),
        (gzip.compress("The cat.".encode("utf-16")), "is UTF-16, not text in UTF-8"),
    ],
    ids=["plain", "cut", "json", "utf-16"],
)
def test_what_is_no_compressed_text_is_refused(tmp_path, content, message):
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        expand_paths(f"{tmp_path}/a.txt.gz")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.csv.gz", "a.jsonl.gz"])
def test_tables_are_refused_as_text_with_the_command_that_reads_them(tmp_path, name):
    write(tmp_path / name)
    with pytest.raises(ValueError, match="data extract` reads dumps, JSON, CSV and"):
        expand_paths(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.tsv", "a.TSV.gz"])
def test_tables_with_tabs_are_refused_as_text(tmp_path, name):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=r"Store it as CSV .*data extract` reads"):
        expand_paths(str(tmp_path / name))


def test_a_link_to_itself_is_left_out_and_named(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("x\n")
    os.symlink("b.txt", tmp_path / "b.txt")
    assert expand_paths(str(tmp_path)) == [str(tmp_path / "a.txt")]
    assert "1 entry is not read: b.txt" in capsys.readouterr().err


def test_other_suffixes_do_not_take_files_without_an_extension(tmp_path):
    write(tmp_path / "part-00000")
    path = write(tmp_path / "a.jsonl", "{}")
    assert expand_paths(str(tmp_path), (".jsonl",)) == [path]


RUSSIAN = "Кошка сидела на ковре. И собака тоже.\n"
TEXT = "The cat sat.\n\nThe dog, too.\n"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(TEXT.encode()), "gzip"),
        (bz2.compress(TEXT.encode()), "bzip2"),
        (lzma.compress(TEXT.encode()), "xz"),
        (TEXT.encode("utf-16"), "UTF-16"),
        (TEXT.encode("utf-16-le"), "UTF-16LE"),
        (TEXT.encode("utf-16-be"), "UTF-16BE"),
        (TEXT.encode("utf-32"), "UTF-32"),
    ],
    ids=["gzip", "bzip2", "xz", "UTF-16", "UTF-16LE", "UTF-16BE", "UTF-32"],
)
def test_a_file_that_is_not_utf8_is_refused_with_a_remedy_that_works(
    tmp_path, content, kind
):
    path = tmp_path / "a b.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=kind) as refused:
        expand_paths(str(path))
    command = str(refused.value).split("`")[1].replace("NEW", "new.txt")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "new.txt").read_text() == TEXT
    assert expand_paths(str(tmp_path / "new.txt"))


@pytest.mark.parametrize(
    ("content", "option"),
    [
        ('{"text": "Hello."}\n{"text": "There."}\n', "json"),
        ('\ufeff[\n {"text": "Hello."}]', "json"),
        ('<mediawiki xmlns="x">', "mediawiki"),
        ('<doc id="12" title="Cat">\nCat\n\nA cat.\n</doc>', "json"),
    ],
)
def test_markup_is_refused_as_text_whatever_its_name_is(tmp_path, content, option):
    path = tmp_path / "wiki_00"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"--input_format={option}"):
        check_content(str(path), is_text=True)
    check_content(str(path), is_text=False)


def test_utf16_of_other_letters_is_noticed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(RUSSIAN.encode("utf-16-le"))
    with pytest.raises(ValueError, match="UTF-16LE"):
        check_content(str(path), is_text=True)


@pytest.mark.parametrize(
    "content", ["", "a", '{"', "{x} is a set.", "a\0b c d e f", "word\n" + "\0" * 50]
)
def test_plain_text_passes(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_text(content)
    check_content(str(path), is_text=True)


@pytest.mark.parametrize("name", [" both ends ", "a, b", " x,y ", "[1]"])
def test_a_folder_is_found_by_its_exact_name(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / "plain").mkdir()
    [found] = named_paths(str(tmp_path / name))
    assert found[1] == [str(tmp_path / name)]
    both = [
        matches for _, matches in named_paths(f"{tmp_path / name}, {tmp_path}/plain")
    ]
    assert both == [[str(tmp_path / name)], [f"{tmp_path}/plain"]]


@pytest.mark.skipif(not shutil.which("iconv"), reason="needs iconv")
@pytest.mark.parametrize("read", [documents.read_lines, tables.numbered_lines])
@pytest.mark.parametrize("ending", ["txt", "txt.gz"])
def test_the_advice_on_another_encoding_converts_the_file(tmp_path, read, ending):
    path = tmp_path / f"a b.{ending}"
    packed, unpacked = (lambda x: x, lambda x: x)
    if ending.endswith("gz"):
        packed, unpacked = gzip.compress, gzip.decompress
    path.write_bytes(packed("warm\ncafé\n".encode("windows-1252")))
    with pytest.raises(ValueError, match="line 2.*Then replace the file") as error:
        list(read(str(path)))
    commands = re.findall("`(.*?iconv .*?)`", str(error.value))
    for command, expected in zip(commands, ["café", "caf"], strict=True):
        # With -c, iconv leaves out bytes but returns 1.
        subprocess.run(command, shell=True, cwd=tmp_path, check=False, timeout=10)
        found = unpacked((tmp_path / "NEW").read_bytes()).decode()
        assert found == f"warm\n{expected}\n"


@pytest.mark.skipif(not shutil.which("iconv"), reason="needs iconv")
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_the_advice_on_compressed_text_in_another_encoding_works(tmp_path, encoding):
    path = tmp_path / "a b.txt.gz"
    path.write_bytes(gzip.compress(TEXT.encode(encoding)))
    with pytest.raises(ValueError, match="not text in UTF-8") as refused:
        expand_paths(str(path))
    command = str(refused.value).split("`")[1].replace("NEW", "new.txt.gz")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, timeout=10)
    assert gzip.decompress((tmp_path / "new.txt.gz").read_bytes()).decode() == TEXT
    assert expand_paths(str(tmp_path / "new.txt.gz"))
