"""Which vocabularies are the same, belong together, or fit a table."""

import hashlib
import json
import re

import pytest
import tokenizers
from data.shared import SPECIALS

from bert_tf.data.records.metadata import Metadata
from bert_tf.data.records.provenance import check_vocabulary
from bert_tf.data.text.vocabulary import (
    check_same_words,
    check_size,
    has_sha256,
    has_wordpiece,
    is_padding,
    load_vocabulary,
    vocabulary_sha256,
    vocabulary_text,
)

WORDS = [*SPECIALS, "[unused0]", "[unused1]", "the", "cat", "##s"]


def write(path, words):
    path.write_text("\n".join(words) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def theirs(tmp_path):
    return write(tmp_path / "theirs.txt", WORDS)


@pytest.mark.parametrize(
    "rows, words, expected",
    [
        (30522, 30522, True),
        (30528, 30522, True),
        (30525, 30522, True),
        (30592, 30522, True),
        (30720, 30522, True),
        (64, 30, True),
        (128, 30, True),
        (30530, 30522, False),
        (30522, 21128, False),
        (30520, 30522, False),
        (2048, 1024, False),
    ],
)
def test_padding_fills_up_to_a_power_of_two(rows, words, expected):
    assert is_padding(rows, words) is expected


def many(path, count):
    return write(path, [*SPECIALS, *(f"w{n}" for n in range(count - len(SPECIALS)))])


@pytest.mark.parametrize(
    "words, rows, told",
    [
        (100, 100, []),
        (100, 128, ["The word embedding table has 128 rows for the 100 words"]),
        (
            1000,
            1050,
            ["warning: The word embedding table has 1050 rows for the 1000 words"],
        ),
    ],
)
def test_unused_rows_are_reported(tmp_path, words, rows, told):
    notes = check_size(many(tmp_path / "v.txt", words), rows)
    assert len(notes) == len(told)
    assert all(map(str.startswith, notes, told))


@pytest.mark.parametrize("words, rows", [(101, 100), (100, 120), (1000, 1051)])
def test_a_vocabulary_of_another_model_is_refused(tmp_path, words, rows):
    vocab_file = many(tmp_path / "v.txt", words)
    with pytest.raises(ValueError, match=f"has {words} words, .* vocab_size={rows}"):
        check_size(vocab_file, rows)


def test_a_small_vocabulary_may_give_only_a_warning(tmp_path):
    vocab_file = many(tmp_path / "v.txt", 100)
    [note] = check_size(vocab_file, 1001, may_be_small=True)
    assert note.startswith("warning: ")
    with pytest.raises(ValueError, match="has 100 words"):
        check_size(vocab_file, 99, may_be_small=True)


def test_the_same_words_need_no_line(tmp_path, theirs):
    assert check_same_words(theirs, theirs) == []
    assert check_same_words(write(tmp_path / "v.txt", WORDS), theirs) == []


def test_own_words_in_unused_rows_and_at_the_end_are_counted(tmp_path, theirs):
    own = [*SPECIALS, "[unused0]", "covid", *WORDS[7:], "flu"]
    [note] = check_same_words(write(tmp_path / "v.txt", own), theirs)
    assert "has 2 of your own words in place of [unusedN]" in note
    assert note.endswith("covid, flu.")


@pytest.mark.parametrize(
    "words, message",
    [
        (
            [*WORDS[:7], "cat", "the", "##s"],
            "2 of 10 lines differ, first line 8: 'cat'",
        ),
        ([*WORDS[:7], "a", "dog", "##s"], "2 of 10 lines differ"),
        (WORDS[:-1], "1 of 10 lines differ, first line 10: nothing instead of '##s'"),
        (
            [*SPECIALS, *WORDS[7:]],
            r"lines differ, first line 8: '##s' instead of 'the'",
        ),
    ],
)
def test_other_words_than_the_weights_are_refused(tmp_path, theirs, words, message):
    with pytest.raises(ValueError, match=message):
        check_same_words(write(tmp_path / "v.txt", words), theirs)


def test_records_of_other_words_than_the_weights_must_be_made_again(tmp_path, theirs):
    mine = write(tmp_path / "v.txt", [*WORDS[:7], "cat", "the", "##s"])
    with pytest.raises(ValueError) as caught:
        check_same_words(mine, theirs, has_records=True)
    assert f"records again with --vocab_file={theirs}, unless" in str(caught.value)
    assert "[unusedN]" not in str(caught.value)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [0, 1, 2])
def test_the_same_words_stored_another_way_are_the_same(
    tmp_path, theirs, mark, line_end, last
):
    stored = mark + line_end.join(w.encode() for w in WORDS) + line_end * last
    assert has_sha256(theirs, hashlib.sha256(stored).hexdigest())
    path = tmp_path / "stored.txt"
    path.write_bytes(stored)
    with open(theirs, "rb") as file:
        assert has_sha256(str(path), hashlib.sha256(file.read()).hexdigest())


def test_another_order_is_another_vocabulary(theirs):
    stored = "\n".join(reversed(WORDS)) + "\n"
    assert not has_sha256(theirs, hashlib.sha256(stored.encode()).hexdigest())


def test_records_of_another_vocabulary_are_refused_naming_both(theirs):
    about = Metadata(avg_seq_per_sample=1.0, vocab_sha256="ab" * 32, vocab_size=10)
    with pytest.raises(ValueError) as caught:
        check_vocabulary(theirs, {"/data/rec": about})
    for part in ("/data/rec_metadata.json", "abababababab", "10 words", theirs):
        assert part in str(caught.value)


