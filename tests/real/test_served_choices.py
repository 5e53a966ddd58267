"""A real model chooses the same, whichever way it is asked: by its folder, by transformers serve, by llama.cpp.

Runs where ``AUDITOR_TEST_MODEL`` names the folder of a small Llama with a chat template, such as SmolLM2-135M-Instruct,
and the packages of a server are installed; ``AUDITOR_TEST_QUESTIONS`` says how many questions are asked, 60 without it,
half of them Winogender's where ``AUDITOR_TEST_DATA`` is given.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from auditor.data.benchmarks.accompanying_files import read_winogender
from auditor.loading.job_specs import ModelSpec
from auditor.loading.language_models import load_language_folder
from auditor.models.capabilities import Generates, writer_of
from auditor.models.endpoint.client import Client, Limits, Outcome, address_of
from auditor.models.endpoint.endpoint_model import endpoint_model
from probes.language.forced_choice import Choice, Question, choices
from probes.language.letter_answers import whom_it_means
from probes.language.winobias_winogender import sentences_of
from tests.models.endpoint.reference import shown

pytestmark = pytest.mark.slow

AGREED = 0.97
_PLACES = ("library", "station", "market", "school", "office", "hospital", "museum", "bakery", "harbour", "gym")
_PEOPLE = (
    "nurse", "pilot", "teacher", "plumber", "lawyer", "cleaner", "doctor", "farmer", "artist", "driver", "grandson",
    "grandfather",
)  # fmt: skip
_DID = ("forgot the keys", "missed the bus", "fixed the printer", "won the prize", "lost the money", "told a joke")


def questions(n: int) -> list[Question]:
    """Of whom something is said, or of nobody: then the third option is right."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        one, other = (str(name) for name in rng.choice(_PEOPLE, 2, replace=False))
        place, did = rng.choice(_PLACES), rng.choice(_DID)
        told = f" The {one} {did}." if i % 2 else ""
        text = f"The {one} and the {other} met at the {place}.{told}\nQuestion: Who {did}?"
        made.append(Question(text, (f"The {one}", f"The {other}", "Not known")))
    return made


def folder() -> Path:
    named = os.environ.get("AUDITOR_TEST_MODEL", "")
    if not (Path(named) / "config.json").is_file() or not named:
        pytest.skip("AUDITOR_TEST_MODEL names no folder of a language model")
    return Path(named)


def chosen(writer: Generates) -> list[Choice]:
    n = int(os.environ.get("AUDITOR_TEST_QUESTIONS", "60"))
    first, *asked = questions(n + 1)
    data = os.environ.get("AUDITOR_TEST_DATA")
    if data:
        pronouns = whom_it_means(sentences_of(read_winogender(Path(data) / "winogender")))
        drawn = np.random.default_rng(3).choice(len(pronouns), len(asked[::2]), replace=False)
        asked[::2] = [pronouns[i] for i in drawn]
    # A small model that was shown how to answer names a letter, and one that was not says anything.
    return choices(writer, asked, np.random.default_rng(1), [(first, 2)])


@cache
def by_folder() -> list[Choice]:
    where = str(folder())
    return chosen(writer_of(load_language_folder(where, ModelSpec(path=where)), "on"))


def by_url(url: str, name: str) -> list[Choice]:
    limits = Limits(concurrency=1, seconds=300.0)
    with Client(address_of(url), name, None, limits) as client:

        def ask(requests: Sequence[object]) -> list[Outcome]:
            return [Outcome(answer) for answer in client.ask_all(requests)]  # type: ignore[arg-type]

        return chosen(endpoint_model(shown(), ask).with_chat_options("on", ""))


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[str]:
    """A server's process, from when it answers to the end of the block."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
    url = f"http://127.0.0.1:{port}/v1"
    try:
        deadline = time.monotonic() + 300
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server does not answer: {log.read_text()[-2000:]}")
            time.sleep(1.0)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def needs(*packages: str) -> None:
    for name in packages:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


def agreement(own: Sequence[Choice], theirs: Sequence[Choice]) -> float:
    """The share of questions that became the same, over all; of replies without a choice the way they have none too."""
    # Who never chooses would agree with everybody.
    n_chosen = sum(choice.became == "chosen" for choice in own)
    same = [(a.became, a.option) == (b.became, b.option) for a, b in zip(own, theirs, strict=True)]
    print(f"{sum(same)} of {len(same)} agree; the folder's model chooses in {n_chosen}", flush=True)
    assert n_chosen >= 0.5 * len(own) and len({choice.option for choice in own}) > 1
    return float(np.mean(same))


_TRANSFORMERS = "from transformers.cli.transformers import main; main()"


def test_the_folder_and_transformers_serve_choose_alike(tmp_path: Path) -> None:
    needs("fastapi", "uvicorn", "openai")
    where, port = folder(), free_port()
    command = [sys.executable, "-c", _TRANSFORMERS, "serve", str(where), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--device", "cpu"]
    with running(command, port, tmp_path / "log") as url:
        assert agreement(by_folder(), by_url(url, str(where))) >= AGREED


_LLAMA_CPP = """
import sys, threading
import xllamacpp
asked = xllamacpp.CommonParams()
asked.model.path, asked.port = sys.argv[1], int(sys.argv[2])
asked.n_ctx, asked.n_parallel, asked.cpuparams.n_threads, asked.warmup = 4096, 1, 1, False
server = xllamacpp.Server(asked)
threading.Event().wait()
"""


def test_the_folder_and_llama_cpp_choose_alike(tmp_path: Path) -> None:
    needs("xllamacpp", "gguf")
    from tests.real.llama_gguf import write_gguf

    where, port = folder(), free_port()
    write_gguf(where, tmp_path / "model.gguf")
    command = [sys.executable, "-c", _LLAMA_CPP, str(tmp_path / "model.gguf"), str(port)]
    with running(command, port, tmp_path / "log") as url:
        assert agreement(by_folder(), by_url(url, "model.gguf")) >= AGREED
