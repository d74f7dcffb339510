"""Trackers of experiments: TensorBoard, and others through their packages.

A tracker that fails is left out from then on, with one warning: no training ends
because of it.
"""

import importlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

Settings = Mapping[str, bool | int | float | str]

TENSORBOARD_FOLDER = "tensorboard"
# MLflow takes so many parameters at once, and so long ones.
_MOST_PARAMETERS, _LONGEST_PARAMETER = 100, 500
_SECONDS_TO_CLOSE = 60.0


class Tracker(Protocol):
    """A run in some program that shows runs."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes values of a step, whose names are train/... or eval/..."""

    def close(self) -> None:
        """Ends the run."""


class TensorBoard:
    """Writes an event file: scalars, the settings as text and as hparams."""

    def __init__(
        self, folder: str, settings: Settings, text: str, first_step: int | None
    ) -> None:
        """Starts a file.

        Args:
          folder: The run's output_dir.
          settings: By name.
          text: About the run, Markdown.
          first_step: Points of earlier files from this step on are not shown; None
            without training.
        """
        import tensorflow as tf
        from tensorboard.compat.proto import event_pb2
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._event, self._scalar = event_pb2.Event, scalar_pb
        where = os.path.join(folder, TENSORBOARD_FOLDER)
        os.makedirs(where, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        path = os.path.join(where, f"{name}.{os.getpid()}.v2")
        self._writer = tf.io.TFRecordWriter(path)
        self._write(file_version="brain.Event:2")
        if first_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(first_step, session_log=start)
        step = max(0, (first_step or 0) - 1)
        self._write(step, summary=text_pb("run", text))
        self._write(step, summary=hparams_pb(dict(settings), trial_id="run"))
        self._writer.flush()

    def _write(self, step: int = 0, **content: object) -> None:
        event = self._event(wall_time=time.time(), step=step, **content)
        self._writer.write(event.SerializeToString())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._write(step, summary=self._scalar(name, value))
        self._writer.flush()

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases; offline unless WANDB_MODE says otherwise."""

    def __init__(self, folder: str, settings: Settings, text: str) -> None:
        """Starts a run, named as the folder."""
        self._run = importlib.import_module("wandb").init(
            project=os.environ.get("WANDB_PROJECT", "bert_tf"),
            name=_name_of(folder),
            dir=os.environ.get("WANDB_DIR", folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(settings),
            notes=text,
            settings={"console": "off"},
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        # Its own steps may only rise, and an evaluation follows the step's log line.
        self._run.log({"step": step, **values})

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


class MLflow:
    """A run of MLflow, in <output_dir>/mlflow.db unless MLFLOW_TRACKING_URI is set."""

    def __init__(self, folder: str, settings: Settings, text: str) -> None:
        """Starts a run, named as the folder."""
        # Its own reports of usage go to the network.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._package = package = importlib.import_module("mlflow")
        if "MLFLOW_TRACKING_URI" not in os.environ:
            path = os.path.join(os.path.abspath(folder), "mlflow.db")
            package.set_tracking_uri(f"sqlite:///{path}")
        if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
            package.set_experiment("bert_tf")
        self._run = package.start_run(run_name=_name_of(folder), description=text)
        items = [(n, str(x)[:_LONGEST_PARAMETER]) for n, x in settings.items()]
        for first in range(0, len(items), _MOST_PARAMETERS):
            package.log_params(dict(items[first : first + _MOST_PARAMETERS]))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._package.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """See `Tracker`."""
        # Not end_run, which knows the runs of its thread only.
        self._package.MlflowClient().set_terminated(self._run.info.run_id)


class Trackio:
    """A run of Trackio, on this machine unless TRACKIO_SPACE_ID is set."""

    def __init__(self, folder: str, settings: Settings, text: str) -> None:
        """Starts a run, named as the folder."""
        self._run = importlib.import_module("trackio").init(
            project=os.environ.get("TRACKIO_PROJECT", "bert_tf"),
            name=f"{_name_of(folder)} {time.strftime('%Y-%m-%d %H:%M:%S')}",
            config={**settings, "run": text},
            embed=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


_PACKAGES = {"mlflow": MLflow, "trackio": Trackio, "wandb": WandB}


def _name_of(folder: str) -> str:
    return os.path.basename(os.path.abspath(folder))


class Trackers:
    """All trackers of a run."""

    def __init__(self) -> None:
        """Without any."""
        self._trackers: dict[str, Tracker] = {}
        self._last_steps: dict[str, int] = {}

    def open(
        self,
        names: tuple[str, ...],
        folder: str,
        settings: Mapping[str, object],
        text: str,
        first_step: int | None,
    ) -> list[str]:
        """Starts trackers.

        Args:
          names: tensorboard, mlflow, trackio or wandb.
          folder: The run's output_dir.
          settings: Groups of them, or single ones, by name.
          text: About the run, Markdown.
          first_step: Of the training; None without one.

        Returns:
          A warning about each that cannot be started.
        """
        flat = flattened(settings)
        lines = []
        for name in names:

            def start(name: str = name) -> None:
                if name == "tensorboard":
                    tracker = TensorBoard(folder, flat, text, first_step)
                else:
                    tracker = _PACKAGES[name](folder, flat, text)
                self._trackers[name] = tracker

            lines += self._try(name, start)
        return lines

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> list[str]:
        """Passes values of a step on.

        Args:
          kind: train or eval; of each, steps must rise, others are left out: those of
            results that are logged again, such as those of the best weights.
          step: The step.
          values: By name.

        Returns:
          A warning about each tracker that is left out from now on.
        """
        if not self._trackers or self._last_steps.get(kind, -1) >= step:
            return []
        self._last_steps[kind] = step
        named = {
            f"{kind}/{name.removeprefix('eval_')}": float(value)
            for name, value in values.items()
        }
        lines = []
        for name, tracker in [*self._trackers.items()]:
            lines += self._try(name, lambda log=tracker.log: log(step, named))
        return lines

    def close(self, *, is_stopped: bool = False) -> list[str]:
        """Ends all of them; one that takes too long is left behind.

        Args:
          is_stopped: Whether a signal has stopped the run: then within a second.

        Returns:
          A warning about each that fails.
        """
        lines: list[str] = []

        def close_all() -> None:
            for name, tracker in [*self._trackers.items()]:
                lines.extend(self._try(name, tracker.close))

        if self._trackers:
            thread = threading.Thread(target=close_all, daemon=True)
            thread.start()
            thread.join(1.0 if is_stopped else _SECONDS_TO_CLOSE)
            if thread.is_alive():
                names = ", ".join(self._trackers)
                lines.append(f"warning: trackers ({names}) were not closed in time.")
        self._trackers = {}
        return lines

    def _try(self, name: str, act: Callable[[], Any]) -> list[str]:
        """Acts on a tracker, and drops it if that fails."""
        try:
            act()
        except (Exception, SystemExit) as error:
            self._trackers.pop(name, None)
            reason = " ".join(str(error).split())[:500] or type(error).__name__
            return [f"warning: {name} failed, and is no longer used: {reason}"]
        return []


def flattened(settings: Mapping[str, object]) -> dict[str, bool | int | float | str]:
    """Group -> name -> value as `group/name` -> value that any tracker takes."""
    flat: dict[str, bool | int | float | str] = {}
    for group, values in settings.items():
        members = values if isinstance(values, Mapping) else {"": values}
        for name, value in members.items():
            if isinstance(value, list | tuple):
                value = ",".join(map(str, value))
            is_plain = isinstance(value, bool | int | float | str)
            key = f"{group}/{name}" if name else group
            flat[key] = value if is_plain else str(value)
    return flat
