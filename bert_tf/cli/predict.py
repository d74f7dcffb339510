"""`python -m bert_tf predict ...`: text in, JSON lines out."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from bert_tf.cli.arguments import Parser
from bert_tf.config.runtime import PRECISIONS
from bert_tf.launch import choose_instructions

_PROG = "python -m bert_tf predict"
_EXAMPLES = """
Input is the text on the command line, the lines of --input, or else those of the
standard input. A line is the text itself or JSON:
  fill-mask  {"text": "Paris is the [MASK] of France."}
  squad      {"question": "Who?", "context": "It was Ada."}
  classify   {"text_a": "A fine film."} or, of two texts, {"text_a": ..., "text_b": ...}
Each line of output is that JSON and what was predicted.
"""
# How many inputs are read and answered at a time.
_AT_ONCE = 1024


def main(arguments: Sequence[str]) -> None:
    """Predicts, and prints a line of JSON for each input.

    Args:
      arguments: The command line after `predict`.

    Raises:
      ValueError: if an option, or a line of the input, is wrong.
      FileNotFoundError, RunError: if there is no such model.
      SystemExit: after `--help`.
    """
    options = make_parser().parse_intermixed_args(arguments)
    choose_instructions(options.precision)
    from bert_tf.distribute import Communicator, configure_devices

    configure_devices(Communicator(), None)
    tasks = {"fill-mask": _fill_mask, "squad": _squad, "classify": _classify}
    required, predict = tasks[options.task](options)
    examples = _read(options, required)
    while chunk := [x for _, x in zip(range(_AT_ONCE), examples, strict=False)]:
        for example, result in zip(chunk, predict(chunk), strict=True):
            print(json.dumps(example | result, ensure_ascii=False), flush=True)


def make_parser() -> Parser:
    """The options."""
    parser = Parser(
        prog=_PROG,
        description="Predicts with a trained model.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("task", choices=("fill-mask", "squad", "classify"))
    add("text", nargs="*", help="the text; of squad the question, then its context")
    add(
        "--model",
        required=True,
        help="the output_dir of a training, or weights with config and vocab.txt",
    )
    add("--input", default="-", help="a file of lines; - is the standard input")
    add("--vocab_file", default="", help="default: that beside the weights")
    add(
        "--cased",
        action="store_true",
        help="do not lower-case; default: as in training",
    )
    add("--batch_size", type=int, default=32, help="rows computed at once")
    add("--precision", choices=PRECISIONS, default="", help="default: fp32")
    add("--top_k", type=int, default=5, help="of fill-mask: words for each [MASK]")
    return parser


Predict = Callable[[list[dict[str, Any]]], Iterable[dict[str, Any]]]


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    for name in ("batch_size", "top_k"):
        if getattr(options, name) < 1:
            raise ValueError(
                f"`{name}` must be at least 1. Received: {getattr(options, name)}."
            )
    return {
        "vocab_file": options.vocab_file,
        "do_lower_case": False if options.cased else None,
        "precision": options.precision,
        "batch_size": options.batch_size,
    }


def _fill_mask(options: argparse.Namespace) -> tuple[tuple[str, ...], Predict]:
    from bert_tf.jobs.prediction import MaskFiller

    fill = MaskFiller(options.model, **_settings(options))

    def predict(examples: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        results = fill([example["text"] for example in examples], options.top_k)
        return ({"masks": masks} for masks in results)

    return ("text",), predict


def _squad(options: argparse.Namespace) -> tuple[tuple[str, ...], Predict]:
    from bert_tf.jobs.prediction import QuestionAnswerer

    answer = QuestionAnswerer(options.model, **_settings(options))
    return ("question", "context"), lambda examples: answer(
        [(example["question"], example["context"]) for example in examples]
    )


def _classify(options: argparse.Namespace) -> tuple[tuple[str, ...], Predict]:
    from bert_tf.jobs.prediction import Classifier

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

    return ("text_a",), predict


def _read(
    options: argparse.Namespace, required: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """The inputs as dicts that hold the required texts."""
    if options.text:
        names = ("text_a", "text_b") if options.task == "classify" else required
        if not len(required) <= len(options.text) <= len(names):
            raise ValueError(
                f"{options.task} takes {' and '.join(names)}. Received: "
                f"{len(options.text)} texts."
            )
        yield dict(zip(names, options.text, strict=False))
        return
    if options.input == "-":
        yield from _parse(sys.stdin, "standard input", required)
        return
    with open(options.input, encoding="utf-8-sig") as file:
        yield from _parse(file, options.input, required)


def _parse(
    lines: Iterable[str], path: str, required: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if not text.startswith("{") and len(required) == 1:
            yield {required[0]: text}
            continue
        try:
            example = json.loads(text)
        except ValueError:
            example = None
        is_good = isinstance(example, dict) and all(
            isinstance(example.get(name), str) for name in required
        )
        is_good = is_good and isinstance(example.get("text_b") or "", str)
        if not is_good:
            raise ValueError(
                f"{path}, line {number}: must be a JSON object with the texts "
                f"{', '.join(required)}. Received: {text[:80]!r}."
            )
        yield example
