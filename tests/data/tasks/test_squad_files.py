import copy
import json

import pytest

from bert_tf.data.tasks.squad_files import (
    SquadAnswer,
    SquadExample,
    drop_misplaced,
    is_at_its_start,
    read_squad,
)

CONTEXT = "The cat sat on a mat. The dog ran."
VERSION_1 = {
    "version": "1.1",
    "data": [
        {
            "title": "Animals",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "q1",
                            "question": "Who sat?",
                            "answers": [
                                {"text": "The cat", "answer_start": 0},
                                {"text": "cat", "answer_start": 4},
                            ],
                        },
                        {
                            "id": "q2",
                            "question": "Who ran?",
                            "answers": [{"text": "dog", "answer_start": 26}],
                        },
                    ],
                }
            ],
        }
    ],
}
FIRST = "data[0].paragraphs[0].qas[0]"
SECOND = "data[0].paragraphs[0].qas[1]"


def version_2():
    data = copy.deepcopy(VERSION_1)
    questions = data["data"][0]["paragraphs"][0]["qas"]
    questions[0]["is_impossible"] = False
    questions[1].update(is_impossible=True, answers=[], question="Who flew?")
    return data


def question(data, number=0):
    return data["data"][0]["paragraphs"][0]["qas"][number]


def read(tmp_path, data, *, version_2_with_negative=False, **needs):
    path = tmp_path / "squad.json"
    text = data if isinstance(data, str) else json.dumps(data)
    path.write_text(text, encoding="utf-8", newline="")
    return read_squad(
        str(path),
        version_2_with_negative=version_2_with_negative,
        **{"needs_answers": True, **needs},
    )


def refusal(tmp_path, data, **options):
    with pytest.raises(ValueError) as error:
        read(tmp_path, data, **options)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "squad.json"))
    assert "\n" not in message
    return message


def test_questions_of_version_1_are_read(tmp_path):
    answers = (SquadAnswer("The cat", 0), SquadAnswer("cat", 4))
    assert read(tmp_path, VERSION_1) == [
        SquadExample("q1", "Who sat?", CONTEXT, answers, False),
        SquadExample("q2", "Who ran?", CONTEXT, (SquadAnswer("dog", 26),), False),
    ]


def test_questions_of_version_2_may_be_impossible(tmp_path):
    examples = read(tmp_path, version_2(), version_2_with_negative=True)
    assert [example.is_impossible for example in examples] == [False, True]
    assert examples[1].answers == ()


def test_version_1_is_read_where_negatives_are_expected(tmp_path):
    examples = read(tmp_path, VERSION_1, version_2_with_negative=True)
    assert examples == read(tmp_path, VERSION_1)


def test_questions_for_prediction_need_no_answers(tmp_path):
    data = copy.deepcopy(VERSION_1)
    del question(data, 0)["answers"]
    question(data, 1)["answers"] = []
    examples = read(tmp_path, data, needs_answers=False)
    assert [example.answers for example in examples] == [(), ()]


def test_a_byte_order_mark_is_no_text(tmp_path):
    assert read(tmp_path, "\ufeff" + json.dumps(VERSION_1)) == read(tmp_path, VERSION_1)


def test_a_missing_file_is_named(tmp_path):
    path = str(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match="none.json"):
        read_squad(path, version_2_with_negative=False, needs_answers=True)


@pytest.mark.parametrize("text", ["", " \n\n"])
def test_an_empty_file_is_refused(tmp_path, text):
    assert "it is empty" in refusal(tmp_path, text)


def test_a_file_that_is_not_json_is_refused_with_line_and_column(tmp_path):
    message = refusal(tmp_path, '{"data": [\n  {"title": }\n]}')
    assert "line 2, column 13" in message
    assert "not JSON" in message


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "squad.json"
    path.write_bytes(b'{"data": "\xff"}')
    with pytest.raises(ValueError, match=r"byte 10 \(0xff\) is not UTF-8"):
        read_squad(str(path), version_2_with_negative=False, needs_answers=True)


