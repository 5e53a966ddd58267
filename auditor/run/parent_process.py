"""The parent's side of the sandboxed process: starting it, reading its messages, and surviving its failure.

Loading, parsing, predicting and measuring happen in a child (:mod:`auditor.run.child_jobs`): ``python -I``, an empty
scratch folder as working, home and temporary folder, the kernel's sandbox (:mod:`auditor.loading.sandbox`), limits on
memory, files and time. Its messages are length-prefixed
JSON on one inherited pipe, bounded in size and validated against the record's types: a child that has loaded a hostile
file is hostile. A child that dies while it asks a probe makes that probe NOT_RUN, and a fresh child goes on with the
rest. One that dies over a file that it examines gives that file an error, and the other files are examined all the
same.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.loading.job_specs import Job, ProbeSpec, answers_apart, flag_of_code, turn_of
from auditor.loading.sandbox.enter_sandbox import refuse_code
from auditor.loading.sandbox.measuring_process import MeasuringProcess, measuring_process
from auditor.loading.sandbox.outside_requests import reply
from auditor.loading.sandbox.resource_limits import OwnTime, excess, processes_of, resident_bytes
from auditor.loading.user_code import reported
from auditor.models.endpoint.api_messages import Request
from auditor.models.endpoint.client import Outcome
from auditor.report.record.number_text import visible
from auditor.run.job_channel import HEADER, MAX_MESSAGE, MOST_KEPT, MOST_SAID, Done, Refused, TableTrained
from auditor.run.job_reader import Heard, SaidTooMuchError, TableLearned

if TYPE_CHECKING:
    from auditor.judging.measurement import ProbeResult
    from auditor.models.endpoint.server_findings import Compared
    from auditor.run.job_messages import FileExported, Message, Trained
    from auditor.run.job_results import FilesExamined, Measured, RowsExplained
    from auditor.training.meter import Meter


# What mitigations add to the name, each of whose parts has a checkpoint of its own.
_PARTS = re.compile(r"(\.(\d+|control|autoencoder|generator))*")


@contextmanager
def lent_checkpoint(path: str | None) -> Iterator[str | None]:
    """The checkpoint in a separate folder beside its place, and moved back afterwards.

    What an interruption leaves in that folder is the newest, and the next run goes on from it. Raises UsageError where
    the place cannot be written.
    """
    if path is None:
        yield None
        return
    place = Path(path)
    folder = place.with_name(f".{place.name}.writing")
    if place.is_dir():
        raise UsageError(f"{str(place)!r} is a folder and no checkpoint of a training: name another file.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in _checkpoint_files(place.parent, place.name):
            if not (folder / file.name).exists():
                file.replace(folder / file.name)
    except OSError as error:
        raise UsageError(f"Cannot write {str(place)!r}: {error.strerror}.") from None
    try:
        yield str(folder / place.name)
    finally:
        for file in _checkpoint_files(folder, place.name):
            file.replace(place.parent / file.name)
        if not any(folder.iterdir()):
            folder.rmdir()


def _checkpoint_files(folder: Path, name: str) -> list[Path]:
    """The checkpoint's files in a folder, and nothing that only looks like them: what is moved is overwritten."""
    named = [file for file in folder.iterdir() if file.name.startswith(name)]
    return [file for file in named if _PARTS.fullmatch(file.name.removeprefix(name)) and file.is_file()]


class AskFor(Protocol):
    """Makes the calls of a probe, by its name, to the audited model or to the judge."""

    def __call__(self, probe: str, requests: Sequence[Request], *, to_judge: bool = False) -> list[Outcome]: ...


INTAKE_CALLS = "loading"
# Seconds from one look at what a process has written to the next.
_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class _End:
    """How one child ended: ``why`` is "" where it finished."""

    why: str
    asking: str | None
    log: str


