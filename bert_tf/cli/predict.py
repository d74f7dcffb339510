"""`python -m bert_tf predict ...`: text in, JSON lines out, or a matrix of vectors."""

import argparse
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bert_tf.cli.arguments import Parser, parse_bool
from bert_tf.cli.prediction_input import (
    GIVEN,
    Example,
    Task,
    ask,
    in_chunks,
    is_stream,
    is_terminal,
    name_of,
    read_inputs,
)
from bert_tf.config import checks
from bert_tf.config.paths import require_exists, require_file, require_possible
from bert_tf.config.runtime import PRECISIONS
from bert_tf.config.sentences import POOLINGS
from bert_tf.evaluation.speed import BatchTimes, describe_speed
from bert_tf.files import whole_file
from bert_tf.launch import choose_instructions, without_optional_packages

if TYPE_CHECKING:
    from bert_tf.data.tasks.choices import Question

_PROG = "python -m bert_tf predict"
_EXAMPLES = """
The input is the text on the command line, else the lines of --input, by default those
of standard input. A line is the text itself or JSON:
  fill-mask  {"text": "Paris is the [MASK] of France."}
  squad      {"question": "Who?", "context": "It was Ada."}
  classify   {"text_a": "A fine film."} or, of two texts, {"text_a": ..., "text_b": ...}
  tag        {"text": "Ada lives in London."} or {"words": ["Ada", "lives", ...]}
  choose     {"context": "She fell", "endings": ["asleep.", "upwards."]}
  embed      as for classify; the output has the vector, of length 1, as "embedding"
For classify and embed it may also be a file of examples, such as a training file: its
columns are those of the model's task, or have common names. For squad, a SQuAD JSON
file; for tag, a .conll file; for choose, a table with the columns of SWAG.
Each line of output is that JSON with the predictions added; a label of the input is
called given_label then.
"""
# Inputs that are read and predicted before the output is printed.
_AT_ONCE = 1024
# Of --benchmark: as those of a training.
_WARM_UP_BATCHES, _MEASURED_BATCHES = 10, 40


def main(arguments: Sequence[str]) -> None:
    """Predicts, and prints one line of JSON per input.

    Args:
      arguments: The command line after `predict`.

    Raises:
      ValueError: if an option, or a line of the input, is wrong.
      FileNotFoundError, RunError: if there is no such model.
      SystemExit: after `--help`.
    """
    parser = make_parser()
    options = parser.parse_intermixed_args(arguments)
    checks.require_positive(options, "batch_size", "top_k")
    parser.warn_about_repeated()
    logging.basicConfig(format="%(message)s")  # Warnings begin with their level.
    _check_paths(options)
    choose_instructions(options.precision)
    with without_optional_packages():
        from bert_tf.distribute import Communicator, configure_devices

    configure_devices(Communicator(), None)
    task = _TASKS[options.task](options)
    if options.benchmark:
        _benchmark(options, task, read_inputs(options, task))
        return
    if is_terminal(options):
        chunks = ask(task)
    else:
        is_waiting = is_stream(options.input) and not options.text
        chunks = in_chunks(read_inputs(options, task), _AT_ONCE, at_once=is_waiting)
    is_empty, vectors = True, []
    for chunk in chunks:
        results = task.predict(chunk)
        if options.output:
            found = [result["embedding"] for result in results]
            vectors.append(np.array(found, np.float32))
        else:
            for example, result in zip(chunk, results, strict=True):
                _print(_joined(example, result))
        is_empty = False
    if vectors:
        os.makedirs(os.path.dirname(options.output) or ".", exist_ok=True)
        with whole_file(options.output) as file:
            np.save(file, np.concatenate(vectors))
    if is_empty and not is_terminal(options):
        _warn_of_no_text(options)


def _joined(example: Example, result: Example) -> Example:
    """An input with its predictions; a label that it has itself gets another name."""
    given = {GIVEN + n if n in result else n: value for n, value in example.items()}
    return given | result


