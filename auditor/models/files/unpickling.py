"""Pickles read opcode by opcode: the calls in them, and objects of which each name maps to an entry of an exact list.

Nothing in them runs, and no name is imported or looked up: a :class:`Maker` of the caller's own answers for each, and
whatever it does not know ends the reading. Opcodes that no estimator needs do too.
"""

from __future__ import annotations

import pickletools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

from auditor.core.errors import AuditorError, UnsafeModelError
from auditor.models.files.model_bytes import printable

MAX_OPCODES = 2_000_000
COMPUTED = "a name computed while loading"
# joblib writes the bytes of an array into the middle of the pickle, where they read as meaningless opcodes.
_RAW_ARRAYS = "joblib.numpy_pickle.NumpyArrayWrapper"
_STRING_OPCODES = frozenset(
    {
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "UNICODE",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
    }
)
_MARK = object()


@dataclass(frozen=True)
class PickleReading:
    """``names``: every global in order of appearance. ``strings``: text constants of the first stream, up to 64.

    ``complete``: all of it was read up to the end of the data; otherwise there may be more names than these.
    ``length``: bytes of the first stream; ``streams``: how many were found.
    """

    names: tuple[str, ...]
    strings: tuple[str, ...]
    complete: bool
    length: int
    streams: int
    first_long: int | None


def read_pickle(data: bytes, *, max_opcodes: int = MAX_OPCODES) -> PickleReading:
    """Read all streams of a pickle, one after the other, as far as they can be followed; never raise on bad data."""
    file = BytesIO(data)
    reader = _Reader(max_opcodes)
    length = streams = 0
    whole = False
    with warnings.catch_warnings():
        # pickletools decodes escapes in names, and Python warns of those that it does not know.
        warnings.filterwarnings("ignore", message="invalid escape sequence", category=DeprecationWarning)
        while file.tell() < len(data) and reader.left > 0:
            whole = reader.stream(file)
            if not whole:
                break
            streams += 1
            length = length or file.tell()
            reader.first = False
    return PickleReading(
        names=tuple(dict.fromkeys(reader.names)),
        strings=tuple(reader.strings),
        complete=whole and file.tell() == len(data),
        length=length,
        streams=streams,
        first_long=reader.first_long,
    )


class _Reader:
    """Follows the stack as far as names depend on it: strings are kept, everything else is a blank."""

    def __init__(self, max_opcodes: int) -> None:
        self.left = max_opcodes
        self.names: list[str] = []
        self.strings: list[str] = []
        self.first_long: int | None = None
        self.first = True

    def stream(self, file: BytesIO) -> bool:
        """Reads up to a STOP; False where the opcodes break off, make no sense or are too many."""
        stack: list[object] = []
        memo: dict[int, object] = {}
        try:
            for opcode, argument, _ in pickletools.genops(file):
                self.left -= 1
                if self.left <= 0:
                    return False
                self._step(opcode, argument, stack, memo)
        # pickletools raises these for malformed opcodes, the stack and memo for an inconsistent sequence of them.
        except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError, AttributeError):
            return False
        return True

    def _step(
        self, opcode: pickletools.OpcodeInfo, argument: object, stack: list[object], memo: dict[int, object]
    ) -> None:
        name = opcode.name
        if name in _STRING_OPCODES:
            if len(self.strings) < 64:
                self.strings.append(str(argument))
            stack.append(str(argument))
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("GLOBAL", "INST"):
            # pickletools joins module and name by a space.
            module, _, attribute = str(argument).partition(" ")
            self.names.append(f"{module}.{attribute}")
            if name == "INST":
                _pop_to_mark(stack)
            stack.append(None)
        elif name == "STACK_GLOBAL":
            attribute_, module_ = stack.pop(), stack.pop()
            known = isinstance(module_, str) and isinstance(attribute_, str)
            if known:
                self.names.append(f"{module_}.{attribute_}")
            elif self.first and _RAW_ARRAYS not in self.names:
                # After another stream, or after an array's raw bytes, the memo may simply not be at hand.
                self.names.append(COMPUTED)
            stack.append(None)
        elif name in ("EXT1", "EXT2", "EXT4"):
            self.names.append(f"copyreg extension {argument}")
            stack.append(None)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(str(argument))])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(str(argument))] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP":
            stack.pop()
        else:
            if name in ("LONG1", "LONG4", "LONG") and self.first_long is None and isinstance(argument, int):
                self.first_long = argument
            if pickletools.markobject in opcode.stack_before:
                _pop_to_mark(stack)
                # What lies below the mark and is changed in place, such as a list that is appended to.
                below = opcode.stack_before.index(pickletools.markobject)
                del stack[len(stack) - below :]
            elif opcode.stack_before:
                if len(stack) < len(opcode.stack_before):
                    raise IndexError
                del stack[len(stack) - len(opcode.stack_before) :]
            stack.extend(None for _ in opcode.stack_after)


def _pop_to_mark(stack: list[object]) -> None:
    while stack.pop() is not _MARK:
        pass


def describe_calls(names: Sequence[str], *, complete: bool = True) -> str:
    """The names a file would call as a phrase of at most five, the least ordinary first."""
    if not names:
        return "nothing" if complete else "names that cannot be made out"
    ordered = sorted(names, key=_ordinary)
    shown = ", ".join(printable(name, 80) for name in ordered[:5])
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return f"{shown}{more}{'' if complete else ', and perhaps others beyond the part that can be read'}"


def _ordinary(name: str) -> bool:
    # Only the order in which names are printed depends on this; no name is trusted for its prefix.
    return name.split(".")[0] in {"torch", "numpy", "sklearn", "collections", "joblib", "scipy", "pandas"}


_MOST_FOLLOWED = 20_000_000
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


def follow(file: BytesIO, maker: Maker, max_opcodes: int = _MOST_FOLLOWED) -> object:
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
