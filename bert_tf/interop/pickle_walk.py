"""Pickles of plain data and tensors, understood without unpickling.

A pickle is a program for a machine with a stack. This one knows only the instructions
that build numbers, strings, tuples, lists and dictionaries. A global of the file is
looked up in a table of the caller and nowhere else; nothing is imported or executed.
"""

import dataclasses
import io
import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

# Far more than the names of any model's tensors take; they bound memory and time.
MAX_PICKLE_BYTES = 16 << 20
_MAX_INSTRUCTIONS = 2_000_000
_MAX_INTEGER_BITS = 128
_MAX_PROTOCOL = 5
_MAX_SHOWN_CHARS = 60

_Kind = TypeVar("_Kind")

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES".split()
)
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclasses.dataclass(frozen=True)
class Function:
    """Stands for a global that a pickle may call.

    Attributes:
      name: The global, for messages.
      call: Takes the tuple of arguments, of any number and kind; refuses wrong ones
        with a ValueError.
    """

    name: str
    call: Callable[[tuple[Any, ...]], Any]


def shown(value: object) -> str:
    """A short text without line breaks for a value of a file, for messages."""
    if isinstance(value, str | bytes):
        return ascii(value[:_MAX_SHOWN_CHARS])
    if value is None or isinstance(value, int | float):
        return repr(value)
    return f"a {type(value).__name__}"


def walk_pickle(
    stream: io.BytesIO,
    allowed: Mapping[str, Any],
    find_persistent: Callable[[Any], Any],
) -> object:
    """Reads one pickle.

    Args:
      stream: Stands at the pickle's first byte, and behind its last one afterwards.
      allowed: `module.name` of a global -> what stands for it; a `Function` if the
        pickle may call it.
      find_persistent: Gives the object that an id of the pickle names; refuses wrong
        ids with a ValueError.

    Returns:
      The object: numbers, strings, bytes, tuples, lists, dictionaries, and what
      `allowed` and `find_persistent` give.

    Raises:
      ValueError: if the pickle is broken, asks for another instruction or global, or
        is larger than any that names tensors.
    """
    return _Machine(allowed, find_persistent).run(stream)


def _instructions(stream: io.BytesIO) -> Iterator[tuple[str, Any, int]]:
    """Name, argument and place of each instruction."""
    steps = pickletools.genops(stream)
    for _ in range(_MAX_INSTRUCTIONS):
        try:
            opcode, argument, place = next(steps)
        except StopIteration:
            return
        except (ValueError, LookupError, ArithmeticError, Warning) as error:
            raise ValueError(f"its pickle is broken ({error})") from error
        yield opcode.name, argument, place
    raise ValueError(f"its pickle has over {_MAX_INSTRUCTIONS} instructions")


