"""Files of other people to documents, and these to sentences."""

import csv
import dataclasses
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.shared import contents
from texts import read_documents

from bert_tf.cli import data
from bert_tf.config.text import ExtractConfig, SentencesConfig
from bert_tf.data.commands import document_files
from bert_tf.data.commands.extract import extract_documents
from bert_tf.data.commands.sentences import make_sentences
from bert_tf.errors import RunError

DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
TEXTS = [f"The cat {n} sat. The dog ran.\nIt was a mat." for n in range(30)]


def config_for(path, tmp_path, **options):
    options = {"num_processes": 1} | options
    return ExtractConfig(
        input=str(path), output_dir=str(tmp_path / "extracted"), **options
    )


def documents_of(folder):
    return [
        json.loads(line)
        for path in sorted(Path(folder).iterdir())
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps({t: {"extract": t} for t in TEXTS})),
        ("a.json", json.dumps([{"extract": t, "id": 1} for t in TEXTS])),
        ("a.JSON", json.dumps(TEXTS)),
        ("a.jsonl", "\n".join(json.dumps({"extract": t}) for t in TEXTS) + "\n\n"),
    ],
    ids=["by title", "list", "strings", "lines"],
)
def test_json_documents_are_read(tmp_path, name, content):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text(content)
    config = config_for(tmp_path / "in", tmp_path, text_field="extract")
    assert extract_documents(config)["documents"] == 30
    assert [d["text"] for d in documents_of(config.output_dir)] == TEXTS


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL"])
def test_a_single_json_line_is_one_document(tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"title": "Sun", "text": TEXTS[0]}))
    config = config_for(tmp_path / name, tmp_path)
    assert extract_documents(config)["documents"] == 1
    assert documents_of(config.output_dir) == [{"title": "Sun", "text": TEXTS[0]}]


def test_a_missing_field_is_reported_with_those_that_are_there(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": "x", "id": 1}\n')
    with pytest.raises(ValueError, match=r"line 1: .*'content', 'id'.*--text_field"):
        extract_documents(config_for(path, tmp_path))


def test_a_field_that_is_no_text_is_reported_with_its_type(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n{"text": 1.5}\n')
    with pytest.raises(
        ValueError, match=r"line 2: .*text, a value of type float: 1\.5"
    ):
        extract_documents(config_for(path, tmp_path))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_without_the_column_names_the_option(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(as_csv(TABLE) if ending == "csv" else as_parquet(TABLE))
    with pytest.raises(ValueError, match="column 'text'.*'extract'.* --text_field"):
        extract_documents(config_for(path, tmp_path))


def test_other_documents_are_refused_as_sentences_with_their_fields(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": "x", "id": 1}\n')
    config = SentencesConfig(
        input=str(path), output_dir=str(tmp_path / "o"), num_processes=1
    )
    with pytest.raises(ValueError, match=r"a.jsonl, line 1: .*with 'content', 'id'"):
        make_sentences(config)


TABLE = [{"title": f"T{n}", "extract": text} for n, text in enumerate(TEXTS)]


def as_csv(rows):
    with io.StringIO(newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return file.getvalue().encode()


def as_parquet(rows):
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=7)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", as_csv(TABLE)),
        ("a.csv.gz", gzip.compress(as_csv(TABLE))),
        ("a.parquet", as_parquet(TABLE)),
        ("a.json.gz", gzip.compress(json.dumps(TABLE).encode())),
        ("a.jsonl.gz", gzip.compress("\n".join(map(json.dumps, TABLE)).encode())),
    ],
)
def test_tables_and_compressed_files_are_read(tmp_path, name, content):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    config = config_for(tmp_path / "in", tmp_path, text_field="extract")
    assert extract_documents(config)["documents"] == 30
    found = documents_of(config.output_dir)
    assert found == [{"title": row["title"], "text": row["extract"]} for row in TABLE]


def test_rows_without_text_are_counted(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(as_parquet([{"text": "One."}, {"text": None}, {"text": " "}]))
    counts = extract_documents(config_for(path, tmp_path))
    assert (counts["documents"], counts["empty"]) == (1, 2)
    [document] = documents_of(tmp_path / "extracted")
    assert document["title"] == "row 1"


def test_a_table_without_the_column_is_refused_with_those_it_has(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(as_csv(TABLE))
    with pytest.raises(ValueError, match="column 'text'. Received: 'title', 'extract'"):
        extract_documents(config_for(path, tmp_path))


def test_a_compressed_text_file_is_a_document(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"One\nis\n\n two.\n"))
    extract_documents(config_for(path, tmp_path))
    [document] = documents_of(tmp_path / "extracted")
    assert document == {"title": "a.txt.gz", "text": "One is\ntwo."}


def test_a_compressed_dump_is_the_dump(tmp_path):
    page = "<page><title>Cat</title><ns>0</ns><revision><text>A cat.</text></revision>"
    text = f"<mediawiki>{page}</page></mediawiki>".encode()
    path = tmp_path / "a.xml.gz"
    path.write_bytes(gzip.compress(text))
    extract_documents(config_for(path, tmp_path))
    [document] = documents_of(tmp_path / "extracted")
    assert document == {"title": "Cat", "text": "A cat."}


def test_titles_are_kept(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"title": "Cat", "text": "x"}, {"text": "y"}]))
    config = config_for(path, tmp_path)
    extract_documents(config)
    titles = [document["title"] for document in documents_of(config.output_dir)]
    assert titles == ["Cat", "entry 1"]


