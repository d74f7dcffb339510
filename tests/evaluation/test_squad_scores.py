import copy
import json
import sys

import pytest

from bert_tf.errors import RunError
from bert_tf.evaluation.squad import SquadPredictions
from bert_tf.evaluation.squad_scores import score_squad

CONTEXT = "The black cat sat on a mat."


def write(tmp_path, answers, version_2=False):
    """A file with questions a, b, c, ... and these answers; none is impossible."""
    questions = []
    for name, texts in zip("abcdefgh", answers, strict=False):
        listed = [{"text": t, "answer_start": CONTEXT.index(t)} for t in texts]
        question = {"id": name, "question": "What?", "answers": listed}
        if version_2:
            question["is_impossible"] = not texts
        questions.append(question)
    paragraph = {"context": CONTEXT, "qas": questions}
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    return str(path)


def predictions(*answers, odds=None):
    given = dict(zip("abcdefgh", answers, strict=False))
    if odds is not None:
        odds = dict(zip("abcdefgh", odds, strict=False))
    return SquadPredictions(given, {name: [] for name in given}, odds)


def test_version_1_scores_agree_with_counting_by_hand(tmp_path):
    path = write(tmp_path, [["black cat"], ["The black cat", "cat"], ["mat"], ["sat"]])
    # a: article, case and punctuation do not count. b: two words in common with the
    # first answer, precision 2/3, recall 1. c: nothing in common. d: the same.
    given = predictions("The Black cat.", "black cat sat", "cat", "sat")
    f1_of_b = 2 * (2 / 3) * 1.0 / (2 / 3 + 1.0)
    assert score_squad(path, given) == {
        "exact_match": 50.0,
        "f1": pytest.approx(100 * (1 + f1_of_b + 0 + 1) / 4, rel=1e-12),
        "total": 4.0,
    }


def test_version_2_scores_agree_with_counting_by_hand(tmp_path):
    path = write(tmp_path, [["black cat"], ["mat"], [], []], version_2=True)
    # a: common 1, precision 1, recall 1/2. b, c: right. d: wrong.
    given = predictions("cat", "a mat", "", "sat", odds=[-4.0, -3.0, 5.0, -2.0])
    f1_of_a = 2 * 1.0 * 0.5 / 1.5
    # Ordered by null odds: a, b, d, c. Best is to answer a and b only, up to -3.
    assert score_squad(path, given) == {
        "exact_match": 50.0,
        "f1": pytest.approx(100 * (f1_of_a + 1 + 1 + 0) / 4, rel=1e-12),
        "total": 4.0,
        "HasAns_exact": 50.0,
        "HasAns_f1": pytest.approx(100 * (f1_of_a + 1) / 2, rel=1e-12),
        "HasAns_total": 2.0,
        "NoAns_exact": 50.0,
        "NoAns_f1": 50.0,
        "NoAns_total": 2.0,
        "best_exact": 75.0,
        "best_exact_thresh": -3.0,
        "best_f1": pytest.approx(100 * (f1_of_a + 3) / 4, rel=1e-12),
        "best_f1_thresh": -3.0,
    }


def test_scores_are_of_the_given_answers_whatever_their_odds(tmp_path):
    path = write(tmp_path, [["mat"]], version_2=True)
    assert score_squad(path, predictions("mat", odds=[7.0]))["exact_match"] == 100.0


def test_questions_that_all_have_an_answer_have_no_scores_without(tmp_path):
    path = write(tmp_path, [["mat"]], version_2=True)
    scores = score_squad(path, predictions("mat", odds=[-1.0]))
    assert not [name for name in scores if name.startswith("NoAns")]


def test_scoring_changes_no_predictions(tmp_path):
    path = write(tmp_path, [["mat"], []], version_2=True)
    given = predictions("mat", "cat", odds=[-1.0, 3.0])
    before = copy.deepcopy(given)
    score_squad(path, given)
    assert given == before


def test_scoring_prints_nothing(tmp_path, capfd):
    path = write(tmp_path, [["mat"], []], version_2=True)
    score_squad(path, predictions("mat", "", odds=[-1.0, 3.0]))
    assert capfd.readouterr() == ("", "")


def test_a_question_without_prediction_is_refused(tmp_path):
    path = write(tmp_path, [["mat"], ["cat"], ["sat"]])
    with pytest.raises(ValueError, match=r"an answer. Received: none for 2 of 3.* b\."):
        score_squad(path, predictions("mat"))


def test_a_question_without_null_odds_is_refused(tmp_path):
    path = write(tmp_path, [["mat"], []], version_2=True)
    with pytest.raises(ValueError, match="null odds. Received: none for 1 of 2"):
        score_squad(path, predictions("mat", "", odds=[-1.0]))


def test_a_prediction_without_question_is_refused(tmp_path):
    path = write(tmp_path, [["mat"]])
    with pytest.raises(
        ValueError, match=r"Received: 1 for other questions, such as b\."
    ):
        score_squad(path, predictions("mat", "cat"))


def test_a_file_without_answers_cannot_be_scored(tmp_path):
    path = write(tmp_path, [[]])
    with pytest.raises(ValueError, match="there is no answer"):
        score_squad(path, predictions("mat"))


def test_missing_scorers_are_named(tmp_path, monkeypatch):
    path = write(tmp_path, [["mat"]])
    monkeypatch.setitem(sys.modules, "official.nlp.tools.squad_evaluate_v1_1", None)
    with pytest.raises(RunError, match="tf-models-official"):
        score_squad(path, predictions("mat"))
