import collections
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.pretraining.instances import InstanceMaker, Masker
from bert_tf.data.text.vocabulary import SpecialTokens

SPECIAL = SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4)
# No real token is one that a mask could be replaced by: these are drawn from [0, 50).
VOCAB_SIZE = 50


def make_config(**settings_):
    return CreateDataConfig(input="i", output_dir="o", vocab_file="v", **settings_)


def create_instances(documents, config, seed):
    rng = random.Random(seed)
    masker = Masker(config, SPECIAL, VOCAB_SIZE, ())
    return InstanceMaker(config, SPECIAL, masker, rng).make(documents)


def numbered_documents(num_documents, num_sentences, sentence_length):
    """Every token of the text is another number, in order; documents do not touch."""
    token = 1000
    documents = []
    for _ in range(num_documents):
        token += 1_000
        document = []
        for place in range(num_sentences):
            length = 1 + (place * 7 + token) % (2 * sentence_length - 1)
            document.append(list(range(token, token + length)))
            token += length
        documents.append(document)
    return documents


def restored_segments(instance):
    """The text of a and b with what the masks hide put back."""
    ids = list(instance.input_ids)
    for position, token in zip(
        instance.masked_lm_positions, instance.masked_lm_ids, strict=True
    ):
        ids[position] = token
    first_b = instance.segment_ids.index(1)
    assert ids[0] == SPECIAL.cls
    assert ids[first_b - 1] == ids[-1] == SPECIAL.sep
    return ids[1 : first_b - 1], ids[first_b:-1]


def document_of(token, documents):
    [number] = [
        number
        for number, document in enumerate(documents)
        if document[0][0] <= token <= document[-1][-1]
    ]
    return number


def check(instance, documents, config):
    length = len(instance.input_ids)
    assert length <= config.max_seq_length
    assert instance.segment_ids == sorted(instance.segment_ids)
    assert len(instance.segment_ids) == length
    expected = min(
        config.max_predictions_per_seq, max(1, round(length * config.masked_lm_prob))
    )
    positions = instance.masked_lm_positions
    assert len(positions) == len(instance.masked_lm_ids)
    assert len(positions) == min(expected, length - 3)
    assert positions == sorted(set(positions))
    a, b = restored_segments(instance)
    for segment in (a, b):
        assert segment == list(range(segment[0], segment[0] + len(segment)))
    if instance.is_random_next:
        assert document_of(a[0], documents) != document_of(b[0], documents)
    else:
        assert document_of(a[0], documents) == document_of(b[0], documents)
        assert b[0] > a[-1]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 2**32),
    num_documents=st.integers(2, 6),
    num_sentences=st.integers(1, 30),
    sentence_length=st.integers(1, 40),
    max_seq_length=st.integers(8, 96),
    max_predictions_per_seq=st.integers(1, 20),
    masked_lm_prob=st.floats(0.0, 0.99),
    short_seq_prob=st.floats(0.0, 0.99),
)
def test_any_instances_are_well_formed(
    seed, num_documents, num_sentences, sentence_length, **settings_
):
    config = make_config(**settings_)
    documents = numbered_documents(num_documents, num_sentences, sentence_length)
    instances = create_instances(documents, config, seed)
    assert instances
    for instance in instances:
        check(instance, documents, config)


@pytest.fixture(scope="module")
def many():
    """Some thousand instances of long documents of short sentences."""
    # A chunk of one sentence always gets a random next: without short targets there
    # is hardly one.
    config = make_config(max_seq_length=64, short_seq_prob=0.0)
    documents = numbered_documents(60, 400, 8)
    instances = create_instances(documents, config, 1)
    return documents, instances


def assert_share(count, total, share):
    """Within five standard deviations of the binomial distribution."""
    deviation = math.sqrt(share * (1 - share) / total)
    assert abs(count / total - share) < 5 * deviation, (count, total)


def test_masks_are_80_10_10(many):
    _, instances = many
    masked = kept = drawn = 0
    for instance in instances:
        for position, token in zip(
            instance.masked_lm_positions, instance.masked_lm_ids, strict=True
        ):
            new = instance.input_ids[position]
            kept += new == token
            masked += new == SPECIAL.mask
            drawn += new not in (token, SPECIAL.mask)
    total = masked + kept + drawn
    assert_share(kept, total, 0.1)
    # One random token of 50 is [MASK] itself.
    assert_share(masked, total, 0.8 + 0.1 / VOCAB_SIZE)
    assert_share(drawn, total, 0.1 - 0.1 / VOCAB_SIZE)


