import dataclasses
import gzip
import hashlib
import json
import os
import resource
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf
from data.shared import contents
from texts import read_documents

from bert_tf.config.data import CreateDataConfig
from bert_tf.config.text import ExtractConfig, SentencesConfig
from bert_tf.data.commands import create
from bert_tf.data.commands.create import create_records, make_group_records
from bert_tf.data.commands.extract import extract_documents
from bert_tf.data.commands.output_folder import RECORD_FILES, OutputFolder
from bert_tf.data.commands.sentences import make_sentences
from bert_tf.data.pretraining import document_groups
from bert_tf.data.pretraining.document_groups import cut_into_groups
from bert_tf.data.records.metadata import read_metadata
from bert_tf.data.records.record_set import open_records
from bert_tf.data.records.schema import RecordShape, ValueLimits
from bert_tf.data.text.documents import read_ranges
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.errors import RunError


@pytest.fixture
def config(vocab_file, text_file, tmp_path):
    return CreateDataConfig(
        input=text_file,
        output_dir=str(tmp_path / "out" / "records"),
        vocab_file=vocab_file,
        do_lower_case=True,
        max_seq_length=32,
        max_predictions_per_seq=5,
        dupe_factor=11,
        num_shards=3,
        num_processes=1,
    )


def parsed(config):
    files = sorted(str(path) for path in Path(config.output_dir).iterdir())
    records = [record.numpy() for record in tf.data.TFRecordDataset(files)]
    shape = RecordShape(config.max_seq_length, config.max_predictions_per_seq)
    features = tf.io.parse_example(records, shape.specification())
    return {name: value.numpy() for name, value in features.items()}


def test_records_hold_the_text(config):
    metadata = create_records(config)
    features = parsed(config)
    ids = features["input_ids"].copy()
    rows, columns = np.nonzero(features["masked_lm_weights"])
    positions = features["masked_lm_positions"][rows, columns]
    ids[rows, positions] = features["masked_lm_ids"][rows, columns]
    assert len(ids) == metadata.new_number_of_samples
    assert np.all(ids[:, 0] == 2)
    np.testing.assert_array_equal(features["input_mask"] == 0, ids == 0)
    # With the masks undone, only words of the text are left.
    tokenizer = WordPieceTokenizer(config.vocab_file)
    [known] = tokenizer.encode([Path(config.input).read_text()])
    assert set(ids.ravel().tolist()) == {*known, 0, 2, 3}


@pytest.mark.parametrize("group_bytes", [500, 1 << 20])
def test_bytes_do_not_depend_on_the_number_of_processes(
    config, tmp_path, monkeypatch, group_bytes
):
    monkeypatch.setattr(document_groups, "GROUP_BYTES", group_bytes)
    folders = []
    for number in (1, 3):
        folders.append(str(tmp_path / f"processes_{number}"))
        create_records(
            dataclasses.replace(config, output_dir=folders[-1], num_processes=number)
        )
    assert contents(folders[0]) == contents(folders[1])


def test_compressed_text_gives_the_same_bytes(config, tmp_path, monkeypatch):
    monkeypatch.setattr(document_groups, "GROUP_BYTES", 500)
    create_records(config)
    path = tmp_path / "text.txt.gz"
    path.write_bytes(gzip.compress(Path(config.input).read_bytes()))
    folder = str(tmp_path / "compressed")
    create_records(dataclasses.replace(config, input=str(path), output_dir=folder))
    assert contents(folder) == contents(config.output_dir)


def test_plain_text_without_its_flag_is_noticed(config, tmp_path, capsys):
    path = tmp_path / "plain.txt"
    path.write_text("The cat sat. The dog ran.\nIt was a mat.\n\nThe dog sat.\n" * 20)
    create_records(dataclasses.replace(config, input=str(path), input_format="google"))
    [line] = [x for x in capsys.readouterr().err.splitlines() if "warning" in x]
    assert "20 of its first 60 lines hold several sentences" in line
    assert "--input_format=text" in line and "--input_format=lines" in line


