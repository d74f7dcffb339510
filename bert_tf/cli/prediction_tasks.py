"""What `python -m bert_tf predict` does with its inputs: one function for each task."""

import argparse
import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import bert_tf
from bert_tf.cli.prediction_input import Example, Task
from bert_tf.data.text.vocabulary import require_mask
from bert_tf.errors import RunError
from bert_tf.files import extension
from bert_tf.interop.ready_model import ReadyModel
from bert_tf.jobs.class_names import known_files, takes_pairs
from bert_tf.launch import choose_instructions, without_optional_packages
from bert_tf.stages import loading_tensorflow

if TYPE_CHECKING:
    from bert_tf.data.tasks.choices import Question

_LOGGER = logging.getLogger(__name__)


def _model(options: argparse.Namespace, name: str, **more: object) -> Callable[[], Any]:
    """A predictor, made when it is first asked for, which loads TensorFlow.

    Args:
      options: The command line.
      name: Its class, in `bert_tf`.
      more: Arguments of it alone.

    Returns:
      A function that raises a RunError if there is something wrong with the model.
    """

    @functools.cache
    def load() -> Any:  # noqa: ANN401
        choose_instructions(options.precision)
        with loading_tensorflow(), without_optional_packages():
            from bert_tf.distribute import Communicator, configure_devices

        configure_devices(Communicator(), None)
        try:
            return getattr(bert_tf, name)(
                options.model,
                vocab_file=options.vocab_file,
                do_lower_case=options.do_lower_case,
                precision=options.precision,
                batch_size=options.batch_size,
                **more,
            )
        except ValueError as error:  # Not of the line that is read first.
            raise RunError(str(error)) from error

    return load


def _fill_mask(options: argparse.Namespace, _: ReadyModel) -> Task:
    load = _model(options, "MaskFiller")

    def predict(examples: list[Example]) -> Iterable[Example]:
        results = load()([each["text"] for each in examples], options.top_k or 5)
        return ({"masks": masks} for masks in results)

    def check(example: Example) -> None:
        require_mask(example["text"])  # Before the model is loaded.
        load().check(example["text"])

    return Task(options.task, ("text",), predict, load, check)


def _squad(options: argparse.Namespace, _: ReadyModel) -> Task:
    load = _model(options, "QuestionAnswerer")

    def predict(examples: list[Example]) -> list[Example]:
        return load()([(one["question"], one["context"]) for one in examples])

    return Task(options.task, ("question", "context"), predict, load)


def _classify(options: argparse.Namespace, found: ReadyModel) -> Task:
    load = _model(options, "Classifier")

    def predict(examples: list[Example]) -> list[Example]:
        return load()(_texts(examples))

    return Task(
        options.task,
        ("text_a",),
        predict,
        load,
        lambda example: load().check(example.get("text_b")),
        files=known_files(found.description),
        takes_pairs=takes_pairs(found.description),
    )


def _tag(options: argparse.Namespace, _: ReadyModel) -> Task:
    from bert_tf.data.tasks.conll import has_conll_name, is_conll, read_conll

    load = _model(options, "Tagger")

    def parse(example: Example, location: str) -> Example:
        words, text = example.get("words"), example.get("text")
        is_list = isinstance(words, list) and all(
            isinstance(word, str) and word for word in words
        )
        if not (is_list if "words" in example else isinstance(text, str)):
            raise ValueError(
                f"{location}: there must be `text`, or `words`, a list of words that "
                f"are not empty. Received: {str(example)[:80]}. Correct the line."
            )
        return example

    def predict(examples: list[Example]) -> list[Example]:
        found = load()([each.get("words", each.get("text")) for each in examples])
        for one, result in zip(examples, found, strict=True):
            if "words" in one:
                del result["words"]
        return found

    def read(path: str) -> Iterator[Example] | None:
        if not is_conll(path, load().label_names):
            return None
        if not has_conll_name(path):
            _LOGGER.warning(
                "%s: read as tagged words (CoNLL), since its lines end in tags of the "
                "model. The tags are not used.",
                path,
            )
        return ({"words": x.words} for x in read_conll(path, needs_labels=False))

    return Task(
        options.task,
        ("text",),
        predict,
        load,
        parse=parse,
        read=read,
    )


def _choose(options: argparse.Namespace, _: ReadyModel) -> Task:
    from bert_tf.data.tasks.choices import find_columns, question_of
    from bert_tf.data.tasks.tables import column_names, read_rows

    load = _model(options, "Chooser")

    def ask(example: Example, location: str) -> "Question":
        return question_of(example, find_columns(list(example), location), location)

    def parse(example: Example, location: str) -> Example:
        ask(example, location)
        return example

    def predict(examples: list[Example]) -> list[Example]:
        return load()([ask(each, "The input") for each in examples])

    def read(path: str) -> Iterator[Example] | None:
        if extension(path) not in (".csv", ".tsv", ".parquet"):
            return None
        names = column_names(path)
        find_columns(names, path)  # For an error before the first row.
        rows = read_rows(path, [name for name in names if name])
        return (parse(row.values, row.location) for row in rows)

    return Task(
        options.task,
        ("context", "endings"),
        predict,
        load,
        parse=parse,
        read=read,
    )


def _embed(options: argparse.Namespace, _: ReadyModel) -> Task:
    more = {"pooling": options.pooling or "", "max_seq_length": options.max_seq_length}
    load = _model(options, "Embedder", **more)

    def predict(examples: list[Example]) -> list[Example]:
        return [{"embedding": x.tolist()} for x in load()(_texts(examples))]

    return Task(options.task, ("text_a",), predict, load)


TASKS = {
    "fill-mask": _fill_mask,
    "squad": _squad,
    "classify": _classify,
    "tag": _tag,
    "choose": _choose,
    "embed": _embed,
}


def _texts(examples: list[Example]) -> list[str | tuple[str, str]]:
    """The text of each input, or both of its texts."""
    return [
        (one["text_a"], one["text_b"]) if one.get("text_b") else one["text_a"]
        for one in examples
    ]
