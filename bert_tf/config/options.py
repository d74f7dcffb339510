"""The settings of a config class as options, for scripts and commands alike.

The help text of an option is the line that documents its field.
"""

import dataclasses
import inspect
import re
import types
import typing

from bert_tf.config import checks

_FIELD = re.compile(r"^(\w+): (.*)$")


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a config class.

    Attributes:
      name: Of the field.
      kind: The type of its value: bool, int, float, str or tuple.
      may_be_none: Whether None is a value of it, too.
      default: Of the field.
      description: The line that documents it.
      is_required: Whether a command line must have it.
    """

    name: str
    kind: type
    may_be_none: bool
    default: object
    description: str
    is_required: bool

    @property
    def limit_text(self) -> str:
        """The largest value of a number, as a sentence; empty for other options."""
        if self.kind not in (int, float) or self.name not in checks.LIMITS:
            return ""
        return f"At most {checks.LIMITS[self.name]:,}."

    @property
    def default_text(self) -> str:
        """The default as a user writes it; empty if there is none."""
        if self.default in (dataclasses.MISSING, None, "", ()):
            return ""
        if isinstance(self.default, tuple):
            return ",".join(self.default)
        return str(self.default)


def options_of(config_class: type) -> dict[str, Option]:
    """The options of a config class by name, in the order of its fields.

    Args:
      config_class: A dataclass whose docstring has a Google `Attributes:` section.

    Raises:
      ValueError: if the docstring has no such section.
    """
    hints = typing.get_type_hints(config_class)
    descriptions = _field_descriptions(config_class)
    options = {}
    for field in dataclasses.fields(config_class):
        hint, may_be_none = hints[field.name], False
        if isinstance(hint, types.UnionType):
            may_be_none = True
            [hint] = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        options[field.name] = Option(
            name=field.name,
            kind=typing.get_origin(hint) or hint,
            may_be_none=may_be_none,
            default=field.default,
            description=descriptions[field.name],
            is_required=field.name in getattr(config_class, "REQUIRED", ()),
        )
    return options


def _field_descriptions(config_class: type) -> dict[str, str]:
    """Field -> description, of `Attributes:` of a config class and its bases."""
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
