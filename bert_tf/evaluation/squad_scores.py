"""SQuAD's scores, exact match and F1, by the official scorers.

Source: `official.nlp.tools` of tf-models-official, which holds the scorers of
Rajpurkar et al. (https://rajpurkar.github.io/SQuAD-explorer/) for 1.1 and 2.0.
"""

import importlib
import re
import string
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from bert_tf.data.tasks.squad_files import SquadExample
from bert_tf.errors import RunError
from bert_tf.evaluation.squad import SquadPredictions


def check_scorer(*, is_version_2: bool) -> None:
    """Loads the scorer, so that a run fails before its training and not after it.

    Raises:
      RunError: if tf-models-official is not installed.
    """
    _official("squad_evaluate_v2_0" if is_version_2 else "squad_evaluate_v1_1")


def score_squad(
    examples: Sequence[SquadExample], predictions: SquadPredictions
) -> dict[str, float]:
    """Compares answers with the right ones.

    Args:
      examples: The questions, with their answers; of 2.0 if the predictions have null
        odds.
      predictions: An answer for each of them.

    Returns:
      `exact_match` and `f1` in percent, and `total` questions. For 2.0 also
      `HasAns_` and `NoAns_` with `exact`, `f1` and `total`, for the questions with and
      without an answer if there are any; and `best_exact` and `best_f1` in percent
      with `best_exact_thresh` and `best_f1_thresh`, the thresholds of null odds for
      them. As in the official scorer, these use the given answers only: an answer that
      a threshold has already replaced by "" stays so.

    Raises:
      RunError: if tf-models-official is not installed.
    """
    articles = _articles(examples)
    if predictions.null_odds is not None:
        return _score_version_2(articles, predictions)
    scorer = _official("squad_evaluate_v1_1")
    scores = scorer.evaluate(articles, predictions.answers)
    return {
        "exact_match": 100.0 * scores["exact_match"],
        "f1": 100.0 * scores["final_f1"],
        "total": float(len(examples)),
    }


def _score_version_2(
    articles: list[dict[str, Any]], predictions: SquadPredictions
) -> dict[str, float]:
    scorer = _official("squad_evaluate_v2_0")
    # Given odds, the scorer would itself empty answers where these are above 1.
    scores = scorer.evaluate(articles, predictions.answers)
    with_odds = scorer.evaluate(articles, predictions.answers, predictions.null_odds)
    results = {"exact_match": scores["exact"], "f1": scores["f1"]}
    results["total"] = scores["total"]
    results |= {
        name: value
        for name, value in scores.items()
        if name.startswith(("HasAns_", "NoAns_"))
    }
    results |= {
        name.replace("final_", "best_"): value
        for name, value in with_odds.items()
        if name.startswith("final_")
    }
    return {name: float(value) for name, value in results.items()}


def wrong_answers(
    examples: Sequence[SquadExample], predictions: SquadPredictions, most: int
) -> list[dict[str, object]]:
    """The questions whose answer is none of the right ones, the surest first.

    Args:
      examples: The questions.
      predictions: Answers to them.
      most: How many to return at most.

    Returns:
      For each: question, right answers, given answer and its probability.
    """
    rows = []
    for example in examples:
        given = predictions.answers[example.question_id]
        right = list(dict.fromkeys(answer.text for answer in example.answers)) or [""]
        if _normalized(given) in map(_normalized, right):
            continue
        known = {
            x["text"]: x["probability"] for x in predictions.nbest[example.question_id]
        }
        rows.append(
            {
                "question": example.question,
                "right": " | ".join(text or "(no answer)" for text in right),
                "given": given or "(no answer)",
                "probability": known.get(given, 0.0),
            }
        )
    return sorted(rows, key=lambda row: -row["probability"])[:most]


def _normalized(text: str) -> str:
    """Without case, punctuation, articles and repeated spaces.

    Source: `normalize_answer` of the official scorers.
    """
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _articles(examples: Sequence[SquadExample]) -> list[dict[str, Any]]:
    """The part of a SQuAD file that the official scorers read."""
    questions = [
        {
            "id": example.question_id,
            "answers": [{"text": answer.text} for answer in example.answers],
        }
        for example in examples
    ]
    return [{"paragraphs": [{"qas": questions}]}]


def _official(name: str) -> ModuleType:
    """Loads an official scorer: only when needed, as it imports slowly."""
    try:
        return importlib.import_module(f"official.nlp.tools.{name}")
    except ModuleNotFoundError as error:
        raise RunError(
            "The official SQuAD scorer cannot be imported from tf-models-official, a "
            f"dependency of bert_tf ({error}). Install it with `pip install "
            "'tf-models-official==2.20.*'`, or leave out --do_eval."
        ) from None
