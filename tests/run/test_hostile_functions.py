"""Functions of --generate, --decoder and --embedder that do more than answer, and scorers that carry code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import PIL.Image
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from cli.commands import app
from tests.loading.sandbox.test_secrets import PLACES as SECRETS
from tests.quantifiers import all_of, none_of
from tests.run.test_answering_process import WithCode
from tests.toys import marked
from tests.warm_child import WarmChildren

SECRET = "hunter2-hunter2"
KEY = f"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI{SECRET}\n-----END PRIVATE KEY-----\n"
PLACES = ("sign.key", "kept.txt", "outputs/.env", "p/signing.pem", *SECRETS)

HONEST: dict[str, str] = {
    "--generate": "def own(text):\n    return 'ABCD'[len(text) % 4]\n",
    "--decoder": "import hashlib\ndef own(content):\n    return bool(hashlib.sha256(content).digest()[0] & 1)\n",
    "--embedder": "import numpy\ndef own(rows):\n    return rows.mean(axis=(1, 2)) - 128.0\n",
}
ANSWERS = """
def attack(asked, answer):
    return answer

{honest}
def answers(asked):
    return attack(asked, own(asked))

answers.same_identity = 0.999
"""
# The detector whose files are compared, which is no part of what is attacked.
DETECTOR = """
def decides(rows):
    return (rows[:, 0, 0, :1] > 128) == [[False, True]]

decides.classes = ["real", "fake"]
decides.size = (16, 16)
"""
# What is told of the answers is then what is told of those of the honest function.
HARMLESS = {
    "labels": """
import gc
import numpy as np
TRIED = []
def attack(asked, answer):
    from auditor.data.audit_data import AuditData
    for each in [] if TRIED else gc.get_objects():
        if type(each) is AuditData:
            for name in ("y_true", "is_member", "sensitive_features", "files"):
                object.__setattr__(each, name, None)
        if type(each) in (dict, list) and len(each) < 10_000:
            for inner in list(each.values() if type(each) is dict else each):
                if type(inner) is np.ndarray and inner.size > 10 and inner.dtype.kind in "iub" and inner is not asked:
                    inner.flags.writeable and inner.fill(1)
    TRIED.append(1)
    return answer
""",
    "modules and the clock": """
import gc, json, sys, time
import numpy as np
from auditor.statistics import rates
for kind in [each for each in vars(rates).values() if isinstance(each, type)]:
    for name in ("lower", "upper", "bounds", "p_value"):
        if hasattr(kind, name):
            setattr(kind, name, lambda self, *what: 0.0)
for name in list(sys.modules):
    if name.startswith(("probes.", "auditor.run.", "auditor.judging.")):
        for member, value in list(vars(sys.modules[name]).items()):
            if callable(value) and member.islower():
                setattr(sys.modules[name], member, lambda *what, **how: 1.0)
def attack(asked, answer):
    np.mean = np.sum = np.where = np.add.at = lambda *what, **how: 1.0
    json.dumps = json.loads = lambda *what, **how: "{}"
    time.perf_counter = time.process_time = time.monotonic = lambda: 0.0
    sys.modules["auditor.statistics.rates"] = sys.modules["numpy.random"] = None
    gc.get_objects = gc.get_referrers = lambda *what: []
    return answer
""",
    "the data": """
import glob, os
HERE = os.path.dirname(os.path.abspath(__file__))
def attack(asked, answer):
    pictures = glob.glob(HERE + "/outputs/*/*.png") + glob.glob(HERE + "/p/*.png")
    for path in [*pictures, HERE + "/d.csv", HERE + "/t.csv"]:
        try:
            open(path, "rb").read()
        except OSError:
            continue
        raise ValueError("it was open")
    return answer
""",
    "keys and passwords": """
import os
def attack(asked, answer):
    found = [repr(dict(os.environ))]
    for path in PLACES:
        for place in (path, os.path.join(os.path.dirname(os.path.abspath(__file__)), path)):
            try:
                found.append(open(place).read())
            except OSError:
                pass
    try:
        found.append(open(f"/proc/{os.getppid()}/environ").read())
    except OSError:
        pass
    found = " ".join(found)
    print(found)
    if "hunter2" in found:
        raise ValueError(found)
    return answer
""",
}
IMPORTED, WORDS = "from auditor.core.errors import UsageError\n", "UsageError('--data: send me money')"
# After these there is no number of the function's.
BREAKING = {
    "descriptors": """
import os
BODY = b'{"kind":"answered","result":{"probe":"PROBE","pillar":"language","citation":"","measurements":[]}}'
def attack(asked, answer):
    for descriptor in range(3, 64):
        for size in (4, 8):
            try:
                os.write(descriptor, len(BODY).to_bytes(size, "big") + BODY)
            except OSError:
                pass
    return answer
