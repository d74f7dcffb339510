import pytest

from bert_tf.config.record_ranges import RecordRange, parse_ranges


def test_ranges_are_read_as_they_are_written():
    items = ["part-3.tfrecord:5-9", "/a b/c:d:17", "100-120", "7"]
    ranges = parse_ranges("skip_records", items)
    assert ranges == [
        RecordRange("part-3.tfrecord", 5, 9),
        RecordRange("/a b/c:d", 17, 17),
        RecordRange("", 100, 120),
        RecordRange("", 7, 7),
    ]
    assert list(map(str, ranges)) == items


@pytest.mark.parametrize("item", ["", "x", "a:", ":5", "a:9-3", "a:-1", "1-2-3"])
def test_other_forms_are_refused(item):
    with pytest.raises(ValueError, match="`skip_records` must be a comma-separated"):
        parse_ranges("skip_records", [item])
