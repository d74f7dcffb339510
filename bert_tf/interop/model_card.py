"""The README.md of a folder that transformers reads."""

from bert_tf.config import BertConfig
from bert_tf.interop.architecture import Architecture

_TEMPLATE = """\
---
library_name: transformers
pipeline_tag: {pipeline}
tags:
- bert
---

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
GELU_NOTE = (
    "keras-hub always approximates gelu: its outputs differ from this model's, whose "
    "gelu is exact, by about 0.004"
)
_SENTENCES = """
With [sentence-transformers](https://www.sbert.net), which takes the mean of the hidden
states of a sentence:

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("PATH").encode(["A sentence."])
```
"""


def model_card(architecture: Architecture, config: BertConfig, source: str) -> str:
    """The text of a model card.

    Args:
      architecture: The class that reads the model.
      config: Its sizes.
      source: What the weights were made from, for the reader.

    Returns:
      Markdown, after a head of YAML that the hub reads.
    """
    card = _TEMPLATE.format(
        name=architecture.name,
        pipeline=architecture.pipeline,
        config=config,
        source=source.replace("|", "\\|").replace("\n", " "),
    )
    if config.hidden_act == "gelu":
        card += f"\n{GELU_NOTE[0].upper()}{GELU_NOTE[1:]}.\n"
    return card + _SENTENCES if architecture.name == "BertModel" else card
