"""Parsers and checks of option values, and the types of the arguments of a scan; no heavy imports."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal, TypedDict, get_args

from auditor.core.errors import UsageError


class ScanArguments(TypedDict, total=False):
    """The options of ``auditor scan`` under the names of its flags, which the help of that command explains."""

    # rows
    data: Any
    check_predictions: str
    bins: Sequence[str]
    cluster: str
    cluster_at_most: int
    weight: str
    weight_at_most: float
    copies_are_real: bool
    stream: bool
    no_controls: bool
    query: str
    sensitive_file: str
    join_on: str
    features: Sequence[str]
    text: str
    image: str
    # answers that were recorded
    predictions: Any
    log: str
    score: Sequence[str] | str
    predicted: str
    loss: str
    generated: str
    # the model
    task: Literal["classification", "regression"]
    classes: Sequence[object]
    outputs: Literal["logits", "probabilities"]
    threshold: float
    base: str
    architecture: str
    architecture_args: Mapping[str, Any]
    predict: str
    generate: str
    model_name: str
    max_calls: int
    thinking_tokens: int
    reasoning_effort: str
    device: str
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    device_map: Literal["auto", "balanced", "sequential"]
    allow_code: bool
    trust_pickle: bool
    allow_unsandboxed: bool
    # probes
    probe: Sequence[str]
    benchmark: Sequence[str]
    benchmark_filter: Sequence[str]
    scorer: str
    judge: str
    judge_name: str
    calibration: str
    chat: Literal["auto", "on", "off"]
    system: str
    few_shot: int
    reference: str
    quantize: Literal["int8", "int4"]
    ood: str
    decoder: Sequence[str]
    embedder: str
    # judgement
    policy: Sequence[str] | str
    as_of: date | str
    multiplicity: Literal["bonferroni", "holm", "by", "none"]
    allow_inconclusive: Sequence[str]
    # resources
    max_memory: int | str
    max_seconds: float
    executor: Literal["local", "ray"]
    address: str


_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def as_names(value: object) -> object:
    """``"a,b"`` as a list of names; a list is unchanged."""
    if isinstance(value, str):
        return names_in(value) or None
    if isinstance(value, (list, tuple)):
        return [name for name in (str(item).strip() for item in value) if name] or None
    return value


def names_in(text: str) -> list[str]:
    """The names in ``a,b,c``; a name with a comma is in double quotes, as in CSV.

    Raises ValueError.
    """
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(f'{text!r} is no list of names ({error}): write a,b, or a,"b, c" for a comma in one') from None
    return [name.strip() for row in rows for name in row if name.strip()]


def as_probe_names(value: object) -> object:
    found = as_names(value)
    if value is not None and found is None:
        raise ValueError("it names no probe: leave it out to ask all that apply")
    return found


def unrepeated(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(dict.fromkeys(value)) if isinstance(value, (list, tuple)) else value


def waivers(value: object) -> object:
    if value is True:
        raise ValueError('it takes the pillars or probes to waive, such as ["privacy"]')
    return () if value is False or value is None else unrepeated(value)


def as_text(value: object) -> object:
    return value if value is None else str(value)


def campaign_name(value: object) -> object:
    if isinstance(value, str) and not 1 <= len(value.strip()) <= 100:
        raise ValueError("a campaign has a name of 1 to 100 characters")
    return value.strip() if isinstance(value, str) else value


def as_day(value: object) -> object:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is no date: write it like 2026-11-24") from None
    return value


def json_object(value: object) -> object:
    """Reject TOML values that JSON cannot represent, such as dates, before they are sent to the child."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("it holds what JSON has no word for") from None
    return value


def finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("Input should be a finite number")
    return value


def dependent(value: object) -> object:
    if value == "bh":
        raise ValueError("findings of one scan depend on each other, where 'bh' promises nothing: write 'by'")
    return value


def as_bytes(value: object) -> object:
    """``"8GiB"``, ``"500M"`` or a number of bytes, as an int."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", value.strip().lower())
        if not match:
            raise ValueError(f"{value!r} is no amount of memory: write it like 8GiB or 500M")
        return int(float(match[1]) * _UNITS[match[2]])
    return value


def memory_limit(text: str | None) -> int:
    """The bytes given by ``--max-memory``, by default most of the machine's memory."""
    if text is None:
        return most_of_memory()
    try:
        found = as_bytes(text)
    except ValueError as error:
        raise UsageError(f"--max-memory: {error}.") from None
    if not isinstance(found, int) or found <= 0:
        raise UsageError(f"--max-memory {text!r} must be more than nothing.")
    return found


def most_of_memory() -> int:
    return int(0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def check_choice(option: str, value: object, choices: object) -> None:
    """Raise ValueError if an option's value is none of those of a ``Literal``."""
    if value not in get_args(choices):
        raise ValueError(f"{option} must be one of {', '.join(get_args(choices))}, not {value!r}")


def check_positive(option: str, value: float) -> None:
    """Raise ValueError if an option's value is no finite number above 0."""
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"{option} must be a positive number, not {value!r}")


def check_not_negative(option: str, value: float) -> None:
    """Raise ValueError if an option's value is no finite number of at least 0."""
    if not (value >= 0.0 and math.isfinite(value)):
        raise ValueError(f"{option} must be a number of at least 0, not {value!r}")
