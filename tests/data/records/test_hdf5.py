"""HDF5 files of other programs are read; what cannot be trusted is refused."""

import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, make_example, write_records
from data.shared import LIMITS, assert_equal_arrays, read_features

from bert_tf.data.records.hdf5_reader import Hdf5Index
from bert_tf.data.records.hdf5_writer import Hdf5Writer, UnstorableRecordError
from bert_tf.data.records.record_set import open_records
from bert_tf.data.records.schema import ValueLimits
from bert_tf.errors import CorruptRecordError

# As the scripts that made the published files declare them.
DTYPES = {
    "input_ids": "i4",
    "input_mask": "i1",
    "segment_ids": "i1",
    "masked_lm_positions": "i4",
    "masked_lm_ids": "i4",
    "next_sentence_labels": "i1",
}
NUM_RECORDS = 40


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(3)
    return [make_example(rng) for _ in range(NUM_RECORDS)]


@pytest.fixture(scope="module")
def arrays(examples):
    """The datasets of a file: [n, S], [n, P] and [n]."""
    made = {
        name: np.array([e[name] for e in examples], t) for name, t in DTYPES.items()
    }
    made["next_sentence_labels"] = made["next_sentence_labels"][:, 0]
    return made


@pytest.fixture(scope="module")
def features(examples, tmp_path_factory):
    """What the same records give as TFRecords."""
    folder = tmp_path_factory.mktemp("tfrecords")
    write_records(folder / "part-0", examples)
    return open_records(str(folder), LIMITS).parser(np.arange(NUM_RECORDS))


def write_padded(path, arrays, **options):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **options)
    return str(path)


def write_variable(path, arrays, with_mask=False):
    """The `varlength` files of MLPerf's trainer: small integers, no padding."""
    lengths = arrays["input_mask"].sum(axis=1)
    counts = (arrays["masked_lm_positions"] != 0).sum(axis=1)
    kinds = {
        "input_ids": ("i2", lengths),
        "segment_ids": ("i1", lengths),
        "masked_lm_positions": ("i2", counts),
        "masked_lm_ids": ("i2", counts),
    }
    if with_mask:
        kinds["input_mask"] = ("i1", lengths)
    with h5py.File(path, "w") as file:
        for name, (dtype, sizes) in kinds.items():
            rows = file.create_dataset(
                name, (len(sizes),), dtype=h5py.vlen_dtype(np.dtype(dtype))
            )
            for number, size in enumerate(sizes):
                rows[number] = arrays[name][number, :size].astype(dtype)
        labels = arrays["next_sentence_labels"]
        file.create_dataset("next_sentence_labels", data=labels)
    return str(path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "gzip", "chunks": True},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": True},
    ],
    ids=["contiguous", "gzip", "all filters", "chunks"],
)
def test_files_of_other_programs_read_as_tfrecords_do(
    arrays, features, tmp_path, options
):
    path = write_padded(tmp_path / "part_0_of_1.hdf5", arrays, **options)
    assert_equal_arrays(read_features(path), features)


@pytest.mark.parametrize("with_mask", [False, True])
def test_rows_without_padding_read_as_tfrecords_do(
    arrays, features, tmp_path, with_mask
):
    path = write_variable(tmp_path / "part_0.hdf5", arrays, with_mask)
    read = read_features(path, max_seq_length=16, max_predictions_per_seq=4)
    assert_equal_arrays(read, features)


def test_rows_without_padding_are_padded_to_the_longest_or_as_asked(arrays, tmp_path):
    short = {name: array[:3] for name, array in arrays.items()}
    short["input_mask"] = np.array([[1] * n + [0] * (16 - n) for n in (8, 11, 9)], "i1")
    for name in ("masked_lm_positions", "masked_lm_ids"):
        short[name] = np.array([[3, 4, 0, 0]] * 3, "i4")
    path = write_variable(tmp_path / "part_0.hdf5", short)
    assert open_records(path, LIMITS).shape.max_seq_length == 11
    assert open_records(path, LIMITS, max_seq_length=24).shape.max_seq_length == 24
    with pytest.raises(CorruptRecordError, match="max_seq_length=11.*=8"):
        open_records(path, LIMITS, max_seq_length=8)


