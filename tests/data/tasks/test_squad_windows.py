import dataclasses

import pytest
from data.shared import assert_equal_windows

from bert_tf.data.tasks.squad_files import SquadAnswer, SquadExample
from bert_tf.data.tasks.squad_windows import (
    WindowSettings,
    best_windows,
    build_windows,
    join_windows,
    window_spans,
)
from bert_tf.data.text.tokenization import OffsetTokenizer, WordPieceTokenizer

CONTEXT = "The cat sat on a mat and the dog"
NARROW = WindowSettings(max_seq_length=9, doc_stride=2, max_query_length=2)


@pytest.fixture(scope="module")
def tokenizer(vocab_file):
    return WordPieceTokenizer(vocab_file)


def example(context, answer=None, question="was it", start=None, **others):
    """A question; `answer` is looked for in the context unless `start` is given."""
    answers = ()
    if answer is not None:
        start = context.index(answer) if start is None else start
        answers = (SquadAnswer(answer, start),)
    return SquadExample("q", question, context, answers, **others)


def build(tokenizer, *examples, settings=NARROW):
    return build_windows(examples, tokenizer, settings)


def tokens(windows, tokenizer, number):
    ids = windows.sequences.input_ids[windows.sequences.span(number)]
    return " ".join(tokenizer.inverse_vocab[i] for i in ids)


def labels(windows):
    return list(zip(windows.answer_first, windows.answer_last, strict=True))


def labelled_texts(windows, examples):
    """What the labels of each window cover, None for those without."""
    texts = []
    for number, (first, last) in enumerate(labels(windows)):
        place = windows.sequences.span(number)
        context = examples[windows.example_index[number]].context
        begin = windows.char_begin[place][first]
        end = windows.char_end[place][last]
        texts.append(context[begin:end] if first else None)
    return texts


def test_a_long_context_makes_overlapping_windows(tokenizer):
    windows = build(tokenizer, example(CONTEXT))
    assert [tokens(windows, tokenizer, i) for i in range(len(windows))] == [
        "[CLS] was it [SEP] the cat sat on [SEP]",
        "[CLS] was it [SEP] sat on a mat [SEP]",
        "[CLS] was it [SEP] a mat and the [SEP]",
        "[CLS] was it [SEP] and the dog [SEP]",
    ]
    first = windows.sequences.segment_ids[windows.sequences.span(0)]
    assert first.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_characters_are_those_of_the_context_only(tokenizer):
    windows = build(tokenizer, example("The cat. cafe\u0301", question="was"))
    assert windows.char_begin.tolist() == [-1, -1, -1, 0, 4, 7, 9, -1]
    assert windows.char_end.tolist() == [-1, -1, -1, 3, 7, 8, 14, -1]


def test_max_context_agrees_with_working_by_hand(tokenizer):
    windows = build(tokenizer, example(CONTEXT))
    shown = [windows.is_max_context[windows.sequences.span(i)] for i in range(4)]
    assert [row[4:-1].tolist() for row in shown] == [
        [True, True, True, False],
        [False, True, True, False],
        [False, True, True, False],
        [False, True, True],
    ]
    assert not any(row[[0, 1, 2, 3, -1]].any() for row in shown)


