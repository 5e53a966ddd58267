"""Breaks the statistics and the judgement on purpose, one small fault at a time, and counts which of them a test sees.

    python -m tests.mutation --n 40 --seed 0
    python -m tests.mutation --file auditor/report/junit_and_sarif.py

A fault (a mutant) is drawn at random from all there are: a comparison of the other strictness or direction, a constant
one more or doubled, a plus for a minus, arguments exchanged, the other end returned, a condition turned round; or a
statement, a guard, an operand of a condition or a filter left out. It is written into a copy of the repository, where
the tests of its module run until the first fails: those of a table, or those whose imports lead to it in the fewest
steps. What survives is listed: it is either a fault that no test would notice, or the same function by another
spelling. The share of mutants killed is given with its 95 % Wilson interval.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.contract.import_graph import ROOTS, imports, modules

ROOT = Path(__file__).resolve().parents[1]
RECORDED, LAWS = "tests/statistics/test_recorded.py", "tests/statistics/test_estimate_laws.py"
COVERAGE = "tests/statistics/test_coverage.py"
SIMULATIONS = (COVERAGE, "tests/judging/test_error_rates.py", "tests/statistics/test_auc.py")
JUDGED = ("tests/judging/test_judging.py", "tests/statistics/test_planning.py")
# Broken as a whole unless files are named.
FOLDERS = ("auditor/statistics", "auditor/judging")
# Of files that are not in the table no more tests run than these.
MOST_TESTS = 8
# What is broken, which tests are to notice (the quick ones first), and which of their cases are about it.
MODULES: dict[str, tuple[tuple[str, ...], str]] = {
    "auditor/statistics/changes.py": ((LAWS, "tests/statistics/test_changes.py", COVERAGE), "change"),
    "auditor/statistics/detection.py": (
        (LAWS, "tests/statistics/test_detection.py", "tests/statistics/test_areas.py", COVERAGE),
        "detection or areas or equal_error or average_precision or area or drop or excess",
    ),
    "auditor/statistics/distribution_distances.py": (
        (
            LAWS,
            "tests/statistics/test_planning.py",
            "tests/statistics/test_distances.py",
            COVERAGE,
            "tests/probes/fairness/test_score_fairness.py",
        ),
        "inequality or calibration or worst_gap or gap or distance or theil or entropy or planning",
    ),
    "auditor/statistics/estimate.py": ((LAWS, "tests/statistics/test_statistics.py", *JUDGED), ""),
    "auditor/statistics/attack_estimates.py": (
        (LAWS, COVERAGE, "tests/probes/privacy/memorization/test_exposure.py"),
        "exposure",
    ),
    "auditor/statistics/significance_tests.py": (
        (LAWS, "tests/statistics/test_statistics.py", COVERAGE, "tests/judging/test_judging.py"),
        "",
    ),
    "auditor/statistics/groups.py": (
        (
            LAWS,
            "tests/statistics/test_statistics.py",
            "tests/statistics/test_planning.py",
            "tests/probes/fairness/test_many_groups.py",
            COVERAGE,
            "tests/judging/test_error_rates.py",
        ),
        "not area and not mean and not quantile and not paired",
    ),
    "auditor/statistics/intervals.py": (
        (
            LAWS,
            "tests/probes/fairness/test_many_groups.py",
            "tests/statistics/test_values.py",
            "tests/statistics/test_statistics.py",
            COVERAGE,
        ),
        "",
    ),
    "auditor/statistics/means.py": (
        (LAWS, "tests/statistics/test_statistics.py", COVERAGE, "tests/probes/fairness/test_token_fairness.py"),
        "mean or student or paired or standardized or bounds",
    ),
    "auditor/statistics/rank_estimates.py": (
        (LAWS, "tests/statistics/test_statistics.py", "tests/statistics/test_auc.py", COVERAGE),
        "auc or area or quantile or true_positive or tpr",
    ),
    "auditor/statistics/rates.py": (
        (LAWS, "tests/statistics/test_statistics.py", "tests/statistics/test_planning.py", COVERAGE),
        "rate or proportion or difference or sum or odds or planned or plan or share",
    ),
    "auditor/statistics/values.py": (
        (LAWS, "tests/statistics/test_values.py", COVERAGE),
        "value or mean or gap",
    ),
    "auditor/judging/judging.py": (
        ("tests/judging/test_judging.py", "tests/statistics/test_planning.py", "tests/judging/test_policies.py"),
        "",
    ),
    "auditor/judging/judgement.py": (
        ("tests/judging/test_judging.py", "tests/judging/test_error_rates.py"),
        "",
    ),
    "auditor/judging/training_looks.py": (
        ("tests/run/while_training/test_training_audit.py", "tests/run/while_training/test_resume.py"),
        "",
    ),
    "auditor/statistics/pair_plans.py": (
        ("tests/statistics/test_planning.py", "tests/judging/test_error_rates.py"),
        "",
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


class Tried(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    before: str
    after: str
    killed: bool
    seconds: float


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
        Mutant(module, i, name, getattr(node.target if isinstance(node, ast.comprehension) else node, "lineno", 0))
        for i, node in enumerate(nodes(tree))
        for name, _ in changes(node)
    ]


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


def tests_of(module: str) -> tuple[tuple[str, ...], str]:
    """The tests that are to notice a fault of a module, the nearest first, and which of their cases are about it."""
    return MODULES[module] if module in MODULES else (nearest_tests(module, *_graph()), "")


def nearest_tests(module: str, known: Mapping[str, Path], graph: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """The test files whose imports, ``graph`` of dotted names, lead to a module in the fewest steps.

    Of those of one distance the ones of its own folder come first, then those that import the least.
    """
    dotted = module.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    seen, layer = {dotted}, {dotted}
    while layer := {name for name, found in graph.items() if not layer.isdisjoint(found)} - seen:
        seen |= layer
        if tests := [name for name in layer if name.rpartition(".")[2].startswith("test_")]:
            own = f"tests.{dotted.split('.')[-2]}."
            tests.sort(key=lambda name: (not name.startswith(own), len(graph[name]), name))
            paths = [known[name].relative_to(ROOT).as_posix() for name in tests[:MOST_TESTS]]
            return tuple(sorted(paths, key=SIMULATIONS.__contains__))
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


def noticed(folder: Path, module: str, timeout: float, *, quick: bool = False) -> bool:
    """Whether some test of the module fails in the copy, or hangs; ``quick``: without the simulations."""
    tests, cases = tests_of(module)
    # One file after the other, since each collects all its cases before the first runs.
    everywhere = (RECORDED,) if module.startswith("auditor/statistics") else ()
    for file in (file for file in (*everywhere, *tests) if not (quick and file in SIMULATIONS)):
        chosen = ["-k", cases] if cases and file in (LAWS, COVERAGE) else []
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *chosen, file]
        # A copy of this process has the libraries at hand already.
        process = multiprocessing.get_context("fork").Process(target=run_tests, args=(folder, arguments))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            return True
        # 2 and 4: the tests, or what they share, could not be imported, which is a fault that is seen. 5: none of the
        # file is about the module.
        if process.exitcode in (1, 2, 4):
            return True
        if process.exitcode not in (0, 5):
            raise RuntimeError(f"pytest of {file} ended with {process.exitcode}")
    return False


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
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds a file of tests may take")
    parser.add_argument("--quick", action="store_true", help="without the simulations: fewer are killed")
    parser.add_argument("--unchecked", action="store_true", help="trust that the tests pass without a fault")
    parser.add_argument("--list", action="store_true", help="only say which mutants are drawn")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for name in options.file or ():
        if not ((ROOT / name).is_file() and name.partition("/")[0] in ROOTS):
            parser.error(f"{name} is no file of {', '.join(ROOTS)}: give its path from the repository's root")
        if not tests_of(name)[0]:
            parser.error(f"no test leads to {name}: name its tests in MODULES of tests/mutation.py")
    every = [mutant for module in options.file or files() for mutant in mutants_of(module)]
    drawn = random.Random(options.seed).sample(every, min(options.n or len(every), len(every)))
    print(f"{len(drawn)} of {len(every)} mutants, seed {options.seed}", flush=True)
    tried: list[Tried] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not options.list:
            copied(folder)
            for library in LIBRARIES:
                importlib.import_module(library)
            for module in [] if options.unchecked else dict.fromkeys(mutant.module for mutant in drawn):
                if noticed(folder, module, options.timeout, quick=options.quick):
                    raise SystemExit(f"the tests of {module} fail without a fault in it")
        for mutant in drawn:
            text, before, after = broken(mutant)
            if options.list:
                print(f"{mutant.module}:{mutant.line} {mutant.change}: {before}  ->  {after}")
                continue
            target = folder / mutant.module
            whole = target.read_text(encoding="utf-8")
            target.write_text(text, encoding="utf-8")
            start = time.monotonic()
            killed = noticed(folder, mutant.module, options.timeout, quick=options.quick)
            target.write_text(whole, encoding="utf-8")
            tried.append(Tried(mutant, before, after, killed, time.monotonic() - start))
            word = "killed  " if killed else "SURVIVED"
            where = f"{mutant.module}:{mutant.line}"
            print(f"{word} {tried[-1].seconds:5.0f} s  {where} {mutant.change}: {before}  ->  {after}", flush=True)
    if options.list:
        return 0
    killed, survivors = sum(t.killed for t in tried), [t for t in tried if not t.killed]
    low, high = wilson(killed, len(tried))
    print(f"killed {killed} of {len(tried)}: {killed / max(len(tried), 1):.0%} [{low:.0%}, {high:.0%}]")
    for t in survivors:
        print(f"  survived: {t.mutant.module}:{t.mutant.line} {t.mutant.change}: {t.before}  ->  {t.after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