def measure(
    job: Job,
    blank_results: Mapping[str, ProbeResult],
    *,
    on_stage: Callable[[str], None] | None = None,
    waiting: MeasuringProcess | None = None,
    meter: Meter | None = None,
    ask: AskFor | None = None,
) -> Measured:
    """Run a job to its end, in as many children as needed.

    ``blank_results``: what the caller's own table says of each probe. ``on_stage`` is told what is
    being done. ``waiting``: the first child, where the caller has started it. ``meter``: is told which probe is
    asked. ``ask``: makes the calls of the endpoint and of the judge that the job names. Raises UsageError where a flag
    turned out to be wrong once the files were read.
    """
    from auditor.report.record.audit_report import INTAKE, Refusal
    from auditor.run.job_results import Measured
    from auditor.run.run_audit import files_result

    names = [spec.name for spec in job.probes]
    if len(set(names)) < len(names) or INTAKE in names:
        raise UsageError(f"Two probes have one name, or one is named {INTAKE!r}: rename one of {', '.join(names)}.")
    done = Measured(most=MOST_SAID + (0 if job.evidence is None else MOST_KEPT), meter=meter)
    remaining = list(job.probes)
    first = True
    while first or remaining:
        # Code with the labels comes last, in a process from which nothing but its own results is taken.
        turn = [spec for spec in remaining if not spec.own] or ([] if first else remaining)
        asked = replace(turn_of(job, tuple(turn)), with_intake=first)
        done.keeps, done.keeps_members = asked.evidence is not None, asked.evidence == "rows"
        end = _one_child(asked, done, on_stage or (lambda _: None), waiting if first else None, ask)
        done.log += end.log
        answered = {result.probe for result in done.results}
        turn = [spec for spec in turn if spec.name not in answered]
        remaining = [spec for spec in remaining if spec.name not in answered]
        if done.refusal is not None:
            return done
        if not end.why:
            lost, why = turn, "The measuring process ended without asking it."
        elif end.asking is not None:
            lost, why = [spec for spec in turn if spec.name == end.asking] or turn, end.why
        elif first and done.data is None:
            done.refusal = Refusal(
                code="died_while_loading",
                reason=f"Loading did not end well: {end.why}",
                reason_code="AUD-LOAD-DIED",
            )
            return done
        else:
            lost, why = turn, f"The fresh process for the remaining probes failed while loading: {end.why}"
        done.results += [_not_run(spec, blank_results, why) for spec in lost]
        remaining = [spec for spec in remaining if spec not in lost]
        first = False
    own = {spec.name for spec in job.probes if spec.own}
    done.results = [_with_own_labels(result, blank_results, own) for result in done.results] + files_result(done.data)
    order = {spec.name: i for i, spec in enumerate(job.probes, 1)}
    done.results.sort(key=lambda result: order.get(result.probe, 0))
    return done


def mitigate(job: Job, *, on_stage: Callable[[str], None] | None = None, meter: Meter | None = None) -> tuple[str, ...]:
    """Run a job's mitigation in a child that writes the new model to ``job.mitigation.out``; return its notes.

    ``meter``: is told the device. Raises UsageError, DataError or ModelError with the child's reason, or the cause of
    its death.
    """
    from auditor.run.job_results import Mitigated

    spec = job.mitigation
    if spec is None:
        raise UsageError("Nothing is to be made: name a mitigation.")
    done = Mitigated()
    with lent_checkpoint(spec.checkpoint) as lent:
        try:
            asked = replace(job, mitigation=replace(spec, checkpoint=lent))
            end = _one_child(asked, done, on_stage or (lambda _: None))
            _raise_refusal(done)
        except (UsageError, DataError, ModelError) as error:
            said = str(error) if lent is None else str(error).replace(lent, str(spec.checkpoint))
            raise type(error)(said, code=error.code) from None
    if meter is not None:
        meter.device = done.device
    if done.notes is None:
        raise ModelError(f"The mitigation did not end well: {end.why or 'it wrote no model.'}")
    return done.notes


