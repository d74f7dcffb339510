"""Files of tagged words: what is read, what is refused, and where tags go."""

import gzip

import numpy as np
import pytest

from bert_tf.data.tasks.conll import (
    Sentence,
    conll_task,
    encode_sentences,
    is_conll,
    is_entity_tag,
    read_conll,
    read_sentences,
    tag_notes,
)
from bert_tf.data.text.tokenization import WordPieceTokenizer

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER


-DOCSTART- -X- -X- O

Brussels NNP B-NP B-LOC
"""
SENTENCES = [
    (["EU", "rejects"], ["B-ORG", "O"]),
    (["Peter", "Blackburn"], ["B-PER", "I-PER"]),
    (["Brussels"], ["B-LOC"]),
]


def read(path, **options):
    return [(each.words, each.tags) for each in read_conll(str(path), **options)]


def task_of(folder, *splits, **options):
    return conll_task(str(folder), splits or ("train",), **options)


@pytest.mark.parametrize(
    "content",
    [
        CONLL_2003.encode(),
        CONLL_2003.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + CONLL_2003.encode(),
        CONLL_2003.replace(" ", "\t").encode(),
        CONLL_2003.replace(" ", "  ").encode(),
        CONLL_2003.replace("\n\n", "\n \t\n").rstrip().encode(),
    ],
    ids=["plain", "crlf", "bom", "tabs", "two-blanks", "blank-lines-with-blanks"],
)
def test_the_first_column_is_the_word_and_the_last_its_tag(tmp_path, content):
    (tmp_path / "a.conll").write_bytes(content)
    assert read(tmp_path / "a.conll") == SENTENCES


def test_words_in_columns_of_tabs_may_have_blanks(tmp_path):
    (tmp_path / "a.conll").write_text("New York\tB-LOC\nis\tO\n")
    assert read(tmp_path / "a.conll") == [(["New York", "is"], ["B-LOC", "O"])]


def test_without_tags_a_line_may_be_a_word_alone(tmp_path):
    (tmp_path / "a.conll").write_text("EU\nrejects\n\nPeter\n")
    found = read(tmp_path / "a.conll", needs_labels=False)
    assert found == [(["EU", "rejects"], []), (["Peter"], [])]


@pytest.mark.parametrize(
    "content",
    [
        "# newdoc\n# text = EU is\nEU\tB-ORG\nis\tO\n\n#\n#\tO\n",
        "# id 1-2\tdomain=en\nEU _ _ B-ORG\nis _ _ O\n\n# a b c d\n# _ _ O\n",
    ],
    ids=["CoNLL-U", "spaces"],
)
def test_comments_before_a_sentence_are_skipped_and_counted(tmp_path, content, caplog):
    """A line with as many columns as the others has the word #."""
    (tmp_path / "a.conll").write_text(content)
    found = read(tmp_path / "a.conll")
    assert found == [(["EU", "is"], ["B-ORG", "O"]), (["#"], ["O"])]
    number = content.count("#") - 1
    assert f"a.conll: skipped {number} comments" in caplog.text


def test_comments_of_the_training_file_are_reported_once(tmp_path, caplog):
    path = tmp_path / "train.conll"
    path.write_text("# newdoc\n# sent\nEU\tB-ORG\nis\tO\n")
    task = conll_task(str(tmp_path), ["train"])
    read_sentences(task, str(tmp_path), "train")
    assert caplog.messages == [f"{path}: skipped 2 comments (#)."]


def test_a_file_of_the_word_that_begins_comments_is_read(tmp_path):
    (tmp_path / "a.conll").write_text("# O\n# O\n")
    assert read(tmp_path / "a.conll") == [(["#", "#"], ["O", "O"])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"EU O\n# a comment\n", "line 2: a line must have 2 columns.*Received: 3"),
        (b"EU B-ORG\nrejects\n", "line 2: a line must have 2 columns.*Received: 1"),
        (b"EU\nrejects\n", "line 1: a line must have 2 columns.*Received: 1"),
        (
            b"EU NNP B-ORG\nx O\n",
            "3 columns, as the lines before it: the word.*Received: 2",
        ),
        (b"EU\tB-ORG\nx\t\n", "line 2: a word and a tag must not be empty"),
        (b"EU\tB-ORG\n\tO\n", "line 2: a word and a tag must not be empty"),
        ("EU O\ncafé O\n".encode("latin-1"), "line 2: not UTF-8.*iconv"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, content, message):
    (tmp_path / "a.conll").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.conll")


