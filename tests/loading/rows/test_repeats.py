"""How many rows of a file repeat others: exactly, in constant memory, and by all that the file says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from auditor.judging.measurement import Copies, why_doubtful
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows import row_warnings
from auditor.loading.rows.row_warnings import RepeatCount, repeats_in
from auditor.loading.rows.table_files import TableFile, open_table
from tests.quantifiers import all_of, none_of


def counted(frame: pd.DataFrame, batches: int = 1) -> Copies:
    found = RepeatCount()
    for part in np.array_split(np.arange(len(frame)), batches):
        found.add(frame.iloc[part])
    return found.result()


def many(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    names = rng.choice(["Ada", "Bo", None], n)
    return pd.DataFrame({"x": rng.normal(size=n), "name": names, "age": rng.integers(18, 90, n)})


@pytest.mark.parametrize("batches", [1, 3, 7])
def test_copies_are_those_that_pandas_finds(batches: int) -> None:
    rows = many(500)
    rows = pd.concat([rows, rows.iloc[:40], rows.iloc[:10]], ignore_index=True).sample(frac=1.0, random_state=1)
    found = counted(rows, batches)
    assert (found.n, found.copies, found.divisor) == (550, int(rows.duplicated().sum()), 1)
    assert counted(many(500), batches).copies == 0
    assert counted(rows.iloc[:0]).copies == 0


def test_a_whole_number_in_one_batch_is_the_same_with_a_gap_in_another() -> None:
    found = RepeatCount()
    found.add(pd.DataFrame({"x": [1, 2]}))
    found.add(pd.DataFrame({"x": [1.0, np.nan]}))
    assert found.result().copies == 1


def test_a_file_with_more_rows_than_are_remembered_has_a_share_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_warnings, "_MOST_REMEMBERED", 1 << 10)
    rows = many(20_000)
    rows = pd.concat([rows, rows.iloc[:2_000]], ignore_index=True)
    found = RepeatCount()
    for part in np.array_split(np.arange(len(rows)), 30):
        found.add(rows.iloc[part])
    assert found._rows.counts.size <= 1 << 10
    # 500 different rows at least are remembered, with all their copies.
    assert found.result().copies == pytest.approx(2_000, rel=0.35)
    twelve = RepeatCount()
    for _ in range(12):
        twelve.add(many(20_000))
    assert (twelve.result().copies, twelve.result().divisor) == (220_000, 12)


def test_rows_of_a_few_columns_repeat_by_chance_unless_all_do_alike() -> None:
    rng = np.random.default_rng(0)
    binary = pd.DataFrame(rng.integers(0, 2, (10_000, 3)), columns=list("abc"))
    found = counted(binary)
    assert (found.combinations, found.copies) == (8, 9_992) and found.by_chance
    assert why_doubtful(found) == ""
    twelve = counted(pd.concat([binary] * 12))
    assert twelve.divisor % 12 == 0 and not twelve.by_chance and "exact copies" in why_doubtful(twelve)
    # 400 rows, drawn again and again: each value of x goes with one job alone.
    few = pd.DataFrame({"x": rng.normal(size=400), "job": rng.integers(0, 10, 400)})
    again = counted(few.iloc[rng.integers(0, 400, 8_000)])
    assert again.combinations <= again.n and again.divisor == 1 and "exact copies" in why_doubtful(again)
    # What could differ and does not is in doubt, however few its columns are.
    wide = binary.assign(x=rng.normal(size=10_000))
    assert counted(wide).copies == 0 and counted(wide).combinations == 10_001
    assert "exact copies" in why_doubtful(counted(pd.concat([wide, wide.iloc[:200]])))


def coarse(n: int, seed: int, columns: int = 8, kinds: int = 6) -> pd.DataFrame:
    """People of some kinds, whose answers depend on each other by their kind, and so in more than pairs."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(kinds, n, p=rng.dirichlet(np.ones(kinds)))
    shares = rng.dirichlet(np.full(5, 0.4), (columns, kinds)).cumsum(axis=2)
    values = (shares[:, kind] < rng.random((columns, n, 1))).sum(axis=2).clip(0, 4)
    return pd.DataFrame(dict(zip("abcdefghijkl", values, strict=False)))