def test_keys_of_an_object_are_titles(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"Cat": "x", "Dog": {"text": "y"}}))
    config = config_for(path, tmp_path)
    extract_documents(config)
    titles = [document["title"] for document in documents_of(config.output_dir)]
    assert titles == ["Cat", "Dog"]


def test_file_of_text_is_a_document_of_paragraphs(tmp_path):
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(f"One of {name}\nis\n\n\n two. \n \n")
    config = config_for(f"{tmp_path}/a.txt,{tmp_path}/b.txt", tmp_path)
    extract_documents(config)
    assert documents_of(config.output_dir) == [
        {"title": name, "text": f"One of {name} is\ntwo."}
        for name in ("a.txt", "b.txt")
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", r"a\.json is not JSON"),
        ("a.json", "5", r"a\.json: must be a JSON list or object"),
        (
            "a.json",
            '{"Cat": {"body": "x"}}',
            r"a\.json, entry 'Cat': .*text_field=text",
        ),
        ("a.json", '[{"text": 5}]', r"a\.json, entry 0: a document must"),
        ("a.jsonl", '{"text": "x"}\n{', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", "5", r"a\.jsonl, line 1: a document must"),
        ("a.json", b'["\xff"]', r"a\.json .*byte 2 \(0xff\) is not UTF-8"),
        ("a.txt", b"\n\n", "holds no document with text"),
        ("a.txt", b"ab\xff", r"a\.txt, line 1: byte 2 of the file"),
        ("a.pdf", b"x", r"`input_format` must be given for .*a\.pdf"),
        ("a.xml", b"<a/>", r"a\.xml: the dump is damaged"),
    ],
)
def test_bad_files_are_refused_with_file_and_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    config = config_for(path, tmp_path)
    with pytest.raises(ValueError, match=message):
        extract_documents(config)
    assert not Path(config.output_dir).exists()


@pytest.fixture
def small_files(monkeypatch):
    """Many files and tasks of a small input."""
    monkeypatch.setattr(document_files, "FILE_BYTES", 400_000)
    monkeypatch.setattr(document_files, "TASK_BYTES", 100_000)


@pytest.mark.slow
def test_real_dump_becomes_sentences(real_data, tmp_path, small_files):
    config = config_for(real_data / "text" / "dump" / DUMP, tmp_path)
    counts = extract_documents(config)
    assert counts["documents"] + counts["empty"] == 106
    assert counts["unparsable"] == 0
    manifest = json.loads(Path(f"{config.output_dir}_manifest.json").read_text())
    noted = [file["counts"]["incomplete_sentences"] for file in manifest["files"]]
    assert sum(noted) == counts["incomplete_sentences"] > 50
    assert len(contents(config.output_dir)) > 5
    sentences = SentencesConfig(
        input=config.output_dir, output_dir=str(tmp_path / "s"), num_processes=1
    )
    made = make_sentences(sentences)
    documents = list(
        read_documents(sorted(map(str, (tmp_path / "s").iterdir())), "google")
    )
    assert len(documents) == made["documents"] == counts["documents"]
    assert sum(map(len, documents)) == made["sentences"] > 15_000
    anarchism = "Anarchism is a political philosophy that advocates self-governed "
    anarchism += "societies based on voluntary institutions."
    assert documents[0][0] == anarchism
    # The same bytes from two processes.
    for command, one in ((extract_documents, config), (make_sentences, sentences)):
        two = dataclasses.replace(one, output_dir=f"{one.output_dir}2", num_processes=2)
        command(two)
        assert contents(two.output_dir) == contents(one.output_dir)