def export(job: Job, *, on_stage: Callable[[str], None] | None = None) -> FileExported:
    """Run a job's export in a child that writes ``job.export.out`` if no decision differs.

    Raises UsageError, DataError or ModelError with the child's reason, or the cause of its death.
    """
    from auditor.run.job_results import ModelExported

    done = ModelExported()
    end = _one_child(job, done, on_stage or (lambda _: None))
    _raise_refusal(done)
    if done.exported is None:
        raise ModelError(f"The export did not end well: {end.why or 'it wrote no file.'}")
    return done.exported


def compare_served(job: Job, *, on_stage: Callable[[str], None] | None = None) -> Compared:
    """Compare ``job.served`` with the job's model in an offline child; raises as :func:`export`."""
    from auditor.run.job_results import TextsCompared

    done = TextsCompared()
    end = _one_child(job, done, on_stage or (lambda _: None))
    _raise_refusal(done)
    if done.compared is None:
        raise ModelError(f"The comparison did not end well: {end.why or 'nothing was said.'}")
    return done.compared


def explain(job: Job, *, on_stage: Callable[[str], None] | None = None) -> RowsExplained:
    """Explain the rows of a job in a child.

    Raises as :func:`mitigate` does, of a row that was not explained too.
    """
    from auditor.run.job_results import RowsExplained

    spec = job.explain
    done = RowsExplained(n_where=0 if spec is None else len(spec.where))
    end = _one_child(job, done, on_stage or (lambda _: None))
    done.log += end.log
    _raise_refusal(done)
    if spec is None or not done.rows or not set(spec.rows) <= {row.row for row in done.rows}:
        raise ModelError(f"The explanation did not end well: {end.why or 'not every row was explained.'}")
    return done


def examine(job: Job, *, on_stage: Callable[[str], None] | None = None) -> FilesExamined:
    """Examine a job's files in as many children as needed; a file whose child died gets an error.

    Raises UsageError, DataError or ModelError where the detector is refused, or its process died while loading it.
    """
    from auditor.detection.detection_record import FileResult
    from auditor.run.job_results import FilesExamined

    spec = job.detection
    if spec is None:
        raise UsageError("Nothing is to be examined: name a file.")
    done = FilesExamined()
    remaining = list(spec.files)
    while remaining:
        asked = replace(job, detection=replace(spec, files=tuple(remaining)))
        end = _one_child(asked, done, on_stage or (lambda _: None))
        done.log += end.log
        _raise_refusal(done)
        if end.why and end.asking is None and not done.files:
            raise ModelError(f"Loading the detector did not end well: {end.why}")
        why = end.why or "The measuring process ended without looking at it."
        lost = [end.asking] if end.asking is not None else [f for f in remaining if f not in done.files]
        for file in lost:
            done.files[file] = FileResult(error=why[:2_000])
        remaining = [file for file in remaining if file not in done.files]
    done.files = {file: done.files[file] for file in spec.files}
    return done


def train_detector(job: Job, *, on_stage: Callable[[str], None] | None = None) -> Trained:
    """Run a job's detector training in a child that writes the detector to ``job.detector_training.out``.

    Raises UsageError, DataError or ModelError with the child's reason, or the cause of its death.
    """
    from auditor.run.job_results import DetectorTrained

    done = DetectorTrained()
    end = _one_child(job, done, on_stage or (lambda _: None))
    _raise_refusal(done)
    if done.trained is None:
        reading = f" It was reading {visible(done.reading)!r}." if done.reading else ""
        raise ModelError(f"The training did not end well: {end.why or 'it wrote no detector.'}{reading}")
    return done.trained


