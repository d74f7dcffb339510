"""Regular expressions that choose variables by their paths."""

import re
from collections.abc import Sequence

from bert_tf.config import checks


def checked_patterns(name: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns, once each is known to be a regular expression."""
    # A lone string would count as one pattern per letter, and match nearly all.
    checks.require(not isinstance(patterns, str), name, "be a list", patterns)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"`{name}` must hold regular expressions. Received: {pattern!r} "
                f"({error})."
            ) from error
    return tuple(patterns)


def matches(patterns: Sequence[str], path: str) -> bool:
    """Whether any pattern is found in the path of a variable."""
    return any(re.search(pattern, path) for pattern in patterns)
