"""The process in which anybody's code runs: it answers about the rows that it gets, and has nothing else.

It is forked from the measuring process when that has imported everything and read nothing of the user's, so that
labels, groups, training rows and statistics never lie in its memory. It has no channel to the parent, a scratch folder
of its own, and a narrower sandbox, in which the data files are closed. A question is pickled, since whoever asks is
trusted. An answer never is: a header in JSON and the bytes of one array, both bounded, of the types below, each with
the number of its question.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO, Annotated, Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, JsonValue, ValidationError

from auditor.core.errors import Code, DataError, ModelError, OutputsError, UsageError
from auditor.core.files import Closed
from auditor.core.number_types import Count
from auditor.loading.formats import Opened
from auditor.loading.job_specs import Job
from auditor.loading.sandbox.answered_models import HeldModel
from auditor.loading.sandbox.enter_sandbox import confine_after_fork, enter, job_of_code, refuse_code
from auditor.loading.sandbox.measuring_process import environment
from auditor.loading.sandbox.resource_limits import follow, restrict
from auditor.loading.user_code import ElsewhereFunction, called_in, code_runs_in, import_object, module_file, reported
from auditor.models.torch_context import resolve_device
from auditor.report.record.sandbox_state import SandboxState

_SIZE = 8
_LARGEST_HEADER = 16 << 20
_LARGEST_ARRAY = 4 << 30
_MOST_TEXT, _MOST_SAID = 1 << 20, 2_000
# What a function may say of itself beside its answers.
_OF_FACTS = ("state", "import", "load")
_Of = Literal["usage", "outputs", "model", "data", "permission", "value", "type"]
_ERRORS: dict[_Of, type[Exception]] = {
    "usage": UsageError, "outputs": OutputsError, "model": ModelError, "data": DataError, "permission": PermissionError,
    "value": ValueError, "type": TypeError,
}  # fmt: skip
_CAUSES: dict[Literal["value", "type", "other"], type[Exception]] = {
    "value": ValueError, "type": TypeError, "other": Exception,
}  # fmt: skip
_ATTRIBUTES = ("classes", "size", "samples", "sampling_rate", "same_identity")


class AnswerHead(Closed):
    """What an answer is: an array of ``dtype`` and ``shape``, whose bytes follow, or a ``value``.

    ``error``: the name of the exception's type, and ``value`` its text; ``kind`` and ``code``: what it
    means, and ``cause`` that of what it came from.
    ``other``: the name of a type that can be neither.
    """

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    number: Count
    dtype: Annotated[str, Field(pattern=r"^(\|[biu]1|<[iuf][248]|<U[1-9]\d{0,5})?$")] = ""
    shape: Annotated[tuple[Count, ...], Field(max_length=8)] = ()
    value: JsonValue = None
    error: Annotated[str, Field(pattern=r"^([A-Za-z_]\w{0,79})?$")] = ""
    kind: Literal["", "usage", "outputs", "model", "data", "permission", "value", "type"] = ""
    code: Code | None = None
    cause: Literal["", "value", "type", "other"] = ""
    cause_text: str = ""
    other: Annotated[str, Field(pattern=r"^([A-Za-z_]\w{0,79})?$")] = ""


@dataclass(eq=False)
class AnsweringProcess:
    """The measuring process's side."""

    pid: int
    _questions: IO[bytes]
    _answers: IO[bytes]
    _number: int = 0
    _lock: Lock = field(default_factory=Lock)

    def ask(self, operation: str, *arguments: Any) -> Any:
        """The answer to one question.

        Raises what the code raised, by the name of its type. Ends this process as the other one ended where that does,
        so that whoever listens to this one hears why.
        """
        with self._lock:
            self._number += 1
            try:
                _send(self._questions, pickle.dumps((self._number, operation, arguments), protocol=5))
            except BrokenPipeError:
                self._end()
            head = self._head()
            if head.number != self._number:
                raise ModelError("The process of the model answered another question.", code="AUD-LOAD-ANSWERS")
            found = self._array(head) if head.dtype else head.value
        if head.error:
            raise _raised(head, operation)
        return type(head.other, (), {})() if head.other else found

    def function(self, target: str, code_folder: str | None, flag: str) -> AnsweredFunction:
        """The user's function at ``package.module:name``, imported there. Raises UsageError where it cannot be."""
        file = module_file(target.partition(":")[0], code_folder)
        try:
            index, facts = self.ask("import", target, code_folder, flag)
        except UsageError as error:
            raise UsageError(reported(f"{flag} {target}", str(error))) from None
        except (TypeError, ValueError):
            raise UsageError(f"{flag} {target}: importing it did not end well.") from None
        return AnsweredFunction(self, int(index), facts, file)

    def processor_time(self) -> float:
        """Seconds that the process has worked so far, by the kernel's clock of it."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2) if sys.platform == "linux" else 0.0
        except OSError:
            return 0.0

    def close(self) -> None:
        """End the process; one that does not end is left to whoever ends this one."""
        with suppress(OSError):
            self._questions.close()
        self._answers.close()
        for _ in range(200):
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            time.sleep(0.005)

    def _head(self) -> AnswerHead:
        size = int.from_bytes(self._exactly(_SIZE), "big")
        if size > _LARGEST_HEADER:
            raise ModelError("The process of the model sent what is no answer.", code="AUD-LOAD-ANSWERS")
        try:
            return AnswerHead.model_validate_json(self._exactly(size))
        except ValidationError:
            raise ModelError("The process of the model sent what is no answer.", code="AUD-LOAD-ANSWERS") from None

    def _array(self, head: AnswerHead) -> npt.NDArray[Any]:
        dtype = np.dtype(head.dtype)
        size = dtype.itemsize
        for length in head.shape:
            size *= length
        if size > _LARGEST_ARRAY:
            raise ModelError(f"The process of the model answered {size:,} bytes at once.", code="AUD-LOAD-ANSWERS")
        found = np.frombuffer(self._exactly(size), dtype)
        if dtype.kind == "U" and size and int(found.view(np.uint32).max()) > sys.maxunicode:
            raise ModelError("The process of the model answered what is no text.", code="AUD-LOAD-ANSWERS")
        return found.reshape(head.shape)

    def _exactly(self, size: int) -> bytearray:
        read = bytearray(size)
        view = memoryview(read)
        while view:
            n = self._answers.readinto(view)  # type: ignore[attr-defined]
            if not n:
                self._end()
            view = view[n:]
        return read

    def _end(self) -> NoReturn:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        sys.stdout.flush()
        sys.stderr.flush()
        if code < 0:
            os.kill(os.getpid(), -code)
        os._exit(code & 0xFF)


class AnsweredFunction(ElsewhereFunction):
    """A function of the user's in the answering process; ``file``: the one that its name leads to."""

    def __init__(self, process: AnsweringProcess, index: int, facts: Mapping[str, Any], file: Path | None) -> None:
        self._process, self._index = process, index
        self.file = file
        for name in _ATTRIBUTES:
            if name in facts:
                setattr(self, name, facts[name])

    def __call__(self, argument: Any) -> Any:
        return self._process.ask("call", self._index, argument)


