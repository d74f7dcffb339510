"""How often the fault tests try: a quick sample in `make test`, or the full counts."""

import os

IS_FULL = os.environ.get("BERT_TF_FAULTS") == "full"


def count(quick, full):
    """How many attempts a test makes."""
    return full if IS_FULL else quick
