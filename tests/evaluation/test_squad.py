import itertools
import json
import math

import numpy as np
import pytest

from bert_tf.data.tasks.squad_files import SquadAnswer, SquadExample
from bert_tf.data.tasks.squad_windows import WindowSettings, build_windows
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.evaluation.squad import (
    AnswerSettings,
    SquadPredictions,
    predict_answers,
    write_predictions,
)

WORDS = "the cat sat on a mat and dog ran was it . , cafe 北 京 run ##ning ##s".split()
NARROW = WindowSettings(max_seq_length=9, doc_stride=2, max_query_length=2)
WIDE = WindowSettings(max_seq_length=30, max_query_length=2)
CONTEXT = "The cat  sat on a mat, and the dog ran."


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    path.write_text("\n".join(tokens), encoding="utf-8")
    return WordPieceTokenizer(str(path))


@pytest.fixture(scope="module")
def wide(tokenizer):
    """One question with one window: [CLS] was it [SEP], then the context."""
    examples = [SquadExample("q", "was it", CONTEXT)]
    return examples, build_windows(examples, tokenizer, WIDE)


@pytest.fixture(scope="module")
def narrow(tokenizer):
    """Questions with several windows, and one without context."""
    contexts = [
        CONTEXT,
        "the cat and the cat and the cat ran",
        "",
        "running 北京 cafe\u0301s",
    ]
    examples = [
        SquadExample(f"q{number}", "was it", context)
        for number, context in enumerate(contexts)
    ]
    return examples, build_windows(examples, tokenizer, NARROW)


def logits(windows, places, low=-10.0):
    """Low everywhere but at the given places."""
    values = np.full(len(windows.char_begin), low, np.float32)
    for place, value in places.items():
        values[place] = value
    return values


def rank(values, count):
    """Places by value, highest first, the first of equals first."""
    return sorted(range(len(values)), key=lambda i: -values[i])[:count]


def brute_force(example, number, windows, starts, ends, settings):
    """The rules, one span at a time: the list of the best, no answer, its odds."""
    spans, nulls = [], []
    for window in np.flatnonzero(windows.example_index == number):
        place = windows.sequences.span(window)
        start, end = starts[place].tolist(), ends[place].tolist()
        begin, stop = windows.char_begin[place], windows.char_end[place]
        nulls.append((start[0] + end[0], start[0], end[0]))
        pairs = itertools.product(
            rank(start, settings.n_best_size), rank(end, settings.n_best_size)
        )
        for i, j in pairs:
            if begin[i] < 0 or begin[j] < 0 or not windows.is_max_context[place][i]:
                continue
            if not i <= j < i + settings.max_answer_length:
                continue
            text = example.context[begin[i] : stop[j]]
            spans.append((start[i] + end[j], text, start[i], end[j]))
    null_score, *null = min(nulls, key=lambda each: each[0])
    best = max(spans, key=lambda each: each[0], default=(0.0, "", 0.0, 0.0))
    listed = list(spans) or [best]
    if settings.version_2_with_negative:
        listed = [*spans, (null_score, "", *null)]
    listed.sort(key=lambda each: -each[0])
    unique = [each[1:] for each in _first_of_each_text(listed)]
    unique = unique[: settings.n_best_size]
    if settings.version_2_with_negative and "" not in [text for text, *_ in unique]:
        unique.append(("", *null))
    return unique, best[1], null_score - best[0]


def _first_of_each_text(listed):
    seen = set()
    for each in listed:
        if each[1] not in seen:
            seen.add(each[1])
            yield each


SETTINGS = [
    AnswerSettings(),
    AnswerSettings(n_best_size=3, max_answer_length=2),
    AnswerSettings(n_best_size=1),
    AnswerSettings(version_2_with_negative=True),
    AnswerSettings(
        n_best_size=4, version_2_with_negative=True, null_score_diff_threshold=-3.0
    ),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=range(len(SETTINGS)))
