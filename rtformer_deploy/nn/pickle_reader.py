"""Reads a pickle as plain values. It imports nothing, calls only the functions of a table, and limits the work.

Python's own unpickler builds whatever a file asks for, however deep or large. Weights need few opcodes, which pickletools.genops lists
here. Each one must build a plain value (None, bool, int, float, str, bytes, tuple, list, dict) or an object that a table of known names
makes; if not, the file is refused. No value is hashed, compared or printed unless its type is known.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from ..errors import first_line, shorten

#: A large network's whole checkpoint, optimizer included, takes a tenth of this.
_MOST_OPERATIONS = 500_000
_MOST_ON_STACK = 100_000
_LARGEST_INTEGER = 2**63
_LONGEST_LINE = 4096
_LATEST_PROTOCOL = 5
_MOST_AXES = 8
_MOST_VALUES = 2**40  # of a tensor, without its empty axes, because libraries multiply the others even then

_CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = frozenset({"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"})
_TEXTS = frozenset({"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class RefusedError(Exception):
    """What a pickle does that weights do not need: a clause that follows the file's name and "is refused"."""


class DamagedError(Exception):
    """Why the bytes are not a pickle, or not a whole one."""


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A name that a pickle may ask for ("numpy.dtype") and the function to call in its place; None if it is never called."""

    name: str
    call: Callable[[tuple[object, ...]], object] | None = None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a pickle may use beyond plain values: names, what BUILD does to an object, what a persistent id means, the types of keys.

    `refused` holds further names, each with what it means if a pickle asks for it: a clause as in RefusedError.
    """

    names: Mapping[str, Name]
    build: Callable[[object, object], None]
    refer: Callable[[object], object] | None = None
    keys: tuple[type, ...] = (str,)
    refused: Mapping[str, str] = field(default_factory=dict)


class _File(io.BytesIO):
    """Bytes whose lines have a maximum length. Old opcodes write numbers and names as text lines, and these are short."""

    def readline(self, size: int | None = -1, /) -> bytes:
        return super().readline(_LONGEST_LINE)


def read_pickle(data: bytes, vocabulary: Vocabulary, start: int = 0) -> tuple[object, int]:
    """The value of the pickle that begins at `start`, and where the pickle ends. Raises RefusedError, DamagedError."""
    file = _File(data)
    file.seek(start)
    machine = _Machine(vocabulary)
    operations = enumerate(pickletools.genops(file))
    while True:
        try:
            count, (opcode, argument, _) = next(operations)
        except Exception as error:  # genops raises whatever decoding an argument raises
            raise DamagedError(f"{type(error).__name__}: {first_line(error)}") from error
        if count >= _MOST_OPERATIONS:
            raise RefusedError(f"it has more than {_MOST_OPERATIONS:,} operations")
        if opcode.name == "STOP":
            return machine.pop(), file.tell()
        if opcode.name == "PROTO" and int(argument or 0) > _LATEST_PROTOCOL:
            raise DamagedError(f"there is no pickle protocol {argument}")
        if opcode.name == "FRAME" and int(argument or 0) > len(data) - file.tell():
            raise DamagedError("a frame is longer than the file")
        machine.do(opcode.name, argument)


