"""Worker processes, and signals that come while they are started."""

import concurrent.futures.process

import pytest

from bert_tf.data.processes import in_order


def test_results_are_in_the_order_of_the_work():
    squares = in_order(pow, ((n, 2) for n in range(6)), 2)
    assert list(squares) == [0, 1, 4, 9, 16, 25]


def test_a_signal_while_the_pool_is_started_ends_the_program(monkeypatch):
    """SIGTERM raises SystemExit wherever the program is, as before this call."""

    def interrupted(thread):
        raise SystemExit(143)

    thread = concurrent.futures.process._ExecutorManagerThread
    monkeypatch.setattr(thread, "start", interrupted)
    with pytest.raises(SystemExit):
        next(in_order(pow, [(2, 2), (3, 2)], 2))
