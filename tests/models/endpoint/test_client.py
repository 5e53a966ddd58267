"""The client: what it sends and to whom, what it takes back, what it tries again, and a key that nobody sees."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from auditor.core.errors import ModelError, UsageError
from auditor.models.endpoint import client as module
from auditor.models.endpoint.api_messages import Message, Request, answer_of
from auditor.models.endpoint.client import BudgetSpentError, Client, Limits, RefusedError, address_of, key_of
from tests.models.endpoint.stub import NAME, Stub, running, served

KEY = "sk-very-secret-0123456789"
ASK = Request(prompt="one two", max_tokens=2)
OK = json.dumps({"model": NAME, "choices": [{"text": " three", "finish_reason": "length"}]}).encode()


def answering(*made: Callable[[BaseHTTPRequestHandler], None]) -> tuple[type[BaseHTTPRequestHandler], list[str]]:
    """A server that treats its first request in one way, the next in another, and all further ones in the last."""
    seen: list[str] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                seen.append(self.path)
                way = made[min(len(seen), len(made)) - 1]
            way(self)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler, seen


def reply(status: int, raw: bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def way(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content_Length": str(len(raw))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(raw)

    return way


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def asked(
    *made: Callable[[BaseHTTPRequestHandler], None], key: str | None = None, **limits: Any
) -> tuple[Any, list[str]]:
    """What one call gives or raises, and the paths that were asked for."""
    handler, seen = answering(*made)
    with running(handler) as url:
        with Client(address_of(url), NAME, key, Limits(**({"wait": 0.001} | limits))) as client:
            try:
                return client.ask(ASK), seen
            except ModelError as error:
                return error, seen


# ---- where texts go --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://localhost/v1/", "https://[::1]:1/v1", "http://127.9.9.9"]
)
def test_this_machine_needs_no_leave(url: str) -> None:
    assert address_of(url).loopback and not address_of(url).url.endswith("/")


@pytest.mark.parametrize(
    "url",
    ["https://api.example.com/v1", "http://10.0.0.1/v1", "http://127.0.0.1.example.com/v1", "http://0.0.0.0:80/v1",
     "http://localhost.example.com", "http://2130706433/v1"],
)  # fmt: skip
def test_another_machine_needs_leave(url: str) -> None:
    with pytest.raises(UsageError, match="--allow-remote"):
        address_of(url)
    assert not address_of(url, allow_remote=True).loopback


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/v1", "127.0.0.1:8000", "http:///v1", "http://127.0.0.1:x/v1", "http://127.0.0.1/v1?a=b", "",
     "http://127.0.0.1/v 1", "http://127.0.0.1/\u202e", "http://[::1"],
)  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="http://127.0.0.1:8000/v1"):
        address_of(url, allow_remote=True)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="--api-key-env") as refused:
        address_of(f"http://me:{KEY}@127.0.0.1/v1")
    assert KEY not in str(refused.value)


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    other, elsewhere = answering(reply(200, OK))
    with running(other) as url:
        # Nor is a proxy of the environment, to which texts of a loopback address would go.
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("ALL_PROXY", url)
        found, _ = asked(reply(307, b"", Location=f"{url}/completions"), key=KEY)
    assert isinstance(found, RefusedError) and "307" in str(found)
    assert elsewhere == []


# ---- the key ---------------------------------------------------------------------------------------------------------


def test_a_key_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    assert key_of("MY_KEY") == KEY and key_of(None) is None
    stub = Stub(0)
    with served(stub) as url, Client(address_of(url), NAME, key_of("MY_KEY")) as client:
        client.ask(ASK)
        assert KEY not in repr(client)
    assert stub.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize("value", [None, "", "two words", "line\nbreak", "k\u00e4y", "x" * 5_000])
def test_what_is_no_key_is_not_repeated(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(UsageError, match="MY_KEY") as refused:
        key_of("MY_KEY")
    if value:
        assert value not in str(refused.value)


def test_a_key_typed_for_its_variable_is_not_repeated() -> None:
    with pytest.raises(UsageError, match="name of an environment variable") as refused:
        key_of(KEY)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    "raw", [json.dumps({"error": {"message": f"bad key {KEY}"}}).encode(), f"<html>{KEY}".encode(),
            json.dumps({"error": {"message": f"bad key {KEY}"}}).replace("sk", "\\u0073k").encode(),
            json.dumps([KEY]).encode()]
)  # fmt: skip
def test_a_server_that_repeats_the_key_does_not_bring_it_into_an_error(raw: bytes) -> None:
    found, _ = asked(reply(401, raw), key=KEY)
    assert isinstance(found, RefusedError) and "401" in str(found)
    assert KEY not in str(found) and "[key]" in str(found)


def test_nor_into_an_answer() -> None:
    raw = json.dumps({"choices": [{"text": f"your key is {KEY}"}], "model": KEY}).encode()
    found, _ = asked(reply(200, raw), key=KEY)
    assert found.choices[0].text == "your key is [key]" and found.model == "[key]"


# ---- what is tried again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way", [hang_up, reply(429, b"{}"), reply(503, b""), reply(502, b"<html>"), reply(500, b"out of memory")]
)
def test_where_nothing_was_answered_it_asks_again(way: Callable[[BaseHTTPRequestHandler], None]) -> None:
    found, seen = asked(way, way, reply(200, OK))
    assert found.choices[0].text == " three" and len(seen) == 3


def test_it_gives_up_after_so_many() -> None:
    found, seen = asked(hang_up, retries=2)
    assert "does not answer" in str(found) and len(seen) == 3
    found, seen = asked(reply(503, b'{"error": "full"}'), retries=1, patience=0.0)
    assert isinstance(found, RefusedError) and "503: full" in str(found) and len(seen) == 2
    found, seen = asked(reply(500, b'{"error": {"message": "out of\\u001b[31m memory."}}'), retries=2)
    assert "HTTP 500: out of" in str(found) and len(seen) == 3


@pytest.mark.parametrize("told", [None, "0.3", "date"])
def test_of_a_server_that_takes_so_many_in_a_while_every_request_is_answered(told: str | None) -> None:
    """20 requests in a window, as a provider limits them; what is refused is tried again, and is no call."""
    served_at: list[float] = []
    refused: list[float] = []

    def limited(handler: BaseHTTPRequestHandler) -> None:
        now = time.monotonic()
        if sum(now - at < 0.3 for at in served_at) >= 20:
            refused.append(now)
            date = formatdate(time.time() + 1, usegmt=True)
            reply(429, b"{}", **({} if told is None else {"Retry_After": date if told == "date" else told}))(handler)
        else:
            served_at.append(now)
            reply(200, OK)(handler)

    handler, _ = answering(limited)
    with running(handler) as url, Client(address_of(url), NAME, limits=Limits(max_calls=70, wait=0.02)) as client:
        answers = client.ask_all([ASK] * 70)
    assert len(answers) == len(served_at) == client.calls == 70
    assert 0 < len(refused) < 70


@pytest.mark.parametrize("header", ["soon", "nan", "-3", "1e400"])
def test_a_wait_that_is_none_is_not_kept(header: str) -> None:
    found, seen = asked(reply(429, b"{}", Retry_After=header), reply(200, OK))
    assert found.choices[0].text == " three" and len(seen) == 2


def cut_short(handler: BaseHTTPRequestHandler) -> None:
    reply(200, OK[:20], Content_Length=str(len(OK)))(handler)
    hang_up(handler)


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (cut_short, "broke off within an answer"),
        (reply(200, b"<html>"), "no JSON"),
        (reply(200, b"[" * 100_000), "no JSON"),
        (reply(200, b"null"), "no JSON"),
        (reply(200, b"{}"), "no 'choices'"),
        (reply(200, b'{"choices": []}'), "no 'choices'"),
        (reply(200, b'{"choices": [3]}'), "no object"),
        (reply(200, b'{"choices": [{"text": 3}]}'), "no string"),
        (reply(200, json.dumps({"choices": [{"text": ""}] * 2_000}).encode()), "more than 1,024"),
    ],
)
def test_what_was_answered_is_not_asked_for_again(way: Callable[[BaseHTTPRequestHandler], None], said: str) -> None:
    found, seen = asked(way, reply(200, OK))
    assert isinstance(found, ModelError) and said in str(found), found
    assert len(seen) == 1


def test_nobody_there_is_one_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with Client(address_of(url), NAME, limits=Limits(retries=1, wait=0.001)) as client:
        with pytest.raises(ModelError, match=r"does not answer \(ConnectError\)\.$"):
            client.ask(ASK)
        assert client.calls == 1


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_an_answer_larger_than_any_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST_ANSWER", 1 << 20)
    found, seen = asked(reply(200, b" " * (3 << 20)))
    assert "more than 1 MiB" in str(found) and len(seen) == 1


def test_a_compressed_answer_is_not_unpacked() -> None:
    found, _ = asked(reply(200, b"\x1f\x8b\x08\x00", Content_Encoding="gzip"))
    assert "no JSON" in str(found)


@pytest.mark.parametrize("part", ["status line", "header", "body", "nothing"])
def test_a_server_that_drips_is_left(part: str) -> None:
    """A byte now and then keeps any limit of a single read from ever being reached."""

    def drips(handler: BaseHTTPRequestHandler) -> None:
        if part == "header":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        if part == "body":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        left = threading.Event()
        for _ in range(100):
            try:
                handler.wfile.write(b"" if part == "nothing" else b"H")
            except OSError:
                break
            left.wait(0.02)
        handler.close_connection = True

    started = time.monotonic()
    found, seen = asked(drips, seconds=0.2)
    assert "longer than 0.2 s" in str(found) and len(seen) == 1
    assert time.monotonic() - started < 5.0


def test_no_more_calls_than_allowed_are_made_from_any_number_of_threads() -> None:
    stub = Stub(0)
    with served(stub) as url, Client(address_of(url), NAME, limits=Limits(max_calls=5, concurrency=4)) as client:
        with pytest.raises(BudgetSpentError, match="--max-calls"):
            client.ask_all([ASK] * 9)
    assert stub.calls == client.calls == 5


def test_many_answers_come_in_their_order() -> None:
    with served(Stub(0)) as url, Client(address_of(url), NAME) as client:
        prompts = [f"p{i}" for i in range(12)]
        together = client.ask_all([Request(prompt=p, max_tokens=3, temperature=0.0) for p in prompts])
        single = [client.ask(Request(prompt=p, max_tokens=3, temperature=0.0)) for p in prompts]
    assert together == single and len({answer.choices[0].text for answer in single}) > 6


@pytest.mark.parametrize("wrong", [{"max_calls": 0}, {"concurrency": 0}, {"concurrency": 1_000}, {"seconds": 0.0}])
def test_limits_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        Limits(**wrong)


# ---- the protocol ----------------------------------------------------------------------------------------------------


def test_what_is_not_asked_for_is_not_sent() -> None:
    assert Request(prompt="x", max_tokens=2, temperature=0.0).body("m") == {
        "model": "m", "prompt": "x", "max_tokens": 2, "temperature": 0.0,
    }  # fmt: skip
    turns = (Message("system", "s"), Message("user", "u"))
    assert Request(prompt=turns, max_tokens=2, n=3, seed=4, stop=("a",), top_logprobs=5).body("m") == {
        "model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "max_tokens": 2, "temperature": 1.0, "top_p": 1.0, "n": 3, "seed": 4, "stop": ["a"], "logprobs": True,
        "top_logprobs": 5,
    }  # fmt: skip


def test_log_probabilities_of_both_interfaces_are_read_alike() -> None:
    old = {"tokens": ["a", "b"], "token_logprobs": [None, -1], "top_logprobs": [None, {"c": -2.0, "b": -1}]}
    new = {
        "content": [
            {"token": "a", "logprob": None},
            {
                "token": "b",
                "logprob": -1,
                "top_logprobs": [{"token": "c", "logprob": -2}, {"token": "b", "logprob": -1}],
            },
        ]
    }
    plain = answer_of({"choices": [{"text": "ab", "logprobs": old}]}, "completions")
    chat = answer_of({"choices": [{"message": {"content": "ab"}, "logprobs": new}]}, "chat")
    assert plain == chat
    positions = plain.choices[0].positions
    assert positions is not None and positions[1].top == (("b", -1.0), ("c", -2.0))
    assert positions[0].log_probability is None and plain.choices[0].log_probability is None


@pytest.mark.parametrize(
    "reported",
    [None, [], {}, {"tokens": ["a"]}, {"tokens": ["a"], "token_logprobs": []}, {"content": [{"token": 3}]},
     {"tokens": [], "token_logprobs": []}, {"content": "x"}, {"content": []}],
)  # fmt: skip
def test_log_probabilities_of_no_known_form_are_none(reported: object) -> None:
    answer = answer_of(
        {"choices": [{"text": "ab", "logprobs": reported}], "usage": {"prompt_tokens": True}}, "completions"
    )
    assert answer.choices[0].positions is None and answer.prompt_tokens is None
