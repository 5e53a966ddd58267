"""Golden outputs are what was stored: reports of every probe, verified bundles, help texts; ``ruler.py`` makes them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.golden.ruler import (
    GROUPS,
    TEXTS,
    UNSTABLE,
    compare,
    diff_lines,
    digest,
    has_stored_text,
    is_in_group,
    items_of,
    main,
    normalize,
    normalize_record,
    normalize_text,
    read,
    stable_items,
    store,
    stored_digests,
)
from tests.quantifiers import all_of
from tests.warm_child import WarmChildren

# Those that take more than a second.
SLOW = {"bundles", "reports/token_attribution", "reports/membership_inference", "reports/lm_membership"}
SLOW |= {"reports/source_leakage", "reports/crows_pairs", "reports/robustness"}
HOW = """\
The tool's output changed. To see how, run this in a checkout from before the change, and with /tmp/after in this one:
    python -m tests.golden.ruler --only '{group}' --write /tmp/before
and then: python -m tests.golden.ruler --compare /tmp/before /tmp/after
If the change was intended, store it, and say in the commit what changed and why:
    python -m tests.golden.ruler --only '{group}' --store"""


def changes_in(group: str, children: WarmChildren) -> list[str]:
    """Lines that name each item of a group which differs from what is stored, with a diff where its text is stored."""
    found = stable_items(items_of(group, children))
    kept = {name: mark for name, mark in stored_digests().items() if is_in_group(name, group)}
    lines = [f"{name}: is stored, and is no longer made" for name in sorted(kept.keys() - found.keys())]
    for name, text in found.items():
        if name not in kept:
            lines.append(f"{name}: is new")
        elif digest(text) != kept[name]:
            lines.append(f"{name}: differs from what is stored")
            if (TEXTS / name).exists():
                lines += diff_lines(read(TEXTS / name), text, name)
    return lines


@pytest.mark.skipif(sys.platform != "linux", reason="evidence says by what the measuring process was confined")
@pytest.mark.filterwarnings("ignore:Secure RNG turned off")
@pytest.mark.parametrize(
    "group", [pytest.param(g, marks=[pytest.mark.slow(quick=True)] if g in SLOW else []) for g in GROUPS]
)
def test_every_item_is_what_it_was(group: str, warm_children: WarmChildren) -> None:
    pytest.importorskip("PIL", reason="the extra 'images' is not installed")
    pytest.importorskip("cryptography", reason="the extra 'evidence' is not installed")
    lines = changes_in(group, warm_children)
    if lines:
        pytest.fail("\n".join([*lines, HOW.format(group=group)]), pytrace=False)


def test_what_is_stored_is_of_a_group_and_its_text_of_its_digest() -> None:
    kept = stored_digests()
    assert all_of(sum(is_in_group(name, group) for group in GROUPS) == 1 for name in kept)
    assert {name for name in kept if has_stored_text(name)} == {
        str(path.relative_to(TEXTS)) for path in TEXTS.rglob("*") if path.is_file()
    }
    assert all_of(digest(read(TEXTS / name)) == kept[name] for name in kept if has_stored_text(name))
    assert stable_items(kept) == kept
    assert all_of(any(is_in_group(pattern, group) for group in GROUPS) for pattern in UNSTABLE)


def test_last_digits_times_and_digests_do_not_count_and_all_else_does() -> None:
    one, other = 0.1 + 0.2, 0.3
    assert one != other and normalize([{"a": one}, 1e-17, 3, "b"]) == [{"a": other}, 0.0, 3, "b"]
    assert normalize(0.300001) != normalize(0.300002) and normalize(float("inf")) == float("inf")
    said = "2026-01-31T10:11:12.123+00:00 /tmp/x/a.csv 0.30000000000000004 (12 s) sha256 0123456789abcdef of 12345678"
    assert normalize_text(said, "/tmp/x") == "TIME FOLDER/a.csv 0.3 (N s) sha256 DIGEST of 12345678"
    assert normalize_text("digest 4711081547110815... of 0.4711081547110815 and 471108154711") == (
        "digest DIGEST... of 0.471108 and 471108154711"
    )
    assert normalize_text("on 1 December 2026, 08:16 UTC") == "on TIME"
    assert normalize_text("0.123 of 2026-01-31") == "0.123 of 2026-01-31"
    record = {"created": "now", "duration_s": 3.2, "tool": {"name": "t", "version": "9"}, "findings": [{"value": one}]}
    assert normalize_record(record) == normalize_record({**record, "created": "then", "duration_s": 1.0})
    assert normalize_record(record)["findings"] == [{"value": other}]


def test_each_difference_is_printed_once_with_all_items_that_have_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for side, word in (("before", "told"), ("after", "said")):
        for name in ("a.txt", "b.txt", "same.txt"):
            (tmp_path / side).mkdir(exist_ok=True)
            (tmp_path / side / name).write_text(f"one\n{'two' if name == 'same.txt' else word}\n")
    (tmp_path / "after" / "new.txt").write_text("x")
    assert compare(tmp_path / "before", tmp_path / "after") == 3
    printed = capsys.readouterr().out
    assert "==== a.txt, b.txt\n" in printed and printed.count("-told\n+said") == 1 and "same.txt" not in printed
    assert f"only in {tmp_path / 'after'}" in printed and "3 of 4 items differ, in 2 different ways." in printed
    (tmp_path / "ends").mkdir()
    (tmp_path / "ends" / "a.txt").write_bytes(b"one\r\ntold\r\n")
    assert diff_lines("a\n", "a\r\n", "a.txt")[2:] == ["Line ends or space between tags differ."]
    assert compare(tmp_path / "before", tmp_path / "ends") == 3
    assert main(["--compare", str(tmp_path / "after"), str(tmp_path / "after")]) == 0
    assert main(["--compare", str(tmp_path / "before"), str(tmp_path / "after")]) == 1


def test_what_is_stored_of_some_groups_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.golden.ruler.DIGESTS", tmp_path / "digests.txt")
    monkeypatch.setattr("tests.golden.ruler.TEXTS", tmp_path / "texts")
    store({"help/a.txt": "a", "help/old.txt": "o", "reports/change/ideal.md": "m"}, ["help", "reports/change"])
    store({"help/a.txt": "b"}, ["help"])
    assert stored_digests() == {"help/a.txt": digest("b"), "reports/change/ideal.md": digest("m")}
    assert [path.name for path in (tmp_path / "texts").rglob("*.txt")] == ["a.txt"]
