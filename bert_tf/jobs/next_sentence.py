"""Whether a pre-training predicts next sentences, by flag, resumed run and records."""

import dataclasses
import os

from bert_tf.config import PretrainingConfig
from bert_tf.data.records.metadata import metadata_file
from bert_tf.data.records.provenance import have_pairs
from bert_tf.data.records.record_set import RecordSet
from bert_tf.jobs.run.starting_point import StartingPoint
from bert_tf.tf_checkpoint import tensor_shapes

# A weight of each head.
_MASKED_LM = "cls/predictions/output_bias"
_NEXT_SENTENCE = "cls/seq_relationship/output_bias"


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of a pre-training.

    Attributes:
      train: The training set, if there are steps left.
      evaluation: The evaluation set, if there is an evaluation.
    """

    train: RecordSet | None
    evaluation: RecordSet | None

    @property
    def sets(self) -> list[RecordSet]:
        """Those that there are."""
        return [x for x in (self.train, self.evaluation) if x is not None]


def choose_nsp(
    config: PretrainingConfig, start: StartingPoint, records: Records
) -> tuple[bool, list[str]]:
    """Whether there is next-sentence prediction, and lines for the log.

    Args:
      config: The settings.
      start: Where the run starts.
      records: What it reads.

    Raises:
      ValueError: if there is, but records have no sentence pairs or the run that is
        resumed has no head for it; or the records differ and the flag is not given.
    """
    asked, before = config.training.do_nsp, _of_run(start)
    sets = records.sets
    is_new = before is None or records.train is None
    reason = ""
    if asked is False:
        reason = "--nodo_nsp"
    elif asked is None and before is False:
        reason = f"{start.prefix} has no head for it"
    elif asked is None and not config.training.do_train and _lacks_head(start):
        reason = f"{start.prefix} has no head for it"
    elif asked is None and is_new and sets and _states_pairs(sets[0]) is False:
        reason = "the records have no sentence pairs"
    if reason:
        line = f"No next-sentence prediction, and no pooler in the model: {reason}."
        return False, [line]
    if before is False:
        raise ValueError(
            f"`do_nsp` must be false: {start.prefix} is of a run without next-sentence "
            "prediction, and has no head for it. Received: do_nsp=True. Pass "
            "--nodo_nsp, or start a new run from its weights: another --output_dir and "
            f"--init_checkpoint={start.prefix}."
        )
    for each in sets:
        if _states_pairs(each) is False:
            raise ValueError(
                f"{', '.join(map(metadata_file, each.metadata))}: the records were "
                "made without sentence pairs (do_nsp=false), but next sentences are to "
                "be predicted. Pass --nodo_nsp here, or make the records again without "
                "--nodo_nsp."
            )
    return True, [note for each in sets for note in _doubts(each)]


def _of_run(start: StartingPoint) -> bool | None:
    """Whether the run that is resumed predicts next sentences; None for a new run."""
    if start.position is None:
        return None
    fingerprint = start.position.fingerprint or {}
    return fingerprint.get("loss", {}).get("do_nsp", True)


def _lacks_head(start: StartingPoint) -> bool:
    """Whether a checkpoint is of a pre-training without next-sentence prediction."""
    if not os.path.isfile(f"{start.prefix}.index"):
        return False
    names = tensor_shapes(start.prefix)
    return _MASKED_LM in names and _NEXT_SENTENCE not in names


def _states_pairs(records: RecordSet) -> bool | None:
    return have_pairs({name: x for name, x in records.metadata.items() if x})


def _doubts(records: RecordSet) -> list[str]:
    """A line if records that do not say so seem to have no sentence pairs."""
    if records.has_pairs or _states_pairs(records) is not None:
        return []
    return [
        f"warning: the records of {', '.join(records.metadata)} have one segment each, "
        "so that there is no next sentence to predict: pass --nodo_nsp."
    ]
