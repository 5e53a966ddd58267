"""A row for every option of every probe: its default, other values, and a world in which each makes a difference."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tests.contract.option_worlds import toys_of
from tests.probes.language.talkers import LEXICON, goodness
from tests.probes.privacy.memorization.toys import parrot, secrets, sentences
from tests.toys.benchmark_files import metadata_of
from tests.toys.labelled import calibrated, refusals
from tests.toys.models import scaled

Differs = Literal["numbers", "details"]


@dataclass(frozen=True)
class Row:
    """An option's ``default`` and ``others``, each of which comes to something else in a world.

    ``same``: values that come to what the default does, such as the number that None stands for. ``world``: its name
    in ``WORLDS``. ``beside``: options that are set in all cases. ``differs``: "numbers", the estimates and what they
    are of; or "details", all else that is said of them, for what is no matter of numbers. A function among the values
    is given a folder, and writes what the option names.
    """

    default: Any
    others: tuple[Any, ...]
    world: str = "violating"
    same: tuple[Any, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    differs: Differs = "numbers"


def row(default: Any, *others: Any, **more: Any) -> Row:
    return Row(default, others, **more)


def each(*methods: str) -> tuple[tuple[str, ...], ...]:
    """Every method alone."""
    return tuple((method,) for method in methods)


# ---- files that options name -----------------------------------------------------------------------------------------


def written(name: str, *lines: str) -> Callable[[Path], str]:
    """A file of lines."""

    def write(folder: Path) -> str:
        path = folder / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    return write


def system(text: str) -> Callable[[Path], str]:
    """A file with a system message."""
    return written(f"{text}.txt", text)


def in_column(name: str, columns: tuple[str, str], texts: list[str]) -> Callable[[Path], str]:
    """A table of two columns of texts, the second backwards."""
    return written(name, ",".join(columns), *(f'"{text}","{text[::-1]}"' for text in texts))


def benchmark(component: str, **other: str) -> Callable[[Path], dict[str, str]]:
    """The file of a probe's toys, without its last lines where it is one of lines or a table."""

    def write(folder: Path) -> dict[str, str]:
        (folder / "fewer").mkdir(exist_ok=True)
        named: dict[str, str] = dict(toys_of(component, folder / "fewer").options["benchmarks"])
        (name, path), *_ = ((k, v) for k, v in named.items() if k == component)
        files = [Path(path)] if Path(path).is_file() else sorted(Path(path).iterdir())
        for file in files:
            shorten(file)
        return named | {name: path}

    return write


def shorten(file: Path) -> None:
    """Leave out a fifth of a benchmark's items."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".json":
        lines = text.splitlines(keepends=True)
        file.write_text("".join(lines[: 1 + 4 * len(lines) // 5]), encoding="utf-8")
        return
    content = json.loads(text)
    file.write_text(json.dumps(fewer(content)), encoding="utf-8")


def fewer(content: Any) -> Any:
    """Without the last fifth of its longest lists and mappings."""
    if isinstance(content, list) and len(content) > 9:
        return content[: 4 * len(content) // 5]
    if isinstance(content, dict):
        items = list(content.items())
        return {key: fewer(value) for key, value in (items[: 4 * len(items) // 5] if len(items) > 9 else items)}
    return content


def filtered(component: str, ids: int) -> Callable[[Path], str]:
    """A file with the ids of items to leave out."""
    return written("left_out.tsv", *(f"{'x' if component == 'stereoset' else ''}{i}\tno" for i in range(2, ids)))


def lexicon(noun: str) -> Callable[[Path], str]:
    """A lexicon of two identities with templates."""
    templates = ", ".join(f'"the {{noun}} w{i}"' for i in range(60))
    return written(f"lexicon_{noun}.toml", LEXICON.format(templates=templates).replace('"cat"', f'"{noun}"'))


def sense(folder: Path) -> str:
    from probes.language import sense_check

    text = (Path(sense_check.__file__).parents[1] / "data" / "sense.toml").read_text(encoding="utf-8")
    path = folder / "sense.toml"
    path.write_text(text.replace("swam to the bottom of the pond", "zzz zzz zzz zzz"), encoding="utf-8")
    return str(path)


def labelled(n: int) -> Callable[[Path], str]:
    return lambda folder: calibrated(n=n)


def addresses(folder: Path) -> str:
    """Texts that a person labelled, with an address or without."""
    texts = [
        (f"write to p{i}@q.org" if held else f"write to nobody {i}", int(held)) for i in range(60) for held in (1, 0)
    ]
    return written("addresses.csv", "text,label", *(f"{text},{label}" for text, label in texts))(folder)


def vectors(folder: Path) -> str:
    """Word vectors of the words of the third test, drawn at random."""
    rng = np.random.default_rng(3)
    return written("glove.txt", *(f"{w} {' '.join(f'{v:.4f}' for v in rng.normal(size=8))}" for w in weat_words()))(
        folder
    )


def weat_words() -> list[str]:
    from probes.fairness.embeddings import built_in_lists

    test = next(test for test in built_in_lists().tests if test.name == "weat_3")
    return sorted({word for words in test.sets for word in words})


def sentence_encoder(folder: Path) -> str:
    """A folder of a random encoder of sentences."""
    import torch
    from transformers import BertConfig, BertModel

    from tests.toys.language import masked_tokenizer

    tokenizer = masked_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
        BertModel(config).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    return str(folder / "encoder")


def own_lists(n: int) -> Callable[[Path], str]:
    """A test of one's own, of so many of the words of the third."""
    words = weat_words()

    def names(k: int) -> str:
        return ", ".join(f'"{word}"' for word in words[k * n : (k + 1) * n])

    sets = [f"{name} = [{names(k)}]" for k, name in enumerate("xyab")]
    return written("lists.toml", "[[tests]]", 'name = "toy"', *sets)


