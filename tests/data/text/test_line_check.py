"""Plain text that is read as one sentence per line is noticed."""

import pytest

from bert_tf.data.text.line_check import warn_of_plain_text
from bert_tf.data.text.sentence_splitting import split_sentences

REMEDY = "Do that."
PARAGRAPH = (
    "The lighthouse was built in 1871 by a retired sea captain. Its lamp could be seen "
    "from thirty miles away. Today a family of painters lives in it, and it is dark."
)
WRAPPED = """The lighthouse was built in 1871 by a
retired sea captain. Its lamp could be
seen from thirty miles away. Today a
family of painters lives in it, and it
is dark.
"""


@pytest.fixture
def warnings_of(tmp_path):
    def check(*texts):
        paths = []
        for number, text in enumerate(texts):
            paths.append(str(tmp_path / f"{number}.txt"))
            (tmp_path / f"{number}.txt").write_text(text)
        return warn_of_plain_text(paths, REMEDY)

    return check


def test_lines_of_several_sentences_are_noticed(warnings_of):
    [line] = warnings_of(f"{PARAGRAPH}\n\n" * 5)
    assert "0.txt: 5 of its first 5 lines hold several sentences, but" in line
    assert line.endswith(REMEDY)


def test_lines_that_are_broken_within_sentences_are_noticed(warnings_of):
    [line] = warnings_of(f"{WRAPPED}\n" * 5)
    # Four of five lines in each paragraph.
    assert "20 of its first 25 lines continue a sentence of the line before" in line


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(split_sentences(PARAGRAPH)) + "\n\n",
        "the cat sat on the mat .\nand the dog ran to it .\n\nit was a mat .\n",
        "The Old Library\nIt keeps maps:\none of the harbour;\none of the coast.\n",
        "a lighthouse\nthe lamp was seen\nit is dark\n",
        "",
        "\n\n",
    ],
    ids=["sentences", "lower case", "list", "no stops", "empty", "blank"],
)
def test_one_sentence_on_each_line_is_fine(warnings_of, text):
    assert warnings_of(text * 5) == []


def test_the_first_file_that_is_noticed_is_named(warnings_of):
    good = "A cat.\nA dog.\n\n"
    [line] = warnings_of(good, PARAGRAPH, PARAGRAPH)
    assert "1.txt: " in line
