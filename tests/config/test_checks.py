import pytest

from bert_tf.config import checks


@pytest.fixture
def machine(monkeypatch):
    """A machine of 2 cores."""
    monkeypatch.setattr(checks.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(checks, "cpu_limit", lambda: None)


def test_threads_up_to_16_times_the_cores_pass(machine):
    checks.require_threads(32)
    checks.require_threads(None)


def test_more_threads_are_refused_with_the_number_of_cores(machine):
    with pytest.raises(ValueError, match="at most 16 x 2 cores = 32. .*=33. Leave it"):
        checks.require_threads(33)


def test_the_limit_of_a_container_counts(machine, monkeypatch):
    monkeypatch.setattr(checks, "cpu_limit", lambda: 0.5)
    checks.require_threads(16)
    with pytest.raises(ValueError, match="16 x 1 cores = 16"):
        checks.require_threads(17)


@pytest.mark.parametrize("name", ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"])
def test_variables_of_tensorflow_have_the_same_limit(machine, monkeypatch, name):
    monkeypatch.setenv(name, "32")
    checks.require_threads()
    monkeypatch.setenv(name, "33")
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number from 0 to"):
        checks.require_threads()
