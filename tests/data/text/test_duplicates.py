"""Repeated documents: exact ones all, near ones nearly all, others none."""

import random
import sys

import pytest

from bert_tf.data.text.duplicates import make_finder


def documents(count, seed=0, length=60):
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(3000)]
    return [" ".join(rng.choices(words, k=length)) for _ in range(count)]


def edited(text, share, seed):
    rng = random.Random(seed)
    words = text.split()
    for place in rng.sample(range(len(words)), round(share * len(words))):
        words[place] = f"other{place}"
    return " ".join(words)


def test_every_exact_copy_is_found_and_nothing_else():
    texts = documents(200)
    find = make_finder("exact")
    assert not any(find(texts))
    assert all(find(texts[::-1]))
    assert find(["new", "new ", "new"]) == [False, False, True]


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_nearly_all_near_copies_are_found(share):
    pytest.importorskip("rensa", reason="rensa is the extra `dedup`")
    texts = documents(400)
    find = make_finder("near")
    assert not any(find(texts))
    copies = [edited(text, share, number) for number, text in enumerate(texts)]
    assert sum(find(copies)) >= 0.95 * len(copies)
    assert not any(find(documents(100, seed=1)))


def test_near_ones_without_the_package_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(ValueError, match=r"`dedup` must be exact .*bert_tf\[dedup\]"):
        make_finder("near")
