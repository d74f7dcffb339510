"""Figures that the fault tests end with: how many attempts kept a promise."""

import collections

import pytest


@pytest.fixture
def figure(record_property):
    """Records how many attempts kept a promise; checks that all of them did.

    Call it once, at the end of a test: figure("killed and resumed", kept, attempts).
    Figures of the same promise are added up. `note` is for a measured value.
    """

    def record(promise, kept, attempts, note=""):
        record_property("figure", [promise, kept, attempts, note])
        assert kept == attempts, f"{promise}: {kept} of {attempts} {note}"

    return record


def pytest_terminal_summary(terminalreporter):
    """A line for each promise."""
    sums, notes = collections.Counter(), collections.defaultdict(list)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == "figure" and report.when == "call":
                    promise, kept, attempts, note = value
                    sums[promise, "kept"] += kept
                    sums[promise, "attempts"] += attempts
                    notes[promise] += [note] if note else []
    if promises := sorted(notes.keys() | {promise for promise, _ in sums}):
        terminalreporter.section("faults")
    for promise in promises:
        line = f"{promise}: {sums[promise, 'kept']} of {sums[promise, 'attempts']}"
        terminalreporter.write_line("; ".join([line, *notes[promise]]))
