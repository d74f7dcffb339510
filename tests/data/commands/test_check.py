"""`data check` counts what a text holds; --dedup leaves repeated documents out."""

import collections
import gzip
import json

import numpy as np
import pytest
from texts import read_documents

from bert_tf import cli
from bert_tf.cli.data import main
from bert_tf.config.data import CreateDataConfig
from bert_tf.config.text import CheckConfig, SentencesConfig
from bert_tf.data.commands.check import check_text, describe_text
from bert_tf.data.commands.create import create_records
from bert_tf.data.commands.sentences import make_sentences
from bert_tf.data.records.metadata import read_metadata

DOCUMENTS = ["the cat sat\non a mat", "Это кот", "the cat sat\non a mat", "北京 é"]


def check(path, **options):
    return check_text(CheckConfig(input=str(path), num_processes=1, **options))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(DOCUMENTS) + "\n", encoding="utf-8")
    return path


def test_documents_lengths_and_blocks_are_counted(text):
    found = check(text)
    lengths = [len(document) for document in DOCUMENTS]
    assert found["documents"] == 4
    assert found["repeated_documents"] == 1
    assert found["repeated"] == [f"{text}, document 3 (exact)"]
    assert found["characters"]["mean"] == np.mean(lengths)
    assert found["characters"]["p0"] == min(lengths)
    assert found["characters"]["p100"] == max(lengths)
    letters = [c for c in "".join(DOCUMENTS) if not c.isspace()]
    kinds = collections.Counter(
        "Basic Latin"
        if c.isascii()
        else {"é": "Latin-1 Supplement", "北": "CJK", "京": "CJK"}.get(c, "Cyrillic")
        for c in letters
    )
    kinds["CJK Unified Ideographs"] = kinds.pop("CJK")
    assert found["blocks"] == {n: k / len(letters) for n, k in kinds.items()}


def test_repeated_documents_that_are_not_listed_are_counted(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(["the cat sat"] * 46 + ["a dog"]) + "\n")
    found = check(path)
    *_, fifth, last = describe_text(found)
    assert fifth == f"repeats an earlier one: {path}, document 6 (exact)"
    assert last == "and 40 more"
    assert found["repeated_documents"] == 45
    path.write_text("\n\n".join(["the cat sat"] * 6) + "\n")
    *_, last = describe_text(check(path))
    assert last == fifth


def test_plain_text_without_its_format_is_noticed(tmp_path, capsys):
    path = tmp_path / "plain.txt"
    path.write_text("The cat sat. The dog ran.\n" * 20)
    assert check(path)["documents"] == 1
    [line] = [x for x in capsys.readouterr().err.splitlines() if "warning" in x]
    assert "20 of its first 20 lines hold several sentences" in line
    assert "--input_format=lines" in line
    assert check(path, input_format="lines")["documents"] == 20
    assert "warning" not in capsys.readouterr().err


def test_every_format_and_gzip_give_the_same_documents(text, tmp_path):
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(text.read_bytes()))
    lines = [json.dumps({"title": "t", "body": x}) + "\n" for x in DOCUMENTS]
    (tmp_path / "text.jsonl").write_text("".join(lines))
    (tmp_path / "text.csv").write_text(
        "body\n" + "".join(f'"{x}"\n' for x in DOCUMENTS), encoding="utf-8"
    )
    expected = check(text)
    for name in ("text.txt.gz", "text.jsonl", "text.csv"):
        found = check(tmp_path / name, text_field="body")
        for key in ("documents", "repeated_documents", "characters", "blocks"):
            assert found[key] == expected[key], (name, key)


def test_unknown_words_are_counted_with_a_vocabulary(text, vocab_file):
    found = check(text, vocab_file=vocab_file)
    assert found["tokenized_sampled"] == 4
    assert 0 < found["unknown_share"] < 1
    np.testing.assert_allclose(
        found["unknown_share"], found["unknown_sampled"] / found["tokens_sampled"]
    )


