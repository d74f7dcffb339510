"""Model cards: the README.md of exported folders, with a head that the hub reads."""

import dataclasses
import json
from collections.abc import Mapping

from bert_tf.config import BertConfig

MODEL_CARD = "README.md"
_TEMPLATE = """\
---
library_name: {library}
pipeline_tag: {pipeline}
tags:
- bert
{index}---

# {name}

A BERT written by bert_tf.

| | |
| --- | --- |
| layers | {config.num_hidden_layers} |
| hidden size | {config.hidden_size} |
| attention heads | {config.num_attention_heads} |
| feed-forward size | {config.intermediate_size} |
| vocabulary | {config.vocab_size} |
| positions | {config.max_position_embeddings} |
| source | {source} |

"""
_TRANSFORMERS = """\
With [transformers](https://huggingface.co/docs/transformers):

```python
from transformers import AutoTokenizer, {name}

tokenizer = AutoTokenizer.from_pretrained("PATH")
model = {name}.from_pretrained("PATH")
outputs = model(**tokenizer("A sentence.", return_tensors="pt"))
```

`tokenizer.json` gives the token ids of the training, with one exception: [CLS], [SEP],
[MASK], [PAD] and [UNK] within a text are special tokens here, and were plain text in
training. `BertTokenizer` of transformers does not read that file: it drops private-use
characters, knows no final sigma, and takes words of over 100 characters for unknown.
"""
_GELU = """
keras-hub always approximates gelu: its outputs differ from this model's, whose gelu is
exact, by about 0.004.
"""
_BY_MEAN = "takes the mean of the hidden\nstates of a sentence"
BY_MODULES = "pools as `modules.json` says"
_SENTENCES = """
With [sentence-transformers](https://www.sbert.net), which {pooling}:

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("PATH").encode(["A sentence."])
```
"""
_INPUTS = """
Inputs: `input_ids`, `attention_mask` (1, and 0 for padding) and `token_type_ids`,
[batch, length] of {dtype}, as a tokenizer returns them. Rows with numbers above 1 in
`attention_mask` (packed), or with ids and lengths that the model does not have, give
NaN or an error. Without `int8` in the source line the outputs were
within 1e-4 of those of the model when this was written.
"""
# The tokens of the model: they run in the folder of the card.
_TOKENS = """\
import numpy as np
from tokenizers import Tokenizer

# Run it in this folder.
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_padding()
tokenizer.enable_truncation({length})
rows = tokenizer.encode_batch(["A sentence.", "Another, longer sentence."])
inputs = {{
    "input_ids": np.array([row.ids for row in rows], np.{dtype}),
    "attention_mask": np.array([row.attention_mask for row in rows], np.{dtype}),
    "token_type_ids": np.array([row.type_ids for row in rows], np.{dtype}),
}}

"""
_NUMBERS = """\
import numpy as np

# Run it in this folder. It holds no vocabulary: these ids stand for those of a text.
ids = np.array([[1, 2, 3]], np.{dtype})
inputs = {{
    "input_ids": ids,
    "attention_mask": np.ones_like(ids),
    "token_type_ids": np.zeros_like(ids),
}}

"""
_RUNTIMES = {
    "savedmodel": (
        "tensorflow",
        """\
import tensorflow as tf

bert = tf.saved_model.load(".").signatures["serving_default"]
outputs = bert(**{name: tf.constant(x) for name, x in inputs.items()})
""",
    ),
    "onnx": (
        "onnx",
        """\
import onnxruntime

bert = onnxruntime.InferenceSession("model.onnx")
outputs = bert.run(None, inputs)
""",
    ),
    "litert": (
        "litert",
        """\
from ai_edge_litert.interpreter import Interpreter

bert = Interpreter("model.tflite").get_signature_runner()
outputs = bert(**inputs)
""",
    ),
    "openvino": (
        "openvino",
        """\
import openvino

# Without the hint, processors with bfloat16 compute in it.
settings = {"INFERENCE_PRECISION_HINT": "f32"}
bert = openvino.Core().compile_model("openvino_model.xml", "CPU", settings)
outputs = bert(inputs)
""",
    ),
    "keras_hub": (
        "keras-hub",
        """\
import keras_hub

model = keras_hub.models.CLASS.from_preset("PATH")
""",
    ),
}
_CLASSES = {
    "BertForSequenceClassification": "BertTextClassifier",
    "BertModel": "BertBackbone",
}
# What results are called in the hub's metrics, of those in eval_results.json.
_METRICS = (
    *("accuracy", "f1", "matthews_correlation", "pearson", "spearmanr", "exact_match"),
    *("masked_lm_accuracy", "masked_lm_loss", "next_sentence_accuracy"),
)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A class of transformers.

    Attributes:
      name: The class.
      tensor: A tensor that no other one has, in google-research/bert's naming.
      pipeline: What the class is for, in the words of model cards.
    """

    name: str
    tensor: str
    pipeline: str


def model_card(
    architecture: Architecture,
    config: BertConfig,
    source: str,
    form: str = "transformers",
    scores: Mapping[str, object] = {},  # noqa: B006  # Never changed.
    pooling: str = _BY_MEAN,
    *,
    has_tokenizer: bool = True,
) -> str:
    """The text of a model card.

    Args:
      architecture: The class that reads the model.
      config: Its sizes.
      source: Where the weights come from, for the reader.
      form: What the folder is for, see `export.Form`.
      scores: Results of an evaluation by name, `dataset` among them; others than the
        known metrics are left out.
      pooling: How sentence-transformers makes vectors of sentences.
      has_tokenizer: Whether there is a tokenizer.json beside the card.

    Returns:
      Markdown, after a head of YAML that the hub reads.
    """
    library, code = _RUNTIMES.get(form, ("transformers", ""))
    card = _TEMPLATE.format(
        name=architecture.name,
        pipeline=architecture.pipeline,
        config=config,
        source=source.replace("|", "\\|").replace("\n", " "),
        library=library,
        index=_model_index(architecture, source, scores),
    )
    if code:
        if form == "keras_hub":
            hub_class = _CLASSES.get(architecture.name, "BertMaskedLM")
            return card + f"```python\n{code.replace('CLASS', hub_class)}```\n"
        dtype = "int64" if form == "onnx" else "int32"
        inputs = (_TOKENS if has_tokenizer else _NUMBERS).format(
            dtype=dtype, length=config.max_position_embeddings
        )
        return card + f"```python\n{inputs}{code}```\n" + _INPUTS.format(dtype=dtype)
    card += _TRANSFORMERS.format(name=architecture.name)
    if config.hidden_act == "gelu":
        card += _GELU
    is_encoder = architecture.name == "BertModel"
    return card + _SENTENCES.format(pooling=pooling) if is_encoder else card


def _model_index(
    architecture: Architecture, source: str, scores: Mapping[str, object]
) -> str:
    """YAML of the scores; strings are JSON, which is YAML too."""
    metrics = [
        f"    - type: {name}\n      value: {scores[name]:.6g}\n"
        for name in _METRICS
        if isinstance(scores.get(name), float)
    ]
    if not metrics:
        return ""
    dataset = json.dumps(str(scores.get("dataset", "")) or "unknown")
    return (
        f"model-index:\n- name: {json.dumps(source)}\n  results:\n"
        f"  - task:\n      type: {architecture.pipeline}\n"
        f"    dataset:\n      name: {dataset}\n      type: {dataset}\n"
        f"    metrics:\n{''.join(metrics)}"
    )
