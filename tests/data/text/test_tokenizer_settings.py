"""Who decides on case and accents, and what is said about it."""

import json

import pytest
from data.shared import SPECIALS

from bert_tf.data.records.metadata import Metadata
from bert_tf.data.records.provenance import common_case
from bert_tf.data.text.tokenization import (
    CASED,
    UNCASED,
    TokenizerSettings,
    WordPieceTokenizer,
)
from bert_tf.data.text.tokenizer_settings import choose_settings
from bert_tf.data.text.unreachable_tokens import has_accents, is_lower_case

NO_FLAG = {"do_lower_case": None}


def write_vocabulary(folder, words):
    path = folder / "vocab.txt"
    path.write_text("\n".join([*SPECIALS, *words]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def cased_vocabulary(tmp_path):
    return write_vocabulary(tmp_path, ["The", "the", "Cat"])


@pytest.fixture
def uncased_vocabulary(tmp_path):
    return write_vocabulary(tmp_path, ["the", "cat", "##é"])


def write(folder, name, **values):
    (folder / name).write_text(json.dumps(values))


def normalizer(**values):
    return {"type": "BertNormalizer", "clean_text": True} | values


def choose(folder, vocab_file, flag=None, records=None):
    return choose_settings({"do_lower_case": flag}, [str(folder)], vocab_file, records)


@pytest.mark.parametrize(
    "words, expected",
    [
        (["[CLS]", "the", "##é", "北"], True),
        (["[CLS]", "the", "The"], False),
        (["[CLS]", "##C"], False),
        # One own word with capitals does not make a cased vocabulary.
        (["[CLS]", "COVID", *(f"w{n}" for n in range(100))], True),
    ],
)
def test_a_vocabulary_with_capital_letters_is_cased(words, expected):
    assert is_lower_case(words) is expected


def test_accents_of_a_vocabulary_are_seen():
    assert has_accents(["für", "weiß"]) and has_accents(["हिन्दी"])
    assert not has_accents(["fur", "weiß", "北"])


def test_the_letters_decide_without_another_source(tmp_path, cased_vocabulary):
    choice = choose(tmp_path, cased_vocabulary)
    assert choice.settings == CASED and choice.is_guess
    assert choice.notes == [
        f"Tokenizer: cased, accents kept, by the letters of {cased_vocabulary}."
    ]


def test_accents_in_an_uncased_vocabulary_are_kept(tmp_path):
    vocab_file = write_vocabulary(tmp_path, ["für", "über", "haus"])
    assert choose(tmp_path, vocab_file).settings == TokenizerSettings(True, False)


def test_nothing_known_is_no_choice(tmp_path):
    assert choose_settings(NO_FLAG, [str(tmp_path)]) is None


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"do_lower_case": False}, CASED),
        ({"do_lower_case": True}, UNCASED),
        ({"do_lower_case": False, "strip_accents": None}, CASED),
        (
            {"do_lower_case": True, "strip_accents": False},
            TokenizerSettings(True, False),
        ),
        (
            {"do_lower_case": False, "tokenize_chinese_chars": False},
            TokenizerSettings(False, False, False),
        ),
    ],
)
def test_tokenizer_config_decides(tmp_path, uncased_vocabulary, values, expected):
    write(tmp_path, "tokenizer_config.json", **values)
    assert choose(tmp_path, uncased_vocabulary).settings == expected


@pytest.mark.parametrize("is_sequence", [False, True])
def test_the_normalizer_of_tokenizer_json_decides(
    tmp_path, uncased_vocabulary, is_sequence
):
    values = {"lowercase": False, "strip_accents": None, "handle_chinese_chars": False}
    found = normalizer(**values)
    if is_sequence:
        found = {"type": "Sequence", "normalizers": [{"type": "NFC"}, found]}
    write(tmp_path, "tokenizer.json", normalizer=found)
    write(tmp_path, "tokenizer_config.json", model_max_length=512)
    choice = choose(tmp_path, uncased_vocabulary)
    assert choice.settings == TokenizerSettings(False, False, False)
    assert "tokenizer.json" in choice.source


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["NFC", "Lowercase"], (True, False)),
        (["NFD", "StripAccents"], (False, True)),
        (["NFD", "Lowercase", "StripAccents"], (True, True)),
    ],
)
def test_what_no_normalizer_does_is_not_done(
    tmp_path, uncased_vocabulary, kinds, expected
):
    found = {"type": "Sequence", "normalizers": [{"type": kind} for kind in kinds]}
    write(tmp_path, "tokenizer.json", normalizer=found)
    choice = choose(tmp_path, uncased_vocabulary)
    assert choice.settings == TokenizerSettings(*expected, True)