def test_words_are_normalised_as_the_files_of_the_vocabulary_say(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("The Cat Sat\n")
    vocab_file = tmp_path / "model" / "vocab.txt"
    vocab_file.parent.mkdir()
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat".split()
    vocab_file.write_text("\n".join(words))
    found = check(tmp_path / "text.txt", vocab_file=str(vocab_file))
    assert found["unknown_sampled"] == 0
    assert f"lower-case, accents stripped, by the letters of {vocab_file}" in (
        capsys.readouterr().err
    )
    config_file = vocab_file.with_name("tokenizer_config.json")
    config_file.write_text('{"do_lower_case": false}')
    found = check(tmp_path / "text.txt", vocab_file=str(vocab_file))
    assert found["unknown_sampled"] == 3
    assert f"cased, accents kept, by {config_file}" in capsys.readouterr().err


def test_the_result_does_not_depend_on_the_processes(text_file, vocab_file):
    one = check(text_file, vocab_file=vocab_file)
    config = CheckConfig(input=text_file, vocab_file=vocab_file, num_processes=2)
    assert check_text(config) == one


def test_the_command_prints_a_table_or_json(text, capsys):
    main(["check", f"--input={text}", "--num_processes=1"])
    table = capsys.readouterr().out
    assert "repeated" in table and "1 (25.00%)" in table and "Cyrillic" in table
    main(["check", f"--input={text}", "--num_processes=1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert "\n".join(describe_text(found)) == table.rstrip("\n")


@pytest.mark.parametrize(
    "name, content, problem",
    [
        ("empty.txt", b"", "holds no document with text"),
        ("latin.txt", "é\n".encode("latin-1"), "is not UTF-8"),
        ("rows.jsonl", b'{"body": "x"}\n', "text_field"),
        ("cut.txt.gz", gzip.compress(b"text " * 999)[:40], "whole gzip file"),
    ],
    ids=["empty", "latin-1", "other column", "cut"],
)
def test_bad_input_is_one_line(name, content, problem, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(content)
    code = cli.main(["data", "check", f"--input={path}", "--num_processes=1"])
    captured = capsys.readouterr()
    assert code == 1 and problem in captured.err and not captured.out
    assert "Traceback" not in captured.err and name in captured.err


def test_repeated_documents_make_no_records(text_file, vocab_file, tmp_path):
    doubled = tmp_path / "doubled.txt"
    content = open(text_file).read()
    doubled.write_text(f"{content}\n\n{content}")
    values = dict(vocab_file=vocab_file, num_processes=1, do_lower_case=True)
    values |= dict(max_seq_length=32, max_predictions_per_seq=5, dupe_factor=2)
    made = {}
    for name, source, dedup in (("once", text_file, ""), ("twice", doubled, "exact")):
        output = str(tmp_path / name)
        create_records(
            CreateDataConfig(
                input=str(source), output_dir=output, dedup=dedup, **values
            )
        )
        made[name] = read_metadata(output).extra["text_summary"]
    assert made["twice"]["documents"] == made["once"]["documents"]
    assert made["twice"]["repeated_documents"] == 0
    assert made["twice"]["text_tokens"] == made["once"]["text_tokens"]


def test_repeated_documents_make_no_sentences(tmp_path):
    source = tmp_path / "in" / "part-0.jsonl"
    source.parent.mkdir()
    texts = ["One here. Two here.", "Another.", "One here. Two here. "]
    source.write_text("".join(json.dumps({"text": x}) + "\n" for x in texts))
    config = SentencesConfig(
        input=str(source),
        output_dir=str(tmp_path / "out"),
        dedup="exact",
        num_processes=1,
    )
    counts = make_sentences(config)
    assert (counts["documents"], counts["repeated"]) == (2, 1)
    paths = sorted(map(str, (tmp_path / "out").iterdir()))
    expected = [["One here.", "Two here."], ["Another."]]
    assert list(read_documents(paths, "google")) == expected


def test_dedup_alone_means_exact(text, vocab_file, tmp_path, capsys):
    words = [f"--input={text}", f"--vocab_file={vocab_file}", "--num_processes=1"]
    main(["create", *words, f"--output_dir={tmp_path}/records", "--dedup"])
    assert "--dedup=exact: left out 1 document " in capsys.readouterr().err
