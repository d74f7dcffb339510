"""When the watchdog ends a process, and whom it names."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from bert_tf.jobs.run import watchdog
from bert_tf.jobs.run.watchdog import Watchdog


def ended(code, folder):
    """Runs a program with fast watchdogs; returns its exit code and errors."""
    begin = (
        "import sys, time\n"
        "from bert_tf.jobs.run import watchdog\n"
        "watchdog._TICK_SECONDS = watchdog._REPORT_SECONDS = 0.1\n"
        "Watchdog, folder = watchdog.Watchdog, sys.argv[1]\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", begin + code, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    return result.returncode, result.stderr


def test_a_worker_that_hangs_ends_with_its_stacks(tmp_path):
    code, text = ended(
        "dog = Watchdog(0.3, folder)\n"
        "dog.step_done(6)\n"
        "def stuck(): time.sleep(30)\n"
        "stuck()",
        tmp_path,
    )
    assert code == 70
    assert "error: worker 0 on this host: nothing has happened for" in text
    assert "in step 7 of the training. Its threads:" in text
    assert 'File "<string>", line 7 in stuck' in text


def test_the_workers_that_do_not_report_are_named(tmp_path):
    reports = tmp_path / ".watchdog"
    reports.mkdir()
    (reports / "2").write_text("c")
    code, text = ended(
        "dog = Watchdog(0.3, folder, 0, ['a', 'b', 'c'])\n"
        "dog.step_done(1)\n"
        "time.sleep(30)",
        tmp_path,
    )
    assert code == 70
    assert "error: no sign of worker 1 on b: stopped" in text
    assert (reports / "0").read_text() == "a"


def test_without_a_shared_folder_only_workers_of_the_same_host_are_blamed(tmp_path):
    start = "dog = Watchdog(0.3, folder, 0, {})\ndog.is_shared = False\n"
    wait = "dog.step_done(1)\ntime.sleep(30)"
    code, text = ended(start.format(["a", "a", "b"]) + wait, tmp_path)
    assert code == 70
    assert "error: no sign of worker 1 on a: stopped" in text and "2 on b" not in text
    code, text = ended(start.format(["c", "d"]) + wait, tmp_path)
    assert "error: all workers on c wait for another host. Which one" in text


def test_marks_keep_a_worker_alive_and_nothing_is_watched_before(tmp_path):
    code, text = ended(
        "dog = Watchdog(0.6, folder)\n"
        "time.sleep(1.0)\n"
        "for step in range(10): dog.step_done(step); time.sleep(0.1)\n"
        "dog.pause(); time.sleep(1.0); dog.close()",
        tmp_path,
    )
    assert (code, text) == (0, "")


def test_the_first_batch_of_an_evaluation_may_take_long(tmp_path):
    code, text = ended(
        "dog = Watchdog(0.5, folder)\n"
        "dog.step_done(1)\n"
        "with dog.paused():\n"
        "  for number in dog.watched(range(2)): time.sleep(1.0 - number)\n"
        "dog.close()",
        tmp_path,
    )
    assert (code, text) == (0, "")


def test_an_evaluation_that_hangs_ends(tmp_path):
    code, text = ended(
        "dog = Watchdog(0.3, folder)\n"
        "with dog.paused():\n"
        "  for number in dog.watched(range(2)): time.sleep(20.0 * number)\n",
        tmp_path,
    )
    assert code == 70 and "in batch 2 of an evaluation" in text


@pytest.mark.parametrize(
    "seconds, steps, limit",
    [
        (None, [], 600.0),
        (None, [1.0, 2.0, 900.0], 600.0),
        (None, [40.0, 50.0, 900.0], 1000.0),  # 20 times the median.
        (5.0, [40.0], 5.0),
    ],
)
def test_the_limit_follows_the_steps(seconds, steps, limit, monkeypatch):
    now = 0.0
    moments = [now := now + step for step in [0.0, *steps]]
    times = iter(moments)
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(watchdog.threading.Thread, "start", lambda self: None)
    dog = Watchdog(seconds)
    for step in range(len(moments)):
        dog.step_done(step)
    assert dog.limit == limit


def test_a_zero_turns_it_off():
    dog = Watchdog(0.0)
    dog.step_done(1)
    assert dog._thread is None


SILENT = "class Beats: count = 3\ndog = Watchdog(0.3, folder, 0, ['a', 'b'])\n"


def test_a_worker_ends_when_another_one_does_not_answer(tmp_path):
    code, text = ended(f"{SILENT}dog.follow(Beats())\ntime.sleep(30)", tmp_path)
    assert code == 70
    assert "error: worker 0 on a: other workers have not answered for" in text
    assert 'File "<string>"' in text
    assert "error: no sign of worker 1 on b: stopped" in text
    # With --skip_checkpoint there is none.
    assert "from the last checkpoint, if there is one." in text


def test_a_late_answer_ends_no_worker_while_all_report(tmp_path):
    (tmp_path / ".watchdog").mkdir()
    (tmp_path / ".watchdog" / "1").write_text("b")
    code, text = ended(f"{SILENT}dog.follow(Beats())\ntime.sleep(1)", tmp_path)
    assert (code, text) == (0, "")


def test_an_answer_that_comes_at_last_ends_no_worker(tmp_path):
    code, text = ended(
        f"{SILENT}watchdog._REPORT_SECONDS = 0.6\n"
        "dog.follow(Beats())\n"
        "for _ in range(2):\n"
        "  time.sleep(0.7)\n"
        "  Beats.count += 1",
        tmp_path,
    )
    assert (code, text) == (0, "")


def test_a_report_of_an_earlier_run_is_no_sign_of_a_worker(tmp_path):
    (tmp_path / ".watchdog").mkdir()
    report = tmp_path / ".watchdog" / "1"
    report.write_text("b")
    os.utime(report, (1, 1))
    code, text = ended(f"{SILENT}dog.follow(Beats())\ntime.sleep(30)", tmp_path)
    assert code == 70 and "no sign of worker 1 on b" in text


def test_workers_that_never_join_are_named(tmp_path):
    code, text = ended(
        "watchdog._LEAST_JOIN_SECONDS = 0.3\n"
        "with Watchdog(0.1, folder, 0, ['', '']).joining(): time.sleep(30)",
        tmp_path,
    )
    assert code == 70
    assert "error: worker 0: nothing has happened for" in text
    assert "in joining the other workers (MPI_Init)." in text
    assert "error: no sign of worker 1: stopped" in text


def test_what_is_computed_again_may_take_long(tmp_path):
    code, text = ended(
        "dog = Watchdog(0.4, folder)\n"
        "dog.step_done(1)\n"
        "with dog.paused(): time.sleep(1)\n"
        "time.sleep(30)",
        tmp_path,
    )
    assert code == 70  # Watched again after that.
    assert "nothing has happened for 0 s" in text
