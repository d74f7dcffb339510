"""Splits SQuAD's questions into windows: token sequences with a part of the context.

Source: google-research/bert, `run_squad.py` (`convert_examples_to_features`; Devlin et
al. 2019, arXiv:1810.04805, section 4.2). Departure: answers are found by characters,
where the original finds blank-separated words first; it then narrows these to the
answer's own tokens, so that both agree where the words agree.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bert_tf.config import checks
from bert_tf.data.tasks.squad_files import SquadExample, is_at_its_start
from bert_tf.data.text.token_sequences import TokenSequences, pair_sequence
from bert_tf.data.text.tokenization import (
    OffsetTokenizer,
    TokenOffsets,
    WordPieceTokenizer,
)
from bert_tf.data.text.vocabulary import SpecialTokens
from bert_tf.errors import counted

_NUM_SPECIAL = 3  # [CLS] question [SEP] context [SEP]


@dataclasses.dataclass(frozen=True)
class WindowSettings:
    """How a context is split into windows.

    Attributes:
      max_seq_length: Maximum tokens of a window, with question and special tokens.
      doc_stride: WordPieces from the start of one window to that of the next.
      max_query_length: Maximum WordPieces of a question; the rest is cut off.
    """

    max_seq_length: int = 384
    doc_stride: int = 128
    max_query_length: int = 64

    def __post_init__(self) -> None:
        """Checks each field, and that a long question leaves room."""
        names = [field.name for field in dataclasses.fields(self)]
        checks.require_positive(self, *names)
        room = self.max_seq_length - self.max_query_length - _NUM_SPECIAL
        checks.require(
            room > 0,
            "max_query_length",
            f"leave room for the context in max_seq_length={self.max_seq_length}",
            self.max_query_length,
            f"Pass {self.max_seq_length - _NUM_SPECIAL - 1} or less.",
        )


@dataclasses.dataclass(frozen=True)
class SquadWindows:
    """n windows with T tokens in all, those of a question one after the other.

    Attributes:
      sequences: [CLS] question [SEP] part of the context [SEP], without padding.
      example_index: [n] int32, index of the question in the list, ascending.
      answer_first: [n] int32, position in the sequence of the answer's first token; 0,
        which is [CLS], if the window does not hold all of it or there is none.
      answer_last: [n] int32, position of the answer's last token, or 0.
      char_begin: [T] int32, index in the context of the token's first character; -1 if
        the token is not of the context.
      char_end: [T] int32, index after its last character, or -1.
      is_max_context: [T] bool, whether no other window shows the token with more
        context; false for tokens that are not of the context.
    """

    sequences: TokenSequences
    example_index: np.ndarray
    answer_first: np.ndarray
    answer_last: np.ndarray
    char_begin: np.ndarray
    char_end: np.ndarray
    is_max_context: np.ndarray

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.sequences)

    @property
    def num_unanswered(self) -> int:
        """Number of windows without an answer, or with only a part of it."""
        return int(np.count_nonzero(self.answer_last == 0))


class _Context(NamedTuple):
    """A tokenised text; begins and ends of its tokens are [t] int32 arrays."""

    text: str
    input_ids: list[int]
    begins: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, text: str, tokens: TokenOffsets) -> "_Context":
        begins, ends = (np.asarray(a, np.int32) for a in (tokens.begins, tokens.ends))
        return cls(text, tokens.input_ids, begins, ends)


class _Window(NamedTuple):
    """Tokens `begin` to `end` of a context, for a question."""

    example_index: int
    question: list[int]
    context: _Context
    begin: int
    end: int
    is_max_context: np.ndarray
    answer: tuple[int, int] | None

    @property
    def lead(self) -> int:
        """Number of tokens before the context."""
        return len(self.question) + _NUM_SPECIAL - 1

    def label(self) -> tuple[int, int]:
        """Positions of the answer's first and last token; 0, 0 if one is not here."""
        if self.answer is None:
            return 0, 0
        first, last = self.answer
        if first < self.begin or last >= self.end:
            return 0, 0
        shift = self.lead - self.begin
        return first + shift, last + shift


def build_windows(
    examples: Sequence[SquadExample],
    tokenizer: WordPieceTokenizer,
    settings: WindowSettings,
    first_example: int = 0,
    max_tokens: int | None = None,
) -> SquadWindows:
    """Tokenises questions and contexts, and splits them into windows.

    Args:
      examples: The questions; a context is tokenised once if its questions are
        consecutive.
      tokenizer: Text to ids.
      settings: Lengths.
      first_example: Index of `examples[0]` in a longer list.
      max_tokens: Maximum number of tokens of all windows together; None for no limit.

    Returns:
      At least one window for each example, in the order of the examples.

    Raises:
      TooManyTokensError: if there would be more tokens; it is raised before memory is
        taken for them.
    """
    with_offsets = OffsetTokenizer(tokenizer)
    context: _Context | None = None
    windows: list[_Window] = []
    num_tokens = 0
    for number, example in enumerate(examples, first_example):
        if context is None or context.text != example.context:
            tokens = with_offsets.encode(example.context)
            context = _Context.of(example.context, tokens)
        [question] = tokenizer.encode([example.question])
        question = question[: settings.max_query_length]
        room = settings.max_seq_length - len(question) - _NUM_SPECIAL
        num_tokens += _tokens_of_windows(context, len(question), room, settings)
        if max_tokens is not None and num_tokens > max_tokens:
            raise too_many_tokens(number - first_example + 1, settings, max_tokens)
        windows.extend(_cut(number, example, question, context, room, settings))
    return _join_tokens(windows, tokenizer.special)


class TooManyTokensError(ValueError):
    """The windows would not fit into memory."""


