import dataclasses
import re
import shutil

import numpy as np
import pytest
from conftest import make_example, write_records
from data.shared import LIMITS

from bert_tf.config.record_ranges import parse_ranges
from bert_tf.data.records.record_index import record_files
from bert_tf.data.records.record_set import SkipSettings, open_index, open_records
from bert_tf.data.records.skipping import find_records, name_records, require_files
from bert_tf.data.records.tfrecord import scan_offsets
from bert_tf.distribute import Communicator
from bert_tf.errors import CorruptRecordError, OtherWorkerFailed


def damage(path, record):
    """Flips a bit in the data of a record."""
    content = bytearray(path.read_bytes())
    content[scan_offsets(str(path))[record] + 40] ^= 1
    path.write_bytes(content)


def skipping(folder, *ranges, max_corrupt_records=0, **options):
    skip = SkipSettings(parse_ranges("skip_records", ranges), max_corrupt_records)
    return open_records(str(folder), LIMITS, skip=skip, **options)


@pytest.fixture
def damaged(copied):
    """Numbers 0, 5, 63 and 149 of 150 are damaged."""
    for name, record in (("0", 0), ("0", 5), ("1", 3), ("2", 39)):
        damage(copied / f"part-{name}.tfrecord", record)
    return copied


DAMAGED = [0, 5, 63, 149]


def test_corrupt_records_become_empty_rows_and_keep_their_numbers(
    damaged, tiny_records
):
    expected = open_records(tiny_records, LIMITS).parser(np.arange(150))
    records = skipping(damaged, max_corrupt_records=4)
    assert records.parser.skipped.tolist() == DAMAGED
    features = records.parser(np.arange(150))
    is_good = ~np.isin(np.arange(150), DAMAGED)
    assert features.keys() == expected.keys()
    for name, values in features.items():
        assert values.dtype == expected[name].dtype
        np.testing.assert_array_equal(values[is_good], expected[name][is_good])
        assert not values[~is_good].any()


def test_every_corrupt_record_is_in_the_log_with_file_record_and_offset(damaged):
    records = skipping(damaged, max_corrupt_records=4)
    lines = "\n".join(records.notes)
    offset = scan_offsets(str(damaged / "part-1.tfrecord"))[3]
    assert f"{damaged}/part-1.tfrecord, record 3, byte offset {offset}: " in lines
    assert "4 of 150 records are skipped" in lines
    assert "copy/part-0.tfrecord:0,copy/part-0.tfrecord:5,copy/part-1.tfrecord:3" in (
        lines
    )


def test_more_corrupt_records_than_allowed_are_refused_by_name(damaged):
    with pytest.raises(CorruptRecordError, match="max_corrupt_records=3") as error:
        skipping(damaged, max_corrupt_records=3)
    assert "copy/part-2.tfrecord:39" in str(error.value)


def test_records_that_are_skipped_by_name_do_not_count(damaged):
    records = skipping(damaged, "part-0.tfrecord:0-5", max_corrupt_records=2)
    assert records.parser.skipped.tolist() == [0, 1, 2, 3, 4, 5, 63, 149]


def test_the_advice_of_the_error_works(damaged):
    """As often as there are corrupt records."""
    ranges = []
    for _ in DAMAGED:
        with pytest.raises(CorruptRecordError) as error:
            skipping(damaged, *ranges)
        ranges.append(str(error.value).split("--skip_records=")[1].split(",")[0])
    assert skipping(damaged, *ranges).parser.skipped.tolist() == DAMAGED


def test_an_id_beyond_the_vocabulary_names_the_vocabulary_before_skipping(tiny_records):
    limits = dataclasses.replace(LIMITS, vocab_size=8)
    with pytest.raises(CorruptRecordError) as error:
        open_records(tiny_records, limits)
    assert re.search(
        "Check the vocabulary first.*vocab_size=8.*If the other records.*--sk",
        str(error.value),
    )


def test_a_set_has_the_same_checksum_whatever_is_skipped(tiny_records):
    whole = open_records(tiny_records, LIMITS)
    assert skipping(tiny_records, "part-0.tfrecord:0-9").sha256 == whole.sha256


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["masked_lm_weights"])
def test_weights_that_are_no_weights_are_corrupt(tmp_path, name, value):
    example = make_example(np.random.default_rng(0))
    example[name][1] = value
    assert_corrupt(tmp_path, example, f"`{name}` must be in .* Received: {value}")


@pytest.mark.parametrize(
    "name, value",
    [
        ("input_mask", 2),
        ("input_mask", -1),
        ("masked_lm_positions", 16),
        ("next_sentence_labels", 2),
    ],
)
def test_values_out_of_range_are_corrupt(tmp_path, name, value):
    example = make_example(np.random.default_rng(0))
    example[name][0] = value
    assert_corrupt(tmp_path, example, f"`{name}` must be in .* Received: {value}")


def assert_corrupt(folder, example, message):
    """It is named, and can be skipped."""
    (folder / "set").mkdir()
    path = folder / "set" / "part-0"
    good = make_example(np.random.default_rng(1))
    write_records(path, [good, good, example])
    offset = scan_offsets(str(path))[2]
    where = f"{path}, record 2, byte offset {offset}: "
    with pytest.raises(CorruptRecordError, match=where + message):
        open_records(str(folder / "set"), LIMITS)
    assert skipping(folder / "set", "2").parser.skipped.tolist() == [2]


