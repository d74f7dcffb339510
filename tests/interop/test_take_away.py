"""Models for other runtimes, as TensorFlow computes them, and what is refused."""

import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from interop.tiny_bert import encoder_shapes, random_tensors, write_tf1

from bert_tf.cli import main
from bert_tf.interop import keras_hub, take_away
from bert_tf.interop.classifier_labels import Head
from bert_tf.interop.export import Form
from bert_tf.interop.model_kind import find_kind, require_kind
from bert_tf.interop.pretrained import build_with
from bert_tf.interop.serving_models import serving_model
from bert_tf.interop.weights import Weights

HEADS = {
    "fill-mask": {},
    "squad": {"cls/squad/output_weights": (2, 8), "cls/squad/output_bias": (2,)},
    "classify": {"output_weights": (3, 8), "output_bias": (3,)},
    "tag": {"output_weights": (3, 8), "output_bias": (3,)},
    "choose": {"output_weights": (1, 8), "output_bias": (1,)},
    "encoder": {},
    "embed": {},
}
IDS = np.arange(18).reshape(2, 9) % 30
MASK = np.array([[1] * 9, [1] * 5 + [0] * 4])
SEEN = MASK.astype(bool)
INPUTS = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": IDS % 2}


@pytest.fixture(scope="module")
def weights(tiny, tiny_tensors):
    """Of each kind."""
    found = {}
    for kind, shapes in HEADS.items():
        tensors = random_tensors(encoder_shapes(tiny) | shapes, seed=1)
        found[kind] = Weights(tensors, tiny, "", "memory")
    found["fill-mask"] = Weights(tiny_tensors, tiny, "", "memory")
    return found


def call(model, **more):
    inputs = {"input_ids": IDS, "input_mask": MASK, "segment_ids": IDS % 2, **more}
    return {name: x.numpy() for name, x in model(inputs).items()}


@pytest.fixture(scope="module")
def expected(weights):
    """What the models of this program compute: [B, S, ...] or [B, ...]."""
    of = weights.__getitem__
    everywhere = np.tile(np.arange(9), (2, 1))
    model = build_with(of("fill-mask"), "pretraining", do_nsp=False)
    words = call(model, masked_lm_positions=everywhere)["masked_lm_logits"]
    spans = call(build_with(of("squad"), "squad"))["span_logits"]
    classes = call(build_with(of("classify"), "classifier"))["class_logits"]
    tags = call(build_with(of("tag"), "classifier", of_tokens=True))["class_logits"]
    scores = call(build_with(of("choose"), "classifier"))["class_logits"]
    hidden = call(build_with(of("encoder"), "encoder"))
    vectors = hidden["sequence_output"]
    means = [vectors[0].mean(axis=0), vectors[1, :5].mean(axis=0)]
    # `embed` has the encoder's weights: the same shapes and seed.
    return {
        "fill-mask": {"logits": words},
        "squad": {"start_logits": spans[..., 0], "end_logits": spans[..., 1]},
        "classify": {"logits": classes[:, 0]},
        "tag": {"logits": tags},
        "choose": {"logits": scores[:, 0]},
        "encoder": {
            "last_hidden_state": vectors,
            "pooler_output": hidden["pooled_output"][:, 0],
        },
        "embed": {"sentence_embedding": np.stack(means)},
    }


def assert_same(found, wanted, tolerance=1e-4):
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        is_of_tokens = x.shape[:2] == SEEN.shape
        a, b = (y[SEEN] if is_of_tokens else y for y in (np.asarray(found[name]), x))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("kind", HEADS)
def test_the_served_model_computes_what_the_model_does(weights, expected, kind):
    served = serving_model(weights[kind], kind)
    assert_same(served(INPUTS), expected[kind], 1e-6)


