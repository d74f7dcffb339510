"""Settings of training sentence vectors, in groups; `flags` makes one flag of each."""

import dataclasses

from bert_tf.config import checks
from bert_tf.config.finetuning import FinetuningConfig

POOLINGS = ("mean", "cls")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsDataConfig:
    """The pairs of texts, and how their vectors are made and compared.

    Attributes:
      train_file: A table (.tsv, .jsonl, .csv or .parquet; .gz may follow) whose rows
        have an anchor, a positive, and perhaps a negative; needed with do_train.
      dev_file: Such a table, whose positives are searched by their anchors; needed with
        do_eval.
      anchor_column: The column of the anchors. Default: anchor, or that of the first
        of two texts by common names.
      positive_column: The column of the positives. Default: positive, or that of the
        second of two texts.
      negative_column: The column of hard negatives. Default: negative, if there is one.
      pooling: The vector of a text: mean of its tokens, or cls.
      scale: Factor of the cosines in the softmax, the inverse of a temperature.
    """

    train_file: str = ""
    dev_file: str = ""
    anchor_column: str = ""
    positive_column: str = ""
    negative_column: str = ""
    pooling: str = "mean"
    scale: float = 20.0

    @property
    def columns(self) -> tuple[str, str, str]:
        """Those of anchors, positives and negatives, as far as they are given."""
        return self.anchor_column, self.positive_column, self.negative_column

    def __post_init__(self) -> None:
        """Checks each field, and that both columns are named or none."""
        checks.require_choice(self, "pooling", POOLINGS)
        checks.require_positive(self, "scale")
        checks.require_limits(self, "scale")
        checks.require(
            bool(self.anchor_column) == bool(self.positive_column),
            "anchor_column",
            "be given together with `positive_column`",
            f"{self.anchor_column!r} and positive_column={self.positive_column!r}",
            "Pass both, or neither.",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencesConfig(FinetuningConfig):
    """All settings of run_sentences.

    Attributes:
      pairs: The pairs of texts, and how their vectors are made and compared.
    """

    DEFAULT_LENGTH = 128

    pairs: PairsDataConfig = PairsDataConfig()

    def __post_init__(self) -> None:
        """Checks that the files that are needed are given, and what has no meaning."""
        super().__post_init__()
        training = self.training
        for job, name in (("do_train", "train_file"), ("do_eval", "dev_file")):
            if getattr(training, job):
                checks.require_with(job, name, getattr(self.pairs, name))
        checks.require(
            not training.do_predict,
            "do_predict",
            "be left out: `python -m bert_tf predict embed` makes vectors of texts",
            True,
        )
        # A pair is compared with those of all micro-batches.
        for name, usual in (
            ("clip_each_micro_batch", False),
            ("loss_normalization", "global"),
            ("allreduce_post_accumulation", True),
        ):
            checks.require(
                getattr(training, name) == usual,
                name,
                f"be {usual}: each loss depends on the whole global batch",
                getattr(training, name),
                "Leave it out.",
            )
