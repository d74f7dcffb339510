"""Pre-training with an own vocabulary, from an encoder, and of the masked LM alone."""

import json
import shutil
import types

import numpy as np
import pytest
import runs
from conftest import TINY

from bert_tf.config import BertConfig
from bert_tf.config.data import CreateDataConfig, PackDataConfig
from bert_tf.config.models import ConvertOptions
from bert_tf.data.commands.create import create_records
from bert_tf.data.commands.pack import pack_records
from bert_tf.data.records import metadata
from bert_tf.data.records.metadata import metadata_file, read_metadata
from bert_tf.distribute import Communicator
from bert_tf.errors import RunError
from bert_tf.features import FeatureExtractor
from bert_tf.interop.pretrained import from_pretrained, save_pretrained
from bert_tf.interop.weight_conversion import convert
from bert_tf.jobs import classifier, pretraining
from bert_tf.modeling.models import build_encoder_model
from bert_tf.predictors import MaskFiller

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the cat sat on a mat ran dog . under".split()
SENTENCES = ["The cat sat on a mat.", "A dog ran.", "The dog sat under the mat."]
SIZE = len(SPECIAL + WORDS)
POOLER_AND_PAIRS = {
    *("bert/pooler/dense/kernel", "bert/pooler/dense/bias"),
    *("cls/seq_relationship/output_weights", "cls/seq_relationship/output_bias"),
}