def test_the_vector_may_be_that_of_cls(weights, expected):
    served = serving_model(weights["embed"], "embed", pooling="cls")
    wanted = expected["encoder"]["last_hidden_state"][:, 0]
    assert_same(served(INPUTS), {"sentence_embedding": wanted}, 1e-6)


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ({"task": "tag"}, "tag"),
        ({"task": "choose"}, "choose"),
        ({"task": "embed"}, "embed"),
        ({}, "classify"),
    ],
)
def test_the_kind_is_that_of_task_json(weights, description, kind):
    found = find_kind(weights["tag"].tensors, Head(3, description=description))
    assert found == kind


def test_a_classifier_of_another_kind_is_refused(weights):
    head = Head(3, description={"task": "tag"})
    with pytest.raises(ValueError, match="--kind=tag"):
        require_kind(weights["tag"].tensors, head, "classify")


def test_a_classifier_of_no_stated_kind_may_be_of_any(weights):
    require_kind(weights["tag"].tensors, Head(3), "tag")
    require_kind(weights["choose"].tensors, Head(1), "choose")
    with pytest.raises(ValueError, match="of weights with 3. Pass --kind=classify"):
        require_kind(weights["tag"].tensors, Head(3), "choose")


@pytest.mark.parametrize("kind", ["squad", "tag", "choose"])
def test_keras_hub_has_no_class_for_other_heads(weights, kind):
    of = weights[kind]
    with pytest.raises(ValueError, match=f"Received: a model for {kind}. Pass"):
        keras_hub.notes(of.config, of.tensors, kind)


def test_vectors_are_pooled_as_the_files_of_the_source_say(weights, tmp_path, capsys):
    tensors, config = weights["embed"].tensors, weights["embed"].config
    source = write_tf1(tmp_path / "source", tensors, config)
    modules = [{"type": "a.Transformer"}, {"type": "a.Pooling", "path": "pool"}]
    (tmp_path / "source/modules.json").write_text(json.dumps(modules))
    (tmp_path / "source/pool").mkdir()
    pooling = tmp_path / "source/pool/config.json"
    pooling.write_text('{"pooling_mode_cls_token": true}')
    command = ["convert", source, str(tmp_path / "x/out"), "--to=litert"]
    assert main([*command, "--kind=embed"]) == 0
    assert "for embed, cls pooling, on 8 rows" in capsys.readouterr().out
    assert main(["convert", source, str(tmp_path / "z")]) == 0
    assert "modules.json is not copied" in capsys.readouterr().out
    pooling.write_text('{"pooling_mode_lasttoken": true}')
    command[2] = str(tmp_path / "y/out")
    assert main([*command, "--kind=embed"]) == 1
    assert "the pooling must be mean or cls" in capsys.readouterr().err
    assert not (tmp_path / "y").exists()


def test_a_full_disk_is_no_fault_of_the_runtime(tf1, tmp_path, monkeypatch, capsys):
    def export(*_):
        raise RuntimeError("x/variables; No space left on device [Op:SaveV2]")

    runtime = take_away.RUNTIMES[Form.SAVEDMODEL]._replace(export=export)
    monkeypatch.setitem(take_away.RUNTIMES, Form.SAVEDMODEL, runtime)
    target = tmp_path / "new/out"
    assert main(["convert", tf1, str(target), "--to=savedmodel"]) == 1
    line = f"{target}/saved_model.pb cannot be read or written: No space left on device"
    assert line in capsys.readouterr().err and not target.parent.exists()


def test_packed_rows_give_nan(weights):
    served = serving_model(weights["classify"], "classify")
    packed = INPUTS | {"attention_mask": np.array([[1] * 9, [1] * 5 + [2] * 4])}
    first, second = served(packed)["logits"].numpy()
    assert np.isfinite(first).all() and np.isnan(second).all()


