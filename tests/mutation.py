"""Breaks the statistics and the judgement on purpose, one small fault at a time, and counts which of them a test sees.

    python -m tests.mutation --n 40 --seed 0
    python -m tests.mutation --file auditor/report/machine_formats.py
    python -m tests.mutation --changed main

A fault (a mutant) is drawn at random from all there are: a comparison of the other strictness or direction, a constant
one more or doubled, a plus for a minus, arguments exchanged, the other end returned, a condition turned round; or a
statement, a guard, an operand of a condition or a filter left out. Files of tests that may notice it, those of a table
and those whose imports lead to its file in the fewest steps, are run once without it, and recorded: which functions
each test runs (``recorder.py``). Then it is written into a copy of the repository, where the tests that run its
function run until the first fails. What survives is listed: it is either a fault that no test would notice, or the same
function by another spelling. The share of mutants killed is given with its 95 % Wilson interval.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.contract.import_graph import ROOTS, imports, modules
from tests.recorder import RECORD_CALLS, Ran, read_calls

ROOT = Path(__file__).resolve().parents[1]
RECORDED, LAWS = "tests/statistics/test_recorded.py", "tests/statistics/test_estimate_laws.py"
COVERAGE, JUDGING = "tests/statistics/test_coverage.py", "tests/judging/test_judging.py"
# Broken as a whole unless files are named.
FOLDERS = ("auditor/statistics", "auditor/judging")
# Of a file no more tests than these are recorded, beyond those of the table.
MOST_TESTS = 8
# Of the tests that run a function, those of so many seconds are tried on a fault in it, the most particular first.
MOST_SECONDS = 120.0
# Tests beyond the nearest ones that are to notice a fault of a file.
MODULES: dict[str, tuple[str, ...]] = {
    "auditor/statistics/changes.py": (
        LAWS,
        "tests/statistics/test_changes.py",
        COVERAGE,
    ),
    "auditor/statistics/detection.py": (
        LAWS,
        "tests/statistics/test_detection.py",
        "tests/statistics/test_areas.py",
        COVERAGE,
    ),
    "auditor/statistics/distribution_distances.py": (
        LAWS,
        "tests/statistics/test_planning.py",
        "tests/statistics/test_distances.py",
        COVERAGE,
        "tests/probes/fairness/test_score_fairness.py",
    ),
    "auditor/statistics/estimate.py": (
        LAWS,
        "tests/statistics/test_statistics.py",
        JUDGING,
        "tests/statistics/test_planning.py",
    ),
    "auditor/statistics/attack_estimates.py": (
        LAWS,
        COVERAGE,
        "tests/probes/privacy/memorization/test_exposure.py",
    ),
    "auditor/statistics/significance_tests.py": (
        LAWS,
        "tests/statistics/test_statistics.py",
        COVERAGE,
        JUDGING,
    ),
    "auditor/statistics/groups.py": (
        LAWS,
        "tests/statistics/test_statistics.py",
        "tests/statistics/test_planning.py",
        "tests/probes/fairness/test_many_groups.py",
        COVERAGE,
        "tests/judging/test_error_rates.py",
    ),
    "auditor/statistics/intervals.py": (
        LAWS,
        "tests/probes/fairness/test_many_groups.py",
        "tests/statistics/test_values.py",
        "tests/statistics/test_statistics.py",
        COVERAGE,
        "tests/statistics/test_changes.py",
    ),
    "auditor/statistics/means.py": (
        LAWS,
        "tests/statistics/test_statistics.py",
        COVERAGE,
        "tests/probes/fairness/test_token_fairness.py",
    ),
    "auditor/statistics/rank_estimates.py": (
        LAWS,
        "tests/statistics/test_statistics.py",
        "tests/statistics/test_auc.py",
        COVERAGE,
    ),
    "auditor/statistics/rates.py": (
        LAWS,
        "tests/statistics/test_statistics.py",
        "tests/statistics/test_planning.py",
        COVERAGE,
        "tests/judging/test_error_rates.py",
    ),
    "auditor/statistics/values.py": (
        LAWS,
        "tests/statistics/test_values.py",
        COVERAGE,
    ),
    "auditor/judging/judging.py": (
        JUDGING,
        "tests/statistics/test_planning.py",
        "tests/judging/test_policies.py",
    ),
    "auditor/judging/judgement.py": (
        JUDGING,
        "tests/judging/test_error_rates.py",
    ),
    "auditor/judging/training_looks.py": (
        "tests/run/while_training/test_training_audit.py",
        "tests/run/while_training/test_resume.py",
    ),
}
LIBRARIES = ("pytest", "numpy", "pandas", "scipy.stats", "pydantic", "statsmodels.stats.proportion")
COPIED = ("auditor", "probes", "mitigations", "cli", "tests", "pyproject.toml", "README.md", "docs")


class Mutant(NamedTuple):
    """The ``index``-th node of a module's tree, changed in one way."""

    module: str
    index: int
    change: str
    line: int


