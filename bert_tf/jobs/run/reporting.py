"""What a run leaves for its report, and the report at its end; on the first worker."""

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from bert_tf import flags, fused_ops
from bert_tf.config.precision_file import ENVIRONMENT_VARIABLE
from bert_tf.config.run import RunConfig
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.data.text.vocabulary import load_vocabulary
from bert_tf.errors import NotConverged, one_line
from bert_tf.files import write_whole
from bert_tf.jobs.run.agreement import code
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.used_folder import log_file
from bert_tf.launch import launched_size
from bert_tf.report.run_files import (
    FACTS_FILE,
    REPORT_FILE,
    facts_text,
    read_facts,
)
from bert_tf.report.writing import write_report
from bert_tf.resources import describe_cores, memory_total
from bert_tf.training.runlog import RunLog

_LAUNCHERS = ("mpirun", "mpiexec", "prterun", "horovodrun")
# Rows of the table of the hardest examples, and classes of the largest matrix.
NUM_HARDEST = 20
_MOST_CLASSES = 1000


class RunReport:
    """Collects facts about a run, and writes `FACTS_FILE` and `REPORT_FILE`.

    What fails gives one warning: no run ends because of its report.
    """

    def __init__(self, config: RunConfig, log: RunLog) -> None:
        """Prepares for one start of a run.

        Args:
          config: The settings as the user has given them.
          log: Of the run.
        """
        self._config = config
        self._log = log
        self._facts: dict[str, Any] = {}
        self._has_warned = False

    def begin(self, plan: Plan, hosts: Sequence[str], threads: int) -> None:
        """Collects what is known before the first step.

        Args:
          plan: The run.
          hosts: Of its workers.
          threads: Of each worker.
        """
        if plan.training_set is None:  # The training has left more.
            self._facts = read_facts(self._config.files.output_dir)
        try:
            self._facts = self._facts or {
                "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
                "command": command_line(self._config),
                "settings": _in_effect(plan) | plan.settings(),
                "environment": _environment(plan, hosts, threads),
                "data": _data(plan),
            }
        except Exception as error:  # Such as a deleted working folder.
            self._warn(error)
            return
        self._write_facts()

    def add_details(self, find: Callable[[], dict[str, object]]) -> None:
        """Adds what an evaluation has found.

        Args:
          find: Finds `confusion` and `hardest`, for the page.
        """
        try:
            self._facts["details"] = find()
        except Exception as error:  # Such as a deleted vocabulary.
            self._warn(error)
        self._write_facts()

    def end(self, error: BaseException | None, size: int) -> None:
        """Writes the report, unless the run ends so that there is no time for it.

        Args:
          error: What ends the run, or None.
          size: Workers: after an error of one of several the others are waiting.
        """
        is_over = error is None or isinstance(error, NotConverged)
        may_write = is_over or (size == 1 and isinstance(error, Exception))
        if not (self._facts and may_write):
            return
        folder = self._config.files.output_dir
        try:
            path = os.path.join(folder, REPORT_FILE)
            write_report(path, [folder], log_file(self._config.files))
        except Exception as caught:  # From matplotlib, or edited files.
            self._warn(caught)
        else:
            self._log.message(f"Report: {path}")

    def _write_facts(self) -> None:
        try:
            path = os.path.join(self._config.files.output_dir, FACTS_FILE)
            write_whole(path, facts_text(self._facts))
        except Exception as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            self._log.message(f"warning: no report is written: {one_line(error)}")


def _in_effect(plan: Plan) -> dict[str, Any]:
    """Values that the training uses where flags leave them open: a settings group."""
    if plan.training_set is None:
        return {}
    settings = plan.config.optimizer
    values = {
        "peak learning rate": plan.learning_rate,
        "power of the decay": settings.power,
    }
    if plan.clock is None:
        values |= {"warm-up steps": settings.warmup_steps, "steps": plan.last_step}
    return {"in effect": values}


