"""How a training ends at a signal: all workers leave, and the last step is saved.

A worker that is asked to stop begins no further micro-batch. The request travels with
the gradients of the step, which all workers then drop together. Others that are in a
long accumulation would not see it before its end: once a second the workers tell each
other whether they were asked.
"""

import contextlib
import itertools
import os
import threading
import traceback
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from bert_tf.distribute import Communicator
from bert_tf.errors import RunError, Stopped
from bert_tf.signals import StopRequest, write_error

_BEAT_SECONDS = 1.0
_LAST_BEAT_SECONDS = 0.01
# Numbers of the heartbeats in this process, the same on all workers: an earlier one, of
# a run that an error ended, may still be beating.
_NUMBERS = itertools.count(1)


class Heartbeat:
    """Tells all workers, once a second, that each is there, and who was asked to stop.

    Its sums are of integers: they never travel together with the gradients, whose
    rounding would then depend on the moment.
    """

    def __init__(
        self,
        communicator: Communicator,
        own_signal: Callable[[], int] = lambda: 0,
        react: Callable[[dict[int, int]], None] = lambda signals: None,
        name: str = "heartbeat",
    ) -> None:
        """Starts, where there are several workers.

        Args:
          communicator: The workers.
          own_signal: The signal that this worker has received; 0 for none.
          react: Is called once, with rank -> signal.
          name: Of its sums, with a number that no other heartbeat has.
        """
        self._count = 0
        self._communicator = communicator
        self._own_signal = own_signal
        self._react = react
        self._is_last = False
        self._wake = threading.Event()
        # In a graph: Horovod gives all its operations outside of graphs one name, and
        # would add this sum up with another one of the main thread.
        name = f"{name}.{next(_NUMBERS)}"
        self._sum = tf.function(
            lambda values: communicator.sum([values], name)[0], autograph=False
        )
        self._thread = threading.Thread(target=self._beat, daemon=True)
        if communicator.size > 1:
            self._thread.start()

    @property
    def count(self) -> int | None:
        """Beats so far; None where there are none, or no more."""
        return self._count if self._thread.is_alive() else None

    def hurry(self) -> None:
        """Does not wait for the next second."""
        self._wake.set()

    def end(self, *, wait: bool = True) -> None:
        """Ends in the beat in which all workers call this, and may `wait` for it."""
        self._is_last = True
        self.hurry()
        if wait and self._thread.is_alive():
            self._thread.join()

    def _beat(self) -> None:
        size, has_reacted = self._communicator.size, False
        while True:
            self._wake.wait(_LAST_BEAT_SECONDS if self._is_last else _BEAT_SECONDS)
            self._wake.clear()
            values = np.zeros(size + 1, np.int32)
            values[self._communicator.rank] = self._own_signal()
            values[size] = self._is_last
            try:
                sums = self._sum(tf.constant(values))
            except (tf.errors.OpError, RunError):
                return  # Another worker is lost: the next sum of the step says so.
            self._count += 1
            *signals, num_last = sums.numpy().tolist()
            asked = {rank: number for rank, number in enumerate(signals) if number}
            if asked and not has_reacted:
                has_reacted = True
                self._react(asked)
            if num_last == size:
                return