def train_table(
    job: Job, *, on_stage: Callable[[str], None] | None = None, on_log: Callable[[str], None] | None = None
) -> TableTrained:
    """Run a job's training on a table in a child that writes the three files of ``job.table_training``.

    ``on_log`` is told the child's own output, however it ended. Raises UsageError, DataError or ModelError with the
    child's reason, or the cause of its death.
    """
    done = TableLearned()
    try:
        end = _one_child(job, done, on_stage or (lambda _: None))
        done.log += end.log
    finally:
        if on_log is not None:
            on_log(done.log)
    _raise_refusal(done)
    if done.trained is None:
        raise ModelError(f"The training did not end well: {end.why or 'it wrote no model.'}")
    return done.trained


def _raise_refusal(job_results: Heard) -> None:
    if job_results.refusal is not None:
        kind = ModelError if job_results.refusal.code == "model_refused" else DataError
        raise kind(job_results.refusal.reason, code=job_results.refusal.reason_code)


def _not_run(spec: ProbeSpec, blank_results: Mapping[str, ProbeResult], reason: str) -> ProbeResult:
    from auditor.judging.measurement import ProbeResult

    blank = blank_results.get(spec.name) or ProbeResult(probe=spec.name, pillar="intake", citation="")
    return replace(blank, not_run=reason)


def _with_own_labels(
    result: ProbeResult, blank_results: Mapping[str, ProbeResult], by_code: Collection[str]
) -> ProbeResult:
    own = blank_results.get(result.probe, result)
    known = replace(result, pillar=own.pillar, citation=own.citation, questions=own.questions)
    return replace(known, by_code=result.probe in by_code)


def _one_child(
    job: Job,
    job_results: Heard,
    on_stage: Callable[[str], None],
    waiting: MeasuringProcess | None = None,
    ask: AskFor | None = None,
) -> _End:
    with nullcontext(waiting) if waiting is not None else measuring_process() as process:
        try:
            why = _listen(process, job, job_results, on_stage, ask)
        except UsageError:
            job_results.log += process.tail()
            raise
        finally:
            process.end()
        tail = process.tail()
        if "by itself with code" in why and tail.strip():
            why = f"{why} Its last words: {visible(tail.strip().splitlines()[-1])[:300]}"
        return _End(why, job_results.asking, tail)


class _Pipe:
    """Whole messages out of a pipe that may deliver any fraction of one, or rubbish."""

    def __init__(self, descriptor: int, parse: Callable[[bytes], Message]) -> None:
        self._descriptor = descriptor
        self._parse = parse
        self._buffer = bytearray()
        self.closed = False

    def read(self) -> None:
        """Takes what is there; the caller has waited until something is."""
        block = os.read(self._descriptor, 1 << 20)
        self.closed = not block
        self._buffer += block

    def message(self) -> Message | None:
        """The next whole message, or None; raises ValueError for one that is too large or is none."""
        if len(self._buffer) < HEADER:
            return None
        size = int.from_bytes(self._buffer[:HEADER], "big")
        if size > MAX_MESSAGE:
            raise ValueError(f"a message of {size:,} bytes")
        if len(self._buffer) < HEADER + size:
            return None
        body = bytes(self._buffer[HEADER : HEADER + size])
        del self._buffer[: HEADER + size]
        return self._parse(body)


