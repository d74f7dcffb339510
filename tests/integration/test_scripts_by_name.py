"""Scripts under the published systems' names, with their options and variables."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from integration import finetuning_data
from integration.launching import ROOT, run_python
from runs import read_json, read_results

from bert_tf.config import BertConfig
from bert_tf.data.records.metadata import read_metadata
from bert_tf.data.records.record_set import open_input
from bert_tf.features import FeatureExtractor
from bert_tf.modeling.pretraining import build_pretraining_model
from bert_tf.tf_checkpoint_writer import save_tf

SCRIPTS = ROOT / "scripts"
SAMPLE = SCRIPTS / "sample_text.txt"
pytestmark = pytest.mark.slow


def bash(script, *arguments, cwd, **variables):
    """Runs a shell script; returns what it wrote to the screen."""
    environment = dict(os.environ, PYTHON=sys.executable, PYTHONPATH=str(ROOT))
    environment |= {name: str(value) for name, value in variables.items()}
    return subprocess.run(
        ["bash", str(ROOT / script), *map(str, arguments)],
        **dict(cwd=cwd, env=environment, capture_output=True, text=True, timeout=200),
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a vocabulary, an architecture and weights."""
    folder = tmp_path_factory.mktemp("model")
    finetuning_data.write_model(folder)
    config = BertConfig.from_json_file(folder / "bert_config.json")
    network = build_pretraining_model(config, max_seq_length=None, seeded_dropout=True)
    tensors = {v.path: v.value for v in network.trainable_variables}
    save_tf(f"{folder}/bert_model.ckpt", {n: t.numpy() for n, t in tensors.items()})
    return folder


@pytest.fixture(scope="module")
def squad(tmp_path_factory):
    """Files with the names of SQuAD 1.1."""
    folder = tmp_path_factory.mktemp("squad")
    for name in ("train", "dev"):
        finetuning_data.write_squad(folder / f"{name}-v1.1.json")
    return folder


