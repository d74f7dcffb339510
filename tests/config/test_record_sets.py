"""Weights of record sets: what counts as one, and which are refused."""

import pytest

from bert_tf.config.record_sets import split_weight, whole_parts


@pytest.mark.parametrize(
    "text, expected",
    [
        ("/a:0.7", ("/a", "0.7")),
        ("/a/b*:3", ("/a/b*", "3")),
        ("a:b:1e-2", ("a:b", "1e-2")),
        ("a:.5", ("a", ".5")),
        ("a:-1", ("a", "-1")),
        ("a:nan", ("a", "nan")),
        ("/a", ("/a", "")),
        ("gs://a", ("gs://a", "")),
        ("C:b", ("C:b", "")),
        ("a:", ("a:", "")),
        ("a:1.2.3", ("a:1.2.3", "")),
        ("a:٣", ("a:٣", "")),
        (":1", (":1", "")),
    ],
)
def test_a_colon_and_a_number_at_the_end_are_a_weight(text, expected):
    assert split_weight(text) == expected


@pytest.mark.parametrize(
    "weights, parts",
    [
        (["0.7", "0.3"], [7, 3]),
        (["70", "30"], [7, 3]),
        (["1", "1", "2"], [1, 1, 2]),
        (["1e-1", "0.25"], [2, 5]),
        ([".333", "0.667"], [333, 667]),
        (["5"], [1]),
    ],
)
def test_weights_become_the_smallest_whole_numbers(weights, parts):
    assert whole_parts("a:1", weights) == parts


@pytest.mark.parametrize(
    "weight", ["0", "0.0", "-1", "nan", "inf", "-inf", "1e999", "1e-999", "0" * 30]
)
def test_weights_that_are_no_share_are_refused_in_one_line(weight):
    with pytest.raises(ValueError, match="finite and greater than 0") as caught:
        whole_parts(f"a:{weight},b:1", [weight, "1"])
    assert "\n" not in str(caught.value) and f"a:{weight},b:1" in str(caught.value)


@pytest.mark.parametrize(
    "weights", [["0.1234567", "1"], ["1e300", "1"], ["1e-9", "1e300"]]
)
def test_weights_that_are_too_precise_are_refused(weights):
    with pytest.raises(ValueError, match="sum of at most 1,000,000"):
        whole_parts("a:w,b:1", weights)


def test_one_weight_needs_the_others():
    with pytest.raises(ValueError, match="a weight for each set, or for none"):
        whole_parts("a:1,b", ["1", ""])
