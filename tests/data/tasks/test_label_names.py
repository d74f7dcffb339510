import pytest

from bert_tf.data.tasks.label_names import (
    doubtful_names,
    quoted_list,
    same_names,
    without_blanks,
)


@pytest.mark.parametrize(
    "wanted, known, expected",
    [
        (["b", "a"], ["a", "b"], {"b": "b", "a": "a"}),
        (["Not Entailment"], ["not_entailment"], {"Not Entailment": "not_entailment"}),
        (["NON-toxic"], ["Toxic", "non toxic"], {"NON-toxic": "non toxic"}),
        ([" pos"], ["pos", "neg"], {" pos": "pos"}),
        (["0"], ["no", "yes"], {}),
        (["-1"], ["1"], {}),
        (["notentailment"], ["not_entailment"], {}),
    ],
)
def test_names_are_the_same_but_for_case_and_what_is_between_words(
    wanted, known, expected
):
    assert same_names(wanted, known, {}) == expected


def test_equal_names_come_first():
    """Two classes that differ in case are told apart where both sides have them."""
    names = ["O", "o"]
    assert same_names(names, ["o", "O"], {}) == {"O": "O", "o": "o"}


@pytest.mark.parametrize(
    "wanted, known", [(["Pos", "POS"], ["pos", "neg"]), (["pos"], ["Pos", "POS"])]
)
def test_what_is_ambiguous_is_not_found(wanted, known):
    assert same_names(wanted, known, {}) == {}


def test_aliases_count_on_either_side():
    aliases = {"not_equivalent": "0", "equivalent": "1"}
    found = same_names(["0", "1"], ["EQUIVALENT", "Not equivalent"], aliases)
    assert found == {"0": "Not equivalent", "1": "EQUIVALENT"}
    found = same_names(["equivalent"], ["0", "1"], aliases)
    assert found == {"equivalent": "1"}


def test_blanks_around_and_within_a_name_are_left_out():
    assert without_blanks("\ufeff very \t good\u200b\xa0") == "very good"
    assert without_blanks("\u3000") == ""


def test_many_names_are_cut():
    assert quoted_list([f"n{number:02}" for number in range(22)]).endswith(
        "'n19', and 2 more"
    )
    assert len(quoted_list(["x" * 1000])) < 100


@pytest.mark.parametrize(
    "spellings, words",
    [
        (["pos", "pos "], ["'pos '", "white space"]),
        (["O", "o", "b"], ["'O', 'o'", "differ only in case"]),
        (["0", "1", "01"], ["'01', '1'", "one number"]),
        (["0", "1", "1.0", "x"], ["'1', '1.0'", "one number"]),
        (["entailment", "-"], ["'-'", "missing label"]),
        (["a", "NaN"], ["'NaN'", "missing label"]),
        (["-1", "0", "1"], ["'-1'", "missing label"]),
        (["-1", "food", "travel"], ["'-1'", "missing label"]),
    ],
)
def test_doubtful_labels_are_named(spellings, words):
    [note] = doubtful_names(spellings)
    assert all(word in note for word in words)


@pytest.mark.parametrize(
    "spellings", [["a", "b"], ["-1", "1"], ["1", "10"], ["none", "some"]]
)
def test_other_labels_are_not_doubted(spellings):
    assert doubtful_names(spellings) == []
