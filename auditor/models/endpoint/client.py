"""Client of an OpenAI-compatible server: its address, its limits, and the outcome of each request.

What is answered is untrusted data: it is parsed as JSON into types, and nothing else is done with it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
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


# Statuses by which a server says that it has not worked on a request: too many of them, or nobody there to answer.
_NOT_ANSWERED = (429, 502, 503, 504)
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
    """Limits of requests: total calls (including retries), concurrent calls, and seconds per call."""

    max_calls: int = 1_000
    concurrency: int = 4
    seconds: float = 120.0
    retries: int = 3
    # Seconds before the first retry; each further one waits twice as long.
    wait: float = 0.5

    def __post_init__(self) -> None:
        if self.max_calls < 1:
            raise UsageError("--max-calls must be at least 1.")
        if not 1 <= self.concurrency <= 256:
            raise UsageError("--concurrency must lie between 1 and 256.")
        if not 0.0 < self.seconds < 1e6:
            raise UsageError("--max-seconds must be a positive number of seconds.")


@dataclass
class Client:
    """An endpoint to ask: used in a ``with`` block, from any number of threads.

    No proxy, netrc or redirect is followed: texts go to the address that was named, and nowhere else. A request is
    retried where nothing was answered (no connection, none left, or a status that says so), never where an answer had
    begun. Raises MissingExtraError without httpx.
    """

    address: Address
    model: str
    key: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)
    calls: int = field(default=0, init=False)
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
        import httpx

        sent = json.dumps(request.body(model or self.model)).encode()
        if len(sent) > _LARGEST_REQUEST:
            raise ModelError(f"A request has more than {_LARGEST_REQUEST >> 20} MiB: use shorter texts.")
        for attempt in range(self.limits.retries + 1):
            if attempt:
                time.sleep(self.limits.wait * 2 ** (attempt - 1))
            self._count()
            last = attempt == self.limits.retries
            try:
                status, raw = self._post(PATHS[request.route], sent)
            except httpx.TransportError as error:
                if last or not isinstance(error, httpx.NetworkError | httpx.TimeoutException | httpx.ProtocolError):
                    raise ModelError(f"{self.address.url} does not answer ({type(error).__name__}).") from None
                continue
            if status in _NOT_ANSWERED and not last:
                continue
            return self._parse_answer(request, status, raw)
        raise AssertionError("the last attempt returns or raises")

    def ask_all(self, requests: Sequence[Request]) -> list[Answer]:
        """The answers to many requests in their order, as many at once as the limits allow."""
        with ThreadPoolExecutor(self.limits.concurrency) as pool:
            return list(pool.map(self.ask, requests))

    def _count(self) -> None:
        with self._lock:
            if self.calls >= self.limits.max_calls:
                raise BudgetSpentError(f"All {self.limits.max_calls:,} calls of --max-calls are made.")
            self.calls += 1

    def _post(self, path: str, payload: bytes) -> tuple[int, bytes]:
        """Status and body, within one deadline from the search for the address to the last byte.

        What is too slow, or breaks off within a body, is a ModelError: the server may be at work on it.
        """
        try:
            status, raw = self._portal.call(self._exchange, path, payload)
        except TimeoutError:
            raise ModelError(f"The endpoint took longer than {self.limits.seconds:g} s over an answer.") from None
        return int(status), bytes(raw)

    async def _exchange(self, path: str, payload: bytes) -> tuple[int, bytes]:
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
                return response.status_code, b"".join(parts)

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