def test_masked_share_is_masked_lm_prob(many):
    _, instances = many
    hidden = sum(len(instance.masked_lm_ids) for instance in instances)
    tokens = sum(len(instance.input_ids) for instance in instances)
    assert abs(hidden / tokens - 0.15) < 0.5 / 64  # rounded in each instance


def test_masked_places_are_spread_evenly(many):
    _, instances = many
    full = [i for i in instances if len(i.input_ids) == 64]
    first = sum(p < 32 for i in full for p in i.masked_lm_positions)
    total = sum(len(i.masked_lm_positions) for i in full)
    # 61 places may be masked: not [CLS] and two [SEP], of which the first is in the
    # first half in about half of the instances.
    assert abs(first / total - 0.5) < 0.03


def test_half_of_the_instances_have_a_random_next(many):
    _, instances = many
    assert_share(sum(i.is_random_next for i in instances), len(instances), 0.5)


def test_random_next_comes_from_every_other_document(many):
    documents, instances = many
    others = {
        document_of(restored_segments(i)[1][0], documents)
        for i in instances
        if i.is_random_next
    }
    assert others == set(range(len(documents)))


def test_segment_of_a_true_next_follows_without_a_gap():
    # Instances that fit need no truncation: b then begins right after a.
    documents = numbered_documents(4, 6, 3)
    config = make_config(max_seq_length=256)
    for seed in range(20):
        for instance in create_instances(documents, config, seed):
            a, b = restored_segments(instance)
            if not instance.is_random_next:
                assert b[0] == a[-1] + 1


def test_unused_sentences_are_put_back():
    # Without truncation the a segments and true b segments cover every document once.
    documents = numbered_documents(5, 30, 2)
    config = make_config(max_seq_length=512, short_seq_prob=0.0)
    covered = []
    for instance in create_instances(documents, config, 3):
        a, b = restored_segments(instance)
        assert len(instance.input_ids) < 512
        covered += a if instance.is_random_next else a + b
    every = [token for document in documents for s in document for token in s]
    assert covered == every


def test_share_of_documents_with_short_targets_is_short_seq_prob():
    # Each document is one long sentence after another: one target length per document.
    config = make_config(max_seq_length=64, short_seq_prob=0.3)
    documents = numbered_documents(600, 40, 2)
    instances = create_instances(documents, config, 5)
    longest = {}
    for instance in instances:
        a, _ = restored_segments(instance)
        number = document_of(a[0], documents)
        longest[number] = max(longest.get(number, 0), len(instance.input_ids))
    short = sum(length < 64 for length in longest.values())
    # A target of up to 61 tokens is drawn from 2..61; whole sentences may overshoot a
    # target of the last few lengths to the full 64.
    assert 0.3 * 0.85 - 0.1 < short / len(documents) < 0.3 + 0.1


def test_same_seed_gives_the_same_instances():
    documents = numbered_documents(3, 20, 5)
    config = make_config(max_seq_length=32)
    one, two, other = (create_instances(documents, config, seed) for seed in (7, 7, 8))
    assert one == two
    assert one != other


def test_empty_sentences_and_documents_are_left_out():
    documents = [[[], [1001]], [], [[]], [[2001], [], [2002]]]
    config = make_config()
    instances = create_instances(documents, config, 0)
    assert all(all(restored_segments(instance)) for instance in instances)


@pytest.mark.parametrize("documents", [[], [[[5, 6], [7]]], [[[5]], [], [[]]]])
def test_single_document_is_refused(documents):
    with pytest.raises(ValueError, match="at least two documents.*Received: [01]"):
        create_instances(documents, make_config(), 0)


CONTINUATIONS = range(100, 200)  # 10..99 begin a word.


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 20),
    st.integers(8, 40),
    st.sampled_from([0.0, 0.1, 0.9]),
)
def test_without_pairs_each_token_is_in_one_segment(
    num_documents, num_sentences, sentence_length, max_seq_length, short_seq_prob
):
    documents = numbered_documents(num_documents, num_sentences, sentence_length)
    config = make_config(
        do_nsp=False, max_seq_length=max_seq_length, short_seq_prob=short_seq_prob
    )
    found = []
    for instance in create_instances(documents, config, seed=1):
        ids = list(instance.input_ids)
        places = zip(instance.masked_lm_positions, instance.masked_lm_ids, strict=True)
        for position, token in places:
            ids[position] = token
        assert (ids[0], ids[-1]) == (SPECIAL.cls, SPECIAL.sep)
        assert len(ids) <= max_seq_length and instance.masked_lm_ids
        assert instance.segment_ids == [0] * len(ids)
        assert not instance.is_random_next
        assert document_of(ids[1], documents) == document_of(ids[-2], documents)
        found += ids[1:-1]
    assert found == [x for document in documents for s in document for x in s]


