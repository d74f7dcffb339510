"""Which step is saved, and when workers leave, after a signal."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from bert_tf.distribute import Communicator
from bert_tf.errors import RunError, Stopped
from bert_tf.jobs.run import stopping
from bert_tf.jobs.run.stopping import Heartbeat, TrainingStop
from bert_tf.signals import StopRequest


class Pair(Communicator):
    """One of two workers that are threads of this process."""

    size = 2

    def __init__(self, rank, barrier, values):
        self.rank, self._barrier, self._values = rank, barrier, values
        self.names = set()

    def sum(self, tensors, name):
        self.names.add(name)

        def add_up(values):
            self._values[self.rank] = values
            self._barrier.wait(10)
            total = self._values[0] + self._values[1]
            self._barrier.wait(10)
            return total

        return [tf.numpy_function(add_up, tensors, tensors[0].dtype)]


def test_a_signal_of_one_worker_is_heard_by_both():
    barrier, values = threading.Barrier(2), [None, None]
    heard = [[], []]
    beats = [
        Heartbeat(
            Pair(rank, barrier, values),
            lambda rank=rank: signal.SIGTERM if rank else 0,
            heard[rank].append,
        )
        for rank in range(2)
    ]
    for beat in beats:
        beat.hurry()
    ends = [threading.Thread(target=beat.end) for beat in beats]
    for end in ends:
        end.start()
    for end in ends:
        end.join(10)
    assert heard == [[{1: signal.SIGTERM}], [{1: signal.SIGTERM}]]
    assert not any(end.is_alive() for end in ends)


def test_the_heartbeat_of_a_failed_training_ends_and_shares_no_sum_with_the_next():
    barrier, values = threading.Barrier(2), [None, None]
    workers = [Pair(rank, barrier, values) for rank in range(2)]
    before = threading.active_count()
    for _ in range(2):
        trainings = [
            TrainingStop(StopRequest(), worker, ["here"] * 2, lambda: None, print)
            for worker in workers
        ]
        for training in trainings:
            training.finished(1, must_stop=False)
        for training in trainings:
            training.__exit__(RunError, RunError("not finite"), None)
        for _ in range(1000):
            if threading.active_count() <= before:
                break
            time.sleep(0.01)
        assert threading.active_count() <= before
    assert len(workers[0].names | workers[1].names) == 4


def test_a_single_worker_has_no_heartbeat():
    before = threading.active_count()
    Heartbeat(Communicator(), lambda: 0, lambda signals: None).end()
    assert threading.active_count() == before


@pytest.fixture
def training(capfd):
    """A training that notes what it is asked, and its request, receiving signals."""

    class Training:
        def __init__(self):
            self.asked, self.saved = threading.Event(), []
            self.request = StopRequest(resumes=True)
            self.error = None
            self.stop = TrainingStop(
                self.request, Communicator(), ["here"], self.asked.set, self.save
            )

        def save(self, step):
            if self.error:
                raise self.error
            self.saved.append(step)

        def hit(self):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert self.asked.wait(10)

        def line(self):
            return capfd.readouterr().err

    training = Training()
    with training.request.received():
        yield training


def test_the_step_that_is_finished_is_saved(training):
    with pytest.raises(Stopped), training.stop as stop:
        stop.finished(3, must_stop=False)
        training.hit()
        stop.finished(4, must_stop=True)
    assert training.saved == [4]
    assert training.line().startswith("Stopped by SIGUSR1: step 4 is saved. ")


def test_a_dropped_step_is_not_saved(training):
    with pytest.raises(Stopped), training.stop as stop:
        stop.finished(3, must_stop=False)
        training.hit()
        stop.dropped()
    assert training.saved == [3]


def test_a_saved_step_is_not_saved_again(training):
    with pytest.raises(Stopped), training.stop as stop:
        stop.finished(3, must_stop=False)
        stop.saved(3)
        training.hit()
        stop.dropped()
    assert training.saved == []
    assert "step 3 is saved" in training.line()


def test_a_save_that_fails_is_an_error(training):
    training.error = OSError("disk full")
    with pytest.raises(RunError, match="disk full"), training.stop as stop:
        stop.finished(3, must_stop=False)
        training.hit()
        stop.dropped()
    assert "Stopped" not in training.line()


def test_a_signal_after_the_last_step_ends_the_process_too(training):
    with pytest.raises(Stopped), training.stop as stop:
        stop.finished(3, must_stop=False)
        stop.saved(3)
        training.hit()
    assert training.saved == []


def test_in_an_evaluation_the_last_step_is_saved_at_once(training, monkeypatch):
    left = threading.Event()
    codes = []

    def leave(code):
        codes.append(code)
        left.set()

    monkeypatch.setattr(stopping.os, "_exit", leave)
    with pytest.raises(Stopped), training.stop as stop:
        stop.finished(3, must_stop=False)
        with stop.evaluating():
            training.hit()
            assert left.wait(10)
    assert training.saved == [3] and codes == [75]


def test_an_error_is_not_held_up(training):
    begin = time.monotonic()
    with pytest.raises(ZeroDivisionError), training.stop as stop:
        stop.finished(3, must_stop=False)
        raise ZeroDivisionError
    assert time.monotonic() - begin < 1.0 and not training.saved
    assert np.all(training.request.number == 0)


def test_what_a_save_needs_is_prepared_before_it_and_before_an_evaluation():
    done = []
    stop = TrainingStop(
        *(StopRequest(), Communicator(), ["here"], lambda: None, done.append),
        prepare_save=lambda: done.append("prepared"),
    )
    with pytest.raises(Stopped), stop:
        stop.finished(3, must_stop=False)
        with stop.evaluating():
            assert done == ["prepared"]
        stop.dropped()
    assert done == ["prepared", "prepared", 3]
