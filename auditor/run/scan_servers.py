"""The servers of a scan, open while it runs: that of the audited model, and that of a judge of its texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from auditor.core.errors import ModelError, UsageError
from auditor.loading.job_specs import Limits
from auditor.models.endpoint.client import Limits as Calls
from auditor.models.endpoint.client import is_endpoint
from auditor.models.endpoint.session import JUDGE_NAME, NAME, EndpointAsked, OpenEndpoint, Servers, open_endpoint
from auditor.run.endpoint_reference import check_reference, with_reference
from auditor.run.scan_options import ScanOptions

_OF_SERVERS = ("max_calls", "concurrency", "allow_remote", "thinking_tokens", "reasoning_effort")
_OF_A_FILE = ("base", "task", "classes", "outputs", "architecture", "predict", "generate", "allow_code", "trust_pickle")


@contextmanager
def servers_at_hand(options: ScanOptions, on_stage: Callable[[str], None] | None = None) -> Iterator[Servers]:
    """The servers that the options name, after their handshakes.

    They are asked here, because the measuring process has no network. A judge that does not answer leaves its probes
    without one, and the others as they are. Raises UsageError, and what
    :func:`auditor.models.endpoint.session.open_endpoint` and
    :func:`auditor.run.endpoint_reference.with_reference` raise for the audited model.
    """
    on_stage = on_stage or (lambda name: None)
    _check(options)
    with ExitStack() as opened:
        model, judge, absent = None, None, ""
        if is_endpoint(options.model):
            model = opened.enter_context(_model(options, on_stage))
        if is_endpoint(options.judge):
            asked = _endpoint_request(options, str(options.judge), str(options.judge_name), options.judge_key_env)
            try:
                judge = opened.enter_context(open_endpoint(asked, Path(options.out) / JUDGE_NAME, on_stage))
            except ModelError as error:
                absent = str(error)
        yield Servers(model=model, judge=judge, absent=absent)


def _check(options: ScanOptions) -> None:
    """Raise UsageError for flags of a server that there is not, or a server whose model is not named."""
    url = "{flag} is for a model behind a URL: auditor scan http://127.0.0.1:8000/v1."
    others = _OF_SERVERS if not is_endpoint(options.judge) else ()
    if not is_endpoint(options.model):
        names = ("model_name", "api_key_env", *others)
        refuse_any(options, [n for n in names if getattr(options, n) != getattr(ScanOptions(), n)], url)
    elif options.model_name is None:
        raise UsageError("Which of the server's models? Add --model-name NAME.")
    else:
        refuse_any(options, _OF_A_FILE, "{flag} says how a file is loaded, and the model is at a server.")
    if not is_endpoint(options.judge):
        refuse_any(options, ("judge_name", "judge_key_env"), "{flag} is for a judge behind a URL: add --judge URL.")
    elif options.judge_name is None:
        raise UsageError("Which of the server's models is the judge? Add --judge-name NAME.")
    if options.judge is not None and options.scorer is not None:
        raise UsageError("--scorer and --judge both score generated texts: leave one of them out.")


def _endpoint_request(options: ScanOptions, url: str, name: str, key_variable: str | None) -> EndpointAsked:
    return EndpointAsked(
        url=url,
        model=name,
        key_variable=key_variable,
        allow_remote=options.allow_remote,
        thinking_tokens=options.thinking_tokens,
        reasoning_effort=options.reasoning_effort,
        limits=Calls(
            max_calls=options.max_calls,
            concurrency=options.concurrency,
            seconds=min(Calls.seconds, options.max_seconds),
        ),
    )


@contextmanager
def _model(options: ScanOptions, on_stage: Callable[[str], None]) -> Iterator[OpenEndpoint]:
    """The audited model's server; with a reference, whether that is what it serves is found out too."""
    if options.reference is not None:
        check_reference(options.reference)
    asked = _endpoint_request(options, str(options.model), str(options.model_name), options.api_key_env)
    with open_endpoint(asked, Path(options.out) / NAME, on_stage) as endpoint:
        if options.reference is not None:
            found = with_reference(
                endpoint.client,
                endpoint.handshake,
                options.reference,
                Limits(memory_bytes=options.max_memory, seconds=options.max_seconds),
                seed=options.seed,
                device=options.device,
                allow_unsandboxed=options.allow_unsandboxed,
                on_stage=on_stage,
            )
            endpoint.handshake = replace(found, calls=endpoint.client.requests)
            endpoint.reference = options.reference
        yield endpoint


def refuse_any(options: ScanOptions, names: Sequence[str], reason: str) -> None:
    """Raise UsageError for the first of these options that is given; ``reason`` has its ``{flag}``."""
    for name in names:
        if getattr(options, name):
            raise UsageError(reason.format(flag="MODEL" if name == "model" else f"--{name.replace('_', '-')}"))