PASTED: dict[str, Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]] = {
    "twice": lambda rows, rng: pd.concat([rows.iloc[: len(rows) // 2]] * 2),
    "in part": lambda rows, rng: pd.concat([rows.iloc[: len(rows) // 3]] * 2 + [rows.iloc[len(rows) // 3 :]]),
    "drawn again from a quarter": lambda rows, rng: rows.iloc[rng.integers(0, len(rows) // 4, len(rows))],
    "drawn again from a few": lambda rows, rng: rows.iloc[rng.integers(0, len(rows) // 20, len(rows))],
}


def test_people_of_coarse_columns_agree_by_chance_and_pasted_rows_are_found() -> None:
    shares, rng = [], np.random.default_rng(0)
    for seed in range(20):
        rows = coarse(4_000, seed)
        found = counted(rows)
        shares.append(found.share)
        assert found.expected > found.n - found.copies and why_doubtful(found) == ""
        for name in ("twice", "drawn again from a quarter", "drawn again from a few"):
            assert "exact copies" in why_doubtful(counted(PASTED[name](rows, rng))), (name, seed)
    assert max(shares) > 0.5 and np.median(shares) > 0.2


def test_a_third_of_coarse_rows_that_was_pasted_is_found_in_a_large_file() -> None:
    rows = coarse(20_000, 1, columns=12)
    assert counted(rows).share > 0.1 and why_doubtful(counted(rows)) == ""
    assert why_doubtful(counted(PASTED["in part"](rows, np.random.default_rng(0))))


def test_coarse_rows_in_parts_are_judged_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_warnings, "_SAMPLED", 1_000)
    rows = coarse(9_000, 3).sort_values("a")
    whole, parts = counted(rows), RepeatCount()
    for part in np.array_split(np.arange(len(rows)), 13):
        parts.add(rows.iloc[part])
    assert parts.result().expected == pytest.approx(whole.expected, rel=0.05) and not why_doubtful(parts.result())
    # One column of many values, and equal rows are no longer a matter of course.
    fine = counted(rows.assign(x=np.arange(len(rows)) // 2))
    assert fine.expected == 0


@pytest.mark.parametrize(("copies", "said"), [(0, False), (10, False), (11, True)])
def test_more_than_one_row_in_a_hundred_is_too_many(copies: int, said: bool) -> None:
    assert bool(why_doubtful(Copies(n=1000, copies=copies, combinations=1001))) is said
    assert why_doubtful(None) == ""
    assert why_doubtful(Copies(n=0, copies=0, combinations=0)) == ""


def file_of(frame: pd.DataFrame, folder: Path) -> TableFile:
    frame.to_csv(folder / "rows.csv", index=False)
    return open_table(str(folder / "rows.csv"))


def test_rows_that_agree_in_what_was_read_may_differ_in_the_rest_of_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    read = pd.DataFrame({"age": rng.integers(18, 60, 2_000), "job": rng.integers(0, 400, 2_000)})
    spec = DataSpec(path="rows.csv")
    assert why_doubtful(counted(read))
    found, notes = repeats_in(file_of(read.assign(key=np.arange(2_000)), tmp_path), read, spec)
    assert found is not None and found.copies == 0 and notes == []
    found, notes = repeats_in(file_of(read, tmp_path), read, spec)
    assert found == counted(read) and [why_doubtful(found)] == notes


def test_whoever_says_what_repeated_rows_are_is_not_asked(tmp_path: Path) -> None:
    rows = pd.concat([many(100)] * 2)
    file = file_of(rows, tmp_path)
    assert repeats_in(file, rows, DataSpec(path="rows.csv", cluster="name")) == (None, [])
    found, (note,) = repeats_in(file, rows, DataSpec(path="rows.csv", copies_are_real=True))
    assert found is None and note.endswith("--copies-are-real.")


def test_a_column_that_numbers_the_rows_hides_no_file_that_was_pasted(tmp_path: Path) -> None:
    """As pandas writes one by default; nor does a cluster column in which every row is another."""
    twelve = pd.concat([many(200)] * 12, ignore_index=True)
    numbered = twelve.assign(row=np.arange(len(twelve)))
    file = file_of(numbered, tmp_path)
    found, notes = repeats_in(file, numbered, DataSpec(path="rows.csv"))
    assert found is not None and found.share > 0.9 and why_doubtful(found) and notes
    found, _ = repeats_in(file, twelve, DataSpec(path="rows.csv"))
    assert found is not None and why_doubtful(found), "whether or not the numbers were read"
    streamed = RepeatCount()
    for part in np.array_split(np.arange(len(twelve)), 3):
        streamed.add(twelve.iloc[part])
    found, _ = repeats_in(file, streamed, DataSpec(path="rows.csv"))
    assert found is not None and why_doubtful(found), "nor as they stream by"
    across, _ = repeats_in(file, numbered, DataSpec(path="rows.csv", cluster="row"))
    assert across is not None and why_doubtful(across)
    # Copies of one cluster are what the cluster is for.
    together = twelve.assign(who=np.tile(np.arange(200), 12))
    file = file_of(together, tmp_path)
    assert repeats_in(file, together, DataSpec(path="rows.csv", cluster="who"))[0] is None
    # People of their own numbers who happen to agree, as many do and many do not, are people.
    rng = np.random.default_rng(3)
    ages, debts = rng.geometric(0.05, 3_000), rng.geometric(0.3, 3_000)
    people = pd.DataFrame({"age": ages, "debts": debts, "n": np.arange(3_000)})
    file = file_of(people, tmp_path)
    assert not why_doubtful(repeats_in(file, people, DataSpec(path="rows.csv"))[0])
    streamed = RepeatCount()
    streamed.add(people.drop(columns="n"))
    assert not why_doubtful(repeats_in(file, streamed, DataSpec(path="rows.csv"))[0])


def test_short_texts_that_are_read_number_no_rows(tmp_path: Path) -> None:
    """Beside a label and a group, as many of each, they are all that tells one row from another."""
    names = [f"{a}{b}" for a in ("Ada", "Ben", "Eve", "Ida", "Max", "Tom") for b in ("lyn", "son", "ric", "bel", "ton")]
    said = [
        f"{name} is a {how} {who}" for name in names for how in ("good", "bad") for who in ("man", "woman", "nurse")
    ]
    place = np.arange(len(said))
    comments = pd.DataFrame({"text": said, "label": place % 2, "group": place // 2 % 2})
    file = file_of(comments, tmp_path)
    for cluster in (None, "group"):
        found, _ = repeats_in(file, comments, DataSpec(path="rows.csv", text="text", cluster=cluster))
        assert not why_doubtful(found)
    # Where nobody reads them as texts, they are as good as numbers.
    assert why_doubtful(repeats_in(file, comments, DataSpec(path="rows.csv"))[0])
    twice = pd.concat([comments] * 2, ignore_index=True)
    assert why_doubtful(repeats_in(file_of(twice, tmp_path), twice, DataSpec(path="rows.csv", text="text"))[0])


def test_answers_that_differ_are_no_copies(tmp_path: Path) -> None:
    """Where what was read allows for few different rows, the rest of the file is looked at all the same."""
    rng = np.random.default_rng(4)
    rows = pd.DataFrame({"sex": rng.choice(["f", "m"], 120), "y": rng.integers(0, 2, 120), "score": rng.random(120)})
    pasted = pd.concat([rows] * 30, ignore_index=True).iloc[:-1]
    for whole, doubted in ((rows, False), (pasted, True)):
        file = file_of(whole, tmp_path)
        found, _ = repeats_in(file, whole[["sex", "y"]], DataSpec(path="rows.csv"))
        assert bool(why_doubtful(found)) is doubted and found is not None and (found.copies > 0) is doubted


def test_columns_that_name_somebody_are_known_by_name_and_by_repeating(tmp_path: Path) -> None:
    n = np.arange(400)
    rows = many(400).assign(
        customer_id=n // 4,
        patient=n % 100,
        row_id=n,
        few_id=n % 5,
        identity=n % 100,
        siteNo=n % 50,
        document=n // 2,
        user_id=np.maximum(n, 2),
    )
    _, notes = repeats_in(file_of(rows, tmp_path), rows, DataSpec(path="rows.csv"))
    named = ("customer_id", "patient", "document")
    assert len(notes) == 3
    assert all_of(f"Column {name!r} names" in note for name, note in zip(named, notes, strict=True))
    assert none_of("row_id" in note for note in notes)


def test_of_more_ids_than_are_remembered_the_number_is_said_to_be_about_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = many(3_000).assign(patient=np.arange(3_000) % 1_500)
    file, spec = file_of(rows, tmp_path), DataSpec(path="rows.csv", copies_are_real=True)
    assert repeats_in(file, rows, spec)[1][1].startswith("Column 'patient' names 1,500 in 3,000 rows")
    monkeypatch.setattr(row_warnings, "_MOST_REMEMBERED", 1_000)
    assert "names about 1," in repeats_in(file, rows, spec)[1][1]


def test_counts_of_batches_add_as_those_of_all_rows_do() -> None:
    rows = np.random.default_rng(0).integers(0, 300, 2_000).astype(np.uint64)
    counted = RepeatCount()._rows
    for part in np.split(rows, [0, 700, 701, 1_900]):
        counted.add(part)
    different, n = np.unique(rows, return_counts=True)
    assert np.array_equal(counted._digests, different) and np.array_equal(counted.counts, n)