def test_json_that_nests_too_deep_is_refused(tmp_path):
    assert "nested deeper than 100 levels" in refusal(tmp_path, "[" * 200_000)


@pytest.mark.parametrize(
    "data", [{"data": []}, {"data": [{"paragraphs": []}]}], ids=["articles", "texts"]
)
def test_a_file_without_questions_is_refused(tmp_path, data):
    assert "there are no questions" in refusal(tmp_path, data)


@pytest.mark.parametrize(
    "data, place, problem",
    [
        ([], "", "must be an object"),
        ({"version": "1.1"}, "", "`data` is missing"),
        ({"data": {}}, "data", "must be a list. Received: {}"),
        ({"data": [7]}, "data[0]", "must be an object. Received: 7"),
        ({"data": [{}]}, "data[0]", "`paragraphs` is missing"),
        ({"data": [{"paragraphs": [{}]}]}, "data[0].paragraphs[0]", "`context` is"),
    ],
)
def test_a_malformed_file_is_refused_with_the_json_path(tmp_path, data, place, problem):
    message = refusal(tmp_path, data)
    assert place in message
    assert problem in message


@pytest.mark.parametrize(
    "key, value, problem",
    [
        ("question", 5, "must be a string. Received: 5"),
        ("answers", "cat", "must be a list"),
        ("answers", ["cat"], "must be an object"),
        ("answers", [{"text": "cat"}], "`answer_start` is missing"),
        ("answers", [{"answer_start": 4}], "`text` is missing"),
        ("answers", [{"text": "cat", "answer_start": "4"}], "must be an integer"),
        ("answers", [{"text": "cat", "answer_start": True}], "must be an integer"),
        ("answers", [{"text": "cat", "answer_start": -1}], "Received: -1"),
        ("answers", [{"text": "cat", "answer_start": 34}], "of 34 characters"),
        ("answers", [{"text": " ", "answer_start": 3}], "the answer is blank"),
        ("answers", [], "there is no answer"),
    ],
)
def test_a_malformed_question_is_refused_with_its_id(tmp_path, key, value, problem):
    data = copy.deepcopy(VERSION_1)
    question(data)[key] = value
    message = refusal(tmp_path, data)
    assert FIRST in message
    assert "question q1" in message
    assert problem in message


def test_a_number_as_question_id_is_read_as_a_string(tmp_path):
    data = copy.deepcopy(VERSION_1)
    question(data, 0)["id"] = 101
    question(data, 1)["id"] = 10**30
    assert [each.question_id for each in read(tmp_path, data)] == [
        "101",
        "1" + "0" * 30,
    ]


def test_a_number_and_its_digits_are_one_id(tmp_path):
    data = copy.deepcopy(VERSION_1)
    question(data, 0)["id"], question(data, 1)["id"] = 101, "101"
    assert "has the same id" in refusal(tmp_path, data)


@pytest.mark.parametrize("value", [None, True, 1.5, ["q"], {}])
def test_other_kinds_of_question_ids_are_refused(tmp_path, value):
    data = copy.deepcopy(VERSION_1)
    question(data, 1)["id"] = value
    message = refusal(tmp_path, data, needs_answers=False)
    assert f"{SECOND}: `id` must be a string or a whole number" in message
    assert "Put it in quotes" in message


def test_a_question_id_used_twice_is_refused_with_both_json_paths(tmp_path):
    data = copy.deepcopy(VERSION_1)
    question(data, 1)["id"] = "q1"
    message = refusal(tmp_path, data)
    assert f"{SECOND} (question q1): {FIRST} has the same id" in message


def test_impossible_questions_are_refused_where_none_are_expected(tmp_path):
    data = copy.deepcopy(VERSION_1)
    question(data, 1).update(is_impossible=True, answers=[])
    message = refusal(tmp_path, data)
    assert "--version_2_with_negative" in message
    assert "question q2" in message