@pytest.mark.parametrize("dtype", ["<i8", ">i4", "<u2", "<u4"])
def test_integers_of_any_size_and_order_are_read(arrays, features, tmp_path, dtype):
    others = {name: array.astype(dtype) for name, array in arrays.items()}
    path = write_padded(tmp_path / "part_0.hdf5", others)
    assert_equal_arrays(read_features(path), features)


@pytest.mark.parametrize("form", [write_padded, write_variable])
def test_records_are_read_in_any_order_from_many_files(
    arrays, features, tmp_path, form, monkeypatch
):
    monkeypatch.setattr("bert_tf.data.records.record_index._MAX_OPEN_FILES", 2)
    bounds = [0, 7, 8, 30, NUM_RECORDS]
    for number, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False)):
        part = {name: array[a:b] for name, array in arrays.items()}
        form(tmp_path / f"part_{number}.hdf5", part)
    records = open_records(
        str(tmp_path), LIMITS, max_seq_length=16, max_predictions_per_seq=4
    )
    numbers = np.array([39, 0, 8, 7, 7, 12, 11, 29, 30, 0])
    chosen = {name: array[numbers] for name, array in features.items()}
    assert_equal_arrays(records.parser(numbers), chosen)
    assert str(records.index.location(8)) == f"{tmp_path}/part_2.hdf5, record 0"
    records.index.close()


def damaged(arrays, tmp_path, **changes):
    """A file in which some datasets are others; None leaves one out."""
    changed = {n: a for n, a in (arrays | changes).items() if a is not None}
    return write_padded(tmp_path / "part_0.hdf5", changed)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("segment_ids", lambda a: None, "must be there"),
        ("segment_ids", lambda a: a[:-1], "as many records as input_ids, 40"),
        ("segment_ids", lambda a: a[:, :-1], "as wide as input_ids, 16"),
        ("masked_lm_ids", lambda a: a[:, :-1], "as wide as masked_lm_positions, 4"),
        ("masked_lm_ids", lambda a: a[:-1], "as many records as"),
        ("next_sentence_labels", lambda a: a[:-1], "as many records as"),
        ("next_sentence_labels", lambda a: a[:, None], "must have 1 dimensions"),
        ("input_ids", lambda a: a[:, :, None], "must have 2 dimensions"),
        ("input_ids", lambda a: a[:0], "must have 2 dimensions and at least"),
        ("input_ids", lambda a: a.astype("f4"), "must hold integers"),
        ("input_mask", lambda a: a.astype(bool), "must hold integers"),
        ("input_ids", lambda a: a.astype("S4"), "must hold integers"),
    ],
)
def test_a_dataset_that_is_wrong_is_named(arrays, tmp_path, name, change, message):
    path = damaged(arrays, tmp_path, **{name: change(arrays[name])})
    # Of two that differ, either may be the wrong one.
    with pytest.raises(CorruptRecordError, match=f"^{path}: the dataset `.*{message}"):
        open_records(path, LIMITS)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input_ids", -1, r"`input_ids` must be in \[0, 30\). Received: -1"),
        (
            "input_ids",
            30,
            r"`input_ids` must be in \[0, 30\). Received: 30.*larger",
        ),
        ("input_mask", 2, r"`input_mask` must be in \[0, 2\)"),
        ("segment_ids", -1, r"`segment_ids` must be in"),
        ("masked_lm_positions", 16, r"`masked_lm_positions` must be in \[0, 16\)"),
        ("masked_lm_ids", 99, r"`masked_lm_ids` must be in"),
        ("next_sentence_labels", 2, r"`next_sentence_labels` must be in"),
    ],
)
def test_a_wrong_value_is_named_with_its_record(arrays, tmp_path, name, value, message):
    changed = arrays[name].copy()
    changed[
        5,
        ...,
    ] = value
    path = damaged(arrays, tmp_path, **{name: changed})
    with pytest.raises(CorruptRecordError, match=f"^{path}, record 5: {message}"):
        open_records(path, LIMITS)