def _warn_of_no_text(options: argparse.Namespace) -> None:
    print(
        f"warning: {name_of(options.input)} holds no text, so nothing is predicted.",
        file=sys.stderr,
    )


def _benchmark(
    options: argparse.Namespace, task: Task, examples: Iterator[dict[str, Any]]
) -> None:
    """Prints how fast the inputs are predicted, repeated to fill all batches."""
    size = options.batch_size
    num_batches = _WARM_UP_BATCHES + _MEASURED_BATCHES
    inputs = list(itertools.islice(examples, num_batches * size))
    if not inputs:
        _warn_of_no_text(options)
        return
    repeated = itertools.cycle(inputs)
    times = BatchTimes()
    for number in range(num_batches):
        batch = list(itertools.islice(repeated, size))
        used = times if number >= _WARM_UP_BATCHES else BatchTimes()
        with used.measured(size, task.num_traces):
            list(task.predict(batch))
    print(
        f"{len(inputs)} inputs, repeated; from text to prediction, after "
        f"{_WARM_UP_BATCHES} batches."
    )
    for line in describe_speed(options.task, [times], size):
        print(line)


def _check_paths(options: argparse.Namespace) -> None:
    """Checks the paths that are given, before TensorFlow is loaded."""
    require_exists("model", options.model)
    for name in ("output", "pooling", "max_seq_length"):
        if getattr(options, name) not in (None, "") and options.task != "embed":
            raise ValueError(f"--{name} is for embed. Leave it out.")
    if options.output:
        if not options.output.endswith(".npy") or options.benchmark:
            raise ValueError(
                "`output` must be a file in .npy, without --benchmark. Received: "
                f"{options.output}. For JSON lines, redirect the standard output."
            )
        require_possible("output", os.path.dirname(options.output) or ".")
    if options.vocab_file:
        require_file("vocab_file", options.vocab_file)
    if not is_stream(options.input) and not options.text:
        require_file("input", options.input)


def _print(values: dict[str, Any]) -> None:
    # The table may hold a label that JSON has no form for, such as a date.
    line = json.dumps(values, ensure_ascii=False, default=str)
    try:
        line.encode()
    except UnicodeEncodeError:  # Half of a surrogate pair, which JSON can escape.
        line = json.dumps(values, default=str)
    print(line, flush=True)


