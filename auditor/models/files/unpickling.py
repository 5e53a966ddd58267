"""Safe unpickling opcode by opcode: each name maps to an entry of an exact list; nothing else can be called.

No name is imported or looked up here: a :class:`Maker` of the caller's own answers for each, and whatever it does not
know ends the reading. Opcodes that no estimator needs do too.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

from auditor.core.errors import AuditorError, UnsafeModelError
from auditor.models.files.model_bytes import printable

MAX_OPCODES = 20_000_000
_REFUSED = frozenset(
    {
        "PERSID",
        "EXT1",
        "EXT2",
        "EXT4",
        "INST",
        "OBJ",
        "NEWOBJ_EX",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "NEXT_BUFFER",
        "READONLY_BUFFER",
    }
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ARGUMENTS = frozenset(
    {
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    }
)
# What Python 2 and earlier numpy and joblib called the same things.
_RENAMED = {
    "__builtin__.": "builtins.",
    "copy_reg.": "copyreg.",
    "numpy.core.": "numpy._core.",
    "sklearn.externals.joblib.": "joblib.",
    "_loss.": "sklearn._loss._loss.",
}


class Foreign(UnsafeModelError):
    """A pickle uses a name outside the allow-list: the name, and the reason for its refusal."""

    def __init__(self, name: str, reason: str = "") -> None:
        self.name = printable(name)
        super().__init__(f"{self.name} ({reason})" if reason else self.name)


class Maker(Protocol):
    """The safe meanings of the names in a pickle.

    Each method raises :class:`Foreign` for a name that is not on its list, and ValueError for arguments or a state
    that make no sense.
    """

    def value(self, name: str) -> object:
        """The object for a name used as a value, such as a dtype."""

    def call(self, name: str, arguments: tuple[Any, ...]) -> object:
        """The result of calling the name with these arguments."""

    def make(self, name: str) -> object:
        """An instance of the class of that name, without any attribute."""

    def fill(self, instance: Any, name: str, state: Any, file: BytesIO) -> object:
        """The instance with its state set, once; ``file`` is after the opcode, at the array that joblib writes."""

    def persistent(self, key: Any) -> object:
        """The object stored outside the pickle under this key."""


class Provisional:
    """An object that a later opcode may change; readers get its final form."""

    def settled(self) -> object:
        """The final form of the object."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Name:
    name: str


def canonical(name: str) -> str:
    """The present name of a renamed object."""
    for old, new in _RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def follow(file: BytesIO, maker: Maker, max_opcodes: int = MAX_OPCODES) -> object:
    """The object of the pickle at the current position of ``file``, which is moved to the pickle's end.

    Raises :class:`Foreign` for what is not allowed, and ValueError with the byte at which the opcodes make no sense.
    """
    machine = _Machine(file, maker)
    left = max_opcodes
    place = file.tell()
    try:
        for opcode, argument, at in pickletools.genops(file):
            place = at or 0
            left -= 1
            if left < 0:
                raise ValueError(f"it has more than {max_opcodes:,} opcodes")
            machine.step(opcode.name, argument)
    except (AuditorError, MemoryError):
        raise
    except Exception as error:
        why = f"{error}" if isinstance(error, ValueError) else f"its opcodes make no sense ({type(error).__name__})"
        raise ValueError(f"{why.rstrip('.')}, at byte {place:,} of the pickle") from error
    if len(machine.stack) != 1 or machine.marks:
        raise ValueError("it ends before its object is complete")
    return machine.settle(machine.stack[0])


