"""What a run says before it begins."""

import pytest

from bert_tf.jobs import reporting


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """8 cores, and no variable that speaks of threads."""
    monkeypatch.setattr(reporting, "available_cores", lambda size: 8 // size)
    monkeypatch.setattr(reporting, "describe_cores", lambda: "8 cores")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_a_fair_share_is_not_warned_of():
    assert reporting.thread_warnings(4, None, 2) == []


def test_more_threads_than_cores_are_warned_of():
    [line] = reporting.thread_warnings(8, 8, 2)
    assert line.startswith("warning: 8 threads are more than the 4 ")
    assert "(2 workers here, 8 cores)" in line


def test_a_variable_that_tensorflow_does_not_read_is_said(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    [line] = reporting.thread_warnings(4, None, 2)
    assert line.startswith("OMP_NUM_THREADS=2 has no effect")
    assert reporting.thread_warnings(3, 3, 2) == []  # The flag is the user's answer.
    assert reporting.thread_warnings(2, None, 4) == []  # It happens to be so.