def _listen(
    process: MeasuringProcess,
    job: Job,
    job_results: Heard,
    on_stage: Callable[[str], None],
    ask: AskFor | None = None,
) -> str:
    """Takes messages until the child is done, dies or breaks a limit; returns why it ended, "" where it finished."""
    child, descriptor = process.child, process.answers
    _send_job(child, replace(job, parent=os.getpid()), more=ask is not None)
    job_results.begin(_may_ask(job))
    pipe = _Pipe(descriptor, job_results.read_message)
    looked, taken = time.monotonic(), OwnTime(child.pid)
    if job.table_training is None:
        on_stage("loading the model")
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            ready = selector.select(timeout=0.1)
            if ready:
                pipe.read()
            try:
                while (message := pipe.message()) is not None:
                    if isinstance(message, Done):
                        return ""
                    if isinstance(message, Refused):
                        _refuse(message, job_results, job)
                        return ""
                    if message.kind == "calling" and ask is not None and child.stdin is not None:
                        began = time.monotonic()
                        asking = job_results.asking or INTAKE_CALLS
                        reply(ask(asking, message.requests, to_judge=message.to_judge), child.stdin)
                        # A server's time is none of the process's; how many calls there are is bounded.
                        taken.pause(time.monotonic() - began)
                        continue
                    job_results.take(message, on_stage)
                    # Only what may come once, in its order, buys more time.
                    if message.kind not in ("working", "kept"):
                        taken = OwnTime(child.pid)
            except SaidTooMuchError as error:
                return f"It said {error}, which no measuring process has to say."
            except (ValueError, ValidationError) as error:
                return f"It sent what is no message of this protocol ({type(error).__name__})."
            # What it said at the last may have come since nothing was there.
            if pipe.closed or (not ready and _has_died(child) and not selector.select(timeout=0)):
                return _cause_of_death(child)
            if taken.is_over(job.limits.seconds):
                return f"It took longer than {job.limits.seconds:g} s: raise --max-seconds to give it more."
            pids = processes_of(child.pid)
            if max(map(resident_bytes, pids)) > job.limits.memory_bytes:
                more = "raise --max-memory to give it more" if job.table_training is None else "train on fewer rows"
                return f"It used more than {_gib(job.limits.memory_bytes)}: {more}."
            if time.monotonic() > looked + _BETWEEN_LOOKS:
                looked = time.monotonic()
                if why := excess(pids, process.scratch, job):
                    return why


def _may_ask(job: Job) -> Sequence[str]:
    """The names that the child may ask, open or explain."""
    if job.detection is not None:
        return job.detection.files
    return [spec.name for spec in job.probes] if job.explain is None else list(map(str, job.explain.rows))


def _send_job(child: subprocess.Popen[bytes], job: Job, *, more: bool = False) -> None:
    if child.stdin is None:
        raise RuntimeError("the child was started without a standard input")
    try:
        # It knows no types: those that read it build their validators in the child, at the same time. What is no finite
        # number arrives as what it is, and is refused there in words.
        body = to_json(job, inf_nan_mode="constants")
    except PydanticSerializationError:
        raise UsageError("A path or a name that was given is not in UTF-8: rename it.") from None
    try:
        child.stdin.write(body + b"\n")
        child.stdin.flush() if more else child.stdin.close()
    except BrokenPipeError:
        pass  # it died at once; the closed message pipe says so next, with its cause


def _refuse(message: Refused, job_results: Heard, job: Job) -> None:
    from auditor.report.record.audit_report import Refusal

    if message.code == "usage":
        if job_results.sandbox is not None:
            # No code has run where none may.
            refuse_code(job, job_results.sandbox)
        flag = None if answers_apart(job) else flag_of_code(job)
        raise UsageError(message.reason if flag is None else reported(flag, message.reason))
    job_results.refusal = Refusal(
        code=f"{message.code}_refused", reason=message.reason, reason_code=message.reason_code
    )


def _has_died(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child has ended; it is not reaped where that can be helped, so that its group keeps its name."""
    if not hasattr(os, "waitid"):
        return child.poll() is not None
    ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return ended is not None


def _cause_of_death(child: subprocess.Popen[bytes]) -> str:
    try:
        code = child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        return "It closed its channel and went on."
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (often: out of memory)" if name == "SIGKILL" else ""
        return f"The measuring process was ended by {name}{hint}."
    return f"The measuring process ended by itself with code {code}."


def _gib(n: int) -> str:
    return f"{n / 2**30:.1f} GiB"


def last_lines(log: str) -> str:
    """The end of a child's own output, safe for printing."""
    return "\n".join(visible(line) for line in log.splitlines()[-200:])
