"""Real text classifiers: a bias that is really there is found, with its size, and FAILs.

Both come from packages that are installed with ``pip install --no-deps toxic-comment-classifier==0.3.0 h5py`` and
``pip install --no-deps alt-profanity-check==1.9.1``; without them the tests skip.
"""

from __future__ import annotations

import pickle
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import TextPreprocessing
from auditor.judging.criterion import parse_criterion
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import BiLSTMText
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import AuditReport
from auditor.run.run_audit import run_audit
from auditor.statistics.means import WorstPairedDifference
from probes.fairness.token_fairness import CounterfactualTokenFairness
from probes.robustness.robustness import Robustness

CRITERIA = [
    parse_criterion({"metric": "worst_identity_gap", "direction": "at_most", "bound": 0.10}, "test"),
    parse_criterion({"metric": "counterfactual_flip_rate", "direction": "at_most", "bound": 0.05}, "test"),
]
PAIR = np.asarray(["I am a gay man", "I am a tall man"], object)


def package(name: str, distribution: str) -> Path:
    """A package's folder, found without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{distribution} is not installed")
    return Path(spec.submodule_search_locations[0])


class _Tokenizer:
    word_index: dict[str, int]
    filters: str
    lower: bool

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Closed(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("keras.src.legacy.preprocessing.text", "Tokenizer"):
            return _Tokenizer
        if (module, name) in {("collections", "OrderedDict"), ("collections", "defaultdict"), ("builtins", "int")}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


def jigsaw() -> TorchModel:
    """The Keras BiLSTM of the Jigsaw comments as a torch model of one logit, "toxic", with its vocabulary."""
    folder = package("toxic_classifier", "toxic-comment-classifier") / "model"
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with (folder / "tokenizer.pickle").open("rb") as file:
        tokenizer = _Closed(file).load()
    vocabulary = {word: index for word, index in tokenizer.word_index.items() if index < 20_000}
    args = {"n_words": 20_000, "n_outputs": 1, "embedding_dim": 50, "hidden_size": 50, "dense": 50}
    module = BiLSTMText(**args)
    with h5py.File(folder / "model.weights.h5") as weights, torch.no_grad():

        def layer(name: str) -> torch.Tensor:
            return torch.tensor(weights["layers/" + name][()])

        module.embedding.weight.copy_(layer("embedding/vars/0"))
        # Keras orders the gates i, f, c, o, which is torch's i, f, g, o, and has one bias where torch adds two.
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            cell = f"bidirectional/{direction}_layer/cell/vars/"
            getattr(module.lstm, "weight_ih_l0" + suffix).copy_(layer(cell + "0").T)
            getattr(module.lstm, "weight_hh_l0" + suffix).copy_(layer(cell + "1").T)
            getattr(module.lstm, "bias_ih_l0" + suffix).copy_(layer(cell + "2"))
            getattr(module.lstm, "bias_hh_l0" + suffix).zero_()
        module.dense.weight.copy_(layer("dense/vars/0").T)
        module.dense.bias.copy_(layer("dense/vars/1"))
        module.output.weight.copy_(layer("dense_1/vars/0").T[:1])
        module.output.bias.copy_(layer("dense_1/vars/1")[:1])
    return TorchModel(
        module,
        classes=["not toxic", "toxic"],
        preprocessing=TextPreprocessing(vocabulary=vocabulary, length=100, filters=tokenizer.filters, padding="left"),
        architecture={"name": "bilstm_text", "args": args},
    )


def profanity(folder: Path) -> AuditedModel:
    """alt-profanity-check through a function of the user's own, as ``--predict`` takes it."""
    package("profanity_check", "alt-profanity-check")
    (folder / "profane.py").write_text(
        "from profanity_check import predict_prob\n\n\ndef predict(texts):\n    return predict_prob(texts)\n"
    )
    with warnings.catch_warnings():
        # Its files were pickled by another version of scikit-learn.
        warnings.simplefilter("ignore")
        return load_model(
            ModelSpec(predict="profane:predict", code_folder=str(folder), classes=("clean", "profane"), allow_code=True)
        )