def _raised(head: AnswerHead, operation: str) -> Exception:
    text = str(head.value)[:_MOST_SAID]
    # What code raises when it is called is nobody's error but its own, and none of a flag.
    if operation == "call":
        builtin = head.kind in ("permission", "value", "type")
        base = _ERRORS[head.kind] if head.kind and builtin else Exception
        raised: Exception = type(head.error, (base,), {})(text)
        return raised
    if head.kind == "usage" and operation in _OF_FACTS:
        return UsageError(text)
    if head.kind == "data":
        return DataError(text, code=head.code)
    if head.kind == "outputs":
        return OutputsError(text, code=head.code)
    error = ModelError(text if head.kind == "model" else f"{head.error}: {text}", code=head.code)
    error.__cause__ = _CAUSES[head.cause](head.cause_text) if head.cause else None
    return error


@contextmanager
def answering_apart(job: Job, scratch: Path, model_files: list[Opened]) -> Iterator[None]:
    """Context in which the code of a job is imported, called and loaded in a process of its own.

    To be entered before anything of the user's is read but ``model_files``. Raises UsageError where that process is not
    confined as it must be.
    """
    process = _start(job_of_code(job), scratch, model_files)
    confine_after_fork(job, scratch)
    refuse_code(job, SandboxState.model_validate(process.ask("state")))
    try:
        with code_runs_in(process):
            yield
    finally:
        process.close()


def _start(job: Job, scratch: Path, model_files: list[Opened]) -> AnsweringProcess:
    folder = scratch / "answering"
    folder.mkdir(exist_ok=True)
    question_reader, question_writer = os.pipe()
    answer_reader, answer_writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _become(job, folder, parent, question_reader, answer_writer, model_files)
    os.close(question_reader)
    os.close(answer_writer)
    return AnsweringProcess(pid, os.fdopen(question_writer, "wb"), os.fdopen(answer_reader, "rb", buffering=0))


