"""SQuAD's scores, exact match and F1, by the official scorers.

Source: `official.nlp.tools` of tf-models-official, which holds the scorers of
Rajpurkar et al. (https://rajpurkar.github.io/SQuAD-explorer/) for 1.1 and 2.0.
"""

import importlib
import re
import string
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from bert_tf.data.tasks.squad_files import SquadExample, read_squad
from bert_tf.errors import RunError
from bert_tf.evaluation.squad import SquadPredictions


def check_scorer(*, is_version_2: bool) -> None:
    """Loads the scorer, so that a run fails before its training and not after it.

    Raises:
      RunError: if tf-models-official is not installed.
    """
    _official("squad_evaluate_v2_0" if is_version_2 else "squad_evaluate_v1_1")


def score_squad(dataset_path: str, predictions: SquadPredictions) -> dict[str, float]:
    """Compares answers with those of a file.

    Args:
      dataset_path: A SQuAD file with answers; 2.0 if the predictions have null odds.
      predictions: An answer for each of its questions.

    Returns:
      `exact_match` and `f1` in percent, and `total` questions. For 2.0 also
      `HasAns_` and `NoAns_` with `exact`, `f1` and `total`, for the questions with and
      without an answer if there are any; and `best_exact` and `best_f1` in percent
      with `best_exact_thresh` and `best_f1_thresh`, the thresholds of null odds for
      them. As in the official scorer, these use the given answers only: an answer that
      a threshold has already replaced by "" stays so.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file cannot be used, or answers and questions do not match.
      RunError: if tf-models-official is not installed.
    """
    is_version_2 = predictions.null_odds is not None
    examples = read_squad(
        dataset_path,
        version_2_with_negative=is_version_2,
        needs_answers=True,
        needs_starts=False,
    )
    _check_answered(dataset_path, examples, "an answer", predictions.answers)
    if not is_version_2:
        scorer = _official("squad_evaluate_v1_1")
        scores = scorer.evaluate(_articles(examples), predictions.answers)
        return {
            "exact_match": 100.0 * scores["exact_match"],
            "f1": 100.0 * scores["final_f1"],
            "total": float(len(examples)),
        }
    _check_answered(dataset_path, examples, "null odds", predictions.null_odds)
    return _score_version_2(examples, predictions)


def _score_version_2(
    examples: list[SquadExample], predictions: SquadPredictions
) -> dict[str, float]:
    scorer = _official("squad_evaluate_v2_0")
    articles = _articles(examples)
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


def _check_answered(
    path: str, examples: list[SquadExample], what: str, given: Iterable[str]
) -> None:
    """Checks that there is one entry for each question, and no other entry."""
    asked = {example.question_id: None for example in examples}
    given = dict.fromkeys(given)
    missing = [each for each in asked if each not in given]
    if missing:
        raise ValueError(
            f"{path}: each question must have {what}. Received: none for "
            f"{len(missing)} of {len(asked)} questions, such as {missing[0]}. Run the "
            "prediction on this file."
        )
    unknown = [each for each in given if each not in asked]
    if unknown:
        raise ValueError(
            f"{path}: {what} must belong to a question of this file. Received: "
            f"{len(unknown)} for other questions, such as {unknown[0]}. Score the file "
            "that was predicted."
        )


def _articles(examples: list[SquadExample]) -> list[dict[str, Any]]:
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
            "tf-models-official==2.20.*`, or leave out --do_eval."
        ) from None
