"""A secret in every place where a user may have one: code in the measuring process reads none, and none comes out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from auditor.evidence.signing import make_key
from auditor.loading.job_specs import DataSpec
from auditor.loading.sandbox import enter_sandbox, landlock, seccomp
from auditor.loading.sandbox.enter_sandbox import places_without_secrets
from cli.commands import app
from tests.quantifiers import all_of, none_of

needs_sandbox = pytest.mark.skipif(
    landlock.version() == 0 or not seccomp.supported(), reason="this kernel has no Landlock: nothing is closed"
)
CANARY = "hunter2-canary"
KEY = f"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI\n{CANARY}\n-----END PRIVATE KEY-----\n"
# Below the folder that the command starts in, and what is in them.
PLACES = {
    ".env": CANARY,
    "sub/.env": CANARY,
    "sub/deep/.env.production": CANARY,
    "sub/deep/prod.env": CANARY,
    "sub/prod.env.bak": CANARY,
    "sub/.netrc": CANARY,
    "sub/.aws/credentials": CANARY,
    "sub/home/.ssh/config": CANARY,
    "sub/home/.config/token": CANARY,
    "sub/home/id_ed25519": CANARY,
    "sub/id_rsa": CANARY,
    "sub/id_rsa.old": CANARY,
    "sub/id_ed25519_work": CANARY,
    "sub/server.pem.1": CANARY,
    "sub/server.pkcs12": CANARY,
    "sub/credentials.json": CANARY,
    "sub/secrets.toml": CANARY,
    "sub/kubeconfig": CANARY,
    "sub/.kube/config": CANARY,
    "sub/.docker/config.json": CANARY,
    "sub/.gitconfig": CANARY,
    "sub/.git/config": CANARY,
    "sub/.cache/huggingface/token": CANARY,
    "auditor.key": CANARY,
    "sub/any.key": CANARY,
    "sub/signing": KEY,
    "sub/cert.pem": KEY,
    "sub/server.txt": f"Bag Attributes\n{KEY}",
    "sub/account.json": json.dumps({"private_key": KEY}),
    "sub/openssh": KEY.replace("PRIVATE", "OPENSSH PRIVATE"),
    "sub/old.pem": KEY.replace("KEY-----\nMC4", "KEY-----\nProc-Type: 4,ENCRYPTED\nMC4", 1),
    "folder/auditor.key": KEY,
    "folder/deep/.env": CANARY,
    "folder/.gitconfig": CANARY,
    "folder/.git/config": CANARY,
    "folder/deep/.git/logs/HEAD": CANARY,
    "folder/.cache/huggingface/token": CANARY,
    "folder/.huggingface/token": CANARY,
    "folder/.config/gcloud/application_default_credentials.json": CANARY,
    "folder/.bash_history": CANARY,
    "folder/.s3cfg": CANARY,
    "folder/.boto": CANARY,
    "folder/.my.cnf": CANARY,
    "folder/.vault-token": CANARY,
    "folder/.kaggle/kaggle.json": CANARY,
    "folder/.streamlit/secrets.toml": CANARY,
    "folder/.terraform/terraform.tfstate": CANARY,
    "folder/service-account.json": json.dumps({"private_key": KEY}),
}
READABLE = ("sub/notes.txt", "sub/deep/table.csv", "folder/config.json", "folder/deep/weights.bin", "sub/public.pem")
OWN = """
import numpy as np

told = []
for path in PATHS:
    try:
        with open(path) as file:
            told.append(path[BEGIN:] + ": READ " + file.read())
    except OSError as error:
        told.append(path[BEGIN:] + ": " + type(error).__name__)

def answers(rows):
    print(chr(10).join(told))
    return np.tile([.4, .6], (len(rows), 1))
answers.classes = ["0", "1"]

def net():
    import torch

    print(chr(10).join([*told, "BUILT"]))
    return torch.nn.Linear(1, 2)