def packed(rng):
    """A record of one sequence in packed form, K = 2."""
    one = make_example(rng)
    return one | {
        "positions": list(range(16)),
        "next_sentence_positions": [0, 0],
        "next_sentence_labels": [1, 0],
        "next_sentence_weights": [1.0, 0.0],
    }


@pytest.mark.parametrize(
    "name, value", [("input_mask", 3), ("next_sentence_weights", np.nan)]
)
def test_packed_records_have_ranges_of_their_own(tmp_path, name, value):
    """The mask is the number of the sequence in its record."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set_metadata.json").write_text('{"avg_seq_per_sample": 1.0}')
    rng = np.random.default_rng(0)
    good, bad = packed(rng), packed(rng)
    good["input_mask"][0] = 2
    bad[name][0] = value
    write_records(tmp_path / "set" / "part-0", [good, bad])
    with pytest.raises(CorruptRecordError, match=f"record 1, .* `{name}` must be"):
        open_records(str(tmp_path / "set"), LIMITS)
    features = skipping(tmp_path / "set", "1").parser(np.arange(2))
    assert features["next_sentence_weights"].tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_no_record_that_is_left_is_refused(copied):
    ranges = [f"part-{n}.tfrecord:0-{c - 1}" for n, c in enumerate((60, 50, 40))]
    with pytest.raises(CorruptRecordError, match="no record is left"):
        skipping(copied, *ranges)


def test_a_batch_may_consist_of_skipped_records_alone(tiny_records):
    records = skipping(tiny_records, "part-0.tfrecord:0-9")
    assert not records.parser(np.arange(3))["input_mask"].any()


def test_a_damaged_length_is_refused_since_later_records_cannot_be_found(copied):
    path = copied / "part-1.tfrecord"
    content = bytearray(path.read_bytes())
    content[scan_offsets(str(path))[7]] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptRecordError, match=f"{path}, record 7, byte offset"):
        skipping(copied, max_corrupt_records=50)


class Workers(Communicator):
    """One of several workers, with what the others send."""

    size = 2

    def __init__(self, rank, other, has_failed=False):
        self.rank = rank
        self._other = other
        self._has_failed = has_failed

    def gather_values(self, value):
        return [value, self._other] if self.rank == 0 else [self._other, value]

    def agree(self, error):
        super().agree(error)
        if self._has_failed:
            raise OtherWorkerFailed("Worker 1 failed.")


def test_workers_share_the_search_and_skip_the_same(damaged):
    """Each finds those of its half: 0, 5 and 63, or 149."""
    other = [[149, "y"]]
    first = skipping(damaged, max_corrupt_records=4, communicator=Workers(0, other))
    assert first.parser.skipped.tolist() == DAMAGED
    with pytest.raises(CorruptRecordError, match="max_corrupt_records=3"):
        skipping(damaged, max_corrupt_records=3, communicator=Workers(0, other))
    other = [[0, "x"], [5, "x"], [63, "x"]]
    second = skipping(damaged, max_corrupt_records=4, communicator=Workers(1, other))
    assert second.parser.skipped.tolist() == DAMAGED


def test_a_worker_that_cannot_read_stops_the_search_of_all(damaged):
    workers = Workers(0, [], has_failed=True)
    with pytest.raises(OtherWorkerFailed):
        skipping(damaged, max_corrupt_records=4, communicator=workers)


def test_records_have_the_names_that_the_flag_takes(tiny_records):
    index = open_index(record_files(tiny_records))
    numbers = np.asarray([149, 0, 60, 1, 2, 9])
    names = name_records(index, numbers)
    expected = ["part-0.tfrecord:0-2", "part-0.tfrecord:9", "part-1.tfrecord:0"]
    assert names == [f"train/{x}" for x in [*expected, "part-2.tfrecord:39"]]
    found = find_records(index, parse_ranges("skip_records", names))
    assert found.tolist() == sorted(numbers)


def test_files_of_the_same_name_are_told_apart_by_their_path(tiny_records, tmp_path):
    other = shutil.copytree(tiny_records, tmp_path / "other" / "train")
    index = open_index(record_files(f"{tiny_records},{other}"))
    with pytest.raises(ValueError, match="by its path"):
        find_records(index, parse_ranges("skip_records", ["part-0.tfrecord:1"]))
    names = name_records(index, np.asarray([151]))
    assert names == [f"{other}/part-0.tfrecord:1"]
    assert find_records(index, parse_ranges("skip_records", names)).tolist() == [151]


@pytest.mark.parametrize(
    "item, message",
    [
        ("part-0.tfrecord:60", "has the numbers 0 to 59"),
        ("7", "by its path"),
        ("tfrecord:7", "no file has this name"),
        ("train/part-9.tfrecord:7", "no file has this name"),
    ],
)
def test_ranges_that_name_nothing_are_refused(tiny_records, item, message):
    files = record_files(tiny_records)
    ranges = parse_ranges("skip_records", [item])
    with pytest.raises(ValueError, match=message):
        find_records(open_index(files), ranges)
        require_files(files, ranges)