def test_records_that_name_no_vocabulary_are_passed_over(theirs):
    check_vocabulary(theirs, {"rec": Metadata(avg_seq_per_sample=1.0)})


def test_vocabulary_with_crlf_and_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*SPECIALS, "é", "", ""]).encode())
    assert load_vocabulary(str(path)) == [*SPECIALS, "é"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n",
            r"vocab\.txt, lines 1 to 5: .* \[MASK\] are missing",
        ),
        (b"[PAD]\nthe\ncat\nthe\n", r"vocab\.txt, line 4: .*'the' is on line 2"),
        (b"[PAD]\n\nthe\n", r"vocab\.txt, line 2: the line is empty"),
        (b"[PAD]\nthe\n\xff\xfe\n", r"vocab\.txt, line 3: not UTF-8 \(byte 0: 0xff"),
        (b"", r"vocab\.txt, line 1: the line is empty"),
    ],
)
def test_bad_vocabulary_is_refused_with_file_and_line(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_vocabulary(str(path))


@pytest.mark.parametrize("text", ["One sentence.\n\nTwo.\n", "the\ncat\nthe\n"])
def test_a_text_is_said_to_be_no_vocabulary(tmp_path, text):
    path = tmp_path / "text.txt"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        load_vocabulary(str(path))
    start = f"{path} is no WordPiece vocabulary, which has one token per line"
    assert str(caught.value).startswith(start)
    assert "Replace line" not in str(caught.value)


def advice(path):
    """Number and new content of the line that the message speaks of, if any."""
    try:
        load_vocabulary(str(path))
    except ValueError as error:
        found = re.search(r"Replace line (\d+) by (\S+), which", str(error))
        return int(found[1]), found[2]
    return None


@pytest.mark.parametrize(
    "tokens",
    [
        [*SPECIALS, "[unused0]", "the", "cat", "the", "dog", "cat"],
        [*SPECIALS, "[unused0]", "the", "", "cat", "  ", "dog"],
        ["[PAD]", "", *SPECIALS[1:], "[unused1]", "the", "[unused0]"],
    ],
)
def test_advice_about_a_line_of_a_vocabulary_moves_no_other_line(tmp_path, tokens):
    path = tmp_path / "vocab.txt"
    lines = list(tokens)
    path.write_text("\n".join(lines))
    while found := advice(path):
        number, name = found
        lines[number - 1] = name
        path.write_text("\n".join(lines))
    loaded = load_vocabulary(str(path))
    assert len(loaded) == len(tokens)
    # A token keeps the last of its ids, which is the one that other programs use.
    for token in filter(str.strip, tokens):
        assert loaded.index(token) == len(tokens) - 1 - tokens[::-1].index(token)


def test_vocabulary_with_cr_line_ends_is_read(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r".join([*SPECIALS, "a"]).encode())
    assert load_vocabulary(str(path)) == [*SPECIALS, "a"]


def test_missing_vocabulary_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="vocab_file=.*none.txt"):
        load_vocabulary(str(tmp_path / "none.txt"))


@pytest.fixture
def tokenizer_file(tmp_path):
    """What the library `tokenizers` writes, which transformers 5 saves with."""
    ids = {word: number for number, word in enumerate(WORDS)}
    model = tokenizers.models.WordPiece(dict(sorted(ids.items())), unk_token="[UNK]")
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_a_tokenizer_of_wordpiece_has_the_same_words(tokenizer_file, theirs):
    assert has_wordpiece(tokenizer_file)
    assert load_vocabulary(str(tokenizer_file)) == WORDS
    assert check_same_words(theirs, str(tokenizer_file)) == []


def test_a_tokenizer_has_the_text_and_the_checksum_of_vocab_txt(tokenizer_file, theirs):
    with open(theirs, "rb") as file:
        text = file.read()
    assert vocabulary_text(str(tokenizer_file)) == vocabulary_text(theirs) == text
    sha256 = hashlib.sha256(text).hexdigest()
    assert vocabulary_sha256(str(tokenizer_file)) == vocabulary_sha256(theirs) == sha256
    assert has_sha256(str(tokenizer_file), sha256)
    about = Metadata(avg_seq_per_sample=1.0, vocab_sha256=sha256)
    check_vocabulary(str(tokenizer_file), {"records": about})


def test_a_damaged_tokenizer_is_not_passed_over(tokenizer_file):
    tokenizer_file.write_text("{")
    assert has_wordpiece(tokenizer_file)
    with pytest.raises(ValueError, match="tokenizer.json is not JSON"):
        load_vocabulary(str(tokenizer_file))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"type": "BPE"}, "the model must be WordPiece, with ##.*Received: 'BPE'"),
        ({"continuing_subword_prefix": "@@"}, "the model must be WordPiece, with ##"),
        ({"vocab": ["[PAD]"]}, "Received: other ids"),
        ({"vocab": {word: 2 * n for n, word in enumerate(WORDS)}}, "other ids"),
        ({"vocab": {word: f"{n}" for n, word in enumerate(WORDS)}}, "other ids"),
        ({"vocab": {"a\nb": 0}}, r"Received: the token 'a\\nb'"),
        ({"vocab": {"a": 0}}, r"tokenizer.json: the special tokens \[PAD\]"),
    ],
)
def test_another_tokenizer_is_refused(tokenizer_file, change, message):
    values = json.loads(tokenizer_file.read_text())
    values["model"] |= change
    tokenizer_file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        load_vocabulary(str(tokenizer_file))