# ---- the other side --------------------------------------------------------------------------------------------------


def _become(job: Job, folder: Path, parent: int, questions: int, answers: int, model_files: list[Opened]) -> NoReturn:
    """All that is left of the measuring process are its imports and its printed output."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor in map(int, os.listdir("/proc/self/fd") if sys.platform == "linux" else range(3, 1024)):
            if descriptor not in (0, 1, 2, questions, answers):
                with suppress(OSError):
                    os.close(descriptor)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment(str(folder)))
        follow(parent)
        state = enter(job, folder)
        if job.model.code_folder is not None:
            sys.path.append(job.model.code_folder)
        device = resolve_device(job.model.device)
        restrict(job, held_bytes=sum(len(each.source.data) for each in model_files))
        operations = HeldModel(device, model_files).operations()
        _Answering(os.fdopen(answers, "wb"), state, operations).serve(os.fdopen(questions, "rb"))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


class _Answering:
    """What the process does; whatever the user's code may change of it is its own answers alone."""

    def __init__(self, answers: IO[bytes], state: SandboxState, operations: Mapping[str, Callable[..., Any]]) -> None:
        self._answers = answers
        self._functions: list[Callable[[Any], Any]] = []
        self._operations: dict[str, Callable[..., Any]] = {
            "state": state.model_dump,
            "import": self._import,
            "call": lambda index, argument: self._functions[index](argument),
            **operations,
        }

    def serve(self, questions: IO[bytes]) -> None:
        """Answer until nobody asks any more."""
        while len(size := questions.read(_SIZE)) == _SIZE:
            number, operation, arguments = pickle.loads(questions.read(int.from_bytes(size, "big")))
            try:
                answer = self._operations[operation](*arguments)
                if operation in _OF_FACTS:
                    head, content = AnswerHead(number=number, value=answer), b""
                else:
                    head, content = _as_answer(number, answer)
                body = head.model_dump_json().encode()
            except Exception as error:  # the user's code may raise anything
                traceback.print_exception(error)
                body, content = _as_error(number, error).model_dump_json().encode(), b""
            _send(self._answers, body, content)

    def _import(self, target: str, code_folder: str | None, flag: str) -> list[Any]:
        function = import_object(target, code_folder, flag)
        self._functions.append(called_in(code_folder, function))
        facts = {name: _plain(getattr(function, name, None)) for name in _ATTRIBUTES}
        return [len(self._functions) - 1, {name: value for name, value in facts.items() if value is not None}]


def _plain(value: Any) -> JsonValue:
    """A number, a text or a sequence of them, as JSON has it; of anything else how it is printed."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    return str(value)


def _as_answer(number: int, answer: Any) -> tuple[AnswerHead, bytes]:
    if isinstance(answer, bool | np.bool_):
        return AnswerHead(number=number, value=bool(answer)), b""
    if answer is None or type(answer) in (int, float):
        return AnswerHead(number=number, value=answer), b""
    if isinstance(answer, str):
        return AnswerHead(number=number, value=answer[:_MOST_TEXT]), b""
    array = np.asarray(answer)
    if array.dtype.kind not in "biufU":
        if array.ndim == 0:
            return AnswerHead(number=number, other=_identifier(type(answer).__name__)), b""
        # What is neither a number nor a text is compared by how it is printed, as labels are.
        array = array.astype(str) if array.ndim == 1 else array.astype(np.float64)
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return AnswerHead(number=number, dtype=array.dtype.str, shape=array.shape), array.tobytes()


def _as_error(number: int, error: Exception) -> AnswerHead:
    cause = error.__cause__
    of = next((kind for kind, base in _CAUSES.items() if isinstance(cause, base)), "other")
    return AnswerHead(
        number=number,
        error=_identifier(type(error).__name__),
        kind=next((kind for kind, base in _ERRORS.items() if isinstance(error, base)), ""),
        code=error.code if isinstance(error, DataError | ModelError) else None,
        value=_as_text(error),
        cause="" if cause is None else of,
        cause_text="" if cause is None else _as_text(cause),
    )


def _as_text(error: BaseException) -> str:
    return str(error)[:_MOST_SAID].encode("utf-8", "replace").decode()


def _identifier(name: str) -> str:
    return name if name.isidentifier() and name.isascii() and len(name) < 80 else "object"


def _send(stream: IO[bytes], body: bytes, content: bytes = b"") -> None:
    stream.write(len(body).to_bytes(_SIZE, "big") + body)
    stream.write(content)
    stream.flush()
