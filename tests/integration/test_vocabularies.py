"""Vocabulary, case and accents: from records through training to predictions."""

import dataclasses
import json
import re
import shutil

import pytest
import runs
from conftest import TINY
from integration.launching import ROOT, mpirun

from bert_tf.cli import main
from bert_tf.config.data import CreateDataConfig, PackDataConfig
from bert_tf.data.commands.create import create_records
from bert_tf.data.commands.pack import pack_records
from bert_tf.data.records.metadata import read_metadata, write_metadata
from bert_tf.errors import RunError
from bert_tf.predictors import Classifier, MaskFiller

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]"]
WORDS = "The the Cat cat sat on A a mat Mat ran . dog Dog café".split()
SENTENCES = ["The cat sat on a mat.", "A dog ran.", "The Dog sat on the Mat.", "A Cat."]


def write_vocabulary(path, words):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*SPECIAL, *words]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Cased records, unpacked and packed, their vocabulary, and an architecture."""
    top = tmp_path_factory.mktemp("cased")
    vocab_file = write_vocabulary(top / "vocab.txt", WORDS)
    documents = ["\n".join(SENTENCES[n % 4 :] + SENTENCES) for n in range(12)]
    (top / "text.txt").write_text("\n\n".join(documents) + "\n")
    made = create_records(
        CreateDataConfig(
            input=str(top / "text.txt"),
            output_dir=str(top / "records"),
            vocab_file=vocab_file,
            max_seq_length=16,
            max_predictions_per_seq=4,
            dupe_factor=2,
            num_processes=1,
        )
    )
    pack_records(
        PackDataConfig(
            input_dir=str(top / "records"),
            output_dir=str(top / "packed"),
            num_processes=1,
        )
    )
    assert made.config["do_lower_case"] is False  # By the letters of the vocabulary.
    sizes = {"vocab_size": 24, "max_position_embeddings": 16}
    (top / "bert_config.json").write_text(json.dumps(TINY | sizes))
    return top


def arguments(folder, output_dir, **more):
    values = {
        "bert_config_file": folder / "bert_config.json",
        "input_files_dir": folder / "records",
        "output_dir": output_dir,
        "train_batch_size": 4,
        "num_train_steps": 1,
        "do_train": True,
        **more,
    }
    return [f"--{name}={value}" for name, value in values.items()]


def run(*command, **more):
    runs.run("pretraining", *arguments(*command, **more))


def refused(pattern, *command, **more):
    with pytest.raises(RunError, match=pattern) as caught:
        run(*command, **more)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A cased pre-training that was told nothing but its records."""
    path = tmp_path_factory.mktemp("trained")
    run(folder, path)
    return path


@pytest.fixture
def other(folder, tmp_path):
    """A vocabulary of the same size with two words exchanged."""
    return write_vocabulary(
        tmp_path / "other" / "vocab.txt", ["the", "The", *WORDS[2:]]
    )


def test_vocabulary_and_case_of_the_records_are_kept(folder, trained):
    expected = (folder / "vocab.txt").read_bytes()
    assert (trained / "vocab.txt").read_bytes() == expected
    config = json.loads((trained / "tokenizer_config.json").read_text())
    assert config["do_lower_case"] is False and config["model_max_length"] == 16


def test_a_cased_model_reads_cased_text(trained):
    fill = MaskFiller(str(trained))
    ids = fill._encode("The Cat sat [MASK]")
    words = [fill._tokenizer.inverse_vocab[i] for i in ids]
    assert words == ["[CLS]", "The", "Cat", "sat", "[MASK]", "[SEP]"]


def test_cased_weights_stay_cased_when_converted(trained, tmp_path):
    assert main(["convert", str(trained), str(tmp_path / "hf")]) == 0
    again = str(tmp_path / "back" / "bert_model.ckpt")
    assert main(["convert", str(tmp_path / "hf"), again]) == 0
    for name in ("hf", "back"):
        path = tmp_path / name / "tokenizer_config.json"
        assert json.loads(path.read_text())["do_lower_case"] is False


