"""Rows of variable length: the library wrote them, and it says what they are."""

import os

import h5py
import numpy as np
import pytest

from bert_tf.data.hdf5_heap import ROW_REFERENCE, read_rows


def write_rows(path, rows, dtype):
    """Writes rows with the library; returns the references to them."""
    with h5py.File(path, "w") as file:
        kind = h5py.vlen_dtype(np.dtype(dtype))
        dataset = file.create_dataset("rows", (len(rows),), kind)
        for number, row in enumerate(rows):
            dataset[number] = np.asarray(row, dtype)
        offset = dataset.id.get_offset()
    with open(path, "rb") as file:
        file.seek(offset)
        return np.fromfile(file, ROW_REFERENCE, len(rows))


def read(path, references, dtype):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_rows(descriptor, references, np.dtype(dtype), "rows")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("dtype", ["<i1", "<i2", ">i4", "<i8"])
def test_rows_are_those_that_were_written(tmp_path, dtype):
    rng = np.random.default_rng(5)
    # More than a collection of 64 KiB holds, some of them empty, one of them large.
    sizes = [*rng.integers(0, 200, 900).tolist(), 40_000, 1]
    rows = [rng.integers(0, 127, size).astype(dtype) for size in sizes]
    references = write_rows(tmp_path / "file", rows, dtype)
    for chosen in (np.arange(len(rows)), np.array([900, 3]), np.array([899, 0, 901])):
        values = read(tmp_path / "file", references[chosen], dtype)
        expected = np.concatenate([rows[number] for number in chosen])
        np.testing.assert_array_equal(values, expected)


def test_values_that_look_like_the_header_of_a_row_do_not_mislead(tmp_path):
    # As 64-bit words: number 3 and 16 bytes, which is the third row's header too.
    like_a_header = [3, 0, 16, 0]
    rows = [like_a_header, like_a_header, [7, 8, 9, 10]]
    references = write_rows(tmp_path / "file", rows, "<i4")
    assert references["object"].tolist() == [1, 2, 3]
    values = read(tmp_path / "file", references[2:], "<i4")
    assert values.tolist() == [7, 8, 9, 10]


def test_no_rows_are_no_values(tmp_path):
    references = write_rows(tmp_path / "file", [[], [1]], "<i4")
    assert read(tmp_path / "file", references[:1], "<i4").size == 0
