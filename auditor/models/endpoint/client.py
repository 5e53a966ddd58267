"""Client of an OpenAI-compatible server: its address, its limits, and the outcome of each request.

What is answered is untrusted data: it is parsed as JSON into types, and nothing else is done with it.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from auditor.core.errors import MissingExtraError, ModelError, UsageError, first_line
from auditor.models.endpoint.api_messages import PATHS, Answer, Request, answer_of

_LONGEST = 2_000


@dataclass(frozen=True)
class Address:
    """The root of an OpenAI-compatible interface, such as ``http://127.0.0.1:8000/v1``, without a closing slash."""

    url: str
    loopback: bool


def address_of(url: str, *, allow_remote: bool = False) -> Address:
    """The address that the user entered.

    Loopback is ``localhost`` and the addresses that are loopback by their number; any other name is remote, wherever it
    resolves to today. Raises UsageError for what is no plain http or https URL, for a remote one that was not allowed,
    and for a password in it, which would stand in the shell's history and in every list of processes.
    """
    example = "name it as http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"This is no URL: {example}.") from None
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"This is no URL: {example}.")
    if parts.username is not None or parts.password is not None:
        raise UsageError("The URL holds a name or a password: leave it out, and name a variable with --api-key-env.")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is no http or https URL without a query: {example}.")
    loopback = _is_loopback(host)
    if not loopback and not allow_remote:
        raise UsageError(f"{host!r} is not this machine, and texts would leave it: add --allow-remote to send them.")
    return Address(url.rstrip("/"), loopback)


def is_endpoint(model: str | None) -> bool:
    """Whether the model is given as the URL of its server."""
    return model is not None and model.lower().startswith(("http://", "https://"))


def _is_loopback(host: str) -> bool:
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# Statuses by which a server has no room at present, and those by which it failed, or nobody is there to answer.
BUSY = (429, 503, 529)
_FAILED = (500, 502, 504)
# Of a request that names what the server does not know.
_UNKNOWN = (400, 422)
# What turns off samplers beyond the protocol, which servers such as llama.cpp have on by default.
NEUTRAL = {"top_k": -1, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0, "repetition_penalty": 1.0}
_NEWER = b"max_completion_tokens"
_LONGEST_WAIT = 60.0
_LARGEST_ANSWER = 64 << 20
_LARGEST_REQUEST = 8 << 20
_MOST_SAID = 200
_LONGEST_KEY = 4_096
# A placeholder such as "EMPTY" is a word that a model may say; nobody's key is as short.
_SHORTEST_SECRET = 12
_ROUTES_ABSENT = (404, 405, 501)


class RefusedError(ModelError):
    """The server answered with an error: the request is not supported; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def absent(self) -> bool:
        """Whether the server reports that the interface does not exist."""
        return self.status in _ROUTES_ABSENT


class BudgetSpentError(ModelError):
    """The allowed number of calls is used up."""


def key_of(variable: str | None) -> str | None:
    """The key in an environment variable; UsageError without a usable key, never with the key in its text."""
    if variable is None:
        return None
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        # Somebody may have typed the key itself, which no error may repeat.
        raise UsageError("--api-key-env takes the name of an environment variable, such as OPENAI_API_KEY.")
    key = os.environ.get(variable, "")
    if not key:
        raise UsageError(f"There is no key in the environment variable {variable}: set it, or leave --api-key-env out.")
    if len(key) > _LONGEST_KEY or not re.fullmatch(r"[!-~]+", key):
        raise UsageError(f"What {variable} holds is no key: it has blanks, line breaks or other letters than ASCII.")
    return key


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of requests: calls, of which further tries of one are none, concurrent calls, and seconds per try.

    ``patience``: seconds for which a server that says it is busy is asked again.
    """

    max_calls: int = 1_000
    concurrency: int = 4
    seconds: float = 120.0
    retries: int = 3
    # Seconds before the first retry; each further one waits twice as long, where the server does not say how long.
    wait: float = 0.5
    patience: float = 120.0

    def __post_init__(self) -> None:
        if self.max_calls < 1:
            raise UsageError("--max-calls must be at least 1.")
        if not 1 <= self.concurrency <= 256:
            raise UsageError("--concurrency must lie between 1 and 256.")
        if not 0.0 < self.seconds < 1e6:
            raise UsageError("--max-seconds must be a positive number of seconds.")


class _Gate:
    """Lets so many through at once, fewer after a server was busy, and one more for every so many that were answered.

    Nobody passes before the time for which a busy server asked.
    """

    def __init__(self, most: int) -> None:
        self._most = self._allowed = float(most)
        self._inside, self._opens = 0, 0.0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            while (wait := self._opens - time.monotonic()) > 0.0 or self._inside >= max(int(self._allowed), 1):
                self._changed.wait(wait if wait > 0.0 else None)
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._changed:
            self._inside -= 1
            self._allowed = min(self._allowed + 1.0 / self._allowed, self._most)
            self._changed.notify_all()

    def slower(self, wait: float) -> None:
        """Halve what passes at once, and let nobody pass for some seconds."""
        with self._changed:
            self._allowed = max(self._allowed / 2.0, 1.0)
            self._opens = max(self._opens, time.monotonic() + wait)