def test_task_json_comes_first_and_a_difference_gives_a_warning(
    tmp_path, uncased_vocabulary
):
    write(tmp_path, "task.json", do_lower_case=True, task="squad")
    write(tmp_path, "tokenizer_config.json", do_lower_case=False)
    choice = choose(tmp_path, uncased_vocabulary)
    assert choice.settings == UNCASED
    assert choice.notes[1] == (
        f"warning: {tmp_path}/task.json overrides {tmp_path}/tokenizer_config.json, "
        "which sets do_lower_case=False."
    )


def test_a_flag_overrides_the_files_with_a_warning(tmp_path, cased_vocabulary):
    write(tmp_path, "tokenizer_config.json", do_lower_case=True, strip_accents=False)
    choice = choose(tmp_path, cased_vocabulary, flag=False)
    assert choice.settings == CASED
    assert choice.notes[1].startswith("warning: --do_lower_case=False overrides ")


@pytest.mark.parametrize(
    "name, values",
    [
        ("task.json", {"do_lower_case": True, "strip_accents": True}),
        (
            "tokenizer.json",
            {"normalizer": normalizer(lowercase=True, strip_accents=None)},
        ),
    ],
)
def test_accents_go_with_the_case_of_a_flag(tmp_path, cased_vocabulary, name, values):
    """As transformers does it for do_lower_case=False without strip_accents."""
    write(tmp_path, name, **values)
    assert choose(tmp_path, cased_vocabulary, flag=False).settings == CASED


def test_a_flag_about_accents_overrides_the_files_with_a_warning(
    tmp_path, uncased_vocabulary
):
    write(tmp_path, "tokenizer_config.json", do_lower_case=True, strip_accents=False)
    flags = {"do_lower_case": None, "strip_accents": True}
    choice = choose_settings(flags, [str(tmp_path)], uncased_vocabulary)
    assert choice.settings == UNCASED
    assert choice.notes[1].startswith("warning: --strip_accents=True overrides ")


@pytest.mark.parametrize(
    "name, values",
    [
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": None}}),
        ("tokenizer.json", {"added_tokens": ["content"]}),
        ("tokenizer.json", {"added_tokens": 5}),
        ("tokenizer.json", {"normalizer": {"type": "Sequence", "normalizers": 7}}),
    ],
)
def test_values_of_another_kind_are_ignored(tmp_path, uncased_vocabulary, name, values):
    write(tmp_path, name, **values)
    choice = choose(tmp_path, uncased_vocabulary)
    assert choice.is_guess and len(choice.notes) == 1


def test_a_flag_that_agrees_makes_no_warning(tmp_path, cased_vocabulary):
    write(tmp_path, "tokenizer_config.json", do_lower_case=False)
    assert len(choose(tmp_path, cased_vocabulary, flag=False).notes) == 1


def test_the_first_folder_with_settings_counts(tmp_path, uncased_vocabulary):
    for name, lower in (("a", True), ("b", False)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "tokenizer_config.json", do_lower_case=lower)
    (tmp_path / "none").mkdir()
    folders = [str(tmp_path / name) for name in ("none", "b", "a")]
    choice = choose_settings(NO_FLAG, folders, uncased_vocabulary)
    assert choice.settings == CASED and len(choice.notes) == 1


@pytest.mark.parametrize(
    "flag, word, wanted",
    [(True, "The", "=false."), (False, "the", "=true.")],
)
def test_a_flag_against_the_letters_makes_a_warning(tmp_path, flag, word, wanted):
    [_, note] = choose(tmp_path, write_vocabulary(tmp_path, [word]), flag=flag).notes
    assert note.startswith("warning: ") and note.endswith(
        f"pass --do_lower_case{wanted}"
    )


