"""Throughput and latency of given durations."""

import time

import numpy as np
import pytest

from bert_tf.evaluation.speed import BatchTimes, describe_speed, speed_of

SECONDS = [0.010 * n for n in range(1, 101)]  # 10 ms, 20 ms, ... 1 s


def test_latencies_are_mean_and_percentiles_of_all_batches():
    shuffled = np.random.default_rng(3).permutation(SECONDS).tolist()
    workers = [BatchTimes(shuffled[:30], 30), BatchTimes(shuffled[30:], 70)]
    speed = speed_of(workers)
    assert speed["latency_mean"] == pytest.approx(505.0)
    for level in (50, 95, 99):
        expected = 1e3 * np.percentile(SECONDS, level)
        assert speed[f"latency_p{level}"] == pytest.approx(expected)
    # Between the 99th and the 100th value, by hand.
    assert speed["latency_p99"] == pytest.approx(990.1)


def test_throughput_is_the_sum_of_the_workers():
    """8 sequences/s on the first, 3 on the second; the third measured nothing."""
    workers = [BatchTimes([0.5, 1.5], 16), BatchTimes([1.0], 3), BatchTimes([], 0, 1)]
    assert speed_of(workers)["throughput_val"] == pytest.approx(11.0)


def test_batches_that_trace_are_left_out():
    times, traces = BatchTimes(), [0]
    for number in range(4):
        with times.measured(5, lambda: traces[0]):
            time.sleep(0.001)
            traces[0] += number in (0, 2)
    assert (times.num_traced, times.num_sequences) == (2, 10)
    assert len(times.seconds) == 2 and min(times.seconds) >= 0.001


def test_lines_have_the_names_of_the_published_script_and_what_is_left_out():
    workers = [BatchTimes([0.25, 0.75], 16, 1), BatchTimes([0.5], 4, 1)]
    first, *lines = describe_speed("prediction of dev", workers, 8)
    assert first == (
        "Speed of prediction of dev: 20 sequences in 3 batches of 8 on 2 workers; "
        "left out: 2 batches, which traced the model."
    )
    assert dict(line.split(" = ") for line in lines) == {
        "Throughput Average (sentences/sec)": "24.00",
        "Latency Average (ms)": "500.00",
        "Latency Confidence Level 50 (ms)": "500.00",
        "Latency Confidence Level 95 (ms)": "725.00",
        "Latency Confidence Level 99 (ms)": "745.00",
    }


def test_without_a_measured_batch_there_are_no_figures():
    workers = [BatchTimes([], 0, 1)]
    assert speed_of(workers) == {}
    [line] = describe_speed("prediction", workers, 8)
    assert "not measured, as none is left after 1 batch, which traced" in line
