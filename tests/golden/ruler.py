"""Golden outputs of the tool: reports of every probe on its toy models, verified bundles, help texts.

A change that must not change behaviour leaves every item equal, byte for byte. ``test_ruler.py`` compares all items
with ``digests.txt``, which has a digest of each; ``texts/`` has the full text of those whose changes are worth reading
in a review. By hand, from the root of the repository:

    python -m tests.golden.ruler --write before        # every item as a file, before a change; and again after it
    python -m tests.golden.ruler --compare before after
    python -m tests.golden.ruler --store               # store the items of now, where the change was intended

``--only`` names the groups of items to compute, such as ``'reports/group_*'`` or ``help``; all take about 50 seconds of
processor time. Floating point gives other last digits on other processors, so the numbers of a record are rounded to
six digits before it is rendered. Times, versions, paths, digests and the environment are replaced by fixed words.
"""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import hashlib
import json
import math
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from typer.main import get_command
from typer.testing import CliRunner

from auditor.data.preprocessing import CategoricalColumn, NumericColumn, TabularPreprocessing
from auditor.evidence.comparison_evidence import write_evidence
from auditor.loading.sandbox import measuring_process
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.report_formats import FILE_NAMES, render
from auditor.report.report_view import document_id
from auditor.run import __version__
from auditor.run.run_audit import run_audit
from cli.commands import app
from cli.help_pages import leaf_commands
from probes import PROBES
from tests.golden.make import CONFIG
from tests.toys.benchmark_files import FILE_TOYS
from tests.toys.models import TOYS
from tests.warm_child import WarmChildren

HERE = Path(__file__).parent
DIGESTS, TEXTS = HERE / "digests.txt", HERE / "texts"
# Items whose full text is stored.
FULL_TEXTS = ("help/*", "bundles/*/verify.txt", "bundles/*/output.txt")
FORMATS = ("markdown", "html", "csv", "sarif", "junit")
# Items that differ between processors even after rounding, and why: --write has them, and nothing of them is stored.
UNSTABLE = {
    "reports/lm_membership/violating.*": "its scores of 32 bits nearly tie, and are ranked by their last digits",
    "reports/attribute_inference/ideal.*": "its scores of 32 bits nearly tie, and are ranked by their last digits",
    "reports/membership_inference/ideal.*": "shadow models are trained",
    "reports/stereotype/ideal.json": "log-odds of 32 bits: MKL's AVX2 and AVX-512 differ in the sixth digit of one",
    "reports/stereotype/ideal.csv": "its values are those of ideal.json",
    "reports/model_inversion/*": "pixels are searched for in 32 bits, and its pictures are packed by the zlib there is",
    "bundles/detection/record.json": "its detector is trained",
}

Items = dict[str, str]


# ---- normalization: the same text on every machine -------------------------------------------------------------------

_NOTHING = 1e-12
_LONG_NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d{6,}(?:e[-+]?\d+)?(?![\w.])")
_VERSION = re.compile(rf"(?<![\w.]){re.escape(__version__)}(?![\w.])")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?|\d{1,2} [A-Z][a-z]+ \d{4}, \d\d:\d\d UTC")
# One digest in some thousand has no letter among the 16 digits that are shown; no other whole number is so long.
_DIGEST = re.compile(r"(?<![\w.])(?:(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{8,}|\d{16,})(?!\w)")
# What the machine has counters for.
_ENERGY = re.compile(r"^took .*$", re.MULTILINE)
# Of what a page may draw and run, in which the record's digest is.
_OF_STYLE = re.compile(r"(?<=&#39;)sha256-[\w+/]+=*")
_DURATION = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?= s\b)")


def round_number(number: float) -> float:
    """Round to six significant digits; what is below ``_NOTHING`` in size becomes 0."""
    if not math.isfinite(number) or number == 0.0:
        return number
    return 0.0 if abs(number) < _NOTHING else float(f"{number:.6g}")


def normalize_text(text: str, folder: str = "") -> str:
    """Replace what differs from run to run: times, digests, durations, versions, the working folder."""
    if folder:
        text = text.replace(os.path.realpath(folder), "FOLDER").replace(folder, "FOLDER")
    text = _TIME.sub("TIME", text).replace(datetime.now(UTC).date().isoformat(), "TODAY")
    text = _VERSION.sub("VERSION", text)
    text = _LONG_NUMBER.sub(lambda found: f"{round_number(float(found[0])):.6g}", text)
    return _DURATION.sub("N", _DIGEST.sub("DIGEST", _ENERGY.sub("took ENERGY", text)))