def make_parser() -> Parser:
    """Makes the parser of the options."""
    parser = Parser(
        prog=_PROG,
        description="Predicts with a trained model.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("task", choices=tuple(_TASKS))
    text = "the text; for squad question and context, for choose context and endings"
    add("text", nargs="*", help=text)
    add(
        "--model",
        required=True,
        help="output_dir of a training run, or weights with config and vocab.txt",
    )
    add("--input", default="-", help="a file with one input per line; - is stdin")
    add_model_options(parser)
    add("--batch_size", type=int, default=32, help="rows per batch")
    add("--top_k", type=int, default=5, help="fill-mask only: words for each [MASK]")
    add(
        "--pooling",
        choices=POOLINGS,
        help="embed only: the vector is the mean of all tokens, or that of [CLS]. "
        "Default: as the model was trained, else mean",
    )
    add(
        "--max_seq_length",
        type=int,
        help="embed only: longer texts are cut. Default: as the model was trained, "
        "else its number of positions",
    )
    add(
        "--output",
        default="",
        help="embed only: a file in .npy for the vectors, float32 [texts, width]. "
        "Default: JSON lines on standard output",
    )
    add(
        "--benchmark",
        action="store_true",
        help="print throughput and latency of batches of --batch_size inputs, which "
        f"are repeated to {_WARM_UP_BATCHES} + {_MEASURED_BATCHES} batches",
    )
    return parser


def add_model_options(parser: Parser) -> None:
    """Adds the options of how a model reads text and computes."""
    add = parser.add_argument
    add("--vocab_file", default="", help="default: vocab.txt next to the weights")
    add(
        "--do_lower_case",
        type=parse_bool,
        metavar="BOOL",
        help="default: from the files next to the weights, else true if the vocabulary "
        "is uncased",
    )
    add(
        "--cased",
        dest="do_lower_case",
        action="store_false",
        default=None,
        help="the same as --do_lower_case=false",
    )
    add("--precision", choices=PRECISIONS, default="", help="default: fp32")


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

    def predict(examples: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        results = fill([example["text"] for example in examples], options.top_k)
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

    def predict(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return answer(
            [(example["question"], example["context"]) for example in examples]
        )

    required = ("question", "context")
    return Task(options.task, required, predict, lambda: answer.num_traces)


def _classify(options: argparse.Namespace) -> Task:
    from bert_tf.jobs.class_names import known_files
    from bert_tf.predictors import Classifier

    classify = Classifier(options.model, **_settings(options))

    def predict(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return classify(_texts(examples))

    return Task(
        options.task,
        ("text_a",),
        predict,
        lambda: classify.num_traces,
        files=known_files(classify.description),
    )


def _tag(options: argparse.Namespace) -> Task:
    from bert_tf.data.tasks.conll import read_conll
    from bert_tf.tag_and_choose import Tagger

    tag = Tagger(options.model, **_settings(options))

    def parse(example: dict[str, Any], location: str) -> dict[str, Any]:
        words, text = example.get("words"), example.get("text")
        is_list = isinstance(words, list) and all(
            isinstance(word, str) and word for word in words
        )
        if not (is_list if "words" in example else isinstance(text, str)):
            raise ValueError(
                f"{location}: there must be a text, or words that are not empty. "
                f"Received: {str(example)[:80]}. Correct the line."
            )
        return example

    def predict(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = tag([each.get("words", each.get("text")) for each in examples])
        for one, result in zip(examples, found, strict=True):
            if "words" in one:
                del result["words"]
        return found

    def read(path: str) -> Iterator[dict[str, Any]] | None:
        if not path.lower().removesuffix(".gz").endswith(".conll"):
            return None
        return ({"words": x.words} for x in read_conll(path, needs_labels=False))

    more = {"parse": parse, "read": read}
    return Task(options.task, ("text",), predict, lambda: tag.num_traces, **more)


def _choose(options: argparse.Namespace) -> Task:
    from bert_tf.data.tasks.choices import find_columns, question_of
    from bert_tf.data.tasks.tables import column_names, read_rows
    from bert_tf.tag_and_choose import Chooser

    choose = Chooser(options.model, **_settings(options))

    def ask(example: dict[str, Any], location: str) -> "Question":
        return question_of(example, find_columns(list(example), location), location)

    def parse(example: dict[str, Any], location: str) -> dict[str, Any]:
        ask(example, location)
        return example

    def predict(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return choose([ask(each, "The input") for each in examples])

    def read(path: str) -> Iterator[dict[str, Any]] | None:
        name = path.lower().removesuffix(".gz")
        if not name.endswith((".csv", ".tsv", ".parquet")):
            return None
        rows = read_rows(path, find_columns(column_names(path), path).names)
        return (parse(row.values, row.location) for row in rows)

    required = ("context", "endings")
    more = {"parse": parse, "read": read}
    return Task(options.task, required, predict, lambda: choose.num_traces, **more)


def _embed(options: argparse.Namespace) -> Task:
    from bert_tf.features import Embedder

    embed = Embedder(
        options.model,
        pooling=options.pooling or "",
        max_seq_length=options.max_seq_length,
        **_settings(options),
    )

    def predict(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"embedding": x.tolist()} for x in embed(_texts(examples))]

    return Task(options.task, ("text_a",), predict, lambda: embed.num_traces)


_TASKS = {
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
