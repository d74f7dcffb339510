"""Reads and checks SQuAD's questions.

Source: Rajpurkar et al. 2016 (arXiv:1606.05250) for 1.1 and Rajpurkar et al. 2018
(arXiv:1806.03822) for 2.0, whose questions may have no answer in the text.
"""

import dataclasses
import reprlib
from collections.abc import Iterable
from typing import NamedTuple

from bert_tf.errors import one_line, shortened
from bert_tf.json_files import HUGE, read_json

_KINDS = {dict: "an object", list: "a list", str: "a string", int: "an integer"}
_KINDS[bool] = "true or false"
_MAX_SHOWN = 80


@dataclasses.dataclass(frozen=True, slots=True)
class SquadAnswer:
    """An annotated answer.

    Attributes:
      text: Its text, copied from the context.
      start: Index of its first character in the context; -1 if that is not known.
    """

    text: str
    start: int


@dataclasses.dataclass(frozen=True, slots=True)
class SquadExample:
    """A question about a text.

    Attributes:
      question_id: Unique in a file.
      question: The question.
      context: The text that may hold the answer.
      answers: Correct answers, the first of them for training; empty if there is none
        or the file has none.
      is_impossible: Whether the text does not hold an answer (2.0 only).
    """

    question_id: str
    question: str
    context: str
    answers: tuple[SquadAnswer, ...] = ()
    is_impossible: bool = False


@dataclasses.dataclass(frozen=True)
class _Node:
    """A value in the file with its location, for messages."""

    path: str
    location: str
    value: object
    question_id: str = ""

    def error(self, problem: str, received: object, remedy: str) -> ValueError:
        where = f"{self.path}, {self.location}" if self.location else self.path
        if self.question_id:
            where += f" (question {_printable(self.question_id)})"
        return ValueError(
            f"{where}: {problem}. Received: {reprlib.repr(received)}. {remedy}"
        )

    def checked(self, kind: type) -> "_Node":
        """The node itself, if its value has that type; true is not an integer."""
        if type(self.value) is not kind:
            problem = f"this must be {_KINDS[kind]}"
            remedy = "Correct the file, or download it again."
            raise self.error(problem, self.value, remedy)
        return self

    def child(self, key: str, kind: type) -> "_Node":
        """The value of a required key."""
        if key not in self.value:
            raise self.error(
                f"`{key}` is missing", list(self.value), "Pass a SQuAD JSON file."
            )
        location = f"{self.location}.{key}" if self.location else key
        child = _Node(self.path, location, self.value[key], self.question_id)
        return child.checked(kind)

    def objects(self, key: str) -> list["_Node"]:
        """The objects in the list of a required key."""
        parent = self.child(key, list)
        return [
            _Node(
                self.path, f"{parent.location}[{number}]", value, self.question_id
            ).checked(dict)
            for number, value in enumerate(parent.value)
        ]


def _printable(text: str) -> str:
    """A string shortened and escaped for a message of one line."""
    return one_line(shortened(text, _MAX_SHOWN))


class _Rules(NamedTuple):
    """What is checked, see `read_squad`."""

    version_2_with_negative: bool
    needs_answers: bool
    needs_starts: bool


def read_squad(
    path: str,
    *,
    version_2_with_negative: bool,
    needs_answers: bool,
    needs_starts: bool = True,
) -> list[SquadExample]:
    """Reads a SQuAD file of version 1.1 or 2.0.

    Args:
      path: A JSON file.
      version_2_with_negative: Whether questions without an answer are expected. Files
        of version 1.1 can be read either way.
      needs_answers: Whether each question must have an answer or be marked impossible,
        for training and scoring. Prediction ignores placeholders and answers that
        cannot be read.
      needs_starts: Whether answers must have a start, for training. Scores compare the
        texts alone.

    Returns:
      The questions in the order of the file, at least one. Starts of answers may be
      wrong: see `drop_misplaced`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not SQuAD of that version; the message names file, path in
        the JSON and question.
    """
    rules = _Rules(version_2_with_negative, needs_answers, needs_starts)
    top = _Node(path, "", _load(path)).checked(dict)
    examples: list[SquadExample] = []
    locations: dict[str, str] = {}
    for article in top.objects("data"):
        for paragraph in article.objects("paragraphs"):
            context = paragraph.child("context", str).value
            for node in paragraph.objects("qas"):
                example = _example(node, context, rules)
                named = dataclasses.replace(node, question_id=example.question_id)
                _check_unique(named, locations)
                if needs_answers and not example.answers and not example.is_impossible:
                    raise named.error(
                        "there is no answer, and `is_impossible` is not true",
                        node.value,
                        "Add an answer, or use the file for prediction only.",
                    )
                examples.append(example)
    if not examples:
        raise top.error("there are no questions", top.value, "Pass a SQuAD JSON file.")
    return examples