@pytest.mark.parametrize(("name", "value"), [("input_ids", -1), ("segment_ids", 30)])
def test_only_ids_of_words_may_be_of_a_larger_vocabulary(arrays, tmp_path, name, value):
    """Though other limits have the same value."""
    changed = arrays[name].copy()
    changed[5] = value
    path = damaged(arrays, tmp_path, **{name: changed})
    with pytest.raises(CorruptRecordError) as error:
        open_records(path, ValueLimits(vocab_size=30, type_vocab_size=30))
    assert "larger" not in str(error.value)


def test_a_masked_position_after_an_empty_one_is_refused(arrays, tmp_path):
    changed = arrays["masked_lm_positions"].copy()
    changed[5] = [3, 0, 4, 0]
    path = damaged(arrays, tmp_path, masked_lm_positions=changed)
    with pytest.raises(CorruptRecordError, match="record 5: `masked_lm_positions`"):
        open_records(path, LIMITS)


def test_values_beyond_int32_are_seen(arrays, tmp_path):
    changed = arrays["masked_lm_ids"].astype("i8")
    changed[5] = 1 << 32  # 0 if it were cut to 32 bits.
    path = damaged(arrays, tmp_path, masked_lm_ids=changed)
    with pytest.raises(CorruptRecordError, match="Received: 4294967296"):
        open_records(path, LIMITS)


@pytest.mark.parametrize("kind", ["soft", "external", "group", "datatype"])
def test_only_datasets_of_the_file_itself_are_opened(arrays, tmp_path, kind):
    other = write_padded(tmp_path / "other", {"input_ids": arrays["input_ids"]})
    path = damaged(arrays, tmp_path, input_ids=None)
    with h5py.File(path, "a") as file:
        if kind == "soft":
            file["elsewhere"] = arrays["input_ids"]
            file["input_ids"] = h5py.SoftLink("/elsewhere")
        elif kind == "external":
            file["input_ids"] = h5py.ExternalLink(other, "/input_ids")
        elif kind == "datatype":
            file["input_ids"] = np.dtype("i4")
        else:
            file.create_group("input_ids")
    with pytest.raises(CorruptRecordError, match="the dataset `input_ids` must"):
        open_records(path, LIMITS)


def test_data_in_another_file_is_refused(arrays, tmp_path):
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(NUM_RECORDS * 16 * 4))
    path = damaged(arrays, tmp_path, input_ids=None)
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "input_ids", (NUM_RECORDS, 16), "i4", external=[(str(secret), 0, 2560)]
        )
    with pytest.raises(CorruptRecordError, match="must be in the file itself"):
        open_records(path, LIMITS)


def test_a_virtual_dataset_is_refused(arrays, tmp_path):
    other = write_padded(tmp_path / "other", {"input_ids": arrays["input_ids"]})
    path = damaged(arrays, tmp_path, input_ids=None)
    layout = h5py.VirtualLayout((NUM_RECORDS, 16), "i4")
    layout[:] = h5py.VirtualSource(other, "input_ids", (NUM_RECORDS, 16))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("input_ids", layout)
    with pytest.raises(CorruptRecordError, match="must be in the file itself"):
        open_records(path, LIMITS)


