"""An open endpoint of a scan: connection, demonstrated capabilities, sent requests, and the journal of its calls.

The journal holds neither a request's text nor a key. A scan that was killed finds the answers that it has had, so
that no call is made twice; one that ended begins the next scan's anew, since an answer of yesterday's is none of
today's server.

Its client stores answers in the journal, and reuses the answers of an earlier run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from auditor.core.errors import ModelError, UsageError
from auditor.models.endpoint import handshake_interfaces, handshake_sampling_and_prompts
from auditor.models.endpoint.api_messages import Answer, Choice, Request
from auditor.models.endpoint.client import BUSY, Client, Limits, Outcome, address_of, key_of
from auditor.models.endpoint.handshake_interfaces import OTHER_MODEL, Asking, distances, typical
from auditor.models.endpoint.handshake_sampling_and_prompts import fingerprint
from auditor.models.endpoint.server_findings import Capability, Handshake, lacking

# In the order in which they are told.
NAMES = (
    "completions", "chat", "model_name", "same_model", "logprobs", "top_logprobs", "echo", "text_likelihoods", "n",
    "stop", "greedy", "seed", "fresh_draws", "temperature", "pure_sampling", "system_prompt", "no_added_prompt",
    "whole_prompt", "batch_invariance", "unfiltered",
)  # fmt: skip


def shake_hands(
    client: Client,
    *,
    more_calls: int = 0,
    on_stage: Callable[[str], None] = lambda name: None,
    state: Asking | None = None,
) -> Handshake:
    """Query a server until each capability is proven, refuted or undeterminable.

    ``more_calls``: small calls to make before it is asked whether still the same model answers; a server may change it.
    ``state``: the state that it is kept in, for whoever asks on. Raises ModelError where nothing answers at all.
    """
    state = state or Asking(client)
    on_stage("interfaces")
    first = handshake_interfaces.interfaces(state)
    state.step((), lambda a: a.taken.extend(handshake_sampling_and_prompts.fingerprint(a)))
    for names, ask in _steps(first):
        on_stage(names[0])
        state.step(names, ask)
    on_stage("same_model")
    state.step(("same_model",), partial(_recheck_model, more_calls))
    return Handshake(client.address.url, client.model, _in_order(state), client.calls)


def _steps(first: Choice) -> list[tuple[tuple[str, ...], Callable[[Asking], None]]]:
    return [
        (("fresh_draws",), handshake_sampling_and_prompts.fresh),
        (("greedy",), partial(handshake_interfaces.greedy, first=first)),
        (("stop",), partial(handshake_interfaces.stop, first=first)),
        (("n",), handshake_interfaces.several),
        (("echo", "text_likelihoods"), partial(_echo, first=first)),
        (("seed",), handshake_sampling_and_prompts.seed),
        (("pure_sampling",), partial(handshake_sampling_and_prompts.as_reported, first=first)),
        (("temperature",), handshake_sampling_and_prompts.temperature),
        (("system_prompt", "no_added_prompt"), _system_prompt),
        (("whole_prompt",), handshake_sampling_and_prompts.whole_prompt),
        (("batch_invariance",), handshake_sampling_and_prompts.batch),
        (("unfiltered",), handshake_sampling_and_prompts.unfiltered),
        (("model_name",), handshake_interfaces.other_name),
    ]


def _echo(state: Asking, first: Choice) -> None:
    if not state.is_proven("completions"):
        state.add(*(lacking(name, "Only completions can do it.") for name in ("echo", "text_likelihoods")))
        return
    handshake_interfaces.echo(state, first)


def _system_prompt(state: Asking) -> None:
    if not state.is_proven("chat"):
        state.add(*(lacking(name, "Only a chat has one.") for name in ("system_prompt", "no_added_prompt")))
        return
    handshake_sampling_and_prompts.system_prompt(state)


def _recheck_model(more_calls: int, state: Asking) -> None:
    state.client.ask_all([state.request(handshake_interfaces.STORY, 1)] * more_calls)
    handshake_sampling_and_prompts.same_model(state, state.taken, state.client.calls)


def _in_order(state: Asking) -> tuple[Capability, ...]:
    return tuple(state.found[name] for name in NAMES)


NAME, JUDGE_NAME = "calls.jsonl", "judge-calls.jsonl"
_FORMAT = "auditor-calls/1"
_LARGEST = 1 << 30
_FINISHED = {"finished": True}
_OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Outcome)


class Journal:
    """The calls of one scan of one endpoint, in a file that is only appended to; for one process at a time.

    ``resumed``: how many calls an earlier run has left in it. Raises UsageError where another scan writes there, and
    where the file is of another endpoint or no journal, which is never written over.
    """

    def __init__(self, path: Path, url: str, model: str, thinking: Mapping[str, object] | None = None) -> None:
        self.path = path
        self._head = {"format": _FORMAT, "url": url, "model": model, **(thinking or {})}
        self._lock = threading.Lock()
        self._had: dict[str, list[Outcome]] = defaultdict(list)
        self._taken: Counter[str] = Counter()
        self._file = self._open_file()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._load_calls():
                self._file.truncate(0)
                self._write(self._head)
        except BlockingIOError:
            self._file.close()
            raise UsageError(f"Another scan writes into {str(path)!r}: name another folder with --out.") from None
        except BaseException:
            self._file.close()
            raise
        self.resumed = sum(map(len, self._had.values()))

    def next_of(self, request: Request, model: str) -> tuple[str, Outcome | None]:
        """The request's digest, and the answer of an earlier run to the k-th such request."""
        body = json.dumps([request.route, request.body(model)], sort_keys=True, ensure_ascii=True)
        digest = hashlib.sha256(body.encode()).hexdigest()
        with self._lock:
            k = self._taken[digest]
            self._taken[digest] += 1
            had = self._had[digest]
            return digest, had[k] if k < len(had) else None

    def add(self, digest: str, outcome: Outcome) -> None:
        """Write one line, to disk before return; outcomes that a retry may change are not kept."""
        if outcome.settled:
            with self._lock:
                self._write({"request": digest, "outcome": _OUTCOME.dump_python(outcome, mode="json")})

    def close(self, *, finished: bool) -> None:
        """Close the journal; ``finished``: all requests were made, so that the next scan starts a new one."""
        if finished:
            self._write(_FINISHED)
        self._file.close()

    def _open_file(self) -> IO[bytes]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # What is behind a link is somebody else's file, and what stands in it is for whoever audits alone.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            return os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=0)
        except OSError as error:
            raise UsageError(f"The journal {str(self.path)!r} cannot be written: {error.strerror}.") from None

    def _write(self, content: dict[str, Any]) -> None:
        try:
            self._file.write((json.dumps(content, ensure_ascii=True) + "\n").encode())
        except OSError as error:
            raise UsageError(f"The journal {str(self.path)!r} cannot be written: {error.strerror}.") from None

    def _load_calls(self) -> bool:
        """Whether there is an unfinished scan of this endpoint, whose calls are then known."""
        found = os.fstat(self._file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            raise self._not_a_journal()
        if not found.st_size:
            return False
        self._file.seek(0)
        raw = self._file.read()
        whole = raw[: raw.rfind(b"\n") + 1]
        try:
            head, *lines = [json.loads(line) for line in whole.splitlines()]
            if not isinstance(head, dict) or head.get("format") != _FORMAT:
                raise self._not_a_journal()
            if lines and lines[-1] == _FINISHED:
                return False
            if head != self._head:
                raise UsageError(
                    f"{str(self.path)!r} is the journal of an unfinished scan of another endpoint: name another folder "
                    "with --out, or take it away."
                )
            for line in lines:
                self._had[str(line["request"])].append(_OUTCOME.validate_python(line["outcome"], strict=False))
        except (ValueError, KeyError, TypeError, ValidationError, RecursionError):
            raise self._not_a_journal() from None
        if len(whole) < len(raw):
            # The line that the last run was writing when it was killed.
            self._file.truncate(len(whole))
        return True

    def _not_a_journal(self) -> UsageError:
        return UsageError(f"{str(self.path)!r} is no journal of calls: name another folder with --out, or move it.")


# So many requests in a row without any answer: the server is gone, and to wait for each of the others tells no more.
_GONE = 8


@dataclass
class JournaledClient(Client):
    """A client with a ``journal``; ``left_open``: whether some request has no settled outcome, ``requests``: their
    number, from the journal or not."""

    journal: Journal | None = None
    left_open: bool = field(default=False, init=False)
    requests: int = field(default=0, init=False)
    _unanswered: int = field(default=0, init=False, repr=False)

    def ask(self, request: Request, *, model: str | None = None) -> Answer:
        """See :meth:`Client.ask`."""
        return self._outcome(request, model, self._look_up(request, model)).answer_or_raise()

    def ask_all(self, requests: Sequence[Request]) -> list[Answer]:
        """See :meth:`Client.ask_all`."""
        return [outcome.answer_or_raise() for outcome in self.outcomes(requests)]

    def outcomes(self, requests: Sequence[Request]) -> list[Outcome]:
        """The outcome of each request, in order, with as much concurrency as the limits allow; never raises."""
        # In order, so that the k-th of equal requests is the k-th again when a run is resumed.
        known = [self._look_up(request, None) for request in requests]
        with ThreadPoolExecutor(self.limits.concurrency) as pool:
            return list(pool.map(lambda pair: self._outcome(pair[0], None, pair[1]), zip(requests, known, strict=True)))

    def _look_up(self, request: Request, model: str | None) -> tuple[str, Outcome | None]:
        self.requests += 1
        return ("", None) if self.journal is None else self.journal.next_of(request, model or self.model)

    def _outcome(self, request: Request, model: str | None, lookup: tuple[str, Outcome | None]) -> Outcome:
        digest, had = lookup
        if had is not None:
            return had
        if self._unanswered >= _GONE:
            self.left_open = True
            return Outcome(failed=f"{self.address.url} no longer answers: {_GONE} calls in a row came to nothing.")
        try:
            found = Outcome(answer=super().ask(request, model=model))
        except ModelError as error:
            found = Outcome.from_error(error)
        answered = found.answer is not None or found.spent or found.status not in (0, *BUSY)
        self._unanswered = 0 if answered else self._unanswered + 1
        self.left_open |= not found.settled
        if self.journal is not None:
            self.journal.add(digest, found)
        return found


@dataclass(frozen=True, kw_only=True)
class EndpointAsked:
    """An endpoint and its permitted use; ``key_variable``: the environment variable with its key.

    ``thinking_tokens``, ``reasoning_effort``: see :class:`~auditor.models.endpoint.client.Client`.
    """

    url: str
    model: str
    key_variable: str | None = None
    allow_remote: bool = False
    thinking_tokens: int = 0
    reasoning_effort: str | None = None
    limits: Limits = field(default_factory=Limits)


# New calls after which the server is asked whether it is still the same model, and after a probe's last request.
_BETWEEN, _AT_THE_END = 100, 20


@dataclass
class OpenEndpoint:
    """An endpoint open for a scan; ``sent``: the number of requests by each probe, from the journal or not.

    ``reference``: the folder of the model that is said to be served, "" where none was named. ``is_other``: asks
    whether another model answers than in the handshake, None where nothing tells. ``agreed``: the number of calls at
    which the same one still answered; ``swapped``: why what came after it is no answer, or "".
    """

    client: JournaledClient
    handshake: Handshake
    resumed: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    reference: str = ""
    is_other: Callable[[], bool | None] = lambda: None
    agreed: int = 0
    swapped: str = ""

    def outcomes(self, probe: str, requests: Sequence[Request]) -> list[Outcome]:
        """The outcomes of a probe's requests; none since the same model was last seen to answer, if it changed."""
        self.sent[probe] += len(requests)
        found: list[Outcome] = []
        since = 0
        for start in range(0, len(requests), _BETWEEN):
            if self.swapped:
                break
            found += self.client.outcomes(requests[start : start + _BETWEEN])
            last = start + _BETWEEN >= len(requests)
            if self.client.calls - self.agreed >= (_AT_THE_END if last else _BETWEEN):
                self.check()
                since = len(found) if not self.swapped else since
        if not self.swapped:
            return found
        return [*found[:since], *[Outcome(failed=self.swapped, spent=True)] * (len(requests) - since)]

    def check(self) -> None:
        """Ask for the fingerprint of the handshake again; nothing is agreed where it cannot be asked."""
        calls = self.client.calls
        try:
            other = self.is_other()
        except ModelError:
            return
        if other is None:
            return
        if other:
            what = f"Another model answers after {calls:,} calls than after {self.agreed:,}"
            self.swapped = f"{what}: what came between is not used."
        else:
            self.agreed = self.client.calls

    def notes(self) -> tuple[str, ...]:
        """The record's sentences on the calls."""
        by = ", ".join(f"{n:,} of {probe}" for probe, n in self.sent.items()) or "none of any probe"
        said = [f"Requests: {self.handshake.calls:,} of the handshake, {by}; {self.client.calls:,} calls were made."]
        if self.swapped:
            said.append(f"{self.swapped} What was measured before is of the first one.")
        elif last := self.client.calls - self.agreed:
            said.append(f"Whether the same model gave the last {last:,} answers was not asked, or could not be told.")
        if self.reference:
            said.append(f"served_model is about the reference {self.reference}.")
        if not self.client.address.loopback:
            said.append(
                "The texts of all these requests left this machine: those of the handshake are the tool's own, those "
                "of a probe are its benchmark's, its own or the data's."
            )
        if self.resumed:
            said.append(f"{self.resumed:,} answers are from the journal of a run that did not end.")
        return tuple(said)


@dataclass(frozen=True, kw_only=True)
class Servers:
    """The servers of a scan: of the audited ``model`` and of a ``judge``, None where there is none.

    ``absent``: why the judge that was named is not to be had, or "".
    """

    model: OpenEndpoint | None = None
    judge: OpenEndpoint | None = None
    absent: str = ""

    def outcomes(self, probe: str, requests: Sequence[Request], *, to_judge: bool = False) -> list[Outcome]:
        """The outcomes of a probe's requests to the audited model, or to the judge."""
        server = self.judge if to_judge else self.model
        if server is None:
            return [Outcome(failed="No such server was named.")] * len(requests)
        return server.outcomes(probe, requests)

    def notes(self) -> tuple[str, ...]:
        """The record's sentences on the calls, and on the judge."""
        model = () if self.model is None else self.model.notes()
        if self.judge is None:
            return (*model, *((f"The judge is not to be had: {self.absent}",) if self.absent else ()))
        shaken = self.judge.handshake
        named = f"The judge is {shaken.model!r} at {shaken.url}, and nothing of it was audited."
        return (*model, named, *(f"Of the judge: {note}" for note in self.judge.notes()))


@contextmanager
def open_endpoint(
    options: EndpointAsked, journal: Path | None, on_stage: Callable[[str], None] = lambda name: None
) -> Iterator[OpenEndpoint]:
    """Context with an open endpoint after its handshake.

    ``journal``: where answers are kept, None for nowhere. Raises UsageError for a URL, a name or a key that is none,
    and what :class:`Journal` raises; ModelError where nothing answers, or another model than the journal's.
    """
    address, key = address_of(options.url, allow_remote=options.allow_remote), key_of(options.key_variable)
    thinks = {"thinking_tokens": options.thinking_tokens, "reasoning_effort": options.reasoning_effort}
    chosen = {name: value for name, value in thinks.items() if value}
    kept = None if journal is None else Journal(journal, address.url, options.model, chosen)
    finished = False
    try:
        with JournaledClient(address, options.model, key, options.limits, **thinks, journal=kept) as client:  # type: ignore[arg-type]
            asking = Asking(client)
            found = replace(shake_hands(client, on_stage=on_stage, state=asking), calls=client.requests)
            resumed = 0 if kept is None else kept.resumed
            if resumed and _is_other(asking):
                raise ModelError(
                    f"Another model answers now than when the unfinished scan of {str(journal)!r} began: take that "
                    "file away to begin anew."
                )
            endpoint = OpenEndpoint(client, found, resumed, is_other=lambda: _is_other(asking), agreed=client.calls)
            yield endpoint
            # What another model answered is no part of a scan that goes on.
            finished = not client.left_open or bool(endpoint.swapped)
    finally:
        if kept is not None:
            kept.close(finished=finished)


class _PastJournal:
    """Asks a client for new answers, whatever its journal has."""

    def __init__(self, client: JournaledClient) -> None:
        self.ask = partial(Client.ask, client)


def _is_other(state: Asking) -> bool | None:
    """Whether the handshake's fingerprint, asked for anew, is another model's; None where it tells nothing."""
    if not state.taken:
        return None
    # Of a length that is new each time, so that no cache answers.
    now = fingerprint(replace(state, client=_PastJournal(state.client)), 7 + state.client.calls % 16)  # type: ignore[arg-type]
    apart: list[float] = []
    for before, after in zip(state.taken, now, strict=True):
        apart += distances(before, after, positions=1)
    moved = typical(apart)
    if moved is not None:
        return moved > OTHER_MODEL
    if not state.is_proven("greedy"):
        return None
    return not all(after.text.startswith(before.text) for before, after in zip(state.taken, now, strict=True))
