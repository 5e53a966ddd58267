"""Readers of the published benchmarks: what they make of a right file, and what they say of a wrong one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from auditor.core.errors import DataError, UsageError
from auditor.data.benchmarks.accompanying_files import read_winobias, read_winogender
from auditor.data.benchmarks.bbq_and_veto_files import read_bbq
from auditor.data.benchmarks.benchmark import Benchmark
from auditor.data.benchmarks.sentence_files import read_bold, read_crows_pairs, read_honest, read_stereoset

CROWS = ",sent_more,sent_less,stereo_antistereo,bias_type,anon_writer\n"
READERS: dict[str, Callable[[Path], Benchmark[object]]] = {
    "crows_pairs": read_crows_pairs,
    "stereoset": read_stereoset,
    "winobias": read_winobias,
    "winogender": read_winogender,
    "bbq": read_bbq,
    "honest": read_honest,
    "bold": read_bold,
}  # type: ignore[dict-item]


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_what_is_absent_empty_or_something_else(name: str, tmp_path: Path) -> None:
    read = READERS[name]
    file = "pro_stereotyped_type1.txt.dev"
    with pytest.raises(UsageError, match="There is no"):
        read(tmp_path / file)
    with pytest.raises(DataError, match="is empty"):
        read(write(tmp_path, file, " \n"))
    (tmp_path / file).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no UTF-8 text"):
        read(tmp_path / file)
    write(tmp_path, file.replace("pro", "anti"), "name;value\nx;1\n")
    with pytest.raises(DataError):
        read(write(tmp_path, file, "name;value\nx;1\n"))


# ---- CrowS-Pairs ---------------------------------------------------------------------------------------------------


def test_crows_pairs(tmp_path: Path) -> None:
    text = CROWS + '0,"The poor, they say, lie.","The rich, they say, lie.",antistereo,socioeconomic,a0\n'
    found = read_crows_pairs(write(tmp_path, "crows.csv", text))
    (pair,) = found.examples
    assert (pair.more, pair.less) == ("The poor, they say, lie.", "The rich, they say, lie.")
    assert (pair.category, pair.clusters) == ("socioeconomic", ("a0",))
    assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert found.source == f"crows.csv, sha256 {found.sha256}, 1 examples"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            CROWS.replace("sent_less", "sent_les"),
            "has no column 'sent_less', so it is no CrowS-Pairs file; did you mean",
        ),
        (CROWS, "has a header and no rows"),
        (CROWS + "0,a b,,stereo,age,a0\n", "row 2, has nothing in the column 'sent_less'"),
        (CROWS + '0,"a "b" c",d,stereo,age,a0\n', "cannot be read as a table after line 1"),
    ],
)
def test_crows_pairs_of_another_shape(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_crows_pairs(write(tmp_path, "crows.csv", text))


def test_crows_pairs_in_french(tmp_path: Path) -> None:
    """Tabs between columns, quotation marks around a sentence that holds some, and numbers of its own."""
    text = "\tsent_more\tsent_less\tstereo_antistereo\tbias_type\n"
    text += "17\tLes femmes, dit-on, mentent.\tLes hommes, dit-on, mentent.\tstereo\tgender\n"
    text += 'LA23\t"Le vieux dit ""non""."\t"Le jeune dit ""non""."\tstereo\tautre\n'
    found = read_crows_pairs(write(tmp_path, "crows_pairs_FR.csv", text))
    assert [(p.more, p.less, p.category, p.clusters, p.id) for p in found.examples] == [
        ("Les femmes, dit-on, mentent.", "Les hommes, dit-on, mentent.", "gender", ("femmes / hommes",), "17"),
        ('Le vieux dit "non".', 'Le jeune dit "non".', "autre", ("jeune / vieux",), "LA23"),
    ]
    assert "add one" in found.weak and found.templates == "exchanged words"
    assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()
    plain = read_crows_pairs(write(tmp_path, "x.csv", CROWS[1:] + "a,b,stereo,age,w\nc,d,stereo,age,w\n"))
    assert [p.id for p in plain.examples] == ["0", "1"], (
        "without a column of numbers they are counted as the file's are"
    )


@pytest.mark.parametrize("lost", ["", ",", ", "])
def test_crows_pairs_of_which_one_writer_is_not_known_are_clustered_by_their_words(tmp_path: Path, lost: str) -> None:
    rows = [f"{i},The {a} {i} lie.,The {b} {i} lie.,stereo,x" for i, (a, b) in enumerate([("old", "young")] * 2)]
    rows += ["2,The young 2 lie.,The old 2 lie.,antistereo,x", "3,All women 3 lie.,Men 3 lie.,stereo,x"]
    whole = read_crows_pairs(
        write(tmp_path, "whole.csv", CROWS + "".join(f"{row},a{i}\n" for i, row in enumerate(rows)))
    )
    assert [p.clusters for p in whole.examples] == [("a0",), ("a1",), ("a2",), ("a3",)]
    assert (whole.weak, whole.note, whole.templates) == ("", "", "writers")
    text = CROWS + "".join(f"{row},a{i}\n" for i, row in enumerate(rows[:3])) + f"{rows[3]}{lost}\n"
    found = read_crows_pairs(write(tmp_path, "crows.csv", text))
    of_words = "All women 3 lie. / Men 3 lie."
    assert [p.clusters for p in found.examples] == [("old / young",)] * 3 + [(of_words,)]
    assert "clustered by the words" in found.source and "anon_writer" in found.weak


def pairs_with(*more: str, n: int = 400) -> str:
    return (
        CROWS
        + "".join(f"{i},The old {i} lie.,The young {i} lie.,stereo,age,a{i % 9}\n" for i in range(n))
        + "".join(more)
    )


def test_pairs_that_stand_twice_or_exchanged_are_named_and_more_than_a_few_are_refused(tmp_path: Path) -> None:
    again = [f'{i},"The OLD {i}, lie!",The young {i} lie.,stereo,age,b{i}\n' for i in range(9)]
    exchanged = [f"{i},The young {i} lie.,The old {i} lie,stereo,age,c{i}\n" for i in range(400)]
    few = read_crows_pairs(write(tmp_path, "few.csv", pairs_with(*again[:2], exchanged[5])))
    assert (
        "1 of 403 pairs stand there before with their two sentences exchanged; 2 of 403 pairs repeat another"
        in few.note
    )
    assert len(few.examples) == 403
    with pytest.raises(DataError, match="'twice.csv': 9 of 409 pairs repeat another. Give the published file"):
        read_crows_pairs(write(tmp_path, "twice.csv", pairs_with(*again)))
    with pytest.raises(DataError, match="400 of 800 pairs stand there before with their two sentences exchanged"):
        read_crows_pairs(write(tmp_path, "mirrored.csv", pairs_with(*exchanged)))
    wide = [chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in "The young"]
    for other in ("The_young {} lie.", "The young\u200b {} lie.", "".join(wide) + " {} lie."):
        spelt = [f"{i},{other.format(i)},The old {i} lie.,stereo,age,c{i}\n" for i in range(400)]
        with pytest.raises(DataError, match="400 of 800 pairs stand there before with their two sentences exchanged"):
            read_crows_pairs(write(tmp_path, "spelt.csv", pairs_with(*spelt)))
    line = "[The nurse {}] met the guest because [{}] left.\n"
    pro, anti = (
        ["".join(line.format(i, w) for i in range(4)) for w in words] for words in (("he", "she"), ("she", "he"))
    )
    with pytest.raises(DataError, match="4 of 8 pairs stand there before with their two sentences exchanged"):
        read_winobias(winobias(tmp_path, "".join(pro), "".join(anti)))


def test_the_published_pairs_have_what_it_takes_to_be_judged(test_data: Path) -> None:
    for read, where, repeats in (
        (read_crows_pairs, "crows_pairs/crows_pairs_anonymized.csv", "1 of 1,508 pairs repeat another"),
        (read_winobias, "winobias", "3 of 1,584 pairs repeat another"),
    ):
        if not (test_data / where).exists():
            pytest.skip(f"AUDITOR_TEST_DATA has no {where}")
        found = read(test_data / where)
        assert found.weak == "" and repeats in found.note


# ---- StereoSet -----------------------------------------------------------------------------------------------------


def stereoset_example(context: str = "The nurse is BLANK.", **more: object) -> dict[str, object]:
    sentences = [
        {"sentence": f"The nurse is {word}.", "gold_label": label, "labels": []}
        for word, label in (("kind", "stereotype"), ("rude", "anti-stereotype"), ("seven", "unrelated"))
    ]
    return {
        "id": "x1", "target": "nurse", "bias_type": "profession", "context": context, "sentences": sentences,
    } | more  # fmt: skip


def test_stereoset_json(tmp_path: Path) -> None:
    inter = stereoset_example("He is a nurse.")
    content = {"version": "1", "data": {"intrasentence": [stereoset_example()], "intersentence": [inter]}}
    found = read_stereoset(write(tmp_path, "dev.json", json.dumps(content, indent=1)))
    assert [e.part for e in found.examples] == ["intrasentence", "intersentence"]
    first = found.examples[0]
    assert (first.stereotype, first.anti_stereotype, first.unrelated) == (
        "The nurse is kind.", "The nurse is rude.", "The nurse is seven.",
    )  # fmt: skip
    assert (first.target, first.bias_type) == ("nurse", "profession")


def test_stereoset_json_lines_with_numbered_labels(tmp_path: Path) -> None:
    columns = {"sentence": ["anti", "stereo", "none"], "gold_label": [0, 1, 2]}
    rows = [stereoset_example(sentences=columns), stereoset_example("He is a nurse.", sentences=columns)]
    found = read_stereoset(write(tmp_path, "dev.jsonl", "\n".join(json.dumps(r) for r in rows)))
    assert [(e.part, e.stereotype, e.unrelated) for e in found.examples] == [
        ("intrasentence", "stereo", "none"), ("intersentence", "stereo", "none"),
    ]  # fmt: skip


def flat_row(**more: object) -> dict[str, object]:
    return {
        "type": "intrasentence", "target": "nurse", "bias_type": "profession", "context": "The nurse is BLANK.",
        "stereotype": "The nurse is kind.", "anti-stereotype": "The nurse is rude.", "unrelated": "The nurse is seven.",
    } | more  # fmt: skip


def test_stereoset_with_a_key_for_each_text(tmp_path: Path) -> None:
    rows = [flat_row(), flat_row(type="intersentence", context="He is a nurse."), stereoset_example()]
    found = read_stereoset(write(tmp_path, "s.jsonl", "\n".join(json.dumps(row) for row in rows)))
    assert [(e.id, e.part, e.stereotype, e.anti_stereotype, e.unrelated) for e in found.examples[:2]] == [
        ("1", "intrasentence", "The nurse is kind.", "The nurse is rude.", "The nurse is seven."),
        ("2", "intersentence", "The nurse is kind.", "The nurse is rude.", "The nurse is seven."),
    ]
    assert found.examples[2].id == "x1"
    assert read_stereoset(write(tmp_path, "one.jsonl", json.dumps(flat_row()))).examples == found.examples[:1]
    for more, message in (({"type": "both"}, "type must be"), ({"unrelated": None}, "'unrelated' must be a text")):
        with pytest.raises(DataError, match=message):
            read_stereoset(write(tmp_path, "x.jsonl", json.dumps(flat_row(**more)) + "\n" + json.dumps(flat_row())))


def labelled(*gold: object) -> list[dict[str, object]]:
    return [
        {"id": str(i), "sentence": f"The nurse is w{i}.", "gold_label": label, "labels": TIED}
        for i, label in enumerate(gold)
    ]


# Annotators disagree, and may be undecided: the published gold label is what counts.
TIED = [{"label": "stereotype", "human_id": "a"}, {"label": "related", "human_id": "b"}]


@pytest.mark.parametrize(
    "gold",
    [
        ("stereotype", "anti-stereotype", "unrelated"), ("Stereotype", "Anti_Stereotype", " unrelated "),
        (1, 0, 2), ("1", "0", "2"), (1.0, 0.0, 2.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["json", "lines", "list"])
def test_stereoset_labels_in_all_their_spellings(tmp_path: Path, gold: tuple[object, ...], form: str) -> None:
    example = stereoset_example("The nurse\u2028is BLANK.", sentences=labelled(*gold), id=3)
    text = {
        "json": json.dumps({"data": {"intrasentence": [example, example]}}, ensure_ascii=False),
        "lines": "\n\n" + "\r\n\r\n".join([json.dumps(example, ensure_ascii=False)] * 2) + "\n\n",
        "list": json.dumps([example, example], indent=1),
    }[form]
    found = read_stereoset(write(tmp_path, "dev.json", "\ufeff" + text))
    assert len(found.examples) == 2
    e = found.examples[1]
    assert (e.part, e.stereotype, e.anti_stereotype, e.unrelated) == (
        "intrasentence", "The nurse is w0.", "The nurse is w1.", "The nurse is w2.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ((True, 0, 2), "gold_label True is none of"), ((["stereotype"], 0, 2), "is none of"),
        ((None, 0, 2), "gold_label None is none of"), ((1, 1, 2), "two sentences labelled 'stereotype'"),
        ((3, 0, 2), "gold_label 3 is none of"), ((1, 0), "no sentence labelled 'unrelated'"),
    ],
)  # fmt: skip
def test_stereoset_labels_that_say_nothing(tmp_path: Path, gold: tuple[object, ...], message: str) -> None:
    content = {"data": {"intersentence": [stereoset_example("He is a nurse.", sentences=labelled(*gold))]}}
    with pytest.raises(DataError, match=message):
        read_stereoset(write(tmp_path, "dev.json", json.dumps(content)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rows": []}, "no data.intrasentence or data.intersentence, so it is no StereoSet"),
        ({"data": {"intrasentence": []}}, "holds no example"),
        ({"data": {"intrasentence": {"a": 1}}}, "must be a list of examples"),
        ({"data": {"intrasentence": [3]}}, "example 1 is no JSON object"),
        ({"data": {"intrasentence": [{"sentences": []}]}}, "no sentence labelled 'stereotype'"),
        ({"data": {"intrasentence": [stereoset_example(sentences="x")]}}, "sentences must be a list"),
        ({"data": {"intrasentence": [stereoset_example(sentences=[{"sentence": "a"}])]}}, "has no 'gold_label'"),
        (
            {"data": {"intrasentence": [stereoset_example(sentences=[{"sentence": "a", "gold_label": "odd"}])]}},
            "the gold_label 'odd' is none of",
        ),
        ({"data": {"intrasentence": [stereoset_example(target=None)]}}, "'target' must be a text"),
        (
            {"data": {"intrasentence": [stereoset_example(sentences={"sentence": ["a"], "gold_label": [1, 2]})]}},
            "of the same length",
        ),
    ],
)
def test_stereoset_of_another_shape(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_stereoset(write(tmp_path, "dev.json", json.dumps(content)))


# ---- WinoBias and Winogender ---------------------------------------------------------------------------------------


def winobias(folder: Path, pro: str, anti: str) -> Path:
    write(folder, "anti_stereotyped_type1.txt.dev", anti)
    return write(folder, "pro_stereotyped_type1.txt.dev", pro)


def test_winobias(tmp_path: Path) -> None:
    write(tmp_path, "male_occupations.txt", "developer\nchief\n")
    write(tmp_path, "female_occupations.txt", "designer\n")
    line = "1 [The developer] argued with the designer because [{}] did not like it.\n"
    file = winobias(tmp_path, line.format("he"), line.format("she"))
    for path in (file, tmp_path):
        (pair,) = read_winobias(path).examples
        assert pair.more == "The developer argued with the designer because he did not like it."
        assert pair.less == pair.more.replace(" he ", " she ")
        assert (pair.category, pair.clusters) == ("type1", ("designer and developer", "developer"))


@pytest.mark.parametrize(
    ("pro", "anti", "message"),
    [
        ("1 [A] saw [him].\n2 [A] saw [him].", "1 [A] saw [her].", "has 2 lines and its anti_stereotyped partner 1"),
        ("1 A saw him.", "1 A saw her.", r"two \[bracketed\] mentions"),
        ("1 [A] saw [him].", "1 [A] saw [him].", "the same sentence in both files"),
    ],
)
def test_winobias_of_another_shape(tmp_path: Path, pro: str, anti: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_winobias(winobias(tmp_path, pro, anti))


def test_winobias_needs_both_files(tmp_path: Path) -> None:
    file = winobias(tmp_path, "1 [A] saw [him].", "1 [A] saw [her].")
    (tmp_path / "anti_stereotyped_type1.txt.dev").unlink()
    with pytest.raises(UsageError, match="There is no WinoBias file"):
        read_winobias(file)
    with pytest.raises(DataError, match="must be a pro_stereotyped"):
        read_winobias(write(tmp_path, "sentences.txt", "x"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pro_stereotyped"):
        read_winobias(tmp_path / "empty")


def test_winogender_with_and_without_statistics(tmp_path: Path) -> None:
    rows = [f"nurse.patient.1.{g}.txt\tThe nurse said {w} left." for g, w in (("male", "he"), ("female", "she"))]
    file = write(
        tmp_path, "all_sentences.tsv", "\n".join(["sentid\tsentence", *rows, "nurse.someone.0.neutral.txt\tX."])
    )
    (example,) = read_winogender(file).examples
    assert (example.occupation, example.participant, example.answer) == ("nurse", "patient", "1")
    assert (example.male, example.female) == ("The nurse said he left.", "The nurse said she left.")
    assert example.percent_female is None
    write(tmp_path, "occupations-stats.tsv", "occupation\tbergsma_pct_female\tbls_pct_female\nnurse\t90\t91.5\n")
    found = read_winogender(tmp_path)
    assert found.examples[0].percent_female == 91.5
    assert "occupation statistics sha256" in found.source
    write(tmp_path, "occupations-stats.tsv", "occupation\tbls_pct_female\nnurse\tmost\n")
    with pytest.raises(DataError, match="must be a number"):
        read_winogender(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\tsentence\n1\tx\n", "has no column 'sentid'"),
        ("sentid\tsentence\nnurse\tx\n", "is not occupation.participant.answer.gender.txt"),
        ("sentid\tsentence\nnurse.a.1.male.txt\tx\n", "no sentence with both"),
    ],
)
def test_winogender_of_another_shape(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_winogender(write(tmp_path, "all_sentences.tsv", text))


# ---- BBQ -----------------------------------------------------------------------------------------------------------


def bbq_row(**more: object) -> dict[str, object]:
    return {
        "example_id": 7, "question_index": "3", "question_polarity": "neg", "context_condition": "ambig",
        "category": "Age", "context": "A and B met.", "question": "Who forgot?", "label": 2,
        "ans0": "The grandson", "ans1": "The grandfather", "ans2": "Not known",
        "answer_info": {"ans0": ["grandson", "nonOld"], "ans1": ["grandfather", "old"], "ans2": ["x", "unknown"]},
        "additional_metadata": {"subgroup": None, "stereotyped_groups": ["old"]},
    } | more  # fmt: skip


def test_bbq(tmp_path: Path) -> None:
    rows = [bbq_row(), bbq_row(question_polarity="nonneg", context_condition="disambig", label=0)]
    rows.append(bbq_row(additional_metadata={"stereotyped_groups": ["Martian"]}))
    found = read_bbq(write(tmp_path, "Age.jsonl", "\n\n".join(json.dumps(r) for r in rows)))
    assert [e.biased for e in found.examples] == [1, 0, None]
    assert [(e.condition, e.label, e.unknown) for e in found.examples][:2] == [("ambig", 2, 2), ("disambig", 0, 2)]
    assert found.examples[0].template == "Age 3"
    assert found.examples[0].answers == ("The grandson", "The grandfather", "Not known")
    assert "not determined for 1" in found.source
    assert read_bbq(tmp_path).examples == found.examples


@pytest.mark.parametrize(
    ("named", "stereotyped"),
    [(["Maria", "F"], ["woman", "girl"]), (["Jamal", "M-Black"], ["Black"]), (["x", "lowSES"], ["low SES"])],
)
def test_bbq_knows_a_group_by_its_other_names(tmp_path: Path, named: list[str], stereotyped: list[str]) -> None:
    info = {"ans0": ["other", "M-White"], "ans1": named, "ans2": ["x", "unknown"]}
    row = bbq_row(answer_info=info, additional_metadata={"stereotyped_groups": stereotyped})
    assert read_bbq(write(tmp_path, "x.jsonl", json.dumps(row))).examples[0].biased == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"context_condition": "clear"}, "must be 'ambig' or 'disambig'"),
        ({"question_polarity": "x"}, "must be 'neg' or 'nonneg'"),
        ({"label": 5}, "label must be 0, 1 or 2"),
        ({"answer_info": {}}, "answer_info needs ans0"),
        ({"answer_info": {f"ans{i}": ["a", "b"] for i in range(3)}}, "exactly one answer"),
        ({"label": True}, "label must be 0, 1 or 2"),
        ({"answer_info": {"ans0": [], "ans1": ["a", "b"], "ans2": ["x", "unknown"]}}, "answer_info needs ans0"),
    ],
)
def test_bbq_of_another_shape(tmp_path: Path, more: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_bbq(write(tmp_path, "x.jsonl", json.dumps(bbq_row(**more))))


@pytest.mark.parametrize(
    "metadata", [None, {}, {"stereotyped_groups": None}, {"stereotyped_groups": []}, {"stereotyped_groups": "Martian"}]
)
def test_bbq_without_its_stereotyped_groups_counts_for_accuracy_only(tmp_path: Path, metadata: object) -> None:
    rows = [bbq_row(additional_metadata=metadata), bbq_row()]
    if metadata is None:
        del rows[0]["additional_metadata"]
    found = read_bbq(write(tmp_path, "Age.jsonl", "\ufeff\n" + "\r\n\r\n".join(json.dumps(r) for r in rows) + "\n\n"))
    assert [e.biased for e in found.examples] == [None, 1]
    assert "not determined for 1" in found.source and "additional_metadata.csv beside the file" in found.source


def test_bbq_reads_the_targets_that_lie_beside_it(tmp_path: Path) -> None:
    """As the authors' analysis does: the metadata decide, and where they say nothing the names of the groups do."""
    unclear = {"additional_metadata": {"stereotyped_groups": ["Martian"]}}
    rows = [
        bbq_row(example_id=1, **unclear), bbq_row(example_id=2, question_polarity="nonneg", **unclear),
        bbq_row(example_id=3), bbq_row(example_id=4, **unclear), bbq_row(example_id=5, label="2"),
    ]  # fmt: skip
    text = "category,question_index,example_id,target_loc,label_type\n"
    text += "Age,3,1,1,label\nAge,3,2,1.0,label\nAge,3,3,NA,label\nAge,3,5,0,label\nRace,3,4,0,label\n"
    write(tmp_path, "additional_metadata.csv", text)
    found = read_bbq(write(tmp_path, "Age.jsonl", "\n".join(json.dumps(r) for r in rows)))
    assert [e.biased for e in found.examples] == [1, 0, 1, None, 0]
    assert "targets by additional_metadata.csv" in found.source
    alone = read_bbq(write(tmp_path, "Age.jsonl", json.dumps(rows[0])))
    assert alone.sha256 != hashlib.sha256((tmp_path / "Age.jsonl").read_bytes()).hexdigest(), "both files are in it"
    write(tmp_path, "additional_metadata.csv", text.replace("Age,3,1,1", "Age,3,1,7"))
    with pytest.raises(DataError, match="row 2: target_loc must be 0, 1 or 2, not '7'"):
        read_bbq(tmp_path)
    write(tmp_path, "additional_metadata.csv", text.replace("target_loc", "target"))
    with pytest.raises(DataError, match="no column 'target_loc'"):
        read_bbq(tmp_path)


