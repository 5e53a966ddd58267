"""The types of the less used arguments of :func:`auditor.scan`, for completion and type checkers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal, TypedDict


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