@pytest.mark.parametrize("most, is_told", [(20, True), (76, False), (80, False)])
def test_a_limit_that_cuts_masks_off_is_noticed(config, capsys, most, is_told):
    sizes = dict(max_seq_length=512, max_predictions_per_seq=most)
    create_records(dataclasses.replace(config, **sizes))
    lines = [x for x in capsys.readouterr().err.splitlines() if "masked_lm_prob" in x]
    assert len(lines) == is_told
    assert not lines or "Pass --max_predictions_per_seq=77" in lines[0]


def test_records_of_lines_are_those_of_the_same_documents_as_json(config, tmp_path):
    texts = [f"The cat sat on mat {n}. The dog ran." for n in range(40)]
    (tmp_path / "lines.txt").write_text("\n".join(texts) + "\n")
    json_lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "documents.jsonl").write_text(json_lines)

    def sentences(file, **options):
        folder, output = (str(tmp_path / f"{file}_{n}") for n in ("json", "split"))
        extract_documents(
            ExtractConfig(input=str(tmp_path / file), output_dir=folder, **options)
        )
        make_sentences(SentencesConfig(input=folder, output_dir=output))
        return output

    inputs = [
        (sentences("documents.jsonl"), "google"),
        (sentences("lines.txt", input_format="lines"), "google"),
        (str(tmp_path / "lines.txt"), "lines"),
    ]
    found = []
    for number, (path, input_format) in enumerate(inputs):
        values = {"input": path, "input_format": input_format}
        output = str(tmp_path / f"records_{number}")
        create_records(dataclasses.replace(config, output_dir=output, **values))
        found.append(contents(output))
    assert found[0] == found[1] == found[2]


def test_other_seed_gives_other_bytes(config, tmp_path):
    create_records(config)
    other = dataclasses.replace(config, output_dir=str(tmp_path / "b"), seed=1)
    create_records(other)
    assert contents(config.output_dir) != contents(other.output_dir)


def test_duplicates_differ(config):
    create_records(dataclasses.replace(config, num_shards=1, dupe_factor=2))
    ids = parsed(config)["input_ids"]
    assert len(np.unique(ids, axis=0)) > 0.9 * len(ids)


def test_metadata_describes_the_files(config):
    assert create_records(config) == read_metadata(config.output_dir)
    metadata = read_metadata(config.output_dir)
    files = contents(config.output_dir)
    assert [shard.name for shard in metadata.shards] == list(files)
    for shard in metadata.shards:
        content = files[shard.name]
        assert shard.bytes == len(content)
        assert int(shard.crc32c, 16) == google_crc32c.value(content)
    counts = [shard.records for shard in metadata.shards]
    assert max(counts) - min(counts) <= 1  # One group, dealt out in turn.
    mask = parsed(config)["input_mask"]
    assert metadata.original_number_of_samples == sum(counts) == len(mask)
    assert metadata.packing_efficiency == pytest.approx(mask.mean())
    assert metadata.padding_tokens_original_dataset == np.sum(mask == 0)
    assert not metadata.packed
    assert metadata.avg_seq_per_sample == 1.0
    vocabulary = Path(config.vocab_file).read_bytes()
    assert metadata.vocab_sha256 == hashlib.sha256(vocabulary).hexdigest()
    assert metadata.vocab_size == len(vocabulary.split())


def documents_of(group):
    return list(read_ranges(group.ranges, "google"))


def test_groups_hold_two_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(document_groups, "GROUP_BYTES", 10)
    sizes = (20, 1, 3, 3, 3, 1, 30, 2)
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join("x" * size for size in sizes))
    found = list(cut_into_groups([str(path)], "google"))
    cut = [[len(d[0]) for d in documents_of(group)] for group in found]
    assert [size for group in cut for size in group] == list(sizes)
    assert len(cut) > 1
    assert min(map(len, cut)) >= 2
    assert [group.number for group in found] == list(range(len(found)))