class _Machine:
    """Stack and memory of one pickle."""

    def __init__(
        self, allowed: Mapping[str, Any], find_persistent: Callable[[Any], Any]
    ) -> None:
        self._allowed = allowed
        self._find_persistent = find_persistent
        # A mark sets the stack aside and begins an empty one.
        self._stack: list[Any] = []
        self._set_aside: list[list[Any]] = []
        self._memory: dict[int, Any] = {}
        self._place = 0
        self._actions: dict[str, Callable[[Any], None]] = {
            "PROTO": self._check_protocol,
            "FRAME": lambda _: None,
            "MARK": lambda _: self._mark(),
            "EMPTY_LIST": lambda _: self._stack.append([]),
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "TUPLE": lambda _: self._collect_tuple(),
            "APPEND": lambda _: self._append(self._take(1)),
            "APPENDS": lambda _: self._append(self._take_to_mark()),
            "SETITEM": lambda _: self._set_items(self._take(2)),
            "SETITEMS": lambda _: self._set_items(self._take_to_mark()),
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "MEMOIZE": lambda _: self._remember(len(self._memory)),
            "BINGET": self._recall,
            "LONG_BINGET": self._recall,
            "GLOBAL": lambda name: self._find_global(name.replace(" ", ".", 1)),
            "STACK_GLOBAL": lambda _: self._find_stacked_global(),
            "REDUCE": lambda _: self._call(),
            "BUILD": lambda _: self._pass_over_state(),
            "BINPERSID": lambda _: self._find_stored(),
        }

    def run(self, stream: io.BytesIO) -> object:
        """Follows the instructions to their end."""
        for name, argument, self._place in _instructions(stream):
            if name == "STOP":
                return self._result()
            if name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                self._push_literal(argument)
            elif name in _TUPLES:
                self._stack.append(tuple(self._take(_TUPLES[name])))
            elif name in self._actions:
                self._actions[name](argument)
            else:
                self._refuse(f"has the instruction {name}, which no tensor needs")
        return self._refuse("does not end")

    def _refuse(self, reason: str) -> NoReturn:
        raise ValueError(f"its pickle, byte {self._place}, {reason}")

    def _result(self) -> object:
        [value] = self._take(1)
        if self._stack or self._set_aside:
            self._refuse("ends with more than one object")
        return value

    def _check_protocol(self, version: int) -> None:
        if version > _MAX_PROTOCOL:
            self._refuse(f"has protocol {version}, and only {_MAX_PROTOCOL} are known")

    def _push_literal(self, value: object) -> None:
        if isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS:
            self._refuse(f"has an integer of {value.bit_length()} bits")
        self._stack.append(value)

    def _mark(self) -> None:
        self._set_aside.append(self._stack)
        self._stack = []

    def _take(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            self._refuse(f"takes {count} objects from a stack of {len(self._stack)}")
        begin = len(self._stack) - count
        taken = self._stack[begin:]
        del self._stack[begin:]
        return taken

    def _take_to_mark(self) -> list[Any]:
        if not self._set_aside:
            self._refuse("needs a mark, and there is none")
        taken, self._stack = self._stack, self._set_aside.pop()
        return taken

    def _top(self, kind: type[_Kind]) -> _Kind:
        """The last object, which must be of a kind; it stays where it is."""
        top = self._stack[-1] if self._stack else None
        if type(top) is not kind:
            self._refuse(f"changes {shown(top)} as if it were a {kind.__name__}")
        return top

    def _collect_tuple(self) -> None:
        items = self._take_to_mark()
        self._stack.append(tuple(items))

    def _append(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            self._refuse("sets a key of a dictionary without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Others are never needed, and a tuple may be nested too deeply to hash.
            if type(key) not in (str, int):
                self._refuse(f"has {shown(key)} as the key of a dictionary")
            target[key] = value

    def _remember(self, number: int) -> None:
        if not self._stack:
            self._refuse("remembers an object of an empty stack")
        self._memory[number] = self._stack[-1]

    def _recall(self, number: int) -> None:
        if number not in self._memory:
            self._refuse(f"recalls object {number}, which it has not remembered")
        self._stack.append(self._memory[number])

    def _find_global(self, name: str) -> None:
        if name not in self._allowed:
            self._refuse(
                f"needs {shown(name)}, which is refused: only tensors are read"
            )
        self._stack.append(self._allowed[name])

    def _find_stacked_global(self) -> None:
        module, name = self._take(2)
        if type(module) is not str or type(name) is not str:
            self._refuse(f"has {shown(module)} and {shown(name)} as a global's name")
        self._find_global(f"{module}.{name}")

    def _call(self) -> None:
        function, arguments = self._take(2)
        if not isinstance(function, Function) or type(arguments) is not tuple:
            self._refuse(f"calls {shown(function)} with {shown(arguments)}")
        try:
            self._stack.append(function.call(arguments))
        except ValueError as error:
            self._refuse(f"calls {function.name} wrongly: {error}")

    def _pass_over_state(self) -> None:
        """Attributes of a dictionary, such as the versions of a model's layers."""
        [state] = self._take(1)
        if type(state) is not dict:
            self._refuse(f"sets {shown(state)} as the attributes of an object")
        self._top(dict)

    def _find_stored(self) -> None:
        [key] = self._take(1)
        try:
            self._stack.append(self._find_persistent(key))
        except ValueError as error:
            self._refuse(f"names its data wrongly: {error}")
