import collections
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.pretraining.masking import Masker
from bert_tf.data.text.tokenization import SpecialTokens

SPECIAL = SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4)
CONTINUATIONS = range(100, 200)  # 10..99 begin a word.


def make_masker(**options):
    options = {"do_whole_word_mask": True, "max_predictions_per_seq": 20} | options
    config = CreateDataConfig(input="i", output_dir="o", vocab_file="v", **options)
    return Masker(config, SPECIAL, 200, CONTINUATIONS)


def masked_places(masker, segments, seed):
    ids, places = [2], []
    for segment in segments:
        places.append(range(len(ids), len(ids) + len(segment)))
        ids += [*segment, 3]
    before = list(ids)
    positions, labels = masker.mask(ids, places, random.Random(seed))
    assert labels == [before[place] for place in positions]
    untouched = set(range(len(ids))) - set(positions)
    assert all(ids[place] == before[place] for place in untouched)
    return positions, places


def words_of(segments, places):
    """Each word as the set of its places, found another way than by the masker."""
    words = []
    for segment, segment_places in zip(segments, places, strict=True):
        for number, (token, place) in enumerate(
            zip(segment, segment_places, strict=True)
        ):
            if token in CONTINUATIONS and number:
                words[-1].add(place)
            else:
                words.append({place})
    return words


SEGMENTS = st.lists(
    st.lists(st.integers(10, 199), min_size=1, max_size=40), min_size=2, max_size=2
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(SEGMENTS, st.integers(1, 4), st.integers(0, 10**6))
def test_words_are_masked_as_a_whole(segments, max_ngram_size, seed):
    masker = make_masker(max_ngram_size=max_ngram_size)
    positions, places = masked_places(masker, segments, seed)
    length = sum(map(len, segments)) + 3
    assert len(positions) <= min(20, max(1, round(0.15 * length)))
    assert positions == sorted(set(positions))
    for word in words_of(segments, places):
        assert word <= set(positions) or word.isdisjoint(positions)


def test_all_words_are_masked_equally_often():
    segments = [[10, 100, 11, 12, 101, 102], [100, 13, 14, 15]]
    masker = make_masker(masked_lm_prob=0.3)
    counts = collections.Counter()
    for seed in range(6000):
        counts.update(masked_places(masker, segments, seed)[0])
    # Of 13 tokens 4 are masked. Words of one token are equivalent to each other, so
    # their shares agree within five standard deviations of a share of 1/3: 0.03.
    ones = [counts[place] / 6000 for place in (3, 9, 10, 11)]
    assert max(ones) - min(ones) < 0.03
    assert counts[1] == counts[2]
    assert counts[4] == counts[5] == counts[6]


def test_ngrams_favour_fewer_words():
    # Words of one token, so far apart in number that n-grams rarely touch.
    segments = [list(range(10, 90)) * 3, [10]]
    masker = make_masker(max_ngram_size=3, masked_lm_prob=0.01)
    sizes = collections.Counter()
    for seed in range(3000):
        positions, _ = masked_places(masker, segments, seed)
        assert len(positions) == 2
        sizes[positions[1] - positions[0] == 1] += 1
    # The first unit has 1, 2 or 3 words with probability 6/11, 3/11, 2/11; three do not
    # fit. Two places are one pair if the first fitting unit is one: 3/9; two single
    # ones are neighbours with probability 2/240 (the ends aside).
    assert abs(sizes[True] / 3000 - (1 / 3 + 2 / 3 * 2 / 240)) < 0.05


@pytest.mark.parametrize("n", [2, 5])
def test_ngrams_without_whole_words_are_refused(n):
    with pytest.raises(ValueError, match="`max_ngram_size` must be 1 unless"):
        make_masker(do_whole_word_mask=False, max_ngram_size=n)