@pytest.fixture
def other_disk():
    """A folder to which no file of /tmp can be renamed."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield pathlib.Path(folder)


def test_google_s_script_writes_the_records_of_data_create(model, tmp_path, other_disk):
    names = [tmp_path / "records/a.tfrecord", other_disk / "b.tfrecord"]
    result = run_python(
        *(SCRIPTS / "create_pretraining_data.py", f"--input_file={SAMPLE}"),
        *(f"--output_file={names[0]},{names[1]}", "--random_seed=7"),
        *(f"--vocab_file={model}/vocab.txt", "--do_lower_case=True"),
        *("--max_seq_length=64", "--max_predictions_per_seq=10", "--dupe_factor=2"),
    )
    assert result.returncode == 0, result.stderr
    same = run_python(
        *("-m", "bert_tf", "data", "create", f"--input={SAMPLE}", "--seed=7"),
        *(f"--output_dir={tmp_path}/same", f"--vocab_file={model}/vocab.txt"),
        *("--do_lower_case=True", "--max_seq_length=64", "--num_shards=2"),
        *("--max_predictions_per_seq=10", "--dupe_factor=2"),
    )
    assert same.returncode == 0, same.stderr
    for number, name in enumerate(names):
        shard = tmp_path / "same" / f"part-0000{number}-of-00002.tfrecord"
        assert name.read_bytes() == shard.read_bytes()
    expected = read_metadata(tmp_path / "same")
    for name, shard in zip(names, expected.shards, strict=True):
        folder = sorted(path.name for path in name.parent.iterdir())
        assert folder == [name.name, f"{name.name}_metadata.json"]
        about = read_metadata(name)
        assert about.vocab_sha256 == expected.vocab_sha256
        assert about.config["do_lower_case"] is True
        assert about.shards == (dataclasses.replace(shard, name=name.name),)
        assert len(open_input((str(name),)).index) == about.new_number_of_samples


def test_from_text_to_records_as_habana_does(model, tmp_path):
    blocks = SAMPLE.read_text().split("\n\n")
    for number, block in enumerate(blocks):
        corpus = ("wikicorpus_en", "bookscorpus")[number % 2]
        folder = tmp_path / "download" / corpus
        folder.mkdir(parents=True, exist_ok=True)
        for first in range(3):  # Documents that begin one sentence later.
            text = "\n".join(block.splitlines()[first:])
            (folder / f"text-{number}-{first}.txt").write_text(text)
    result = bash(
        *("data_preprocessing/create_datasets_from_start.sh", "wiki_books", tmp_path),
        **dict(cwd=tmp_path, VOCAB_FILE=model / "vocab.txt", N_SHARDS=1),
    )
    assert result.returncode == 0, result.stderr
    for length in (128, 512):
        for side in ("training", "test"):
            records = tmp_path / "tfrecord" / f"seq_len_{length}"
            [shard] = (records / "books_wiki_en_corpus" / side).iterdir()
            assert sum(1 for _ in tf.data.TFRecordDataset(str(shard))) > 0
    again = bash(
        *("data_preprocessing/create_datasets_from_start.sh", "wiki_books", tmp_path),
        **dict(cwd=tmp_path, VOCAB_FILE=model / "vocab.txt", N_SHARDS=1),
    )
    assert again.returncode == 0
    assert "exists already" in again.stderr


def test_books_cannot_be_downloaded_and_the_message_says_what_to_do(tmp_path):
    result = bash(
        "scripts/create_datasets_from_start.sh", "wiki_books", tmp_path, cwd=tmp_path
    )
    assert result.returncode == 1
    assert f"Put text files of books into {tmp_path}/download/bookscorpus" in (
        result.stderr
    )


@pytest.fixture(scope="module")
def hdf5(model, tmp_path_factory):
    """The folder in which Intel's scripts have made and chopped records."""
    folder = tmp_path_factory.mktemp("intel")
    (folder / "results4").mkdir()
    (folder / "results4" / "part-0").write_text(SAMPLE.read_text())
    variables = dict(SEQ_LEN=128, VOCAB_FILE=model / "vocab.txt", NUM_SHARDS=2)
    made = bash("scripts/parallel_create_hdf5.sh", cwd=folder, **variables)
    assert made.returncode == 0, made.stderr
    chopped = subprocess.run(
        [sys.executable, str(SCRIPTS / "chop_hdf5_files.py")],
        **dict(cwd=folder, capture_output=True, text=True, timeout=200),
        env=dict(os.environ, SEQ_LEN="128", SHARD_NUM="5", PYTHONPATH=str(ROOT)),
    )
    assert chopped.returncode == 0, chopped.stderr
    return folder


def test_intel_s_records_are_chopped(hdf5):
    assert len(list((hdf5 / "2048_shards_uncompressed_128").iterdir())) == 5


def test_intel_s_first_phase_trains_and_logs_its_speed(hdf5, model, tmp_path):
    result = bash(
        *("scripts/run_bert_pretrain_phase1.sh", "bf32"),
        **dict(cwd=tmp_path, DATASET_DIR=hdf5, OUTPUT_DIR=tmp_path, NUM_STEPS=2),
        **dict(BERT_MODEL_CONFIG=model / "bert_config.json", BATCH_SIZE=4),
        CHECKPOINT_DIR=model,
    )
    assert result.returncode == 0, result.stderr
    assert "Iteration: 2 " in result.stdout
    assert (tmp_path / "model_save" / "model.ckpt-2.index").exists()
    words = (tmp_path / "summary.log").read_text().split()
    assert words[0] == "Throughput:" and float(words[1]) > 0