def prompts(n: int) -> Callable[[Path], dict[str, str]]:
    """A file of prompts to explain."""
    lines = [
        json.dumps({"prompt": f"the {w} said that", "target": " he", "foil": " she", "cues": [w]})
        for w in ("nurse", "doctor", "teacher", "farmer", "cook", "judge", "writer", "pilot") * 4
    ]
    return lambda folder: {"token_attribution": written("prompts.jsonl", *lines[:n])(folder)}


def patch(colour: int) -> Callable[[Path], str]:
    """A small picture of one colour."""

    def write(folder: Path) -> str:
        from PIL import Image

        path = folder / f"patch{colour}.png"
        Image.fromarray(np.full((6, 6, 3), colour, np.uint8)).save(path)
        return str(path)

    return write


def remembered(strength: float) -> Callable[[Path], Any]:
    """Another model of characters."""
    return lambda folder: parrot(sentences(12, 0), strength)


# ---- rows that several probes share ----------------------------------------------------------------------------------

LETTERS: dict[str, Row] = {
    "chat": row("auto", "on", "off", world="writer"),
    "system": row(None, system("be kind"), system("be brief"), world="writer"),
}
REPLIES = LETTERS
PREFIX = (row(None, "", world="prefixed"), row(None, 1, world="prefixed"))


def pairs(component: str) -> dict[str, Row | tuple[Row, ...]]:
    """Of a probe that compares pairs of texts of a file."""
    return {
        "benchmarks": row(None, benchmark(component)),
        "prefix_token": PREFIX,
        "reference": row(None, lambda folder: toys_of(component, folder).ideal(), differs="details"),
        "answer_by": row("auto", "letter", same=("likelihood",)),
        **LETTERS,
    }  # fmt: skip


FORMS: dict[str, Row | tuple[Row, ...]] = {
    "form": row(None, "shared", same=("whole",)),
    "within_word": row(False, True, world="prefixed"),
}
# Of sentences that differ in pronouns alone.
FORMS_OF_PRONOUNS = {**FORMS, "form": row(None, "whole", world="pieces", same=("shared",))}
SAMPLED: dict[str, Row | tuple[Row, ...]] = {
    "temperature": row(1.0, 0.5, world="writer"),
    "top_p": row(0.95, 0.5, world="writer"),
    "batch_rows": row(64, 8, world="writer"),
}
SCORED: dict[str, Row | tuple[Row, ...]] = {
    "scorer": row(None, lambda folder: goodness()),
    "scorer_class": row(None, "bad", same=("good",)),
    "calibration": row(None, labelled(60), labelled(20)),
}

FAST = {"n_copies": 0, "methods": "occlusion", "n_samples": 24}

COLOURS = "tests.probes.deepfake.test_leakage:colours"

