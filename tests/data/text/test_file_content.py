import bz2
import gzip
import lzma
import subprocess

import pytest

from bert_tf.data.text.file_content import check_content
from bert_tf.data.text.input_files import expand_paths

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