def normalize(value: Any, word: Callable[[str], str] = str) -> Any:
    """Round the numbers of a JSON value, and apply ``word`` to its texts and keys."""
    match value:
        case float():
            return round_number(value)
        case str():
            return word(value)
        case list():
            return [normalize(each, word) for each in value]
        case dict():
            return {word(key): normalize(each, word) for key, each in value.items()}
    return value


def normalize_record(record: Mapping[str, Any], word: Callable[[str], str] = str) -> Any:
    """Fix what differs between two audits of the same model and rows, and round the numbers."""
    fixed = dict(record)
    if "created" in fixed:
        fixed["created"] = "2026-01-31T00:00:00+00:00"
    if "duration_s" in fixed:
        fixed["duration_s"] = 1.0
    if "tool" in fixed:
        fixed["tool"] = {**fixed["tool"], "version": "0"}
    if fixed.get("model"):
        fixed["model"] = {name: value for name, value in fixed["model"].items() if name != "size_bytes"}
    if fixed.get("environment"):
        fixed["environment"] = {**fixed["environment"], "python": "3", "platform": "Linux", "packages": {"numpy": "2"}}
        for name in ("limits", "sandbox", "command"):
            if fixed["environment"].get(name):
                fixed["environment"].pop(name)
    if fixed.get("energy"):
        fixed["energy"] = {"of": fixed["energy"]["of"], "cpu_s": 1.0, "gpu_s": 0.0}
    return normalize(fixed, word)


# ---- reports of every probe ------------------------------------------------------------------------------------------


def report_items(key: str) -> Items:
    """Audit a probe's ideal and violating toy model by a fixed seed, and render both records in every text format."""
    items = {}
    with tempfile.TemporaryDirectory() as scratch:
        # Details name the last part of a path.
        folder = Path(scratch) / "toys"
        folder.mkdir()
        toys = FILE_TOYS[key](folder) if key in FILE_TOYS else TOYS[key]
        for name, model, data in (
            ("ideal", toys.ideal, toys.data),
            ("violating", toys.violating, toys.violating_data or toys.data),
        ):
            options = toys.options | ({} if toys.scorer is None else {"scorer": toys.scorer()})
            report = run_audit(model(), data(), [PROBES[key](**options)], toys.criteria, seed=0)
            record = json.loads(report.to_json())
            content = normalize_record(record, lambda text: text.replace(scratch, "FOLDER"))
            items[f"reports/{key}/{name}.json"] = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            for rough, exact in zip(content["findings"], record["findings"], strict=True):
                # Some kinds of estimates are none once their statistics are rounded.
                rough["estimate"] = exact["estimate"]
            fixed = AuditReport.from_json(json.dumps(content))
            mark = document_id(fixed)
            for format_ in FORMATS:
                text = render(fixed, format_).decode().replace(mark, "DIGEST").replace(mark[:16], "DIGEST")
                text = _OF_STYLE.sub("sha256-DIGEST", text)
                items[f"reports/{key}/{name}.{FILE_NAMES[format_].removeprefix('report.')}"] = text
    return items


# ---- bundles that are verified ---------------------------------------------------------------------------------------

N_ROWS = 240
GUESSES = """\
import numpy as np
from auditor.privacy.dp_audit_scores import CanaryScores


def perfect(audit):
    coins = audit.coins()
    audit.submit(CanaryScores(included=coins, scores=coins.astype(float)))
"""


def _table(seed: int) -> str:
    """A table in which women are approved less often than their income and debt say."""
    draw = random.Random(seed)
    lines = ["income,debt,sex,approved"]
    for _ in range(N_ROWS):
        sex = draw.choice("fm")
        income, debt = draw.gauss(0, 1), draw.gauss(0, 1)
        chance = 1 / (1 + math.exp(debt - 2 * income - (0.5 if sex == "m" else -0.5)))
        lines.append(f"{income:.3f},{debt:.3f},{sex},{'yes' if draw.random() < chance else 'no'}")
    return "\n".join(lines) + "\n"


