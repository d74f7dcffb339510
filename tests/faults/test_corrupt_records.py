"""Corrupt records are named, or skipped as if they had weight 0."""

import json
import re

import h5py
import numpy as np
import pytest
from conftest import WIDE, require_isa
from faults.counts import count, full_only
from faults.damaged_records import (
    WRONG,
    examples,
    flip,
    location,
    write_packed_set,
    write_set,
)
from integration.launching import run_workers
from runs import (
    assert_equal_to_rounding,
    assert_same_bytes,
    pretraining_flags,
    read_tensors,
    run,
)

from bert_tf.data.records.record_set import SkipSettings, open_records
from bert_tf.data.records.schema import ValueLimits
from bert_tf.errors import RunError

LIMITS = ValueLimits(vocab_size=30, type_vocab_size=2)


def damaged_set(folder, kinds, seed=0):
    """A set with one corrupt record of each kind; returns their numbers, sorted."""
    rng = np.random.default_rng(seed)
    numbers = rng.choice(150, len(kinds), replace=False)
    found = examples()
    for number, kind in zip(numbers, kinds, strict=True):
        if kind in WRONG:
            found[number] = WRONG[kind](found[number], rng)
    write_set(folder, found)
    for number, kind in zip(numbers, kinds, strict=True):
        if kind == "flipped bit":
            flip(folder, number, rng)
    return sorted(numbers.tolist())


def error_of(call):
    """The error that a call raises; None if it does not."""
    try:
        call()
    except RunError as error:
        return error
    return None


def test_every_kind_of_damage_is_named_and_can_be_skipped(tmp_path, figure):
    """In a random record: by file, number and offset, whatever the damage is."""
    kinds = ["flipped bit", *WRONG]
    attempts = count(len(kinds) + 4, 400)
    expected = open_parsed(write_set(tmp_path / "good", examples()))
    named = skipped = 0
    for attempt in range(attempts):
        kind = kinds[attempt % len(kinds)] if attempt < len(kinds) * 20 else kinds[0]
        folder = tmp_path / f"{attempt}"
        [number] = damaged_set(folder, [kind], seed=attempt)
        name, record = location(number)
        error = error_of(lambda path=folder: open_records(str(path), LIMITS))
        pattern = rf"{folder}/{name}, record {record}, byte offset \d+: .*"
        named += bool(error and re.fullmatch(pattern, str(error)))
        skip = SkipSettings((), max_corrupt_records=1)
        features = open_parsed(folder, skip)
        is_good = np.arange(150) != number
        skipped += all(
            np.array_equal(values[is_good], expected[name][is_good])
            and not values[number].any()
            for name, values in features.items()
        )
    figure("corrupt records named by file, record and offset", named, attempts)
    figure("corrupt records skipped alone, as empty rows", skipped, attempts)


def open_parsed(folder, skip=None):
    records = open_records(str(folder), LIMITS, skip=skip)
    return records.parser(np.arange(150))


def flags(config_file, records, output, *more):
    return pretraining_flags(config_file, records, output, *more, steps=10)


def trained(config_file, records, output, *more):
    """All tensors after 10 steps of 16 records, and results on 80 records."""
    evaluation = ["--do_eval", f"--eval_files_dir={records}", "--max_eval_steps=10"]
    arguments = flags(config_file, records, output, *evaluation, *more)
    results = run("pretraining", *arguments)
    return read_tensors(output / "model.ckpt-10"), results


def skipped_names(numbers):
    """The flag that skips records."""
    names = [f"train/{name}:{record}" for name, record in map(location, numbers)]
    return f"--skip_records={','.join(names)}"


KINDS = ["flipped bit", "flipped bit", "weight NaN", "id of no word"]


def test_a_run_that_skips_is_the_run_whose_records_have_weight_0(
    tiny_config_file, tmp_path, figure
):
    """To the last bit; that one reads the same set as packed records of one sequence.

    The steps read each record once, and some twice.
    """
    attempts = count(1, 6)
    for attempt in range(attempts):
        folder = tmp_path / str(attempt)
        numbers = damaged_set(folder / "bad" / "train", KINDS, seed=100 + attempt)
        write_packed_set(folder / "zero" / "train", examples(), numbers)
        # Two workers skip by name, in another test.
        (limit, found), (zero, expected) = (
            trained(tiny_config_file, folder / path / "train", folder / out, *more)
            for out, path, more in (
                ("limit", "bad", ["--max_corrupt_records=4"]),
                ("zero", "zero", []),
            )
        )
        assert_same_bytes(limit, zero)
        assert found == expected
    figure("runs with skipped records equal to weight 0", attempts, attempts)


