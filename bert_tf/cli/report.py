"""`python -m bert_tf report RUN_DIR...`: pages about a run, or about several."""

import os
from collections.abc import Sequence

from bert_tf.cli.arguments import Parser
from bert_tf.config.paths import require_local, require_output_file
from bert_tf.report.run_files import REPORT_FILE, find_runs
from bert_tf.report.writing import write_report


def make_parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        prog="python -m bert_tf report",
        description="Write the page about a run again, or one page that compares "
        "several. Runs of earlier versions are read too.",
    )
    parser.add_argument("folders", nargs="+", metavar="RUN_DIR", help="an --output_dir")
    parser.add_argument(
        "--output",
        default="",
        metavar="FILE",
        help=f"the page; default: RUN_DIR/{REPORT_FILE}, or comparison.html here for "
        "several runs",
    )
    parser.add_argument(
        "--dllog_path",
        default="",
        metavar="FILE",
        help="the log of a single run, where it is not in its folder",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Runs the command.

    Args:
      arguments: What follows `report`.

    Raises:
      RunError: if a folder is not of a run.
      OSError: if a path is an address, or the page cannot be written.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    parser.warn_about_repeated()
    require_local("dllog_path", options.dllog_path)
    if options.output:
        require_output_file("output", options.output)
    folders = find_runs(options.folders)
    if options.dllog_path and len(folders) > 1:
        parser.error("--dllog_path is for a single run")
    output = options.output or (
        os.path.join(folders[0], REPORT_FILE)
        if len(folders) == 1
        else "comparison.html"
    )
    write_report(output, folders, options.dllog_path)
    print(output)