@pytest.mark.parametrize("junk", ["\x1a", "\u200b", "\x00\x01", "\u0301"])
def test_text_at_the_end_without_tokens_joins_the_documents_before(
    config, tmp_path, monkeypatch, junk
):
    monkeypatch.setattr(document_groups, "GROUP_BYTES", 100)
    path = tmp_path / "a.txt"
    text = Path(config.input).read_text()
    path.write_text(f"{text}\n\nthe cat sat .\n\n{junk}\n", encoding="utf-8")
    metadata = create_records(dataclasses.replace(config, input=str(path)))
    assert metadata.extra["text_summary"]["documents"] == 41
    path.write_text(f"the cat\nsat\n\n{junk}\n", encoding="utf-8")
    one = dataclasses.replace(config, input=str(path), output_dir=str(tmp_path / "o"))
    with pytest.raises(ValueError, match=r"at least two documents.*Received: 1"):
        create_records(one)
    path.write_text(f"{junk}\n\n{junk}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no document with text"):
        create_records(one)


@pytest.mark.parametrize("content", ["", "\n \r\n\n", "\ufeff"])
def test_blank_text_has_no_groups(tmp_path, content):
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    assert list(cut_into_groups([str(tmp_path / "a.txt")], "google")) == []


def test_groups_keep_all_documents(text_file, monkeypatch):
    documents = list(read_documents([text_file], "google"))
    for size in (100, 300, 1000, 5000):
        monkeypatch.setattr(document_groups, "GROUP_BYTES", size)
        found = list(cut_into_groups([text_file], "google"))
        assert [d for group in found for d in documents_of(group)] == documents
        assert sum(group.num_bytes for group in found) == os.path.getsize(text_file)


def test_used_output_dir_is_refused_and_kept(config):
    create_records(config)
    before = contents(config.output_dir)
    with pytest.raises(
        FileExistsError, match="`output_dir` must not hold.*--overwrite"
    ):
        create_records(dataclasses.replace(config, seed=5))
    assert contents(config.output_dir) == before


def test_used_output_dir_is_replaced_when_asked(config):
    create_records(config)
    metadata = create_records(
        dataclasses.replace(config, num_shards=1, seed=5, overwrite=True)
    )
    assert list(contents(config.output_dir)) == ["part-00000-of-00001.tfrecord"]
    assert read_metadata(config.output_dir) == metadata


