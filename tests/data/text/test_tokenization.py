import json

import pytest
from data.shared import SPECIALS
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from bert_tf.data.text import tokenization
from bert_tf.data.text.tokenization import (
    CASED,
    UNCASED,
    OffsetTokenizer,
    TokenizerSettings,
    WordPieceTokenizer,
    WordSplitter,
)

HARD = {
    "empty": "",
    "blank": " \t\n\r ",
    "words": "The cat was running, unaffable dogs!",
    "accents": "Café naïve ÀÉÎÕÜ ñandú Ångström",
    "combining marks": "cafe\u0301 n\u0303 a\u0301\u0323\u0308b \u0301al x\u20dd\u0301",
    "cjk": "我在北京，mat北cat。カナ한글 豈\U00020000\U0002a700\U0002f800",
    "emoji": "glad 😀👍🏽 👨\u200d👩\u200d👧 🇩🇪 ❤\ufe0f x",
    "final sigma": "ΟΔΟΣ ΟΔΟΣ, ΟΔΟΣ. Σ ΣΑΣ ΟΔΟΣ\u00adΑ Σ\u0301 ΑΣ\u200b ΑΣ'Α ΑΣ:",
    "turkish": "İstanbul ISPARTA ıI İ",
    "sharp s": "STRASSE straße ẞ",
    "private use": "a\ue000b \uf8ff \U000f0000c \U0010fffd",
    "unassigned": "a\u0378b \u0380 \U0001fbff \U000e0080 \U0003ffff",
    "controls": "a\x00b\x01c\x07d\x0be\x0cf\x1cg\x1dh\x1ei\x1fj\x7fk\x85l\x9fm",
    "formats": "a\u00adb\u200bc\u200cd\u200de\u200ef\u2060g\ufeffh\u061ci\u180ej",
    "blanks": "a\u00a0b\u1680c\u2000d\u2009e\u202ff\u205fg\u3000h\ti\nj\rk",
    "line separators": "a\u2028b\u2029c",
    "replacement": "a\ufffdb \ufffd",
    "special tokens": "[CLS] the [MASK] cat[SEP]mat [UNK] [PAD] [mask] [unused1] ##s",
    "punctuation": "U.S.A.'s $5.00 a_b~c`d^e|f<g>=h+ «x» “y”—z… ¿q? ·¡ ¶ § © €",
    "noncharacters": "a\ufffeb\uffffc \ufdd0",
    "canonical": "\u1fef \u037e \u2126 \u212b \u00b5 ﬁ Ⅷ ① ㎏",
    "other scripts": "हिन्दी தமிழ் العربيّة עִבְרִית ไทย ქართული Ꮳꮳ ᾳ ᾼ Ǆǅ",
    "199 letters": "x" * 199,
    "200 letters": "x" * 200,
    "201 letters": "x" * 201,
    "300 letters": "x" * 300,
    "200 letters after accents": "x\u0301" * 200 + " " + "é" * 200 + " " + "é" * 201,
    "200 letters after marks": "x" * 150 + "," + "x" * 201 + "!" + "x" * 200,
}


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def pair(request, vocab_file, original_tokenizer):
    lower = request.param
    ours = WordPieceTokenizer(vocab_file, UNCASED if lower else CASED)
    return ours, original_tokenizer(vocab_file, lower)


@pytest.mark.parametrize("name", HARD)
def test_hard_strings_split_as_in_the_original(pair, name):
    ours, original = pair
    assert ours.words(HARD[name]) == original.basic_tokenizer.tokenize(HARD[name])
    assert ours.tokenize(HARD[name]) == original.tokenize(HARD[name])


