"""Serialised tasks and results: a few validated fields, with tensors beside them as safetensors.

Nothing is code. A task that is refused comes back as the sentence with which it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from auditor.core.errors import AuditorError, Code, DataError, ModelError, UsageError
from auditor.core.files import Closed

_Header = TypeVar("_Header", bound=Closed)
_REFUSALS: dict[str, type[AuditorError]] = {kind.__name__: kind for kind in (UsageError, DataError, ModelError)}
# Other versions of these round otherwise.
_ROUND = ("responsible-auditor", "torch", "numpy", "scipy", "scikit-learn")
_DONE, _REFUSED = b"\0", b"\1"


class _Refusal(Closed):
    kind: str
    why: str
    code: Code | None


def pack_message(header: Closed, **tensors: Tensor) -> bytes:
    """Fields and tensors as bytes."""
    return safetensors.torch.save(
        {name: t.contiguous() for name, t in tensors.items()}, {"said": header.model_dump_json()}
    )


def unpack_message(kind: type[_Header], content: bytes) -> tuple[_Header, dict[str, Tensor]]:
    """Fields and tensors from the output of :func:`pack_message`; UsageError if invalid or of another version."""
    try:
        length = int.from_bytes(content[:8], "little")
        said = kind.model_validate_json(json.loads(content[8 : 8 + length])["__metadata__"]["said"])
        # Where torch would lay them: matrix products round by where their numbers lie.
        return said, {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _of_another_version(error) from None


def _of_another_version(error: Exception) -> UsageError:
    return UsageError(f"What was sent is no task of this version of auditor ({type(error).__name__}).")


def finished(header: Closed, **tensors: Tensor) -> bytes:
    """The result of a task that was done."""
    return _DONE + pack_message(header, **tensors)


def refusal_result(error: AuditorError) -> bytes:
    """The result of a task that was refused."""
    kind = type(error).__name__ if type(error).__name__ in _REFUSALS else ModelError.__name__
    return _REFUSED + _Refusal(kind=kind, why=str(error), code=error.code).model_dump_json().encode()


def result_of(kind: type[_Header], content: bytes) -> tuple[_Header, dict[str, Tensor]]:
    """The argument of :func:`finished`; raises the error of :func:`refusal_result`, with its type."""
    if content[:1] == _DONE:
        return unpack_message(kind, content[1:])
    try:
        said = _Refusal.model_validate_json(content[1:])
    except ValueError as error:
        raise _of_another_version(error) from None
    raise _REFUSALS.get(said.kind, ModelError)(said.why, code=said.code)


def versions() -> dict[str, str]:
    """Versions of the computing packages: tasks run only with the sender's versions, as digits would differ."""
    return {name: version(name) for name in _ROUND}


def refuse_other_versions(sender_versions: Mapping[str, str]) -> None:
    """Raise UsageError if the computing packages here differ from the sender's."""
    here = versions()
    differing = [name for name in here if sender_versions.get(name) != here[name]]
    if differing:
        ours, theirs = (
            ", ".join(f"{name} {known.get(name, 'unknown')}" for name in differing) for known in (here, sender_versions)
        )
        raise UsageError(f"A worker has {ours} and this audit {theirs}: install the same version on both.")