def test_tags_are_those_of_train_with_o_first(tmp_path):
    (tmp_path / "train.conll").write_text(CONLL_2003)
    task = task_of(tmp_path)
    assert task.label_names == ("O", "B-LOC", "B-ORG", "B-PER", "I-PER")
    assert task.metrics == ("f1", "precision", "recall", "accuracy")
    [first, *_] = read_sentences(task, str(tmp_path), "train")
    assert first.tags == [2, 0]


@pytest.mark.parametrize(
    "name", ["valid.txt", "eng.testa", "dev.conll.gz", "val.conll"]
)
def test_published_names_of_files_are_found(tmp_path, name):
    (tmp_path / "train.conll").write_text(CONLL_2003)
    content = CONLL_2003.encode()
    is_gzip = name.endswith("gz")
    (tmp_path / name).write_bytes(gzip.compress(content) if is_gzip else content)
    task = task_of(tmp_path, "train", "dev")
    assert len(read_sentences(task, str(tmp_path), "dev")) == len(SENTENCES)


def test_two_development_files_are_refused(tmp_path):
    for name in ("train.txt", "dev.txt", "valid.txt"):
        (tmp_path / name).write_text(CONLL_2003)
    with pytest.raises(ValueError, match=r"one development file.*dev\.txt, valid\.txt"):
        task_of(tmp_path, "train", "dev")


@pytest.mark.parametrize("content", ["", "\n\n", "-DOCSTART- -X- O O\n\n"])
def test_a_file_without_sentences_is_refused(tmp_path, content):
    (tmp_path / "train.conll").write_text(CONLL_2003)
    (tmp_path / "dev.conll").write_text(content)
    task = task_of(tmp_path, "train", "dev")
    with pytest.raises(ValueError, match=r"dev\.conll: there are no examples"):
        read_sentences(task, str(tmp_path), "dev")


@pytest.mark.parametrize("content", ["", "-DOCSTART- O\n", "a O\nb O\n"])
def test_fewer_than_two_tags_are_refused(tmp_path, content):
    (tmp_path / "train.conll").write_text(content)
    with pytest.raises(ValueError, match="must have two or more classes"):
        task_of(tmp_path)


def test_a_tag_that_train_has_not_is_named_with_its_line(tmp_path):
    (tmp_path / "train.conll").write_text(CONLL_2003)
    (tmp_path / "dev.conll").write_text("EU B-ORG\n\nx O\ny B-MISC\n")
    task = task_of(tmp_path, "train", "dev")
    message = r"dev\.conll, line 3: .* 'B-PER', 'I-PER'. Received: 'B-MISC'"
    with pytest.raises(ValueError, match=message):
        read_sentences(task, str(tmp_path), "dev")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.conll"):
        task_of(tmp_path)


def test_other_tags_than_those_of_entities_are_scored_by_accuracy(tmp_path):
    (tmp_path / "train.conll").write_text("dogs NOUN\nbark VERB\n")
    task = task_of(tmp_path)
    assert task.metrics == ("accuracy",)
    assert "accuracy alone" in task.notes[-1]


@pytest.mark.parametrize("tag", ["O", "B-PER", "I-a-b", "B", "I", "S-X", "E-X"])
def test_tags_of_entities_are_known(tag):
    assert is_entity_tag(tag)


@pytest.mark.parametrize("tag", ["", "NN", "OO", "B-", "b-PER", "IN", "PER", "-X"])
def test_other_tags_are_not(tag):
    assert not is_entity_tag(tag)


