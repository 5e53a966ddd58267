"""Models of a sweep made elsewhere: a mitigation with its files as a pure task, in a measuring process over there.

What is sent is the job, the model's file and the training rows; what comes back is the new model's file. Whoever does
the task opens them as the process here would: in a sandbox of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from auditor.errors import AuditorError, DataError, ModelError, UsageError
from auditor.files import read_regular, write_beside
from auditor.intake.specs import Job
from auditor.record.energy import EnergyRecord
from auditor.sandbox.scratch import scratch_folder
from auditor.training.execute import Executor, Tasks

# As it is called here too: archives hold their own name.
_OUT = "model.pt"
_MOST_BYTES = 1 << 30
_REFUSALS: dict[str, type[AuditorError]] = {kind.__name__: kind for kind in (UsageError, DataError, ModelError)}
# Other versions of these round otherwise.
_ROUND = ("responsible-auditor", "torch", "numpy", "scipy", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class MadePoint:
    """A new model's file, its notes, and what its training took on the machine that did it."""

    content: bytes
    notes: tuple[str, ...]
    energy: EnergyRecord


def made_by(executor: Executor, tasks: Tasks) -> Iterator[tuple[int, MadePoint | ModelError]]:
    """The new model of each task with its place among them, as they end, or why it could not be made.

    Raises UsageError and DataError as :func:`auditor.run.isolate.mitigate`, and what the executor raises.
    """
    for i, result in executor.results(tasks):
        yield i, _received(result)


def sent_points(jobs: Sequence[Job]) -> Tasks | None:
    """Jobs with one model and the same rows, and a mitigation each, as tasks; None where they are more than data.

    So are a network, a function or a mitigation of somebody's own, files beside the two, and a GPU.
    """
    if any(_is_more_than_data(job) for job in jobs):
        return None
    import torch

    from auditor.networks.device import resolve_device

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
    shared = {"job": TypeAdapter(Job).dump_python(common, mode="json"), "versions": _versions(), "threads": threads}
    files = (
        read_regular(model.resolve(), "The model", _MOST_BYTES),
        read_regular(rows.resolve(), "The file of training rows", _MOST_BYTES),
    )
    each = tuple(
        _joined({"mitigation": asdict(replace(job.mitigation, out=_OUT))}) for job in jobs if job.mitigation is not None
    )
    return Tasks(kind="point", shared=_joined(shared, *files), each=each, threads=threads)


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


def done(shared: bytes, each: bytes) -> bytes:
    """Makes the model of one point; what comes out is its file, or the sentence with which it was refused.

    Raises UsageError where this has other versions of what computes: digits would differ.
    """
    from auditor.run.isolate import mitigate
    from auditor.training.meter import Meter
    from auditor.training.taken import of_training

    common, (model, rows) = _split(shared, 2)
    own, _ = _split(each, 0)
    if differing := [name for name, number in _versions().items() if common["versions"].get(name) != number]:
        raise UsageError(f"A worker has another version of {', '.join(differing)}: install the same on both.")
    job = TypeAdapter(Job).validate_python({**common["job"], **own}, strict=False)
    assert job.model.path is not None and job.data is not None and job.mitigation is not None
    with scratch_folder() as scratch, _threads(int(common["threads"])), Meter(job.model.device) as meter:
        base = Path(scratch).resolve()
        # By their own names, which sentences may tell; each in a folder of its own.
        places = [base / "model" / Path(job.model.path).name, base / "rows" / Path(job.data.path).name]
        for place, content in zip(places, (model, rows), strict=True):
            write_beside(place, content)
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
            kind = type(error).__name__ if type(error).__name__ in _REFUSALS else "ModelError"
            return _joined({"refused": kind, "why": str(error), "code": error.code})
        energy = of_training(meter).model_dump(mode="json")
        return _joined({"notes": list(notes), "energy": energy}, read_regular(out, "The new model", _MOST_BYTES))


def _received(result: bytes) -> MadePoint | ModelError:
    said, parts = _split(result, None)
    if "refused" in said:
        error = _REFUSALS.get(said["refused"], ModelError)(said["why"], code=said["code"])
        if isinstance(error, ModelError):
            return error
        raise error
    energy = EnergyRecord.model_validate(said["energy"])
    return MadePoint(content=parts[0], notes=tuple(said["notes"]), energy=energy)


# ---- as bytes ------------------------------------------------------------------------------------------------------


def _joined(said: dict[str, Any], *parts: bytes) -> bytes:
    """A line of JSON, and the parts behind it."""
    return json.dumps({"said": said, "sizes": [len(part) for part in parts]}).encode() + b"\n" + b"".join(parts)


def _split(content: bytes, n: int | None) -> tuple[dict[str, Any], list[bytes]]:
    head, _, rest = content.partition(b"\n")
    try:
        known = json.loads(head)
        said, sizes = dict(known["said"]), [int(size) for size in known["sizes"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"What was sent is no task of this version of auditor ({type(error).__name__}).") from None
    if sum(sizes) != len(rest) or n not in (None, len(sizes)):
        raise UsageError("What was sent is no task of this version of auditor: it was cut off.")
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return said, [rest[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _ROUND}


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
