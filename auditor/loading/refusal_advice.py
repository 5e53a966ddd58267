"""Advice in refusals: a way to an audit, by the contents of the file."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.loading.job_specs import ModelSpec
from auditor.models.files.pickles import PickleReading

# Where training scripts commonly keep the weights inside a checkpoint.
WEIGHTS_KEYS = ("state_dict", "model_state_dict", "model")
OWN_LOADER = "audit it through your own loader with --predict package.module:function"
TRUST = "load it all the same, code and all, with --trust-pickle"
_BUNDLE = "auditor.save(TorchModel({load}, classes=[...]), 'model.pt')"
# What libraries of boosted trees call the model itself, and how they write it as data.
_OWN_FORMATS = {
    "xgboost": ("XGBoost", "save_model('model.ubj')"),
    "lightgbm": ("LightGBM", "booster_.save_model('model.txt')"),
    "catboost": ("CatBoost", "save_model('model.cbm')"),
}
_OF_TORCH = ("torch.nn.modules.", "torch.nn.parameter.", "__builtin__.set", "builtins.set")
_MADE_BY = frozenset({"copyreg._reconstructor", "copy_reg._reconstructor", "joblib.numpy_pickle.NumpyArrayWrapper"})


def way_out(names: Sequence[str], *, load: str, torch_file: bool = False) -> str:
    """Advice for a pickle that calls ``names``, in file order; ``load`` is the call that loads it.

    A booster by itself goes into its library's own format, a network into a bundle, or where it is all of torch's own
    layers into plain weights, a transformer that calls a function of numpy's into skops; for anything else a function
    of the user's own has the answers.
    """
    own = [name for name in names if name not in _MADE_BY]
    first = own[0] if own else ""
    library = first.split(".")[0]
    if library in _OWN_FORMATS:
        said, save = _OWN_FORMATS[library]
        if first.endswith(".Booster"):
            save = save.removeprefix("booster_.")
        return f"save it in {said}'s own format where you trust it: {load}.{save}"
    if torch_file and own and all(name.startswith(_OF_TORCH) for name in own):
        # There is no class of the user's own to name, and shapes say most of the rest.
        return f"save its weights alone where you trust it: torch.save({load}.state_dict(), 'weights.pt')"
    if torch_file or library == "torch" or any(name.startswith(("torch.nn.", "torch._utils.")) for name in own):
        return (
            f"save it as a bundle where you trust it: {_BUNDLE.format(load=load)}, and name its class with "
            "--architecture package.module:Class"
        )
    foreign = [name for name in own if not name.startswith(("numpy._core.", "numpy.core."))]
    if first.startswith("sklearn.") and _of_numpy_only(foreign):
        return f"save it anew where you trust it: skops.io.dump({load}, 'model.skops')"
    return (
        f"let a file of your own answer for it where you trust it, say own.py with model = {load} and "
        "def predict(rows): return model.predict_proba(rows), and name that with --predict own:predict and --classes"
    )


def flags_unsaid(spec: ModelSpec, *, of_a_table: bool) -> str:
    """All flags needed for facts that a file does not state, so that one refusal names them together."""
    classes = "" if spec.classes is not None or spec.task == "regression" else " --classes a,b"
    columns = "" if spec.features is not None or not of_a_table else ", and of a table --features a,b in their order"
    return classes + columns


def way_out_of_checkpoint(pickled: bytes, report: PickleReading, *, load: str) -> str | None:
    """Advice for a checkpoint, a dict of more than weights; None if the file is no such dict."""
    if pickled[:1] != b"\x80" or pickled[2:3] != b"}" or report.streams != 1:
        return None
    if "torch._utils._rebuild_tensor_v2" not in report.names:
        return None
    key = next((key for key in WEIGHTS_KEYS if key in report.strings), None)
    alone = f"{load}[{key!r}]" if key else f"{{k: v for k, v in {load}.items() if torch.is_tensor(v)}}"
    return f"save its weights alone where you trust it: torch.save({alone}, 'weights.pt')"


def _of_numpy_only(names: Sequence[str]) -> bool:
    """Whether all that scikit-learn does not bring itself are functions of numpy, which skops reads."""
    from skops.io._trusted_types import NUMPY_UFUNC_TYPE_NAMES

    from auditor.loading.pickled_types import is_allowed

    others = [name for name in names if not is_allowed(name)]
    return bool(others) and set(others) <= set(NUMPY_UFUNC_TYPE_NAMES)
