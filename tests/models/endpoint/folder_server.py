"""A folder's language model behind a URL: completions and chat of its own numbers, made by transformers alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from tests.models.endpoint.stub import running

NAME = "folder"


class FolderServer:
    """Answers of the model in a folder; nothing of the tool has a part in them."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.drawn = torch.Generator().manual_seed(0)
        self.lock = Lock()

    def answer(self, chat: bool, body: dict[str, Any]) -> dict[str, Any]:
        wanted = int(body.get("top_logprobs" if chat else "logprobs") or 0)
        if chat:
            text = self.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, tokenize=False)
        else:
            text = body["prompt"]
        read = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        first = [] if chat else [self.tokenizer.bos_token_id]
        generator = self.drawn if body.get("seed") is None else torch.Generator().manual_seed(body["seed"])
        ids, made = torch.tensor([[*first, *read.input_ids]]), []
        with self.lock, torch.inference_mode():
            for _ in range(body.get("n", 1)):
                asked = self.network(ids, use_cache=True)
                made.append(self._drawn(asked, body, generator, wanted))
            echoed = self._echoed(asked, text, read, wanted) if body.get("echo") and not chat else []
        choices = []
        for i, (positions, written, finish) in enumerate(made):
            said = {"message": {"role": "assistant", "content": written}} if chat else {"text": written}
            if echoed:
                said = {"text": text + written}
            reported = _reported([*echoed, *positions], chat) if body.get("logprobs") else None
            choices.append({"index": i, "finish_reason": finish, "logprobs": reported, **said})
        return {"model": NAME, "choices": choices, "usage": {"prompt_tokens": len(first) + len(read.input_ids)}}

    def _echoed(self, asked: Any, text: str, read: Any, wanted: int) -> list[tuple[str, float, dict[str, float]]]:
        logs = asked.logits[0].double().log_softmax(-1)
        ends = [0, *(end for _, end in read.offset_mapping)]
        return [
            (text[ends[i] : ends[i + 1]], float(logs[i, token]), self._likeliest(logs[i], wanted))
            for i, token in enumerate(read.input_ids)
        ]

    def _drawn(
        self, asked: Any, body: dict[str, Any], generator: torch.Generator, wanted: int
    ) -> tuple[list[tuple[str, float, dict[str, float]]], str, str]:
        positions: list[tuple[str, float, dict[str, float]]] = []
        out, tokens, stops = asked, [], tuple(body.get("stop") or ())
        while len(tokens) < body["max_tokens"]:
            if tokens:
                out = self.network(torch.tensor([tokens[-1:]]), cache=out.cache, use_cache=True)
            logs = out.logits[0, -1].double().log_softmax(-1)
            if body["temperature"] == 0:
                token = int(logs.argmax())
            else:
                token = int(torch.multinomial((logs / body["temperature"]).softmax(-1), 1, generator=generator))
            stopped = stops and any(stop in self.tokenizer.decode([*tokens, token]) for stop in stops)
            if token == self.tokenizer.eos_token_id or stopped:
                return positions, self.tokenizer.decode(tokens), "stop"
            tokens.append(token)
            if body.get("logprobs"):
                positions.append((self.tokenizer.decode([token]), float(logs[token]), self._likeliest(logs, wanted)))
        return positions, self.tokenizer.decode(tokens), "length"

    def _likeliest(self, logs: torch.Tensor, wanted: int) -> dict[str, float]:
        values, tokens = logs.topk(wanted)
        return {self.tokenizer.decode([i]): v for i, v in zip(tokens.tolist(), values.tolist(), strict=True)}


def _reported(positions: list[tuple[str, float, dict[str, float]]], chat: bool) -> dict[str, Any]:
    if chat:
        return {
            "content": [
                {"token": t, "logprob": v, "top_logprobs": [{"token": a, "logprob": b} for a, b in top.items()]}
                for t, v, top in positions
            ]
        }
    tokens, values, tops = zip(*positions, strict=True) if positions else ((), (), ())
    return {"tokens": list(tokens), "token_logprobs": list(values), "top_logprobs": list(tops)}


@contextmanager
def served_folder(folder: Path) -> Iterator[str]:
    """The folder's model at an address of its own, named ``NAME``, while the block lasts."""
    server = FolderServer(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        # Headers and body are sent at once.
        wbufsize = -1

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = body["model"] == NAME
            content = server.answer("chat" in self.path, body) if known else {"error": {"message": "no such model"}}
            raw = json.dumps(content).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with running(Handler) as url:
        yield url