_LIKELY = st.sampled_from(
    "aAéÉßİıσΣς北 \t\u00a0\u2028\x1c\x00\u00ad\u0301.,'[]#-😀\ue000"
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(text=st.text(_LIKELY) | st.text() | st.text(st.characters(max_codepoint=0x24F)))
def test_any_text_splits_as_in_the_original(pair, text):
    ours, original = pair
    assert ours.words(text) == original.basic_tokenizer.tokenize(text)
    assert ours.tokenize(text) == original.tokenize(text)


def test_cached_text_splits_the_same_again(vocab_file):
    tokenizer = WordPieceTokenizer(vocab_file)
    first = tokenizer.tokenize("Running, running RUNNING!")
    assert tokenizer.tokenize("Running, running RUNNING!") == first


def test_memory_of_words_is_bounded(vocab_file, monkeypatch):
    monkeypatch.setattr(tokenization, "_MAX_CACHED", 3)
    tokenizer = WordPieceTokenizer(vocab_file)
    [ids] = tokenizer.encode(["the cat sat on a mat the cat " + "y" * 50])
    assert len(tokenizer._cache) <= 3
    assert ids[:2] == ids[6:8]


def test_lone_surrogates_become_unknown(vocab_file):
    tokenizer = WordPieceTokenizer(vocab_file)
    assert tokenizer.tokenize("the \ud800 cat\udfff sat") == [
        "the",
        "[UNK]",
        "[UNK]",
        "sat",
    ]


def test_pieces_are_the_longest_ones_from_the_left(vocab_file):
    # The example of the original's documentation.
    tokenizer = WordPieceTokenizer(vocab_file)
    assert tokenizer.tokenize("unaffable") == ["un", "##aff", "##able"]


def test_encode_gives_ids_without_special_tokens(vocab_file):
    tokenizer = WordPieceTokenizer(vocab_file)
    ids = tokenizer.encode(["the cat", "", "cat"])
    the, cat = tokenizer.vocab["the"], tokenizer.vocab["cat"]
    assert ids == [[the, cat], [], [cat]]
    assert tokenizer.inverse_vocab[the] == "the"
    assert tokenizer.special == (0, 1, 2, 3, 4)


@pytest.mark.slow
def test_every_character_splits_as_in_the_original(pair):
    ours, original = pair
    for first in range(0, 0x110000, 64):
        text = " ".join(f"x{chr(code)}Y" for code in range(first, first + 64))
        assert ours.words(text) == original.basic_tokenizer.tokenize(text), hex(first)


@pytest.mark.slow
def test_real_text_splits_as_in_the_original(real_data, original_tokenizer):
    texts = [
        line
        for path in sorted((real_data / "text/sotu").glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    summaries = json.loads(
        (real_data / "text/wikipedia/summaries_en-us.json").read_text(encoding="utf-8")
    )
    texts += [entry["extract"] for entry in summaries.values()]
    vocab_file = str(real_data / "vocab.txt")
    ours, original = WordPieceTokenizer(vocab_file), original_tokenizer(vocab_file)
    assert len(texts) > 20_000
    for text, ids in zip(texts, ours.encode(texts), strict=True):
        expected = original.convert_tokens_to_ids(original.tokenize(text))
        assert ids == expected, text


def test_sigma_is_final_at_the_end_of_a_word_only(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIALS, "σ", "##α", "##ς"]), encoding="utf-8")
    assert WordPieceTokenizer(str(path)).tokenize("ΣΑΣ") == ["σ", "##α", "##ς"]


EACH_ALONE = [
    TokenizerSettings(lower, strip, chinese)
    for lower in (True, False)
    for strip in (True, False)
    for chinese in (True, False)
]
PLAIN = [
    "Café naïve ÀÉÎÕÜ ñandú, Ångström's",
    "我在北京，mat北cat。カナ한글",
    "The CAT sat\ton U.S. mats\u00a0…",
]


@pytest.mark.parametrize("text", PLAIN)
@pytest.mark.parametrize("settings", EACH_ALONE, ids=str)
def test_each_setting_does_what_it_does_in_transformers(settings, text):
    normalizer = normalizers.BertNormalizer(
        lowercase=settings.do_lower_case,
        strip_accents=settings.strip_accents,
        handle_chinese_chars=settings.tokenize_chinese_chars,
    )
    normal = normalizer.normalize_str(text)
    expected = [
        word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normal)
    ]
    assert WordSplitter(settings).words(text) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (TokenizerSettings(True, False), ["café", "àé"]),
        (TokenizerSettings(False, True), ["Cafe", "AE"]),
        (TokenizerSettings(True, True), ["cafe", "ae"]),
        (TokenizerSettings(False, False), ["Café", "ÀÉ"]),
    ],
)
def test_case_and_accents_are_independent(settings, expected):
    assert WordSplitter(settings).words("Café ÀÉ") == expected


