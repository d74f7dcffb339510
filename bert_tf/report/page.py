"""A page about a run, or one that compares several: HTML without anything to fetch."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from bert_tf.errors import one_line, shortened
from bert_tf.report.drawing import Line, bar_chart, line_chart
from bert_tf.report.log_curves import Curve, decimate
from bert_tf.report.run_files import RunFiles

# Points of all curves of a page together, and of one: 20 bytes each.
_MOST_POINTS, _MOST_POINTS_OF_A_CURVE = 15_000, 600
_LONGEST_VALUE = 400
_LONGEST_UNBROKEN = 30  # Characters of a cell that is as wide as its longest word.
_MOST_CLASSES = 20
_MOST_ROWS = 400
# Name of a chart -> its title, and the training and the evaluation values in it. The
# first of the names in a pair that is there is taken: they are the same number.
_CHARTS: dict[str, tuple[str, tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "loss": (
        "Losses (nats)",
        (("total_loss", "loss"), ("mlm_loss",), ("nsp_loss",)),
        ("loss", "masked_lm_loss", "next_sentence_loss"),
    ),
    "accuracy": (
        "Accuracies and scores",
        (),
        (
            *("masked_lm_accuracy", "next_sentence_accuracy"),
            *("accuracy", "f1", "exact_match", "matthews_correlation"),
            *("pearson", "spearman", "mismatched_accuracy"),
        ),
    ),
    "learning_rate": ("Learning rate", (("learning_rate",),), ()),
    "gradient_norm": ("Gradient norm before clipping", (("gradient_norm",),), ()),
    "throughput": ("Throughput (sequences/s)", (("throughput_train",),), ()),
    "loss_scale": ("Loss scale", (("loss_scaler",),), ()),
}
# Nothing is fetched and no script runs, whatever a run's files hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1180px;
  padding: 0 1em; color: #222; background: #fff }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin: 1.6em 0 .4em }
.charts { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)) }
.charts svg { width: 100%; height: auto }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: .92em; margin: .3em 0 }
td, th { border-bottom: 1px solid #ddd; padding: 2px 12px 2px 0; text-align: left;
  vertical-align: top }
.long { min-width: 14em; overflow-wrap: anywhere }
th { font-weight: 600 } td.number, th.number { text-align: right; white-space: nowrap }
.confusion td, .confusion th { text-align: right; padding: 3px 8px }
pre { background: #f4f4f4; padding: .7em; white-space: pre-wrap;
  overflow-wrap: anywhere }
.note { color: #7a4b00 } summary { cursor: pointer; font-weight: 600 }
footer { color: #777; margin-top: 2em; font-size: .85em }
"""


def report_page(run: RunFiles, version: str) -> str:
    """The page about one run.

    Args:
      run: The files of the run.
      version: The version of this library.
    """
    body = [
        _notes(run.notes),
        _part("Results", _table(_shown_results(run), "number")),
        _part("Learning curves", _charts([run])),
        _part("Data", _data(run.data)),
        _part("Confusion matrix", _confusion(run.details.get("confusion"))),
        _part("Hardest examples", _hardest(run.details.get("hardest"))),
        _part("Settings", _settings(run.settings)),
        _part("Environment", _table(run.environment)),
        _part("Command", _command(run.command)),
    ]
    steps = f", step {run.curves.last_step:,}" if run.curves.last_step else ""
    return _page(f"{run.name}{steps}", body, version)


def comparison_page(runs: Sequence[RunFiles], version: str) -> str:
    """The page that compares runs.

    Args:
      runs: The files of each run, at least two.
      version: The version of this library.
    """
    names = _names(runs)
    results = [_shown_results(run) for run in runs]
    settings = [
        {
            f"{group}.{name}": value
            for group, values in run.settings.items()
            for name, value in values.items()
        }
        | {f"environment.{name}": value for name, value in run.environment.items()}
        for run in runs
    ]
    body = [
        *(
            _notes([f"{name}: {note}" for note in run.notes])
            for name, run in zip(names, runs, strict=True)
        ),
        _part("Results", _columns(names, results, "number")),
        _part("Learning curves", _charts(runs)),
        _part("Settings that differ", _columns(names, settings, differing=True)),
    ]
    return _page(f"{len(runs)} runs", body, version)