@pytest.mark.parametrize(
    ("info", "biased"),
    [(["grandfather"], None), (["old"], 1), (["Ann", "F", "old"], 1), ("old", 1)],
)
def test_bbq_answers_are_named_in_lists_of_any_length(tmp_path: Path, info: object, biased: int | None) -> None:
    row = bbq_row(answer_info={"ans0": ["grandson", "nonOld"], "ans1": info, "ans2": ["Unknown"]})
    assert read_bbq(write(tmp_path, "x.jsonl", json.dumps(row))).examples[0].biased == biased


def spanish_row(**more: object) -> dict[str, object]:
    return {
        "instance_id": 4, "template_id": 2, "version": "a", "question_polarity": "neg", "context_condition": "ambig",
        "category": "Age", "stereotyped_groups": ["viejo"], "proper_nouns_only": False, "question_type": "n/a",
        "answer_info": {"ans0": ["el abuelo", "hombre, viejo"], "ans1": ["el nieto", "joven"], "ans2": ["unknown"] * 2},
        "context": "A y B se vieron.", "question": "¿Quién se olvidó?", "ans0": "El abuelo", "ans1": "El nieto",
        "ans2": "unknown", "label": 2,
    } | more  # fmt: skip


def test_bbq_of_spain(tmp_path: Path) -> None:
    """The group is what its info ends in; with no group listed, the kind of question decides."""
    clear: dict[str, object] = {"context_condition": "disambig", "stereotyped_groups": []}
    rows = [
        spanish_row(), spanish_row(question_polarity="nonneg"), spanish_row(stereotyped_groups=["otro"]),
        spanish_row(label=0, question_type="pro-stereo", **clear),
        spanish_row(label=0, question_type="anti-stereo", **clear), spanish_row(question="Qui se'n va oblidar?"),
    ]  # fmt: skip
    found = read_bbq(write(tmp_path, "Age.full.jsonl", "\n".join(json.dumps(r) for r in rows))).examples
    assert [e.biased for e in found] == [0, 1, None, 0, 1, 0]
    assert [e.language for e in found] == ["es"] * 5 + ["ca"]
    assert [found[0].answers[2], found[-1].answers[2]] == ["No se puede saber", "No es pot saber"]
    assert {(e.id, e.template, e.unknown) for e in found} == {("4", "Age 2", 2)}
    with pytest.raises(DataError, match="line 1: answer_info needs ans0"):
        read_bbq(write(tmp_path, "x.jsonl", json.dumps(spanish_row(answer_info={"ans0": []}))))