SEVENTEEN = [
    *("out", "2.0", "4", "3e-5", "fp32", "1", "1", ".", "vocab.txt", "results", "eval"),
    *("bert_config.json", "-1", "100", "false", "O1", "mlu"),
]
PHASE = "run_bert_pretrain_phase"
RECORDS = {"DATASET_DIR": ".", "OUTPUT_DIR": "out"}
REFUSED = [
    (f"{PHASE}1.sh", [], {}, "DATASET_DIR is not set. Set it to the folder of 2048_"),
    (f"{PHASE}1.sh", [], {"DATASET_DIR": "."}, "OUTPUT_DIR is not set. Set it to a"),
    (f"{PHASE}1.sh", [], RECORDS, "which holds none. Make it with parallel_create_hdf"),
    (f"{PHASE}1.sh", ["fp64"], RECORDS, "bf32, bf16 or fp16. Received: fp64"),
    (f"{PHASE}1.sh", ["fp8"], RECORDS, "bf32, bf16 or fp16. Received: fp8"),
    (f"{PHASE}2.sh", [], RECORDS | {"PRECISION": "int8"}, "Received: int8"),
    ("run_ddp_bert_pretrain_phase1.sh", [], {"NPROCESS": "two"}, "NPROCESS=two"),
    ("run_ddp_bert_pretrain_phase1.sh", [], {"NNODES": "two"}, "NNODES=two"),
    (
        "run_ddp_bert_pretrain_phase1.sh",
        [],
        {"NNODES": "2"},
        "HOSTFILE is not set",
    ),
    ("run_ddp_bert_pretrain_phase2.sh", [], {"HOSTFILE": "no"}, "an address in each"),
    (
        "run_ddp_bert_pretrain_phase1.sh",
        [],
        {"BATCH_SIZE": "5", "NPROCESS": "2"},
        "must be a multiple of their number. Received: BATCH_SIZE=5, 2 workers",
    ),
    ("run_fast_bert_pretrain.sh", [], {"NPROCESS": "0"}, "Received: NPROCESS=0"),
    ("run_fast_bert_pretrain.sh", [], {"GBS": "x"}, "Received: GBS=x"),
    ("run_fast_bert_pretrain.sh", [], {"NPROCESS": "3"}, "must be a multiple of NPROC"),
    ("run_fast_bert_pretrain.sh", [], {"PROCESS_PER_NODE": "4"}, "and NNODES is 8"),
    ("fast_bert_squad_finetune.sh", [], {}, "SQUAD_DIR is not set. Set it to the fold"),
    (
        "fast_bert_squad_finetune.sh",
        ["--tpp_bf8"],
        {"SQUAD_DIR": ".", "BERT_MODEL": "."},
        "bf8 is not computed here. Drop --tpp_bf8",
    ),
    (
        "run_multi_card_FPS.sh",
        [],
        {"IX_NUM_CUDA_VISIBLE_DEVICES": "x"},
        "positive",
    ),
    ("run_training.sh", ["--name", "mine"], {}, "must be default or iluvatar"),
    ("run_training.sh", ["--name", "default"], {}, "pass --data_dir"),
    ("run_training.sh", ["--data_dir"], {}, "--data_dir needs a value"),
    (
        "run_training.sh",
        ["--data_dir", "no"],
        {},
        "which has no 2048_shards",
    ),
    (
        "run_scripts/BERT_Infer.sh",
        [],
        {"SQUAD_DIR": "."},
        "BERT_INFER_MODEL is",
    ),
    ("run_scripts/BERT_FP32_2E_4MLUs_Train.sh", [], {}, "SQUAD_DIR is not set"),
    ("run_squad.sh", SEVENTEEN[:16], {}, "17 arguments, or the first 13 or fewer. Rec"),
    (
        "run_squad.sh",
        [*SEVENTEEN, "more"],
        {},
        "Received: 18. They are: check",
    ),
    ("run_squad.sh", SEVENTEEN[:5] + ["x"] + SEVENTEEN[6:], {}, "Received: workers=x"),
    ("run_squad.sh", SEVENTEEN[:2] + SEVENTEEN[3:13], {}, "Received: batch=3e-5"),
    ("run_squad.sh", SEVENTEEN, {}, "squad_dir=., which holds none. squad_download.sh"),
    (
        "create_datasets_from_start.sh",
        ["wiki_only", "."],
        {"VOCAB_FILE": "no.txt"},
        "Received: no.txt, which does not exist",
    ),
]