def too_many_tokens(
    num_examples: int, settings: WindowSettings, max_tokens: int
) -> TooManyTokensError:
    """Makes the error for windows that would not fit into memory.

    Args:
      num_examples: Number of questions whose windows are too many already.
      settings: Lengths.
      max_tokens: Maximum number of tokens of all windows together.
    """
    return TooManyTokensError(
        f"The windows of {counted(num_examples, 'question')} have more than "
        f"{max_tokens:,} tokens, which do not fit into memory. Received: doc_stride="
        f"{settings.doc_stride}, max_seq_length={settings.max_seq_length}. Pass a "
        "larger --doc_stride, such as a third of max_seq_length, shorten the contexts, "
        "or split the file."
    )


def _tokens_of_windows(
    context: _Context, question: int, room: int, settings: WindowSettings
) -> int:
    """Number of tokens of a question's windows, without making them."""
    stride = min(room, settings.doc_stride)
    num_full = -(-max(len(context.input_ids) - room, 0) // stride)
    last = len(context.input_ids) - num_full * stride
    lead = question + _NUM_SPECIAL
    return num_full * (room + lead) + min(room, last) + lead


def _cut(
    number: int,
    example: SquadExample,
    question: list[int],
    context: _Context,
    room: int,
    settings: WindowSettings,
) -> Iterator[_Window]:
    """The windows of one question."""
    answer = _answer_tokens(example, context)
    spans = window_spans(len(context.input_ids), room, settings.doc_stride)
    best = best_windows(spans)
    for window, (begin, end) in enumerate(spans):
        is_max_context = best[begin:end] == window
        yield _Window(number, question, context, begin, end, is_max_context, answer)


def window_spans(num_tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Begin and end of each window of a context.

    Args:
      num_tokens: Number of tokens of the context, >= 0.
      room: Number of its tokens in a window, > 0.
      stride: Tokens from the start of one window to the next; at most `room` are used,
        so that no token is left out.

    Returns:
      Begin and end of each window; the last one ends where the context ends.
    """
    spans = [(0, min(room, num_tokens))]
    while spans[-1][1] < num_tokens:
        begin = spans[-1][0] + min(room, stride)
        spans.append((begin, min(begin + room, num_tokens)))
    return spans


def best_windows(spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """For each token, the window that shows it with most context.

    A token may be in several windows, and its logits are best where it has context on
    both sides. So a window's score is min(tokens before, tokens after) + 0.01 * its
    length; of equal scores the first is taken. Source: `_check_is_max_context` of the
    original.

    Args:
      spans: The result of `window_spans`.

    Returns:
      [t] int32, index of the window.
    """
    num_tokens = spans[-1][1]
    best = np.zeros(num_tokens, np.int32)
    best_score = np.full(num_tokens, -np.inf)
    for window, (begin, end) in enumerate(spans):
        tokens = np.arange(begin, end)
        score = np.minimum(tokens - begin, end - 1 - tokens) + 0.01 * (end - begin)
        better = tokens[score > best_score[begin:end]]
        best[better] = window
        best_score[better] = score[better - begin]
    return best


def _answer_tokens(example: SquadExample, context: _Context) -> tuple[int, int] | None:
    """First and last token of the context that overlap the first answer, if any."""
    if example.is_impossible or not example.answers:
        return None
    answer = example.answers[0]
    if not is_at_its_start(context.text, answer):
        return None
    end = answer.start + len(answer.text)
    [touched] = np.nonzero((context.ends > answer.start) & (context.begins < end))
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def _join_tokens(windows: Sequence[_Window], special: SpecialTokens) -> SquadWindows:
    """Lays windows end to end."""
    sequences = TokenSequences.join(
        pair_sequence(
            window.question,
            window.context.input_ids[window.begin : window.end],
            special.cls,
            special.sep,
        )
        for window in windows
    )
    num_tokens = len(sequences.input_ids)
    char_begin = np.full(num_tokens, -1, np.int32)
    char_end = np.full(num_tokens, -1, np.int32)
    is_max_context = np.zeros(num_tokens, np.bool_)
    for window, offset in zip(windows, sequences.offsets[:-1].tolist(), strict=True):
        first = offset + window.lead
        span = slice(first, first + window.end - window.begin)
        char_begin[span] = window.context.begins[window.begin : window.end]
        char_end[span] = window.context.ends[window.begin : window.end]
        is_max_context[span] = window.is_max_context
    labels = np.array([window.label() for window in windows], np.int32).reshape(-1, 2)
    return SquadWindows(
        sequences=sequences,
        example_index=np.array([w.example_index for w in windows], np.int32),
        answer_first=labels[:, 0].copy(),
        answer_last=labels[:, 1].copy(),
        char_begin=char_begin,
        char_end=char_end,
        is_max_context=is_max_context,
    )


def join_windows(parts: Sequence[SquadWindows]) -> SquadWindows:
    """Joins the windows of consecutive parts of a list of questions.

    Args:
      parts: At least one, each built with its `first_example`.

    Returns:
      The result of `build_windows` for the whole list.
    """
    starts = np.cumsum([0] + [len(part.char_begin) for part in parts])
    offsets = [
        part.sequences.offsets[:-1] + start
        for part, start in zip(parts, starts, strict=False)
    ]
    sequences = TokenSequences(
        np.concatenate([part.sequences.input_ids for part in parts]),
        np.concatenate([part.sequences.segment_ids for part in parts]),
        np.concatenate([*offsets, starts[-1:]]),
    )
    names = [field.name for field in dataclasses.fields(SquadWindows)][1:]
    return SquadWindows(
        sequences,
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in names
        },
    )
