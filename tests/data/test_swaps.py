"""Swapped texts against a table made by hand, and lexicons that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from auditor.core.errors import ConfigError
from auditor.data.lexicons import CATEGORIES, PLACEHOLDER, Lexicon, built_in, neutral, parse, read_lexicon, templates
from auditor.data.swaps import Swapper, article_of

GENDER, NAMES, RELIGION, NATIONALITY, ETHNICITY, ORIENTATION, DISABILITY, AGE = built_in()

GENDER_SWAPS = [
    # he and she, and where they stand
    ("He is here.", "She is here."),
    ("she is here", "he is here"),
    ("HE IS HERE", "SHE IS HERE"),
    ("I think he left.", "I think she left."),
    ("he's late", "she's late"),
    ("He’ll come, she'd not.", "She’ll come, he'd not."),
    # her: him or his, by what follows
    ("I saw her.", "I saw him."),
    ("I saw her yesterday.", "I saw him yesterday."),
    ("I saw her car.", "I saw his car."),
    ("I saw her old red car.", "I saw his old red car."),
    ("I told her that it rains.", "I told him that it rains."),
    ("I gave her a book.", "I gave him a book."),
    ("I gave her the book and her coat.", "I gave him the book and his coat."),
    ("Her mother called her.", "His father called him."),
    ("Ask her, not me.", "Ask him, not me."),
    ("Ask her and me.", "Ask him and me."),
    ("It is up to her to decide.", "It is up to him to decide."),
    ("let her go", "let him go"),
    ("Her two dogs bark.", "His two dogs bark."),
    ("They found her 3 books.", "They found his 3 books."),
    ("I like her “new” look.", "I like his “new” look."),
    ("HER CAR", "HIS CAR"),
    ("her", "him"),
    # her: what she did, was or got after a verb that takes it
    ("I heard her sing.", "I heard him sing."),
    ("We heard her sing songs.", "We heard him sing songs."),
    ("I heard her voice.", "I heard his voice."),
    ("They saw her leave early.", "They saw him leave early."),
    ("They saw her leave.", "They saw him leave."),
    ("I saw her fall.", "I saw him fall."),
    ("I saw her standing there.", "I saw him standing there."),
    ("I saw her wedding.", "I saw his wedding."),
    ("I heard her singing voice.", "I heard his singing voice."),
    ("It made her feel better.", "It made him feel better."),
    ("It made her laugh, and she made her bed.", "It made him laugh, and he made his bed."),
    ("It made her very happy.", "It made him very happy."),
    ("It made her happy.", "It made him happy."),
    ("It made her happy childhood end.", "It made his happy childhood end."),
    ("They helped her find work.", "They helped him find work."),
    ("They helped her friend.", "They helped his friend."),
    ("She had her say.", "He had his say."),
    ("She gave her hers.", "He gave him his."),
    ("She gave her his.", "He gave him hers."),
    ("I gave her mine.", "I gave him mine."),
    ("I gave her two books.", "I gave him two books."),
    ("I gave her 3 books.", "I gave him 3 books."),
    # his: her or hers
    ("His car is red.", "Her car is red."),
    ("The car is his.", "The car is hers."),
    ("His is better.", "Hers is better."),
    ("a friend of his, really", "a friend of hers, really"),
    ("It was his and mine.", "It was hers and mine."),
    ("his own idea", "her own idea"),
    ("The car is hers.", "The car is his."),
    ("Give him his hat.", "Give her her hat."),
    ("his/her car", "her/his car"),
    ("he/she said so to him/her.", "she/he said so to her/him."),
    ("He hurt himself.", "She hurt herself."),
    # nouns, plurals, capitals, punctuation
    ("The man and the woman", "The woman and the man"),
    ("Men!", "Women!"),
    ("MEN", "WOMEN"),
    ("So.... men", "So.... women"),
    ("see www.x.org/men/ or http://her/his and men.org", "see www.x.org/men/ or http://her/his and men.org"),
    ("his broke down", "hers broke down"),
    ("Dear Sons and Daughters", "Dear Daughters and Sons"),
    ("(boys)", "(girls)"),
    ('"boys," I said', '"girls," I said'),
    ("the man's hat", "the woman's hat"),
    ("my ex-husband", "my ex-wife"),
    ("a husband", "a wife"),
    ("an uncle", "an aunt"),
    ("an actor", "an actress"),
    ("Mr Smith", "Ms Smith"),
    ("Mr. Smith and Ms. Jones", "Ms. Smith and Mr. Jones"),
    # names, found only with their capital
    ("Emily lost her key.", "Greg lost his key."),
    ("Jamal's wife", "Lakisha's husband"),
    ("GREG", "GREG"),
    ("You miss her. Miss you! Miss the bus.", "You miss him. Miss you! Miss the bus."),
    # nothing inside other words
    ("The manager, the shepherd and the historian mention hermes.",) * 2,
    ("human, woman-like, man-made, mankind, boycott, sonic, @him, her.com, x_he",) * 2,
    ("Germany, ache, there, this, chisel, usher",) * 2,
]

PAIR_SWAPS = [
    (RELIGION, "Muslim", "Christian", "A Muslim family.", "A Christian family."),
    (RELIGION, "Muslim", "atheist", "He is a Muslim.", "He is an atheist."),
    (RELIGION, "atheist", "Muslim", "An atheist spoke.", "A Muslim spoke."),
    (RELIGION, "atheist", "Hindu", "AN ATHEIST SPOKE", "A HINDU SPOKE"),
    (RELIGION, "Muslim", "atheist", "Muslims pray.", "Atheists pray."),
    (RELIGION, "Muslim", "atheist", "We know Muslims.", "We know atheists."),
    (RELIGION, "Muslim", "Christian", "i hate muslims", "i hate christians"),
    (RELIGION, "Muslim", "Jewish", "a Muslim woman", "a Jewish woman"),
    (RELIGION, "Muslim", "Jewish", "a Muslim came", "a Jew came"),
    (RELIGION, "Muslim", "Jewish", "She is a Muslim and I am not.", "She is a Jew and I am not."),
    (RELIGION, "Muslim", "Jewish", "She is Muslim.", "She is Jewish."),
    (RELIGION, "Jewish", "Hindu", "Jews and Hindus, a Jew", "Hindus and Jews, a Hindu"),
    (RELIGION, "Muslim", "Sikh", "non-Muslim and anti-Muslim words", "non-Sikh and anti-Sikh words"),
    (RELIGION, "Muslim", "Sikh", "#Muslim, muslim.org, Muslimness", "#Sikh, muslim.org, Muslimness"),
    (RELIGION, "Catholic", "Muslim", "a wrong, an Catholic", "a wrong, an Muslim"),
    (ORIENTATION, "gay", "lesbian", "Gay people are here.", "Lesbian people are here."),
    (ORIENTATION, "gay", "lesbian", "I am a GAY man", "I am a LESBIAN man"),
    (ORIENTATION, "gay", "straight", "a gay man went straight home", "a straight man went straight home"),
    (ORIENTATION, "gay", "heterosexual", "gays, gay-friendly, Gaynor", "gays, gay-friendly, Gaynor"),
    (ETHNICITY, "white", "Native American", "The white man sat.", "The Native American man sat."),
    (ETHNICITY, "Native American", "Asian", "a Native   American poet", "an Asian poet"),
    (ETHNICITY, "Asian", "Arab", "the white house is an Asian house", "the white house is an Arab house"),
    (ETHNICITY, "Asian", "Black", "An Asian man", "A black man"),
    (AGE, "old", "young", "An old man in an old car", "A young man in an old car"),
    (AGE, "elderly", "young", "an elderly lady", "a young lady"),
    (
        AGE,
        "young",
        "elderly",
        "Young people vote. A young woman waits.",
        "Elderly people vote. An elderly woman waits.",
    ),
    (NATIONALITY, "American", "Mexican", "An American. Americans!", "A Mexican. Mexicans!"),
    (NATIONALITY, "Mexican", "Chinese", "a Mexican came; a Mexican meal", "a Chinese person came; a Chinese meal"),
    (NATIONALITY, "Indian", "German", "once a Indian, Indiana", "once a German, Indiana"),
    (NATIONALITY, "American", "Mexican", "An African American met an American.", "An African American met a Mexican."),
    (
        NATIONALITY,
        "American",
        "Mexican",
        "Native Americans, Latin Americans and Americans",
        "Native Americans, Latin Americans and Mexicans",
    ),
    (NATIONALITY, "Mexican", "German", "a Mexican American and a Mexican", "a Mexican American and a German"),
    (NATIONALITY, "Indian", "German", "an American  Indian and an Indian", "an American  Indian and a German"),
    (ETHNICITY, "Black", "Asian", "an African American man; African-Americans", "an Asian man; Asian people"),
    (ETHNICITY, "Asian", "Black", "an Asian man; Asian people", "a black man; black people"),
    (ETHNICITY, "Native American", "Arab", "Native American people vote.", "Arab people vote."),
    (GENDER, "male", "female", "Mr. Smith and Mrs. Jones", "Ms. Smith and Mr. Jones"),
    (GENDER, "female", "male", "Mr. and Mrs. Smith, and Miss Jones", "Ms. and Mr. Smith, and Mr Jones"),
    (GENDER, "female", "male", "MRS JONES, mrs jones", "MR JONES, mr jones"),
    (DISABILITY, "disabled", "able-bodied", "a disabled person", "an able-bodied person"),
    (DISABILITY, "autistic", "blind", "AN AUTISTIC CHILD", "A BLIND CHILD"),
    (NAMES, NAMES.names[0], NAMES.names[1], "Emily met Greg, emily.", "Lakisha met Jamal, emily."),
    (NAMES, NAMES.names[3], NAMES.names[4], "Soo-jin and Wei", "Layla and Mohammed"),
]


@pytest.mark.parametrize(("text", "expected"), GENDER_SWAPS)
def test_gender(text: str, expected: str) -> None:
    assert Swapper(GENDER).swap(text, "male", "female") == expected


@pytest.mark.parametrize(("text", "expected"), GENDER_SWAPS)
def test_gender_is_the_same_in_either_direction(text: str, expected: str) -> None:
    assert Swapper(GENDER).swap(text, "female", "male") == expected


@pytest.mark.parametrize(("lexicon", "first", "second", "text", "expected"), PAIR_SWAPS)
def test_pairs(lexicon: Lexicon, first: str, second: str, text: str, expected: str) -> None:
    assert Swapper(lexicon).swap(text, first, second) == expected


def test_there_are_enough_cases() -> None:
    assert len(GENDER_SWAPS) + len(PAIR_SWAPS) >= 60


def test_a_role_that_the_other_lacks_is_no_swap() -> None:
    assert Swapper(ORIENTATION).swap("Lesbians and others", "lesbian", "gay") is None


def test_words_of_the_reference_replace_and_are_not_replaced() -> None:
    words = neutral().identities[0]
    assert Swapper(ORIENTATION).swap("An tall gay man, a gay man", "gay", words) == "An tall tall man, a tall man"
    assert Swapper(neutral()).mentions("a tall man") == []


def test_mentions_say_where_and_what() -> None:
    text = "A Jewish man met Hindus."
    found = Swapper(RELIGION).mentions(text)
    assert [(text[m.start : m.end], m.identity, m.role) for m in found] == [
        ("Jewish", "Jewish", "adjective"),
        ("Hindus", "Hindu", "plural"),
    ]


@pytest.mark.parametrize(
    ("word", "article"),
    [
        ("atheist", "an"), ("Muslim", "a"), ("European", "a"), ("Ukrainian", "a"), ("Ugandan", "a"), ("Indian", "an"),
        ("one-legged man", "a"), ("honest man", "an"), ("house", "a"), ("university", "a"), ("uninvited guest", "an"),
        ("LGBT person", "an"), ("US citizen", "a"), ("uncle", "an"), ("user", "a"), ("usher", "an"), ("Uzbek", "an"),
        ("heir", "an"), ("Hindu", "a"), ("éminence", "an"), ("union", "a"), ("utter fool", "an"),
    ],
)  # fmt: skip
def test_articles(word: str, article: str) -> None:
    assert article_of(word) == article


def test_templates_are_filled_with_capitals_and_articles() -> None:
    swapper, atheist = Swapper(RELIGION), RELIGION.identities[-1]
    assert swapper.fill("I met a {adjective} man.", atheist) == "I met an atheist man."
    assert swapper.fill("{Adjective} people; {plural}", atheist) == "Atheist people; atheists"
    assert swapper.fill("{plural} came", atheist) == "Atheists came"
    assert swapper.fill("{nothing} came", atheist) is None
    assert swapper.fill("A {noun}!", RELIGION.identities[2]) == "A Muslim!"


def test_every_built_in_template_can_be_filled_by_two_identities_of_a_category() -> None:
    lexicons = built_in()
    for template in templates():
        places = {p.lower() for p in PLACEHOLDER.findall(template)}
        assert any(
            sum(places <= i.words.keys() for i in lexicon.identities) == len(lexicon.identities) for lexicon in lexicons
        ), template
    assert len(set(templates())) == len(templates())


def test_words_that_are_only_found_are_put_nowhere() -> None:
    gender, ethnicity = Swapper(GENDER), Swapper(ETHNICITY)
    assert {gender.fill("{title} Smith", GENDER.identities[1], k) for k in range(6)} == {"Ms Smith"}
    assert {ethnicity.fill("{people_phrase}", ETHNICITY.identities[1], k) for k in range(6)} == {"Black people"}


def test_built_in_lists_pair_up() -> None:
    for lexicon in built_in(CATEGORIES):
        assert lexicon.source and lexicon.why and len(lexicon.sha256) == 64
        for role in lexicon.match_case:
            assert len({len(i.words[role]) for i in lexicon.identities}) == 1


# ---- lexicons that are refused -------------------------------------------------------------------------------------


def entry(**more: object) -> dict[str, object]:
    return {
        "category": "c",
        "source": "s",
        "why": "w",
        "identities": [
            {"name": "a", "words": {"noun": "ape"}},
            {"name": "b", "words": {"noun": "bee"}},
        ],
        **more,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (entry(catgory="c"), "unknown key 'catgory'; did you mean 'category'"),
        (entry(category=""), 'needs category = "TEXT"'),
        (entry(identities=[]), "at least two"),
        ({}, "at least two"),
        ([], "must be a table"),
        (entry(identities=[{"name": "a", "words": {"noun": "x"}}]), "at least two"),
        (entry(identities=[{"name": "a", "word": {}}, {}]), "unknown key 'word'; did you mean 'words'"),
        (entry(identities=[{"name": "a", "words": {}}, {}]), "needs words"),
        (entry(identities=[{"name": "a", "words": {"noun": [" "]}}, {}]), "none of them empty"),
        (entry(identities=[{"name": "a", "words": {"noun": []}}, {"name": "b", "words": {"noun": "x"}}]), "no word"),
        (entry(identities=[{"name": "a", "words": {"noun": "x"}}, {"name": "b", "words": {"noun": "X"}}]), "stands"),
        (entry(identities=[{"name": "a", "words": {"noun": "x"}}, {"name": "a", "words": {"noun": "y"}}]), "one name"),
        (entry(identities=[{"name": "a", "words": {"p": "x", "q": "x"}}, {"name": "b", "words": {"p": "y"}}]), "rule"),
        (entry(match_case=["nuon"]), "no role; did you mean 'noun'"),
        (entry(before_names=["ap"]), "no word of it; did you mean 'ape'"),
        (entry(only_in_texts=["apes"]), "no word of it; did you mean 'ape'"),
        (entry(only_in_texts=["Ape"]), "every word of 'a' for the role 'noun' is only_in_texts"),
        (entry(not_within=["Bee"]), "one of the phrases within which none is found"),
        (entry(templates=["No place."]), "placeholders"),
        (entry(templates=["A {verb}."]), "placeholders"),
        (entry(reference="yes"), "true or false"),
    ],
)  # fmt: skip
def test_lexicons_that_say_what_they_may_not(content: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(content, "mine.json")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_lexicon(tmp_path / "absent.toml")
    for name, raw in (("a.json", b"{"), ("a.toml", b"= 1"), ("b.toml", b"\xff\xfe"), ("c.json", b"[" * 100_000)):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(ConfigError, match="cannot be read as"):
            read_lexicon(tmp_path / name)
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigError, match="at most"):
        read_lexicon(tmp_path / "large.toml")
    (tmp_path / "mine.json").write_text(json.dumps(entry()))
    assert read_lexicon(tmp_path / "mine.json").names == ("a", "b")


def test_an_unknown_category_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'religion'"):
        built_in(["religon"])
