"""Questions with options asked of a server, against Inspect (inspect_ai): the same server, prompts and calls at once.

Each run is a fresh process that imports what it needs and then times its calls; the server is another process, takes
``--latency`` seconds for each call, and answers "A". Ours are :func:`probes.language.forced_choice.choices` over the
client of a scan, journal included; the peer's are ``generate`` with the scorer ``match``, its log written to a folder.
Both ask one question first, untimed, for what is loaded late, and are checked to have made one call a question.
ratio = peer seconds / our seconds, median of 3 pairs; ``cpu_ratio`` is that of processor times, for a machine that
other work shares. ``--peer-packages FOLDER`` is where ``pip install --target FOLDER inspect_ai openai`` put the peer,
whose own pins are not ours.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.common import emit

BAR, RUNS, NAME = 1.0, 3, "toy"
_MAX_TOKENS = 24


@dataclass(frozen=True)
class Run:
    """What one process measured, and what the server answered it."""

    seconds: float
    cpu: float
    answered: int


def question(i: int) -> tuple[str, tuple[str, str, str]]:
    return f"Number {i} and number {i + 1} met.\nQuestion: Who forgot the keys?", (f"{i}", f"{i + 1}", "Not known")


def serve(port: int, latency: float) -> None:
    """Answers chats with the letter A, and ``GET`` with the number of chats so far."""
    counted = [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._say({"calls": counted[0]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(latency)
            counted[0] += 1
            message = {"role": "assistant", "content": "A"}
            choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": None}
            usage = {"prompt_tokens": 40, "completion_tokens": 1, "total_tokens": 41}
            self._say({
                "id": f"c{counted[0]}", "object": "chat.completion", "created": 0, "model": NAME, "choices": [choice],
                "usage": usage,
            })  # fmt: skip

        def _say(self, content: dict[str, Any]) -> None:
            raw = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        # As many as ask at once must not be turned away.
        request_queue_size = 128

    Server(("127.0.0.1", port), Handler).serve_forever()


def ours(url: str, n: int, at_once: int, folder: str) -> Run:
    import numpy as np

    from auditor.models.endpoint.client import Limits, address_of
    from auditor.models.endpoint.endpoint_model import endpoint_model
    from auditor.models.endpoint.session import NAME as JOURNAL
    from auditor.models.endpoint.session import Journal, JournaledClient
    from probes.language.forced_choice import Question, choices
    from tests.models.endpoint.reference import shown

    questions = [Question(*question(i)) for i in range(n)]
    limits = Limits(max_calls=2 * n, concurrency=at_once)
    with JournaledClient(address_of(url), NAME, None, limits) as client:
        choices(endpoint_model(shown(), client.outcomes), questions[:1], np.random.default_rng(0))
    begun, busy = time.perf_counter(), time.process_time()
    journal = Journal(Path(folder) / JOURNAL, url, NAME)
    with JournaledClient(address_of(url), NAME, None, limits, journal=journal) as client:
        model = endpoint_model(shown(), client.outcomes).with_chat_options("on", "")
        found = choices(model, questions, np.random.default_rng(0))
    journal.close(finished=True)
    return Run(time.perf_counter() - begun, time.process_time() - busy, sum(c.became == "chosen" for c in found))


def peer(url: str, n: int, at_once: int, folder: str) -> Run:
    import inspect_ai
    from inspect_ai import Task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import match
    from inspect_ai.solver import generate

    samples = []
    for i in range(n):
        text, options = question(i)
        listed = "\n".join(f"{letter}) {option}" for letter, option in zip("ABC", options, strict=True))
        told = f"{text}\n{listed}\nAnswer with the letter of one option, and nothing else."
        samples.append(Sample(input=told, target="A", id=i))
    config = GenerateConfig(temperature=0.0, max_tokens=_MAX_TOKENS, max_connections=at_once)
    model = get_model(f"openai-api/local/{NAME}", base_url=url, api_key="EMPTY", config=config)
    first, task = (
        Task(dataset=MemoryDataset(some), solver=generate(), scorer=match()) for some in (samples[:1], samples)
    )
    inspect_ai.eval(first, model=model, display="none", log_dir=folder)
    begun, busy = time.perf_counter(), time.process_time()
    (log,) = inspect_ai.eval(task, model=model, display="none", log_dir=folder, max_samples=at_once)
    return Run(time.perf_counter() - begun, time.process_time() - busy, len(log.samples or ()))


@contextmanager
def running(latency: float) -> Iterator[str]:
    """The server's process at a free port, while the block lasts."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.endpoint_calls", "--serve", str(port), str(latency)])
    try:
        for _ in range(300):
            try:
                calls(f"http://127.0.0.1:{port}")
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def calls(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(json.load(answer)["calls"])


def run(side: str, n: int, at_once: int, latency: float, packages: str | None) -> Run:
    """Runs one side in a fresh process beside a fresh server."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if side == "peer" and packages:
        environment["PYTHONPATH"] = packages
    with running(latency) as url, tempfile.TemporaryDirectory() as folder:
        asked = ["--side", side, url, str(n), str(at_once), folder]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.endpoint_calls", *asked], capture_output=True, text=True,
            env=environment, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{side} failed: {done.stderr[-2000:]}")
        found = Run(**json.loads(done.stdout.splitlines()[-1]))
        if (found.answered, calls(url)) != (n, n + 1):
            raise SystemExit(f"{side} has {found.answered} answers by {calls(url)} calls of {n}.")
    return found


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--peer-packages")
    parser.add_argument("--serve", nargs=2)
    parser.add_argument("--side", nargs=5)
    options = parser.parse_args()
    if options.serve:
        serve(int(options.serve[0]), float(options.serve[1]))
        return
    if options.side:
        side, url, n, at_once, folder = options.side
        print(json.dumps(vars({"ours": ours, "peer": peer}[side](url, int(n), int(at_once), folder))))
        return
    asked = (options.questions, options.at_once, options.latency, options.peer_packages)
    pairs: Sequence[tuple[Run, Run]] = [(run("peer", *asked), run("ours", *asked)) for _ in range(RUNS)]
    emit(
        "endpoint_calls",
        ours=statistics.median(o.seconds for _, o in pairs),
        peer=statistics.median(p.seconds for p, _ in pairs),
        ratio=statistics.median(p.seconds / o.seconds for p, o in pairs),
        bar=BAR,
        threads=1,
        calls=f"{options.questions}, {options.at_once} at once, of {options.latency} s each",
        cpu_ratio=round(statistics.median(p.cpu / o.cpu for p, o in pairs), 3),
        cpu_seconds=[round(statistics.median(r.cpu for r in side), 2) for side in zip(*pairs, strict=True)],
    )


if __name__ == "__main__":
    main()