def test_without_pairs_segments_are_whole_sentences_that_fit():
    """Of 10 tokens, 8 are text: 3 + 4, then 5, then 8 of 9, and the rest with 2."""
    sizes, token, document = (3, 4, 5, 9, 2), 100, []
    for size in sizes:
        document.append(list(range(token, token + size)))
        token += size
    config = make_config(do_nsp=False, max_seq_length=10, short_seq_prob=0.0)
    instances = create_instances([document], config, seed=1)
    assert [len(one.input_ids) - 2 for one in instances] == [7, 5, 8, 3]


def make_masker(**options):
    options = {"do_whole_word_mask": True, "max_predictions_per_seq": 20} | options
    config = CreateDataConfig(input="i", output_dir="o", vocab_file="v", **options)
    return Masker(config, SPECIAL, 200, CONTINUATIONS)


def masked_positions(masker, segments, seed):
    ids, positions_of = [2], []
    for segment in segments:
        positions_of.append(range(len(ids), len(ids) + len(segment)))
        ids += [*segment, 3]
    before = list(ids)
    positions, labels = masker.mask(ids, positions_of, random.Random(seed))
    assert labels == [before[position] for position in positions]
    untouched = set(range(len(ids))) - set(positions)
    assert all(ids[position] == before[position] for position in untouched)
    return positions, positions_of


def words_of(segments, positions_of):
    """Each word as the set of its positions, found another way than by the masker."""
    words = []
    for segment, own_positions in zip(segments, positions_of, strict=True):
        for number, (token, position) in enumerate(
            zip(segment, own_positions, strict=True)
        ):
            if token in CONTINUATIONS and number:
                words[-1].add(position)
            else:
                words.append({position})
    return words


SEGMENTS = st.lists(
    st.lists(st.integers(10, 199), min_size=1, max_size=40), min_size=2, max_size=2
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(SEGMENTS, st.integers(1, 4), st.integers(0, 10**6))
def test_words_are_masked_as_a_whole(segments, max_ngram_size, seed):
    masker = make_masker(max_ngram_size=max_ngram_size)
    positions, positions_of = masked_positions(masker, segments, seed)
    length = sum(map(len, segments)) + 3
    assert len(positions) <= min(20, max(1, round(0.15 * length)))
    assert positions == sorted(set(positions))
    for word in words_of(segments, positions_of):
        assert word <= set(positions) or word.isdisjoint(positions)


def test_all_words_are_masked_equally_often():
    segments = [[10, 100, 11, 12, 101, 102], [100, 13, 14, 15]]
    masker = make_masker(masked_lm_prob=0.3)
    counts = collections.Counter()
    for seed in range(6000):
        counts.update(masked_positions(masker, segments, seed)[0])
    # Of 13 tokens 4 are masked. Words of one token are equivalent to each other, so
    # their shares agree within five standard deviations of a share of 1/3: 0.03.
    ones = [counts[position] / 6000 for position in (3, 9, 10, 11)]
    assert max(ones) - min(ones) < 0.03
    assert counts[1] == counts[2]
    assert counts[4] == counts[5] == counts[6]


def test_ngrams_favour_fewer_words():
    # Words of one token, so far apart in number that n-grams rarely touch.
    segments = [list(range(10, 90)) * 3, [10]]
    masker = make_masker(max_ngram_size=3, masked_lm_prob=0.01)
    sizes = collections.Counter()
    for seed in range(3000):
        positions, _ = masked_positions(masker, segments, seed)
        assert len(positions) == 2
        sizes[positions[1] - positions[0] == 1] += 1
    # The first unit has 1, 2 or 3 words with probability 6/11, 3/11, 2/11; three do not
    # fit. Two positions are one pair if the first fitting unit is one: 3/9; two single
    # ones are neighbours with probability 2/240 (the ends aside).
    assert abs(sizes[True] / 3000 - (1 / 3 + 2 / 3 * 2 / 240)) < 0.05


@pytest.mark.parametrize("n", [2, 5])
def test_ngrams_without_whole_words_are_refused(n):
    with pytest.raises(ValueError, match="`max_ngram_size` must be 1 unless"):
        make_masker(do_whole_word_mask=False, max_ngram_size=n)
