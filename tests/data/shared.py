"""What several test modules of data preparation share."""

from pathlib import Path

import numpy as np

from bert_tf.data.records.record_set import open_records
from bert_tf.data.records.schema import ValueLimits

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Of the tiny records.
LIMITS = ValueLimits(vocab_size=30, type_vocab_size=2)


def contents(folder):
    """File name -> bytes."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def read_features(folder, **options):
    """The features of all records of a folder or file."""
    records = open_records(str(folder), LIMITS, **options)
    return records.parser(np.arange(len(records)))


def assert_equal_arrays(first, second):
    """Two dictionaries of arrays have the same names, values and types."""
    assert set(first) == set(second)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
        assert array.dtype == second[name].dtype


def arrays_of(windows):
    """The arrays of SQuAD's windows, those of their sequences too."""
    arrays = {**vars(windows), **vars(windows.sequences)}
    del arrays["sequences"]
    return arrays


def assert_equal_windows(first, second):
    """Two sets of SQuAD's windows have the same arrays."""
    assert_equal_arrays(arrays_of(first), arrays_of(second))