@pytest.mark.parametrize("records", ["records", "packed"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_vocabulary_than_the_records_is_refused(
    folder, tmp_path, other, records, precision
):
    more = {"input_files_dir": folder / records, "precision": precision}
    pattern = f"{records}_metadata.json: the records were made with another vocabulary"
    refused(pattern, folder, tmp_path / "run", vocab_file=other, **more)
    assert not list((tmp_path / "run").glob("model.ckpt*"))


@pytest.mark.parametrize("records", ["records", "packed"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_case_than_the_records_is_refused(folder, tmp_path, records, precision):
    more = {"input_files_dir": folder / records, "precision": precision}
    pattern = (
        f"{records}_metadata.json: .*do_lower_case=False. Received: .*=True, by --"
    )
    refused(pattern, folder, tmp_path / "run", do_lower_case=True, **more)


def test_initial_weights_with_another_vocabulary_are_refused(
    folder, trained, tmp_path, other
):
    shutil.copytree(trained, tmp_path / "init")
    shutil.copy(other, tmp_path / "init" / "vocab.txt")
    more = {"init_checkpoint": tmp_path / "init" / "model.ckpt-1"}
    refused("made with another vocabulary", folder, tmp_path / "run", **more)
    more |= {"vocab_file": folder / "vocab.txt"}
    pattern = "must have the tokens of .*init/vocab.txt, .* 2 of 22 lines differ"
    refused(pattern, folder, tmp_path / "run", **more)


@pytest.mark.parametrize("named", ["init_checkpoint", "vocab_file"])
def test_records_of_a_larger_vocabulary_are_refused_as_such(folder, tmp_path, named):
    small = tmp_path / "small"
    words = write_vocabulary(small / "vocab.txt", WORDS[:3])
    sizes = {"vocab_size": 10, "max_position_embeddings": 16}
    (small / "bert_config.json").write_text(json.dumps(TINY | sizes))
    (small / "model.safetensors").touch()
    more = {"init_checkpoint": small, "vocab_file": words}
    more = {"bert_config_file": small / "bert_config.json", named: more[named]}
    refused("records were made with another vocabulary", folder, tmp_path / "r", **more)


def test_initial_weights_of_another_case_are_refused(folder, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "init")
    (tmp_path / "init/tokenizer_config.json").write_text('{"do_lower_case": true}')
    more = {"init_checkpoint": tmp_path / "init" / "model.ckpt-1"}
    pattern = "do_lower_case=False. Received: do_lower_case=True, by .*init/tokenizer_c"
    refused(pattern, folder, tmp_path / "run", **more)


def test_training_and_evaluation_sets_must_have_one_vocabulary(folder, tmp_path):
    shutil.copytree(folder / "records", tmp_path / "eval")
    about = read_metadata(folder / "records")
    changed = dataclasses.replace(about, vocab_sha256="0" * 64)
    write_metadata(tmp_path / "eval", changed)
    more = {"do_eval": True, "eval_files_dir": tmp_path / "eval"}
    refused("same vocabulary.*sha256", folder, tmp_path / "run", **more)
    changed = dataclasses.replace(about, config={"do_lower_case": True})
    write_metadata(tmp_path / "eval", changed)
    refused("same case and accents", folder, tmp_path / "run", **more)


def test_line_ends_make_no_other_vocabulary(folder, tmp_path):
    path = tmp_path / "vocab.txt"
    content = (folder / "vocab.txt").read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    run(folder, tmp_path / "run", vocab_file=path)
    assert (tmp_path / "run" / "model.ckpt-1.index").exists()


@pytest.mark.parametrize("is_named", [True, False])
def test_records_without_metadata_are_reported(folder, tmp_path, capsys, is_named):
    shutil.copytree(folder / "records", tmp_path / "bare")
    more = {"vocab_file": folder / "vocab.txt"} if is_named else {}
    run(folder, tmp_path / "run", input_files_dir=tmp_path / "bare", **more)
    told = capsys.readouterr().out
    wanted = "warning: .* not be compared" if is_named else "No vocabulary is stored"
    assert re.search(wanted, told)
    assert (tmp_path / "run" / "vocab.txt").exists() is is_named


def test_metadata_of_a_single_file_refuses_another_vocabulary(folder, tmp_path, other):
    records = tmp_path / "files"
    shutil.copytree(folder / "records", records)
    about = read_metadata(folder / "records")
    for shard in about.shards:
        counts = dict.fromkeys(
            ("original_number_of_samples", "new_number_of_samples"), shard.records
        )
        own = dataclasses.replace(about, shards=(shard,), **counts)
        write_metadata(records / shard.name, own)
    for number, found in enumerate((records, records / about.shards[0].name)):
        more = {"input_files_dir": found, "vocab_file": other}
        refused("another vocabulary", folder, tmp_path / f"run{number}", **more)
    run(folder, tmp_path / "run", input_files_dir=records)


def test_a_run_resumes_with_its_own_vocabulary(folder, trained, tmp_path, other):
    shutil.copytree(trained, tmp_path / "run")
    more = {"num_train_steps": 2, "vocab_file": other}
    refused("another vocabulary", folder, tmp_path / "run", **more)
    run(folder, tmp_path / "run", num_train_steps=2)


def test_an_older_run_without_tokenizer_config_resumes(folder, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "tokenizer_config.json").unlink()
    run(folder, tmp_path / "run", num_train_steps=2)
    assert (tmp_path / "run" / "tokenizer_config.json").exists()


def fine_tune(trained, tmp_path, *more):
    rows = ["text\tlabel", "The Cat sat\ta", "A Dog ran\tb"]
    (tmp_path / "train.tsv").write_text("\n".join(rows) + "\n")
    command = [f"--init_checkpoint={trained}/model.ckpt-1", f"--data_dir={tmp_path}"]
    command += [f"--output_dir={tmp_path}/classes", "--task_name=tsv", "--do_train"]
    command += ["--num_train_steps=1", "--train_batch_size=2", "--max_seq_length=16"]
    runs.run("classifier", *command, *more)
    return tmp_path / "classes"


def test_runs_resume_when_their_initial_weights_are_gone(folder, trained, tmp_path):
    first = shutil.copytree(trained, tmp_path / "first")
    more = {"init_checkpoint": first}
    run(folder, tmp_path / "run", **more)
    path = fine_tune(first, tmp_path)
    shutil.rmtree(first)
    run(folder, tmp_path / "run", **more | {"num_train_steps": 2})
    assert fine_tune(first, tmp_path, "--num_train_steps=2") == path
    for output in (tmp_path / "run", path):
        assert (output / "model.ckpt-2.index").exists()


def test_fine_tuning_takes_the_case_of_its_weights(trained, tmp_path, capsys):
    path = fine_tune(trained, tmp_path)
    told = capsys.readouterr().out
    assert f"Tokenizer: cased, accents kept, by {trained}/tokenizer_config" in told
    assert json.loads((path / "task.json").read_text())["do_lower_case"] is False
    config = json.loads((path / "tokenizer_config.json").read_text())
    assert config["do_lower_case"] is False
    tokenizer = Classifier(str(path))._tokenizer
    assert tokenizer.tokenize("The Cat") == ["The", "Cat"]


def test_a_flag_overrides_the_case_of_the_weights(trained, tmp_path, capsys):
    path = fine_tune(trained, tmp_path, "--do_lower_case")
    told = capsys.readouterr().out
    assert "warning: --do_lower_case=True overrides " in told
    (path / "tokenizer_config.json").unlink()  # As older versions left it.
    tokenizer = Classifier(str(path))._tokenizer
    assert tokenizer.tokenize("The Cat") == ["the", "cat"]


@pytest.mark.slow
@pytest.mark.horovod
def test_two_workers_refuse_it_once(folder, tmp_path, other):
    command = arguments(folder, tmp_path / "run", vocab_file=other)
    script = ROOT / "run_pretraining.py"
    result = mpirun(2, script, *command, "--horovod", timeout=120)
    text = result.stdout + result.stderr
    assert result.returncode == 1
    assert text.count("the records were made with another vocabulary") == 1
    assert "Traceback" not in text and "step 1" not in text