@pytest.mark.parametrize("seed", range(4))
def test_answers_agree_with_trying_every_span(narrow, settings, seed):
    examples, windows = narrow
    rng = np.random.default_rng(seed)
    # Few different values: many spans score the same.
    starts, ends = rng.integers(-3, 4, (2, len(windows.char_begin))) / np.float32(2)
    found = predict_answers(examples, windows, starts, ends, settings)
    assert list(found.answers) == list(found.nbest) == ["q0", "q1", "q2", "q3"]
    for number, example in enumerate(examples):
        listed, best, odds = brute_force(
            example, number, windows, starts, ends, settings
        )
        name = example.question_id
        assert listed == [
            (each["text"], each["start_logit"], each["end_logit"])
            for each in found.nbest[name]
        ]
        if settings.version_2_with_negative:
            assert found.null_odds[name] == odds
            if odds > settings.null_score_diff_threshold:
                best = ""
        assert found.answers[name] == best


def test_probabilities_are_the_softmax_of_the_list(wide):
    examples, windows = wide
    starts = logits(windows, {4: 2.0, 5: 1.0})
    ends = logits(windows, {5: 3.0}, low=-40.0)
    settings = AnswerSettings(n_best_size=2)
    entries = predict_answers(examples, windows, starts, ends, settings).nbest["q"]
    assert [each["text"] for each in entries] == ["The cat", "cat"]
    total = math.exp(5.0) + math.exp(4.0)
    assert [each["probability"] for each in entries] == pytest.approx(
        [math.exp(5.0) / total, math.exp(4.0) / total], rel=1e-12
    )


def test_an_answer_is_copied_from_the_context(wide):
    _, windows = wide
    found = predict_answers(
        *wide, logits(windows, {5: 5}), logits(windows, {9: 5}), AnswerSettings()
    )
    assert found.answers == {"q": "cat  sat on a mat"}
    assert found.null_odds is None


@pytest.mark.parametrize("place", [0, 1, 3, 16], ids=["cls", "question", "sep", "end"])
def test_tokens_outside_the_context_are_no_answer(wide, place):
    _, windows = wide
    starts, ends = logits(windows, {place: 9, 5: 1}), logits(windows, {place: 9, 6: 1})
    found = predict_answers(*wide, starts, ends, AnswerSettings())
    assert found.answers == {"q": "cat  sat"}


def test_an_answer_does_not_end_before_it_starts(wide):
    _, windows = wide
    starts, ends = logits(windows, {8: 9}), logits(windows, {5: 9, 8: 1})
    found = predict_answers(*wide, starts, ends, AnswerSettings())
    assert found.answers == {"q": "a"}


def test_an_answer_is_at_most_so_long(wide):
    _, windows = wide
    starts, ends = logits(windows, {4: 9}), logits(windows, {6: 1, 7: 9})
    for length, answer in [(4, "The cat  sat on"), (3, "The cat  sat")]:
        settings = AnswerSettings(max_answer_length=length)
        found = predict_answers(*wide, starts, ends, settings)
        assert found.answers == {"q": answer}


def test_an_answer_starts_where_its_window_shows_most_context(narrow):
    examples, windows = narrow
    # "sat" is the third token of window 0 and the first of window 1.
    starts = logits(windows, {6: 5.0, windows.sequences.offsets[1] + 4: 9.0})
    ends = logits(windows, {6: 5.0, windows.sequences.offsets[1] + 4: 9.0})
    entry = predict_answers(examples, windows, starts, ends, AnswerSettings())
    assert entry.nbest["q0"][0]["text"] == "sat"
    assert entry.nbest["q0"][0]["start_logit"] == 5.0


def test_only_the_highest_logits_of_a_window_are_paired(wide):
    _, windows = wide
    starts, ends = logits(windows, {0: 9, 1: 8, 4: 7}), logits(windows, {4: 1})
    settings = AnswerSettings(n_best_size=2)
    found = predict_answers(*wide, starts, ends, settings)
    assert found.answers == {"q": ""}
    entry = {"text": "", "probability": 1.0, "start_logit": 0.0, "end_logit": 0.0}
    assert found.nbest == {"q": [entry]}


def test_equal_texts_are_listed_once(tokenizer):
    examples = [SquadExample("q", "was it", "cat and cat")]
    windows = build_windows(examples, tokenizer, WIDE)
    zeros = np.zeros(len(windows.char_begin), np.float32)
    found = predict_answers(
        examples, windows, zeros, zeros, AnswerSettings(max_answer_length=1)
    )
    assert [each["text"] for each in found.nbest["q"]] == ["cat", "and"]


