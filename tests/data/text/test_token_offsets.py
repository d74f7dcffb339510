import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tf.data.text import token_offsets as offsets
from bert_tf.data.text.token_offsets import OffsetTokenizer
from bert_tf.data.text.tokenization import (
    CASED,
    UNCASED,
    TokenizerSettings,
    WordPieceTokenizer,
)

HARD = {
    "empty": "",
    "blank": " \t\n\r ",
    "marks in any order": "a\u0301\u0323\u0308b \u0301al x\u20dd\u0301 \u0344 \u0f73",
    "marks that stay": "a\U0001d16d\u302e\u0301b c\u302e\U0001d16d क\u093e\u0941\u0301",
    "cjk with marks": "北\u0301京 豈\U00020000\U0002f800\u0323a",
    "hangul": "한글 각\u0301 \u1100\u1161\u11a8",
    "final sigma": "ΟΔΟΣ ΟΔΟΣ, ΑΣ'Α ΑΣ\u200b Σ ΟΔΟΣ\u00adΑ Σ\u0301",
    "growing letters": "İstanbul ẞ ﬁ ǆ ᾼ ΐ",
    "controls": "a\x00b\x01c\x0bd\x0ce\x1cf\x1dg\x1eh\x1fi\x7fj\x85k\x9f \x1c \x85",
    "formats": "a\u00adb\u200bc\u200d\u0301d\ufeffe\u2060 \u200b",
    "blanks": "a\u00a0b\u1680c\u2028d\u2029e\u3000f\ti\nj\rk\ufffdl",
    "surrogates": "the \ud800 cat\udc00s",
    "special tokens": "[CLS] the [MASK] cat[SEP]mat [UNK] ##s ## # [unused1]",
    "punctuation": "U.S.A.'s $5.00 a_b~c`d^e «x» ¿q? 北京。\u1fef\u037e\u0301",
    "long words": "x" * 200 + " " + "x" * 201 + " " + "x\u0301" * 200 + "," + "é" * 201,
}
LIKELY = st.sampled_from(
    "aAéÉßİıσΣς北한 \t\u00a0\u2028\x1c\x00\u00ad\u0301\u0323\u302e\U0001d16d.,'[]#-😀"
)
SETTINGS = [
    UNCASED,
    CASED,
    TokenizerSettings(do_lower_case=True, strip_accents=False),
    TokenizerSettings(do_lower_case=False, strip_accents=True),
    TokenizerSettings(tokenize_chinese_chars=False),
]
TEXTS = st.text(LIKELY) | st.text() | st.text(st.characters(max_codepoint=0x24F))


@pytest.fixture(scope="module", params=SETTINGS, ids=str)
def tokenizer(request, vocab_file):
    return WordPieceTokenizer(vocab_file, request.param)


@pytest.fixture(scope="module")
def uncased(vocab_file):
    return WordPieceTokenizer(vocab_file)


def slices(tokenizer, text):
    _, begins, ends = OffsetTokenizer(tokenizer).encode(text)
    return [text[begin:end] for begin, end in zip(begins, ends, strict=True)]


def check(tokenizer, text):
    """Ids are the tokenizer's; a slice alone makes what its token says."""
    found = OffsetTokenizer(tokenizer).encode(text)
    assert found.input_ids == tokenizer.encode([text])[0]
    assert len(found.begins) == len(found.ends) == len(found.input_ids)
    for token, begin, end in zip(*found, strict=True):
        assert 0 <= begin < end <= len(text)
        if token != tokenizer.special.unk:
            piece = tokenizer.inverse_vocab[token].removeprefix("##")
            # The last letter of a word may look different from within it.
            alone = "".join(tokenizer.words(text[begin:end])).replace("ς", "σ")
            assert piece.replace("ς", "σ") in alone


@pytest.mark.parametrize("name", HARD)
def test_hard_strings_have_the_ids_of_the_tokenizer(tokenizer, name):
    check(tokenizer, HARD[name])


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(text=TEXTS)
def test_any_text_has_the_ids_of_the_tokenizer(tokenizer, text):
    check(tokenizer, text)


def test_pieces_cover_their_letters(uncased):
    assert slices(uncased, "The cat, running!") == [
        *("The", "cat", ",", "run", "ning", "!")
    ]


def test_accents_belong_to_their_letters(uncased):
    text = "Cafe\u0301 naïve e\u0301\u0323\u00ad\u0308."
    expected = ["Cafe\u0301", "naïve", "e\u0301\u0323\u00ad\u0308", "."]
    assert slices(uncased, text) == expected


def test_an_accent_on_a_blank_belongs_to_no_token(uncased):
    assert slices(uncased, "a \u0301cat") == ["a", "cat"]


def test_accents_that_a_cased_vocabulary_keeps_are_characters(vocab_file):
    cased = WordPieceTokenizer(vocab_file, CASED)
    assert slices(cased, "é mat") == ["é", "mat"]


def test_each_chinese_character_is_a_token(uncased):
    assert slices(uncased, "我在北京，mat北cat。") == [
        *("我", "在", "北", "京", "，", "mat", "北", "cat", "。")
    ]


def test_unknown_words_are_covered_whole(uncased):
    assert slices(uncased, "the жук, cat") == ["the", "жук", ",", "cat"]


def test_a_word_of_more_than_200_letters_is_one_token(uncased):
    assert slices(uncased, "a " + "x" * 201 + ".") == ["a", "x" * 201, "."]


def test_dropped_characters_within_a_word_are_covered_and_at_its_ends_not(uncased):
    assert slices(uncased, "\u200bc\x00a\x1ct\u200b dog") == ["c\x00a\x1ct", "dog"]


def test_pieces_of_one_character_cover_all_of_it(tmp_path):
    path = tmp_path / "vocab.txt"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u1100", "##\u1161"]
    path.write_text("\n".join(tokens), encoding="utf-8")
    assert slices(WordPieceTokenizer(str(path)), "가") == ["가", "가"]


def test_a_letter_that_grows_when_lower_cased_is_one_character(uncased):
    assert slices(uncased, "İt İİ") == ["İt", "İ", "İ"]


def test_marks_in_another_order_keep_their_places(tmp_path):
    # U+302E has combining class 224 and goes before U+1D16D with 226.
    path = tmp_path / "vocab.txt"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##\u302e"]
    path.write_text("\n".join([*tokens, "##\U0001d16d"]), encoding="utf-8")
    tokenizer = WordPieceTokenizer(str(path))
    found = OffsetTokenizer(tokenizer).encode("a\U0001d16d\u302e")
    assert found == ([5, 6, 7], [0, 2, 1], [1, 3, 2])


def test_memory_of_stretches_is_bounded(uncased, monkeypatch):
    monkeypatch.setattr(offsets, "_MAX_REMEMBERED", 2)
    tokenizer = OffsetTokenizer(uncased)
    found = tokenizer.encode("the cat sat on the mat " + "y" * 30)
    assert tokenizer._remembered.cache_info().currsize == 2
    assert found.begins[:6] == [0, 4, 8, 12, 15, 19]
