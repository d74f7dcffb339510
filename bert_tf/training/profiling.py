"""A trace of some optimizer steps, and the operations that took longest."""

import collections
import glob
import os

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

# Events of the executor that are named like operations.
_OF_THE_EXECUTOR = ("Process", "Run")
_SHOWN = 20


class StepProfiler:
    """Traces the steps from `first` to `last`, both included."""

    def __init__(self, steps: str, directory: str) -> None:
        """Starts nothing yet.

        Args:
          steps: Two steps X,Y with 1 <= X <= Y; empty for none.
          directory: Gets the trace, for TensorBoard.
        """
        self._first, self._last = map(int, steps.split(",")) if steps else (0, 0)
        self._directory = directory
        self._is_on = False

    def check(self, first_step: int, last_step: int) -> list[str]:
        """A warning if the first step to trace is not among the steps of this run."""
        if not self._first or first_step <= self._first <= last_step:
            return []
        return [
            f"warning: nothing is traced: step {self._first} of `profile` is not among "
            f"this run's steps, {first_step} to {last_step}."
        ]

    def before(self, step: int) -> None:
        """Starts the trace if the next step is the first to trace."""
        if step == self._first:
            tf.profiler.experimental.start(self._directory)
            self._is_on = True

    def after(self, step: int, *, is_last: bool) -> list[str]:
        """Ends the trace after its last step, or the last step of the run.

        Args:
          step: The step that was taken.
          is_last: Whether the run ends with it.

        Returns:
          Lines of a table of operations; none during the trace.
        """
        if not self._is_on or not (step == self._last or is_last):
            return []
        tf.profiler.experimental.stop()
        self._is_on = False
        return [
            f"Trace of steps {self._first} to {step}: {self._directory}",
            *operation_table(self._directory),
        ]


def operation_table(directory: str) -> list[str]:
    """The operations of the newest trace in `directory`, by total time.

    Operations run at the same time: the sum may be more than the time of the steps.
    """
    pattern = os.path.join(directory, "plugins/profile/*/*.xplane.pb")
    space = xplane_pb2.XSpace()
    with open(max(glob.glob(pattern), key=os.path.getmtime), "rb") as file:
        space.ParseFromString(file.read())
    seconds: collections.Counter[str] = collections.Counter()
    counts: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                # Operations are traced as "name:Type"; other events are not one.
                name, colon, kind = names[event.metadata_id].rpartition(":")
                is_operation = colon and name and kind.isidentifier()
                if is_operation and kind not in _OF_THE_EXECUTOR:
                    seconds[kind] += event.duration_ps / 1e12
                    counts[kind] += 1
    lines = [f"{'seconds':>10} {'calls':>7}  operation"]
    for kind, total in seconds.most_common(_SHOWN):
        lines.append(f"{total:10.3f} {counts[kind]:7}  {kind}")
    return lines