def test_the_files_of_virtual_data_are_not_opened(arrays, tmp_path):
    # The shape of a virtual dataset that can grow is that of its sources. Opening a
    # pipe would wait forever for the other end.
    os.mkfifo(tmp_path / "pipe")
    path = damaged(arrays, tmp_path, input_ids=None)
    layout = h5py.VirtualLayout((NUM_RECORDS, 16), "i4", maxshape=(None, 16))
    source = h5py.VirtualSource(
        tmp_path / "pipe", "input_ids", (NUM_RECORDS, 16), maxshape=(None, 16)
    )
    growing = slice(0, h5py.h5s.UNLIMITED)
    layout[growing] = source[growing]
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("input_ids", layout)
    with pytest.raises(CorruptRecordError, match="must be in the file itself"):
        open_records(path, LIMITS)


@pytest.mark.parametrize("compression", ["lzf", "szip"])
def test_a_filter_that_is_not_known_is_refused(arrays, tmp_path, compression):
    if not h5py.h5z.filter_avail({"lzf": 32000, "szip": 4}[compression]):
        pytest.skip(f"this h5py cannot write {compression}")
    path = write_padded(tmp_path / "p.hdf5", arrays | {"input_mask": np.ones(1)})
    with h5py.File(path, "a") as file:
        del file["input_mask"]
        file.create_dataset(
            "input_mask", data=arrays["input_mask"], compression=compression
        )
    with pytest.raises(CorruptRecordError, match="gzip, shuffle, fletcher32 only"):
        open_records(path, LIMITS)


@pytest.mark.parametrize("options", [{}, {"chunks": (8, 16)}, {"compression": "gzip"}])
def test_a_dataset_that_was_never_written_is_refused(arrays, tmp_path, options):
    path = damaged(arrays, tmp_path, input_ids=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("input_ids", (NUM_RECORDS, 16), "i4", **options)
    with pytest.raises(CorruptRecordError, match="2560 bytes that its shape says"):
        open_records(path, LIMITS)


def test_a_shape_that_the_file_cannot_hold_is_refused(arrays, tmp_path):
    path = damaged(arrays, tmp_path, input_ids=None)
    with h5py.File(path, "a") as file:
        huge = file.create_dataset(
            "input_ids", (1 << 50, 16), "i4", chunks=(8, 16), compression="gzip"
        )
        huge[:NUM_RECORDS] = arrays["input_ids"]
    with pytest.raises(CorruptRecordError, match="bytes that its shape says"):
        open_records(path, LIMITS)


def test_rows_that_no_model_could_read_are_refused(tmp_path):
    wide = {name: np.zeros((1, 70_000), "i1") for name in DTYPES}
    wide["next_sentence_labels"] = np.zeros(1, "i1")
    path = write_padded(tmp_path / "part_0.hdf5", wide)
    with pytest.raises(CorruptRecordError, match="at most 65536. Received: 70000"):
        open_records(path, LIMITS)


def test_packed_files_of_mlperf_are_named_as_such(arrays, tmp_path):
    more = arrays | {"packed_input_len": np.zeros(NUM_RECORDS, "i2")}
    path = write_padded(tmp_path / "part_0.hdf5", more)
    with pytest.raises(CorruptRecordError, match="packed records in MLPerf's form"):
        open_records(path, LIMITS)


def test_rows_of_different_lengths_in_a_record_are_refused(arrays, tmp_path):
    path = write_variable(tmp_path / "part_0.hdf5", arrays)
    with h5py.File(path, "a") as file:
        file["segment_ids"][5] = [0, 0, 1]
    with pytest.raises(CorruptRecordError, match="record 5: `segment_ids` must have"):
        open_records(path, LIMITS)


def test_a_row_that_claims_to_be_huge_is_not_allocated(arrays, tmp_path):
    path = write_variable(tmp_path / "part_0.hdf5", arrays)
    with h5py.File(path) as file:
        offset = file["input_ids"].id.get_offset()
    with open(path, "rb+") as file:
        file.seek(offset + 5 * 16)  # A length of 4 bytes begins each reference.
        file.write(b"\xff\xff\xff\x7f")
    with pytest.raises(CorruptRecordError, match="at most 65536. Received: 2147483647"):
        open_records(path, LIMITS)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("reference", b"\xff" * 8),  # Far beyond the end of the file.
        ("collection", b"JUNK"),
        ("size of collection", b"\xff" * 8),
        ("size of collection", bytes(8)),
        ("number of object", b"\xff\xff"),
        ("size of object", bytes(8)),
        ("size of object", b"\xf8" + b"\xff" * 7),  # The library steps back for ever.
    ],
)
def test_a_damaged_heap_of_rows_is_refused(arrays, tmp_path, part, change):
    path = write_variable(tmp_path / "part_0.hdf5", arrays)
    with h5py.File(path) as file:
        reference = file["input_ids"].id.get_offset()
    with open(path, "rb+") as file:
        file.seek(reference + 4)
        collection = int.from_bytes(file.read(8), "little")
        place = {
            "reference": reference + 4,
            "collection": collection,
            "size of collection": collection + 8,
            "number of object": collection + 16,
            "size of object": collection + 24,
        }[part]
        file.seek(place)
        file.write(change)
    with pytest.raises(CorruptRecordError, match="dataset input_ids: a row is damaged"):
        open_records(path, LIMITS)


