"""``--benchmark NAME=PATH`` in every documented form, through the command and the sandbox of its measuring process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from auditor.report.record.audit_report import AuditReport, Finding
from cli.commands import app
from tests.data.test_benchmarks import CROWS, bbq_row, stereoset_example
from tests.quantifiers import all_of, none_of
from tests.toys.byte_llama import save_byte_llama

JOBS = ("nurse", "teacher", "driver", "guard", "clerk", "cook", "baker", "judge")


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def lines(*rows: object) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def crows_pairs(folder: Path) -> Path:
    rows = [
        f"{i},The old {job} is slow today.,The young {job} is slow today.,stereo,age,a{i}" for i, job in enumerate(JOBS)
    ]
    return write(folder, "crows.csv", CROWS + lines(*rows))


def stereoset(folder: Path) -> Path:
    some = [
        stereoset_example(c, id=job, target=job) for job in JOBS for c in (f"The {job} is BLANK.", f"A {job} came.")
    ]
    return write(folder, "dev.jsonl", lines(*some))


def winobias(folder: Path) -> Path:
    write(folder, "male_occupations.txt", lines(*JOBS[::2]))
    write(folder, "female_occupations.txt", lines(*JOBS[1::2]))
    for kind, pronoun in (("anti", "she"), ("pro", "he")):
        rows = [f"{i} [The {job}] met the {JOBS[i - 1]} because [{pronoun}] was late." for i, job in enumerate(JOBS)]
        file = write(folder, f"{kind}_stereotyped_type1.txt.dev", lines(*rows))
    return file


def winogender(folder: Path) -> Path:
    write(
        folder,
        "occupations-stats.tsv",
        lines("occupation\tbls_pct_female", *(f"{j}\t{20 + 60 * (i % 2)}" for i, j in enumerate(JOBS))),
    )
    rows = [
        f"{j}.guest.1.{g}.txt\tThe {j} said {w} left." for j in JOBS for g, w in (("male", "he"), ("female", "she"))
    ]
    return write(folder, "all_sentences.tsv", lines("sentid\tsentence", *rows))


def bbq(folder: Path) -> Path:
    rows = [
        bbq_row(
            example_id=i, question_index=str(i), context_condition=condition, label=2 if condition == "ambig" else 0
        )
        for i in range(4)
        for condition in ("ambig", "disambig")
    ]
    placed = [f"Age,{i},{i},1" for i in range(4)]
    write(folder, "additional_metadata.csv", lines("category,question_index,example_id,target_loc", *placed))
    return write(folder, "Age.jsonl", lines(*rows))


def bold(folder: Path) -> Path:
    return write(
        folder, "gender_prompt.json", json.dumps({g: {g: [f"The {job} was" for job in JOBS]} for g in ("men", "women")})
    )


def honest(folder: Path) -> Path:
    rows = [f"The {who} is a [M].\t{who}\tgender\tbinary" for who in ("woman", "man")]
    return write(folder, "en_template.tsv", lines("template_masked\tidentity\tcategory\ttype", *rows))


def misfire(folder: Path) -> Path:
    def said(who: str) -> dict[str, str]:
        return {"text": f"The {who} forgot the key. Did the {who} forget the key?", "expected": "yes"}

    prompts = {"stereotyped": said("old man"), "contrast": said("young man")}
    return write(
        folder,
        "pairs.json",
        json.dumps([{"id": f"Age_{i}_p0", "category": "Age", "prompts": prompts} for i in range(3)]),
    )


def contamination(folder: Path) -> Path:
    return write(folder, "test.txt", lines(*(f"The {a} met the {b}." for a in JOBS for b in JOBS)))


def token_attribution(folder: Path) -> Path:
    return write(
        folder,
        "prompts.jsonl",
        lines(*({"prompt": f"The {j} said that", "target": " he", "foil": " she", "cues": [j]} for j in JOBS)),
    )


FILES: dict[str, Callable[[Path], Path]] = {
    "crows_pairs": crows_pairs, "stereoset": stereoset, "winobias": winobias, "winogender": winogender, "bbq": bbq,
    "bold": bold, "honest": honest, "misfire": misfire, "contamination": contamination,
    "token_attribution": token_attribution,
}  # fmt: skip
FOLDERS = ("winobias", "winogender", "bbq", "bold")
QUICK = (
    "--chat", "off", "--set", "bbq.wordings=1", "--set", "bold.n_prompts=8", "--set", "honest.n_samples=1",
    "--set", "contamination.shard_examples=5",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_byte_llama(tmp_path_factory.mktemp("llama"), layers=1)


def scan(model: Path, benchmarks: dict[str, Path], *more: str) -> tuple[Result, list[Finding]]:
    given = [f"--benchmark={name}={path}" for name, path in benchmarks.items()]
    result = CliRunner().invoke(app, ["scan", str(model), "--probes", ",".join(benchmarks), *given, *more])
    assert result.exit_code in (0, 1, 3), result.output
    return result, list(AuditReport.model_validate_json(Path("audit-report/report.json").read_text()).findings)


def stops(findings: list[Finding]) -> list[str]:
    """Why whatever did not run did not."""
    return [f"{f.probe}: {f.reason}" for f in findings if f.outcome == "NOT_RUN"]


@pytest.mark.slow
def test_every_documented_form_is_read_through_the_command(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = write(tmp_path, "hurtful.txt", "thief\nfool\n")
    files = {name: make(tmp_path / "files" / name) for name, make in FILES.items()}
    _, found = scan(model, files, *QUICK, "--set", f"honest.lexicon={words}")
    assert stops(found) == []
    for name, file in files.items():
        assert any(file.name in f.detail for f in found if f.probe == name), name
    whole = {name: [f for f in found if f.probe == name] for name in FOLDERS}
    # What lies beside a file is read with it, so that a file says what its folder does.
    assert any(f.metric == "stereotype_log_odds" for f in whole["winogender"])
    assert any("targets by additional_metadata.csv" in f.detail for f in whole["bbq"])
    folders = {name: files[name].parent for name in FOLDERS}
    _, again = scan(model, folders, *QUICK)
    for name in FOLDERS:
        values = [[(f.metric, f.group, f.value) for f in some if f.probe == name] for some in (found, again)]
        assert values[0] == values[1] and values[0], name


@pytest.mark.slow
def test_a_file_that_cannot_be_read_stops_its_own_probe_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link beside a benchmark's file may lead to anything of the user's: it is not followed, and it is said."""
    monkeypatch.chdir(tmp_path)
    file = winogender(tmp_path / "winogender")
    secret = write(tmp_path / "elsewhere", "secret.tsv", "occupation\tbls_pct_female\n")
    file.with_name("occupations-stats.tsv").unlink()
    file.with_name("occupations-stats.tsv").symlink_to(secret)
    result, found = scan(model, {"winogender": file})
    assert result.exit_code == 3
    assert {why.partition(":")[0] for why in stops(found)} == {"winogender", "performance"}
    assert all_of("occupations-stats.tsv' cannot be read" in why for why in stops(found))
    assert none_of("secret" in why for why in stops(found))
    asked = {f.at.get("sentences") for f in found if f.metric == "word_order_accuracy" and f.outcome != "NOT_RUN"}
    assert {None, "built_in_pairs"} <= asked


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "path", "option"),
    [
        ("crows_pairs", "crows_pairs/crows_pairs_anonymized.csv", ""),
        ("winobias", "winobias/pro_stereotyped_type1.txt.dev", ""),
        ("winogender", "winogender/all_sentences.tsv", ""),
        ("bold", "bold", "bold.n_prompts=2"),
        ("honest", "honest/binary/en_template.tsv", "honest.n_samples=1"),
    ],
)
def test_the_published_files_are_read_through_the_command(
    name: str, path: str, option: str, model: Path, test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (test_data / path).exists():
        pytest.skip(f"AUDITOR_TEST_DATA has no {path}")
    monkeypatch.chdir(tmp_path)
    words = write(tmp_path, "hurtful.txt", "thief\nfool\n")
    options = [part for text in (option, "honest.lexicon=" + str(words)) if text for part in ("--set", text)]
    _, found = scan(model, {name: test_data / path}, "--chat", "off", *options)
    assert stops(found) == [] and any(f.probe == name and f.value is not None for f in found)
