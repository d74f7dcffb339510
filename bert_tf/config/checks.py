"""Checks that every config class uses; each names the setting and its value."""

import math
from collections.abc import Sequence


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
        message = f"`{name}` must {rule}. Received: {name}={value!r}."
        raise ValueError(f"{message} {remedy}".rstrip())


def require_given(config: object, *names: str) -> None:
    """Each named setting must not be empty."""
    for name in names:
        require(bool(getattr(config, name)), name, "be given", "", f"Pass --{name}.")


def require_positive(config: object, *names: str) -> None:
    """Each named number must be greater than zero."""
    for name in names:
        value = getattr(config, name)
        is_valid = value > 0 and math.isfinite(value)
        require(is_valid, name, "be greater than 0 and finite", value)


def require_not_negative(config: object, *names: str) -> None:
    """Each named number must be at least zero."""
    for name in names:
        value = getattr(config, name)
        is_valid = value >= 0 and math.isfinite(value)
        require(is_valid, name, "be at least 0 and finite", value)


def require_probability(config: object, *names: str) -> None:
    """Each named number must lie in [0, 1)."""
    for name in names:
        value = getattr(config, name)
        require(0.0 <= value < 1.0, name, "be in [0, 1)", value)


def require_choice(config: object, name: str, choices: Sequence[str]) -> None:
    """The named setting must be one of `choices`."""
    value = getattr(config, name)
    require(value in choices, name, f"be one of {', '.join(choices)}", value)


def require_range(config: object, name: str) -> None:
    """The named setting must be empty, or X,Y with 1 <= X <= Y."""
    value = getattr(config, name)
    parts = value.split(",")
    is_valid = len(parts) == 2 and all(part.strip().isdecimal() for part in parts)
    is_valid = is_valid and 1 <= int(parts[0]) <= int(parts[1])
    rule = "be two steps X,Y with 1 <= X <= Y"
    require(is_valid or not value, name, rule, value)


# Far beyond real use. Each shard is a file, and all names are in memory before that.
MAX_SHARDS = 100_000


def require_shards(config: object, *names: str) -> None:
    """Each named number of files must be at most `MAX_SHARDS`."""
    for name in names:
        value = getattr(config, name)
        require(value <= MAX_SHARDS, name, f"be at most {MAX_SHARDS}", value)
