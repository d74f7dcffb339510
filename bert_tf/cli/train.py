"""`bert-tf pretrain`, `squad` and other trainings: what the scripts run_*.py run."""

from collections.abc import Sequence
from typing import NoReturn

from bert_tf.config import PretrainingConfig
from bert_tf.config.finetuning import ClassifierConfig, SquadConfig
from bert_tf.config.sentences import SentencesConfig
from bert_tf.entry import run_script
from bert_tf.launch import leave, use_huge_pages

# Command -> the class of its settings, and its module of `bert_tf.jobs`.
JOBS = {
    "pretrain": (PretrainingConfig, "pretraining"),
    "squad": (SquadConfig, "squad"),
    "classify": (ClassifierConfig, "classifier"),
    "sentences": (SentencesConfig, "sentences"),
}


def main(arguments: Sequence[str]) -> NoReturn:
    """Runs a training to its end, and ends the process with its exit code.

    Args:
      arguments: One of `JOBS`, and its flags.
    """
    use_huge_pages()
    command, *flags = arguments
    config_class, job = JOBS[command]
    leave(run_script(config_class, job, [f"bert-tf {command}", *flags]))
