"""Models of a sweep made elsewhere: a mitigation with its files as a pure task in a remote sandboxed process.

What is sent is the job, the model's file and the training rows; what comes back is the new model's file. Whoever does
the task opens them as the process here would: in a sandbox of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from auditor.core.errors import AuditorError, ModelError
from auditor.core.files import Closed, read_regular, write_beside
from auditor.loading.job_specs import Job
from auditor.loading.sandbox.measuring_process import scratch_folder
from auditor.report.record.energy import EnergyRecord
from auditor.training.task_executor import Executor, Tasks

if TYPE_CHECKING:
    from torch import Tensor

# As it is called here too: archives hold their own name.
_OUT = "model.pt"
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class MadePoint:
    """A new model's file, its notes, and its training's resources on the executing machine."""

    content: bytes
    notes: tuple[str, ...]
    energy: EnergyRecord


def made_by(executor: Executor, tasks: Tasks) -> Iterator[tuple[int, MadePoint | ModelError]]:
    """The new model of each task with its index, in order of completion, or the reason for its failure.

    Raises UsageError and DataError as :func:`auditor.run.parent_process.mitigate`, and what the executor raises.
    """
    for i, result in executor.results(tasks):
        yield i, _unpack_result(result)


def sent_points(jobs: Sequence[Job]) -> Tasks | None:
    """Jobs with one model and the same rows, one mitigation each, as tasks; None if not pure data.

    So are a network, a function or a mitigation of somebody's own, files beside the two, and a GPU.
    """
    if any(_is_more_than_data(job) for job in jobs):
        return None
    import torch

    from auditor.models.torch_context import resolve_device
    from auditor.training.stack_tasks import pack_message, versions

    first = jobs[0]
    assert first.model.path is not None and first.data is not None
    if resolve_device(first.model.device) != "cpu":
        return None
    threads = torch.get_num_threads()
    model, rows = Path(first.model.path), Path(first.data.path)
    common = replace(
        first,
        model=replace(first.model, path=model.name, device="cpu"),
        data=replace(first.data, path=rows.name),
        mitigation=None,
    )
    shared = pack_message(
        _Shared(job=TypeAdapter(Job).dump_python(common, mode="json"), versions=versions(), threads=threads),
        model=_tensor(read_regular(model.resolve(), "The model", _MOST_BYTES)),
        rows=_tensor(read_regular(rows.resolve(), "The file of training rows", _MOST_BYTES)),
    )
    asked = [replace(job.mitigation, out=_OUT) for job in jobs if job.mitigation is not None]
    each = tuple(pack_message(_Point(mitigation=asdict(mitigation))) for mitigation in asked)
    return Tasks(kind="point", shared=shared, each=each, threads=threads)


def _is_more_than_data(job: Job) -> bool:
    """Whether a job names code, or a file that is not sent."""
    model, data, asked = job.model, job.data, job.mitigation
    if asked is None or data is None or model.path is None or not os.path.isfile(model.path):
        return True
    own_code = model.code_folder is not None or model.allow_code or model.trust_pickle
    if own_code or not asked.target.startswith("mitigations.") or not os.path.isfile(data.path):
        return True
    sent = replace(
        job,
        model=replace(model, path=None),
        data=replace(data, path=""),
        mitigation=replace(asked, out=""),
        tasks=None,
    )
    return any(os.path.isabs(text) and os.path.exists(text) for text in _texts(asdict(sent)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def done(common_bytes: bytes, task_bytes: bytes) -> bytes:
    """Make the model of one point; the result is its file, or the sentence of its refusal.

    Raises UsageError where this has other versions of what computes: digits would differ.
    """
    from auditor.run.parent_process import mitigate
    from auditor.training.meter import Meter, of_training
    from auditor.training.stack_tasks import finished, refusal_result, refuse_other_versions, unpack_message

    common, contents = unpack_message(_Shared, common_bytes)
    own, _ = unpack_message(_Point, task_bytes)
    refuse_other_versions(common.versions)
    job = TypeAdapter(Job).validate_python({**common.job, "mitigation": own.mitigation}, strict=False)
    assert job.model.path is not None and job.data is not None and job.mitigation is not None
    with scratch_folder() as scratch, _threads(common.threads), Meter(job.model.device) as meter:
        base = Path(scratch).resolve()
        # By their own names, which sentences may tell; each in a folder of its own.
        places = [base / "model" / Path(job.model.path).name, base / "rows" / Path(job.data.path).name]
        for place, content in zip(places, (contents["model"], contents["rows"]), strict=True):
            write_beside(place, content.numpy().tobytes())
        out = base / "out" / _OUT
        out.parent.mkdir()
        job = replace(
            job,
            model=replace(job.model, path=str(places[0])),
            data=replace(job.data, path=str(places[1])),
            mitigation=replace(job.mitigation, out=str(out)),
        )
        try:
            notes = mitigate(job, meter=meter)
        except AuditorError as error:
            return refusal_result(error)
        made = read_regular(out, "The new model", _MOST_BYTES)
        return finished(_Made(notes=notes, energy=of_training(meter)), model=_tensor(made))


def _unpack_result(result: bytes) -> MadePoint | ModelError:
    from auditor.training.stack_tasks import result_of

    try:
        said, contents = result_of(_Made, result)
    except ModelError as error:
        return error
    return MadePoint(content=contents["model"].numpy().tobytes(), notes=said.notes, energy=said.energy)


# ---- as bytes ------------------------------------------------------------------------------------------------------


class _Shared(Closed):
    """What all points have in common, beside the files of the model and of the rows."""

    job: dict[str, Any]
    versions: dict[str, str]
    threads: int


class _Point(Closed):
    mitigation: dict[str, Any]


class _Made(Closed):
    """What stands beside the new model's file."""

    notes: tuple[str, ...]
    energy: EnergyRecord


def _tensor(content: bytes) -> Tensor:
    import torch

    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Inside, measuring processes compute with so many threads."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(n)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