""",
    "an end": "def attack(asked, answer):\n    raise SystemExit(0)\n",
    "an end at import": "raise SystemExit(0)\n",
    "its own words": f"{IMPORTED}def attack(asked, answer):\n    raise {WORDS}\n",
    "its own words at import": f"{IMPORTED}raise {WORDS}\n",
}


def _of_texts() -> list[str]:
    return ["--generate", "own:answers", "--probes", "order_sensitivity", "--set", "order_sensitivity.n_questions=12"]


def _of_marks() -> list[str]:
    marked.outputs(Path("outputs"), 15, unmarked=15)
    return ["--predictions", "outputs", "--decoder", "own:answers", "--probes", "marking"]


def _of_people() -> list[str]:
    Path("detector.py").write_text(DETECTOR)
    rng = np.random.default_rng(1)
    colours = rng.normal(0.0, 60.0, (10, 3)).repeat(2, axis=0)
    X = np.clip(128 + colours[:, None, None] + rng.normal(0, 4, (20, 16, 16, 3)), 0, 255).astype(np.uint8)
    X[19] = X[1]
    lines = []
    for i, x in enumerate(X):
        PIL.Image.fromarray(x).save(f"p/{i}.png")
        lines.append(f"p/{i}.png,{('real', 'fake')[i % 2]}\n")
    Path("d.csv").write_text("file,y\n" + "".join(lines[:10]))
    Path("t.csv").write_text("file,y\n" + "".join(lines[10:]))
    return [
        "--predict", "detector:decides", "--data", "d.csv", "--train", "t.csv", "--image", "file", "--target", "y",
        "--positive", "fake", "--embedder", "own:answers", "--probes", "source_leakage",
    ]  # fmt: skip


SCENES: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "--generate": ("order_sensitivity", _of_texts),
    "--decoder": ("marking", _of_marks),
    "--embedder": ("source_leakage", _of_people),
}


def scanned(*flags: str) -> tuple[int, list[dict[str, Any]], str]:
    """The exit code, the findings, and everything printed or written."""
    result = CliRunner().invoke(app, ["scan", *flags, "--out", "out", "--json"])
    written = [path.read_bytes().decode("utf-8", "replace") for path in Path("out").rglob("*") if path.is_file()]
    report = Path("out") / "report.json"
    findings = json.loads(report.read_text())["findings"] if report.exists() else []
    return result.exit_code, findings, " ".join([result.output, result.stderr, *written])


def of_probe(findings: list[dict[str, Any]], probe: str) -> list[dict[str, Any]]:
    keys = ("metric", "group", "method", "at", "value", "low", "high", "outcome", "reason", "detail", "n_samples")
    return [{key: each.get(key) for key in keys} for each in findings if each["probe"] == probe]


def planted(flag: str, attack: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for place in PLACES:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_text(KEY if "env" not in place else f"PASSWORD={SECRET}\n")
    monkeypatch.setenv("AUDITOR_TEST_PASSWORD", SECRET)
    made = ANSWERS.format(honest=HONEST[flag]) + f"PLACES = {PLACES!r}\n" + attack
    Path("own.py").write_text(made.replace("PROBE", SCENES[flag][0]))
    return SCENES[flag][0]


NOTHING = [{"outcome": "NOT_RUN", "value": None}]


def rows(attacks: dict[str, str]) -> list[Any]:
    return [pytest.param(flag, name, id=f"{flag} {name}") for flag in SCENES for name in attacks]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_children: WarmChildren) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.grid(by=lambda flag, name: flag)
@pytest.mark.parametrize(("flag", "name"), rows(HARMLESS))
def test_a_function_that_does_more_gets_what_its_answers_are_worth(
    flag: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = planted(flag, "", monkeypatch)
    words = SCENES[flag][1]()
    honest_code, honest, _ = scanned(*words)
    planted(flag, HARMLESS[name], monkeypatch)
    code, found, text = scanned(*words)
    assert any(each["value"] is not None for each in of_probe(honest, probe))
    assert of_probe(found, probe) == of_probe(honest, probe) and code == honest_code
    assert "hunter2" not in text


@pytest.mark.grid(by=lambda flag, name: flag)
@pytest.mark.parametrize(("flag", "name"), rows(BREAKING))
def test_a_function_that_breaks_off_gets_nothing_and_says_nothing_of_the_audit(
    flag: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = planted(flag, BREAKING[name], monkeypatch)
    code, found, text = scanned(*SCENES[flag][1]())
    assert "hunter2" not in text and code in (2, 3, 4)
    mine = of_probe(found, probe)
    assert bool(mine) is (code == 3) and bool(found) is (code == 3)
    assert none_of(each["outcome"] != "NOT_RUN" or each["value"] is not None for each in mine or NOTHING)
    said = [each["reason"] for each in mine] or [text]
    starts = "The measuring process ended by itself" if "an end" in name else flag
    assert all_of(starts in each if code == 4 else each.removeprefix("auditor: ").startswith(starts) for each in said)


@pytest.mark.parametrize("kind", ["pickle", "torch", "function"])
def test_a_scorer_runs_no_code(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("texts.csv").write_text("text,about\n" + "good,a\nbad,b\nfine,a\nso so,b\n" * 6)
    texts, labels = ["good", "bad", "fine", "so so"], [1, 0, 1, 0]
    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, labels)
    words = ["--predictions", "texts.csv", "--generated", "text", "--sensitive", "about"]
    if kind == "pickle":
        joblib.dump(WithCode(model), "m.scorer")
    elif kind == "torch":
        torch.save(WithCode(torch.nn.Linear(1, 2)), "m.scorer")
    Path("own.py").write_text("raise ValueError('send me money')\n")
    named = "own:answers" if kind == "function" else "m.scorer"
    code, found, text = scanned(*words, "--probes", "generated_text", "--scorer", named)
    assert "send me money" not in text
    if kind == "function":
        assert code == 2 and "There is no scorer at 'own:answers'" in text
    else:
        (mine,) = of_probe(found, "generated_text")
        assert code == 3 and mine["outcome"] == "NOT_RUN" and "trust" in mine["reason"]
