"""Charts as SVG for an HTML page: no script, font or file from elsewhere."""

import contextlib
import dataclasses
import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np

from bert_tf.errors import one_line

_SIZE = (5.6, 2.9)  # Inches of 72 points.
_SETTINGS = {
    "svg.fonttype": "none",  # Text stays text: small, and the browser's own font.
    "svg.hashsalt": "bert_tf",  # The same data make the same file.
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.0,
    "path.simplify": False,
    "text.parse_math": False,  # A name may hold a $.
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    # Room for labels; finding it for each chart would take twice as long.
    "figure.subplot.left": 0.12,
    "figure.subplot.right": 0.98,
    "figure.subplot.top": 0.9,
    "figure.subplot.bottom": 0.17,
}


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
      label: What it is; empty for none.
      steps: [n].
      values: [n]; NaN where there is none.
      is_sparse: Whether each point is marked.
      is_dashed: Whether it is a limit, not a measurement.
    """

    label: str
    steps: np.ndarray
    values: np.ndarray
    is_sparse: bool = False
    is_dashed: bool = False


@contextlib.contextmanager
def _empty_chart(title: str) -> Iterator[Any]:
    """Axes under our settings of Matplotlib, not the user's, and without its notes."""
    logger = logging.getLogger("matplotlib")
    logger.setLevel(logging.ERROR)  # It has notes when it is loaded, too.
    import matplotlib
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        logger.setLevel(logging.CRITICAL)
        try:
            axes = Figure(figsize=_SIZE).subplots()
            axes.set_title(one_line(title), loc="left", fontsize=10)
            yield axes
        finally:
            logger.setLevel(logging.ERROR)


def line_chart(name: str, title: str, lines: Sequence[Line]) -> str:
    """Lines by step.

    Args:
      name: For ids: line i is a group with the id `<name>-<i>`.
      title: Stands above the chart, and is read out to those who cannot see it.
      lines: At least one point each.

    Returns:
      An <svg> element.
    """
    with _empty_chart(title) as axes:
        for number, line in enumerate(lines):
            is_marked = line.is_sparse or np.isfinite(line.values).sum() == 1
            [drawn] = axes.plot(
                line.steps,
                line.values,
                label=one_line(line.label),
                linewidth=1.2,
                marker="o" if is_marked else "",
                markersize=3,
                linestyle="--"
                if line.is_dashed
                else ("-", "--", ":", "-.")[number // 10 % 4],
            )
            drawn.set_gid(f"{name}-{number}")
        axes.set_xlabel("step")
        if len(lines) > 1:
            axes.legend(fontsize=7 if len(lines) < 8 else 5, framealpha=0.6)
        return _svg(axes.figure, title)


def bar_chart(title: str, counts: np.ndarray, x_label: str, y_label: str) -> str:
    """Counts by a whole number, in at most 64 bars.

    Args:
      title: See `line_chart`.
      counts: [n]; entry i is the count of the number i.
      x_label: What the numbers are.
      y_label: What is counted.

    Returns:
      An <svg> element.
    """
    width = max(1, math.ceil(len(counts) / 64))
    padded = np.pad(counts, (0, -len(counts) % width))
    heights = padded.reshape(-1, width).sum(axis=1)
    with _empty_chart(title) as axes:
        axes.bar(np.arange(len(heights)) * width, heights, width * 0.9, align="edge")
        axes.set(xlabel=x_label, ylabel=y_label)
        return _svg(axes.figure, title)


def _svg(figure: object, title: str) -> str:
    """A figure as an element, without the header of a file."""
    file = io.StringIO()
    none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=none)
    _, _, content = file.getvalue().partition("<svg ")
    label = escape(one_line(title), quote=True)
    return f'<svg role="img" aria-label="{label}" {content}'
