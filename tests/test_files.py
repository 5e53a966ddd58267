"""JSON and TOML that cannot be read: one clear sentence, whatever is wrong with it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from auditor.core.errors import AuditorError, ConfigError, DataError, UsageError
from auditor.core.files import why_unreadable, write_beside
from auditor.data.benchmarks.bbq_and_veto_files import read_bbq
from auditor.data.benchmarks.sentence_files import read_bold, read_stereoset
from auditor.data.lexicons import read_lexicon as read_lexicon
from cli.flags import parse_architecture_args
from mitigations.training.preference_pairs import read_pairs
from probes.attribution.prompt_tokens import read_prompts

# More digits than the interpreter turns into a whole number.
DIGITS = "9" * 5000
DEEP = "[" * 100_000


@pytest.mark.parametrize("broken", ['{"data": ' + DIGITS + "}", '{"data": ' + DEEP])
@pytest.mark.parametrize(
    ("read", "name", "error"),
    [
        (read_stereoset, "x.json", DataError),
        (read_stereoset, "x.jsonl", DataError),
        (read_bbq, "x.jsonl", DataError),
        (read_bold, "x_prompt.json", DataError),
        (read_lexicon, "x.json", ConfigError),
        (read_prompts, "x.jsonl", DataError),
        (read_pairs, "x.jsonl", DataError),
    ],
)
def test_readers_say_what_is_wrong(
    read: Callable[[Path], object], name: str, error: type[AuditorError], broken: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(broken + "\n" + broken)
    with pytest.raises(error, match=r"x(_prompt)?\.json.*(whole number of thousands of digits|nested too deeply)\.$"):
        read(tmp_path / name)


def test_a_lexicon_in_toml_and_a_flag(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(f"category = {DIGITS}")
    with pytest.raises(ConfigError, match="cannot be read as TOML: it holds a whole number of thousands of digits"):
        read_lexicon(tmp_path / "x.toml")
    with pytest.raises(UsageError, match="--architecture-args is no JSON: it holds a whole number"):
        parse_architecture_args('{"hidden": ' + DIGITS + "}")


def test_the_place_of_a_mistake_is_named() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{\n1")
    assert "line 2 column 1" in why_unreadable(caught.value)
    with pytest.raises(tomllib.TOMLDecodeError) as toml:
        tomllib.loads("a = ")
    assert re.search("line 1|end of document", why_unreadable(toml.value))


def test_a_folder_that_may_be_written_to_and_not_looked_at_takes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.open

    def blind(path: str | Path, flags: int, *more: int) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied")
        return whole(path, flags, *more)

    monkeypatch.setattr(os, "open", blind)
    write_beside(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