@pytest.mark.parametrize("name", ["input_ids", "token_type_ids", "length"])
def test_rows_with_what_the_model_does_not_have_give_nan(weights, name, monkeypatch):
    """Some runtimes read zeros there, as this gather does; padding may be anything."""
    served = serving_model(weights["encoder"], "encoder")
    gather = tf.gather

    def zeros_outside(table, ids, **more):
        is_inside = (ids >= 0) & (ids < tf.shape(table)[0])
        rows = gather(table, tf.where(is_inside, ids, 0), **more)
        return tf.where(is_inside[..., None], rows, 0.0)

    monkeypatch.setattr(tf, "gather", zeros_outside)
    width = 17 if name == "length" else 4
    inputs = {n: np.zeros((3, width), np.int32) for n in INPUTS}
    inputs["attention_mask"] += np.arange(width) < np.array([[3], [3], [width]])
    if name != "length":
        inputs[name][0, 3] = inputs[name][2, 3] = inputs[name][1, 0] = 30
        inputs[name][1, 0] = -1
    row, other, last = served(inputs)["last_hidden_state"].numpy()
    assert np.isfinite(row).all() and np.isnan(last).all()
    assert np.isnan(other).all() == (name != "length")


def test_an_encoder_without_a_pooler_has_no_pooled_output(weights):
    tensors = weights["encoder"].tensors
    rest = {n: x for n, x in tensors.items() if not n.startswith("bert/pooler")}
    served = serving_model(
        Weights(rest, weights["encoder"].config, "", "memory"), "encoder"
    )
    assert served(INPUTS).keys() == {"last_hidden_state"}


def test_a_savedmodel_has_one_word_table(tf1, tmp_path):
    assert main(["convert", tf1, str(tmp_path / "out"), "--to=savedmodel"]) == 0
    written = tf.train.list_variables(str(tmp_path / "out/variables/variables"))
    assert [shape for _, shape in written].count([30, 8]) == 1


@pytest.mark.parametrize(
    "destination, options, message",
    [
        ("m.onnx", [], "not written without --to. Pass --to=onnx to `python"),
        ("m.tflite", [], "Pass --to=litert to `python"),
        ("m.h5", [], "Pass --to=keras_hub and a folder to `python"),
        ("m.pb", [], "Pass --to=savedmodel and a folder to `python"),
        ("m.xml", [], "Pass --to=openvino to `python"),
        ("m.bin", ["--to=onnx"], "must be a folder, or a file in .onnx for --to=onnx"),
        ("m", ["--to=savedmodel", "--kind=squad"], "weights for fill-mask. Pass"),
        ("m", ["--to=savedmodel", "--int8"], "Pass --to=onnx, litert or openvino"),
        ("m", ["--to=keras_hub", "--int8"], "Received: --int8. Leave them out"),
        ("m", ["--kind=squad"], "must be left out for --to=transformers"),
        ("tf1/vocab.txt", ["--to=savedmodel", "--overwrite"], "must be a folder"),
        ("tf1/vocab.txt/m", ["--to=savedmodel"], "`destination` must"),
    ],
)
def test_what_cannot_be_written_gets_one_line(
    tf1, tmp_path, capsys, destination, options, message
):
    path = tmp_path / destination
    assert main(["convert", tf1, str(path), *options]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and message in line
    assert {p.name for p in tmp_path.iterdir()} == {"tf1"}


def test_an_empty_destination_is_not_the_current_folder(tf1, tmp_path, capsys):
    assert main(["convert", tf1, "", "--to=savedmodel"]) == 1
    assert "`destination` must be a path" in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_extra(tf1, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["convert", tf1, str(tmp_path / "out"), "--to=onnx"]) == 1
    assert 'pip install "bert_tf[onnx]"' in capsys.readouterr().err


def test_what_is_there_is_not_replaced(tf1, tmp_path, capsys):
    out = pathlib.Path(tmp_path / "out")
    (out / "assets").mkdir(parents=True)
    (out / "assets" / "mine").write_text("x")
    assert main(["convert", tf1, str(out), "--to=keras_hub"]) == 1
    assert "assets exists already" in capsys.readouterr().err
    assert os.listdir(out) == ["assets"]
    again = ["convert", tf1, str(tmp_path / "new"), "--to=keras_hub"]
    assert (main(again), main(again)) == (0, 1)
    assert "--overwrite" in capsys.readouterr().err
    assert main([*again, "--overwrite"]) == 0