class Tells:
    name, pillar, goal, citation, methods, needs = "Tells", "robustness", "g", "c", (), ()
    def measure(self, model, data, rng):
        print(chr(10).join(told))
        raise ValueError(" | ".join(told))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    for name, content in PLACES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    for name in READABLE:
        (folder / name).write_text("plain")
    (folder / "sub" / "public.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / ".env").write_text(CANARY)
    (tmp_path / "outside" / "key").write_text(KEY)
    (tmp_path / "outside" / "plain.csv").write_text("a,y\n1,0\n")
    # Under a name of its own, by another name of the same file, and by links.
    os.link(folder / "sub" / ".env", folder / "sub" / "deep" / "settings.txt")
    os.link(folder / "sub" / ".aws" / "credentials", folder / "sub" / "a.txt")
    (folder / "linked.txt").symlink_to(tmp_path / "outside" / ".env")
    (folder / "linked-key").symlink_to(tmp_path / "outside" / "key")
    (folder / "linked-folder").symlink_to(tmp_path / "outside")
    (folder / "linked.csv").symlink_to(tmp_path / "outside" / "plain.csv")
    (folder / "sub" / "deep" / "out.csv").symlink_to(tmp_path / "outside" / "plain.csv")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "y": rng.integers(2, size=60)})
    frame.to_csv(folder / "d.csv", index=False)
    joblib.dump(LogisticRegression().fit(frame[["a"]], frame["y"]), folder / "m.joblib")
    (folder / "own.py").write_text("")
    monkeypatch.chdir(folder)
    return folder


LINKS = (
    "sub/deep/settings.txt", "sub/a.txt", "linked.txt", "linked-key", "linked-folder/.env", "linked-folder/key",
    "linked-folder/plain.csv", "linked.csv", "sub/deep/out.csv",
)  # fmt: skip


def told(here: Path, *flags: str) -> dict[str, str]:
    """What became of each path that code opened, once none of the files written tells."""
    closed = [*PLACES, *LINKS, *READABLE, "signed/by"]
    paths = [*closed, "own.py"]
    # Only the last kilobytes of what code prints are kept: paths are told from here on.
    source = OWN.replace("PATHS", repr([str(here / path) for path in paths])).replace("BEGIN", str(len(str(here))))
    (here / "own.py").write_text(source)
    make_key(here / "signed" / "by")
    result = CliRunner().invoke(
        app,
        ["scan", "--data", "d.csv", "--target", "y", "--probes", "performance", "--probe", "own:Tells", "--bundle",
         "b.zip", "--sign", "signed/by", "--out", "out", "--debug", *flags],
    )  # fmt: skip
    written = [file for file in [*(here / "out").iterdir(), here / "b.zip"] if file.is_file()]
    assert all_of(CANARY.encode() not in file.read_bytes() for file in written)
    assert CANARY not in result.output
    printed = result.output.splitlines()
    lines = [line.partition(": ") for line in printed if line.startswith("/")]
    found = {path[1:]: what for path, _, what in lines}
    assert set(found) == set(paths), result.output
    opened = {path for path, _, what in lines if what != "PermissionError"}
    assert opened == {"/own.py"}
    return found | {line: line for line in printed if line == "BUILT"}


@needs_sandbox
def test_code_reads_no_secret_in_the_folder_that_the_command_starts_in(here: Path) -> None:
    told(here, "--predict", "own:answers", "--outputs", "probabilities")


@needs_sandbox
def test_code_that_builds_a_network_reads_no_secret(here: Path) -> None:
    torch.save(torch.nn.Linear(1, 2).state_dict(), "m.pt")
    network = ["--architecture", "own:net", "--classes", "0,1", "--features", "a", "--outputs", "logits"]
    assert "BUILT" in told(here, "m.pt", *network)


@needs_sandbox
def test_no_secret_is_read_beside_a_model(here: Path) -> None:
    told(here, "m.joblib")


