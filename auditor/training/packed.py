"""What a task is sent as: a few words that are validated, and tensors beside them, as safetensors. Nothing is code."""

from __future__ import annotations

import json
from typing import TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from auditor.errors import UsageError
from auditor.files import Closed

_Header = TypeVar("_Header", bound=Closed)


def packed(said: Closed, **tensors: Tensor) -> bytes:
    """Both as bytes."""
    return safetensors.torch.save(
        {name: t.contiguous() for name, t in tensors.items()}, {"said": said.model_dump_json()}
    )


def unpacked(kind: type[_Header], content: bytes) -> tuple[_Header, dict[str, Tensor]]:
    """Both out of what :func:`packed` gave; UsageError for what is none, or of another version."""
    try:
        length = int.from_bytes(content[:8], "little")
        said = kind.model_validate_json(json.loads(content[8 : 8 + length])["__metadata__"]["said"])
        # Where torch would lay them: matrix products round by where their numbers lie.
        return said, {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"What was sent is no task of this version of auditor ({type(error).__name__}).") from None