Seen = Literal["killed", "hung", "SURVIVED"]


class Tried(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    before: str
    after: str
    seen: Seen
    seconds: float
    n_tests: int

    @property
    def killed(self) -> bool:
        """Whether a test noticed it."""
        return self.seen != "SURVIVED"

    @property
    def place(self) -> str:
        """Where it is, what it is, and how many tests looked at it."""
        mutant = self.mutant
        where = f"{mutant.module}:{mutant.line} {mutant.change}"
        return f"{where}: {self.before}  ->  {self.after} ({self.n_tests} tests)"


COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
OPPOSITES = {
    "min": "max",
    "minimum": "maximum",
    "floor": "ceil",
    "any": "all",
    "argmin": "argmax",
    "exact_lower": "exact_upper",
    "left": "right",
    "lower": "upper",
}
OPPOSITES |= {b: a for a, b in OPPOSITES.items()}


def symmetric(call: ast.Call) -> bool:
    """Whether the order of its arguments is nothing."""
    return ast.unparse(call.func).rpartition(".")[2] in ("min", "max", "minimum", "maximum", "hypot")


def omissions(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every part of a node that can be left out: statements of its blocks, operands and filters."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        for i, statement in enumerate(block if isinstance(block, list) else ()):
            if kind := kind_of(statement):
                said = ast.unparse(statement).splitlines()[0]
                yield (
                    f"drop {kind}, line {statement.lineno}, {said}",
                    lambda i=i, of=block: of.__setitem__(i, ast.Pass()),
                )
    if isinstance(node, ast.BoolOp | ast.comprehension):
        parts, what = (node.values, "operand") if isinstance(node, ast.BoolOp) else (node.ifs, "filter")
        for i in range(len(parts)):
            yield f"drop {what} {i + 1}", lambda i=i: parts.__delitem__(i)


def kind_of(statement: ast.stmt) -> str:
    """What is left out with a statement; nothing where names would be missing, which any test sees."""
    match statement:
        case ast.If(body=[*_, ast.Raise() | ast.Return() | ast.Continue() | ast.Break()], orelse=[]):
            return "guard"
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.For() | ast.If(orelse=[]):
            return "statement"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return "statement"
        case ast.Assign(targets=[ast.Name(id=name)]):
            again = any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(statement.value))
            return "statement" if again else ""
    return ""


def changes(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every way to break a node, by name, and what does it in place."""
    yield from omissions(node)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for other in COMPARISONS.get(type(node.ops[0]), ()):
            yield f"compare {other.__name__}", lambda other=other: node.ops.__setitem__(0, other())
    elif isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield other.__name__.lower(), lambda: setattr(node, "op", other())
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        operator = ARITHMETIC[type(node.op)]
        yield operator.__name__.lower(), lambda: setattr(node, "op", operator())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "drop " + type(node.op).__name__.lower(), lambda: setattr(node, "op", ast.UAdd())
    elif isinstance(node, ast.IfExp | ast.If):
        yield "turn condition", lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = node.value
        if isinstance(value, int):
            yield "constant + 1", lambda: setattr(node, "value", value + 1)
            yield "constant - 1", lambda: setattr(node, "value", value - 1)
        else:
            yield "constant doubled", lambda: setattr(node, "value", 2.0 * value if value else 1.0)
            yield "constant halved", lambda: setattr(node, "value", 0.5 * value if value else -1.0)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "other truth", lambda: setattr(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in OPPOSITES:
        yield "opposite word", lambda: setattr(node, "value", OPPOSITES[node.value])
    elif isinstance(node, ast.Attribute) and node.attr in OPPOSITES:
        yield "opposite function", lambda: setattr(node, "attr", OPPOSITES[node.attr])
    elif isinstance(node, ast.Name) and node.id in OPPOSITES and isinstance(node.ctx, ast.Load):
        yield "opposite function", lambda: setattr(node, "id", OPPOSITES[node.id])
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
        elements = node.value.elts
        yield "other end", lambda: elements.reverse()
    elif isinstance(node, ast.Call):
        if len(node.args) >= 2 and not any(isinstance(a, ast.Starred) for a in node.args[:2]) and not symmetric(node):
            yield "swap arguments", lambda: node.args.__setitem__(slice(0, 2), node.args[1::-1])
        if len(node.keywords) >= 2 and isinstance(node.func, ast.Name):
            one, two = node.keywords[:2]
            yield "swap keywords", lambda: (setattr(one, "arg", two.arg), setattr(two, "arg", one.arg))[0]


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything that runs when the statistics do: no annotation, message or declared constraint."""
    for name, field in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        for child in field if isinstance(field, list) else [field]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.Import | ast.ImportFrom):
                continue
            if isinstance(child, ast.JoinedStr):
                continue
            # What a constant of a module is made of is often a type.
            if isinstance(child, ast.Assign) and isinstance(child.value, ast.Subscript):
                continue
            yield child
            yield from nodes(child)


def mutants_of(module: str) -> list[Mutant]:
    """All of a module's, in the order of its text."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    return [
        Mutant(module, i, name, line_of(node, name)) for i, node in enumerate(nodes(tree)) for name, _ in changes(node)
    ]


def line_of(node: ast.AST, change: str) -> int:
    """The line of a change: that of the statement that is left out, or of the node."""
    if statement := re.match(r"drop \w+, line (\d+),", change):
        return int(statement[1])
    return getattr(node.target if isinstance(node, ast.comprehension) else node, "lineno", 0)


def broken(mutant: Mutant) -> tuple[str, str, str]:
    """The module's text with the fault in it, and the statement before and after, for the list."""
    text = (ROOT / mutant.module).read_text(encoding="utf-8")
    plain, tree = ast.parse(text), ast.parse(text)
    node = list(nodes(tree))[mutant.index]
    before = ast.unparse(list(nodes(plain))[mutant.index])
    dict(changes(node))[mutant.change]()
    ast.fix_missing_locations(tree)
    return ast.unparse(tree), before.strip().splitlines()[0], ast.unparse(node).strip().splitlines()[0]


def copied(folder: Path) -> None:
    """What the tests need of the repository."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, folder / name)


def run_tests(folder: Path, arguments: list[str]) -> None:
    """Runs pytest in the copy, and ends the process with its exit code."""
    os.chdir(folder)
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry and Path(entry).resolve() != ROOT)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    import pytest

    code = 70
    try:
        code = int(pytest.main(arguments))
    finally:
        # Whatever is raised here is no failed test.
        os._exit(code)


def files() -> list[str]:
    """All of the statistics and of the judgement that has anything to break."""
    found = [path.relative_to(ROOT).as_posix() for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py"))]
    return [name for name in found if mutants_of(name)]


def tests_of(module: str) -> tuple[str, ...]:
    """The files of tests that may notice a fault of a file: those of the table and the nearest ones."""
    everywhere = (RECORDED,) if module.startswith("auditor/statistics") else ()
    return tuple(dict.fromkeys((*everywhere, *MODULES.get(module, ()), *nearest_tests(module, *_graph()))))


def nearest_tests(module: str, known: Mapping[str, Path], graph: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """The test files whose imports, ``graph`` of dotted names, lead to a module in the fewest steps.

    Of those of one distance the ones of its own folder come first, then those that import the least.
    """
    dotted = module.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    seen, layer = {dotted}, {dotted}
    while layer := {name for name, found in graph.items() if not layer.isdisjoint(found)} - seen:
        seen |= layer
        if tests := [name for name in layer if name.rpartition(".")[2].startswith("test_")]:
            own = ".".join(("tests", *dotted.removeprefix("auditor.").split(".")[:-1], ""))
            tests.sort(key=lambda name: (not name.startswith(own), len(graph[name]), name))
            paths = [known[name].relative_to(ROOT).as_posix() for name in tests[:MOST_TESTS]]
            return tuple(paths)
    return ()


@cache
def _graph() -> tuple[Mapping[str, Path], Mapping[str, Collection[str]]]:
    known = modules(ROOT) | _of_tests()
    return known, imports(known)


def _of_tests() -> dict[str, Path]:
    """Every module of the tests by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path.name != "__init__.py"
    }