HOME = (
    ".ssh/id_ed25519", ".aws/credentials", ".config/gcloud/account.json", ".local/state/auditor/auditor.key",
    ".netrc", ".bash_history", ".cache/huggingface/token", ".docker/config.json", "Documents/notes.txt",
    ".gitconfig", ".git-credentials", ".config/git/credentials", ".kube/config", ".huggingface/token",
)  # fmt: skip
OF_THE_MACHINE = (
    "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/hosts", "/etc/hostname", "/etc/environment", "/etc/fstab",
    "/etc/ssh/ssh_config", "/etc/resolv.conf", "/proc/1/environ", "/proc/1/cmdline", "/var/lib/dpkg/status",
    "/var/spool/cron", "/run/secrets",
)  # fmt: skip
LOOKS = """
import os, pwd
import numpy as np

told = ["ENVIRONMENT " + repr(sorted(os.environ.values())) + open("/proc/self/environ").read()]
for path in PATHS:
    try:
        told.append(path + ": READ " + repr(os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(99)))
    except OSError as error:
        told.append(path + ": " + type(error).__name__)
try:
    told.append("NAMED " + pwd.getpwuid(os.getuid()).pw_dir)
except KeyError:
    pass

def answers(rows):
    print(chr(10).join(told))
    return np.tile([.4, .6], (len(rows), 1))
answers.classes = ["0", "1"]
"""