def _load(path: str) -> object:
    """Parses a JSON file."""
    try:
        return read_json(path, max_bytes=HUGE)
    except FileNotFoundError:
        raise FileNotFoundError(
            "`train_file` and `predict_file` must be JSON files. Received: "
            f"{path}, which does not exist. Correct the path."
        ) from None


def _check_unique(node: _Node, locations: dict[str, str]) -> None:
    """Refuses a question id that occurs twice."""
    earlier = locations.setdefault(node.question_id, node.location)
    if earlier != node.location:
        raise node.error(
            f"{earlier} has the same id", node.question_id, "Make the ids unique."
        )


def _example(node: _Node, context: str, rules: _Rules) -> SquadExample:
    """One element of `qas`."""
    question_id = _question_id(node)
    node = dataclasses.replace(node, question_id=question_id)
    question = node.child("question", str).value
    try:
        answers, is_impossible = _answers(node, context, rules)
    except ValueError:
        if rules.needs_answers:
            raise
        answers, is_impossible = (), False
    return SquadExample(question_id, question, context, answers, is_impossible)


def _question_id(node: _Node) -> str:
    """The id as a string; files of other programs have numbers."""
    found = node.value.get("id", "")
    if type(found) is int:  # Not a Boolean.
        return str(node.child("id", int).value)
    if not isinstance(found, str):
        raise node.error(
            "`id` must be a string or a whole number",
            found,
            "Put it in quotes, for example.",
        )
    return node.child("id", str).value


def _answers(
    node: _Node, context: str, rules: _Rules
) -> tuple[tuple[SquadAnswer, ...], bool]:
    """The answers of a question, and whether it has none."""
    is_impossible = False
    if "is_impossible" in node.value:
        is_impossible = node.child("is_impossible", bool).value
    if is_impossible and not rules.version_2_with_negative:
        raise node.error(
            "`is_impossible` makes this SQuAD 2.0",
            is_impossible,
            "Pass --version_2_with_negative, or a file of version 1.1.",
        )
    answers = ()
    if "answers" in node.value:
        found = node.objects("answers")
        answers = tuple(_answer(each, context, rules) for each in found)
    if is_impossible and answers:
        raise node.error(
            "`is_impossible` is true, but there are answers",
            node.value["answers"],
            "Remove one or the other.",
        )
    return answers, is_impossible


def _answer(node: _Node, context: str, rules: _Rules) -> SquadAnswer:
    """One element of `answers`."""
    text = node.child("text", str)
    if not text.value.strip():
        raise text.error("the answer is blank", text.value, "Add its text.")
    if not rules.needs_starts:
        start = node.value.get("answer_start")
        is_known = type(start) is int and 0 <= start < len(context)
        return SquadAnswer(text.value, start if is_known else -1)
    start = node.child("answer_start", int)
    if not 0 <= start.value < len(context):
        raise start.error(
            f"the answer must begin within the context of {len(context)} characters",
            start.value,
            "Correct it, or leave the question out of training.",
        )
    return SquadAnswer(text.value, start.value)


def is_at_its_start(context: str, answer: SquadAnswer) -> bool:
    """Whether the context has an answer at its start, up to kinds of blanks."""
    if answer.start < 0:
        return False
    found = context[answer.start : answer.start + len(answer.text)]
    return found.split() == answer.text.split()


def drop_misplaced(
    examples: Iterable[SquadExample],
) -> tuple[list[SquadExample], list[str]]:
    """Drops the questions whose first answer is not at its start.

    Source: the original drops them from training, with a warning.

    Args:
      examples: Questions.

    Returns:
      The other questions in their order, and a line on each that was dropped: its id,
      the answer, and the text that is at its start instead.
    """
    kept: list[SquadExample] = []
    dropped: list[str] = []
    for example in examples:
        context, answer = example.context, next(iter(example.answers), None)
        if answer is None or is_at_its_start(context, answer):
            kept.append(example)
            continue
        found = context[answer.start : answer.start + len(answer.text)]
        dropped.append(
            f"question {_printable(example.question_id)}: the answer "
            f"{reprlib.repr(answer.text)} is not at character {answer.start}, where "
            f"{reprlib.repr(found)} is"
        )
    return kept, dropped