ROWS: dict[str, dict[str, Row | tuple[Row, ...]]] = {
    "performance": {
        "bins": row(10, 20),
        "n_samples": row(200, 5, world="remembering"),
        "reference": row(None, remembered(6.0), world="remembering"),
        "pair_benchmarks": row(None, benchmark("crows_pairs"), world="remembering"),
        "sense": row(None, sense, world="english", differs="details"),
    },
    "derived": {
        "reference": row(None, lambda folder: scaled(-1.0), world="crossed"),
        "texts": row(
            None, written("texts.txt", *sentences(40, 0)), world="english", beside={"reference": remembered(1.0)}
        ),
        "column": row(
            None,
            "a",
            "b",
            world="english",
            beside={"reference": remembered(1.0), "texts": in_column("texts.csv", ("a", "b"), sentences(40, 0))},
        ),
        "n_texts": row(200, 5, world="remembering", beside={"reference": remembered(1.0)}),
        "pair_benchmarks": row(None, benchmark("crows_pairs"), world="english", beside={"reference": remembered(1.0)}),
    },
    "group_fairness": {
        "intersections": row(True, False, world="crossed"),
        "strata": row(None, "seen", "skill", world="crossed"),
        "min_share": row(0.02, 0.1, world="crossed", beside={"min_rows": 5}),
        "min_rows": row(30, 5, world="crossed"),
        "pooled": row(True, False, world="several_small"),
    },
    "adverse_impact": {
        "methods": row("auto", *each("selection_rate", "scoring_rate"), world="crossed"),
        "small": row(0.02, 0.1, world="crossed", beside={"exclude_small": True}),
        "exclude_small": row(False, True, world="crossed", beside={"small": 0.1}),
        "intersections": row(True, False, world="crossed"),
    },
    "score_fairness": {
        "intersections": row(True, False, world="crossed"),
        "bins": row(10, 20),
        "thresholds": row((0.3, 0.5, 0.7), (0.3,)),
    },
    "regression_fairness": {
        "value_range": row(None, [-10.0, 10.0], [-20.0, 20.0]),
        "intersections": row(True, False, world="crossed"),
    },
    "subgroup_discovery": {
        "depth": row(2, 1, world="crossed", beside={"features": None}),
        "bins": row(4, 8, world="crossed", beside={"features": None}),
        "top": row(10, 5),
        "min_rows": row(30, 60),
        "features": row(None, ["group"], ["skill"], world="crossed"),
        "margin": row(0.1, 0.05),
    },
    "proxy_association": {"single_features": row(True, False)},
    "counterfactual_fairness": {
        "proxies": row(False, True, "skill", ["seen"], world="flipped"),
        "n_samples": row(5000, 100, world="flipped"),
        "n_folds": row(5, 3, world="flipped", beside={"proxies": ["seen"]}),
    },
    "counterfactual_token_fairness": {
        "categories": row("auto", "orientation", ["gender"], world="named_people"),
        "lexicon": row(None, lexicon("cat"), lexicon("wolf"), world="named_people"),
        "methods": row("auto", *each("templates", "texts"), world="named_people"),
        "n_templates": row(None, 10, world="named_people"),
        "n_texts": row(500, 12, world="named_people", beside={"min_hits": 2}),
        "min_hits": row(20, 61, world="named_people"),
    },
    "recorded_evaluation": {
        "low": row(None, -1.0, same=(0.0,)),
        "high": row(None, 2.0, same=(1.0,)),
        "reference": row(None, written("log.jsonl", *(f'{{"id": "q{i}", "match": 1}}' for i in range(600)))),
        "calibration": row(
            None,
            *(written(f"{n}.csv", "id,label", *(f"q{i},{int(i < n)}" for i in range(0, 500, 3))) for n in (250, 400)),
        ),
    },
    "judge": {
        "item": row(None, "item"),
        "position": row(None, "position"),
        "length": row(None, "words", "item"),
        "author": row(None, "writer", "position"),
        "own": row(None, "judge-1", "others"),
    },
    "change": {"reference": row(None, lambda folder: scaled(1.0), lambda folder: scaled(-1.0), world="crossed")},
    "feature_attribution": {
        "methods": row(
            "auto",
            *each(
                "integrated_gradients",
                "deep_lift",
                "gradient_shap",
                "input_x_gradient",
                "saliency",
                "smooth_grad",
                "occlusion",
                "feature_ablation",
                "kernel_shap",
                "lime",
                "shap_permutation",
                "shap_kernel",
                "permutation_importance",
            ),
            world="layered",
            beside={"n_samples": 20, "n_copies": 0},
            differs="details",
        ),
        "method": row(
            None,
            "occlusion",
            "saliency",
            world="layered",
            beside={"n_samples": 20, "n_copies": 0},
            differs="details",
        ),
        "n_samples": row(None, 40, world="layered", same=(256,)),
        "n_steps": row(None, 2, world="layered", same=(50,), beside={"methods": "integrated_gradients"}),
        "max_steps": row(
            None, 2, world="layered", same=(400,), beside={"methods": "integrated_gradients", "n_steps": 2}
        ),
        "baseline": (
            row("auto", "zero", "uniform", world="layered", same=("mean",)),
            row("auto", "mean", world="convolved", same=("blur",)),
        ),
        "n_background": row(50, 5, world="by_answers", beside={"methods": "shap_permutation", "n_samples": 20}),
        "n_permutations": row(2, 5, world="by_answers", beside={"methods": "shap_permutation", "n_samples": 20}),
        "n_copies": row(None, 3, world="layered", same=(40,)),
        "label_randomisation": row(False, True),
        "proxy_strength": row(0.3, 0.9, world="layered"),
        "show_samples": row(False, True, world="convolved", differs="details"),
    },
    "token_attribution": {
        "benchmarks": row(None, prompts(24), beside=FAST),
        "methods": row(
            "auto",
            *each(
                "integrated_gradients",
                "input_x_gradient",
                "saliency",
                "gradient_shap",
                "smooth_grad",
                "occlusion",
                "feature_ablation",
                "kernel_shap",
                "lime",
            ),
            beside=FAST | {"n_samples": 12},
            differs="details",
        ),
        "method": row(None, "occlusion", "saliency", beside=FAST, differs="details"),
        "unit": row("word", "token", beside=FAST, differs="details"),
        "infill": row("auto", "token", same=("prompts",), beside=FAST),
        "baseline": row("auto", "zero", beside=FAST | {"methods": "integrated_gradients"}),
        "top_k": row(2, 1, beside=FAST | {"n_samples": 48}, world="ideal"),
        "n_samples": row(None, 12, beside=FAST),
        "n_steps": row(32, 2, beside=FAST | {"methods": "integrated_gradients", "max_steps": 2}),
        "max_steps": row(256, 2, world="tiny_gpt", beside=FAST | {"methods": "integrated_gradients", "n_steps": 2}),
        "n_copies": row(None, 0, world="ideal", same=(40,)),
        "prefix_token": row(None, "<s>", world="tiny_gpt", beside=FAST),
    },
    "ale": {"n_samples": row(1000, 100), "n_bins": row(10, 5, world="ideal")},
    "membership_inference": {
        "methods": row(
            "auto",
            *each(
                "loss_threshold",
                "loss_threshold_per_class",
                "quantile_regression",
                "label_only",
                "lira_online",
                "lira_online_fixed_variance",
                "lira_offline",
                "lira_offline_fixed_variance",
                "rmia",
                "rmia_offline",
                "bavaria",
                "bavaria_offline",
                "difficulty_calibration",
            ),
            world="alike",
            beside={"n_shadows": 4},
            differs="details",
        ),
        "n_shadows": row(None, 4, 8, world="alike", beside={"methods": ["lira_online"]}),
        "n_references": row(4, 2, world="memorised", beside={"methods": ["rmia"], "n_shadows": 8}),
        "shadow_seconds": row(60.0, 1e-9, world="alike"),
        "n_queries": row(30, 3, world="alike", beside={"methods": ["label_only"]}),
    },
    "lm_membership": {
        "k": row(0.2, 0.1),
        "reference": row(None, remembered(1.0), world="few"),
        "max_tokens": row(512, 16, world="few"),
        "prefix_token": PREFIX,
    },
    "extraction": {
        "texts": row(None, written("texts.txt", *sentences(20, 7)), world="remembering"),
        "column": row(
            None,
            "a",
            "b",
            beside={"texts": in_column("texts.csv", ("a", "b"), sentences(40, 0)[::2])},
            world="few",
        ),
        "prefix_tokens": row(None, 5, world="remembering", beside={"suffix_tokens": 3}),
        "suffix_tokens": row(None, 5, world="remembering", beside={"prefix_tokens": 10}),
        "n": row(100, 1, world="remembering", beside={"prefix_tokens": 8, "suffix_tokens": 3}),
        "p": row(0.5, 0.001, world="remembering", beside={"prefix_tokens": 8, "suffix_tokens": 3, "n": 1}),
        "temperature": row(
            1.0, 9.0, world="remembering", beside={"prefix_tokens": 8, "suffix_tokens": 3, "n": 1, "p": 0.01}
        ),
        "top_k": row(None, 1, world="remembering", beside={"prefix_tokens": 8, "suffix_tokens": 3, "n": 1}),
        "n_samples": row(1000, 10, world="remembering"),
        "prefix_token": PREFIX,
    },
    "canary_exposure": {
        "canaries": row(None, written("c.txt", *secrets(8, 3))),
        "format": row(
            None,
            "the code is ##@@",
            beside={
                "canaries": written("codes.txt", *(f"the code is {10 + i}{c}{c}" for i, c in enumerate("abcdefgh")))
            },
        ),
        "n_candidates": row(1000, 100),
        "prefix_token": PREFIX,
    },
    "pii_leakage": {
        "texts": row(None, written("texts.txt", *(f"{c} mail k{c}z@q{c}x.org" for c in "abcdefgh")), world="english"),
        "column": row(
            None,
            "a",
            "b",
            world="english",
            beside={"texts": in_column("texts.csv", ("a", "b"), [f"{c} mail k{c}z@qx.org" for c in "abcdefghijkl"])},
        ),
        "prompts": row(None, written("prompts.txt", "c mail", "d mail", "x one"), world="leaky"),
        "calibration": row(None, lambda folder: addresses(folder), world="leaky"),
        "n_prompts": row(100, 5, world="leaky"),
        "prefix_words": row(8, 2, 1, world="leaky"),
        "n_samples": row(None, 2, world="leaky", same=(4,)),
        "max_new_tokens": row(40, 5, world="leaky"),
        "temperature": row(1.0, 0.5, world="leaky"),
        "top_p": row(0.95, 0.5, world="leaky"),
        "prefix_token": PREFIX,
    },
    "contamination": {
        "benchmarks": row(None, benchmark("contamination")),
        "column": row(
            None,
            "a",
            "b",
            world="english",
            beside={
                "benchmarks": lambda folder: {
                    "contamination": in_column("bench.csv", ("a", "b"), sentences(80, 0))(folder)
                }
            },
        ),
        "n_permutations": row(25, 10),
        "shard_examples": row(10, 5),
        "n_shards": row(50, 8),
        "separator": row("\n", " "),
        "prefix_token": PREFIX,
    },
    "attribute_inference": {"attribute": row(None, "group", "seen")},
    "model_inversion": {"n_steps": row(200, 60), "smoothness": row(1.0, 0.5)},
    "dp_claim": {},
    "robustness": {
        "methods": (
            row("auto", *each("noise", "missing", "pgd", "certificate", "black_box", "smoothing"), world="layered"),
            row(
                "auto",
                *each("typos", "worst_typos", "homoglyphs", "zero_width", "leet", "appended_words"),
                world="films",
                beside={"n_samples": 20},
            ),
            row("auto", *each("corruption"), world="convolved"),
        ),
        "noise": row((0.05, 0.1, 0.2, 0.4), (0.3,), world="layered"),
        "missing": row((0.05, 0.1, 0.2), (0.3,), world="layered"),
        "typos": row((1, 2, 4), (3,), world="films", beside={"methods": "typos"}),
        "words": row((1, 2, 4), (3,), world="films", beside={"methods": "leet", "n_samples": 20}),
        "epsilon": (
            row(None, [0.3], world="layered", same=([0.05, 0.1, 0.2],)),
            row(None, [0.3], world="convolved", same=([2 / 255, 4 / 255, 8 / 255],), beside={"methods": "pgd"}),
        ),
        "immutable": row((), "x0", ["x0", "x1"], world="layered"),
        "n_steps": row(20, 1, world="layered", beside={"methods": "pgd", "epsilon": [0.4]}),
        "n_queries": row(100, 3, world="by_answers", beside={"methods": "black_box", "n_samples": 60}),
        "branches": row(None, 1, world="layered", beside={"methods": "certificate", "epsilon": [0.2]}),
        "sigma": row(0.25, 0.5, world="layered", beside={"methods": "smoothing"}),
        "n_samples": row(None, 50, world="layered", same=(1000,)),
    },
    "out_of_distribution": {
        "ood": row(None, written("far.csv", "x0,x1,x2,x3", *(f"{i},9,9,{i}" for i in range(60))), world="layered"),
        "column": row(
            None,
            "a",
            "b",
            world="few_films",
            beside={"ood": in_column("far.csv", ("a", "b"), [f"zz {i} qq" for i in range(60)]), "cases": "given"},
        ),
        "methods": row("auto", *each("msp", "energy", "mahalanobis", "knn"), world="layered", differs="details"),
        "cases": row("auto", "far", ["uniform"], world="layered"),
        "k": row(10, 3, world="layered", beside={"methods": "knn"}),
        "n_samples": row(None, 60, world="layered", same=(2000,)),
        "n_strange": row(None, 60, world="layered", same=(1000,)),
    },
    "poisoning": {
        "trigger": row(None, "x0=9", "x1=-9", world="layered", beside={"target": "1"}),
        "target": row(None, "0", "1", world="layered", beside={"trigger": "x0=2"}),
    },
    "data_documentation": {"croissant": row(None, written("own.json", json.dumps(metadata_of(7, ("skill", "age")))))},
    "representation": {"shares": row(None, written("shares.csv", "group,share", "a,0.5", "b,0.5"))},
    "label_bias": {"n_folds": row(2, 3)},
    "label_conflicts": {"near": row(0.05, 0.5, world="repeated_nearly"), "n_samples": row(2000, 50)},
    "weight_changes": {"reference": row(None, lambda folder: scaled(1.0), lambda folder: scaled(2.0), world="crossed")},
    "detector_performance": {
        "generator": row(None, "maker", "engine", world="of_makers"),
        "false_positive_rate": row(0.01, 0.1),
        "bins": row(10, 5),
    },
    "trivial_cues": {"n_samples": row(1000, 100), "quality": row(90, 45)},
    "detector_robustness": {
        "methods": row("auto", *each("jpeg", "resize", "blur", "noise", "colour", "crop", "screenshot"), world="few"),
        "n_samples": row(None, 20, world="few", same=(200,), beside={"methods": "blur"}),
    },
    "source_leakage": {
        "identity": row(None, "who", "place", world="of_people"),
        "embedder": row(None, COLOURS, world="of_people", beside={"same_identity": 0.999}),
        "same_identity": row(None, 0.999, 0.5, world="of_people", beside={"embedder": COLOURS}),
    },
    "marking": {
        "decoder": row((), ("tests.toys.marked:finds",), ("tests.toys.marked:always",), world="ideal"),
        "n_samples": row(60, 10, world="ideal"),
    },
    "stereotype": {
        **FORMS,
        "prefix_token": PREFIX,
        "reference": row(None, lambda folder: toys_of("stereotype", folder).ideal(), differs="details"),
    },  # fmt: skip
    "crows_pairs": {**FORMS, **pairs("crows_pairs"), "benchmark_filter": row(None, filtered("crows_pairs", 9))},
    "stereoset": {**pairs("stereoset"), "benchmark_filter": row(None, filtered("stereoset", 9))},
    "winobias": {**FORMS_OF_PRONOUNS, **pairs("winobias")},
    "winogender": {**FORMS_OF_PRONOUNS, **pairs("winogender")},
    "bbq": {
        "benchmarks": row(None, benchmark("bbq")),
        "max_examples": row(6000, 200),
        "prefix_token": PREFIX,
        **LETTERS,
        "few_shot": row(0, 1),
        "answer_by": row("auto", "letter", same=("likelihood",)),
        "wordings": row(3, 1, 2),
    },
    "order_sensitivity": {"n_questions": row(64, 32), **REPLIES},
    "misfire": {"benchmarks": row(None, benchmark("misfire")), "n_pairs": row(600, 20), **REPLIES},
    "refusal_parity": {
        "categories": row(("gender", "religion", "orientation"), "religion", ["gender"], world="writer"),
        "n_requests": row(None, 12, world="writer", same=(48,)),
        "calibration": row(None, lambda folder: refusals(), lambda folder: refusals(40)),
        "max_new_tokens": row(16, 8, world="writer"),
        **REPLIES,
    },
    "generation_bias": {
        "categories": row(("gender", "names", "religion", "occupation"), "gender", ["names"], world="writer"),
        "lexicon": row(None, lexicon("cat"), lexicon("wolf"), world="writer"),
        "n_templates": row(None, 10, world="writer"),
        "n_samples": row(2, 4, world="writer"),
        "max_new_tokens": row(10, 5, world="writer"),
        **SAMPLED,
        "until": row("sentence", "length", "word", world="writer"),
        **SCORED,
        **LETTERS,
        "max_continuations": row(None, 500, world="writer"),
        "half_width": row(0.05, 0.2, world="writer", beside={"max_continuations": 4000}),
    },
    "generated_text": SCORED,
    "bold": {
        "benchmarks": row(None, benchmark("bold")),
        "n_prompts": row(40, 10, world="writer"),
        "max_new_tokens": row(10, 5, world="writer"),
        **SAMPLED,
        "until": row("sentence", "length", "word", world="writer"),
        **SCORED,
        **LETTERS,
    },
    "honest": {
        "benchmarks": row(None, benchmark("honest")),
        "lexicon": row(None, written("w.tsv", "id\tlemma", "1\tgood"), world="writer"),
        "calibration": row(None, lambda folder: calibrated(n=20), world="writer"),
        "n_templates": row(200, 20, world="writer"),
        "n_samples": row(5, 2, world="writer"),
        **SAMPLED,
        **LETTERS,
    },
    "embedding_association": {
        "vectors": row(None, vectors),
        "encoder": row(None, sentence_encoder, beside={"lists": own_lists(9), "tests": "auto"}),
        "tests": row("auto", "weat_3", ["weat_3", "weat_1"]),
        "lists": row(None, own_lists(9), own_lists(12), beside={"tests": "auto"}),
        "methods": row(
            "auto", *each("weat", "seat"), beside={"lists": own_lists(9), "tests": "auto"}, differs="details"
        ),
        "min_words": row(4, 12, beside={"lists": own_lists(9), "tests": "auto"}),
        "max_partitions": row(200000, 1, beside={"lists": own_lists(5), "tests": "auto"}, differs="details"),
        "n_draws": row(100000, 1000, differs="details"),
    },
}


