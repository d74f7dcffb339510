"""How often the fault tests try: a quick sample in `make test`, or the full counts."""

import os

import pytest

IS_FULL = os.environ.get("BERT_TF_FAULTS") == "full"


full_only = pytest.mark.skipif(not IS_FULL, reason="in full only: make test-faults")


def count(quick, full):
    """How many attempts a test makes."""
    return full if IS_FULL else quick
