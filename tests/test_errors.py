"""Parts of messages."""

from bert_tf.errors import counted, listed


def test_of_long_lists_the_rest_is_counted():
    assert listed(["a", "b"]) == "a, b"
    assert listed(map(str, range(22)), "; ").endswith("; 19; and 2 more")
    assert listed(["a"] * 1005, most=5) == "a, a, a, a, a, and 1,000 more"


def test_one_thing_is_not_a_plural():
    found = [counted(1, "thread"), counted(2, "thread"), counted(1000, "batch")]
    assert found == ["1 thread", "2 threads", "1,000 batches"]