def _model(men: float) -> TorchModel:
    """A model with weights set by hand: log-odds of 2 income - debt, plus ``men`` for men and minus it for women."""
    columns = (
        NumericColumn(name="income"),
        NumericColumn(name="debt"),
        CategoricalColumn(name="sex", levels=("f", "m")),
    )
    preprocessing = TabularPreprocessing(columns=columns)
    arguments = {"n_features": preprocessing.width, "hidden": [], "n_outputs": 1}
    network = MLP(**arguments)
    (layer,) = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    weights = torch.zeros(1, preprocessing.width)
    weights[0, :4] = torch.tensor([2.0, -1.0, -men, men])
    with torch.no_grad():
        layer.weight.copy_(weights)
        layer.bias.zero_()
    return TorchModel(
        network,
        classes=("no", "yes"),
        preprocessing=preprocessing,
        outputs="logits",
        architecture={"name": "mlp", "args": arguments},
    )


def _detector_and_files(folder: Path) -> list[str]:
    """Write a detector and files for it: real, fake, of another medium, unreadable; returns the names of the files."""
    import numpy as np

    from tests.toys.media_files import as_file, as_wav, fake_picture, image_detector, real_picture, write

    rng = np.random.default_rng(5)
    files = {
        "real.bmp": as_file(real_picture(rng), "BMP"),
        "fake.bmp": as_file(fake_picture(rng), "BMP"),
        "silent.wav": as_wav(np.zeros(16_000, np.int16)),
        "text.jpg": b"this is no picture\n",
        "empty.jpg": b"",
    }
    write(folder, files)
    save(image_detector(), folder / "detector.pt")
    return list(files)


