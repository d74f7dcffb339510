"""`python -m bert_tf evaluate suite MODEL`: how good a model is, as one table."""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bert_tf.cli.arguments import Parser, add_tokenizer_options
from bert_tf.config import checks
from bert_tf.config.paths import (
    require_exists,
    require_file,
    require_folder,
    require_local,
    require_output_file,
)
from bert_tf.config.runtime import PRECISIONS
from bert_tf.config.text import TEXT_FORMATS
from bert_tf.errors import did_you_mean
from bert_tf.files import write_whole
from bert_tf.interop.ready_model import find_model
from bert_tf.launch import choose_instructions, without_optional_packages
from bert_tf.stages import loading_tensorflow
from bert_tf.suite.inputs import ROWS, read_inputs

if TYPE_CHECKING:
    from bert_tf.suite.measures import Row

_DATA_DIR = ".data"
_EPILOG = """
BLiMP        the share of minimal pairs whose right sentence has the larger
             pseudo-log-likelihood (each token masked alone); ties count half
loss         the mean over 15% of the tokens of --text, masked with a fixed seed
similarity   Spearman's correlation of --sts with the cosine of mean vectors
probes       logistic regression on the mean vectors of each task in DATA_DIR/tasks;
             the baseline is the commonest class
What is not given or cannot be measured is a row that states the reason.
"""


def make_parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        prog="python -m bert_tf evaluate",
        description="Measures how good a model is: one table, and a JSON file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("what", choices=("suite",), help="all measures")
    add("model", help="output_dir of a training run, or weights with their config")
    add(
        "--blimp",
        default="",
        metavar="PATH",
        help="minimal pairs: a file, or the folder that `data download --name=blimp` "
        "makes; default: DATA_DIR/blimp, if that exists",
    )
    add(
        "--text",
        default="",
        metavar="FILES",
        help="text, for the loss: files or folders, as for `data extract`",
    )
    add(
        "--input_format",
        choices=TEXT_FORMATS,
        default="auto",
        help="default: by each file's extension, as `data extract` does",
    )
    add(
        "--text_field",
        default="text",
        help="the key, or the column, that holds the text of a document; default: text",
    )
    add(
        "--sts",
        default="",
        metavar="FILE",
        help="a table of two texts and their similarity, with named columns",
    )
    add(
        "--data_dir",
        default=_DATA_DIR,
        help="the folder with blimp and tasks; default: %(default)s",
    )
    add(
        "--rows",
        default=",".join(ROWS),
        metavar="LIST",
        help="what to measure, with commas between; default: %(default)s",
    )
    add_tokenizer_options(parser)
    add("--precision", choices=PRECISIONS, default="", help="default: fp32")
    add("--output", default="suite.json", metavar="FILE", help="default: suite.json")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Runs the command.

    Args:
      arguments: What follows `evaluate`.

    Raises:
      OSError, ValueError, RunError: if an input, an option or the model is wrong.
    """
    parser = make_parser()
    options = parser.parse_intermixed_args(arguments)
    parser.warn_about_repeated()
    _check_paths(options)
    inputs = read_inputs(
        options.data_dir,
        options.blimp,
        options.text,
        options.sts,
        rows=_chosen_rows(options),
        input_format=options.input_format,
        text_field=options.text_field,
    )
    # Last, since a model of the hub is fetched.
    given = {"vocab_file": options.vocab_file, "do_lower_case": options.do_lower_case}
    find_model(options.model, **given)
    choose_instructions(options.precision)
    with loading_tensorflow(), without_optional_packages():
        from bert_tf.distribute import Communicator, configure_devices

    configure_devices(Communicator(), None)
    from bert_tf.suite.measures import Row, measure
    from bert_tf.suite.scorer import Scorer

    scorer = Scorer(options.model, precision=options.precision, **given)
    found: list[Row] = []
    measured = []
    begin = time.monotonic()
    for row in measure(scorer, inputs):
        print(_line(row), file=sys.stderr)
        found.append(row)
        seconds = round(time.monotonic() - begin, 1)
        measured.append(dataclasses.asdict(row) | {"seconds": seconds})
        begin = time.monotonic()
    result = {
        "model": options.model,
        "precision": options.precision or "fp32",
        "rows": measured,
    }
    os.makedirs(os.path.dirname(os.path.abspath(options.output)), exist_ok=True)
    write_whole(options.output, json.dumps(result, indent=2) + "\n")
    print("\n".join(table(found)))
    print(options.output)


def _chosen_rows(options: argparse.Namespace) -> list[str]:
    """The rows to measure.

    Raises:
      ValueError: if one is unknown, or an input is given for a row that is left out.
    """
    rows = [row.strip() for row in options.rows.split(",")]
    for row in rows:
        checks.require(
            row in ROWS,
            "rows",
            f"list names among {', '.join(ROWS)}",
            options.rows,
            did_you_mean(row, ROWS),
        )
    for name in ROWS[:-1]:
        if value := getattr(options, name):
            rule = f"be given with the row {name} only"
            remedy = f"Add it to --rows={options.rows}, or leave out --{name}."
            checks.require(name in rows, name, rule, value, remedy)
    return rows


def _check_paths(options: argparse.Namespace) -> None:
    """Checks the paths that are given, before TensorFlow is loaded."""
    require_exists("model", options.model)
    for name in ("blimp", "text", "sts", "data_dir"):
        require_local(name, getattr(options, name))
    for name in ("sts", "vocab_file"):
        if path := getattr(options, name):
            require_file(name, path)
    if options.data_dir != _DATA_DIR:
        require_folder("data_dir", options.data_dir)
    if options.blimp and not os.path.isdir(options.blimp):
        require_file("blimp", options.blimp)
    require_output_file("output", options.output)


def table(rows: Sequence[Any]) -> list[str]:
    """The lines of the table.

    Args:
      rows: See `bert_tf.suite.measures`; parts with a slash in the name are left out.
    """
    cells = [("measure", "metric", "score", "baseline", "count", "of")]
    for row in rows:
        cells.append(
            (
                row.name,
                row.metric,
                _value(row.value),
                _value(row.baseline),
                f"{row.count:,}" if row.count else "-",
                row.note,
            )
        )
        for name, value in row.parts.items():
            if "/" not in name:
                cells.append((f"  {name}", "", _value(value), "", "", ""))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if 1 < number < 5 else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _line(row: "Row") -> str:
    """A row while the command goes on."""
    if row.value is None:
        return f"{row.name}: {row.note}"
    found = f"{row.metric} {_value(row.value)}"
    return f"{row.name}: {found}, {row.count:,} {row.note}"


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