@pytest.mark.parametrize("form", ["padded", "gzip", "variable"])
def test_no_damage_shows_more_than_one_line_of_ours(arrays, tmp_path, form):
    path = tmp_path / "part_0.hdf5"
    if form == "variable":
        write_variable(path, arrays)
    else:
        options = {"compression": "gzip"} if form == "gzip" else {}
        write_padded(path, arrays, **options)
    content = path.read_bytes()
    rng = np.random.default_rng(11)
    refused = 0
    for _ in range(100):
        damaged = bytearray(content)
        for place in rng.integers(8, len(content), 4):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            read_features(str(path))
        except CorruptRecordError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_rows_without_padding_must_not_be_in_chunks(arrays, tmp_path):
    path = write_variable(tmp_path / "part_0.hdf5", arrays)
    with h5py.File(path, "a") as file:
        del file["input_ids"]
        kind = h5py.vlen_dtype(np.dtype("i2"))
        rows = file.create_dataset("input_ids", (NUM_RECORDS,), kind, chunks=(8,))
        rows[:] = [np.ones(n, "i2") for n in arrays["input_mask"].sum(axis=1)]
    with pytest.raises(CorruptRecordError, match="`input_ids` must be contiguous"):
        open_records(path, LIMITS)


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused_in_one_line(arrays, tmp_path, options, share):
    path = tmp_path / "part_0.hdf5"
    write_padded(path, arrays, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CorruptRecordError, match=f"^{path}: .*") as refusal:
        open_records(str(path), LIMITS)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_cut_while_it_is_read_is_refused(arrays, tmp_path):
    path = write_padded(tmp_path / "part_0.hdf5", arrays)
    records = open_records(path, LIMITS)
    with open(path, "rb+") as file:
        file.truncate(4000)
    with pytest.raises(CorruptRecordError, match="cut while it was read"):
        records.parser(np.arange(NUM_RECORDS))


def test_damaged_compressed_data_is_refused(arrays, tmp_path):
    path = write_padded(tmp_path / "part_0.hdf5", arrays, compression="gzip")
    with h5py.File(path) as file:
        chunk = file["input_ids"].id.get_chunk_info(0)
    with open(path, "rb+") as file:
        file.seek(chunk.byte_offset + 4)
        file.write(bytes(16))
    with pytest.raises(CorruptRecordError, match="input_ids: cannot be read as HDF5"):
        open_records(path, LIMITS)