@full_only
def test_fused_operations_skip_them_as_well(tmp_path):
    """To rounding: they leave out padding, of which an empty row has more."""
    require_isa("avx2")
    config_file = tmp_path / "bert_config.json"
    config_file.write_text(json.dumps(WIDE))
    numbers = damaged_set(tmp_path / "bad" / "train", KINDS)
    write_packed_set(tmp_path / "zero" / "train", examples(), numbers)
    more = ["--max_corrupt_records=4"]
    skipped, _ = trained(config_file, tmp_path / "bad" / "train", tmp_path / "1", *more)
    zero, _ = trained(config_file, tmp_path / "zero" / "train", tmp_path / "2")
    weights = [name for name in zero if "adam" not in name]
    assert_equal_to_rounding(
        {n: skipped[n] for n in weights}, {n: zero[n] for n in weights}, 1e-3
    )


def write_hdf5(path, examples):
    """A file with the datasets of the PyTorch trainers."""
    with h5py.File(path, "w") as file:
        for name in ("input_ids", "input_mask", "segment_ids", "masked_lm_positions"):
            file.create_dataset(name, data=[e[name] for e in examples])
        ids = [e["masked_lm_ids"] for e in examples]
        file.create_dataset("masked_lm_ids", data=ids)
        labels = [e["next_sentence_labels"][0] for e in examples]
        file["next_sentence_labels"] = labels


@pytest.mark.parametrize("name, value", [("input_mask", 2), ("input_ids", 30)])
def test_corrupt_records_of_hdf5_are_skipped_too(tmp_path, name, value):
    (tmp_path / "set").mkdir()
    found = examples()
    found[70][name][0] = value
    write_hdf5(tmp_path / "set" / "part_0.hdf5", found)
    error = error_of(lambda: open_records(str(tmp_path / "set"), LIMITS))
    assert f"set/part_0.hdf5, record 70: `{name}` must be in" in str(error)
    features = open_parsed(tmp_path / "set", SkipSettings((), 1))
    assert np.flatnonzero(features["next_sentence_weights"][:, 0] == 0).tolist() == [70]


def test_a_damaged_chunk_of_hdf5_is_corrupt_records(tmp_path):
    """All of a chunk, and each is named by file and number."""
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "part_0.hdf5"
    found = examples()
    write_hdf5(path, found)
    with h5py.File(path, "a") as file:
        del file["input_ids"]
        ids = np.asarray([e["input_ids"] for e in found])
        file.create_dataset("input_ids", data=ids, chunks=(10, 16), fletcher32=True)
        place = file["input_ids"].id.get_chunk_info(3).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 100] ^= 1
    path.write_bytes(content)
    error = error_of(lambda: open_records(str(tmp_path / "set"), LIMITS))
    assert f"{path}, record 30: " in str(error)
    features = open_parsed(tmp_path / "set", SkipSettings((), 10))
    skipped = np.flatnonzero(features["next_sentence_weights"][:, 0] == 0)
    assert skipped.tolist() == list(range(30, 40))


@pytest.mark.slow
@pytest.mark.horovod
def test_all_workers_skip_the_same_records(tiny_config_file, tmp_path, figure):
    numbers = damaged_set(tmp_path / "bad" / "train", KINDS)
    write_packed_set(tmp_path / "zero" / "train", examples(), numbers)
    sets = {
        "names": ("bad", [skipped_names(numbers)]),
        "zero": ("zero", []),
        "refused": ("bad", ["--max_corrupt_records=3"]),
    }
    runs = {
        name: flags(
            *(tiny_config_file, tmp_path / path / "train", tmp_path / name, *more),
            *("--train_batch_size=8", "--num_accumulation_steps=1"),
        )
        for name, (path, more) in sets.items()
    }
    two = run_workers("../faults/records_worker.py", runs, tmp_path, ["-np", "2"])
    state = {
        name: [{n: x for n, x in rank.items() if "/" in n} for rank in ranks]
        for name, ranks in two.items()
    }
    assert len(state["zero"][0]) == 3 * 46
    assert_same_bytes(*state["zero"], *state["names"])
    for rank in two["refused"]:
        assert "max_corrupt_records=3 records are corrupt" in str(rank["error"])
    assert "4 of 150 records are skipped" in "\n".join(two["names"][0]["messages"])
    figure("runs on two workers with skipped records equal to weight 0", 1, 1)