def tree_digest() -> str:
    """A digest of all that the tests need of the repository: what was recorded of another one is worth nothing."""
    digest = hashlib.sha256()
    for name in COPIED:
        top = ROOT / name
        for path in sorted(top.rglob("*.py")) if top.is_dir() else ():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def record(folder: Path, tests: Sequence[str], ring: str, timeout: float) -> list[Ran]:
    """Run files of tests in the copy, and return those that pass with the functions that they run."""
    lines = folder / "calls.jsonl"
    lines.touch()
    for file in tests:
        os.environ[RECORD_CALLS] = str(lines)
        code = run(folder, ["-p", "tests.recorder", "--ring", ring, file], timeout)
        if code not in (0, 5):
            # Tests that fail without a fault notice none.
            print(f"{file} does not pass as a whole ({code})", flush=True)
    os.environ.pop(RECORD_CALLS, None)
    return read_calls(lines.read_text(encoding="utf-8").splitlines())


def function_at(source: str, line: int) -> str:
    """The dotted name of the innermost function around a line, as Python calls it; "" outside of all."""
    name, names, found = "", [(ast.parse(source), "")], ""
    while names:
        node, outer = names.pop()
        for child in ast.iter_child_nodes(node):
            inner = outer
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{outer}{child.name}"
                inner = f"{name}." if isinstance(child, ast.ClassDef) else f"{name}.<locals>."
                if not isinstance(child, ast.ClassDef) and child.lineno <= line <= (child.end_lineno or 0):
                    found = max(found, name, key=len)
            names.append((child, inner))
    return found