@pytest.mark.parametrize("content", [bytes(8), bytes(512 + 1), bytes(1 << 14)])
def test_a_compressed_chunk_of_another_length_is_refused(arrays, tmp_path, content):
    # The library takes what lies behind a short one in memory for records.
    path = damaged(arrays, tmp_path, input_ids=None)
    with h5py.File(path, "a") as file:
        chunked = file.create_dataset(
            "input_ids", data=arrays["input_ids"], chunks=(8, 16), compression="gzip"
        )
        chunked.id.write_direct_chunk((16, 0), zlib.compress(content))
    with pytest.raises(CorruptRecordError, match=r"dataset input_ids: .*512 bytes"):
        read_features(path)


@pytest.mark.parametrize("options", [{}, {"fletcher32": True}, {"compression": "gzip"}])
def test_a_chunk_that_is_stored_too_short_or_too_long_is_refused(
    arrays, tmp_path, options
):
    path = damaged(arrays, tmp_path, input_ids=None)
    with h5py.File(path, "a") as file:
        chunked = file.create_dataset(
            "input_ids", data=arrays["input_ids"], chunks=(8, 16), **options
        )
        is_gzip = "compression" in options
        # Of three bytes the library would take a checksum of four.
        chunked.id.write_direct_chunk((16, 0), bytes(5000 if is_gzip else 3))
    with pytest.raises(CorruptRecordError, match="4 of 5 chunks; the file is cut"):
        open_records(path, LIMITS)


def test_a_chunk_that_is_missing_is_refused(arrays, tmp_path):
    path = damaged(arrays, tmp_path, input_ids=None)
    with h5py.File(path, "a") as file:
        options = {"chunks": (8, 16), "compression": "gzip"}
        chunked = file.create_dataset("input_ids", (NUM_RECORDS, 16), "i4", **options)
        chunked[:32] = arrays["input_ids"][:32]
    with pytest.raises(CorruptRecordError, match="4 of 5 chunks; the file is cut"):
        open_records(path, LIMITS)


def test_chunks_of_other_dimensions_than_their_dataset_are_refused(arrays, tmp_path):
    path = Path(damaged(arrays, tmp_path, masked_lm_ids=None))
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "masked_lm_ids", data=arrays["masked_lm_ids"], chunks=(8, 4)
        )
    content = path.read_bytes()
    # A layout message: version 3, class 2 (in chunks), dimensions and one for the size
    # of a value, address, and their lengths: 8, 4, 4 bytes. The library loops forever.
    message = rb"\x03\x02\x03(.{8}\x08\0\0\0\x04\0\0\0\x04\0\0\0)"
    content, count = re.subn(message, b"\x03\x02\x02\\1", content, flags=re.DOTALL)
    assert count == 1
    path.write_bytes(content)
    with pytest.raises(CorruptRecordError, match="must have chunks of 2 dimensions"):
        open_records(str(path), LIMITS)


@pytest.mark.parametrize("filters", ["fg", "gg"])
def test_filters_in_an_order_that_cannot_be_checked_are_refused(
    arrays, tmp_path, filters
):
    path = damaged(arrays, tmp_path, input_ids=None)
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((8, 16))
    for name in filters:
        made.set_fletcher32() if name == "f" else made.set_deflate(4)
    with h5py.File(path, "a") as file:
        space = h5py.h5s.create_simple((NUM_RECORDS, 16))
        h5py.h5d.create(file.id, b"input_ids", h5py.h5t.STD_I32LE, space, made)
    with pytest.raises(CorruptRecordError, match="each filter once, and fletcher32 as"):
        open_records(path, LIMITS)


def test_chunks_that_could_not_be_compressed_are_read(arrays, features, tmp_path):
    path = damaged(arrays, tmp_path, input_ids=None)
    with h5py.File(path, "a") as file:
        chunked = file.create_dataset(
            "input_ids", data=arrays["input_ids"], chunks=(8, 16), compression="gzip"
        )
        plain = arrays["input_ids"][16:24].tobytes()
        chunked.id.write_direct_chunk((16, 0), plain, filter_mask=1)
    assert_equal_arrays(read_features(path), features)