def _commands(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Pairs of a bundle's name and the command that writes it; later commands read what earlier ones wrote."""
    rows = ("--target", "approved", "--positive", "yes", "--sensitive", "sex", "--device", "cpu")
    signed, both = ("--sign", "auditor.key"), ("--data", "test.csv", *rows)
    measured = ("--probes", "performance,group_fairness,adverse_impact,score_fairness,robustness,ale")
    yield "scan", (
        "scan", "model.pt", *both, *measured, "--policy", "nyc-ll144", "--as-of", "2026-01-31", "--out", "scan",
        "--bundle", "scan.zip", *signed,
    )  # fmt: skip
    yield "scan-with-rows", (
        "scan", "--config", "rules.toml", "--device", "cpu", "--registration", "registration.json", "--out", "rows",
        "--bundle", "scan-with-rows.zip", "--include-rows", *signed,
    )  # fmt: skip
    yield "unsigned", (
        "scan", "other.pt", *both, "--reference", "model.pt", "--probes", "group_fairness,change", "--out", "other",
        "--bundle", "unsigned.zip",
    )  # fmt: skip
    yield "comparison", (
        "compare", "scan.zip", "unsigned.zip", "--out", "compared", "--bundle", "comparison.zip", *signed,
    )  # fmt: skip
    repair = ("reject_option", "model.pt", "--train", "train.csv", *both, "--probes", "group_fairness,adverse_impact")
    yield "mitigation", (
        "mitigate", *repair, "--with", "width=0.2", "--out", "mitigated.pt", "--report", "mitigated",
        "--bundle", "mitigation.zip", *signed,
    )  # fmt: skip
    yield "tradeoff", (
        "tradeoff", *repair, "--sweep", "width=0.1,0.3", "--out", "swept", "--bundle", "tradeoff.zip", *signed,
    )  # fmt: skip
    yield "detection", (
        "detect", *_detector_and_files(folder), "--detector", "detector.pt", "--device", "cpu",
        "--bundle", "detection.zip", *signed,
    )  # fmt: skip
    yield "dp-audit", (
        "dp", "audit", "ruler_guesses:perfect", "--claimed-epsilon", "1", "--delta", "1e-5", "--canaries", "200",
        "--phase", "0.5,0.1,20", "--bundle", "dp-audit.zip", *signed,
    )  # fmt: skip


KINDS = (
    "scan", "scan-with-rows", "unsigned", "comparison", "mitigation", "tradeoff", "detection", "dp-audit", "training",
)  # fmt: skip

# Of two audits or more; those of one are rendered above.
PAGES = tuple(f"{name}.{suffix}" for name in ("compared/comparison", "swept/tradeoff") for suffix in ("md", "html"))


def _run(folder: Path, *arguments: str) -> tuple[str, str]:
    """Run a command; returns what it printed, and the same normalized, after its exit code."""
    with patch.object(sys, "argv", ["auditor", *arguments]):
        done = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(app, list(arguments))
    if done.exit_code not in (0, 1, 3):
        raise RuntimeError(f"auditor {' '.join(arguments)}: exit code {done.exit_code}\n{done.output}")
    return done.stdout, normalize_text(f"exit code {done.exit_code}\n{done.stdout}", str(folder))


def bundle_items(children: WarmChildren) -> Items:
    """Run every command that writes evidence: its output, its record, and what ``auditor evidence verify`` finds."""
    items: Items = {}
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as name, patch.object(measuring_process, "start_child", children.start):
        folder = Path(name)
        os.chdir(folder)
        sys.path.insert(0, name)
        try:
            _prepare(folder)
            for kind, command in _commands(folder):
                items[f"bundles/{kind}/output.txt"] = _run(folder, *command)[1]
            for page in PAGES:
                text = _OF_STYLE.sub("sha256-DIGEST", read(folder / page))
                items[f"bundles/{page}"] = normalize_text(text, name)
            write_evidence(_training(), "training.zip", sign=folder / "auditor.key")
            for kind in KINDS:
                items |= _verified(folder, kind)
        finally:
            os.chdir(before)
            sys.path.remove(name)
            sys.modules.pop("ruler_guesses", None)
    return items


def _training() -> Any:
    from tests.evidence.verify.test_trained import trained

    return trained()


def _prepare(folder: Path) -> None:
    for name, seed in (("train.csv", 1), ("test.csv", 2)):
        (folder / name).write_text(_table(seed))
    save(_model(0.6), folder / "model.pt")
    save(_model(0.1), folder / "other.pt")
    (folder / "rules.toml").write_text(CONFIG)
    (folder / "ruler_guesses.py").write_text(GUESSES)
    _run(folder, "evidence", "keygen", "auditor.key")
    _run(folder, "evidence", "register", "rules.toml", "--by", "Ann Example", "--sign", "auditor.key")


def _verified(folder: Path, kind: str) -> Items:
    from auditor.evidence.container import unpack
    from auditor.evidence.manifest import RECORD

    def word(text: str) -> str:
        return normalize_text(text, str(folder))

    archive = f"{kind}.zip"
    parts = unpack(Path(archive).read_bytes(), archive)
    record = normalize_record(json.loads(parts[RECORD]), word)
    found, _ = _run(folder, "evidence", "verify", archive, "--key", "auditor.key.pub", "--json")
    _, printed = _run(folder, "evidence", "verify", archive, "--key", "auditor.key.pub", "--all")
    place = f"bundles/{kind}"
    return {
        f"{place}/parts.txt": "".join(f"{name}\n" for name in sorted(parts)),
        f"{place}/record.json": json.dumps(record, indent=2, ensure_ascii=False) + "\n",
        f"{place}/verify.json": json.dumps(normalize(json.loads(found), word), indent=2, ensure_ascii=False) + "\n",
        f"{place}/verify.txt": printed,
    }


# ---- help texts ------------------------------------------------------------------------------------------------------


def help_items() -> Items:
    """The output of ``--help`` of the tool and of each command, and the lists of probes and mitigations."""
    here = Path.cwd()
    items = {"help/auditor.txt": _run(here, "--help")[1]}
    for name, _ in leaf_commands(get_command(app)):
        items[f"help/{name.replace(' ', '-')}.txt"] = _run(here, *name.split(), "--help-all")[1]
    for name, words in (("probes", ("probes",)), ("mitigations", ("mitigate", "list"))):
        items[f"lists/{name}.txt"] = _run(here, *words)[1]
        items[f"lists/{name}.json"] = _run(here, *words, "--json")[1]
    return items


# ---- storing, writing and comparing ----------------------------------------------------------------------------------

GROUPS = (*(f"reports/{key}" for key in PROBES), "bundles", "help")


def items_of(group: str, children: WarmChildren) -> Items:
    """The items of a group by their names."""
    if group == "bundles":
        return bundle_items(children)
    return help_items() if group == "help" else report_items(group.removeprefix("reports/"))


def stable_items(items: Mapping[str, str]) -> Items:
    """The items that are the same on every machine."""
    return {name: text for name, text in items.items() if not _matches(name, UNSTABLE)}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def digest(text: str) -> str:
    """The first 20 digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def has_stored_text(name: str) -> bool:
    """Whether the item's text is stored."""
    return _matches(name, FULL_TEXTS)


def stored_digests() -> dict[str, str]:
    """The stored digest of every item by name."""
    return {name: mark for mark, name in (line.split(maxsplit=1) for line in DIGESTS.read_text().splitlines())}


def is_in_group(name: str, group: str) -> bool:
    """Whether an item is one of a group's."""
    return name.startswith(f"{group}/") or (group == "help" and name.startswith("lists/"))


def diff_lines(before: str, after: str, name: str) -> list[str]:
    """Lines of a unified diff; pages, which have few line ends, are split between their tags."""
    texts = [re.sub(r">\s*<", ">\n<", text) if name.endswith(".html") else text for text in (before, after)]
    one, two = (text.splitlines() for text in texts)
    lines = list(difflib.unified_diff(one, two, f"before/{name}", f"after/{name}", n=1, lineterm=""))
    return lines or [f"before/{name}", f"after/{name}", "Line ends or space between tags differ."]


def compare(before: Path, after: Path) -> int:
    """Print how two folders of items differ, each difference once; returns how many items differ."""
    names = sorted({str(p.relative_to(side)) for side in (before, after) for p in side.rglob("*") if p.is_file()})
    places: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        texts = [read(side / name) if (side / name).exists() else None for side in (before, after)]
        if texts[0] == texts[1]:
            continue
        if texts[0] is None or texts[1] is None:
            places.setdefault((f"only in {after if texts[0] is None else before}",), []).append(name)
            continue
        lines = diff_lines(texts[0], texts[1], name)
        # The same words in another place are the same difference.
        same = tuple("@@" if line.startswith("@@") else line for line in lines[2:])
        places.setdefault(same, []).append(name)
    for lines_, where in places.items():
        print("\n".join([f"==== {', '.join(where)}", *lines_, ""]))
    n = sum(map(len, places.values()))
    print(f"{n} of {len(names)} items differ, in {len(places)} different ways.")
    return n


def write(items: Iterable[tuple[str, str]], folder: Path) -> None:
    """Write every item as a file."""
    for name, text in items:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())