def _environment(plan: Plan, hosts: Sequence[str], threads: int) -> dict[str, Any]:
    memory = memory_total()
    return {
        **{name: value for name, value in code().items() if value != "none"},
        "compute path": fused_ops.in_use(),
        "precision": plan.policy.name,
        "workers": plan.shape.size,
        "hosts": list(dict.fromkeys(hosts)),
        "threads per worker": threads,
        "processor": _processor(),
        "cores": describe_cores(),
        "memory": f"{memory / 2**30:.1f} GiB" if memory else "unknown",
        "system": platform.platform(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _data(plan: Plan) -> dict[str, Any]:
    """Facts about the training set; empty without one."""
    trained = plan.training_set
    if trained is None:
        return {"records to evaluate or predict": plan.num_eval_records}
    facts = {
        "records": trained.num_records,
        "records per step": plan.shape.global_batch_size,
        "sequences per record": trained.sequences_per_record,
        "max_seq_length": trained.max_seq_length,
        "packed": bool(trained.rows.is_packed if trained.rows else trained.is_packed),
        **{
            name: value
            for name, value in trained.facts.items()
            if isinstance(value, str | int | float | bool)
        },
        "records to evaluate or predict": plan.num_eval_records,
    }
    try:
        lengths = trained.measure_lengths()
    except Exception as error:  # The training itself will refuse what is damaged.
        return facts | {"lengths are not measured": one_line(error)}
    if len(lengths):
        per_row = lengths.mean() * trained.sequences_per_row(lengths)
        share = float(per_row / trained.max_seq_length)
        facts["share of tokens that are no padding"] = share
        facts["sequences measured"] = len(lengths)
        facts["lengths"] = np.bincount(lengths).tolist()
    return facts


def command_line(config: RunConfig) -> str:
    """A line for a shell that starts this run again; empty if Python code started it.

    Args:
      config: The settings.
    """
    if not _is_of(config, sys.argv):
        return ""
    words = [sys.executable, *sys.orig_argv[1:]]
    if launched_size() > 1:
        words = _launcher() or ["mpirun", "-np", str(launched_size()), *words]
    if precision := os.environ.get(ENVIRONMENT_VARIABLE):
        words = ["env", f"{ENVIRONMENT_VARIABLE}={precision}", *words]
    return f"cd {quoted(os.getcwd())} && {' '.join(map(quoted, words))}"


def _is_of(config: RunConfig, arguments: Sequence[str]) -> bool:
    """Whether a command line has these settings, perhaps behind a command's name."""
    for rest in (arguments[1:], arguments[2:]):
        try:
            if flags.parse(type(config), ["", *rest]) == config:
                return True
        except (ValueError, OSError, flags.HelpRequest):
            continue
    return False


def _launcher() -> list[str]:
    """The command line of the process that has started this one, if it is mpirun."""
    try:
        content = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return []
    words = [os.fsdecode(word) for word in content.split(b"\0")[:-1]]
    is_launcher = any(os.path.basename(word) in _LAUNCHERS for word in words[:2])
    return words if is_launcher else []


def quoted(word: str) -> str:
    """A word for a shell, with what cannot be printed as bash and zsh escape it."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    )
    return f"$'{escaped}'"


def confusion_of(
    names: Sequence[str], labels: np.ndarray, predictions: np.ndarray
) -> Mapping[str, object] | None:
    """How often each class is taken for each; None for too many classes.

    Args:
      names: Of the classes.
      labels: [n] true classes.
      predictions: [n] predicted ones.

    Returns:
      `classes` and `counts`, a row for each true class.
    """
    count = len(names)
    if count > _MOST_CLASSES:
        return None
    pairs = np.bincount(labels * count + predictions, minlength=count * count)
    return {"classes": list(names), "counts": pairs.reshape(count, count).tolist()}


def hardest(errors: np.ndarray) -> np.ndarray:
    """Numbers of the examples with the largest errors, the largest first."""
    order = np.argsort(-errors, kind="stable")[:NUM_HARDEST]
    return order[errors[order] > 0]


def classification_details(
    vocab_file: str,
    names: Sequence[str],
    sequences: TokenSequences,
    logits: np.ndarray,
    labels: np.ndarray,
) -> dict[str, object]:
    """What the page shows of the predictions of a classification or a regression.

    Args:
      vocab_file: The vocabulary, to show texts as the model sees them.
      names: Of the classes; none for a regression.
      sequences: The n examples.
      logits: [n, C].
      labels: [n].

    Returns:
      `confusion`, of classes, and `hardest`.
    """
    details: dict[str, object] = {}
    if names:
        odds = scipy.special.softmax(logits.astype(np.float64), axis=1)
        of_truth, chosen = odds[np.arange(len(labels)), labels], logits.argmax(axis=1)
        details["confusion"] = confusion_of(names, labels, chosen)
        chosen, truths = ([names[i] for i in x.tolist()] for x in (chosen, labels))
        numbers = hardest(1.0 - of_truth).tolist()
    else:
        chosen, truths = logits[:, 0].tolist(), labels.tolist()
        numbers = hardest(np.abs(logits[:, 0] - labels)).tolist()
    words = load_vocabulary(vocab_file)
    rows = [
        {
            "text": _text(sequences.input_ids[sequences.span(i)].tolist(), words),
            "true": truths[i],
            "predicted": chosen[i],
            **({"probability of the true class": float(of_truth[i])} if names else {}),
        }
        for i in numbers
    ]
    return details | {"hardest": rows}


def _text(ids: Iterable[int], words: Sequence[str]) -> str:
    """Tokens as text, as the model sees it."""
    return " ".join(words[number] for number in ids).replace(" ##", "")
