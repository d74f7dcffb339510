"""Statistics of masked tokens agree with NumPy, packed or not, in either format."""

import numpy as np
import pytest
from conftest import make_example, write_records
from data.shared import LIMITS, SPECIALS, read_features

from bert_tf.config.conversion import ConvertDataConfig
from bert_tf.config.data import PackDataConfig
from bert_tf.data.commands.convert import convert_records
from bert_tf.data.commands.pack import pack_records
from bert_tf.data.records.masked_tokens import measure_masked_tokens, sample_numbers
from bert_tf.data.records.record_index import SetShare
from bert_tf.data.records.record_set import open_records

VOCABULARY = [*SPECIALS, "a", "##b", "word", *(f"w{i}" for i in range(22))]


def measure(folder, vocab_file=""):
    records = open_records(str(folder), LIMITS)
    shares = [SetShare(len(records))]
    return measure_masked_tokens(records.parser, shares, records.metadata, vocab_file)


def entropy(labels):
    _, counts = np.unique(labels, return_counts=True)
    shares = counts / counts.sum()
    return -(shares * np.log(shares)).sum()


@pytest.fixture(scope="module")
def packed(tiny_records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "packed"
    config = dict(input_dir=str(tiny_records), output_dir=str(folder), num_processes=1)
    pack_records(PackDataConfig(**config))
    return folder


def test_the_entropy_is_that_of_all_masked_tokens_of_a_small_set(tiny_records):
    features, found = read_features(tiny_records), measure(tiny_records)
    is_masked = features["masked_lm_weights"] > 0
    labels = features["masked_lm_ids"][is_masked]
    np.testing.assert_allclose(found.entropy, entropy(labels), rtol=1e-12)
    assert found.num_masked == is_masked.sum()
    assert found.num_records == 150
    np.testing.assert_allclose(found.masked_per_record, is_masked.sum() / 150)
    tokens = features["input_mask"].sum()
    np.testing.assert_allclose(found.tokens_per_record, tokens / 150)


def test_packing_and_hdf5_change_nothing(tiny_records, packed, tmp_path):
    expected = measure(tiny_records)
    found = measure(packed)
    assert found.num_records < expected.num_records
    np.testing.assert_allclose(found.entropy, expected.entropy, rtol=1e-12)
    assert found.num_masked == expected.num_masked
    assert found.copies == expected.copies == 0.0
    output = tmp_path / "hdf5"
    convert_records(
        ConvertDataConfig(
            input_dir=str(tiny_records), output_dir=str(output), format="hdf5"
        )
    )
    np.testing.assert_allclose(measure(output).entropy, expected.entropy, rtol=1e-12)


def test_sets_count_by_their_weights():
    numbers, weights = sample_numbers([SetShare(10, 3), SetShare(40_000, 1)])
    first = weights[numbers < 10].sum()
    np.testing.assert_allclose(first / weights.sum(), 0.75)
    np.testing.assert_allclose(weights.mean(), 1.0)
    assert len(numbers) == 10 + 2048
    assert numbers.max() == 40_009


def test_copies_of_records_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    examples = [make_example(rng) for _ in range(50)]
    write_records(tmp_path / "part-0.tfrecord", examples * 20)
    np.testing.assert_allclose(measure(tmp_path).copies, 19)


def test_few_equal_records_among_many_are_no_copies(tmp_path):
    rng = np.random.default_rng(0)
    examples = [make_example(rng) for _ in range(300)]
    write_records(tmp_path / "part-0.tfrecord", examples + examples[:1] * 10)
    assert measure(tmp_path).copies == 0.0


def test_sorted_records_have_parts_that_differ(tmp_path):
    rng = np.random.default_rng(0)
    examples = [make_example(rng) for _ in range(1500)]
    write_records(tmp_path / "shuffled.tfrecord", examples)
    examples.sort(key=lambda example: example["masked_lm_ids"])
    write_records(tmp_path / "sorted.tfrecord", examples)
    assert abs(measure(tmp_path / "shuffled.tfrecord").order_gain) < 0.05
    assert measure(tmp_path / "sorted.tfrecord").order_gain > 0.1


def masked_example(rng, labels):
    """A record whose masked tokens are shown as [MASK], kept, and random in turn."""
    example = make_example(rng, max_predictions=0)
    shown = [4, labels[1], 7]
    for position, token in enumerate(shown, start=1):
        example["input_ids"][position] = int(token)
    example["masked_lm_positions"] = [1, 2, 3]
    example["masked_lm_ids"] = [int(label) for label in labels]
    example["masked_lm_weights"] = [1.0] * 3
    return example


def test_shuffled_labels_are_seldom_those_that_are_shown(tmp_path):
    rng = np.random.default_rng(0)
    examples = [masked_example(rng, rng.integers(8, 30, 3)) for _ in range(100)]
    # Those that stay [MASK] are a third: make them most, as in BERT's records.
    for example in examples:
        example["masked_lm_weights"] = [1.0, *rng.permutation([1.0, 0.0])]
    write_records(tmp_path / "right.tfrecord", examples)
    assert 0.3 < measure(tmp_path / "right.tfrecord").kept_share < 0.7
    labels = rng.permutation([e["masked_lm_ids"] for e in examples])
    for example, values in zip(examples, labels, strict=True):
        example["masked_lm_ids"] = values.tolist()
    write_records(tmp_path / "wrong.tfrecord", examples)
    assert measure(tmp_path / "wrong.tfrecord").kept_share < 0.2


@pytest.mark.parametrize(
    ("letters", "unknown_share", "letter_share"),
    [
        (["a", "##b"], 2 / 6, 2 / 6),
        # The vocabulary of other records.
        (["[unused1]", "[unused2]"], 4 / 6, 0.0),
    ],
)
def test_unknown_words_and_letters_are_counted_by_the_vocabulary(
    letters, unknown_share, letter_share, tmp_path
):
    vocab_file = tmp_path / "vocab.txt"
    vocab_file.write_text("\n".join([*SPECIALS, *letters, *VOCABULARY[7:]]) + "\n")
    rng = np.random.default_rng(0)
    examples = [masked_example(rng, [1, 5, 7]), masked_example(rng, [1, 6, 8])]
    write_records(tmp_path / "part-0.tfrecord", examples)
    found = measure(tmp_path / "part-0.tfrecord", str(vocab_file))
    np.testing.assert_allclose(found.unknown_share, unknown_share)
    np.testing.assert_allclose(found.letter_share, letter_share)
    assert found.kept_share is None


def test_without_a_masked_token_there_is_nothing_to_measure(tmp_path):
    rng = np.random.default_rng(0)
    examples = [make_example(rng, max_predictions=0) for _ in range(3)]
    for example in examples:
        for name in ("positions", "ids", "weights"):
            example[f"masked_lm_{name}"] = [0.0 if name == "weights" else 0]
    write_records(tmp_path / "part-0.tfrecord", examples)
    assert measure(tmp_path) is None