def test_folder_with_other_files_is_never_replaced(config):
    folder = Path(config.output_dir)
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"holds thesis\.txt"):
        create_records(dataclasses.replace(config, overwrite=True))
    assert (folder / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("num_processes", [1, 2])
def test_failure_in_a_worker_fails_the_job_and_leaves_nothing(
    config, tmp_path, num_processes
):
    (tmp_path / "one.txt").write_text("the cat\nsat\n")
    failing = dataclasses.replace(
        config, input=str(tmp_path / "one.txt"), num_processes=num_processes
    )
    with pytest.raises(ValueError, match="at least two documents"):
        create_records(failing)
    assert list(Path(config.output_dir).parent.iterdir()) == []


def _die(*_):
    os._exit(9)


def test_death_of_a_worker_fails_the_job_and_leaves_nothing(config, monkeypatch):
    monkeypatch.setattr(create, "make_group_records", _die)
    with pytest.raises(RunError, match="worker process died.*num_processes=2"):
        create_records(dataclasses.replace(config, num_processes=2))
    assert list(Path(config.output_dir).parent.iterdir()) == []


def test_failure_while_overwriting_keeps_the_old_records(config, tmp_path):
    create_records(config)
    before = contents(config.output_dir)
    (tmp_path / "bad.txt").write_bytes(b"the cat\n\nsat\n\xff\n")
    bad = dataclasses.replace(config, input=str(tmp_path / "bad.txt"), overwrite=True)
    with pytest.raises(ValueError, match=r"bad\.txt, line 4"):
        create_records(bad)
    assert contents(config.output_dir) == before
    assert read_metadata(config.output_dir) is not None


def test_more_shards_than_records_are_refused(config):
    with pytest.raises(ValueError, match="`num_shards` must.*num_shards=5000"):
        create_records(dataclasses.replace(config, num_shards=5000))


def test_more_shards_than_files_may_be_open_are_written(config):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        metadata = create_records(dataclasses.replace(config, num_shards=400))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(contents(config.output_dir)) == len(metadata.shards) == 400


def many_shards(config, tmp_path, monkeypatch):
    monkeypatch.setattr(document_groups, "GROUP_BYTES", 300)
    whole = dataclasses.replace(config, output_dir=str(tmp_path / "whole"))
    create_records(whole)
    return contents(whole.output_dir)


def test_interrupted_work_resumes_to_the_same_bytes(
    config, tmp_path, monkeypatch, capfd
):
    expected = many_shards(config, tmp_path, monkeypatch)
    made = []

    def make_two_thirds(group, *rest):
        if group.ranges[0].begin > os.path.getsize(config.input) * 0.7:
            raise RunError("the power failed")
        return make_group_records(group, *rest)

    monkeypatch.setattr(create, "make_group_records", make_two_thirds)
    with pytest.raises(RunError, match="the power failed"):
        create_records(config)
    assert not Path(config.output_dir).exists()

    def make_and_count(group, *rest):
        made.append(group.number)
        return make_group_records(group, *rest)

    monkeypatch.setattr(create, "make_group_records", make_and_count)
    create_records(config)
    assert "2 of 3 parts are done" in capfd.readouterr().err
    assert contents(config.output_dir) == expected
    assert min(made) > 3
    assert not Path(f"{config.output_dir}.partial").exists()


@pytest.mark.parametrize("change", ["seed", "text", "file"])
def test_finished_work_is_kept_only_while_nothing_has_changed(
    config, tmp_path, change, capfd
):
    copy = tmp_path / "text.txt"
    copy.write_bytes(Path(config.input).read_bytes())
    config = dataclasses.replace(config, input=str(copy))
    first = create_records(config)
    file = next(Path(config.output_dir).iterdir())
    before = file.stat().st_mtime_ns
    assert create_records(config) == first
    assert file.stat().st_mtime_ns == before
    assert "exists already" in capfd.readouterr().err
    if change == "seed":
        config = dataclasses.replace(config, seed=6)
    elif change == "text":
        copy.write_text(copy.read_text().replace("cat", "dog", 1))
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(FileExistsError, match="must not hold earlier output"):
        create_records(config)


def test_parts_of_other_settings_are_not_used(config, tmp_path, monkeypatch):
    expected = many_shards(config, tmp_path, monkeypatch)

    def fail(*_):
        raise RunError("stop")

    monkeypatch.setattr(create, "_publish", fail)
    with pytest.raises(RunError, match="stop"):
        create_records(dataclasses.replace(config, seed=77))
    monkeypatch.undo()
    monkeypatch.setattr(document_groups, "GROUP_BYTES", 300)
    create_records(config)
    assert contents(config.output_dir) == expected


def test_two_processes_do_not_write_one_folder(config):
    with OutputFolder("create", config.output_dir, RECORD_FILES, {}, []) as output:
        output.begin(overwrite=False)
        with pytest.raises(RunError, match="Another process is writing"):
            create_records(config)


def same_records(first, second, number):
    limits = ValueLimits(vocab_size=1000, type_vocab_size=2)
    parsed = [
        open_records(one.output_dir, limits).parser(np.arange(number))
        for one in (first, second)
    ]
    for name, array in parsed[0].items():
        np.testing.assert_array_equal(array, parsed[1][name])


def test_hdf5_shards_hold_the_same_records(config, tmp_path):
    metadata = create_records(config)
    other = dataclasses.replace(config, format="hdf5", output_dir=str(tmp_path / "h"))
    made = create_records(other)
    names = [f"part-{n:05d}-of-00003.hdf5" for n in range(3)]
    assert list(contents(other.output_dir)) == names
    assert made == read_metadata(other.output_dir)
    assert made.format == "hdf5"
    counts = [shard.records for shard in metadata.shards]
    assert [shard.records for shard in made.shards] == counts
    same_records(config, other, sum(counts))


def test_hdf5_shards_that_are_replaced_hold_the_new_records(config, tmp_path):
    config = dataclasses.replace(config, num_shards=1, seed=2)
    number = create_records(config).new_number_of_samples
    other = dataclasses.replace(config, format="hdf5", output_dir=str(tmp_path / "h"))
    create_records(dataclasses.replace(other, seed=1))
    create_records(dataclasses.replace(other, overwrite=True))
    same_records(config, other, number)


def test_damaged_finished_part_is_made_again(config, tmp_path, monkeypatch):
    expected = many_shards(config, tmp_path, monkeypatch)

    def fail(*_):
        raise RunError("stop")

    monkeypatch.setattr(create, "_publish", fail)
    with pytest.raises(RunError, match="stop"):
        create_records(config)
    part = Path(f"{config.output_dir}.partial", "part-00001-of-00003.tfrecord")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    monkeypatch.undo()
    monkeypatch.setattr(document_groups, "GROUP_BYTES", 300)
    create_records(config)
    assert contents(config.output_dir) == expected


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_of_the_input_is_never_the_output(config, tmp_path, overwrite):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.txt").write_bytes(Path(config.input).read_bytes())
    for target in (folder, tmp_path):
        own = dataclasses.replace(
            config,
            input=str(folder),
            output_dir=str(target),
            overwrite=overwrite,
        )
        with pytest.raises(FileExistsError, match="`output_dir` must not hold the in"):
            create_records(own)
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


def test_refusal_names_what_has_changed(config, tmp_path):
    create_records(config)
    with pytest.raises(
        FileExistsError, match=r"made with seed=12345\. Pass another folder, or --"
    ):
        create_records(dataclasses.replace(config, seed=5))
    # A setting that only one of them has, as widths of packed records.
    manifest = Path(f"{config.output_dir}_manifest.json")
    values = json.loads(manifest.read_text())
    values["settings"]["widths"] = [23, 3]
    manifest.write_text(json.dumps(values))
    with pytest.raises(FileExistsError, match=r"made with widths=\[23, 3\]\. Pass"):
        create_records(config)
    del values["settings"]["widths"]
    manifest.write_text(json.dumps(values))
    (tmp_path / "b.txt").write_text("the cat\n\nsat on\n")
    with pytest.raises(FileExistsError, match="made from other input"):
        create_records(dataclasses.replace(config, input=str(tmp_path / "b.txt")))


def test_shards_of_little_text_are_about_equally_large(config, tmp_path):
    path = tmp_path / "a.txt"
    text = Path(config.input).read_text()
    path.write_text("\n\n".join([text] * 500))
    config = dataclasses.replace(
        config, input=str(path), dupe_factor=1, num_shards=3, num_processes=2
    )
    counts = [shard.records for shard in create_records(config).shards]
    assert max(counts) < 1.5 * min(counts)


def test_absurd_number_of_shards_is_refused_at_once(config):
    with pytest.raises(ValueError, match="`num_shards` must be at most 100,000"):
        dataclasses.replace(config, num_shards=100_000_000)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("a.jsonl", "data extract"),
        ("a.xml.bz2", "data extract"),
        ("a.tfrecord", "data pack"),
        ("a.txt.xz", "unxz"),
        ("a.csv", "data extract"),
    ],
)
def test_other_kinds_of_files_are_not_read_as_text(config, tmp_path, name, remedy):
    (tmp_path / name).write_bytes(b'{"text": "x"}\n\n{"text": "y"}\n')
    with pytest.raises(ValueError, match=rf"must name \*\.txt files.*{remedy}"):
        create_records(dataclasses.replace(config, input=str(tmp_path / name)))
