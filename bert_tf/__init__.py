"""BERT pre-training and fine-tuning with TensorFlow, Keras 3 and Horovod.

Models, optimizers and schedules are Keras objects; docs/api.md shows how to pre-train,
fine-tune, embed and predict with them. TensorFlow is loaded when the first of these
names is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bert_tf import keras_registration

if TYPE_CHECKING:
    from bert_tf.config import PRESETS, BertConfig
    from bert_tf.data.text.tokenization import WordPieceTokenizer
    from bert_tf.features import Embedder, FeatureExtractor
    from bert_tf.interop.pretrained import from_pretrained, save_pretrained
    from bert_tf.interop.ready_model import load_tokenizer
    from bert_tf.keras_fit import connect_workers, distribute_model
    from bert_tf.modeling.finetuning import build_classifier_model, build_span_model
    from bert_tf.modeling.models import build_encoder_model
    from bert_tf.modeling.pretraining import build_pretraining_model
    from bert_tf.modeling.sentences import build_sentence_model
    from bert_tf.predictors import (
        Chooser,
        Classifier,
        MaskFiller,
        QuestionAnswerer,
        Tagger,
    )
    from bert_tf.runs import (
        finetune_classifier,
        finetune_squad,
        pretrain,
        train_sentences,
    )
    from bert_tf.training.optimizers import LAMB, AdamW, AdamWeightDecay
    from bert_tf.training.schedules import WarmupPolynomialDecay

__version__ = "0.1.0"

_MODULES = {
    "pretrain": "runs",
    "finetune_squad": "runs",
    "finetune_classifier": "runs",
    "train_sentences": "runs",
    "BertConfig": "config",
    "PRESETS": "config",
    "build_encoder_model": "modeling.models",
    "build_pretraining_model": "modeling.pretraining",
    "build_classifier_model": "modeling.finetuning",
    "build_span_model": "modeling.finetuning",
    "build_sentence_model": "modeling.sentences",
    "from_pretrained": "interop.pretrained",
    "save_pretrained": "interop.pretrained",
    "load_tokenizer": "interop.ready_model",
    "WordPieceTokenizer": "data.text.tokenization",
    "LAMB": "training.optimizers",
    "AdamW": "training.optimizers",
    "AdamWeightDecay": "training.optimizers",
    "WarmupPolynomialDecay": "training.schedules",
    "Classifier": "predictors",
    "QuestionAnswerer": "predictors",
    "MaskFiller": "predictors",
    "Tagger": "predictors",
    "Chooser": "predictors",
    "FeatureExtractor": "features",
    "Embedder": "features",
    "connect_workers": "keras_fit",
    "distribute_model": "keras_fit",
}
__all__ = [
    "AdamW",
    "AdamWeightDecay",
    "BertConfig",
    "Chooser",
    "Classifier",
    "Embedder",
    "FeatureExtractor",
    "LAMB",
    "MaskFiller",
    "PRESETS",
    "QuestionAnswerer",
    "Tagger",
    "WarmupPolynomialDecay",
    "WordPieceTokenizer",
    "__version__",
    "build_classifier_model",
    "build_encoder_model",
    "build_pretraining_model",
    "build_sentence_model",
    "build_span_model",
    "connect_workers",
    "distribute_model",
    "finetune_classifier",
    "finetune_squad",
    "from_pretrained",
    "load_tokenizer",
    "pretrain",
    "save_pretrained",
    "train_sentences",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Loads TensorFlow only for who asks for a model."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"bert_tf.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Also the names that are not loaded yet."""
    return sorted({*globals(), *__all__})


keras_registration.register_with_keras()