@needs_sandbox
def test_nothing_of_users_of_other_processes_and_of_the_environment_is_read(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    for name in HOME:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(CANARY)
    (tmp_path / "auditor-other").write_text(CANARY)
    for name in ("HOME", "SECRET_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "HF_TOKEN"):
        monkeypatch.setenv(name, str(home) if name == "HOME" else CANARY)
    of_processes = [
        f"/proc/{os.getpid()}/{name}" for name in ("environ", "cmdline", "maps", "mem", "fd", "root", "cwd")
    ]
    paths = [*OF_THE_MACHINE, *of_processes, *(str(home / name) for name in HOME), str(home), str(tmp_path)]
    paths += [str(tmp_path / "auditor-other"), str(here / "d.csv"), "/etc", "/proc", "/root", "/home", "/tmp"]
    Path("own.py").write_text(LOOKS.replace("PATHS", repr(paths)))
    words = ["scan", "--predict", "own:answers", "--outputs", "probabilities", "--data", "d.csv", "--target", "y"]
    result = CliRunner().invoke(app, [*words, "--probes", "performance", "--out", "out", "--debug"])
    assert "ENVIRONMENT" in result.output and CANARY not in result.output
    found = dict(line.split(": ", 1) for line in result.output.splitlines() if line.startswith("/"))
    assert set(found) == set(paths), result.output
    assert {what for what in found.values()} <= {"PermissionError", "FileNotFoundError", "NotADirectoryError"}
    assert all_of(found[path] == "PermissionError" for path in ("/etc/passwd", "/etc/group", str(home / ".netrc")))
    assert "NAMED" not in result.output
    assert all_of(CANARY.encode() not in file.read_bytes() for file in (here / "out").iterdir())


READS = """
import json
import pathlib
import helper
from package import part

def answers(rows):
    for path in ("weights.json", "d.csv", "other.py"):
        try:
            told = pathlib.Path(path).read_text()
        except PermissionError:
            told = "closed"
        print("TOLD", path, told[:4])
    return [helper.half(part.weight())] * len(rows)

answers.classes = ["0", "1"]
"""


@needs_sandbox
@pytest.mark.parametrize("named", [True, False])
def test_code_reads_its_modules_and_what_is_named_as_the_model(here: Path, named: bool) -> None:
    (here / "reads.py").write_text(READS)
    (here / "helper.py").write_text("def half(x):\n    return x / 2\n")
    (here / "package").mkdir()
    (here / "package" / "__init__.py").write_text("")
    (here / "package" / "part.py").write_text(
        "import pathlib\ndef weight():\n    return float((pathlib.Path(__file__).parent / 'w').read_text())\n"
    )
    (here / "package" / "w").write_text("1.0")
    (here / "weights.json").write_text("1234")
    (here / "other.py").write_text("SECRET = 1")
    flags = ["scan", *(["weights.json"] if named else []), "--predict", "reads:answers", "--data", "d.csv",
             "--target", "y", "--probes", "performance", "--out", "out", "--debug"]  # fmt: skip
    said = CliRunner().invoke(app, flags).output
    assert f"TOLD weights.json {'1234' if named else 'clos'}" in said
    assert "TOLD d.csv clos" in said and "TOLD other.py clos" in said


@needs_sandbox
def test_a_link_that_a_flag_names_is_read_and_no_other(here: Path) -> None:
    (here / "d.csv").rename(here.parent / "outside" / "d.csv")
    (here / "d.csv").symlink_to(here.parent / "outside" / "d.csv")
    told(here, "--predict", "own:answers", "--outputs", "probabilities")


def test_what_a_link_leads_to_is_not_looked_through(here: Path) -> None:
    """Such as the root of everything, which would take minutes."""
    before = places_without_secrets([], [here], contents=False)
    (here / "everything").symlink_to("/")
    (here / "sub" / "everything").symlink_to("/")
    assert places_without_secrets([], [here], contents=False) == before
    assert all_of(place.path.is_relative_to(here) for place in before)


def test_a_named_folder_without_secrets_is_one_place_and_one_with_a_secret_is_what_lies_beside_it(here: Path) -> None:
    plain = here.parent / "plain"
    (plain / "deep").mkdir(parents=True)
    (plain / "deep" / "weights").write_text("w")
    (plain / ".metadata").mkdir()
    (whole,) = places_without_secrets([plain], [], contents=True)
    assert (whole.path, whole.access) == (plain, landlock.READ)
    parts = places_without_secrets([here / "folder"], [], contents=True)
    open_ = {place.path.relative_to(here).as_posix() for place in parts if place.access & landlock.Access.READ_FILE}
    assert open_ == {"folder/config.json", "folder/deep/weights.bin"}
    # Where nobody's code runs, no file is looked into.
    names = {place.path.name for place in places_without_secrets([], [here / "sub"], contents=False)}
    assert "cert.pem" in names and none_of(name in names for name in (".env", "id_rsa", "any.key", ".aws"))


def test_what_git_annex_keeps_for_a_named_folder_is_read_and_nothing_else_of_git(tmp_path: Path) -> None:
    kept = tmp_path / "data" / ".git" / "annex" / "objects" / "x"
    kept.parent.mkdir(parents=True)
    kept.write_text("a,y\n1,0\n")
    (tmp_path / "data" / ".git" / "config").write_text(CANARY)
    (tmp_path / "data" / "d.csv").symlink_to(kept)
    os.link(kept, tmp_path / "data" / "thin.csv")
    spec = DataSpec(path=str(tmp_path / "data"))
    named = [Path(path) for path in enter_sandbox._files_of(spec)]
    found = places_without_secrets(named, [], contents=True)
    readable = [place.path.relative_to(tmp_path) for place in found if place.access & landlock.Access.READ_FILE]
    assert sorted(map(str, readable)) == ["data/.git/annex/objects", "data/thin.csv"]


def test_what_only_speaks_of_keys_is_none(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text('HEADER = "-----BEGIN PRIVATE KEY-----"\n')
    (tmp_path / "keys.csv").write_text("a,y\n1,0\n")
    (tmp_path / "id_rsa.pub").write_text("ssh-ed25519 AAAA")
    os.mkfifo(tmp_path / "pipe")
    (whole,) = places_without_secrets([tmp_path], [], contents=True)
    assert whole.path == tmp_path


def test_more_files_than_can_be_looked_through_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enter_sandbox, "_MOST_ENTRIES", 5)
    with pytest.raises(enter_sandbox.UsageError, match="start the command in a folder with fewer"):
        places_without_secrets([], [here], contents=True)


def test_keygen_warns_where_a_key_lies_near_a_model(here: Path) -> None:
    elsewhere = str(here.parent / "keys" / "mine.key")
    for place, warns in (("mine.key", True), ("sub/keys/mine.key", True), (elsewhere, False)):
        result = CliRunner().invoke(app, ["evidence", "keygen", place])
        assert result.exit_code == 0 and Path(place).is_file()
        assert ("lies near a model, 'm.joblib'" in result.stderr) is warns and "near" not in result.stdout