def read(path: Path) -> str:
    """The text of an item's file, with the line ends that it has."""
    return path.read_bytes().decode()


def store(items: Mapping[str, str], groups: Sequence[str]) -> None:
    """Replace what is stored of these groups by the items, and drop what is of no group any more."""
    items = stable_items(items)
    kept = stored_digests() if DIGESTS.exists() else {}
    others = [group for group in GROUPS if group not in groups]
    kept = {name: mark for name, mark in kept.items() if any(is_in_group(name, group) for group in others)}
    kept |= {name: digest(text) for name, text in items.items()}
    DIGESTS.write_text("".join(f"{kept[name]}  {name}\n" for name in sorted(kept)))
    for path in TEXTS.rglob("*.*"):
        if any(is_in_group(str(path.relative_to(TEXTS)), group) for group in groups):
            path.unlink()
    write(((name, text) for name, text in items.items() if has_stored_text(name)), TEXTS)


@contextmanager
def warm_children() -> Iterator[WarmChildren]:
    """Measuring processes without the imports of a start."""
    children = WarmChildren()
    try:
        yield children
    finally:
        children.end()


def main(arguments: Sequence[str]) -> int:
    """The command described above."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.ruler")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="DIR", help="write every item into a folder")
    what.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="print what differs")
    what.add_argument("--store", action="store_true", help="make the items of now the stored ones")
    parser.add_argument("--only", action="append", help="groups to compute, by a pattern; repeat for more")
    given = parser.parse_args(arguments)
    if given.compare:
        return int(compare(*given.compare) > 0)
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    torch.set_num_threads(1)
    groups = [group for group in GROUPS if _matches(group, given.only or ["*"])]
    items: Items = {}
    with warm_children() as children:
        for group in groups:
            items |= items_of(group, children)
    if given.store:
        store(items, groups)
    else:
        write(items.items(), given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
