"""Entities and their scores, as seqeval counts them."""

import numpy as np
import pytest
import seqeval.metrics
import seqeval.metrics.sequence_labeling as theirs

from bert_tf.evaluation.tagging import (
    Entity,
    entities,
    entity_metrics,
    split_tags,
    write_tags,
)

TAGS = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("PER", "a-b"))]


def random_tags(seed, choices, count=200):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, count)
    return [rng.choice(choices, length).tolist() for length in lengths]


def test_an_entity_is_a_b_and_the_i_of_its_type_after_it():
    tags = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-PER"]
    expected = [("PER", 0, 2), ("LOC", 3, 4), ("LOC", 4, 5), ("PER", 5, 6)]
    assert entities(tags) == [Entity(*each) for each in expected]


@pytest.mark.parametrize("choices", [TAGS, TAGS[:5], ["O", "B", "I"]])
def test_entities_are_those_of_seqeval(choices):
    for tags in random_tags(1, choices):
        expected = [(kind, a, b + 1) for kind, a, b in theirs.get_entities(tags)]
        plain = [(kind or "_", a, b) for kind, a, b in entities(tags)]
        assert plain == expected, tags


@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_seqeval():
    true, predicted = random_tags(2, TAGS[:5]), random_tags(2, TAGS[:5])
    rng = np.random.default_rng(3)
    for tags in predicted:
        tags[rng.integers(len(tags))] = str(rng.choice(TAGS[:5]))
    ours = entity_metrics(true, predicted)
    for name in ("precision", "recall", "f1"):
        expected = getattr(seqeval.metrics, f"{name}_score")(true, predicted)
        assert ours[name] == pytest.approx(expected)
    report = seqeval.metrics.classification_report(true, predicted, output_dict=True)
    for kind in ("PER", "a-b"):
        assert ours[f"f1_{kind}"] == pytest.approx(report[kind]["f1-score"])
    assert 0 < ours["f1"] < 1


def test_without_entities_all_scores_are_0():
    assert entity_metrics([["O"]], [["O"]]) == {"precision": 0, "recall": 0, "f1": 0}


def test_equal_words_in_other_sentences_are_no_hits():
    assert entity_metrics([["B-X"], ["O"]], [["O"], ["B-X"]])["f1"] == 0.0


def test_tags_are_split_by_the_lengths_of_sentences():
    found = split_tags(np.array([0, 1, 1]), [2, 0, 1], ["O", "B"])
    assert found == [["O", "B"], [], ["B"]]


def test_a_file_of_tags_has_a_word_per_line(tmp_path):
    path = tmp_path / "a.conll"
    write_tags(str(path), [["New York", "is"], ["it"]], [["B-LOC", "O"], ["O"]])
    assert path.read_text() == "New York\tB-LOC\nis\tO\n\nit\tO\n\n"