def make_records(top, name, text, **settings):
    path = top / f"{name}.txt"
    path.write_text(text)
    config = CreateDataConfig(
        input=str(path),
        output_dir=str(top / name),
        vocab_file=str(top / "vocab.txt"),
        max_seq_length=16,
        max_predictions_per_seq=3,
        num_processes=1,
        **settings,
    )
    create_records(config)


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A vocabulary, records with pairs, and without: plain and packed."""
    top = tmp_path_factory.mktemp("top")
    (top / "vocab.txt").write_text("\n".join(SPECIAL + WORDS) + "\n")
    document = "\n".join(SENTENCES * 4)
    make_records(top, "pairs", f"{document}\n\n{document}\n", dupe_factor=2)
    # One document: pairs would need two.
    make_records(top, "single", document, dupe_factor=8, do_nsp=False)
    folders = {"input_dir": str(top / "single"), "output_dir": str(top / "packed")}
    pack_records(PackDataConfig(**folders, num_processes=1))
    (top / "bert_config.json").write_text(json.dumps(TINY | {"vocab_size": SIZE}))
    return top


def arguments(top, output_dir, *more, records="single", **values):
    files = {
        "bert_config_file": top / "bert_config.json",
        "input_files_dir": top / records,
        "output_dir": output_dir,
        "train_batch_size": 4,
        "num_train_steps": 2,
        **values,
    }
    named = [f"--{name}={value}" for name, value in files.items() if value]
    return ["--do_train", *named, *more]


def run(*command, **values):
    return runs.run("pretraining", *arguments(*command, **values))


def prepare(*command, **values):
    """The plan of a run that is not started."""
    config = runs.parse("pretraining", *arguments(*command, **values))
    return pretraining.prepare(config, Communicator())


# A preset with an own vocabulary.


@pytest.mark.parametrize("given", ["records", "vocab_file"])
def test_a_preset_takes_the_size_of_the_vocabulary(top, tmp_path, given):
    values = {"bert_config_file": "", "preset": "tiny"}
    source = metadata_file(top / "pairs")
    if given == "vocab_file":
        source = values["vocab_file"] = str(top / "vocab.txt")
    plan = prepare(top, tmp_path / "run", records="pairs", **values)
    [note] = [note for note in plan.notes if "--preset" in note]
    assert note == f"--preset=tiny: vocab_size=15 instead of 30522, from {source}."
    table = plan.task.model.trainable_variables[0]
    assert (plan.bert.vocab_size, table.shape) == (15, (15, 128))


@pytest.mark.parametrize(
    ("flags", "is_told"),
    [
        ((), True),
        (("--learning_rate=0.007",), False),
        (("--optimizer_type=adamw",), False),
    ],
)
def test_the_default_rate_of_lamb_is_named_as_low(top, tmp_path, flags, is_told):
    lines = []
    log = types.SimpleNamespace(message=lines.append)
    session = types.SimpleNamespace(threads=1, log=log)
    pretraining.describe(prepare(top, tmp_path / "run", *flags), session)
    assert ["0.006 is usual" in line for line in lines].count(True) == is_told


def test_the_metadata_of_a_folder_is_read_once(top, tmp_path, monkeypatch):
    reads = []
    parse = metadata.parse_json
    monkeypatch.setattr(metadata, "parse_json", lambda x: reads.append(x) or parse(x))
    shutil.copy(top / "vocab.txt", tmp_path)
    make_records(tmp_path, "two", "\n".join(SENTENCES * 4), num_shards=2, do_nsp=False)
    reads.clear()
    prepare(top, tmp_path / "run", records=tmp_path / "two")
    assert len(reads) == 1


def test_a_preset_of_another_width_than_the_weights_is_refused(top, tmp_path, encoder):
    values = {"bert_config_file": "", "preset": "mini", "init_checkpoint": encoder}
    with pytest.raises((RunError, ValueError), match="Drop --bert_config_file and"):
        prepare(top, tmp_path / "run", **values)


@pytest.mark.parametrize("words", [WORDS[:-1], [*WORDS, "more"], WORDS[::-1]])
def test_a_vocabulary_that_is_not_the_records_is_refused(top, tmp_path, words):
    (tmp_path / "vocab.txt").write_text("\n".join(SPECIAL + words) + "\n")
    values = {"preset": "tiny", "vocab_file": tmp_path / "vocab.txt"}
    with pytest.raises(ValueError, match="the records were made with another vocab"):
        prepare(top, tmp_path / "run", bert_config_file="", **values)


# From an encoder.


@pytest.fixture(scope="module")
def encoder(top, tmp_path_factory):
    """A transformers folder without heads."""
    config = BertConfig(**TINY | {"vocab_size": SIZE})
    folder = tmp_path_factory.mktemp("encoder")
    vocab_file = str(top / "vocab.txt")
    save_pretrained(build_encoder_model(config, seed=9), folder, vocab_file=vocab_file)
    return folder


def test_pretraining_starts_from_an_encoder(top, tmp_path, encoder):
    values = {"records": "pairs", "bert_config_file": "", "init_checkpoint": encoder}
    plan = prepare(top, tmp_path / "run", **values)
    found = {v.path: v.numpy() for v in plan.task.model.trainable_variables}
    for variable in from_pretrained(encoder).trainable_variables:
        np.testing.assert_array_equal(found[variable.path], variable.numpy())
    [line] = [note for note in plan.notes if "newly initialised" in note]
    new = {*line.partition("newly initialised: ")[2].split(", ")}
    assert new == {name for name in found if name.startswith("cls/")}
    words = (top / "vocab.txt").read_bytes()
    assert plan.model_files["vocab.txt"] == words
    # Initialised, not zero: Devlin et al. 2019 draw with a deviation of 0.02.
    assert 0.01 < found["cls/predictions/transform/dense/kernel"].std() < 0.03


def test_an_encoder_of_another_width_is_refused(top, tmp_path, encoder):
    wide = json.loads((top / "bert_config.json").read_text()) | {"hidden_size": 16}
    (tmp_path / "wide.json").write_text(json.dumps(wide))
    values = {"bert_config_file": tmp_path / "wide.json", "init_checkpoint": encoder}
    with pytest.raises(RunError, match=r"must have shape \(15, 16\), found \(15, 8\)"):
        prepare(top, tmp_path / "run", **values)


def test_an_encoder_alone_is_not_evaluated(top, tmp_path, encoder):
    values = {"init_checkpoint": encoder, "eval_files_dir": top / "pairs"}
    with pytest.raises(RunError, match="cls/predictions/.* is missing"):
        prepare(top, tmp_path / "run", "--nodo_train", "--do_eval", **values)


# Of the masked LM alone.


@pytest.fixture(scope="module")
def trained(top, tmp_path_factory):
    """A pre-training of two steps, whose records say that they have no pairs."""
    folder = tmp_path_factory.mktemp("trained")
    results = run(top, folder, "--do_eval", eval_files_dir=top / "single")
    return folder, results


def test_weights_without_its_head_are_evaluated_without_it(top, trained, tmp_path):
    results = runs.run(
        "pretraining",
        *("--do_eval", f"--bert_config_file={top / 'bert_config.json'}"),
        *(f"--eval_files_dir={top / 'pairs'}", f"--output_dir={tmp_path}"),
        f"--init_checkpoint={trained[0] / 'model.ckpt-2'}",
    )
    assert results["loss"] == results["masked_lm_loss"]


def test_without_pairs_there_is_one_loss(trained):
    folder, results = trained
    assert {*results} == {
        *("masked_lm_loss", "masked_lm_accuracy", "masked_lm_count", "loss"),
        *("sequence_count", "global_step"),
    }
    assert results["loss"] == results["masked_lm_loss"]
    assert runs.logged_values(folder, "nsp_loss") == []
    # Random weights of this size guess about evenly among 15 words: ln 15 = 2.7.
    [(_, first), *_] = runs.logged_values(folder, "mlm_loss")
    assert first == pytest.approx(np.log(15), abs=0.3)
    names = {*runs.read_tensors(folder / "model.ckpt-2")}
    assert not names & POOLER_AND_PAIRS
    assert "cls/predictions/output_bias" in names


def test_packed_records_without_pairs_give_the_same_results(top, trained):
    folder, plain = trained
    more = {"records": "packed", "init_checkpoint": folder}
    more |= {"eval_files_dir": top / "packed", "output_dir": folder / "of_packed"}
    found = run(top, more.pop("output_dir"), "--nodo_train", "--do_eval", **more)
    assert read_metadata(top / "packed").avg_seq_per_sample >= 1
    for name in ("masked_lm_loss", "masked_lm_accuracy", "sequence_count"):
        assert found[name] == pytest.approx(plain[name], rel=1e-5)


def test_a_run_without_pairs_resumes_without_the_flag(top, trained, tmp_path):
    folder, _ = trained
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(top, whole, num_train_steps=3)
    run(top, parts, num_train_steps=3, steps_this_run=2)
    run(top, parts, num_train_steps=3)
    found = runs.read_tensors(parts / "model.ckpt-3")
    runs.assert_same_bytes(runs.read_tensors(whole / "model.ckpt-3"), found)
    with pytest.raises(RunError, match="has no head for it.* Pass --nodo_nsp, or"):
        run(top, parts, "--do_nsp", num_train_steps=4)


def test_a_run_with_pairs_does_not_lose_them_unnoticed(top, tmp_path):
    folder = tmp_path / "run"
    run(top, folder, records="pairs")
    more = {"records": "pairs", "num_train_steps": 3}
    with pytest.raises(RunError, match="loss settings: do_nsp true -> false"):
        run(top, folder, "--nodo_nsp", **more)
    with pytest.raises(RunError, match="made without sentence pairs.*Pass --nodo_nsp"):
        run(top, folder, records="single", num_train_steps=3)
    run(top, folder, "--nodo_nsp", "--allow_config_change=loss", **more)
    assert not {*runs.read_tensors(folder / "model.ckpt-3")} & POOLER_AND_PAIRS


def test_the_flag_trains_the_masked_lm_of_records_with_pairs(top, tmp_path):
    values = {"records": "pairs", "eval_files_dir": top / "pairs"}
    plan = prepare(top, tmp_path / "run", "--nodo_nsp", "--do_eval", **values)
    assert plan.task.loss_names == ("mlm_loss",)


def test_a_mixture_needs_the_flag(top, tmp_path):
    both = {"input_files_dir": f"{top / 'pairs'},{top / 'single'}"}
    with pytest.raises(ValueError, match="with sentence pairs, or none.*--nodo_nsp"):
        prepare(top, tmp_path / "run", **both)
    plan = prepare(top, tmp_path / "run", "--nodo_nsp", **both)
    assert plan.task.loss_names == ("mlm_loss",)


def test_evaluation_records_without_pairs_are_refused_with_the_remedy(top, tmp_path):
    values = {"records": "pairs", "eval_files_dir": top / "single"}
    with pytest.raises(ValueError, match=r"single_metadata.json: .*Pass --nodo_nsp"):
        prepare(top, tmp_path / "run", "--do_eval", **values)


def test_records_that_say_nothing_and_have_no_pairs_are_warned_of(top, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in (top / "single").iterdir():
        (bare / file.name).write_bytes(file.read_bytes())
    notes = prepare(top, tmp_path / "run", input_files_dir=bare).notes
    assert any("one segment each" in x and "pass --nodo_nsp" in x for x in notes)
    notes = prepare(top, tmp_path / "run", records="pairs").notes
    assert not any("one segment each" in note for note in notes)


def test_a_masked_lm_becomes_that_of_transformers_and_comes_back(trained, tmp_path):
    folder, _ = trained
    convert(str(folder), str(tmp_path / "hf"), ConvertOptions())
    config = runs.read_json(tmp_path / "hf" / "config.json")
    assert config["architectures"] == ["BertForMaskedLM"]
    convert(str(tmp_path / "hf"), str(tmp_path / "back.ckpt"), ConvertOptions())
    before = runs.read_tensors(folder / "model.ckpt-2")
    after = runs.read_tensors(tmp_path / "back.ckpt")
    runs.assert_same_bytes(after, before)
    assert {*after} == {n for n in before if "adam" not in n and n != "global_step"}


def test_a_masked_lm_fills_masks_and_is_fine_tuned(top, trained, tmp_path):
    folder, _ = trained
    [[words]] = MaskFiller(str(folder))("the cat sat on a [MASK] .", num_words=15)
    assert sum(word["probability"] for word in words) == pytest.approx(1)
    [(tokens, _)] = FeatureExtractor(str(folder), layers=[-1], max_seq_length=16)(
        "the cat"
    )
    assert tokens == ["[CLS]", "the", "cat", "[SEP]"]
    rows = "text\tlabel\nthe cat ran\tyes\na dog sat\tno\n"
    (tmp_path / "train.tsv").write_text(rows)
    config = runs.parse(
        "classifier",
        *("--do_train", "--task_name=tsv", f"--data_dir={tmp_path}"),
        *(f"--init_checkpoint={folder}", f"--output_dir={tmp_path / 'classes'}"),
        "--max_seq_length=16",
    )
    notes = classifier.prepare(config, Communicator()).notes
    [line] = [note for note in notes if "newly initialised" in note]
    assert "bert/pooler/dense/kernel" in line and "output_weights" in line