@pytest.mark.parametrize("script, arguments, variables, message", REFUSED)
def test_wrong_arguments_are_refused_in_a_line(
    tmp_path, script, arguments, variables, message
):
    result = bash(f"scripts/{script}", *arguments, cwd=tmp_path, **variables)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ") and message in line
    assert not list(tmp_path.iterdir())


def test_iluvatar_s_script_prints_acc_and_fps(tiny_config_file, tiny_records, tmp_path):
    output = tmp_path / "the run"
    result = bash(
        *("scripts/run_1card_FPS.sh", f"--input_files_dir={tiny_records}"),
        *(f"--eval_files_dir={tiny_records}", "--train_batch_size=6"),
        *(f"--bert_config_file={tiny_config_file}", "--output_dir", output),
        f"--dllog_path={tmp_path}/log.json",
        *("--max_seq_length=16", "--max_predictions_per_seq=4", "--num_train_steps=3"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    acc, fps = result.stdout.splitlines()[-2:]
    measured = read_results(output)["masked_lm_accuracy"]
    assert float(acc.removeprefix("acc ")) == pytest.approx(measured)
    assert float(fps.removeprefix("fps ")) > 0


def test_the_pytorch_trainer_s_script_prints_its_table(
    tiny_config_file, tiny_records, tmp_path
):
    """Also where the target is not reached: its exit code says so."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("2048_shards_uncompressed", "eval_set_uncompressed"):
        (data / name).symlink_to(tiny_records)
    (data / "bert_config.json").write_text(open(tiny_config_file).read())
    result = bash(
        *("scripts/run_training.sh", "--name", "default", "--config", "V100x1x1"),
        *("--data_dir", f"{data}/", "--max_steps", 3, "--train_batch_size", 10),
        *("--target_mlm_accuracy", 0.99, "--eval_steps=1", "--master_port", 22233),
        **dict(cwd=tmp_path, OUTPUT_DIR=tmp_path / "out"),
    )
    assert result.returncode == 3, result.stderr
    record = read_json(tmp_path / "out" / "training_result.json")
    names = ["training_sequences_per_second", "final_loss"]
    assert result.stdout.splitlines()[-4:] == [
        f"E2E {record['e2e_time']:.2f}s",
        f"MLM Accuracy {record['final_mlm_accuracy']:.3f}",
        *(f"{name} {record[name]:.3f}" for name in names),
    ]


def test_a_configuration_without_a_number_of_workers_is_refused(tmp_path):
    for name in ("2048_shards_uncompressed", "eval_set_uncompressed"):
        (tmp_path / name).mkdir()
    (tmp_path / "bert_config.json").write_text("{}")
    words = ("--data_dir", ".", "--config", "V100")
    result = bash("scripts/run_training.sh", *words, cwd=tmp_path)
    assert result.returncode == 1
    assert "must end with a number of workers" in result.stderr


def test_cambricon_s_recipes_train_and_answer(model, squad, tmp_path):
    """With the paths of its README: files of PyTorch; and with blanks in them."""
    folder = tmp_path / "a model"
    folder.mkdir()
    for name in ("bert_config.json", "vocab.txt"):
        (folder / name).write_bytes((model / name).read_bytes())
    converted = run_python(
        SCRIPTS / "convert_bert_original_tf_checkpoint_to_pytorch.py",
        *("--tf_checkpoint_path", model / "bert_model.ckpt"),
        *("--bert_config_file", model / "bert_config.json"),
        *("--pytorch_dump_path", folder / "pytorch_model.pt"),
    )
    assert converted.returncode == 0, converted.stderr
    results = tmp_path / "the results"
    variables = dict(cwd=tmp_path, SQUAD_DIR=squad, WORKERS=1)
    trained = bash(
        "scripts/run_scripts/BERT_FP32_2E_4MLUs_Train.sh",
        **dict(variables, BERT_MODEL=folder / "pytorch_model.pt", OUTPUT_DIR=results),
    )
    assert trained.returncode == 0, trained.stderr
    [line] = [x for x in trained.stdout.splitlines() if x.startswith("F1: ")]
    answers = tmp_path / "answers"
    trained_file = results / "pytorch_model.bin"
    answered = bash(
        "scripts/run_scripts/BERT_Infer.sh",
        **dict(variables, BERT_INFER_MODEL=trained_file, OUTPUT_DIR=answers),
    )
    assert answered.returncode == 0, answered.stderr
    assert f"There is no {trained_file}: taking the checkpoint in" in answered.stdout
    assert line in answered.stdout
    assert read_json(answers / "predictions.json")


def test_features_of_each_layer_are_those_of_a_model_of_fewer_layers(model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Who built the lighthouse?\nA cold wind ||| the fog\n")
    result = run_python(
        *(SCRIPTS / "extract_features.py", f"--input_file={text}", "--layers=-1,-2"),
        *(f"--output_file={tmp_path}/out.jsonl", f"--init_checkpoint={model}"),
        *(f"--bert_config_file={model}/bert_config.json", "--batch_size=1"),
    )
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr
    lines = [json.loads(x) for x in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["linex_index"] for line in lines] == [0, 1]
    tokens = [feature["token"] for feature in lines[1]["features"]]
    assert tokens[0] == "[CLS]" and tokens.count("[SEP]") == 2
    # The same weights but for the last layer, in a model without it.
    shallow = tmp_path / "shallow"
    shallow.mkdir()
    config = read_json(model / "bert_config.json") | {"num_hidden_layers": 1}
    (shallow / "bert_config.json").write_text(json.dumps(config))
    (shallow / "vocab.txt").write_bytes((model / "vocab.txt").read_bytes())
    reader = tf.train.load_checkpoint(str(model / "bert_model.ckpt"))
    names = [n for n in reader.get_variable_to_shape_map() if "layer_1/" not in n]
    save_tf(f"{shallow}/bert_model.ckpt", {n: reader.get_tensor(n) for n in names})
    extract = FeatureExtractor(str(shallow), layers=[-1])
    for line, text in zip(
        lines, ["Who built the lighthouse?", ("A cold wind", "the fog")], strict=True
    ):
        [(_, expected)] = extract([text])
        found = [f["layers"][1]["values"] for f in line["features"]]
        np.testing.assert_allclose(found, expected[0], atol=2e-5)


def test_options_of_extract_features_without_effect_are_named(model, tmp_path):
    (tmp_path / "text.txt").write_text("a wind\n")
    (tmp_path / "other.json").write_text("{}")
    result = run_python(
        *(SCRIPTS / "extract_features.py", f"--input_file={tmp_path}/text.txt"),
        *(f"--output_file={tmp_path}/out.jsonl", f"--init_checkpoint={model}"),
        *(f"--bert_config_file={tmp_path}/other.json", "--use_tpu", "--layers=-1"),
    )
    assert result.returncode == 0, result.stderr
    assert "warning: no effect here: --use_tpu\n" in result.stderr
    assert f"other.json is not read, but {model}/bert_config.json" in result.stderr


def test_a_file_of_texts_that_is_not_utf_8_is_named_with_its_line(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"a wind\na caf\xe9\n")
    result = run_python(
        *(SCRIPTS / "extract_features.py", f"--input_file={tmp_path}/text.txt"),
        *(f"--output_file={tmp_path}/out.jsonl", "--init_checkpoint=none"),
    )
    assert result.returncode == 1
    assert f"{tmp_path}/text.txt, line 2: byte 12 of the file (0xe9)" in result.stderr


@pytest.mark.parametrize("layers", [(), (0,), (-3,)])
def test_layers_that_a_model_does_not_have_are_refused(model, layers):
    with pytest.raises(ValueError, match="`layers` must be from -1, the last, to -2"):
        FeatureExtractor(str(model), layers=layers)