def test_padded_rows_and_others_are_not_mixed(arrays, tmp_path):
    write_padded(tmp_path / "part_0.hdf5", arrays)
    write_variable(tmp_path / "part_1.hdf5", arrays)
    with pytest.raises(CorruptRecordError, match="same lengths, and padding or none"):
        open_records(str(tmp_path), LIMITS)


@pytest.mark.parametrize("dtype", ["<i2", ">i4", "<i8"])
def test_rows_without_padding_are_those_that_the_library_wrote(tmp_path, dtype):
    rng = np.random.default_rng(5)
    # More than a heap collection of 64 KiB holds, some empty, one of them huge.
    sizes = [*rng.integers(0, 200, 600).tolist(), 40_000, 1]
    rows = [rng.integers(0, 127, size).astype(dtype) for size in sizes]
    path = write_rows(tmp_path / "part_0.hdf5", rows, dtype)
    index = Hdf5Index([path])
    for chosen in (np.arange(len(rows)), np.array([600, 3]), np.array([599, 0, 601])):
        read = index.read(chosen)
        for number, ids, mask in zip(
            chosen, read["input_ids"], read["input_mask"], strict=True
        ):
            assert mask.sum() == sizes[number]
            np.testing.assert_array_equal(ids[: sizes[number]], rows[number])
    index.close()


def test_values_that_look_like_the_header_of_a_row_do_not_mislead(tmp_path):
    # As 64-bit words: number 3 and 16 bytes, which is the third row's header too.
    like_a_header = [3, 0, 16, 0]
    rows = [like_a_header, like_a_header, [7, 8, 9, 10]]
    path = write_rows(tmp_path / "part_0.hdf5", rows, "<i4")
    assert Hdf5Index([path]).read(np.array([2]))["input_ids"].tolist() == [
        [7, 8, 9, 10]
    ]


def write_rows(path, rows, dtype):
    """A file in which each feature has the same rows, without padding."""
    kind = h5py.vlen_dtype(np.dtype(dtype))
    with h5py.File(path, "w") as file:
        file["next_sentence_labels"] = np.zeros(len(rows), "i1")
        for name in DTYPES.keys() - {"next_sentence_labels", "input_mask"}:
            dataset = file.create_dataset(name, (len(rows),), kind)
            for number, row in enumerate(rows):
                dataset[number] = np.asarray(row, dtype)
    return str(path)


def test_padded_rows_of_different_lengths_are_not_mixed(arrays, tmp_path):
    write_padded(tmp_path / "part_0.hdf5", arrays)
    tokens = ("input_ids", "input_mask", "segment_ids")
    shorter = arrays | {name: arrays[name][:, :12] for name in tokens}
    write_padded(tmp_path / "part_1.hdf5", shorter)
    with pytest.raises(CorruptRecordError, match=r"\(16, 4\).*part_1.*\(12, 4\)"):
        open_records(str(tmp_path), LIMITS)


def write_blocks(path, features, sizes, **options):
    with Hdf5Writer(path, NUM_RECORDS, 16, 4, **options) as writer:
        for a, b in zip(np.cumsum([0, *sizes]), np.cumsum(sizes), strict=False):
            writer.write({name: array[a:b] for name, array in features.items()})
    return writer


@pytest.mark.parametrize(
    "options", [{}, {"variable_length": True}, {"compression": "gzip"}]
)
def test_bytes_do_not_depend_on_the_blocks(features, tmp_path, options, monkeypatch):
    monkeypatch.setattr("bert_tf.data.records.hdf5_writer._ROWS_AT_ONCE", 16)
    contents = []
    for number, sizes in enumerate(([40], [1, 39], [13] * 3 + [1])):
        path = tmp_path / f"part-{number}"
        writer = write_blocks(path, features, sizes, **options)
        contents.append(path.read_bytes())
        assert writer.num_records == NUM_RECORDS
    assert contents[0] == contents[1] == contents[2]
    assert_equal_arrays(read_features(str(path)), features)
    assert not list(tmp_path.glob("*.tmp"))