def test_sentences_with_a_hole_are_counted(tmp_path, capsys):
    path = tmp_path / "dump.xml"
    path.write_text(
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">'
        "<page><title>Cat</title><ns>0</ns><revision><text>{{Unknown box}}\n"
        "A cat is {{unknown|1}} old. It sat. So &lt;math&gt;x&lt;/math&gt; is it."
        "</text></revision></page></mediawiki>"
    )
    options = [f"--input={path}", f"--output_dir={tmp_path / 'out'}"]
    data.main(["extract", *options, "--num_processes=1"])
    assert documents_of(tmp_path / "out") == [{"title": "Cat", "text": "It sat."}]
    assert "and 2 sentences with a formula" in capsys.readouterr().out


def test_an_interrupted_extraction_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(document_files, "FILE_BYTES", 300)
    monkeypatch.setattr(document_files, "TASK_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    whole = dataclasses.replace(
        config_for(path, tmp_path), output_dir=str(tmp_path / "whole")
    )
    extract_documents(whole)
    real, calls = document_files.in_order, []

    def fail_in_the_third_file(function, tasks, num_processes):
        for number, result in enumerate(real(function, tasks, num_processes)):
            if number == 7:
                raise RunError("the power failed")
            yield result

    monkeypatch.setattr(document_files, "in_order", fail_in_the_third_file)
    config = config_for(path, tmp_path)
    with pytest.raises(RunError, match="the power failed"):
        extract_documents(config)

    def count(function, tasks, num_processes):
        for result in real(function, tasks, num_processes):
            calls.append(result)
            yield result

    monkeypatch.setattr(document_files, "in_order", count)
    assert extract_documents(config)["documents"] == 30
    assert 0 < sum(counts["documents"] for _, counts in calls) < 25
    assert contents(config.output_dir) == contents(whole.output_dir)


@pytest.mark.parametrize("line", ["5", "{", '{"txt": "x"}', '{"text": 5}', '"x"'])
def test_lines_that_hold_no_document_are_refused(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "x"}) + f"\n{line}\n")
    config = SentencesConfig(
        input=str(path), output_dir=str(tmp_path / "out"), num_processes=1
    )
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: must be a JSON"):
        make_sentences(config)


@pytest.mark.parametrize("name", ["wiki_00", "my.json", "a.jsonl"])
def test_json_lines_are_read_whatever_the_name_of_the_file(tmp_path, name):
    lines = [{"title": "One", "text": "It is."}, {"text": "\u200b"}, {"text": "So."}]
    (tmp_path / "in").mkdir()
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "in" / name).write_text(text)
    config = ExtractConfig(
        input=str(tmp_path / "in"),
        output_dir=str(tmp_path / "out"),
        input_format="json",
        num_processes=1,
    )
    counts = extract_documents(config)
    assert (counts["documents"], counts["empty"]) == (2, 1)


def test_files_without_an_extension_are_text(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "part-00000-of-00500").write_text("It is.")
    config = ExtractConfig(
        input=str(tmp_path / "in"), output_dir=str(tmp_path / "out"), num_processes=1
    )
    assert extract_documents(config)["documents"] == 1


@pytest.mark.parametrize("name", ["b.txt", "b.txt.gz"])
def test_an_empty_text_file_counts_as_one_without_text(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(TEXTS[0])
    content = gzip.compress(b"") if name.endswith(".gz") else b""
    (tmp_path / "in" / name).write_bytes(content)
    counts = extract_documents(config_for(tmp_path / "in", tmp_path))
    assert (counts["documents"], counts["empty"]) == (1, 1)


def test_text_files_are_reported_as_one_document_each(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("One cat.\n\nTwo cats.\n")
    folder = str(tmp_path / "in")
    counts = extract_documents(config_for(folder, tmp_path))
    error = capsys.readouterr().err
    assert counts["documents"] == 1
    assert "Text files (1) are read as one document each" in error
    assert "python -m bert_tf data shard" in error
    shards = ["--n_training_shards=1", "--n_test_shards=1", "--fraction_test_set=0.5"]
    output = f"--output_dir={tmp_path / 'shard'}"
    data.main(["shard", f"--input={folder}", output, *shards])
    found = read_documents(sorted(map(str, tmp_path.glob("shard/*.txt"))), "google")
    assert sorted(found) == [["One cat."], ["Two cats."]]


def test_lines_are_not_reported_as_one_document_each(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("One cat.\nTwo cats.\n")
    extract_documents(config_for(tmp_path / "a.txt", tmp_path, input_format="lines"))
    assert "one document each" not in capsys.readouterr().err