def choose(function: str, ran: Sequence[Ran]) -> list[str]:
    """The tests that ran a function, or whose file has fixtures that did; those that run the least else come first.

    Of a line outside of all functions every test that runs something of the file.
    """
    file, _, name = function.partition("::")

    def runs(functions: Collection[str]) -> bool:
        return function in functions if name else any(each.startswith(f"{file}::") for each in functions)

    prepared = {test.file for test in ran if runs(test.fixtures)}
    about = [test for test in ran if runs(test.functions) or test.file in prepared]
    # Each file's most particular test, then each file's second.
    turns: dict[str, int] = Counter()
    places = []
    for test in sorted(about, key=lambda test: (len(test.functions), test.seconds)):
        places.append((turns[test.file], len(places), test))
        turns[test.file] += 1
    left, chosen = MOST_SECONDS, []
    for _, _, test in sorted(places, key=lambda place: place[:2]):
        if test.seconds <= left:
            left -= test.seconds
            chosen.append(test.test)
    return chosen


def noticed(folder: Path, tests: Sequence[str], timeout: float) -> Seen:
    """Whether some of the tests fail in the copy, or hang, which on a busy machine they may do without a fault."""
    code = run(folder, ["-x", *tests], timeout) if tests else 0
    # 2 and 4: the tests, or what they share, could not be imported, which is a fault that is seen.
    return "hung" if code is None else "killed" if code in (1, 2, 4) else "SURVIVED"


def run(folder: Path, arguments: Sequence[str], timeout: float) -> int | None:
    """Run pytest in the copy; returns its exit code, or None where it takes too long."""
    whole = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", *arguments]
    # A copy of this process has the libraries at hand already.
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(folder, whole))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    if process.exitcode not in (0, 1, 2, 4, 5):
        raise RuntimeError(f"pytest {' '.join(arguments)[:200]} ended with {process.exitcode}")
    return process.exitcode


def changed_lines(base: str) -> dict[str, set[int]]:
    """The lines of the product that differ from those of a commit, by file."""
    command = ["git", "diff", "--unified=0", "--no-color", "--no-ext-diff", base, "--", *ROOTS]
    diff = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return lines_of_diff(diff)


def lines_of_diff(diff: str) -> dict[str, set[int]]:
    """The lines that a diff without context adds, by file."""
    found: dict[str, set[int]] = {}
    file = ""
    for line in diff.splitlines():
        if line.startswith("+++ "):
            file = line.removeprefix("+++ b/")
        elif (hunk := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line)) and file.endswith(".py"):
            first, n = int(hunk[1]), int(hunk[2] or 1)
            found.setdefault(file, set()).update(range(first, first + n))
    return {name: lines for name, lines in found.items() if lines}


def wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share."""
    if not n:
        return 0.0, 1.0
    p, spread = k / n, 1.0 + z * z / n
    half = z * math.sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n))
    return (p + z * z / (2.0 * n) - half) / spread, (p + z * z / (2.0 * n) + half) / spread


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n", type=int, default=40, help="how many mutants; 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    parser.add_argument("--file", action="append", help="of these files alone; by default statistics and judgement")
    parser.add_argument("--changed", metavar="BASE", help="of the lines alone that differ from this commit")
    parser.add_argument("--ring", default="quick", choices=("quick", "all"), help="which tests are to notice")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that the tests of a mutant may take")
    parser.add_argument("--calls", type=Path, help="where the functions that tests run are kept for the next time")
    parser.add_argument("--list", action="store_true", help="only say which mutants are drawn")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    lines = changed_lines(options.changed) if options.changed else {}
    for name in options.file or ():
        if not ((ROOT / name).is_file() and name.partition("/")[0] in ROOTS):
            parser.error(f"{name} is no file of {', '.join(ROOTS)}: give its path from the repository's root")
        if not tests_of(name):
            parser.error(f"no test leads to {name}: name its tests in MODULES of tests/mutation.py")
    broken_files = options.file or (sorted(lines) if options.changed else files())
    every = [mutant for module in broken_files for mutant in mutants_of(module)]
    if options.changed:
        every = [mutant for mutant in every if mutant.line in lines.get(mutant.module, ())]
    drawn = random.Random(options.seed).sample(every, min(options.n or len(every), len(every)))
    print(f"{len(drawn)} of {len(every)} mutants, seed {options.seed}", flush=True)
    if options.list:
        for mutant in drawn:
            _, before, after = broken(mutant)
            print(f"{mutant.module}:{mutant.line} {mutant.change}: {before}  ->  {after}")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        for library in LIBRARIES:
            importlib.import_module(library)
        ran = recorded(folder, [mutant.module for mutant in drawn], options)
        tried = [try_mutant(folder, mutant, ran, options.timeout) for mutant in drawn]
    killed, survivors = sum(t.killed for t in tried), [t for t in tried if not t.killed]
    low, high = wilson(killed, len(tried))
    hung = sum(t.seen == "hung" for t in tried)
    print(f"killed {killed} of {len(tried)} ({hung} hung): {killed / max(len(tried), 1):.0%} [{low:.0%}, {high:.0%}]")
    for t in survivors:
        print(f"  survived: {t.place}")
    return 0


def recorded(folder: Path, modules_: Sequence[str], options: argparse.Namespace) -> list[Ran]:
    """The tests that may notice faults of these files, with what they run: recorded now, or before of the same tree."""
    tests = dict.fromkeys(test for module in dict.fromkeys(modules_) for test in tests_of(module))
    kept: dict[str, Any] = {}
    if options.calls and options.calls.exists():
        kept = json.loads(options.calls.read_text(encoding="utf-8"))
    mark = f"{tree_digest()} {options.ring}"
    kept = kept if kept.get("tree") == mark else {"tree": mark, "files": {}}
    missing = [test for test in tests if test not in kept["files"]]
    for i, file in enumerate(missing):
        print(f"recording {file} ({i + 1} of {len(missing)})", flush=True)
        (folder / "calls.jsonl").unlink(missing_ok=True)
        new = record(folder, [file], options.ring, 2.0 * options.timeout)
        kept["files"][file] = [(each.test, each.seconds, sorted(each.functions), sorted(each.fixtures)) for each in new]
        if options.calls:
            options.calls.parent.mkdir(parents=True, exist_ok=True)
            options.calls.write_text(json.dumps(kept), encoding="utf-8")
    return [
        Ran(test, seconds, frozenset(functions), frozenset(fixtures))
        for file in tests
        for test, seconds, functions, fixtures in kept["files"][file]
    ]


def try_mutant(folder: Path, mutant: Mutant, ran: Sequence[Ran], timeout: float) -> Tried:
    """Write a fault into the copy, run the tests that run its function, and take it out again."""
    text, before, after = broken(mutant)
    target = folder / mutant.module
    whole = target.read_text(encoding="utf-8")
    tests = choose(f"{mutant.module}::{function_at(whole, mutant.line)}", ran)
    start = time.monotonic()
    target.write_text(text, encoding="utf-8")
    try:
        seen = noticed(folder, tests, timeout)
    finally:
        target.write_text(whole, encoding="utf-8")
    tried = Tried(mutant, before, after, seen, time.monotonic() - start, len(tests))
    print(f"{seen:8} {tried.seconds:5.0f} s {tried.place}", flush=True)
    return tried


if __name__ == "__main__":
    sys.exit(main())