def is_shape(value: object) -> TypeGuard[tuple[int, ...]]:
    """Whether a value that a pickle built is a tensor's shape: a short tuple of sizes."""
    if not isinstance(value, tuple) or len(value) > _MOST_AXES or not all(type(size) is int and size >= 0 for size in value):
        return False
    return bool(math.prod(max(size, 1) for size in value) <= _MOST_VALUES)


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._known = vocabulary
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._others: dict[str, Callable[[], None]] = {
            "MARK": self._mark,
            "MEMOIZE": lambda: self._put(len(self._memo)),
            "TUPLE": lambda: self._push(tuple(self._pop_to_mark())),
            "EMPTY_LIST": lambda: self._push([]),
            "LIST": lambda: self._push(self._pop_to_mark()),
            "APPEND": lambda: self._append([self.pop()]),
            "APPENDS": lambda: self._append(self._pop_to_mark()),
            "EMPTY_DICT": lambda: self._push({}),
            "DICT": self._dict,
            "SETITEM": lambda: self._set_items(self._pop(2)),
            "SETITEMS": lambda: self._set_items(self._pop_to_mark()),
            "STACK_GLOBAL": self._stack_global,
            "REDUCE": self._reduce,
            "BUILD": self._build,
            "BINPERSID": self._refer,
        }

    def do(self, name: str, argument: object) -> None:
        """One opcode with its argument."""
        if name in _NUMBERS or name in _TEXTS:
            self._push(_bounded(argument))
        elif name in _PUTS:
            self._put(argument)
        elif name in _GETS:
            self._get(argument)
        elif name in _CONSTANTS:
            self._push(_CONSTANTS[name])
        elif name in _TUPLES:
            self._push(tuple(self._pop(_TUPLES[name])))
        elif name == "GLOBAL":
            self._push(self._name(str(argument).replace(" ", ".", 1)))
        elif name in self._others:
            self._others[name]()
        elif name not in ("PROTO", "FRAME"):
            raise RefusedError(f"it uses the opcode {name}")

    def pop(self) -> object:
        """The top of the stack, above the last mark."""
        (value,) = self._pop(1)
        return value

    def _push(self, value: object) -> None:
        if len(self._stack) >= _MOST_ON_STACK:
            raise RefusedError(f"it puts more than {_MOST_ON_STACK:,} values on the stack")
        self._stack.append(value)

    def _pop(self, count: int) -> list[object]:
        if len(self._stack) - count < (self._marks[-1] if self._marks else 0):
            raise DamagedError("an operation lacks its values")
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _mark(self) -> None:
        if len(self._marks) >= _MOST_ON_STACK:
            raise RefusedError(f"it puts more than {_MOST_ON_STACK:,} marks on the stack")
        self._marks.append(len(self._stack))

    def _pop_to_mark(self) -> list[object]:
        if not self._marks:
            raise DamagedError("an operation lacks its mark")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _top(self) -> object:
        value = self.pop()
        self._stack.append(value)
        return value

    def _put(self, index: object) -> None:
        if not isinstance(index, int) or not 0 <= index < _MOST_OPERATIONS:
            raise RefusedError(f"it remembers a value under the number {index}, which is too large")
        self._memo[index] = self._top()

    def _get(self, index: object) -> None:
        if not isinstance(index, int) or index not in self._memo:
            raise DamagedError("it asks for a value that it did not remember")
        self._push(self._memo[index])

    def _append(self, values: list[object]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise RefusedError("it appends to something that is not a list")
        target.extend(values)

    def _dict(self) -> None:
        values = self._pop_to_mark()
        self._push({})
        self._set_items(values)

    def _set_items(self, values: list[object]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(values) % 2:
            raise RefusedError("it sets items of something that is not a dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, self._known.keys):
                raise RefusedError(f"it holds a dictionary with a {type(key).__name__} as a key")
            target[key] = value

    def _stack_global(self) -> None:
        module, name = self._pop(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise RefusedError("it asks for a name that is not text")
        self._push(self._name(f"{module}.{name}"))

    def _name(self, name: str) -> Name:
        if name not in self._known.names:
            raise RefusedError(self._known.refused.get(name) or f"it asks for {shorten(name)}")
        return self._known.names[name]

    def _reduce(self) -> None:
        function, arguments = self._pop(2)
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise RefusedError("it calls something that is not a function")
        if function.call is None:
            raise RefusedError(f"it calls {function.name}")
        self._push(function.call(arguments))

    def _build(self) -> None:
        state = self.pop()
        self._known.build(self._top(), state)

    def _refer(self) -> None:
        if self._known.refer is None:
            raise RefusedError("it refers to something outside the file")
        self._push(self._known.refer(self.pop()))


def _bounded(value: object) -> object:
    if isinstance(value, int) and not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
        raise RefusedError("it holds an integer of more than 64 bits")
    return value