def test_records_decide_where_the_model_has_no_settings(tmp_path, cased_vocabulary):
    about = Metadata(avg_seq_per_sample=1.0, config={"do_lower_case": True})
    records = common_case({str(tmp_path / "rec"): about})
    choice = choose(tmp_path, cased_vocabulary, records=records)
    assert choice.settings == UNCASED
    assert choice.source == f"{tmp_path}/rec_metadata.json"


@pytest.mark.parametrize(
    "values, flag, message",
    [
        ({}, False, "do_lower_case=True. Received: do_lower_case=False, by --do_lower"),
        (
            {"do_lower_case": False},
            None,
            "do_lower_case=True. Received: do_lower_case=False, by .*tokenizer_config",
        ),
        (
            {"do_lower_case": True, "strip_accents": False},
            None,
            "strip_accents=True. Received: strip_accents=False",
        ),
    ],
)
def test_what_contradicts_the_records_is_refused(
    tmp_path, uncased_vocabulary, values, flag, message
):
    about = Metadata(avg_seq_per_sample=1.0, config={"do_lower_case": True})
    records = common_case({str(tmp_path / "rec"): about})
    if values:
        write(tmp_path, "tokenizer_config.json", **values)
    with pytest.raises(ValueError, match=f"rec_metadata.json: .*{message}"):
        choose(tmp_path, uncased_vocabulary, flag=flag, records=records)


def test_metadata_without_settings_is_ignored():
    assert common_case({}) is None
    assert common_case({"rec": Metadata(avg_seq_per_sample=1.0)}) is None


@pytest.mark.parametrize("name", ["task.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "text, message",
    [("{'a'", "is not JSON"), ("[]", "must hold a JSON object")],
)
def test_a_damaged_file_is_named(tmp_path, uncased_vocabulary, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} {message}"):
        choose(tmp_path, uncased_vocabulary)


def test_a_setting_that_is_not_true_or_false_is_refused(tmp_path, uncased_vocabulary):
    write(tmp_path, "tokenizer_config.json", do_lower_case="false")
    with pytest.raises(ValueError, match="`do_lower_case` must be true or false"):
        choose(tmp_path, uncased_vocabulary)


def test_a_tokenizer_with_other_rules_gives_a_warning(tmp_path, uncased_vocabulary):
    values = {"tokenizer_class": "BertJapaneseTokenizer", "do_lower_case": False}
    write(tmp_path, "tokenizer_config.json", **values)
    notes = choose(tmp_path, uncased_vocabulary).notes
    assert "tokenizer_class=BertJapaneseTokenizer, which is ignored" in notes[1]


def test_stripping_accents_that_the_vocabulary_has_gives_a_warning(tmp_path):
    vocab_file = write_vocabulary(tmp_path, ["für", "über", "haus"])
    [_, note] = choose(tmp_path, vocab_file, flag=True).notes
    assert note.startswith(f"warning: {vocab_file} has 2 words with accents")


@pytest.mark.parametrize(
    "name, values",
    [
        ("added_tokens.json", {"[E1]": 10, "[CLS]": 2}),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"10": {"content": "[E1]"}}},
        ),
        ("tokenizer.json", {"added_tokens": [{"id": 10, "content": "[E1]"}]}),
    ],
)
def test_added_tokens_outside_the_vocabulary_give_a_warning(
    tmp_path, uncased_vocabulary, name, values
):
    write(tmp_path, name, **values)
    [_, note] = choose(tmp_path, uncased_vocabulary).notes
    assert "has 1 added tokens that are not in its vocabulary ([E1])" in note


def test_a_line_separator_is_a_token_like_others(tmp_path):
    """As on line 345 of the published Chinese vocabulary."""
    vocab_file = write_vocabulary(tmp_path, ["的", "\u2028", "人"])
    [ids] = WordPieceTokenizer(vocab_file).encode(["的人"])
    assert ids == [5, 7]
