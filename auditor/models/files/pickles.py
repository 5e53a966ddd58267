"""The functions that a pickle would call, read from its opcodes without running them."""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

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