class _Machine:
    """The stack and memo of a pickle; names on the stack stay names until something takes them up."""

    def __init__(self, file: BytesIO, maker: Maker) -> None:
        self.file = file
        self.maker = maker
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        # What was made here and has no state yet: a state is given once, and to nothing else.
        self.unfilled: dict[int, tuple[Any, str]] = {}
        self.steps: dict[str, Callable[[Any], None]] = {
            "MARK": self._mark,
            "POP": self._pop,
            "POP_MARK": self._pop_mark,
            "DUP": lambda _: self.stack.append(self.stack[-1]),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda i: self.stack.append(self.memo[int(i)])),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._memoize),
            "MEMOIZE": lambda _: self._memoize(len(self.memo)),
            "GLOBAL": self._global,
            "STACK_GLOBAL": self._stack_global,
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "EMPTY_SET": lambda _: self.stack.append(set()),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "LIST": lambda _: self._push(self._to_mark()),
            "DICT": self._dict,
            "TUPLE": lambda _: self._push(tuple(self._to_mark())),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "FROZENSET": lambda _: self._push(frozenset(map(as_key, self._to_mark()))),
            "APPEND": lambda _: self._extend([self._pop_settled()]),
            "APPENDS": lambda _: self._extend(self._to_mark()),
            "SETITEM": lambda _: self._set_items([self._pop_settled(), self._pop_settled()][::-1]),
            "SETITEMS": lambda _: self._set_items(self._to_mark()),
            "ADDITEMS": self._add_items,
            "REDUCE": self._reduce,
            "NEWOBJ": self._new,
            "BUILD": self._build,
            "BINPERSID": lambda _: self._push(self.maker.persistent(self._pop_settled())),
        }

    def step(self, name: str, argument: Any) -> None:
        if name in _ARGUMENTS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in self.steps:
            self.steps[name](argument)
        elif name in _REFUSED:
            raise Foreign(f"the opcode {name}", "which no scikit-learn model needs")

    def settle(self, value: Any) -> Any:
        if isinstance(value, _Name):
            return self.maker.value(value.name)
        return value.settled() if isinstance(value, Provisional) else value

    def _push(self, value: Any) -> None:
        # Its argument is made first: taking what lies upon a mark changes which list the stack is.
        self.stack.append(value)

    def _pop_settled(self) -> Any:
        return self.settle(self.stack.pop())

    def _mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _to_mark(self) -> list[Any]:
        items = [self.settle(item) for item in self.stack]
        self.stack = self.marks.pop()
        return items

    def _pop(self, _: Any) -> None:
        # A POP of a mark that nothing lies upon takes the mark, as in Python's own.
        if self.stack:
            self.stack.pop()
        else:
            self.stack = self.marks.pop()

    def _pop_mark(self, _: Any) -> None:
        self.stack = self.marks.pop()

    def _memoize(self, place: Any) -> None:
        self.memo[int(place)] = self.stack[-1]

    def _tuple(self, n: int) -> None:
        items = [self._pop_settled() for _ in range(n)]
        self.stack.append(tuple(items[::-1]))

    def _dict(self, _: Any) -> None:
        items = self._to_mark()
        self.stack.append({})
        self._set_items(items)

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError("it appends to what is no list")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict, defaultdict) and type(target).__name__ != "Bunch":
            raise ValueError("it sets items of what is no mapping")
        if len(items) % 2:
            raise ValueError("it sets a key without a value")
        for place in range(0, len(items), 2):
            target[as_key(items[place])] = items[place + 1]

    def _add_items(self, _: Any) -> None:
        items = self._to_mark()
        target = self.stack[-1]
        if type(target) is not set:
            raise ValueError("it adds to what is no set")
        target.update(map(as_key, items))

    def _global(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self._push_name(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise Foreign("a name computed while loading")
        self._push_name(module, name)

    def _push_name(self, module: str, name: str) -> None:
        if "." in name:
            raise Foreign(printable(f"{module}.{name}"), "a name within a name")
        self.stack.append(_Name(canonical(f"{module}.{name}")))

    def _callee(self) -> str:
        callee = self.stack.pop()
        if not isinstance(callee, _Name):
            raise Foreign(f"a call of {'an' if type(callee).__name__[0] in 'aeiou' else 'a'} {type(callee).__name__}")
        return callee.name

    def _arguments(self) -> tuple[Any, ...]:
        arguments = self._pop_settled()
        if type(arguments) is not tuple:
            raise ValueError("it calls with what is no tuple")
        return arguments

    def _reduce(self, _: Any) -> None:
        arguments = self._arguments()
        name = self._callee()
        self._push_unfilled(self.maker.call(name, arguments), name)

    def _new(self, _: Any) -> None:
        arguments = self._arguments()
        name = self._callee()
        if arguments:
            raise Foreign(name, "made with arguments")
        self._push_unfilled(self.maker.make(name), name)

    def _push_unfilled(self, instance: Any, name: str) -> None:
        self.unfilled[id(instance)] = (instance, name)
        self.stack.append(instance)

    def _build(self, _: Any) -> None:
        state = self._pop_settled()
        made, name = self.unfilled.pop(id(self.stack[-1]), (None, ""))
        if made is None:
            raise Foreign(f"a state for {type(self.stack[-1]).__name__}", "which has one already, or takes none")
        self.stack[-1] = self.maker.fill(made, name, state, self.file)


def as_key(value: Any) -> Any:
    """A value usable as a key: hashing and comparing it is cheap and calls no code."""
    if type(value) is tuple and all(_is_plain(part) for part in value):
        return value
    if not _is_plain(value):
        raise Foreign(f"{type(value).__name__} as a key", "which only text, numbers and types may be")
    return value


def _is_plain(value: Any) -> bool:
    if value is None or type(value) in (str, bytes, int, float, bool, complex) or isinstance(value, type):
        return True
    # numpy's own scalars, of types that nobody can derive from in a pickle.
    return type(value).__module__ == "numpy" and hasattr(value, "itemsize") and getattr(value, "shape", None) == ()
