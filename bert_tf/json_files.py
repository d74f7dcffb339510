"""The one reader of JSON: strict, and with limits on size and depth."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from bert_tf.files import check_regular, is_gzip_name, opened, placeholder

REMEDY = "Correct the file, or fetch it again."
# Configurations, manifests and metadata are far smaller, data sets smaller than `HUGE`.
MAX_BYTES = 64 << 20
HUGE = 4 << 30
MAX_DEPTH = 100
# More digits than any float has: longer numbers overflow when they are converted.
_MAX_DIGITS = 300
# Halves of surrogate pairs, and numbers that may not be finite.
_SUSPICIOUS = re.compile(
    r"\\u[dD][89a-fA-F]|[\ud800-\udfff]|NaN|Infinity|[eE]\+?\d\d|\d{100}"
)
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def parse_json(data: bytes | str, *, finite: bool = True) -> Any:  # noqa: ANN401 - any
    """Parses JSON, and refuses what the module `json` accepts beyond it.

    Args:
      data: UTF-8, with or without a byte order mark, or decoded text.
      finite: Whether to refuse NaN and infinity, which Python's writer makes.

    Returns:
      The value. Its strings can be encoded.

    Raises:
      ValueError: if it is not JSON, nested deeper than `MAX_DEPTH`, or an object has a
        key twice. The message is a phrase to stand behind the file's name.
    """
    text = data if isinstance(data, str) else _decode(data)
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise ValueError("it is empty")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise ValueError(_too_deep()) from None
    _check_depth(value)
    if _SUSPICIOUS.search(text):
        _check_values(value, "it", finite)
    return value


def _decode(data: bytes) -> str:
    if data.startswith(_UTF_16):
        raise ValueError("it is stored as UTF-16, and must be UTF-8")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start} (0x{data[error.start]:02x}) is not UTF-8"
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:80]!r} occurs twice in an object")
            seen.add(key)
    return values


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def _too_deep() -> str:
    return f"it is nested deeper than {MAX_DEPTH} levels"


def _inner(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = (x for outer in level for x in _inner(outer))
        level = [x for x in inner if isinstance(x, dict | list)]
        if not level:
            return
    raise ValueError(_too_deep())


def _check_values(value: object, location: str, finite: bool) -> None:
    """Refuses what cannot be written again: NaN, infinity, half a surrogate pair."""
    reason = ""
    if finite and isinstance(value, float) and not math.isfinite(value):
        reason = f"must hold finite numbers only, and holds {value}"
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            reason = f"holds {half}, half of a surrogate pair"
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_values(key, f"a key in {location}", finite)
            _check_values(inner, f"`{key[:80]}`", finite)
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, location, finite)
    if reason:
        raise ValueError(f"{location} {reason}")


def read_json(
    path: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
    remedy: str = REMEDY,
) -> Any:  # noqa: ANN401 - any value
    """Reads a JSON file; see `parse_json`.

    Args:
      path: The file, which may be a .gz.
      max_bytes: Larger files are refused.
      remedy: What to do about a file that is refused: a sentence.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a regular file or not JSON; the message names it.
    """
    check_regular(path, max_bytes)
    found = placeholder(path)
    reason = f"it is {found}" if found else ""
    if not reason:
        try:
            if not is_gzip_name(path):
                return parse_json(Path(path).read_bytes())
            with opened(path) as file:
                data = file.read(max_bytes + 1)
            if len(data) > max_bytes:
                raise ValueError(f"it holds more than {max_bytes:,} bytes")
            return parse_json(data)
        except ValueError as error:
            reason = str(error)
    raise ValueError(f"{path} is not JSON: {reason}. {remedy}")


def read_json_object(
    path: str | os.PathLike[str], *, remedy: str = REMEDY
) -> dict[str, Any]:
    """Reads a JSON file that holds an object; see `read_json`."""
    values = read_json(path, remedy=remedy)
    if not isinstance(values, dict):
        raise ValueError(
            f"{path} must hold a JSON object. Received: {type(values).__name__}. "
            f"{remedy}"
        )
    return values


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON object; empty if there is no such file.

    Raises:
      ValueError: if it is not JSON, or not an object; the message names the file.
    """
    try:
        return read_json_object(path, remedy="Restore the file, or delete it.")
    except FileNotFoundError:
        return {}
