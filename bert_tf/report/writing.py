"""Writes pages about runs."""

import os
from collections.abc import Sequence

from bert_tf import __version__
from bert_tf.files import write_whole
from bert_tf.report.page import comparison_page, report_page
from bert_tf.report.run_files import read_run


def write_report(output: str, folders: Sequence[str], log_path: str = "") -> None:
    """Writes one page about runs, atomically.

    Args:
      output: The page; its folder is made if it is missing.
      folders: The --output_dir of each.
      log_path: See `read_run`.

    Raises:
      RunError: if a folder is not of a run.
      OSError: if the page cannot be written.
    """
    runs = [read_run(folder, log_path) for folder in folders]
    if len(runs) == 1:
        page = report_page(runs[0], __version__)
    else:
        page = comparison_page(runs, __version__)
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    write_whole(output, page)