def _seconds_of(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None of anything else."""
    try:
        seconds = float(header or "nan")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(str(header)).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


@dataclass
class Client:
    """An endpoint to ask: used in a ``with`` block, from any number of threads.

    No proxy, netrc or redirect is followed: texts go to the address that was named, and nowhere else. A request is
    retried where nothing was answered (no connection, none left, or a status that says so), never where an answer had
    begun; while a server is busy fewer are asked at once. Raises MissingExtraError without httpx.

    ``thinking_tokens``: what each request may be answered with beyond its own length; ``reasoning_effort``: as the
    server names it. ``neutral``: whether the server takes the neutral values of samplers beyond the protocol; None
    before anything was answered.
    """

    address: Address
    model: str
    key: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)
    thinking_tokens: int = 0
    reasoning_effort: str | None = None
    calls: int = field(default=0, init=False)
    neutral: bool | None = field(default=None, init=False)
    _newer: bool = field(default=False, init=False)
    _gate: Any = field(default=None, init=False, repr=False)
    _http: Any = field(default=None, init=False, repr=False)
    _portal: Any = field(default=None, init=False, repr=False)
    _open: ExitStack = field(default_factory=ExitStack, init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    def __enter__(self) -> Self:
        try:
            import httpx
            from anyio.from_thread import start_blocking_portal
        except ImportError:
            raise MissingExtraError("Endpoints need httpx: pip install 'responsible-auditor[endpoint]'.") from None
        headers = {"Accept-Encoding": "identity", "User-Agent": "auditor"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        # Without TLS there is nobody to trust, and to load the list of those who are takes a while.
        trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if self.address.url.startswith("http:") else True
        self._gate = _Gate(self.limits.concurrency)
        self._http = httpx.AsyncClient(
            verify=trusted,
            headers=headers,
            timeout=httpx.Timeout(None, connect=min(10.0, self.limits.seconds)),
            limits=httpx.Limits(max_connections=self.limits.concurrency),
            trust_env=False,
            follow_redirects=False,
        )
        # Only a task can be cancelled wherever it waits: for an address, a connection, a header or a body.
        self._portal = self._open.enter_context(start_blocking_portal())
        self._open.callback(self._portal.call, self._http.aclose)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def ask(self, request: Request, *, model: str | None = None) -> Answer:
        """One answer; ``model``: another model than the client's own.

        Raises RefusedError where the server answers with an error, BudgetSpentError where no call is left, ModelError
        where it cannot be reached, is too slow, or answers with what is none.
        """
        self._count()
        named = request.body(model or self.model)
        named["max_tokens"] += self.thinking_tokens
        if self.reasoning_effort is not None:
            named["reasoning_effort"] = self.reasoning_effort
        neutral = self.neutral is not False
        while True:
            body = named | NEUTRAL if neutral else dict(named)
            newer = self._newer and request.route == "chat"
            if newer:
                body["max_completion_tokens"] = body.pop("max_tokens")
            sent = json.dumps(body).encode()
            if len(sent) > _LARGEST_REQUEST:
                raise ModelError(f"A request has more than {_LARGEST_REQUEST >> 20} MiB: use shorter texts.")
            status, raw = self._until_answered(PATHS[request.route], sent)
            if status in _UNKNOWN and not newer and request.route == "chat" and _NEWER in raw:
                self._newer = True
            elif status in _UNKNOWN and neutral and self.neutral is None:
                neutral = False
            else:
                break
        if status == 200 and self.neutral is None:
            self.neutral = neutral
        return self._parse_answer(request, status, raw)

    def _until_answered(self, path: str, sent: bytes) -> tuple[int, bytes]:
        """Status and body of the first try that is answered, or of the last one."""
        import httpx

        until, attempt = time.monotonic() + self.limits.patience, 0
        while True:
            status, raw, wait = 0, b"", None
            try:
                with self._gate:
                    status, raw, wait = self._post(path, sent)
            except httpx.TransportError as error:
                known = isinstance(error, httpx.NetworkError | httpx.TimeoutException | httpx.ProtocolError)
                if attempt >= self.limits.retries or not known:
                    raise ModelError(f"{self.address.url} does not answer ({type(error).__name__}).") from None
            left = until - time.monotonic()
            over = attempt >= self.limits.retries and (status not in BUSY or left <= 0.0)
            if over or status not in (0, *BUSY, *_FAILED):
                return status, raw
            if wait is None:
                # Requests that were refused together do not come again together: each waits as its own bytes say.
                apart = 0.5 + zlib.crc32(sent, attempt) / 2**32
                wait = min(self.limits.wait * 2**attempt * apart, _LONGEST_WAIT)
            wait = min(wait, max(left, self.limits.wait))
            self._gate.slower(wait) if status in BUSY else time.sleep(wait)
            attempt += 1

    def ask_all(self, requests: Sequence[Request]) -> list[Answer]:
        """The answers to many requests in their order, as many at once as the limits allow."""
        with ThreadPoolExecutor(self.limits.concurrency) as pool:
            return list(pool.map(self.ask, requests))

    def _count(self) -> None:
        with self._lock:
            if self.calls >= self.limits.max_calls:
                raise BudgetSpentError(f"All {self.limits.max_calls:,} calls of --max-calls are made: raise it.")
            self.calls += 1

    def _post(self, path: str, payload: bytes) -> tuple[int, bytes, float | None]:
        """Status, body, and seconds to wait if the server says so.

        There is one deadline from the search for the address to the last byte.

        What is too slow, or breaks off within a body, is a ModelError: the server may be at work on it.
        """
        try:
            status, raw, wait = self._portal.call(self._exchange, path, payload)
        except TimeoutError:
            raise ModelError(f"The endpoint took longer than {self.limits.seconds:g} s over an answer.") from None
        return int(status), bytes(raw), _seconds_of(wait)

    async def _exchange(self, path: str, payload: bytes) -> tuple[int, bytes, str | None]:
        import anyio
        import httpx

        url, headers = f"{self.address.url}{path}", {"Content-Type": "application/json"}
        with anyio.fail_after(self.limits.seconds):
            async with self._http.stream("POST", url, content=payload, headers=headers) as response:
                parts, size = [], 0
                try:
                    # As it came: a body that says it is compressed is not unpacked to a size nobody has bounded.
                    async for part in response.aiter_raw():
                        parts.append(part)
                        size += len(part)
                        if size > _LARGEST_ANSWER:
                            raise ModelError(f"The endpoint answered with more than {_LARGEST_ANSWER >> 20} MiB.")
                except httpx.TransportError as error:
                    raise ModelError(f"The endpoint broke off within an answer ({type(error).__name__}).") from None
                return response.status_code, b"".join(parts), response.headers.get("Retry-After")

    def _parse_answer(self, request: Request, status: int, raw: bytes) -> Answer:
        try:
            content = self._without_key(json.loads(raw))
        except (ValueError, RecursionError):
            content = None
        if status != 200:
            said = self._error_text(content, raw)
            raise RefusedError(f"The endpoint refused a request with HTTP {status}{said}.", status)
        if content is None:
            raise ModelError("The endpoint answered with what is no JSON: it is no OpenAI-compatible server.")
        return answer_of(content, request.route)

    def _error_text(self, content: Any, raw: bytes) -> str:
        error = content.get("error", content) if isinstance(content, dict) else None
        said = error.get("message") if isinstance(error, dict) else error
        if not isinstance(said, str):
            said = str(self._without_key(raw[: 16 * _LONGEST_KEY].decode("utf-8", "replace")))
        said = " ".join(said.split())
        return f": {said[:_MOST_SAID].rstrip('.')}" if said else ""

    def _without_key(self, content: Any) -> Any:
        """An answer in which a server repeats the key holds it no longer."""
        if self.key is None or len(self.key) < _SHORTEST_SECRET:
            return content
        if isinstance(content, str):
            return content.replace(self.key, "[key]")
        if isinstance(content, list):
            return [self._without_key(each) for each in content]
        if isinstance(content, dict):
            return {self._without_key(name): self._without_key(each) for name, each in content.items()}
        return content


# Statuses that say nothing of the request itself: another try may be answered.
_PASSING = frozenset({401, 403, 408, 409, 425, 429})


@dataclass(frozen=True)
class Outcome:
    """``failed``: the reason for a missing answer; ``status``: HTTP status or 0; ``spent``: no calls were left."""

    answer: Answer | None = None
    failed: str = ""
    status: int = 0
    spent: bool = False

    @classmethod
    def from_error(cls, error: ModelError) -> Outcome:
        """The outcome that corresponds to an error of the client."""
        status = error.status if isinstance(error, RefusedError) else 0
        return cls(
            failed=f"{first_line(error)[:500].rstrip('.')}.", status=status, spent=isinstance(error, BudgetSpentError)
        )

    @property
    def settled(self) -> bool:
        """Whether the same request would have the same outcome: an answer, or a refusal of the request itself."""
        return self.answer is not None or (400 <= self.status < 500 and self.status not in _PASSING)

    def answer_or_raise(self) -> Answer:
        """The answer; raises the client's RefusedError, BudgetSpentError or ModelError if there is none."""
        if self.answer is not None:
            return self.answer
        if self.spent:
            raise BudgetSpentError(self.failed)
        raise RefusedError(self.failed, self.status) if self.status else ModelError(self.failed)


Ask = Callable[[Sequence[Request]], list[Outcome]]
