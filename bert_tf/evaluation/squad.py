"""Chooses answers from the logits of SQuAD windows, and writes them.

Source: google-research/bert, `run_squad.py` (`write_predictions`; Devlin et al. 2019,
arXiv:1810.04805, sections 4.2 and 4.3). Departures: the text of an answer is copied
from the context, where the original rebuilds it from words; a question for which no
span is possible is answered with "", where the original answers "empty".
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from bert_tf.config import checks
from bert_tf.data.tasks.squad_files import SquadExample
from bert_tf.data.tasks.squad_windows import SquadWindows
from bert_tf.files import write_whole

ANSWERS_FILE = "predictions.json"
NBEST_FILE = "nbest_predictions.json"
NULL_ODDS_FILE = "null_odds.json"


@dataclasses.dataclass(frozen=True)
class AnswerSettings:
    """How answers are chosen.

    Attributes:
      n_best_size: Number of first and of last tokens considered in each window, and
        maximum number of answers listed for each question.
      max_answer_length: Maximum number of tokens of an answer.
      version_2_with_negative: Whether a question may have no answer.
      null_score_diff_threshold: No answer is given if its score is more than this
        above the score of the best answer (logits); any sign.
    """

    n_best_size: int = 20
    max_answer_length: int = 30
    version_2_with_negative: bool = False
    null_score_diff_threshold: float = 0.0

    def __post_init__(self) -> None:
        """Checks each field."""
        checks.require_positive(self, "n_best_size", "max_answer_length")
        threshold = self.null_score_diff_threshold
        name = "null_score_diff_threshold"
        checks.require(bool(np.isfinite(threshold)), name, "be finite", threshold)


class AnswerEntry(TypedDict):
    """One of the best answers: text ("" for no answer), probability and logits."""

    text: str
    probability: float
    start_logit: float
    end_logit: float


@dataclasses.dataclass(frozen=True)
class SquadPredictions:
    """Answers by question id, in the order of the questions.

    Attributes:
      answers: The text; "" for no answer.
      nbest: The best answers, best first; the last may be the answer "" (2.0).
      null_odds: 2.0 only: score of no answer less that of the best answer (logits).
    """

    answers: dict[str, str]
    nbest: dict[str, list[AnswerEntry]]
    null_odds: dict[str, float] | None = None


class _Spans(NamedTuple):
    """Candidates for an answer, as [c] arrays; logits are float64."""

    begin: np.ndarray
    end: np.ndarray
    start_logit: np.ndarray
    end_logit: np.ndarray


class _Candidate(NamedTuple):
    """A possible answer."""

    text: str
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        return self.start_logit + self.end_logit


def predict_answers(
    examples: Sequence[SquadExample],
    windows: SquadWindows,
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    settings: AnswerSettings,
) -> SquadPredictions:
    """Chooses the answers with the highest logits.

    In each window the tokens with the highest start and end logits are paired. A pair
    counts if both are in the context, no other window has more context around its
    first token, it does not end before it starts, and it is not too long. The check of
    context matters because overlapping windows contain the same span several times,
    with logits from less context. "No answer" is [CLS] to [CLS] of the window where
    that scores lowest: it must be likely in all windows, since each may contain the
    answer. Of equal logits or scores the first one counts. Sums are exact: float64 of
    float32 logits.

    Args:
      examples: The questions.
      windows: The windows of all questions.
      start_logits: [T] float32, of each token to be the first of the answer.
      end_logits: [T] float32, to be the last.
      settings: Limits of an answer.

    Returns:
      An answer for every question. Where no span is possible it is "", and the score of
      the best answer is 0.

    Raises:
      ValueError: if logits and windows do not belong together, or a logit is not
        finite.
    """
    _check_logits(examples, windows, start_logits, end_logits)
    start_logits = start_logits.astype(np.float64)
    end_logits = end_logits.astype(np.float64)
    scores = start_logits + end_logits
    bounds = np.searchsorted(windows.example_index, np.arange(len(examples) + 1))
    predictions = SquadPredictions(
        {}, {}, {} if settings.version_2_with_negative else None
    )
    for number, example in enumerate(examples):
        slices = [
            windows.sequences.span(i) for i in range(*bounds[number : number + 2])
        ]
        spans = [
            _window_spans(windows, part, start_logits, end_logits, settings)
            for part in slices
        ]
        best = _best_candidates(example.context, spans, settings.n_best_size)
        null = None
        if settings.version_2_with_negative:
            cls = min((part.start for part in slices), key=scores.item)
            null = _Candidate("", start_logits[cls].item(), end_logits[cls].item())
        _add_answer(predictions, example.question_id, best, null, settings)
    return predictions


def _check_logits(
    examples: Sequence[SquadExample],
    windows: SquadWindows,
    start_logits: np.ndarray,
    end_logits: np.ndarray,
) -> None:
    shape = windows.char_begin.shape
    for name, logits in (("start_logits", start_logits), ("end_logits", end_logits)):
        checks.require(logits.shape == shape, name, f"have shape {shape}", logits.shape)
        unusual = logits[~np.isfinite(logits)]
        checks.require(len(unusual) == 0, name, "be finite", unusual[:1].tolist())
    named = np.unique(windows.example_index)
    checks.require(
        np.array_equal(named, np.arange(len(examples))),
        "windows",
        f"be those of {len(examples)} examples",
        f"windows of {len(named)}",
    )


def _highest(logits: np.ndarray, count: int) -> np.ndarray:
    """Indices of the highest values, best first; equal values keep their order."""
    return np.argsort(-logits, kind="stable")[:count]


def _window_spans(
    windows: SquadWindows,
    part: slice,
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    settings: AnswerSettings,
) -> _Spans:
    """The possible spans of a window, by rank of the first, then of the last token.

    Source: as in the original, the highest logits are those of all tokens, the
    question's too; tokens that cannot be in an answer are dropped afterwards.
    """
    begins, ends = windows.char_begin[part], windows.char_end[part]
    start_logits, end_logits = start_logits[part], end_logits[part]
    firsts = _highest(start_logits, settings.n_best_size)
    lasts = _highest(end_logits, settings.n_best_size)
    firsts = firsts[windows.is_max_context[part][firsts]]
    lasts = lasts[begins[lasts] >= 0]
    length = lasts[None, :] - firsts[:, None] + 1
    row, column = np.nonzero((length > 0) & (length <= settings.max_answer_length))
    first, last = firsts[row], lasts[column]
    return _Spans(begins[first], ends[last], start_logits[first], end_logits[last])


def _best_candidates(
    context: str, window_spans: Sequence[_Spans], count: int
) -> list[_Candidate]:
    """The best spans of all windows, each text once, best first."""
    spans = _Spans(*map(np.concatenate, zip(*window_spans, strict=True)))
    order = np.argsort(-(spans.start_logit + spans.end_logit), kind="stable")
    best: dict[str, _Candidate] = {}
    for i in order.tolist():
        text = context[spans.begin[i] : spans.end[i]]
        if text not in best:
            logits = spans.start_logit[i].item(), spans.end_logit[i].item()
            best[text] = _Candidate(text, *logits)
        if len(best) == count:
            break
    return list(best.values())


def _add_answer(
    predictions: SquadPredictions,
    question_id: str,
    best: list[_Candidate],
    null: _Candidate | None,
    settings: AnswerSettings,
) -> None:
    """Adds a question's answer and n-best list, with no answer ranked by its score.

    Args:
      predictions: The result so far, which is extended.
      question_id: The question.
      best: The best answers, best first.
      null: The candidate for no answer; None for version 1.1.
      settings: Length of the list, and threshold.
    """
    nothing = _Candidate("", 0.0, 0.0)
    top = best[0] if best else nothing
    listed = best or [nothing]
    if null is not None:
        rank = sum(each.score >= null.score for each in best)
        listed = [*best[:rank], null, *best[rank:]][: settings.n_best_size]
        if null not in listed:
            listed.append(null)
        odds = null.score - top.score
        predictions.null_odds[question_id] = odds
        if odds > settings.null_score_diff_threshold:
            top = null
    predictions.answers[question_id] = top.text
    predictions.nbest[question_id] = _entries(listed)


def _entries(candidates: Sequence[_Candidate]) -> list[AnswerEntry]:
    """The candidates with the softmax of their scores as probabilities."""
    scores = np.array([each.score for each in candidates])
    weights = np.exp(scores - scores.max())
    shares = (weights / weights.sum()).tolist()
    return [
        AnswerEntry(
            text=each.text,
            probability=share,
            start_logit=each.start_logit,
            end_logit=each.end_logit,
        )
        for each, share in zip(candidates, shares, strict=True)
    ]


def write_predictions(output_dir: str, predictions: SquadPredictions) -> None:
    """Writes the files of the original script, each atomically.

    Args:
      output_dir: Folder for predictions.json, nbest_predictions.json and, for 2.0,
        null_odds.json; created if missing.
      predictions: What to write.
    """
    os.makedirs(output_dir, exist_ok=True)
    contents = {
        ANSWERS_FILE: predictions.answers,
        NBEST_FILE: predictions.nbest,
        NULL_ODDS_FILE: predictions.null_odds,
    }
    for name, content in contents.items():
        if content is None:
            continue
        path = os.path.join(output_dir, name)
        write_whole(path, json.dumps(content, indent=4) + "\n")
