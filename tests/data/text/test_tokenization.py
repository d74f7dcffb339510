import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from bert_tf.data.text import tokenization
from bert_tf.data.text.tokenization import (
    CASED,
    UNCASED,
    TokenizerSettings,
    WordPieceTokenizer,
    WordSplitter,
)

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
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


def test_remembered_text_splits_the_same_again(vocab_file):
    tokenizer = WordPieceTokenizer(vocab_file)
    first = tokenizer.tokenize("Running, running RUNNING!")
    assert tokenizer.tokenize("Running, running RUNNING!") == first


def test_memory_of_words_is_bounded(vocab_file, monkeypatch):
    monkeypatch.setattr(tokenization, "_MAX_REMEMBERED", 3)
    tokenizer = WordPieceTokenizer(vocab_file)
    [ids] = tokenizer.encode(["the cat sat on a mat the cat " + "y" * 50])
    assert len(tokenizer._remembered) <= 3
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


def test_vocabulary_with_crlf_and_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*SPECIALS, "é", "", ""]).encode())
    assert tokenization.load_vocabulary(str(path)) == [*SPECIALS, "é"]


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
        WordPieceTokenizer(str(path))


def advice(path):
    """Number and new content of the line that the message speaks of, if any."""
    try:
        tokenization.load_vocabulary(str(path))
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
    loaded = tokenization.load_vocabulary(str(path))
    assert len(loaded) == len(tokens)
    # A token keeps the last of its ids, which is the one that other programs use.
    for token in filter(str.strip, tokens):
        assert loaded.index(token) == len(tokens) - 1 - tokens[::-1].index(token)


def test_vocabulary_with_cr_line_ends_is_read(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r".join([*SPECIALS, "a"]).encode())
    assert tokenization.load_vocabulary(str(path)) == [*SPECIALS, "a"]


def test_missing_vocabulary_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="vocab_file=.*none.txt"):
        WordPieceTokenizer(str(tmp_path / "none.txt"))


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
