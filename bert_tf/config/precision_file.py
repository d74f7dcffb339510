"""Reads precision files, which list the operations that compute in bfloat16."""

import os
from typing import Any

from bert_tf.config import checks
from bert_tf.config.paths import require_file
from bert_tf.errors import shown
from bert_tf.json_files import read_json_object

LISTS = ("allowlist", "conditional_list", "strict_conditional_list")
EXCEPTIONS = ("non_convertible_exceptions", "convertible_exceptions")
ENVIRONMENT_VARIABLE = "TF_BF16_CONVERSION"
_OFF = ("", "0", "false")
_ON = ("1", "true")


def find_precision(precision: str, bf16_config_path: str) -> tuple[str, str, str]:
    """Explicit flag, then config path, then environment variable, then float32.

    Args:
      precision: A name of config.runtime.PRECISIONS, or empty.
      bf16_config_path: Path of a precision file, or empty.

    Returns:
      A name of PRECISIONS; the file with its lists, empty for none; and the flag or
      environment variable that names the file.
    """
    if bf16_config_path:
        return "bf16", bf16_config_path, "bf16_config_path"
    variable = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if precision or variable.lower() in _OFF:
        return precision or "fp32", "", ""
    if variable.lower() in _ON:
        return "bf16", "", ""
    return "bf16", variable, ENVIRONMENT_VARIABLE


def read_lists(path: str, setting: str = "bf16_config_path") -> dict[str, list[Any]]:
    """Reads a precision file; whether there are such operations is not checked.

    Args:
      path: JSON with the five lists; those that are missing are empty.
      setting: The flag or environment variable that names it, for messages.

    Returns:
      Name of a list -> its entries: strings, or of exceptions pairs of strings, a
      pattern and a type of operations.

    Raises:
      OSError: if there is no such file.
      ValueError: if it is not JSON, or has an unknown key, a wrong entry or a wrong
        pattern.
    """
    require_file(setting, path)
    values = read_json_object(path)
    unknown = set(values) - {*LISTS, *EXCEPTIONS}
    if unknown:
        raise ValueError(
            f"{path}: the keys must be among {', '.join((*LISTS, *EXCEPTIONS))}. "
            f"Received: {', '.join(shown(key)[1:-1] for key in sorted(unknown))}. "
            "Correct the file."
        )
    for key, entries in values.items():
        if not isinstance(entries, list):
            raise ValueError(
                f"{path}: `{key}` must be a list. Received: {shown(entries)}. Correct "
                "the file."
            )
        for entry in entries if key in LISTS else ():
            if not isinstance(entry, str):
                raise ValueError(
                    f"{path}: `{key}` must hold types of operations, such as MatMul. "
                    f"Received: {shown(entry)}. Correct the file."
                )
    for key in EXCEPTIONS:
        for entry in values.get(key, ()):
            _check_exception(path, key, entry)
    return {key: values.get(key, []) for key in (*LISTS, *EXCEPTIONS)}


def _check_exception(path: str, key: str, entry: object) -> None:
    is_pair = isinstance(entry, list) and len(entry) == 2
    if not is_pair or not all(isinstance(part, str) for part in entry):
        raise ValueError(
            f"{path}: `{key}` must hold pairs of a pattern and a type of operations. "
            f"Received: {shown(entry)}. Correct the file."
        )
    try:
        checks.require_pattern(key, entry[0])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