# ---- mitigations -----------------------------------------------------------------------------------------------------

TWO = {"epochs": 2}


def trains(epochs: int | None = 15, lora: bool = True, **beside: Any) -> dict[str, Row | tuple[Row, ...]]:
    """Of a mitigation that trains a network by its recipe, which has 15 epochs, or fine-tunes one of texts."""
    brief = {**TWO, **beside}
    found: dict[str, Row | tuple[Row, ...]] = {
        "epochs": row(None, 2, world="biased", same=() if epochs is None else (epochs,), beside=beside),
        "batch_size": row(None, 32, world="biased", same=(128,), beside=brief),
        "learning_rate": row(None, 0.01, world="biased", same=(3e-3,), beside=brief),
    }
    return found | ({"lora": row(None, 2, 4, world="bert", beside={**brief, "batch_size": 20})} if lora else {})


def own_pairs(*words: str) -> Callable[[Path], str]:
    """Pairs of continuations of one's own."""
    lines = [
        json.dumps({"prompt": f"the {w}", "chosen": f" {w} worked", "rejected": f" {w} left"})
        for w in words
        for _ in "ab"
    ]
    return written(f"pairs_{words[0]}.jsonl", *lines)


def kinds(folder: Path) -> str:
    """A lexicon of what people are said to be."""
    identities = [f"[[identities]]\nname = '{w}'\nwords = {{ noun = '{w}' }}" for w in ("kind", "rude")]
    return written("kinds.toml", 'category = "kinds"', 'source = "test"', 'why = "test"', *identities)(folder)