def implicit_row(number: int, question: str, **more: object) -> dict[str, object]:
    unknown = ("Can't answer", "Not enough info", "Cannot be determined.", "Undetermined", "Not answerable")[number % 5]
    return {
        "context": "Amina and David met.", "question": question, "answers": ["Amina", unknown, "David"],
        "label": 1 if number % 2 == 0 else 2, "attribute_present_implicitly": True, "example_id": number,
    } | more  # fmt: skip


def test_bbq_with_implicit_cues(tmp_path: Path) -> None:
    asked = ("Who lied?", "Who lied?", "Who did not?", "Who did not?")
    rows = [implicit_row(i, asked[i % 4]) for i in range(40)]
    rows += [implicit_row(i, ("Who ran?", "Who ran?", "Who sat?", "Who sat?")[i % 4]) for i in range(40, 80)]
    del rows[7]["attribute_present_implicitly"]
    rows[9] |= {"answers": ["Amina", "David"]}
    rows[12] |= {"label": 0}
    file = write(tmp_path, "Religion.jsonl", "\n".join(json.dumps(r) for r in rows))
    found = read_bbq(file)
    assert len(found.examples) == 78 and "2 lines that are no whole examples are left out" in found.source
    assert "not determined for 78" in found.source, "it names no groups, and nothing is guessed of names"
    first = found.examples[:4]
    assert [(e.condition, e.label, e.unknown) for e in first] == [("ambig", 1, 1), ("disambig", 2, 1)] * 2
    assert {e.template for e in found.examples} == {"Religion 1", "Religion 2"}, "both questions of an example are one"
    text = "category,question_index,example_id,target_loc\nReligion,5,0,0\nReligion,5,3,0\nAge,5,1,0\n"
    write(tmp_path, "additional_metadata.csv", text)
    biased = {e.id: e.biased for e in read_bbq(file).examples}
    assert (biased["0"], biased["3"], biased["1"]) == (0, 2, None)
    rows[20:30] = [row | {"answers": ["a", "b", "c"]} for row in rows[20:30]]
    with pytest.raises(DataError, match="12 of 80 lines are no examples of ImplicitBBQ"):
        read_bbq(write(tmp_path, "Religion.jsonl", "\n".join(json.dumps(r) for r in rows)))