def test_questions_of_version_1_may_have_is_impossible_false(tmp_path):
    data = copy.deepcopy(VERSION_1)
    question(data, 1)["is_impossible"] = False
    assert read(tmp_path, data) == read(tmp_path, VERSION_1)


@pytest.mark.parametrize(
    "change",
    [
        {"answers": [{"text": "FAKE", "answer_start": -1}]},
        {"answers": [{"text": "", "answer_start": -1}]},
        {"answers": {"text": ["cat"], "answer_start": [4]}},
        {"answers": None},
        {"answers": ["cat"]},
        {"is_impossible": True, "answers": []},
        {"is_impossible": "no"},
        {"is_impossible": True},
    ],
)
def test_prediction_takes_answers_that_cannot_be_read_for_none(tmp_path, change):
    data = copy.deepcopy(VERSION_1)
    question(data).update(change)
    examples = read(tmp_path, data, needs_answers=False)
    assert examples[0] == SquadExample("q1", "Who sat?", CONTEXT)
    assert examples[1:] == read(tmp_path, VERSION_1)[1:]


@pytest.mark.parametrize("answer", [{}, {"answer_start": -1}, {"answer_start": "4"}])
def test_scoring_needs_the_texts_of_answers_alone(tmp_path, answer):
    data = copy.deepcopy(VERSION_1)
    question(data)["answers"] = [{"text": "cat"} | answer]
    examples = read(tmp_path, data, needs_starts=False)
    assert examples[0].answers == (SquadAnswer("cat", -1),)
    assert not is_at_its_start(CONTEXT, examples[0].answers[0])


def test_scoring_refuses_a_blank_answer(tmp_path):
    data = copy.deepcopy(VERSION_1)
    question(data)["answers"] = [{"text": " ", "answer_start": 0}]
    assert "the answer is blank" in refusal(tmp_path, data, needs_starts=False)


def test_an_impossible_question_with_answers_is_refused(tmp_path):
    data = version_2()
    question(data, 0)["is_impossible"] = True
    message = refusal(tmp_path, data, version_2_with_negative=True)
    assert "`is_impossible` is true, but there are answers" in message


def test_a_possible_question_without_answers_is_refused(tmp_path):
    data = version_2()
    question(data, 1)["is_impossible"] = False
    message = refusal(tmp_path, data, version_2_with_negative=True)
    assert "there is no answer" in message


def test_a_word_for_is_impossible_is_refused(tmp_path):
    data = version_2()
    question(data, 1)["is_impossible"] = "yes"
    message = refusal(tmp_path, data, version_2_with_negative=True)
    assert f"{SECOND}.is_impossible" in message
    assert "must be true or false. Received: 'yes'" in message


def test_misplaced_answers_are_dropped_with_the_text_found_there():
    right = SquadExample("q1", "Who?", CONTEXT, (SquadAnswer("cat", 4),))
    wrong = SquadExample("q2", "Who?", CONTEXT, (SquadAnswer("dog", 4),))
    none = SquadExample("q3", "Who?", CONTEXT, (), True)
    kept, dropped = drop_misplaced([right, wrong, none])
    assert kept == [right, none]
    assert dropped == [
        "question q2: the answer 'dog' is not at character 4, where 'cat' is"
    ]


def test_an_answer_that_runs_over_the_end_is_misplaced():
    example = SquadExample("q", "What?", "on a mat", (SquadAnswer("mats", 5),))
    assert drop_misplaced([example])[0] == []


def test_another_kind_of_blank_misplaces_no_answer():
    assert is_at_its_start("a\u00a0mat", SquadAnswer("a mat", 0))


@pytest.mark.parametrize("question_id", ["a\nb", "\ud800", "x" * 1000])
def test_a_message_is_one_short_line_whatever_the_id_is(tmp_path, question_id):
    data = copy.deepcopy(VERSION_1)
    question(data).update(id=question_id, answers=7)
    message = refusal(tmp_path, data)
    assert len(message.encode()) < 400
