"""Errors that a user can fix: entry scripts print them as one line."""

import difflib
import os
import re
from collections.abc import Iterable

_MAX_SHOWN = 200
_MAX_LINE = 2000
# Characters of a word that are compared with known ones, and how alike those must be.
_MAX_WORD, _LIKENESS = 100, 0.7
# Names of a folder that are compared with a missing one.
_MAX_NAMES = 10_000
# Names of the same settings in transformers' scripts and Trainer, and ours, of which
# the first counts that is known.
_OF_TRANSFORMERS = {
    "adam_beta1": ("beta_1",),
    "adam_beta2": ("beta_2",),
    "adam_epsilon": ("epsilon",),
    "bf16": ("precision=bf16",),
    "config_name": ("bert_config_file",),
    "eval_strategy": ("eval_steps", "evaluate_each_epoch"),
    "evaluation_strategy": ("eval_steps", "evaluate_each_epoch"),
    "fp16": ("precision=fp16",),
    "gradient_accumulation_steps": ("num_accumulation_steps",),
    "gradient_checkpointing": ("recompute",),
    "label_column_name": ("label_column",),
    "line_by_line": ("input_format=lines",),
    "load_best_model_at_end": ("evaluate_each_epoch",),
    "logging_steps": ("display_loss_steps",),
    "lr_scheduler_type": ("poly_power",),
    "mlm_probability": ("masked_lm_prob",),
    "model_name_or_path": ("init_checkpoint", "model"),
    "optim": ("optimizer_type",),
    "per_device_eval_batch_size": ("eval_batch_size",),
    "per_device_train_batch_size": ("train_batch_size",),
    "preprocessing_num_workers": ("num_processes",),
    "report_to": ("tracker",),
    "save_steps": ("save_checkpoints_steps",),
    "save_total_limit": ("keep_checkpoint_max",),
    "test_file": ("predict_file", "data_dir"),
    "text_column_name": ("text_a_column", "text_field"),
    "text_column_names": ("text_a_column", "text_field"),
    "tokenizer_name": ("vocab_file",),
    "torch_compile": ("use_xla",),
    "train_file": ("input_files_dir", "data_dir", "input"),
    "validation_file": ("eval_files_dir", "predict_file", "dev_file", "data_dir"),
    "warmup_ratio": ("warmup_proportion",),
    "weight_decay": ("weight_decay_rate",),
}


def shown(value: object) -> str:
    """A value for a message: its `repr`, the middle left out where it is long."""
    if isinstance(value, int) and abs(value) >= 10**_MAX_SHOWN:
        return f"a number of more than {_MAX_SHOWN} digits"
    try:
        return shortened(repr(value), _MAX_SHOWN)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names the known word most like a wrong one; empty if none is.

    An argument of transformers is like ours for the same, and like no other.
    """
    names = {name.lower(): name for name in known}
    word = word[:_MAX_WORD].lower()
    name = word.lstrip("-").replace("-", "_")
    if name in _OF_TRANSFORMERS:
        dashes = word[: len(word) - len(word.lstrip("-"))]
        ours = [f"{dashes}{other}" for other in _OF_TRANSFORMERS[name]]
        close = [other for other in ours if other.partition("=")[0] in names]
        return f"Did you mean {close[0]}?" if close else ""
    close = difflib.get_close_matches(word, names, n=1, cutoff=_LIKENESS)
    return f"Did you mean {names[close[0]]}?" if close else ""


def similar_path(path: str, ending: str = "") -> str:
    """A question that names a path like one that does not exist; empty if none is.

    Args:
      path: What does not exist; its folder, or one above it, may be what is wrong.
      ending: Of files that are named without it, as checkpoints are. One of them is
        named even if it is not like the path, that of the highest number.
    """
    path = os.path.normpath(path)
    wrong = path
    while not os.path.isdir(os.path.dirname(wrong) or "."):
        wrong = os.path.dirname(wrong)
    folder, name = os.path.split(wrong)
    try:
        names = sorted(os.listdir(folder or "."))[:_MAX_NAMES]
    except OSError:
        return ""
    rest = path[len(wrong) :]
    named = [x.removesuffix(ending) for x in names if ending and x.endswith(ending)]
    if rest:
        named = []
    # bert_model.ckpt is as much like model.ckpt-90 as like model.ckpt-600.
    likeness = _LIKENESS + 0.1 * bool(named)
    close = difflib.get_close_matches(name[:_MAX_WORD], named or names, 1, likeness)
    if named and not close:
        close = [max(named, key=lambda x: [int(n) for n in re.findall(r"\d+$", x)])]
    found = [os.path.join(folder, x) + rest for x in close]
    if rest:
        found = [x for x in found if os.path.exists(x) or os.path.exists(x + ending)]
    return f"Did you mean {found[0]}?" if found else ""


def listed(items: Iterable[str], separator: str = ", ", *, most: int = 20) -> str:
    """The first items, and the number of the others, in one line of a message."""
    items = list(items)
    more = len(items) - most
    first = separator.join(items[:most])
    return f"{first}{separator}and {more:,} more" if more > 0 else first


def counted(number: int, noun: str) -> str:
    """A number of things, in words: "1 thread", "1,000 steps"."""
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def one_line(error: BaseException | str) -> str:
    """The message of an error on one printable line.

    Line ends and control characters, which names of files may have, are escaped.
    """
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        where = error.filename if error.filename is not None else "A file"
        where = where if isinstance(where, str) else repr(where)
        text = (
            f"{where} cannot be read or written: {error.strerror}. Check the path, its "
            "permissions and the free space, or pass another path."
        )
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shortened(text, _MAX_LINE)


def printable(error: BaseException) -> str:
    """The message on one line, or, where it lists things, on a line for each."""
    if isinstance(error, OSError):
        return one_line(error)
    return "\n  ".join(map(one_line, str(error).split("\n  ")))


def shortened(text: str, most: int) -> str:
    """A text with its middle left out, where it has more than `most` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} [...] {text[-most // 2 :]}"


class RunError(Exception):
    """A run cannot start or continue; the message states the cause and the remedy."""


class CorruptRecordError(RunError):
    """A record cannot be read; the message names file, record and byte offset.

    Attributes:
      number: Number of the record within its set; None if a whole file cannot be read.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number


class NonFiniteError(RunError):
    """A loss or a gradient is not a finite number."""


class NotConverged(RunError):  # noqa: N818 - nothing failed
    """A training is over, or stops for now, without having reached its target."""


class OtherWorkerFailed(RunError):  # noqa: N818 - the error of another worker
    """Another worker stopped; that worker reports the cause."""


class WorkerLost(OtherWorkerFailed):
    """Another worker is gone, perhaps without a word about the cause."""


class Stopped(BaseException):  # noqa: N818 - not an error: a signal asked for it
    """A signal ends the run; no `except Exception` may hold it up."""
