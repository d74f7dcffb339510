"""The help text of a setting is the line that documents its field."""

import inspect
import re

_FIELD = re.compile(r"^(\w+): (.*)$")


def field_descriptions(config_class: type) -> dict[str, str]:
    """Reads the descriptions of fields from `Attributes:` of a config and its bases.

    Args:
      config_class: A dataclass whose docstring has a Google `Attributes:` section.

    Returns:
      Field name -> description, continuation lines joined by spaces.

    Raises:
      ValueError: if the docstring has no such section.
    """
    descriptions: dict[str, str] = {}
    for ancestor in reversed(config_class.__mro__[:-1]):
        descriptions |= _own_descriptions(ancestor)
    return descriptions


def _own_descriptions(config_class: type) -> dict[str, str]:
    doc = inspect.cleandoc(config_class.__doc__ or "")
    _, found, section = doc.partition("Attributes:\n")
    if not found:
        raise ValueError(
            "The docstring of a config class must have an `Attributes:` section. "
            f"Received: {config_class.__name__}."
        )
    descriptions: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        text = line.strip()
        match = _FIELD.match(text)
        if match and len(line) - len(line.lstrip()) == 2:
            name, descriptions[match[1]] = match[1], match[2]
        elif text and name:
            descriptions[name] += " " + text
    return descriptions
