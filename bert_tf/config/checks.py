"""Checks that every config class uses; each names the setting and its value."""

import math
import os
import re
from collections.abc import Iterator, Sequence

from bert_tf.errors import did_you_mean, shown
from bert_tf.resources import cpu_limit

# The largest value of each number, far beyond real use: what is larger is a mistake,
# and would end in a crash of a library, without memory, or never.
MAX_NUMBER = 10**12
MAX_THREADS_PER_CORE = 16
LIMITS = {
    **dict.fromkeys(("num_threads", "num_processes"), 1024),
    # Architecture, and lengths that it bounds.
    "vocab_size": 10_000_000,
    "hidden_size": 65_536,
    "num_hidden_layers": 1024,
    "num_attention_heads": 1024,
    "intermediate_size": 1 << 20,
    "max_position_embeddings": 65_536,
    "type_vocab_size": 65_536,
    "initializer_range": 100,
    "layer_norm_eps": 1,
    **dict.fromkeys(
        (
            "max_seq_length",
            "max_predictions_per_seq",
            "doc_stride",
            "max_query_length",
            "max_answer_length",
        ),
        65_536,
    ),
    **dict.fromkeys(
        (
            "train_batch_size",
            "eval_batch_size",
            "predict_batch_size",
            "batch_size",
            "num_accumulation_steps",
        ),
        1_000_000,
    ),
    # Optimizer.
    "learning_rate": 1e10,
    **dict.fromkeys(("epsilon", "weight_decay_rate"), 1e6),
    "poly_power": 100,
    "num_train_epochs": 1_000_000,
    # Data. Each shard is a file, and all names are in memory before that.
    "num_shards": 100_000,
    "n_training_shards": 100_000,
    "n_test_shards": 100_000,
    "max_sequences_per_pack": 65_536,
    "max_ngram_size": 1000,
    "dupe_factor": 1_000_000,
    "limit_alphabet": 0x110000,
    "seed": 2**63 - 1,
    # Machines of a plan.
    "device_flops": 1e18,
    **dict.fromkeys(
        (
            "memory_bytes_per_second",
            "local_bytes_per_second",
            "network_bytes_per_second",
        ),
        1e15,
    ),
    **dict.fromkeys(
        ("local_latency_seconds", "network_latency_seconds", "start_seconds"), 60
    ),
    **dict.fromkeys(("workers_per_host", "cores_per_host", "worker_cores"), 65_536),
    "measure_seconds": 86_400,
    # Predictions.
    **dict.fromkeys(("n_best_size", "top_k"), 10_000),
}


def require_threads(num_threads: int | None = None) -> None:
    """Threads must not be many times the cores; TensorFlow's variables for them, too.

    So many would wait for each other: a step would take minutes. Far more crash
    TensorFlow. Fewer are a warning, see `thread_warnings`.

    Args:
      num_threads: The setting; None if there is none.

    Raises:
      ValueError: naming the setting or the variable.
    """
    cores = int(min(os.cpu_count() or 1, cpu_limit() or math.inf)) or 1
    limit = min(LIMITS["num_threads"], MAX_THREADS_PER_CORE * cores)
    if num_threads is not None:
        rule = f"be at most {MAX_THREADS_PER_CORE} x {cores} cores = {limit}"
        remedy = "Leave it out for one thread on each core."
        require(num_threads <= limit, "num_threads", rule, num_threads, remedy)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        value = os.environ.get(name, "").strip()
        is_small = value.isdecimal() and len(value) < 10 and int(value) <= limit
        is_valid = not value or is_small
        rule = f"be a whole number from 0 to {limit:,}"
        require(is_valid, name, rule, value, "Set another, or unset it.")


def require(
    condition: bool, name: str, rule: str, value: object, remedy: str = ""
) -> None:
    """Raises a `ValueError` in the house form unless `condition` holds.

    Args:
      condition: What must be true.
      name: The setting, which is the name of its flag.
      rule: The rest of the sentence "`name` must ...".
      value: What was received.
      remedy: What to do, a full sentence; optional.

    Raises:
      ValueError: if `condition` is false.
    """
    if not condition:
        message = f"`{name}` must {rule}. Received: {name}={shown(value)}."
        raise ValueError(f"{message} {remedy}".rstrip())


def require_given(config: object, *names: str) -> None:
    """Each named setting must not be empty."""
    for name in names:
        value = getattr(config, name)
        require(bool(value), name, "be given", value, f"Pass --{name}.")


def require_with(job: str, name: str, value: str) -> None:
    """A setting that another one needs must not be empty."""
    require(bool(value), name, f"be given with `{job}`", "", f"Pass --{name}.")


def require_only_with(
    other: str, is_given: object, name: str, value: object, why: str = ""
) -> None:
    """A setting that has no effect without another one must not be given alone."""
    remedy = f"Pass --{other} too, or leave it out."
    is_valid = bool(is_given or not value)
    require(is_valid, name, f"come with `{other}`{why}", value, remedy)


def _numbers(config: object, names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """The named numbers, without those that are None by default and not given."""
    for name in names:
        value = getattr(config, name)
        if value is not None or getattr(type(config), name, 0) is not None:
            yield name, value


def require_positive(config: object, *names: str) -> None:
    """Each named number must be greater than zero."""
    for name, value in _numbers(config, names):
        is_valid = 0 < value < math.inf
        require(is_valid, name, "be greater than 0 and finite", value)
    require_limits(config, *names)


def require_not_negative(config: object, *names: str) -> None:
    """Each named number must be at least zero."""
    for name, value in _numbers(config, names):
        is_valid = 0 <= value < math.inf
        require(is_valid, name, "be at least 0 and finite", value)
    require_limits(config, *names)


def require_limits(config: object, *names: str) -> None:
    """Each named number must be finite, and at most its limit away from zero."""
    for name, value in _numbers(config, names):
        limit = LIMITS.get(name, MAX_NUMBER)
        rule = f"be at most {limit:,}"
        require(not abs(value) > limit, name, rule, value, "Pass a smaller one.")
        require(math.isfinite(value), name, "be finite", value)


def require_probability(config: object, *names: str) -> None:
    """Each named number must lie in [0, 1)."""
    for name, value in _numbers(config, names):
        require(0.0 <= value < 1.0, name, "be in [0, 1)", value)


def require_choice(config: object, name: str, choices: Sequence[str]) -> None:
    """The named setting must be one of `choices`."""
    value = getattr(config, name)
    rule = f"be one of {', '.join(choices)}"
    require(value in choices, name, rule, value, did_you_mean(value, choices))


def require_range(config: object, name: str) -> None:
    """The named setting must be empty, or X,Y with 1 <= X <= Y."""
    value = getattr(config, name)
    parts = value.split(",")
    is_valid = len(parts) == 2 and all(
        part.strip().isdecimal() and len(part) <= len(str(MAX_NUMBER)) for part in parts
    )
    is_valid = is_valid and 1 <= int(parts[0]) <= int(parts[1])
    rule = "be two steps X,Y with 1 <= X <= Y"
    require(is_valid or not value, name, rule, value)


def require_patterns(name: str, patterns: Sequence[str]) -> None:
    """A setting must be a list of regular expressions."""
    # A lone string would count as one pattern per letter, and match nearly all.
    require(not isinstance(patterns, str), name, "be a list", patterns)
    for pattern in patterns:
        require_pattern(name, pattern)


def require_pattern(name: str, pattern: str) -> None:
    """A setting, or a key of a file, must hold a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"`{name}` must hold regular expressions. Received: {shown(pattern)} "
            f"({error}). Correct the pattern."
        ) from None
