"""The log of a run to its curves; it may be cut off, repeated, or of an old version."""

import array
import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping

import numpy as np

_PREFIX = b"DLLL "
# Of the start of a training: its first step.
FIRST_STEP = "first_step"
# Of a checkpoint that was saved: how long that took.
SAVE_SECONDS = "checkpoint_seconds"
# The entropy of the masked tokens of a pre-training: the loss without context.
ENTROPY = "masked_token_entropy"
# Lines of training steps, and only these, have it.
_OF_TRAINING = "learning_rate"
_EVALUATION = "eval_"
_LONGEST_LINE = 1_000_000
_LARGEST = 1e30


class Curve:
    """Values by step, in rising order of steps."""

    def __init__(self) -> None:
        self._steps = array.array("q")
        self._values = array.array("d")

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def steps(self) -> np.ndarray:
        """[n] int64."""
        return np.array(self._steps, np.int64)

    @property
    def values(self) -> np.ndarray:
        """[n] float64; NaN where a value was not finite, or too large to be drawn."""
        values = np.array(self._values, np.float64)
        with np.errstate(invalid="ignore"):
            values[~(np.abs(values) < _LARGEST)] = np.nan
        return values

    @property
    def last(self) -> float:
        """The last value."""
        return self._values[-1]

    def add(self, step: int, value: float) -> None:
        """Adds a point; one of the same step replaces the last."""
        self.cut(step)
        self._steps.append(step)
        self._values.append(value)

    def cut(self, step: int) -> None:
        """Drops the points from a step on."""
        while self._steps and self._steps[-1] >= step:
            self._steps.pop()
            self._values.pop()


@dataclasses.dataclass
class LogCurves:
    """What a log holds.

    Attributes:
      training: Name -> values of training steps.
      evaluation: Name -> values of evaluations.
      summary: Last values of the whole run.
      first_steps: Where each start of the run began.
      entropy: The value of `ENTROPY`; None if it is not logged.
      num_cut: Lines that cannot be read, such as the last one of a killed run.
      is_there: Whether there is a log.
    """

    training: dict[str, Curve] = dataclasses.field(default_factory=dict)
    evaluation: dict[str, Curve] = dataclasses.field(default_factory=dict)
    summary: dict[str, float] = dataclasses.field(default_factory=dict)
    first_steps: list[int] = dataclasses.field(default_factory=list)
    entropy: float | None = None
    num_cut: int = 0
    is_there: bool = False

    @property
    def last_step(self) -> int:
        """The last training step in the log; 0 without one."""
        ends = [curve.steps[-1] for curve in self.training.values() if len(curve)]
        return int(max(ends, default=0))

    @property
    def num_not_finite(self) -> int:
        """Logged training steps with a value that is not finite."""
        steps = [c.steps[np.isnan(c.values)] for c in self.training.values()]
        return len({step for each in steps for step in each.tolist()})


def read_log(path: str) -> LogCurves:
    """Reads a log in DLLogger's format; without a file, or of a pipe, nothing.

    A resumed run may repeat steps that a killed one had logged: the later lines count.
    """
    curves = LogCurves()
    if not os.path.isfile(path):
        return curves
    curves.is_there = True
    with open(path, "rb") as file:
        for line in _lines(file):
            if line.strip() and not _read_line(line, curves):
                curves.num_cut += 1
    return curves


def _lines(file: Iterable[bytes]) -> Iterable[bytes]:
    return (line if len(line) < _LONGEST_LINE else b"?" for line in file)


def _read_line(line: bytes, curves: LogCurves) -> bool:
    """Adds a line to the curves; returns whether it can be read."""
    if not line.startswith(_PREFIX):
        return False
    try:
        entry = json.loads(line[len(_PREFIX) :])
        if entry["type"] == "LOG":
            _add(entry["step"], _numbers(entry["data"]), curves)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return True


def _numbers(data: Mapping[str, object]) -> dict[str, float]:
    """The values that can be drawn."""
    found = {}
    for name, value in data.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            is_small = isinstance(value, float) or abs(value) < 2**63
            found[name] = float(value) if is_small else math.inf
    return found


def _add(step: object, values: dict[str, float], curves: LogCurves) -> None:
    """Adds the values of a line."""
    if step == "PARAMETER":
        first = values.get(FIRST_STEP)
        if first is not None and math.isfinite(first):
            if first == 1:  # Another run in the folder of this one.
                curves.first_steps.clear()
                curves.summary.clear()
            curves.first_steps.append(int(first))
            curves.entropy = values.get(ENTROPY)
            for curve in (*curves.training.values(), *curves.evaluation.values()):
                curve.cut(int(first))
    elif step == []:
        curves.summary |= values
        last = values.get("global_step", -1.0)
        # An evaluation after the last step, unless these are results of an earlier one.
        ends = [c.steps[-1] for c in curves.evaluation.values() if len(c)]
        if max(ends, default=-1) < last < 2**63:
            _add_points(curves.evaluation, int(last), values)
    elif isinstance(step, int) and 0 <= step < 2**63:
        if SAVE_SECONDS in values:
            return
        is_training = _OF_TRAINING in values
        group = curves.training if is_training else curves.evaluation
        _add_points(group, step, values)


def _add_points(group: dict[str, Curve], step: int, values: dict[str, float]) -> None:
    for name, value in values.items():
        group.setdefault(name.removeprefix(_EVALUATION), Curve()).add(step, value)


def decimate(
    steps: np.ndarray, values: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points, among them the extremes: a peak stays to be seen.

    Args:
      steps: [n].
      values: [n]; NaN for none.
      most: Even, at least 4.

    Returns:
      The steps and the values that are kept, with the first and the last point.
    """
    if len(steps) <= most:
        return steps, values
    bounds = np.linspace(1, len(steps) - 1, most // 2).astype(int)
    kept = [0, len(steps) - 1]
    for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
        part = values[begin:end]
        if np.isnan(part).all():
            kept.append(begin)
        elif len(part):
            kept += [begin + np.nanargmin(part), begin + np.nanargmax(part)]
    chosen = np.unique(kept)
    return steps[chosen], values[chosen]
