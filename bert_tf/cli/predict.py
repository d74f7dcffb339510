"""`python -m bert_tf predict ...`: text in, JSON lines out, or a matrix of vectors."""

import argparse
import itertools
import json
import math
import os
import shlex
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from bert_tf.cli.arguments import Parser, add_tokenizer_options
from bert_tf.cli.prediction_chunks import in_chunks
from bert_tf.cli.prediction_input import GIVEN, Example, Task, ask, read_inputs
from bert_tf.cli.prediction_streams import (
    has_ended,
    is_stream,
    is_terminal,
    name_of,
    open_stream,
)
from bert_tf.cli.prediction_tasks import TASKS
from bert_tf.config import checks
from bert_tf.config.paths import require_exists, require_file, require_output_file
from bert_tf.config.runtime import PRECISIONS
from bert_tf.config.sentences import POOLINGS
from bert_tf.evaluation.speed import BatchTimes, describe_speed
from bert_tf.files import save_array, whole_file
from bert_tf.interop.ready_model import ReadyModel, find_model

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
file; for tag, a file of tagged words (CoNLL); for choose, a table with the columns of
SWAG.
Each line of output is that JSON with the predictions added; a label of the input is
called given_label then, and other keys and columns are kept.
"""
# Options of one task alone.
_ONLY_FOR = {
    "top_k": "fill-mask",
    **dict.fromkeys(("output", "pooling", "max_seq_length"), "embed"),
}
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
    checks.require_positive(options, "batch_size")
    if options.top_k is not None:
        checks.require_positive(options, "top_k")
    parser.warn_about_repeated()
    task = TASKS[options.task](options, _check_paths(options))
    is_waiting = is_stream(options.input) and not options.text
    is_read = is_waiting and not is_terminal(options)
    stream = open_stream(options.input) if is_read else None
    if stream and has_ended(stream):
        _warn_of_no_text(options)
        return
    if is_waiting:  # It is loaded before the first line comes.
        task.load()
    if options.benchmark:
        _benchmark(options, task, read_inputs(options, task, stream))
        return
    if is_terminal(options):
        chunks = ask(task)
    else:
        examples = read_inputs(options, task, stream)
        chunks = in_chunks(examples, _AT_ONCE, at_once=is_waiting)
    is_empty, vectors = True, []
    for chunk in chunks:
        is_empty = False
        results = task.predict(chunk)
        if options.output:
            found = [result["embedding"] for result in results]
            vectors.append(np.array(found, np.float32))
        else:
            for example, result in zip(chunk, results, strict=True):
                _print(_joined(example, result))
    if vectors:
        os.makedirs(os.path.dirname(options.output) or ".", exist_ok=True)
        with whole_file(options.output) as file:
            save_array(file, np.concatenate(vectors))
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
    options: argparse.Namespace, task: Task, examples: Iterator[Example]
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
        with used.measured(size, lambda: task.load().num_traces):
            list(task.predict(batch))
    print(
        f"{len(inputs)} inputs, repeated; from text to prediction, after "
        f"{_WARM_UP_BATCHES} batches."
    )
    for line in describe_speed(options.task, [times], size):
        print(line)


def _check_paths(options: argparse.Namespace) -> ReadyModel:
    """Checks the paths that are given, and the model's, before TensorFlow is loaded."""
    require_exists("model", options.model)
    for name, task in _ONLY_FOR.items():
        if getattr(options, name) not in (None, "") and options.task != task:
            advice = "Leave it out."
            if name == "output":
                path = shlex.quote(options.output)
                advice = (
                    "For a file of JSON lines, leave it out and redirect the standard "
                    f"output: `> {path}`."
                )
            raise ValueError(f"--{name} is for {task}. {advice}")
    if options.output:
        if not options.output.endswith(".npy") or options.benchmark:
            raise ValueError(
                "`output` must be a file in .npy, without --benchmark. Received: "
                f"{options.output}. For JSON lines, redirect the standard output."
            )
        require_output_file("output", options.output)
    if options.vocab_file:
        require_file("vocab_file", options.vocab_file)
    if not is_stream(options.input) and not options.text:
        require_file("input", options.input)
    found = find_model(
        options.model,
        "" if options.task == "embed" else options.task,
        vocab_file=options.vocab_file,
        do_lower_case=options.do_lower_case,
    )
    if options.max_seq_length is not None:
        found.require_length(options.max_seq_length)
    return found


def _print(values: Example) -> None:
    # The table may hold a value that JSON has no form for, such as a date or NaN.
    values = {
        name: str(x) if isinstance(x, float) and not math.isfinite(x) else x
        for name, x in values.items()
    }
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
    add("task", choices=tuple(TASKS))
    text = (
        "the text; for squad question and context, for choose context and endings; for "
        "classify both texts of a pair, or any number of texts if the model takes one"
    )
    add("text", nargs="*", help=text)
    add(
        "--model",
        required=True,
        help="output_dir of a training run, or weights with config and vocab.txt",
    )
    add("--input", default="-", help="a file with one input per line; - is stdin")
    add_tokenizer_options(parser)
    add("--precision", choices=PRECISIONS, default="", help="default: fp32")
    add("--batch_size", type=int, default=32, help="rows per batch")
    add("--top_k", type=int, help="fill-mask only: words for each [MASK]. Default: 5")
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
