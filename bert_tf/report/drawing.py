"""Charts as SVG for an HTML page: no script, font or file from elsewhere."""

import collections
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

from bert_tf.errors import one_line, shortened

_WIDTH, _HEIGHT = 5.6, 2.9  # Inches of 72 points; without the legend.
_LEGEND_ROW, _LEGEND_MARGIN = 0.145, 0.08  # Inches.
# Characters of a label.
_LONGEST_LABEL, _LONGEST_IN_TWO_COLUMNS = 75, 34
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
}
_ABOVE, _BELOW = 0.29, 0.49  # Inches for the title, and for the labels of the steps.


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
      label: What it is; empty for none.
      steps: [n].
      values: [n]; NaN where there is none.
      is_sparse: Whether each point is marked.
      is_dashed: Whether it is a limit, not a measurement.
      run: Of several runs, the number of the one that it belongs to.
    """

    label: str
    steps: np.ndarray
    values: np.ndarray
    is_sparse: bool = False
    is_dashed: bool = False
    run: int = 0


@contextlib.contextmanager
def _empty_chart(title: str, num_legend_rows: int = 0) -> Iterator[Any]:
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
            below = num_legend_rows * _LEGEND_ROW
            below += _LEGEND_MARGIN if below else 0
            height = _HEIGHT + below
            axes = Figure(figsize=(_WIDTH, height)).subplots()
            axes.figure.subplots_adjust(
                bottom=(_BELOW + below) / height, top=1 - _ABOVE / height
            )
            axes.set_title(one_line(title), loc="left", fontsize=10)
            yield axes
        finally:
            logger.setLevel(logging.ERROR)


def line_chart(
    name: str, title: str, lines: Sequence[Line], steps: tuple[int, int]
) -> str:
    """Lines by step, with the legend below, where it hides none of them.

    Args:
      name: For ids: line i is a group with the id `<name>-<i>`.
      title: Stands above the chart, and is read out to those who cannot see it.
      lines: At least one point each.
      steps: The first and the last of the axis, the same for all charts of a page.

    Returns:
      An <svg> element.
    """
    labels = [shortened(one_line(line.label), _LONGEST_LABEL) for line in lines]
    is_narrow = max(map(len, labels)) <= _LONGEST_IN_TWO_COLUMNS
    num_columns = 2 if is_narrow else 1
    num_rows = math.ceil(len(lines) / num_columns) if len(lines) > 1 else 0
    with _empty_chart(title, num_rows) as axes:
        for number, (line, look) in enumerate(zip(lines, _looks(lines), strict=True)):
            colour, form = look
            is_marked = line.is_sparse or np.isfinite(line.values).sum() == 1
            [drawn] = axes.plot(
                line.steps,
                line.values,
                label=labels[number],
                color=f"C{colour}",
                linewidth=1.2,
                marker="os^Dv"[form % 5] if is_marked else "",
                markersize=3,
                linestyle=(0, (8, 4))
                if line.is_dashed
                else ("-", "--", ":", "-.")[form % 4],
            )
            drawn.set_gid(f"{name}-{number}")
        axes.set_xlabel("step")
        if axes.get_ylim()[1] < 1e-3:  # 0.000030 is cut off at the left.
            axes.yaxis.set_major_formatter("{x:g}")
        first, last = steps
        if first < last:
            margin = 0.03 * (last - first)
            axes.set_xlim(first - margin, last + margin)
        if num_rows:
            axes.figure.legend(
                loc="lower left",
                ncols=num_columns,
                fontsize=8,
                frameon=False,
                borderaxespad=0.2,
                labelspacing=0.3,
            )
        return _svg(axes.figure, title)


def _looks(lines: Sequence[Line]) -> list[tuple[int, int]]:
    """Colour and form of each line: of several runs, each has a colour."""
    if len({line.run for line in lines}) == 1:
        return [(number, number // 10) for number in range(len(lines))]
    seen = collections.Counter()
    looks = []
    for line in lines:
        looks.append((line.run, seen[line.run]))
        seen[line.run] += 1
    return looks


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