def _names(runs: Sequence[RunFiles]) -> list[str]:
    """Names of runs that differ: of two equal ones the whole paths."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else one_line(run.folder)
        for name, run in zip(names, runs, strict=True)
    ]


def _page(title: str, body: Iterable[str], version: str) -> str:
    title = _text(title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{''.join(body)}"
        f"<footer>bert_tf {_text(version)}</footer>\n</body>\n</html>\n"
    )


def _part(title: str, content: str) -> str:
    return f"<h2>{title}</h2>\n{content}\n" if content else ""


def _text(value: object) -> str:
    """A value as HTML: nothing in it is markup."""
    if isinstance(value, float):
        value = f"{value:.6g}"
    elif isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return (
        escape(shortened(one_line(str(value)), _LONGEST_VALUE)) if value != "" else ""
    )


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="note">{_text(note)}</p>\n' for note in notes)


def _table(values: Mapping[str, Any], kind: str = "") -> str:
    rows = [
        f"<tr><th>{_text(name)}</th>{_cell(_text(value), kind)}</tr>"
        for name, value in values.items()
    ]
    return _rows(rows) if rows else ""


def _cell(text: str, kind: str = "", tag: str = "td") -> str:
    kind = "long" if len(text) > _LONGEST_UNBROKEN else kind
    return f'<{tag} class="{kind}">{text}</{tag}>' if kind else f"<{tag}>{text}</{tag}>"


def _rows(rows: Sequence[str], kind: str = "") -> str:
    """A table, which scrolls where it is wider than the page; the first rows."""
    content = _lines(rows[:_MOST_ROWS])
    return f'<div class="table"><table class="{kind}">\n{content}</table></div>'


def _lines(rows: Iterable[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def _columns(
    names: Sequence[str],
    columns: Sequence[Mapping[str, Any]],
    kind: str = "",
    *,
    differing: bool = False,
) -> str:
    """A table with a column for each run; of those rows alone that `differing` asks."""
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = []
    for key in keys:
        cells = [_text(column.get(key, "")) for column in columns]
        if not differing or len({*cells}) > 1:
            marked = "".join(_cell(cell, kind) for cell in cells)
            rows.append(f"<tr><th>{_text(key)}</th>{marked}</tr>")
    if not rows:
        return "<p>None.</p>" if differing else ""
    heads = "".join(_cell(_text(name), kind, "th") for name in names)
    return _rows([f"<tr><th></th>{heads}</tr>", *rows])


def _shown_results(run: RunFiles) -> dict[str, Any]:
    """The results, and before them the last losses of the training."""
    last = {
        f"last {name}": curve.last
        for name in ("total_loss", "loss", "mlm_loss", "nsp_loss")
        if (curve := run.curves.training.get(name))
    }
    if "last total_loss" in last:
        last.pop("last loss", None)
    return last | dict(run.results)


def _charts(runs: Sequence[RunFiles]) -> str:
    """The charts that have a point."""
    names = _names(runs)
    found: dict[str, list[tuple[str, Curve, str, int]]] = {}
    for name, (_, training, evaluation) in _CHARTS.items():
        for number, (title, run) in enumerate(zip(names, runs, strict=True)):
            prefix = f"{title}: " if len(runs) > 1 else ""
            own = found.setdefault(name, [])
            for group in training:
                if key := next((k for k in group if k in run.curves.training), None):
                    own.append((prefix + key, run.curves.training[key], "", number))
            for key in (key for key in evaluation if key in run.curves.evaluation):
                label = f"{prefix}{key} (evaluation)"
                own.append((label, run.curves.evaluation[key], "is_sparse", number))
            if name == "loss" and (limit := _entropy_curve(run)):
                label = f"{prefix}masked LM without context"
                own.append((label, limit, "is_dashed", number))
    count = sum(map(len, found.values()))
    most = min(_MOST_POINTS_OF_A_CURVE, _MOST_POINTS // max(count, 1)) // 2 * 2
    ends = [
        step
        for curves in found.values()
        for _, curve, *_ in curves
        if len(curve)
        for step in curve.steps[[0, -1]].tolist()
    ]
    steps = (min(ends, default=0), max(ends, default=0))
    charts = [
        line_chart(name, _CHARTS[name][0], _drawn(curves, max(most, 4)), steps)
        for name, curves in found.items()
        if any(np.isfinite(curve.values).any() for _, curve, *_ in curves)
    ]
    return f'<div class="charts">\n{_lines(charts)}</div>' if charts else ""


def _entropy_curve(run: RunFiles) -> Curve | None:
    """The loss of a masked LM without context, over the steps of the run."""
    losses = run.curves.training.get("mlm_loss")
    if not losses or run.curves.entropy is None:
        return None
    curve = Curve()
    for step in losses.steps[[0, -1]].tolist():
        curve.add(step, run.curves.entropy)
    return curve


def _drawn(curves: Sequence[tuple[str, Curve, str, int]], most: int) -> list[Line]:
    return [
        Line(
            label,
            *decimate(curve.steps, curve.values, most),
            run=run,
            **({style: True} if style else {}),
        )
        for label, curve, style, run in curves
        if len(curve)
    ]


def _data(data: Mapping[str, Any]) -> str:
    """Facts about the training set, and how long its sequences are."""
    lengths = data.get("lengths")
    table = _table({n: x for n, x in data.items() if n != "lengths"})
    is_list = isinstance(lengths, list)
    if not is_list or not all(isinstance(x, int) and 0 <= x < 2**53 for x in lengths):
        return table
    if not sum(lengths):
        return table
    counts = np.array(lengths, np.int64)
    chart = bar_chart("Lengths of sequences", counts, "tokens", "sequences")
    return f'{table}\n<div class="charts">{chart}</div>'


def _confusion(confusion: object) -> str:
    """How often each class is taken for each; of many classes the worst pairs."""
    if not isinstance(confusion, dict):
        return ""
    names, counts = confusion.get("classes"), confusion.get("counts")
    try:
        table = np.array(counts, np.int64)
    except (TypeError, ValueError, OverflowError):
        return ""
    if not isinstance(names, list) or table.shape != (len(names), len(names)):
        return ""
    if len(names) > _MOST_CLASSES:
        return _worst_pairs(names, table)
    heads = "".join(f"<th>{_text(name)}</th>" for name in names)
    rows = [f"<tr><th>true \\ predicted</th>{heads}</tr>"]
    for name, row in zip(names, table.tolist(), strict=True):
        total = max(sum(row), 1)
        cells = "".join(
            f'<td style="background: rgba(31, 119, 180, {0.6 * count / total:.2f})">'
            f"{count:,}</td>"
            for count in row
        )
        rows.append(f"<tr><th>{_text(name)}</th>{cells}</tr>")
    return _rows(rows, "confusion")


def _worst_pairs(names: Sequence[object], table: np.ndarray) -> str:
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CLASSES]
    pairs = [divmod(int(i), len(names)) for i in order if wrong.flat[i]]
    values = {f"{names[t]} taken for {names[p]}": int(table[t, p]) for t, p in pairs}
    return _table(values, "number")


def _hardest(examples: object) -> str:
    """Rows of an example each."""
    if not isinstance(examples, list) or not examples:
        return ""
    rows = [row for row in examples if isinstance(row, dict)]
    keys = dict.fromkeys(key for row in rows for key in row)
    heads = "".join(f"<th>{_text(key)}</th>" for key in keys)
    lines = ["".join(_cell(_text(row.get(key, ""))) for key in keys) for row in rows]
    return _rows([f"<tr>{cells}</tr>" for cells in (heads, *lines)])


def _settings(groups: Mapping[str, Mapping[str, Any]]) -> str:
    return _lines(
        f"<details><summary>{_text(group)}</summary>\n{_table(values)}</details>"
        for group, values in groups.items()
        if values
    )


def _command(command: str) -> str:
    """A line that can be pasted: escaped, but never cut."""
    if not command:
        return ""
    return (
        f"<pre>{escape(command)}</pre>\n<p>In the same --output_dir it resumes; pass "
        "another one to repeat the run.</p>"
    )