def test_bbq_without_a_key_or_with_broken_lines(tmp_path: Path) -> None:
    row = bbq_row()
    del row["context_condition"]
    with pytest.raises(DataError, match="line 1 has no 'context_condition', so it is no BBQ file"):
        read_bbq(write(tmp_path, "x.jsonl", json.dumps(row)))
    with pytest.raises(DataError, match="line 2, cannot be read as JSON"):
        read_bbq(write(tmp_path, "x.jsonl", json.dumps(bbq_row()) + "\n{"))
    with pytest.raises(DataError, match="is no JSON object"):
        read_bbq(write(tmp_path, "x.jsonl", "[1]"))


def test_a_group_of_bold_without_a_prompt_is_named(tmp_path: Path) -> None:
    content = {"cats": {"Tom": ["Tom is "]}, "dogs": {"Rex": [" ", ""]}}
    with pytest.raises(DataError, match="the group 'dogs' holds no prompt"):
        read_bold(write(tmp_path, "species_prompt.json", json.dumps(content)))


# ---- HONEST and BOLD -----------------------------------------------------------------------------------------------


def test_honest(tmp_path: Path) -> None:
    header = "template_masked\traw\tidentity\tnumber\tcategory\ttype\n"
    text = header + "the  woman works as a [M].\tx\tthe woman\tsingular\tfemale\toccupation\n"
    (template,) = read_honest(write(tmp_path, "en.tsv", text)).examples
    assert (template.text, template.identity, template.category) == ("the woman works as a [M].", "the woman", "female")
    with pytest.raises(DataError, match=r"has no \[M\] to complete"):
        read_honest(write(tmp_path, "en.tsv", text.replace("[M]", "nurse")))


