"""Masks drawn while training, against an oracle in plain Python and expected rates."""

import random
from fractions import Fraction

import numpy as np
import pytest
from data.shared import SPECIALS, assert_equal_arrays

from bert_tf.config import CreateDataConfig
from bert_tf.data.batches.dynamic_masking import DynamicMasker, make_masker
from bert_tf.data.packing.layout import merge_sequences
from bert_tf.data.pretraining.instances import Masker
from bert_tf.data.records.metadata import Metadata
from bert_tf.data.text.vocabulary import SpecialTokens

WORDS = [*SPECIALS, *(f"##w{n}" if n % 3 == 0 else f"w{n}" for n in range(995))]
PAD, UNK, CLS, SEP, MASK = range(5)
WIDTH = 20  # P
SEED = 42


def masker(whole_words=False):
    return DynamicMasker(WORDS, 1024, do_whole_word_mask=whole_words)


def originals(count, length, *, seed=0, shortest=None):
    """Token sequences [CLS] a [SEP] b [SEP] of random words."""
    rng = np.random.default_rng(seed)
    sequences = []
    for _ in range(count):
        n = int(rng.integers(shortest or length, length + 1))
        ids = rng.integers(5, len(WORDS), n)
        ids[[0, n // 2, n - 1]] = CLS, SEP, SEP
        sequences.append(ids.tolist())
    return sequences


def records(sequences, length, whole_words=False):
    """The unpacked records that `data create` makes of sequences."""
    config = CreateDataConfig(
        **{"input": "i", "output_dir": "o", "vocab_file": "v"},
        max_seq_length=length,
        do_whole_word_mask=whole_words,
    )
    pieces = {n for n, word in enumerate(WORDS) if word.startswith("##")}
    special = SpecialTokens(PAD, UNK, CLS, SEP, MASK)
    creator = Masker(config, special, len(WORDS), pieces)
    rng, n = random.Random(5), len(sequences)
    tokens = ("input_ids", "input_mask", "segment_ids", "positions")
    features = {name: np.zeros((n, length), np.int32) for name in tokens}
    features["positions"] += np.arange(length, dtype=np.int32)
    for name in ("masked_lm_positions", "masked_lm_ids"):
        features[name] = np.zeros((n, WIDTH), np.int32)
    features["masked_lm_weights"] = np.zeros((n, WIDTH), np.float32)
    for row, ids in enumerate(sequences):
        ids, half = list(ids), len(ids) // 2
        segments = range(1, half), range(half + 1, len(ids) - 1)
        positions, labels = creator.mask(ids, segments, rng)
        features["input_ids"][row, : len(ids)] = ids
        features["input_mask"][row, : len(ids)] = 1
        features["segment_ids"][row, half + 1 : len(ids)] = 1
        features["masked_lm_positions"][row, : len(labels)] = positions
        features["masked_lm_ids"][row, : len(labels)] = labels
        features["masked_lm_weights"][row, : len(labels)] = 1
    features["next_sentence_positions"] = np.zeros((n, 1), np.int32)
    features["next_sentence_labels"] = np.zeros((n, 1), np.int32)
    features["next_sentence_weights"] = np.ones((n, 1), np.float32)
    return features


def masked(features, epoch=0, whole_words=False, seed=SEED):
    n = len(features["input_ids"])
    numbers = np.arange(n)
    return masker(whole_words)(features, seed, np.full(n, epoch), numbers)


def restored(features):
    """The original tokens of unpacked records."""
    ids = features["input_ids"].copy()
    row, index = np.nonzero(features["masked_lm_weights"])
    ids[row, features["masked_lm_positions"][row, index]] = features["masked_lm_ids"][
        row, index
    ]
    return ids


class SplitMix64:
    """The generator as published, in Python's integers."""

    def __init__(self, state):
        self.state = state

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)


def oracle(ids, length, limit, key, whole_words):
    """Masks one sequence; returns its new tokens, positions and labels.

    Args:
      ids: The original tokens.
      length: S.
      limit: How many tokens to mask.
      key: Seed, epoch, record number and place in the record.
    """
    state = SplitMix64(key[0]).next()
    for part in key[1:]:
        state = SplitMix64((state + part) % 2**64).next()
    generator = SplitMix64(state)
    draws = [generator.next() for _ in range(2 * length)]
    units = []
    for position, token in enumerate(ids):
        if token in (PAD, CLS, SEP, MASK):
            continue
        continues = whole_words and WORDS[token].startswith("##")
        if continues and units and units[-1][-1] == position - 1:
            units[-1].append(position)
        else:
            units.append([position])
    # The last 16 bits are the column, by which no two are equal.
    units.sort(key=lambda unit: (draws[unit[0]] >> 16, unit[0]))
    chosen = []
    for unit in units:
        if len(chosen) + len(unit) <= limit:
            chosen += unit
    ids, chosen = list(ids), sorted(chosen)
    labels = [ids[position] for position in chosen]
    for position in chosen:
        share = Fraction(draws[length + position] >> 32, 2**32)
        if share < Fraction(8, 10):
            ids[position] = MASK
        elif share >= Fraction(9, 10):
            ids[position] = (draws[length + position] % 2**32) * len(WORDS) >> 32
    return ids, chosen, labels


def test_the_oracle_has_the_published_numbers():
    """The first ones of the generator with seed 1234567."""
    generator = SplitMix64(1234567)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [generator.next() for _ in range(3)] == expected


@pytest.mark.parametrize("whole_words", [False, True])
def test_masks_are_those_of_the_oracle(whole_words):
    sequences = originals(40, 64, shortest=8)
    given = records(sequences, 64)
    found = masked(given, epoch=3, whole_words=whole_words)
    for row, ids in enumerate(sequences):
        limit = int(given["masked_lm_weights"][row].sum())
        key = (SEED, 3, row, 0)
        expected = oracle(ids, 64, limit, key, whole_words)
        count = int(found["masked_lm_weights"][row].sum())
        assert found["input_ids"][row, : len(ids)].tolist() == expected[0]
        assert found["masked_lm_positions"][row, :count].tolist() == expected[1]
        assert found["masked_lm_ids"][row, :count].tolist() == expected[2]
        assert not found["masked_lm_positions"][row, count:].any()
        assert not found["masked_lm_ids"][row, count:].any()
        assert not found["masked_lm_weights"][row, count:].any()


def test_sequences_get_as_many_masks_as_the_formula_of_the_records():
    sequences = originals(200, 128, shortest=8)
    found = masked(records(sequences, 128))
    expected = [min(20, max(1, round(len(ids) * 0.15))) for ids in sequences]
    assert found["masked_lm_weights"].sum(axis=1).tolist() == expected


def test_the_original_tokens_stay():
    sequences = originals(50, 64, shortest=8)
    features = records(sequences, 64)
    for epoch in range(3):
        found = restored(masked(features, epoch))
        for row, ids in enumerate(sequences):
            assert found[row].tolist() == ids + [PAD] * (64 - len(ids))
    same = ("input_mask", "segment_ids", "positions", "next_sentence_labels")
    found = masked(features)
    assert_equal_arrays(*({n: x[n] for n in same} for x in (features, found)))
    assert {n: x.dtype for n, x in found.items()} == {
        n: x.dtype for n, x in features.items()
    }


def test_an_epoch_has_its_masks_whatever_is_read_with_a_record():
    features = records(originals(40, 64, shortest=8), 64)
    whole = masked(features, epoch=2)
    chosen = np.asarray([17, 3, 30])
    some = masker()(
        {n: x[chosen] for n, x in features.items()}, SEED, np.full(3, 2), chosen
    )
    assert_equal_arrays(some, {n: x[chosen] for n, x in whole.items()})
    # Records that are masked already have other masks, and the same tokens.
    assert_equal_arrays(masked(masked(features, epoch=1), epoch=2), whole)


@pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 43}])
def test_other_epochs_and_seeds_have_other_masks(change):
    """Two choices of 19 of 125 have 2.9 positions in common on average."""
    features = records(originals(200, 128), 128)
    first, second = masked(features), masked(features, **change)
    common = [
        len({*a} & {*b})
        for a, b in zip(
            *(x["masked_lm_positions"][:, :19].tolist() for x in (first, second)),
            strict=True,
        )
    ]
    assert abs(np.mean(common) - 19 * 19 / 125) < 0.5  # 5 standard deviations