def test_no_answer_is_taken_from_the_window_where_it_scores_lowest(narrow):
    examples, windows = narrow
    firsts = windows.sequences.offsets[:3]
    starts = logits(windows, dict(zip(firsts, [1.0, -2.0, 3.0], strict=True)), low=0.0)
    ends = logits(windows, {}, low=0.0)
    settings = AnswerSettings(n_best_size=30, version_2_with_negative=True)
    found = predict_answers(examples, windows, starts, ends, settings)
    [null] = [each for each in found.nbest["q0"] if not each["text"]]
    assert (null["start_logit"], null["end_logit"]) == (-2.0, 0.0)
    assert found.null_odds["q0"] == -2.0


@pytest.mark.parametrize("threshold, answer", [(1.5, "cat"), (1.0, "cat"), (0.5, "")])
def test_no_answer_must_win_by_more_than_the_threshold(wide, threshold, answer):
    _, windows = wide
    starts, ends = logits(windows, {0: 3.0, 5: 2.0}), logits(windows, {0: 0.0, 5: 0.0})
    settings = AnswerSettings(
        version_2_with_negative=True, null_score_diff_threshold=threshold
    )
    found = predict_answers(*wide, starts, ends, settings)
    assert found.answers == {"q": answer}
    assert found.null_odds == {"q": 1.0}


def test_gold_labels_as_logits_give_the_gold_answers(tokenizer):
    cases = [
        ("the cat sat. on a mat", "on a mat", 13),
        ("the cat and the cat", "cat", 16),
        ("the 北京, cat", "北京", 4),
        ("a cafe\u0301, it", "cafe\u0301", 2),
        ("was running?", "running", 4),
        ("the жук ran", "жук", 4),
        ("cat and dog and mat and cat and dog and it", "dog and it", 32),
        ("the " + "x" * 201 + " sat", "x" * 201, 4),
    ]
    examples = [
        SquadExample(f"q{i}", "was it", context, (SquadAnswer(text, start),))
        for i, (context, text, start) in enumerate(cases)
    ]
    settings = WindowSettings(max_seq_length=13, doc_stride=3, max_query_length=2)
    windows = build_windows(examples, tokenizer, settings)
    offsets = windows.sequences.offsets[:-1]
    starts, ends = logits(windows, {}), logits(windows, {})
    for values, place in ((starts, windows.answer_first), (ends, windows.answer_last)):
        values[(offsets + place)[place > 0]] = 10.0
    found = predict_answers(examples, windows, starts, ends, AnswerSettings())
    assert list(found.answers.values()) == [text for _, text, _ in cases]


def test_logits_of_another_length_are_refused(wide):
    _, windows = wide
    right = logits(windows, {})
    with pytest.raises(ValueError, match="`end_logits` must have shape"):
        predict_answers(*wide, right, right[:-1], AnswerSettings())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(wide, value):
    _, windows = wide
    right = logits(windows, {})
    with pytest.raises(ValueError, match="`start_logits` must be finite"):
        predict_answers(*wide, logits(windows, {3: value}), right, AnswerSettings())


def test_windows_of_other_examples_are_refused(wide):
    examples, windows = wide
    right = logits(windows, {})
    with pytest.raises(ValueError, match="those of 2 examples"):
        predict_answers(examples * 2, windows, right, right, AnswerSettings())


@pytest.mark.parametrize(
    "name, value",
    [
        ("n_best_size", 0),
        ("max_answer_length", -1),
        ("null_score_diff_threshold", math.nan),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        AnswerSettings(**{name: value})


def test_files_hold_the_questions_in_their_order(tmp_path):
    entry = {"text": "北", "probability": 1.0, "start_logit": 2.5, "end_logit": -1.0}
    found = SquadPredictions(
        {"z": "北", "a": ""}, {"z": [entry], "a": [entry]}, {"z": -1.5, "a": 2.0}
    )
    folder = tmp_path / "new" / "output"
    write_predictions(str(folder), found)
    read = {path.name: json.loads(path.read_text()) for path in folder.iterdir()}
    assert read == {
        "predictions.json": {"z": "北", "a": ""},
        "nbest_predictions.json": {"z": [entry], "a": [entry]},
        "null_odds.json": {"z": -1.5, "a": 2.0},
    }
    assert [list(content) for content in read.values()] == [["z", "a"]] * 3
    assert list(read["nbest_predictions.json"]["z"][0]) == list(entry)


def test_version_1_has_no_file_of_null_odds(tmp_path):
    write_predictions(str(tmp_path), SquadPredictions({"q": "cat"}, {"q": []}))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["nbest_predictions.json", "predictions.json"]