HYPERPARAMETERS = row(None, {"C": 0.01}, world="fitted")
CONSTRAINTS = ("demographic_parity", "true_positive_rate_parity", "false_positive_rate_parity")
OF_TEXTS = {"categories": ["orientation"], "epochs": 1, "control_arm": False, "learning_rate": 0.05}
PAIRED = OF_TEXTS | {"pairing_weight": 1.0}
UNCONTROLLED = TWO | {"control_arm": False}
TUNED = {"n_pairs": 6, "epochs": 1}

MITIGATION_ROWS: dict[str, dict[str, Row | tuple[Row, ...]]] = {
    "adversarial_debiasing": {
        "constraint": row("equalized_odds", "demographic_parity", "equal_opportunity", world="biased", beside=TWO),
        "alpha": row(1.0, 0.5, world="biased", beside=TWO),
        "alpha_schedule": row("constant", "linear", "sqrt", world="biased", beside=TWO),
        "gap_weight": row(0.0, 1.0, world="biased", beside=TWO),
        "warm_up": row(0.2, 0.5, world="biased", beside=TWO),
        "adversary_steps": row(3, 1, world="biased", beside=TWO),
        "adversary_learning_rate": row(0.05, 0.01, world="biased", beside=TWO),
        **trains(60),
    },
    "reweighing": {**trains(), "hyperparameters": HYPERPARAMETERS},
    "balanced_resampling": {
        "method": row("uniform_sampling", "balanced", world="biased", beside=TWO),
        **trains(),
        "hyperparameters": HYPERPARAMETERS,
    },
    "correlation_remover": {
        "alpha": row(1.0, 0.5, world="biased"),
        "hyperparameters": row(None, {"logisticregression__C": 0.01}, world="fitted_pipeline"),
    },
    "counterfactual_augmentation": {
        "generator": row("lexicon", "templates", "both", world="orientations", beside=PAIRED),
        "categories": row("auto", ["orientation"], ["gender"], world="orientations", beside=UNCONTROLLED),
        "lexicon": row((), kinds, world="orientations", beside=OF_TEXTS | {"categories": "auto"}),
        "sides": row("both", "one", world="orientations", beside=OF_TEXTS),
        "copies": row(1, 2, world="orientations", beside=OF_TEXTS),
        "sentences": row(
            None, 3, world="orientations", beside=OF_TEXTS | {"generator": "templates", "pairing_weight": 1.0}
        ),
        "filler": row(None, "kind", world="orientations", beside=PAIRED),
        "pairing_weight": row(0.0, 1.0, world="orientations", beside=OF_TEXTS),
        "freeze_embeddings": row(True, False, world="orientations", beside=OF_TEXTS),
        **trains(lora=False, control_arm=False),
        "lora": row(
            None,
            2,
            4,
            world="bert",
            beside={"epochs": 1, "control_arm": False, "lexicon": lambda folder: str(folder / "times.toml")},
        ),
        "impute": row(False, True, world="biased", beside=TWO),
        "control_arm": row(True, False, world="biased", beside=TWO, differs="details"),
    },
    "deepfake_detection": {
        "answer": row(None, "grant", world="gated", same=("deny",)),
        "on_cannot_say": row("pass", "reject", world="gated"),
        "on_no_trace": row(None, "reject", world="gated", same=("pass",)),
    },
    "dp_sgd": {
        "epsilon": row(3.0, 1.5, world="biased", beside=TWO | {"noise_seed": 1}),
        "delta": row(None, 1e-4, world="biased", beside=TWO | {"noise_seed": 1}),
        "max_grad_norm": row(5.0, 1.0, world="biased", beside=TWO | {"noise_seed": 1}),
        "epochs": row(None, 2, world="biased", beside={"noise_seed": 1}, same=(20,)),
        "batch_size": row(None, 64, world="biased", beside=TWO | {"noise_seed": 1}, same=(128,)),
        "learning_rate": row(None, 0.01, world="biased", beside=TWO | {"noise_seed": 1}, same=(0.002,)),
        "noise_seed": row(None, 1, 2, world="biased", beside=TWO),
        "mode": row(
            "auto", "ghost", world="biased", beside=TWO | {"noise_seed": 1}, same=("hooks",), differs="details"
        ),
        "weights": row("none", "reweighing", world="biased", beside=TWO | {"noise_seed": 1}),
        "lora": row(None, 2, 4, world="bert", beside=TWO | {"noise_seed": 1}),
    },
    "fair_gan": {
        "weight": row(1.0, 0.5, world="biased", beside=TWO),
        "share": row(1.0, 0.5, world="biased", beside=TWO),
        "rows": row(None, 300, world="biased", beside=TWO, same=(400,)),
        "bins": row(16, 8, world="biased", beside=TWO),
        "warm_up": row(0.5, 0.25, world="biased", beside=TWO),
        "epochs": row(None, 2, 3, world="biased"),
    },
    "exponentiated_gradient": {
        "constraint": row("equalized_odds", *CONSTRAINTS, world="biased"),
        "difference_bound": row(0.01, 0.1, world="biased"),
        "learner": row("last_layer", "network", world="biased", beside={"max_iter": 2}),
        "rule": row("randomised", "majority", world="biased"),
        "eps": row(0.01, 0.2, world="biased"),
        "max_iter": row(50, 2, world="biased"),
        "epochs": row(None, 2, world="biased", same=(15,), beside={"learner": "network", "max_iter": 2}),
        "hyperparameters": row(None, {"C": 0.01}, world="fitted"),
    },
    "grid_search": {
        "constraint": row("equalized_odds", *CONSTRAINTS, world="biased"),
        "grid_size": row(None, 9, world="biased", same=(100,)),
        "grid_limit": row(2.0, 0.5, world="biased"),
        "constraint_weight": row(0.5, 0.0, world="biased"),
        "learner": row(None, "network", world="biased", same=("last_layer",)),
        "epochs": row(None, 2, world="biased", same=(15,), beside={"learner": "network", "grid_size": 4}),
        "hyperparameters": row(None, {"C": 0.01}, world="fitted"),
    },
    "group_calibration": {"method": row("platt", "isotonic", world="biased")},
    "group_dro": {
        "eta": row(0.01, 0.1, world="biased", beside=TWO),
        "adjustment": row(0.0, 2.0, world="biased", beside=TWO),
        "by_label": row(True, False, world="biased", beside=TWO),
        "keep_labels": row(True, False, world="biased", beside=TWO),
        "weight_decay": row(None, 0.1, world="biased", beside=TWO),
        **trains(),
    },
    "min_diff": {
        "over": row("both", "unfavourable", "favourable", "all", world="biased", beside=TWO | {"weight": 1.0}),
        "weight": row(None, 1.0, world="biased", beside=TWO),
        "width": row(0.3, 0.1, world="biased", beside=TWO | {"weight": 1.0}),
        **trains(weight=1.0),
    },
    "preference_tuning": {
        "method": row("squared_margin", "dpo", world="speaking", beside=TUNED),
        "pairs": row(None, own_pairs("nurse", "doctor"), own_pairs("clerk", "cook"), world="speaking", beside=TWO),
        "test_pairs": row(None, own_pairs("nurse", "doctor"), world="speaking", beside=TUNED, differs="details"),
        "n_pairs": row(64, 4, world="speaking", beside={"epochs": 1}),
        "epochs": row(4, 1, world="speaking", beside={"n_pairs": 6}),
        "batch_size": row(8, 2, world="speaking", beside=TUNED),
        "rank": row(8, 2, world="speaking", beside=TUNED),
        "depth": row(0.5, 1.0, world="speaking", beside=TUNED),
        "learning_rate": row(None, 0.01, world="speaking", same=(2e-3,), beside=TUNED),
        "beta": row(0.1, 1.0, world="speaking", beside=TUNED | {"method": "dpo", "epochs": 3}),
        "reference_weight": row(1.0, 0.0, world="speaking", beside=TUNED | {"epochs": 3}),
    },
    "reject_option": {"width": row(None, 0.3, world="biased"), "bound": row(0.02, 0.15, world="biased")},
    "threshold_optimizer": {
        # The rates of misses are those of hits: which pairs come to the same is a test of its own.
        "constraints": (
            row("equalized_odds", *CONSTRAINTS, world="biased"),
            row("equalized_odds", "true_negative_rate_parity", "false_negative_rate_parity", world="biased"),
        ),
        "objective": row("accuracy_score", "balanced_accuracy_score", world="biased"),
        "deterministic": row(False, True, world="biased"),
        "tolerance": row(0.05, 0.5, world="biased", beside={"deterministic": True}),
        "grid_size": row(1000, 50, world="biased"),
    },
}