def test_bold(tmp_path: Path) -> None:
    file = write(tmp_path, "race_prompt.json", json.dumps({"Asians": {"A_B": ["A B was a ", " "]}}))
    for path in (file, tmp_path):
        (prompt,) = read_bold(path).examples
        assert (prompt.domain, prompt.group, prompt.name, prompt.prompt) == ("race", "Asians", "A_B", "A B was a")
    for wrong, message in (
        ({"a": ["b"]}, "is no BOLD file"),
        ({"a": {"b": "c"}}, "must be a list"),
        ({}, "no BOLD prompt"),
    ):
        with pytest.raises(DataError, match=message):
            read_bold(write(tmp_path, "race_prompt.json", json.dumps(wrong)))


# ---- the real files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "n"),
    [
        ("crows_pairs", "crows_pairs/crows_pairs_anonymized.csv", 1508),
        ("winobias", "winobias", 1584),
        ("winogender", "winogender", 240),
        ("honest", "honest/binary/en_template.tsv", 810),
        ("honest", "honest/queer_nonqueer/en_template.tsv", 705),
        ("bold", "bold", 23674),
    ],
)
def test_the_published_files(name: str, path: str, n: int) -> None:
    data = os.environ.get("AUDITOR_TEST_DATA")
    if data is None or not (Path(data) / path).exists():
        pytest.skip(f"AUDITOR_TEST_DATA names no folder with {path}")
    found = READERS[name](Path(data) / path)
    assert len(found.examples) == n
    if name == "winobias":
        assert len({e.clusters[1] for e in found.examples}) == 40  # type: ignore[attr-defined]
