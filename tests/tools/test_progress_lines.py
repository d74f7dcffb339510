"""Lines while something takes long."""

import sys
import time

from tools.progress_lines import SECONDS, main, progress_lines


def test_a_line_is_printed_each_time_so_many_seconds_have_passed(capsys):
    with progress_lines("Building", seconds=0.02):
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 10
    assert {*lines} == {"Building: 0 s"}


def test_what_is_fast_prints_nothing(capsys):
    with progress_lines("Building"):
        pass
    assert capsys.readouterr().err == ""
    assert SECONDS <= 10


def test_a_command_keeps_its_output_and_its_exit_status(capfd):
    code = "print('/a/library.so'); raise SystemExit(3)"
    assert main(["Compiling", sys.executable, "-c", code]) == 3
    assert capfd.readouterr().out == "/a/library.so\n"
    assert main(["Compiling", "sh", "-c", "kill -9 $$"]) == 128 + 9