def test_chinese_characters_may_stay_in_their_words():
    settings = TokenizerSettings(tokenize_chinese_chars=False)
    assert WordSplitter(settings).words("我在cat 北京。") == ["我在cat", "北京", "。"]


HARD_FOR_OFFSETS = {
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
LIKELY_WITH_MARKS = st.sampled_from(
    "aAéÉßİıσΣς北한 \t\u00a0\u2028\x1c\x00\u00ad\u0301\u0323\u302e\U0001d16d.,'[]#-😀"
)
OFFSET_SETTINGS = [
    UNCASED,
    CASED,
    TokenizerSettings(do_lower_case=True, strip_accents=False),
    TokenizerSettings(do_lower_case=False, strip_accents=True),
    TokenizerSettings(tokenize_chinese_chars=False),
]
TEXTS_WITH_MARKS = (
    st.text(LIKELY_WITH_MARKS) | st.text() | st.text(st.characters(max_codepoint=0x24F))
)


@pytest.fixture(scope="module", params=OFFSET_SETTINGS, ids=str)
def tokenizer(request, vocab_file):
    return WordPieceTokenizer(vocab_file, request.param)


@pytest.fixture(scope="module")
def uncased(vocab_file):
    return WordPieceTokenizer(vocab_file)


def slices(tokenizer, text):
    _, begins, ends = OffsetTokenizer(tokenizer).encode(text)
    return [text[begin:end] for begin, end in zip(begins, ends, strict=True)]


def check_offsets(tokenizer, text):
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


@pytest.mark.parametrize("name", HARD_FOR_OFFSETS)
def test_hard_strings_have_the_ids_of_the_tokenizer(tokenizer, name):
    check_offsets(tokenizer, HARD_FOR_OFFSETS[name])


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(text=TEXTS_WITH_MARKS)
def test_any_text_has_the_ids_of_the_tokenizer(tokenizer, text):
    check_offsets(tokenizer, text)


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
    tokens = [*SPECIALS, "\u1100", "##\u1161"]
    path.write_text("\n".join(tokens), encoding="utf-8")
    assert slices(WordPieceTokenizer(str(path)), "가") == ["가", "가"]


def test_a_letter_that_grows_when_lower_cased_is_one_character(uncased):
    assert slices(uncased, "İt İİ") == ["İt", "İ", "İ"]


def test_marks_in_another_order_keep_their_places(tmp_path):
    # U+302E has combining class 224 and goes before U+1D16D with 226.
    path = tmp_path / "vocab.txt"
    tokens = [*SPECIALS, "a", "##\u302e"]
    path.write_text("\n".join([*tokens, "##\U0001d16d"]), encoding="utf-8")
    tokenizer = WordPieceTokenizer(str(path))
    found = OffsetTokenizer(tokenizer).encode("a\U0001d16d\u302e")
    assert found == ([5, 6, 7], [0, 2, 1], [1, 3, 2])


def test_memory_of_the_cache_is_bounded(uncased, monkeypatch):
    monkeypatch.setattr(tokenization, "_MAX_CACHED_OFFSETS", 2)
    tokenizer = OffsetTokenizer(uncased)
    found = tokenizer.encode("the cat sat on the mat " + "y" * 30)
    assert tokenizer._cache.cache_info().currsize == 2
    assert found.begins[:6] == [0, 4, 8, 12, 15, 19]
