"""`python -m bert_tf predict ...`: text in, JSON lines out."""

import argparse
import io
import itertools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TextIO

from bert_tf.cli.arguments import Parser, parse_bool
from bert_tf.config import checks
from bert_tf.config.paths import require_exists, require_file
from bert_tf.config.runtime import PRECISIONS
from bert_tf.errors import shown
from bert_tf.evaluation.speed import BatchTimes, describe_speed
from bert_tf.json_files import parse_json
from bert_tf.launch import choose_instructions, without_optional_packages

_PROG = "python -m bert_tf predict"
_EXAMPLES = """
The input is the text on the command line, else the lines of --input, by default those
of standard input. A line is the text itself or JSON:
  fill-mask  {"text": "Paris is the [MASK] of France."}
  squad      {"question": "Who?", "context": "It was Ada."}
  classify   {"text_a": "A fine film."} or, of two texts, {"text_a": ..., "text_b": ...}
Each line of output is that JSON with the predictions added.
"""
# Inputs that are read and predicted before the output is printed.
_AT_ONCE = 1024
# Characters of a line: a file without line ends would fill the memory.
_MAX_LINE = 16 << 20
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
    tasks = {"fill-mask": _fill_mask, "squad": _squad, "classify": _classify}
    task = tasks[options.task](options)
    examples = _read(options, task)
    if options.benchmark:
        _benchmark(options, task, examples)
        return
    error, count = None, 0
    while error is None:
        chunk, error = _take(examples)
        if not chunk and error is None:
            break
        for example, result in zip(chunk, task.predict(chunk), strict=True):
            _print(example | result)
        count += len(chunk)
    if error:
        raise error
    if not count:
        _warn_of_no_text(options)


def _warn_of_no_text(options: argparse.Namespace) -> None:
    print(
        f"warning: {_name(options.input)} holds no text, so nothing is predicted.",
        file=sys.stderr,
    )


def _benchmark(
    options: argparse.Namespace, task: "Task", examples: Iterator[dict[str, Any]]
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
    if options.vocab_file:
        require_file("vocab_file", options.vocab_file)
    # /dev/stdin and what a shell passes for <(command) are pipes.
    is_named_pipe = options.input.startswith(("/dev/stdin", "/dev/fd/"))
    if options.input != "-" and not options.text and not is_named_pipe:
        require_file("input", options.input)


def _take(
    examples: Iterator[dict[str, Any]],
) -> tuple[list[dict[str, Any]], ValueError | None]:
    """Reads up to `_AT_ONCE` examples, and the error that ended them, if any.

    Those before a bad line are still predicted.
    """
    chunk: list[dict[str, Any]] = []
    try:
        for example in itertools.islice(examples, _AT_ONCE):
            chunk.append(example)
    except ValueError as error:
        return chunk, error
    return chunk, None


def _print(values: dict[str, Any]) -> None:
    line = json.dumps(values, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # Half of a surrogate pair, which JSON can escape.
        line = json.dumps(values)
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
    add("task", choices=("fill-mask", "squad", "classify"))
    add("text", nargs="*", help="the text; for squad the question, then the context")
    add(
        "--model",
        required=True,
        help="output_dir of a training run, or weights with config and vocab.txt",
    )
    add("--input", default="-", help="a file with one input per line; - is stdin")
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
    add("--batch_size", type=int, default=32, help="rows per batch")
    add("--precision", choices=PRECISIONS, default="", help="default: fp32")
    add("--top_k", type=int, default=5, help="fill-mask only: words for each [MASK]")
    add(
        "--benchmark",
        action="store_true",
        help="print throughput and latency of batches of --batch_size inputs, which "
        f"are repeated to {_WARM_UP_BATCHES} + {_MEASURED_BATCHES} batches",
    )
    return parser


class Task(NamedTuple):
    """A kind of prediction.

    Attributes:
      required: Names of the texts that each input must have.
      predict: Inputs -> the predictions for each.
      num_traces: How often the model has been traced.
      check: Raises a ValueError if an input cannot be predicted.
    """

    required: tuple[str, ...]
    predict: Callable[[list[dict[str, Any]]], Iterable[dict[str, Any]]]
    num_traces: Callable[[], int]
    check: Callable[[dict[str, Any]], None] = lambda example: None


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

    return Task(("question", "context"), predict, lambda: answer.num_traces)


def _classify(options: argparse.Namespace) -> Task:
    from bert_tf.predictors import Classifier

    classify = Classifier(options.model, **_settings(options))

    def predict(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return classify(
            [
                (example["text_a"], example["text_b"])
                if example.get("text_b")
                else example["text_a"]
                for example in examples
            ]
        )

    return Task(("text_a",), predict, lambda: classify.num_traces)


def _read(options: argparse.Namespace, task: Task) -> Iterator[dict[str, Any]]:
    """The inputs as dicts that hold the required texts."""
    required = task.required
    if options.text:
        names = ("text_a", "text_b") if options.task == "classify" else required
        if not len(required) <= len(options.text) <= len(names):
            raise ValueError(
                f"{options.task} takes {' and '.join(names)}. Received: "
                f"{len(options.text)} texts."
            )
        for text in options.text:
            try:
                text.encode()  # What is not UTF-8 was read as surrogates.
            except UnicodeEncodeError:
                raise ValueError(
                    f"The text must be UTF-8. Received: {shown(text)}. Correct it, or "
                    "pass it in a file as --input."
                ) from None
        example = dict(zip(names, options.text, strict=False))
        task.check(example)
        yield example
    elif options.input == "-":
        if sys.stdin is None:
            raise ValueError(
                "`input` is standard input, which is closed. Pass --input=FILE."
            )
        if isinstance(sys.stdin, io.TextIOWrapper):  # A test may replace it.
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
        yield from _parse(sys.stdin, _name(options.input), task)
    else:
        path = options.input
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            yield from _parse(file, _name(path), task)


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def _parse(file: TextIO, path: str, task: Task) -> Iterator[dict[str, Any]]:
    """Parses lines into examples; an error names its line."""
    lines = iter(lambda: file.readline(_MAX_LINE + 1), "")
    for number, line in enumerate(lines, start=1):
        if len(line) > _MAX_LINE:
            raise ValueError(
                f"{path}, line {number}: a line must have at most {_MAX_LINE:,} "
                "characters. Correct the file, or fetch it again."
            )
        try:
            line.encode()  # What is not UTF-8 was read as surrogates.
        except UnicodeEncodeError:
            raise ValueError(
                f"{path}, line {number}: not UTF-8. Store the file as UTF-8."
            ) from None
        if not (text := line.strip()):
            continue
        try:
            example = _example(text, task.required)
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: must be a JSON object with the texts "
                f"{', '.join(task.required)}{error}. Received: {text[:80]!r}."
            ) from None
        try:
            task.check(example)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        yield example


def _example(text: str, required: tuple[str, ...]) -> dict[str, Any]:
    """A line as a dict with the required texts; the error says what else it is."""
    if not text.startswith("{") and len(required) == 1:
        return {required[0]: text}
    try:
        example = parse_json(text)
    except ValueError as error:
        raise ValueError(f" ({error})") from None
    is_good = isinstance(example, dict) and all(
        isinstance(example.get(name), str) for name in required
    )
    is_good = is_good and isinstance(example.get("text_b") or "", str)
    if not is_good:
        raise ValueError("")
    return example
