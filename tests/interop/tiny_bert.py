"""BERTs of random numbers, under names written down by hand."""

import dataclasses
import json

import numpy as np

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxy"]
ATTENTION = ("attention/self/query", "attention/self/key", "attention/self/value")


def _dense(scope, inputs, outputs):
    return {f"{scope}/kernel": (inputs, outputs), f"{scope}/bias": (outputs,)}


def _layer_norm(scope, width):
    return {f"{scope}/LayerNorm/gamma": (width,), f"{scope}/LayerNorm/beta": (width,)}


def encoder_shapes(config):
    """google-research/bert's names of an encoder with its pooler."""
    h, i = config.hidden_size, config.intermediate_size
    shapes = {
        "bert/embeddings/word_embeddings": (config.vocab_size, h),
        "bert/embeddings/position_embeddings": (config.max_position_embeddings, h),
        "bert/embeddings/token_type_embeddings": (config.type_vocab_size, h),
        **_layer_norm("bert/embeddings", h),
        **_dense("bert/pooler/dense", h, h),
    }
    for number in range(config.num_hidden_layers):
        layer = f"bert/encoder/layer_{number}"
        for part in (*ATTENTION, "attention/output/dense"):
            shapes |= _dense(f"{layer}/{part}", h, h)
        shapes |= _dense(f"{layer}/intermediate/dense", h, i)
        shapes |= _dense(f"{layer}/output/dense", i, h)
        shapes |= _layer_norm(f"{layer}/attention/output", h)
        shapes |= _layer_norm(f"{layer}/output", h)
    return shapes


def pretraining_shapes(config):
    """The same with both heads of pre-training."""
    h = config.hidden_size
    return {
        **encoder_shapes(config),
        **_dense("cls/predictions/transform/dense", h, h),
        **_layer_norm("cls/predictions/transform", h),
        "cls/predictions/output_bias": (config.vocab_size,),
        "cls/seq_relationship/output_weights": (2, h),
        "cls/seq_relationship/output_bias": (2,),
    }


def random_tensors(shapes, seed=0):
    """Name -> float32 values near 0, so that no two are alike."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape, np.float32) * np.float32(0.1))
        for name, shape in shapes.items()
    }


def assert_equal_bytes(ours, expected):
    assert set(ours) == set(expected)
    for name, values in expected.items():
        assert ours[name].dtype == values.dtype and ours[name].shape == values.shape
        assert ours[name].tobytes() == values.tobytes(), name


def write_tf1(folder, tensors, config, with_slots=True, name="bert_model.ckpt"):
    """A checkpoint as TensorFlow 1 leaves it, with counter and optimizer's slots."""
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    slots = {f"{n}/adam_{s}": t for n, t in tensors.items() for s in "mv" if with_slots}
    every = {**tensors, **slots, "global_step": np.int64(3), "loss_scale": 8.0}
    names = sorted(every)
    tf.raw_ops.SaveV2(
        prefix=str(folder / name),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(every[n]) for n in names],
    )
    write_neighbours(folder, config, "bert_config.json")
    return str(folder / name)


def write_neighbours(folder, config, config_name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / config_name).write_text(json.dumps(dataclasses.asdict(config)))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
