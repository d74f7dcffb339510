"""What is known of the making of records, and what several folders share."""

import pytest

from bert_tf.data.records.metadata import Metadata, write_metadata
from bert_tf.data.records.provenance import (
    check_vocabularies,
    common_case,
    have_pairs,
    origin_of,
)


def about(sha256="aa", **config):
    return Metadata(
        packed=False,
        avg_seq_per_sample=1.0,
        vocab_size=30,
        vocab_sha256=sha256,
        config=config,
    )


def files(tmp_path, **folders):
    for name, metadata in folders.items():
        (tmp_path / name).mkdir()
        if metadata:
            write_metadata(tmp_path / name, metadata)
    return [str(tmp_path / name / "part") for name in folders]


def test_folders_of_two_vocabularies_are_refused():
    with pytest.raises(ValueError, match="same vocabulary.*aa.*a_metadata.*bb"):
        check_vocabularies({"a": about("aa"), "b": about("bb")})


def test_a_folder_that_names_no_vocabulary_is_passed_over():
    check_vocabularies({"a": about("aa"), "b": about(None), "c": about("aa")})


def test_folders_of_two_cases_are_refused():
    known = {"a": about(do_lower_case=True), "b": about(do_lower_case=False)}
    with pytest.raises(ValueError, match="=True in .*a_metadata.*=False in .*b_meta"):
        common_case(known)


def test_what_folders_share_is_kept_for_records_made_of_them(tmp_path):
    paths = files(
        tmp_path,
        a=about(do_lower_case=False, seed=1),
        b=about(do_lower_case=False, seed=2),
    )
    assert origin_of(paths) == {
        "vocab_size": 30,
        "vocab_sha256": "aa",
        "config": {"do_lower_case": False},
    }


def test_a_folder_without_metadata_leaves_the_origin_unknown(tmp_path):
    assert origin_of(files(tmp_path, a=about(), b=None)) == {}


def test_records_of_earlier_versions_have_pairs():
    assert have_pairs({"a": about(seed=1), "b": about(do_nsp=True)}) is True
    assert have_pairs({"a": about(do_nsp=False)}) is False
    assert have_pairs({"a": about(), "b": about()}) is None  # They state nothing.


def test_folders_with_pairs_and_without_are_refused_with_the_flag():
    known = {"a": about(do_nsp=False), "b": about(seed=1)}
    with pytest.raises(
        ValueError, match="true in .*b_meta.*false in .*a_meta.*--nodo_"
    ):
        have_pairs(known)


@pytest.mark.parametrize("other", [None, about(seed=1), about(do_nsp=True)])
def test_what_is_made_of_records_without_pairs_is_without(tmp_path, other):
    paths = files(tmp_path, a=about(do_nsp=False, seed=1), b=other)
    assert origin_of(paths)["config"]["do_nsp"] is False