def test_rates_are_those_of_the_paper():
    """15% masked, of these 80/10/10, all within 0.2 percentage points."""
    features = records(originals(500, 128), 128)
    epochs = [masked(features, epoch) for epoch in range(40)]
    found = {name: np.concatenate([x[name] for x in epochs]) for name in features}
    total = int(found["masked_lm_weights"].sum())
    assert total == 40 * 500 * 19
    assert abs(total / found["input_mask"].sum() - 0.15) < 0.002
    row, index = np.nonzero(found["masked_lm_weights"])
    position = found["masked_lm_positions"][row, index]
    token, label = found["input_ids"][row, position], found["masked_lm_ids"][row, index]
    # A random token may be [MASK], or the label.
    shares = {
        "masked": ((token == MASK).mean(), 0.8 + 0.1 / len(WORDS)),
        "kept": ((token == label).mean(), 0.1 + 0.1 / len(WORDS)),
    }
    for name, (share, expected) in shares.items():
        deviation = np.sqrt(expected * (1 - expected) / total)
        assert abs(share - expected) < min(0.002, 4.5 * deviation), name
    # Each of the 125 positions of words equally often, each random token too.
    counts = np.bincount(position, minlength=128)
    assert not counts[[0, 64, 127]].any()
    counts = counts[counts > 0]
    assert len(counts) == 125
    assert chi_square(counts) < 125 + 5 * np.sqrt(2 * 125)
    other = token[(token != label) & (token != MASK)]
    counts = np.delete(np.bincount(other, minlength=len(WORDS)), MASK)
    assert chi_square(counts) < len(WORDS) + 5 * np.sqrt(2 * len(WORDS))


