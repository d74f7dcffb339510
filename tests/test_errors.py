"""Parts of messages."""

from bert_tf.errors import listed


def test_of_long_lists_the_rest_is_counted():
    assert listed(["a", "b"]) == "a, b"
    assert listed(map(str, range(22)), "; ").endswith("; 19; and 2 more")
    assert listed(["a"] * 1005, most=5) == "a, a, a, a, a, and 1,000 more"
