import copy
import sys

import pytest

from bert_tf.data.tasks.squad_files import SquadAnswer, SquadExample
from bert_tf.errors import RunError
from bert_tf.evaluation.squad import SquadPredictions
from bert_tf.evaluation.squad_scores import score_squad

CONTEXT = "The black cat sat on a mat."


def questions(*answers):
    """Questions a, b, c, ... and their answers; without any, it has none."""
    return [
        SquadExample(
            *(name, "What?", CONTEXT),
            tuple(SquadAnswer(text, CONTEXT.index(text)) for text in texts),
            is_impossible=not texts,
        )
        for name, texts in zip("abcdefgh", answers, strict=False)
    ]


def predictions(*answers, odds=None):
    given = dict(zip("abcdefgh", answers, strict=False))
    if odds is not None:
        odds = dict(zip("abcdefgh", odds, strict=False))
    return SquadPredictions(given, {name: [] for name in given}, odds)


def test_version_1_scores_agree_with_counting_by_hand():
    asked = questions(["black cat"], ["The black cat", "cat"], ["mat"], ["sat"])
    # a: article, case and punctuation do not count. b: two words in common with the
    # first answer, precision 2/3, recall 1. c: nothing in common. d: the same.
    given = predictions("The Black cat.", "black cat sat", "cat", "sat")
    f1_of_b = 2 * (2 / 3) * 1.0 / (2 / 3 + 1.0)
    assert score_squad(asked, given) == {
        "exact_match": 50.0,
        "f1": pytest.approx(100 * (1 + f1_of_b + 0 + 1) / 4, rel=1e-12),
        "total": 4.0,
    }


def test_version_2_scores_agree_with_counting_by_hand():
    asked = questions(["black cat"], ["mat"], [], [])
    # a: common 1, precision 1, recall 1/2. b, c: right. d: wrong.
    given = predictions("cat", "a mat", "", "sat", odds=[-4.0, -3.0, 5.0, -2.0])
    f1_of_a = 2 * 1.0 * 0.5 / 1.5
    # Ordered by null odds: a, b, d, c. Best is to answer a and b only, up to -3.
    assert score_squad(asked, given) == {
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


def test_scores_are_of_the_given_answers_whatever_their_odds():
    asked = questions(["mat"])
    assert score_squad(asked, predictions("mat", odds=[7.0]))["exact_match"] == 100.0


def test_questions_that_all_have_an_answer_have_no_scores_without():
    asked = questions(["mat"])
    scores = score_squad(asked, predictions("mat", odds=[-1.0]))
    assert not [name for name in scores if name.startswith("NoAns")]


def test_scoring_changes_no_predictions():
    asked = questions(["mat"], [])
    given = predictions("mat", "cat", odds=[-1.0, 3.0])
    before = copy.deepcopy(given)
    score_squad(asked, given)
    assert given == before


def test_scoring_prints_nothing(capfd):
    asked = questions(["mat"], [])
    score_squad(asked, predictions("mat", "", odds=[-1.0, 3.0]))
    assert capfd.readouterr() == ("", "")


def test_missing_scorers_are_named(monkeypatch):
    asked = questions(["mat"])
    monkeypatch.setitem(sys.modules, "official.nlp.tools.squad_evaluate_v1_1", None)
    with pytest.raises(RunError, match="tf-models-official"):
        score_squad(asked, predictions("mat"))