@pytest.mark.parametrize("room, stride", [(4, 2), (5, 1), (6, 4), (3, 3), (3, 7)])
def test_windows_and_max_context_agree_with_brute_force(room, stride):
    for num_tokens in range(26):
        spans = window_spans(num_tokens, room, stride)
        step = min(room, stride)
        needed = max(0, -(-(num_tokens - room) // step)) + 1
        starts = [step * number for number in range(needed)]
        assert spans == [(s, min(s + room, num_tokens)) for s in starts]
        expected = []
        for token in range(num_tokens):
            scores = {
                window: min(token - begin, end - 1 - token) + 0.01 * (end - begin)
                for window, (begin, end) in enumerate(spans)
                if begin <= token < end
            }
            expected.append(max(scores, key=scores.get))  # The first of equals.
        assert best_windows(spans).tolist() == expected


def test_equal_context_counts_in_the_first_window():
    # Token 2 has two tokens before and one after, or one before and two after.
    assert best_windows([(0, 4), (1, 5)])[2] == 0


def test_a_context_shorter_than_the_stride_makes_one_window(tokenizer):
    windows = build(tokenizer, example("cat", "cat"))
    assert tokens(windows, tokenizer, 0) == "[CLS] was it [SEP] cat [SEP]"
    assert len(windows) == 1
    assert windows.is_max_context.tolist() == [False] * 4 + [True, False]


@pytest.mark.parametrize("context", ["", " \n", "\u200b"])
def test_a_context_without_tokens_makes_one_window(tokenizer, context):
    windows = build(tokenizer, example(context))
    assert tokens(windows, tokenizer, 0) == "[CLS] was it [SEP] [SEP]"
    assert not windows.is_max_context.any()


def test_long_questions_are_cut(tokenizer):
    windows = build(tokenizer, example("cat", question="was the dog glad"))
    assert tokens(windows, tokenizer, 0) == "[CLS] was the [SEP] cat [SEP]"


def test_shorter_questions_leave_more_room(tokenizer):
    windows = build(tokenizer, example(CONTEXT, question="was"))
    expected = "[CLS] was [SEP] the cat sat on a [SEP]"
    assert tokens(windows, tokenizer, 0) == expected


def test_an_answer_is_labelled_in_each_window_that_holds_all_of_it(tokenizer):
    examples = [example(CONTEXT, "on a mat")]
    windows = build(tokenizer, *examples)
    assert labels(windows) == [(0, 0), (5, 7), (0, 0), (0, 0)]
    assert labelled_texts(windows, examples) == [None, "on a mat", None, None]


def test_an_answer_that_no_window_holds_is_not_labelled(tokenizer):
    windows = build(tokenizer, example(CONTEXT, "cat sat on a mat"))
    assert labels(windows) == [(0, 0)] * 4


def test_a_repeated_answer_is_labelled_where_it_was_said(tokenizer):
    context = "the cat and the cat"
    windows = build(tokenizer, example(context, "cat", start=16))
    assert labels(windows) == [(0, 0), (6, 6)]


def test_the_first_of_several_answers_is_labelled(tokenizer):
    answers = (SquadAnswer("mat", 17), SquadAnswer("a mat", 15))
    one = dataclasses.replace(example(CONTEXT[:20]), answers=answers)
    assert set(labelled_texts(build(tokenizer, one), [one])) == {None, "mat"}


def test_impossible_questions_are_not_labelled(tokenizer):
    windows = build(tokenizer, example("the cat", is_impossible=True))
    assert labels(windows) == [(0, 0)]


def test_misplaced_answers_are_not_labelled(tokenizer):
    windows = build(tokenizer, example("the cat", "dog", start=4))
    assert labels(windows) == [(0, 0)]


def test_answers_that_vanish_in_tokenization_are_not_labelled(tokenizer):
    windows = build(tokenizer, example("the \u200b cat", "\u200b"))
    assert labels(windows) == [(0, 0)]


@pytest.mark.parametrize(
    "context, answer, covered",
    [
        ("the cat, dog", "cat", "cat"),
        ("the cat, dog", " cat,", "cat,"),
        ("in 1854-1855 it", "1855", "1855"),
        ("running", "run", "run"),
        ("unaffable", "affab", "affable"),
        ("我在北京，cat", "北京", "北京"),
        ("a cafe\u0301 mat", "cafe\u0301", "cafe\u0301"),
        ("a cafe\u0301 mat", "cafe", "cafe\u0301"),
        ("a жук mat", "ук", "жук"),
        ("a " + "x" * 201 + " mat", "x" * 201, "x" * 201),
        ("c\x00at mat", "c\x00at", "c\x00at"),
        ("the 😀 cat", "😀", "😀"),
    ],
)
def test_labels_are_the_smallest_span_of_tokens(tokenizer, context, answer, covered):
    examples = [example(context, answer)]
    settings = WindowSettings(max_seq_length=40, max_query_length=8)
    windows = build(tokenizer, *examples, settings=settings)
    assert labelled_texts(windows, examples) == [covered]


def test_windows_of_parts_join_to_those_of_the_whole(tokenizer):
    examples = [example(CONTEXT, "dog"), example("cat"), example("", question="")]
    whole = build(tokenizer, *examples)
    parts = [
        build_windows(examples[i : i + 1], tokenizer, NARROW, first_example=i)
        for i in range(3)
    ]
    assert whole.example_index.tolist() == [0, 0, 0, 0, 1, 2]
    assert_equal_windows(join_windows(parts), whole)
    assert_equal_windows(join_windows([whole]), whole)


def test_no_examples_make_no_windows(tokenizer):
    assert len(build(tokenizer)) == 0


def test_a_context_of_several_questions_is_tokenised_once(tokenizer, monkeypatch):
    texts = []
    encode = OffsetTokenizer.encode
    monkeypatch.setattr(
        OffsetTokenizer, "encode", lambda s, text: texts.append(text) or encode(s, text)
    )
    build(tokenizer, *[example(CONTEXT)] * 3, example("cat"), example("cat"))
    assert texts == [CONTEXT, "cat"]


@pytest.mark.parametrize(
    "name, value", [("max_seq_length", 0), ("doc_stride", -1), ("max_query_length", 0)]
)
def test_lengths_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be greater than 0"):
        WindowSettings(**{name: value})


def test_questions_must_leave_room_for_the_context():
    WindowSettings(max_seq_length=68, max_query_length=64)
    with pytest.raises(ValueError, match="max_query_length=64. Pass 63 or less"):
        WindowSettings(max_seq_length=67, max_query_length=64)


@pytest.mark.parametrize("stride", [1, 2, 5, 100])
def test_tokens_are_counted_before_windows_are_made(tokenizer, stride):
    """The bound is the exact number: one less is refused."""
    settings = dataclasses.replace(NARROW, doc_stride=stride)
    examples = [example(CONTEXT), example("", question=""), example("cat")]
    count = len(build_windows(examples, tokenizer, settings).char_begin)
    build_windows(examples, tokenizer, settings, max_tokens=count)
    with pytest.raises(ValueError, match=rf"doc_stride={stride}.*larger --doc_stride"):
        build_windows(examples, tokenizer, settings, max_tokens=count - 1)


def test_a_huge_number_of_windows_is_refused_at_once(tokenizer, monkeypatch):
    def cut(*_):
        raise AssertionError("windows were made")

    monkeypatch.setattr("bert_tf.data.tasks.squad_windows._cut", cut)
    settings = WindowSettings(max_seq_length=384, doc_stride=1)
    text = example("cat " * 20_000)
    with pytest.raises(ValueError, match="1 question have more than 1,000,000 tokens"):
        build_windows([text], tokenizer, settings, max_tokens=1_000_000)


def test_windows_without_an_answer_are_counted(tokenizer):
    windows = build(tokenizer, example(CONTEXT, "dog"), example(CONTEXT))
    texts = labelled_texts(windows, [example(CONTEXT)] * 2)
    assert windows.num_unanswered == texts.count(None) > 2
    assert texts.count("dog") == len(windows) - windows.num_unanswered