def chi_square(counts):
    """Against equal frequencies: its mean is the number of them, variance twice it."""
    return ((counts - counts.mean()) ** 2 / counts.mean()).sum()


def test_whole_words_are_masked_whole():
    features = records(originals(100, 128), 128, whole_words=True)
    limits = features["masked_lm_weights"].sum(axis=1)
    found = masked(features, whole_words=True)
    counts = found["masked_lm_weights"].sum(axis=1)
    assert (counts <= limits).all() and counts.sum() > 0.97 * limits.sum()
    ids = restored(found)
    for row in range(100):
        count = int(counts[row])
        chosen = {*found["masked_lm_positions"][row, :count].tolist()}
        for position in range(1, 128):
            is_piece = WORDS[ids[row, position]].startswith("##")
            if is_piece and ids[row, position - 1] not in (CLS, SEP):
                assert (position in chosen) == (position - 1 in chosen)


def test_a_row_of_one_sequence_is_masked_as_the_record_alone():
    features = records(originals(20, 64, shortest=40), 64)
    packed = merge_sequences(features, np.ones(20, int), WIDTH, 3)
    alone, rows = masked(features), masked(packed)
    names = ("input_ids", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
    assert_equal_arrays(*({n: x[n] for n in names} for x in (alone, rows)))


@pytest.mark.parametrize("whole_words", [False, True])
def test_each_sequence_of_a_packed_row_is_masked_by_itself(whole_words):
    """As the oracle masks it alone, with as many masks as it has in the record."""
    sequences = originals(30, 20, shortest=6)
    features = records(sequences, 64)
    packed = merge_sequences(features, np.asarray([3] * 10), WIDTH, 3)
    found = masked(packed, epoch=1, whole_words=whole_words)
    for row in range(10):
        members = sequences[3 * row : 3 * row + 3]
        begin, expected = 0, ([], [], [])
        for slot, ids in enumerate(members):
            limit = int(features["masked_lm_weights"][3 * row + slot].sum())
            key = (SEED, 1, row, slot)
            ids, positions, labels = oracle(ids, 64, limit, key, whole_words)
            positions = [begin + position for position in positions]
            for whole, part in zip(expected, (ids, positions, labels), strict=True):
                whole += part
            begin += len(ids)
        count = len(expected[1])
        assert found["input_ids"][row, :begin].tolist() == expected[0]
        assert found["masked_lm_positions"][row, :count].tolist() == expected[1]
        assert found["masked_lm_ids"][row, :count].tolist() == expected[2]
        assert found["masked_lm_weights"][row].sum() == count
    assert not found["input_ids"][packed["input_mask"] == 0].any()


def test_rows_that_are_skipped_stay_without_masks():
    features = records(originals(4, 64), 64)
    for name in features:
        features[name][[0, 2]] = 0
    found = masked(features)
    for name, values in found.items():
        assert not values[[0, 2]].any(), name
    assert (found["masked_lm_weights"][[1, 3]].sum(axis=1) == 10).all()
    empty = {name: np.zeros_like(values) for name, values in features.items()}
    assert_equal_arrays(masked(empty), empty)


def test_a_record_with_more_masks_than_words_keeps_what_it_can():
    """As records of other programs may, which mask [CLS]."""
    features = records([[CLS, 9, SEP, 10, SEP]], 64)
    features["masked_lm_positions"][0, :3] = 0, 1, 3
    features["masked_lm_ids"][0, :3] = CLS, 9, 10
    features["masked_lm_weights"][0, :3] = 1
    found = masked(features)
    assert found["masked_lm_positions"][0].tolist() == [1, 3] + [0] * 18
    assert found["masked_lm_weights"][0].sum() == 2
    assert restored(found)[0, :5].tolist() == [CLS, 9, SEP, 10, SEP]


def about(**config):
    return Metadata(packed=False, avg_seq_per_sample=1, config=config)


@pytest.fixture
def vocab_file(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return str(tmp_path / "vocab.txt")


def test_whole_words_are_masked_if_the_records_were_made_so(vocab_file):
    whole, plain = about(do_whole_word_mask=True), about(do_whole_word_mask=False)
    one, notes = make_masker(vocab_file, 1024, {"a": whole, "b": whole})
    assert one.units == "whole words" and len(notes) == 1
    one, notes = make_masker(vocab_file, 1024, {"a": plain})
    assert one.units == "single tokens" and len(notes) == 1
    one, notes = make_masker(vocab_file, 1024, {"a": None, "b": plain})
    assert one.units == "single tokens" and "for a: taken to be false" in notes[1]
    with pytest.raises(ValueError, match="true in that of a, but not in that of b"):
        make_masker(vocab_file, 1024, {"a": whole, "b": None})


def test_ngrams_are_not_drawn_and_that_is_logged(vocab_file):
    known = about(do_whole_word_mask=True, max_ngram_size=3)
    _, notes = make_masker(vocab_file, 1024, {"a": known})
    assert "max_ngram_size" in notes[1]


def test_masks_need_a_vocabulary():
    with pytest.raises(ValueError, match="needs the vocabulary .* Pass --vocab_file"):
        make_masker("", 1024, {})
