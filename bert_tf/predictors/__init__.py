"""Models that are ready to predict: text in, answers out.

classify = Classifier("output_dir")
classify(["a fine film", "a long evening"])  # Or pairs of texts.
tag = Tagger("output_dir")
tag(["Ada lives in London.", ["Ada", "lives", "in", "London", "."]])
"""

from bert_tf.predictors.base import Predictor, PredictorSettings
from bert_tf.predictors.chooser import Chooser
from bert_tf.predictors.tagger import Tagger
from bert_tf.predictors.texts import Classifier, MaskFiller, QuestionAnswerer

__all__ = [
    "Chooser",
    "Classifier",
    "MaskFiller",
    "Predictor",
    "PredictorSettings",
    "QuestionAnswerer",
    "Tagger",
]
