"""What `python -m bert_tf predict` does with its inputs: one function for each task."""

import argparse
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from bert_tf.cli.prediction_input import Example, Task

if TYPE_CHECKING:
    from bert_tf.data.tasks.choices import Question

_LOGGER = logging.getLogger(__name__)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "vocab_file": options.vocab_file,
        "do_lower_case": options.do_lower_case,
        "precision": options.precision,
        "batch_size": options.batch_size,
    }


def _fill_mask(options: argparse.Namespace) -> Task:
    from bert_tf.predictors import MaskFiller

    fill = MaskFiller(options.model, **_settings(options))

    def predict(examples: list[Example]) -> Iterable[Example]:
        results = fill([each["text"] for each in examples], options.top_k or 5)
        return ({"masks": masks} for masks in results)

    return Task(
        options.task,
        ("text",),
        predict,
        lambda: fill.num_traces,
        lambda example: fill.check(example["text"]),
    )


def _squad(options: argparse.Namespace) -> Task:
    from bert_tf.predictors import QuestionAnswerer

    answer = QuestionAnswerer(options.model, **_settings(options))

    def predict(examples: list[Example]) -> list[Example]:
        return answer(
            [(example["question"], example["context"]) for example in examples]
        )

    return Task(
        options.task, ("question", "context"), predict, lambda: answer.num_traces
    )


def _classify(options: argparse.Namespace) -> Task:
    from bert_tf.jobs.class_names import known_files
    from bert_tf.predictors import Classifier

    classify = Classifier(options.model, **_settings(options))

    def predict(examples: list[Example]) -> list[Example]:
        return classify(_texts(examples))

    return Task(
        options.task,
        ("text_a",),
        predict,
        lambda: classify.num_traces,
        lambda example: classify.check(example.get("text_b")),
        files=known_files(classify.description),
        takes_pairs=classify.takes_pairs,
    )


def _tag(options: argparse.Namespace) -> Task:
    from bert_tf.data.tasks.conll import has_conll_name, is_conll, read_conll
    from bert_tf.predictors import Tagger

    tag = Tagger(options.model, **_settings(options))

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
        found = tag([each.get("words", each.get("text")) for each in examples])
        for one, result in zip(examples, found, strict=True):
            if "words" in one:
                del result["words"]
        return found

    def read(path: str) -> Iterator[Example] | None:
        if not is_conll(path, tag.label_names):
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
        lambda: tag.num_traces,
        parse=parse,
        read=read,
    )


def _choose(options: argparse.Namespace) -> Task:
    from bert_tf.data.tasks.choices import find_columns, question_of
    from bert_tf.data.tasks.tables import column_names, read_rows
    from bert_tf.predictors import Chooser

    choose = Chooser(options.model, **_settings(options))

    def ask(example: Example, location: str) -> "Question":
        return question_of(example, find_columns(list(example), location), location)

    def parse(example: Example, location: str) -> Example:
        ask(example, location)
        return example

    def predict(examples: list[Example]) -> list[Example]:
        return choose([ask(each, "The input") for each in examples])

    def read(path: str) -> Iterator[Example] | None:
        name = path.lower().removesuffix(".gz")
        if not name.endswith((".csv", ".tsv", ".parquet")):
            return None
        names = column_names(path)
        find_columns(names, path)  # For an error before the first row.
        rows = read_rows(path, [name for name in names if name])
        return (parse(row.values, row.location) for row in rows)

    return Task(
        options.task,
        ("context", "endings"),
        predict,
        lambda: choose.num_traces,
        parse=parse,
        read=read,
    )


def _embed(options: argparse.Namespace) -> Task:
    from bert_tf.features import Embedder

    embed = Embedder(
        options.model,
        pooling=options.pooling or "",
        max_seq_length=options.max_seq_length,
        **_settings(options),
    )

    def predict(examples: list[Example]) -> list[Example]:
        return [{"embedding": x.tolist()} for x in embed(_texts(examples))]

    return Task(options.task, ("text_a",), predict, lambda: embed.num_traces)


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