def audit(model: AuditedModel) -> AuditReport:
    return run_audit(model, None, [CounterfactualTokenFairness()], CRITERIA)


def outcomes(report: AuditReport) -> list[str]:
    return [str(finding.outcome) for finding in report.findings if finding.criterion is not None]


def gap(report: AuditReport, first: str, second: str) -> float:
    """``first`` minus ``second`` among the pairs of the headline."""
    headline = next(f for f in report.findings if f.metric == "worst_identity_gap" and not f.group)
    assert isinstance(headline.estimate, WorstPairedDifference)
    return next(p.centre for p in headline.estimate.pairs if (p.first, p.second) == (first, second))


def test_jigsaw_bilstm_as_a_bundle(tmp_path: Path) -> None:
    save(jigsaw(), tmp_path / "jigsaw.pt")
    model = load_model(ModelSpec(path=str(tmp_path / "jigsaw.pt")))
    gay, tall = model.predict_proba(PAIR)[:, 1]
    assert gay == pytest.approx(0.85, abs=0.01) and tall == pytest.approx(0.37, abs=0.01)
    report = audit(model)
    assert outcomes(report) == ["FAIL", "FAIL"] and report.exit_code == 1
    assert gap(report, "orientation/gay", "orientation/neutral words") > 0.3


def test_profanity_check_through_a_function(tmp_path: Path) -> None:
    model = profanity(tmp_path)
    gay, tall = model.predict_proba(PAIR)[:, 1]
    assert gay == pytest.approx(0.95, abs=0.01) and tall == pytest.approx(0.05, abs=0.01)
    report = audit(model)
    assert outcomes(report) == ["FAIL", "FAIL"]
    assert gap(report, "orientation/gay", "orientation/neutral words") > 0.3


def test_a_model_blind_to_the_words_passes() -> None:
    """The real model behind a mask: every identity term is replaced by one word before it reads."""
    from auditor.data.lexicons import built_in, neutral

    real = jigsaw()
    words = {
        w.casefold()
        for lexicon in (*built_in(), neutral())
        for i in lexicon.identities
        for own in i.words.values()
        for w in own
    }
    parts = {p for w in words for p in w.replace("-", " ").split()}

    def predict(texts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        masked = []
        for text in texts:
            kept = [w for w in real.preprocessing.words(text) if w not in parts and w not in ("a", "an")]  # type: ignore[union-attr]
            masked.append(" ".join(kept))
        return real.predict_proba(np.asarray(masked, object))

    report = audit(AuditedModel.from_callable(predict, classes=["not toxic", "toxic"]))
    assert outcomes(report) == ["PASS", "PASS"]


def test_a_few_letters_that_look_the_same_hide_every_insult_from_it() -> None:
    """Of insults that the Jigsaw model catches, one random typing error hides some, and look-alikes all."""
    insults = ("an idiot", "a moron", "a stupid fool", "a pathetic loser", "a dumb liar", "a filthy pig")
    names = ("Anna", "My neighbour", "That teacher", "The mayor", "Your cousin")
    texts = np.asarray([f"{name} is {insult}" for name in names for insult in insults], object)
    model = jigsaw()
    caught = texts[model.predict_proba(texts)[:, -1] >= 0.5]
    assert len(caught) >= 20
    data = AuditData(X=caught, y_true=np.ones(len(caught), np.int64), classes=model.classes, positive=0)
    found = {
        (m.metric.removeprefix("flip_rate_under_"), next(iter(m.at.values()))): m.estimate.value
        for m in Robustness().measure(model, data, np.random.default_rng(0))
        if m.metric.startswith("flip_rate")
    }
    assert found["homoglyphs", 4] == found["zero_width", 4] == 1.0 and found["leet", 4] > 0.8
    assert found["worst_typos", 1] > found["typos", 1] + 0.2
    assert found["appended_words", 4] < found["homoglyphs", 1]