def test_an_error_leaves_no_file(features, tmp_path):
    with pytest.raises(KeyboardInterrupt), Hdf5Writer(tmp_path / "p", 40, 16, 4) as w:
        w.write(features)
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
def test_a_writer_that_cannot_start_leaves_no_file(tmp_path, options):
    with pytest.raises((ValueError, OverflowError)):
        Hdf5Writer(tmp_path / "p", -1, 16, 4, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("expected", [NUM_RECORDS - 1, NUM_RECORDS + 1])
def test_another_number_of_records_than_promised_is_refused(
    features, tmp_path, expected
):
    with pytest.raises(ValueError, match=f"num_records={expected}, and 40 records"):
        with Hdf5Writer(tmp_path / "p", expected, 16, 4) as writer:
            writer.write(features)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "place", "value", "rule"),
    [
        ("input_ids", (3, 15), 7, "`input_ids` must be 0 in the padding"),
        ("segment_ids", (3, 15), 1, "`segment_ids` must be 0 in the padding"),
        ("input_mask", (3, 15), 1, "`input_mask` must be ones and then zeros"),
        ("masked_lm_ids", (3, 3), 9, "`masked_lm_ids` must be 0 in the padding"),
    ],
)
def test_padding_that_is_not_zero_is_not_left_out(
    features, tmp_path, name, place, value, rule
):
    changed = {n: a.copy() for n, a in features.items()}
    for tokens in ("input_ids", "input_mask", "segment_ids"):
        changed[tokens][3, 12:] = 0
    for mask in ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"):
        changed[mask][3] = 0
    changed[name][place] = value
    with pytest.raises(UnstorableRecordError, match=rule) as refusal:
        write_blocks(tmp_path / "p", changed, [40], variable_length=True)
    assert refusal.value.row == 3
    write_blocks(tmp_path / "p", changed, [40])  # With the padding it is kept.
    kept = Hdf5Index([str(tmp_path / "p")]).read(np.arange(NUM_RECORDS))
    assert kept[name][place] == value


def test_an_index_of_one_file_survives_a_copy(arrays, features, tmp_path):
    path = write_padded(tmp_path / "part_0.hdf5", arrays)
    shutil.copy(path, tmp_path / "part_1.hdf5")
    index = Hdf5Index([path, str(tmp_path / "part_1.hdf5")])
    assert len(index) == 2 * NUM_RECORDS
    twice = index.read(np.array([3, 3 + NUM_RECORDS]))["input_ids"]
    np.testing.assert_array_equal(twice[0], twice[1])
    np.testing.assert_array_equal(twice[0], features["input_ids"][3])


FULL = """
import resource, sys
import numpy as np
from bert_tf.data.records.hdf5_writer import Hdf5Writer
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
tokens = dict.fromkeys(("input_ids", "input_mask", "segment_ids"), 16)
masked = dict.fromkeys(("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"), 4)
widths = tokens | masked | {"next_sentence_labels": 1}
try:
    with Hdf5Writer(sys.argv[1], 3000, 16, 4, variable_length=sys.argv[2] == "1") as w:
        w.write({name: np.ones((3000, width), int) for name, width in widths.items()})
except OSError as error:
    print(error.filename, error.strerror, flush=True)
"""


@pytest.mark.parametrize("variable_length", "01")
def test_a_file_for_which_there_is_no_room_is_named(variable_length, tmp_path):
    """In a subprocess: the library may crash later, when it frees the file."""
    path = tmp_path / "out.hdf5"
    command = [sys.executable, "-c", FULL, path, variable_length]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == f"{path} File too large\n"
    assert os.listdir(tmp_path) == []