def test_entities_that_begin_with_i_are_counted(tmp_path):
    (tmp_path / "train.conll").write_text("a I-X\nb I-X\nc B-X\nd I-Y\ne O\n")
    task = task_of(tmp_path)
    [note] = tag_notes(task, read_sentences(task, str(tmp_path), "train"))
    assert note.startswith("2 entities begin with I-")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a b c ##b ##c".split()
    path.write_text("\n".join(words) + "\n")
    return WordPieceTokenizer(str(path))


def encoded(tokenizer, words, tags, length=16):
    found = encode_sentences([Sentence(words, tags, "")], tokenizer, length)
    ids = [tokenizer.inverse_vocab[i] for i in found.sequences.input_ids.tolist()]
    return " ".join(ids), found.tags.tolist(), found


def test_the_first_piece_of_a_word_has_its_tag(tokenizer):
    ids, tags, found = encoded(tokenizer, ["abc", "b"], [3, 1])
    assert ids == "[CLS] a ##b ##c b [SEP]"
    assert tags == [-1, 3, -1, -1, 1, -1]
    assert found.notes == []


def test_a_word_without_pieces_is_unknown_and_keeps_its_tag(tokenizer):
    ids, tags, _ = encoded(tokenizer, ["a", "\u200b\x00", "b"], [1, 2, 3])
    assert ids == "[CLS] a [UNK] b [SEP]"
    assert tags == [-1, 1, 2, 3, -1]


def test_a_long_sentence_is_split_between_words_and_loses_no_tag(tokenizer):
    words, tags = ["a", "abc", "b", "abc", "c"], [1, 2, 3, 4, 5]
    ids, found_tags, found = encoded(tokenizer, words, tags, 6)
    assert ids == "[CLS] a a ##b ##c [SEP] [CLS] b a ##b ##c [SEP] [CLS] c [SEP]"
    assert [tag for tag in found_tags if tag >= 0] == tags
    assert found.sequences.offsets.tolist() == [0, 6, 12, 15]
    assert "1 of 1 sentences are longer than max_seq_length=6" in found.notes[0]


def test_a_word_that_is_longer_than_a_row_is_cut_and_counted(tokenizer):
    ids, tags, found = encoded(tokenizer, ["abcbcbc", "b"], [1, 2], 4)
    assert ids == "[CLS] a ##b [SEP] [CLS] b [SEP]"
    assert tags == [-1, 1, -1, -1, -1, 2, -1]
    assert "cut 1 word of more than 2 WordPieces" in found.notes[1]


def test_words_of_a_file_without_tags_are_still_known(tokenizer):
    _, tags, found = encoded(tokenizer, ["abc", "b"], [])
    assert tags == [-1, 0, -1, -1, 0, -1]
    assert found.tags.dtype == np.int32


def test_a_pointer_of_git_lfs_is_refused(tmp_path):
    """Its lines have two columns, as words and tags do."""
    path = tmp_path / "train.conll"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(ValueError, match="train.conll holds a Git LFS pointer"):
        list(read_conll(str(path)))


TAGS = ("O", "B-PER", "NN", ".")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("test.txt", "Ada B-PER\nlives O\n. O\n\nHe O\n", True),
        ("test.txt", "-DOCSTART- -X- O\n\nAda x B-PER\nLee x B-ORG\nsat x O\n", True),
        ("any.TXT.gz", "Ada\tNNP\tB-PER\nlives\tVB\tO\n", True),
        ("a.conll", "Ada\nlives\n", True),
        ("a.CoNLL.gz", "Ada\n", True),
        ("eng.testb", "Ada\n", True),
        ("test.txt", "Ada lives in O\nShe sings .\n", False),
        ("test.txt", "The cat sat .\nThe dog ran .\n", False),
        ("test.txt", "Ada lives here.\n\nLee B-PER\n", False),
        ("test.txt", "Ada\nO\nO\n", False),
        ("test.txt", "", False),
        ("a.jsonl", '{"text": "Ada O"}\n', False),
    ],
)
def test_tagged_words_are_known_by_name_or_by_the_tags_of_the_model(
    tmp_path, name, content, expected
):
    data = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name[-2:] == "gz" else data)
    assert is_conll(str(tmp_path / name), TAGS) is expected
