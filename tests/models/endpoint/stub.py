"""A small OpenAI-compatible server in a thread: a toy model whose every distribution is known, and its lies.

The toy draws each token from one of many tables of probabilities, picked by a digest of the whole context; a token is a
word. It reports log-probabilities of the model itself unless ``scaled``, as servers do either way.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

LIES = (
    "drops_n", "drops_logprobs", "drops_echo", "clips_temperature", "top_k_40", "ignores_seed", "caches", "truncates",
    "swaps_model", "other_name", "adds_system_prompt", "filters", "echoes_positive", "echoes_constant", "echoes_noise",
    "echoes_another",
)  # fmt: skip
NAME = "toy"
VOCABULARY = 256
TABLES = 509
READS = 512
_FLAGGED = {"bomb", "kill", "sex", "drugs", "murder", "poison"}
_HIDDEN = " ".join(f"rule{i}" for i in range(40))


class Toy:
    """A model of 256 words: the probabilities of the next one fall like ``rank ** -1.2`` in an order of each table."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.salt = seed
        self.words = [f" w{i}" for i in range(VOCABULARY)]
        ranks = -1.2 * np.log(np.arange(1, VOCABULARY + 1))
        self.orders = np.argsort(rng.random((TABLES, VOCABULARY)), axis=1)
        noise = rng.normal(0.0, 0.15, (TABLES, VOCABULARY))
        scores = -np.sort(-(ranks + noise), axis=1)
        self.logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        self.cumulated: dict[tuple[float, int | None, int], tuple[np.ndarray, np.ndarray]] = {}

    def start(self, words: list[str]) -> int:
        state = self.salt
        for word in words:
            state = self.step(state, self.token(word))
        return state

    @staticmethod
    def token(word: str) -> int:
        """The number of a word, beyond the vocabulary for one that the toy never writes."""
        known = word[:1] == "w" and word[1:].isdigit() and int(word[1:]) < VOCABULARY
        return int(word[1:]) if known else VOCABULARY + zlib.crc32(word.encode()) % 60_000

    @staticmethod
    def step(state: int, token: int) -> int:
        return zlib.crc32(token.to_bytes(2, "big"), state)

    def drawn_from(self, table: int, temperature: float, top_k: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities by rank as drawn from, and the probabilities added up."""
        key = (temperature, top_k, table)
        if key not in self.cumulated:
            scaled = self.logs[table] / max(temperature, 1e-6)
            if top_k is not None:
                scaled = np.where(np.arange(VOCABULARY) < top_k, scaled, -np.inf)
            chances = np.exp(scaled - scaled.max())
            logs = scaled - scaled.max() - np.log(chances.sum())
            self.cumulated[key] = (logs, (chances / chances.sum()).cumsum())
        return self.cumulated[key]


@dataclass
class Drawn:
    """A drawn text with what is reported of its tokens: names, log-probabilities, alternatives."""

    tokens: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    tops: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Stub:
    """What the server does; ``refuses`` names parameters that it answers with HTTP 400."""

    seed: int
    lies: frozenset[str] = frozenset()
    refuses: frozenset[str] = frozenset()
    routes: frozenset[str] = frozenset({"completions", "chat"})
    scaled: bool = False
    alternatives: int = 20
    clip: tuple[float, float] = (0.7, 1.0)
    # It cuts the tail unless a request says otherwise, as llama.cpp does.
    cuts_by_default: bool = False
    calls: int = 0
    keys: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.seed, 1])
        self.toy, self.other = Toy(self.seed), Toy(self.seed + 10_000)
        self.cache: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()

    def answer(self, route: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.calls += 1
            if route not in self.routes:
                return 404, {"error": {"message": "no such route"}}
            named = next((name for name in sorted(self.refuses) if body.get(name) is not None), None)
            if named == "max_tokens":
                return 400, {"error": {"message": "Unsupported parameter: use 'max_completion_tokens' instead."}}
            body = {"max_tokens": body.get("max_completion_tokens"), "temperature": 1.0} | body
            if max(int(body.get(name) or 0) for name in ("logprobs", "top_logprobs")) > self.alternatives:
                named = "so many alternatives"
            if named is not None or (body["model"] != NAME and "other_name" not in self.lies):
                return 400, {"error": {"message": f"{named or 'this model'} is not supported"}}
            written = json.dumps(body, sort_keys=True)
            if "caches" in self.lies and written in self.cache:
                return 200, self.cache[written]
            self.cache[written] = self._made(route, body)
            return 200, self.cache[written]

    def _made(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        chat = route == "chat"
        words = _chat_words(body["messages"]) if chat else body["prompt"].split()
        if chat and "adds_system_prompt" in self.lies:
            words = [*_HIDDEN.split(), *words]
        if "truncates" in self.lies:
            words = words[-READS:]
        swapped = "swaps_model" in self.lies and self.calls > 100
        toy = self.other if swapped else self.toy
        rng = (
            self.rng if body.get("seed") is None or "ignores_seed" in self.lies else np.random.default_rng(body["seed"])
        )
        n = 1 if "drops_n" in self.lies else body.get("n", 1)
        choices = [self._choice(toy, chat, words, body, rng) for _ in range(n)]
        return {
            "model": "toy-small" if "other_name" in self.lies else NAME,
            "choices": choices,
            "usage": {"prompt_tokens": len(words)},
        }

    def _choice(
        self, toy: Toy, chat: bool, words: list[str], body: dict[str, Any], rng: np.random.Generator
    ) -> dict[str, Any]:
        wanted = body.get("top_logprobs", 0) if chat else body.get("logprobs")
        asked = bool(body.get("logprobs")) and "drops_logprobs" not in self.lies
        drawn, finish = self._drawn(toy, words, body, rng, wanted or 0)
        text = "".join(drawn.tokens)
        if not chat and body.get("echo") and "drops_echo" not in self.lies:
            told = self._echoed(toy, words, wanted or 0)
            drawn = Drawn(told.tokens + drawn.tokens, told.values + drawn.values, told.tops + drawn.tops)
            text = body["prompt"] + text
        if "filters" in self.lies and _FLAGGED & set(words):
            text, asked, finish = " I am sorry, but I cannot help with that request.", False, "stop"
        reported = None
        if asked and chat:
            reported = {
                "content": [
                    {"token": t, "logprob": v, "top_logprobs": [{"token": a, "logprob": b} for a, b in top.items()]}
                    for t, v, top in zip(drawn.tokens, drawn.values, drawn.tops, strict=True)
                ]
            }
        elif asked:
            reported = {"tokens": drawn.tokens, "token_logprobs": drawn.values, "top_logprobs": drawn.tops}
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {"index": 0, "finish_reason": finish, "logprobs": reported, **said}

    def _drawn(
        self, toy: Toy, words: list[str], body: dict[str, Any], rng: np.random.Generator, wanted: int
    ) -> tuple[Drawn, str]:
        temperature = body["temperature"]
        if "clips_temperature" in self.lies:
            temperature = min(max(temperature, self.clip[0]), self.clip[1]) if temperature else 0.0
        cut = "top_k_40" in self.lies or (self.cuts_by_default and body.get("top_k", 40) > 0)
        top_k = 40 if cut else None
        state, drawn, text = toy.start(words), Drawn(), ""
        for u in rng.random(body["max_tokens"]):
            table = state % TABLES
            logs, cumulated = toy.drawn_from(table, temperature, top_k)
            rank = 0 if temperature == 0 else min(int(cumulated.searchsorted(u)), VOCABULARY - 1)
            token = int(toy.orders[table, rank])
            word = toy.words[token]
            if any(stop in text + word for stop in body.get("stop", ())):
                break
            text += word
            report = logs if self.scaled and temperature else toy.logs[table]
            if "all_constant" in self.lies:
                report, wanted = np.full(VOCABULARY, -1.0), min(wanted, 1)
            drawn.tokens.append(word)
            drawn.values.append(float(report[rank]))
            likeliest = zip(toy.orders[table, :wanted].tolist(), report[:wanted].tolist(), strict=True)
            drawn.tops.append({toy.words[i]: value for i, value in likeliest})
            state = toy.step(state, token)
        return drawn, "length" if len(drawn.tokens) == body["max_tokens"] else "stop"

    def _echoed(self, toy: Toy, words: list[str], wanted: int) -> Drawn:
        """A prompt's words as the toy reads them; one that it never writes is as likely as one of its own."""
        if "echoes_another" in self.lies:
            toy = self.other
        state, told = toy.salt, Drawn()
        for word in words:
            table, token = state % TABLES, toy.token(word)
            rank = int(np.flatnonzero(toy.orders[table] == token % VOCABULARY)[0])
            told.tokens.append(f" {word}")
            told.values.append(float(toy.logs[table, rank]))
            likeliest = zip(toy.orders[table, :wanted].tolist(), toy.logs[table, :wanted].tolist(), strict=True)
            told.tops.append({toy.words[i]: value for i, value in likeliest})
            state = toy.step(state, token)
        false = {"echoes_positive": lambda: 2.0, "echoes_constant": lambda: -1.0, "all_constant": lambda: -1.0}
        false["echoes_noise"] = lambda: -float(self.rng.exponential(3.0))
        for lie in sorted(self.lies & false.keys()):
            told.values = [false[lie]() for _ in words]
            told.tops = [{name: value} for name, value in zip(told.tokens, told.values, strict=True)]
        told.values[0] = None  # type: ignore[call-overload]
        return told


def _chat_words(messages: list[dict[str, str]]) -> list[str]:
    return [word for turn in messages for word in (f"<{turn['role']}>", *turn["content"].split(), "<end>")]


@contextmanager
def served(stub: Stub) -> Iterator[str]:
    """The stub at an address of its own, while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            stub.keys.append(self.headers["Authorization"])
            route = "chat" if self.path == "/v1/chat/completions" else "completions"
            status, content = stub.answer(route, body)
            raw = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with running(Handler) as url:
        yield url


@contextmanager
def running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server of any behaviour on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