class TrainingStop:
    """Ends a training at a signal to any of its workers; a context manager.

    Up to the end of the first step nothing would be lost: a signal ends the process.
    From then on all workers end together, when the first one has saved.
    """

    def __init__(
        self,
        stop: StopRequest,
        communicator: Communicator,
        hosts: list[str],
        ask: Callable[[], None],
        save: Callable[[int], object],
        prepare_save: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepares for one training.

        Args:
          stop: The request that this worker may receive.
          communicator: The workers.
          hosts: Theirs, by rank.
          ask: Makes all workers leave a step; from any thread.
          save: Saves a step completely; on the first worker.
          prepare_save: Is called on all workers before that, or before an evaluation.
        """
        self._stop = stop
        self._communicator = communicator
        self._hosts = hosts
        self._ask = ask
        self._save = save
        self._prepare_save = prepare_save
        self._step = self._saved = 0
        self._must_stop = self._is_evaluating = False
        self._signals: dict[int, int] = {}
        self._heartbeat: Heartbeat | None = None
        self._reacting = contextlib.ExitStack()

    def __enter__(self) -> "TrainingStop":
        """Changes nothing: a signal in the first step ends the process."""
        return self

    def finished(self, step: int, *, must_stop: bool) -> None:
        """Notes a step, which from now on must not be lost."""
        self._step, self._must_stop = step, must_stop
        if self._heartbeat is None:
            self._reacting.enter_context(self._stop.reacting(self._react))
            self._heartbeat = Heartbeat(
                self._communicator, lambda: self._stop.number, self._hear
            )

    def dropped(self) -> None:
        """Notes that all workers have left the current step."""
        self._must_stop = True

    def saved(self, step: int) -> None:
        """Notes that the first worker has saved a step."""
        self._saved = step
        self._stop.has_saved = True
        self._stop.state = f"step {step} is saved"

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """In an evaluation the weights stay: the first worker saves them at once.

        Its main thread may be waiting for the others, and cannot be asked to.
        """
        self._prepare_save()
        with self._stop.writing:
            self._is_evaluating = True
        if self._stop.is_known:
            self._save_and_leave()
        try:
            yield
        finally:
            with self._stop.writing:
                self._is_evaluating = False

    def _react(self) -> None:
        """Reacts to this worker's signal, in a thread."""
        self._signals.setdefault(self._communicator.rank, self._stop.number)
        self._stop.is_known = True
        self._ask()
        if self._heartbeat:
            self._heartbeat.hurry()
        self._save_and_leave()

    def _hear(self, signals: dict[int, int]) -> None:
        """Reacts to other workers' signals, in the thread of the heartbeat."""
        self._signals = signals | self._signals
        self._stop.is_known = True
        self._ask()
        self._save_and_leave()

    def _save_and_leave(self) -> None:
        """Ends the process, if it is the first worker's and in an evaluation."""
        if self._communicator.rank:
            return
        with self._stop.writing:
            if not self._is_evaluating:
                return
            try:
                self._save_last_step()
                self._report(self._signals)
            except BaseException:
                traceback.print_exc()
                write_error(f"error: step {self._step} could not be saved.")
                os._exit(1)
            known = max(self._signals.values(), default=0)
            self._stop.number = self._stop.number or known
            os._exit(self._stop.code)

    def _save_last_step(self) -> None:
        if self._saved != self._step:
            self._save(self._step)
            self.saved(self._step)

    def _report(self, signals: dict[int, int]) -> None:
        self._stop.report({r: (n, self._hosts[r]) for r, n in signals.items()})

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Ends the training of all workers; after an error nothing is waited for.

        Raises:
          Stopped: if one of them was asked to.
          RunError: if the last step could not be saved; on the first worker.
          OtherWorkerFailed: then on the others.
        """
        if self._heartbeat is None:
            return
        if error is not None:
            self._heartbeat.end(wait=False)
            return
        if not self._must_stop:
            self._heartbeat.end()
            self._reacting.close()  # Raises Stopped if a signal came too late.
            return
        self._leave_together()
        raise Stopped

    def _leave_together(self) -> None:
        numbers = self._communicator.gather([self._stop.number])[:, 0].astype(int)
        failure = None
        if self._saved != self._step:
            self._prepare_save()
        if self._communicator.rank:
            self._stop.leave_report_to_the_first()
        else:
            try:
                self._save_last_step()
                self._report({r: int(n) for r, n in enumerate(numbers) if n})
            except (OSError, RunError, tf.errors.OpError) as caught:
                failure = caught
        # mpirun ends all workers when the first one leaves.
        self._communicator.agree(failure)
        self._heartbeat.end()
        # A run that saves nothing ends with the signal's code, whoever received it.
        self._stop.number = self._stop.number or int(numbers.max())
