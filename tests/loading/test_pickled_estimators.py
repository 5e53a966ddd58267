"""scikit-learn models out of pickles and joblib files, read by exact lists: what loads, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import re
import resource
import signal
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, SplineTransformer, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from auditor.core.errors import AuditorError, ModelError, UnsafeModelError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from tests.loading.test_intake_hostile import SECONDS, bounded, text

RNG = np.random.default_rng(0)
ROWS = pd.DataFrame({"a": RNG.normal(size=60), "b": RNG.normal(size=60), "c": np.arange(60) % 3})
LABELS = (ROWS["a"] + 0.3 * RNG.normal(size=60) > 0).astype(int).to_numpy()
MIXED = ROWS.assign(d=pd.Series(list("xyz") * 20, dtype="category"))


def _columns() -> Any:
    encode = ColumnTransformer(
        [("one", OneHotEncoder(handle_unknown="ignore"), ["d"]), ("scale", StandardScaler(), ["a"])],
        remainder="passthrough",
    )
    return make_pipeline(encode, SimpleImputer(), LogisticRegression())


ZOO: dict[str, Callable[[], Any]] = {
    "logistic": LogisticRegression,
    "sgd": lambda: SGDClassifier(loss="log_loss", random_state=0),
    "linear_svc": LinearSVC,
    "svc": SVC,
    "svc_sparse": lambda: make_pipeline(OneHotEncoder(handle_unknown="ignore"), SVC()),
    "svr": SVR,
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "extra_tree": lambda: ExtraTreeClassifier(random_state=np.random.RandomState(3)),
    "forest": lambda: RandomForestClassifier(5, random_state=0),
    "extra_trees": lambda: ExtraTreesClassifier(5, random_state=0),
    "forest_regressor": lambda: RandomForestRegressor(5, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=5, random_state=np.random.RandomState(0)),
    "boosting_regressor": lambda: GradientBoostingRegressor(n_estimators=5, loss="huber"),
    "hist_boosting": lambda: HistGradientBoostingClassifier(max_iter=5),
    "hist_boosting_of_categories": lambda: HistGradientBoostingClassifier(
        max_iter=5, categorical_features="from_dtype"
    ),
    "hist_boosting_regressor": lambda: HistGradientBoostingRegressor(max_iter=5, loss="quantile", quantile=0.4),
    "adaboost": lambda: AdaBoostClassifier(n_estimators=3, random_state=0),
    "bagging": lambda: BaggingClassifier(n_estimators=3, max_features=2, random_state=0),
    "voting": lambda: VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"),
    "stacking": lambda: StackingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], cv=2),
    "calibrated": lambda: CalibratedClassifierCV(GaussianNB(), cv=2),
    "calibrated_isotonic": lambda: CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2),
    "grid_search": lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2, scoring="roc_auc"),
    "mlp": lambda: MLPClassifier((4,), max_iter=5, random_state=0),
    "neighbors": lambda: KNeighborsClassifier(3),
    "neighbors_ball_tree": lambda: KNeighborsClassifier(3, algorithm="ball_tree", metric="minkowski", p=3),
    "neighbors_regressor": lambda: KNeighborsRegressor(3, algorithm="brute"),
    "gaussian_process": GaussianProcessClassifier,
    "gaussian_nb": GaussianNB,
    "bernoulli_nb": BernoulliNB,
    "lda": LinearDiscriminantAnalysis,
    "qda": QuadraticDiscriminantAnalysis,
    "dummy": lambda: DummyClassifier(strategy="stratified", random_state=0),
    "linear": LinearRegression,
    "lasso": Lasso,
    "pipeline_of_columns": _columns,
    "pipeline_of_splines": lambda: make_pipeline(
        SplineTransformer(), SelectKBest(f_classif, k=3), LogisticRegression()
    ),
    "pipeline_of_ordinals": lambda: make_pipeline(OrdinalEncoder(), DecisionTreeClassifier(random_state=0)),
}


def fitted(name: str) -> tuple[Any, pd.DataFrame]:
    rows = MIXED if name in ("pipeline_of_columns", "hist_boosting_of_categories", "pipeline_of_ordinals") else ROWS
    return ZOO[name]().fit(rows, LABELS), rows


def as_joblib(model: object, compress: Any = 0) -> bytes:
    file = io.BytesIO()
    joblib.dump(model, file, compress=compress)
    return file.getvalue()


def load_bytes(data: bytes, folder: Path, **flags: Any) -> Any:
    (folder / "model.any").write_bytes(data)
    return load_model(ModelSpec(path=str(folder / "model.any"), **flags))


def written(model: object) -> dict[str, bytes]:
    """The model in every way that people save one."""
    plain = as_joblib(model)
    return {
        **{f"pickle {protocol}": pickle.dumps(model, protocol) for protocol in range(6)},
        "joblib": plain,
        "joblib gzip": gzip.compress(plain),
        "joblib zlib": as_joblib(model, 3),
        "joblib bz2": bz2.compress(plain),
        "joblib xz": lzma.compress(plain),
        "joblib lzma": lzma.compress(plain, format=lzma.FORMAT_ALONE),
    }


@pytest.mark.grid
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("name", sorted(ZOO))
def test_ordinary_models_load_and_answer_as_they_did(name: str, tmp_path: Path) -> None:
    model, rows = fitted(name)
    for way, data in written(model).items():
        loaded = load_bytes(data, tmp_path)
        again = pickle.loads(pickle.dumps(model))
        expected = again.predict_proba(rows) if hasattr(again, "predict_proba") else again.predict(rows)
        found = loaded.predict_proba(rows) if loaded.kind == "classifier" else loaded.predict(rows)
        if loaded.kind == "classifier" and np.ndim(expected) == 1:
            found = found.argmax(1)
        np.testing.assert_array_equal(np.ravel(found), np.ravel(expected), err_msg=way)
        assert "trust-pickle" not in str(loaded.provenance.notes) and "own reader" in loaded.provenance.loaded_by


def test_another_version_of_scikit_learn_is_a_note(tmp_path: Path) -> None:
    import sklearn

    data = pickle.dumps(LogisticRegression().fit(ROWS, LABELS), 2)
    here = sklearn.__version__.encode()
    assert data.count(here) == 1 and len(here) == 5
    loaded = load_bytes(data.replace(here, b"1.2.3"), tmp_path)
    assert any(
        note.startswith(f"Saved by scikit-learn 1.2.3 and read by {sklearn.__version__}")
        for note in loaded.provenance.notes
    )
    assert load_bytes(data, tmp_path).provenance.notes == ()


def test_what_is_no_model_says_what_to_do(tmp_path: Path) -> None:
    model = LogisticRegression().fit(ROWS, LABELS)
    with pytest.raises(ModelError, match=r"joblib.dump\(joblib.load\(path\)\['clf'\], 'model.joblib'\)"):
        load_bytes(pickle.dumps({"scaler": StandardScaler().fit(ROWS), "clf": model}), tmp_path)
    load_bytes(as_joblib(pickle.loads(pickle.dumps({"clf": model}))["clf"]), tmp_path)
    with pytest.raises(ModelError, match="bytes after its end: save one model a file"):
        load_bytes(pickle.dumps(model) + pickle.dumps(StandardScaler().fit(ROWS)), tmp_path)
    with pytest.raises(ModelError, match="no fitted classifier"):
        load_bytes(pickle.dumps(StandardScaler().fit(ROWS)), tmp_path)


# ---- hostile ---------------------------------------------------------------------------------------------------------


def glob(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def stack_glob(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return text(module) + text(attribute) + b"\x93"


def inside(value: bytes, attribute: str = "C") -> bytes:
    """A logistic regression, of which one attribute is this."""
    kind = glob("sklearn.linear_model._logistic.LogisticRegression")
    return b"\x80\x04" + kind + b")\x81}" + text(attribute) + value + b"sb."


def call(name: str, argument: bytes) -> bytes:
    return glob(name) + argument + b"\x85R"


# What would do harm if it were called with a command, a path or a name.
GADGETS = (
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "builtins.getattr",
    "builtins.__import__",
    "subprocess.Popen",
    "importlib.import_module",
    "operator.methodcaller",
    "operator.attrgetter",
    "functools.reduce",
    "pickle.loads",
    "joblib.load",
    "joblib.numpy_pickle.load",
    "numpy.load",
    "numpy.memmap",
    "numpy.fromfile",
    "pandas.read_pickle",
    "torch.load",
    "sklearn.utils.fixes.threadpool_info",
    "sklearn.datasets._base.load_files",
    "sklearn.utils._joblib.joblib",
    "sklearn.base.clone",
    "types.FunctionType",
    "cloudpickle.cloudpickle._make_function",
    "numpy.testing._private.utils.runstring",
    "timeit.timeit",
    "ctypes.CDLL",
    "shutil.rmtree",
)
ROUTES: dict[str, Callable[[str, bytes], bytes]] = {
    "reduce": lambda name, arg: b"\x80\x04" + call(name, arg) + b".",
    "stack_global": lambda name, arg: b"\x80\x04" + stack_glob(name) + arg + b"\x85R.",
    "inst": lambda name, arg: b"(" + arg + b"i" + glob(name)[1:] + b".",
    "obj": lambda name, arg: b"(" + glob(name) + arg + b"o.",
    "newobj": lambda name, arg: b"\x80\x04" + glob(name) + arg + b"\x85\x81.",
    "newobj_ex": lambda name, arg: b"\x80\x04" + glob(name) + arg + b"\x85}\x92.",
    "in_an_attribute": lambda name, arg: inside(call(name, arg)),
    "as_an_attribute": lambda name, arg: inside(glob(name)),
    "in_a_key": lambda name, arg: b"\x80\x04}" + call(name, arg) + b"K\x01s.",
    "reconstructed": lambda name, arg: (
        b"\x80\x04ccopyreg\n_reconstructor\n" + glob(name) + glob("builtins.object") + b"N\x87R."
    ),
    "default_factory": lambda name, arg: inside(b"ccollections\ndefaultdict\n" + glob(name) + b"\x85R"),
    "partial": lambda name, arg: inside(call("functools.partial", glob(name))),
    "of_the_memo": lambda name, arg: b"\x80\x04" + glob(name) + b"q\x050h\x05" + arg + b"\x85R.",
    "after_the_end": lambda name, arg: pickle.dumps({"a": 1}) + b"\x80\x04" + call(name, arg) + b".",
    "compressed": lambda name, arg: zlib.compress(b"\x80\x04" + call(name, arg) + b"."),
}


@pytest.mark.grid
@pytest.mark.parametrize("route", sorted(ROUTES))
def test_no_route_calls_anything(route: str, tmp_path: Path) -> None:
    """Every gadget by every route, with a command that makes a file and the path of one that must stay."""
    marker, kept = tmp_path / "marker", tmp_path / "kept"
    kept.mkdir()
    for name in GADGETS:
        for argument in (text(f"touch {marker}"), text(str(kept)), text(f"open({str(marker)!r}, 'w')")):
            with bounded(), pytest.raises(UnsafeModelError) as caught:
                load_bytes(ROUTES[route](name, argument), tmp_path)
            assert "--predict" in str(caught.value) and str(caught.value).isprintable()
            if "computed" not in str(caught.value) and route not in ("inst", "obj", "newobj_ex"):
                assert name in str(caught.value), (name, str(caught.value))
            assert not marker.exists() and kept.exists(), name


def array_reduce(dtype: bytes, shape: bytes, content: bytes) -> bytes:
    made = glob("numpy._core.multiarray._reconstruct") + glob("numpy.ndarray") + b"K\x00\x85C\x01b\x87R"
    return made + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"


def dtype_of(code: str) -> bytes:
    return glob("numpy.dtype") + text(code) + b"\x89\x88\x87R"


def raw(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


def edited(model: Any, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A pickle of the model with another state of its tree, which scikit-learn itself would take."""

    class Doctored:
        def __init__(self, tree: Any) -> None:
            self.tree = tree

        def __reduce__(self) -> Any:
            kind, arguments, state = self.tree.__reduce__()
            state = dict(state)
            holder = {"arguments": arguments, "state": state}
            change(holder)
            return kind, holder["arguments"], holder["state"]

    model.__dict__["tree_"] = Doctored(model.tree_)
    return pickle.dumps(model)


def _tree(change: Callable[[dict[str, Any]], None]) -> bytes:
    return edited(DecisionTreeClassifier(max_depth=2, random_state=0).fit(ROWS, LABELS), change)


def _node(field: str, value: int) -> Callable[[dict[str, Any]], None]:
    def change(holder: dict[str, Any]) -> None:
        nodes = holder["state"]["nodes"].copy()
        nodes[field][0] = value
        holder["state"]["nodes"] = nodes

    return change


def _state(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda holder: holder["state"].update({name: value})


def _arguments(*arguments: Any) -> Callable[[dict[str, Any]], None]:
    return lambda holder: holder.update(arguments=arguments)


def _of(model: Any, **changes: Any) -> bytes:
    model = model.fit(ROWS, LABELS)
    for name, value in changes.items():
        model.__dict__[name] = value(model.__dict__[name]) if callable(value) else value
    return pickle.dumps(model)


def _without_columns(model: Any) -> bytes:
    model = model.fit(ROWS, LABELS)
    del model.__dict__["n_features_in_"]
    return pickle.dumps(model)


def _sparse(**changes: Any) -> bytes:
    matrix = scipy.sparse.csr_matrix(np.eye(3))
    for name, value in changes.items():
        matrix.__dict__[name] = np.asarray(value, np.int32)
    return pickle.dumps(matrix)


def _deep(levels: int) -> bytes:
    return b"\x80\x04" + b"(" * levels + b"K\x01" + b"t" * levels + b"."


def _nested_joblib(levels: int) -> bytes:
    """Arrays of objects within arrays of objects, each a stream of its own."""
    wrapper = (
        glob("joblib.numpy_pickle.NumpyArrayWrapper")
        + b")\x81}("
        + (text("subclass") + glob("numpy.ndarray") + text("shape") + b"K\x01\x85")
        + (text("order") + text("C") + text("dtype") + dtype_of("O8") + text("allow_mmap") + b"\x89")
        + b"ub"
    )
    return b"\x80\x04" + wrapper * levels + b"N."


DOCTORED: dict[str, Callable[[], bytes]] = {
    "estimator_called": lambda: (
        b"\x80\x04" + call("sklearn.linear_model._logistic.LogisticRegression", b"K\x01") + b"."
    ),
    "estimator_called_with_a_path": lambda: b"\x80\x04" + call("sklearn.pipeline.Pipeline", text("/etc")) + b".",
    "class_in_the_state": lambda: inside(glob("builtins.object"), "__class__"),
    "dict_in_the_state": lambda: inside(b"}", "__dict__"),
    "reduce_in_the_state": lambda: inside(glob("builtins.list"), "__reduce__"),
    "predict_in_the_state": lambda: inside(glob("builtins.list"), "predict"),
    "predict_of_a_pipeline": lambda: inside(glob("builtins.list"), "predict_proba").replace(
        b"csklearn.linear_model._logistic\nLogisticRegression", b"csklearn.pipeline\nPipeline"
    ),
    "state_of_slots": lambda: inside(b"K\x01").replace(b"sb.", b"sN\x86b."),
    "state_is_a_list": lambda: b"\x80\x04" + glob("sklearn.svm._classes.SVC") + b")\x81]b.",
    "state_given_twice": lambda: b"\x80\x04" + glob("sklearn.svm._classes.SVC") + b")\x81}b}b.",
    "state_of_a_list": lambda: b"\x80\x04]}b.",
    "state_of_a_type": lambda: b"\x80\x04" + glob("sklearn.svm._classes.SVC") + b"}b.",
    "items_of_an_estimator": lambda: b"\x80\x04" + glob("sklearn.svm._classes.SVC") + b")\x81K\x01K\x02s.",
    "appended_to_an_estimator": lambda: b"\x80\x04" + glob("sklearn.svm._classes.SVC") + b")\x81K\x01a.",
    "estimator_as_a_key": lambda: b"\x80\x04}" + glob("sklearn.svm._classes.SVC") + b")\x81K\x01s.",
    "nested_tuples_as_a_key": lambda: b"\x80\x04}" + b"K\x01" + b"\x85" * 40 + b"K\x01s.",
    "call_of_an_instance": lambda: b"\x80\x04" + glob("sklearn.gaussian_process.kernels.RBF") + b")\x81)R.",
    "call_of_text": lambda: b"\x80\x04" + text("os.system") + b")R.",
    "persistent_id": lambda: b"Pevil\n.",
    "binary_persistent_id": lambda: b"\x80\x04" + text("evil") + b"Q.",
    "extension_1": lambda: b"\x80\x02\x82\xf0.",
    "extension_2": lambda: b"\x80\x02\x83\xf0\x00.",
    "extension_4": lambda: b"\x80\x02\x84\xf0\x00\x00\x00.",
    "out_of_band_buffer": lambda: b"\x80\x05\x97.",
    "text_of_python_2": lambda: b"S'os'\n.",
    "dotted_name": lambda: b"\x80\x04" + text("sklearn.svm") + text("_classes.SVC") + b"\x93)\x81.",
    "dotted_name_to_os": lambda: inside(text("sklearn.base") + text("os.system") + b"\x93"),
    "name_through_a_module": lambda: inside(text("sklearn.utils.validation") + text("os") + b"\x93"),
    "name_that_is_no_text": lambda: b"\x80\x04K\x01K\x02\x93.",
    "name_of_a_submodule": lambda: inside(glob("sklearn.base.inspect")),
    "base_class": lambda: b"\x80\x04" + glob("sklearn.base.BaseEstimator") + b")\x81.",
    "function_of_two_numbers": lambda: pickle.dumps(make_pipeline(FunctionTransformer(np.add), LogisticRegression())),
    "function_with_settings": lambda: pickle.dumps(
        make_pipeline(FunctionTransformer(np.log1p, kw_args={"out": np.zeros(1)}), LogisticRegression())
    ),
    "function_of_python": lambda: pickle.dumps(make_pipeline(FunctionTransformer(len), LogisticRegression())),
    "partial_check_of_another_function": lambda: inside(
        call("functools.partial", glob("sklearn.utils.validation.check_array"))
        + b"("
        + glob("builtins.list")
        + b")}Ntb"
    ),
    "files_by_name": lambda: (
        b"\x80\x04"
        + glob("sklearn.feature_extraction.text.CountVectorizer")
        + (b")\x81}" + text("input") + text("filename") + b"sb.")
    ),
    "codec": lambda: inside(glob("_codecs.encode") + text("abc") + text("rot13") + b"\x86R"),
    "codec_of_zip": lambda: inside(glob("_codecs.encode") + text("abc") + text("zlib_codec") + b"\x86R"),
    "array_of_objects_from_bytes": lambda: inside(array_reduce(dtype_of("O8"), b"K\x01\x85", raw(bytes(8)))),
    "array_of_objects_from_a_buffer": lambda: inside(
        glob("numpy._core.numeric._frombuffer")
        + b"("
        + raw(bytes(8))
        + dtype_of("O8")
        + b"K\x01\x85"
        + text("C")
        + b"tR"
    ),
    "number_that_is_an_object": lambda: inside(
        glob("numpy._core.multiarray.scalar") + dtype_of("O8") + raw(bytes(8)) + b"\x86R"
    ),
    "array_that_claims_more": lambda: inside(array_reduce(dtype_of("f8"), b"J\xff\xff\xff\x7f\x85", raw(bytes(8)))),
    "array_of_negative_length": lambda: inside(array_reduce(dtype_of("f8"), b"J\xff\xff\xff\xff\x85", raw(bytes(8)))),
    "array_of_nothing_without_end": lambda: inside(
        array_reduce(dtype_of("V0"), b"\x8a\x08" + bytes(7) + b"\x10\x85", raw(b""))
    ),
    "array_of_overflowing_shape": lambda: inside(
        array_reduce(dtype_of("f8"), (b"\x8a\x08" + bytes(7) + b"\x10") * 2 + b"\x86", raw(b""))
    ),
    "array_filled_twice": lambda: (
        inside(array_reduce(dtype_of("f8"), b"K\x01\x85", raw(bytes(8))))[:-3]
        + (b"(K\x01K\x00\x85" + dtype_of("f8") + b"\x89" + raw(b"") + b"tbsb.")
    ),
    "buffer_filled": lambda: inside(
        glob("numpy._core.numeric._frombuffer")
        + (b"(" + raw(bytes(8)) + dtype_of("f8") + b"K\x01\x85" + text("C") + b"tR")
        + (b"(K\x01K\x00\x85" + dtype_of("f8") + b"\x89" + raw(b"") + b"tb")
    ),
    "array_of_a_subclass": lambda: inside(
        glob("numpy._core.multiarray._reconstruct") + glob("numpy.ma.MaskedArray") + b"K\x00\x85C\x01b\x87R"
    ),
    "dtype_by_a_comma": lambda: inside(dtype_of("f8,O8")),
    "dtype_by_a_shape": lambda: inside(dtype_of("(2,3)f8")),
    "dtype_with_a_base": lambda: inside(
        dtype_of("V8") + b"(K\x03" + text("|") + dtype_of("O8") + b"K\x01\x85\x86NNK\x08K\x01K\x00tb"
    ),
    "dtype_with_objects_within": lambda: inside(
        dtype_of("V8")
        + (b"(K\x03" + text("|") + b"N" + text("a") + b"\x85}" + text("a") + dtype_of("O8") + b"K\x00\x86s")
        + b"K\x08K\x01K\x00tb"
    ),
    "dtype_with_a_field_outside": lambda: inside(
        dtype_of("V8")
        + (b"(K\x03" + text("|") + b"N" + text("a") + b"\x85}" + text("a") + dtype_of("f8") + b"K\x20\x86s")
        + b"K\x08K\x01K\x00tb"
    ),
    "bytes_that_claim_more": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"a.",
    "text_that_claims_more": lambda: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"a.",
    "bytearray_that_claims_more": lambda: b"\x80\x05\x96" + struct.pack("<Q", (1 << 64) - 1) + b"a.",
    "long_that_claims_more": lambda: b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"a.",
    "long_of_negative_length": lambda: b"\x80\x02\x8b" + struct.pack("<i", -1) + b"a.",
    "decimal_without_end": lambda: b"I" + b"9" * 100_000 + b"\n.",
    "frame_that_claims_more": lambda: b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"(.",
    "protocol_9": lambda: b"\x80\x09N.",
    "memo_that_is_not_there": lambda: b"\x80\x04h\x07.",
    "memo_of_nothing": lambda: b"\x80\x04q\x01.",
    "negative_memo": lambda: b"g-1\n.",
    "mark_that_is_not_there": lambda: b"\x80\x04t.",
    "marks_left_over": lambda: b"\x80\x04(((N.",
    "nothing_at_all": lambda: b"\x80\x04.",
    "odd_items": lambda: b"\x80\x04}(K\x01u.",
    "deep_tuples": lambda: _deep(50_000),
    "arrays_within_arrays": lambda: _nested_joblib(500),
    "set_of_lists": lambda: b"\x80\x04\x8f(]\x90.",
    "range_of_text": lambda: inside(glob("builtins.range") + text("a") + b"\x85R"),
    "generator_of_another_kind": lambda: inside(
        call("numpy.random._pickle.__bit_generator_ctor", glob("numpy.random._philox.Philox"))
    ),
    "generator_beyond_its_memory": lambda: pickle.dumps(_placed(1 << 20)),
    "generator_before_its_memory": lambda: pickle.dumps(_placed(-5)),
    "generator_of_a_short_key": lambda: pickle.dumps(_placed(3, 10)),
    "tree_without_nodes": lambda: inside(
        call("sklearn.tree._tree.Tree", b"")[:-2]
        + (b"K\x03" + array_reduce(dtype_of("i8"), b"K\x01\x85", raw(struct.pack("<q", 2))) + b"K\x01\x87R")
    ),
    "tree_that_points_outside": lambda: _tree(_node("left_child", 1 << 40)),
    "tree_that_points_back": lambda: _tree(_node("left_child", 0)),
    "tree_of_a_column_outside": lambda: _tree(_node("feature", 1 << 40)),
    "tree_of_a_negative_column": lambda: _tree(_node("feature", -5)),
    "tree_of_more_nodes": lambda: _tree(_state("node_count", 1 << 40)),
    "tree_of_negative_nodes": lambda: _tree(_state("node_count", -1)),
    "tree_of_short_values": lambda: _tree(_state("values", np.zeros((1, 1, 2)))),
    "tree_of_other_nodes": lambda: _tree(_state("nodes", np.zeros(7))),
    "tree_of_more_outputs": lambda: _tree(_arguments(3, np.array([2]), 1 << 19)),
    "tree_of_no_classes": lambda: _tree(_arguments(3, np.array([-2]), 1)),
    "tree_of_endless_classes": lambda: _tree(_arguments(3, np.array([1 << 60]), 1)),
    "tree_of_other_columns": lambda: _tree(_arguments(99, np.array([2]), 1)),
    "tree_that_says_no_columns": lambda: _without_columns(DecisionTreeClassifier(max_depth=2)),
    "forest_that_says_no_columns": lambda: _without_columns(RandomForestClassifier(2)),
    "forest_of_other_columns": lambda: _of(RandomForestClassifier(2), n_features_in_=2),
    "forest_that_plays_bagging": lambda: pickle.dumps(_plays_bagging()),
    "hist_boosting_of_other_columns": lambda: _of(HistGradientBoostingClassifier(max_iter=2), n_features_in_=0),
    "vectors_of_another_number": lambda: _of(SVC(), _n_support=np.array([1 << 20, 1 << 20], np.int32)),
    "vectors_of_another_width": lambda: _of(SVC(), support_vectors_=lambda v: np.ascontiguousarray(v[:, :1])),
    "vectors_of_short_coefficients": lambda: _of(SVC(), _dual_coef_=lambda v: np.ascontiguousarray(v[:, :1])),
    "vectors_without_intercepts": lambda: _of(SVC(), _intercept_=np.zeros(0)),
    "sparse_beyond_its_columns": lambda: _sparse(indices=[0, 1, 1 << 30]),
    "sparse_of_negative_columns": lambda: _sparse(indices=[0, -1, 2]),
    "sparse_beyond_its_rows": lambda: _sparse(indptr=[0, 1, 2, 1 << 30]),
    "search_tree_without_content": lambda: inside(
        call("sklearn.neighbors._kd_tree.newObj", glob("sklearn.neighbors._kd_tree.KDTree"))
    ),
    "search_tree_of_another_class": lambda: inside(
        call("sklearn.neighbors._kd_tree.newObj", glob("sklearn.svm._classes.SVC"))
    ),
    "loss_of_text": lambda: inside(call("sklearn._loss._loss.CyHuberLoss", text("a"))),
    "loss_that_is_none": lambda: inside(call("sklearn._loss._loss.__pyx_unpickle_CyEvil", b"N")),
    "wrapper_of_a_type_that_is_none": lambda: _nested_joblib(1).replace(glob("numpy.ndarray"), glob("builtins.list")),
    "wrapper_cut_short": lambda: as_joblib(LogisticRegression().fit(ROWS, LABELS))[:400],
}


def _placed(place: int, length: int = 624) -> Any:
    """A random state whose next number would be read at any place of memory."""

    class Bits:
        def __reduce__(self) -> Any:
            state = {"bit_generator": "MT19937", "state": {"key": np.zeros(length, np.uint32), "pos": place}}
            return getattr(np.random._pickle, "__bit_generator_ctor"), ("MT19937",), state  # type: ignore[attr-defined]

    model = DummyClassifier(strategy="stratified").fit(ROWS, LABELS)
    model.__dict__["random_state"] = Bits()
    return model


def _plays_bagging() -> Any:
    model = RandomForestClassifier(2).fit(ROWS, LABELS)
    model.n_features_in_ = 2
    model.__dict__["estimators_features_"] = [np.arange(2)] * 2
    return model


def test_a_pipeline_without_steps_is_incomplete(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS)
    for steps in ([], [("a", None)], None, [1]):
        model.__dict__["steps"] = steps
        with pytest.raises(ModelError, match="incomplete|no fitted classifier"):
            load_bytes(pickle.dumps(model), tmp_path)
        with pytest.raises(ModelError, match="any model|under 0"):
            load_bytes(pickle.dumps([model] if steps else [StandardScaler()]), tmp_path)


@pytest.mark.parametrize("name", sorted(DOCTORED))
def test_doctored_pickles_are_refused(name: str, tmp_path: Path) -> None:
    data = DOCTORED[name]()
    with bounded(), pytest.raises(AuditorError) as caught:
        load_bytes(data, tmp_path)
    message = str(caught.value)
    assert isinstance(caught.value, ModelError) and message.isprintable() and 20 < len(message) < 1200, message
    if (
        name.split("_")[0] in ("tree", "forest", "hist", "vectors", "sparse", "generator")
        and "another_kind" not in name
    ):
        assert re.search("doctored|damaged", message), message


@pytest.mark.parametrize(
    "name", ["forest_that_plays_bagging", "tree_that_says_no_columns", "vectors_of_another_number"]
)
def test_skops_files_of_doctored_models_are_refused_alike(name: str, tmp_path: Path) -> None:
    import skops.io

    with bounded(), pytest.raises(ModelError, match="doctored"):
        load_bytes(skops.io.dumps(pickle.loads(DOCTORED[name]())), tmp_path)


def test_the_corpus_is_large() -> None:
    assert len(ROUTES) * len(GADGETS) >= 400 and len(DOCTORED) >= 100


# ---- mutated ---------------------------------------------------------------------------------------------------------


def _mutated(seed: int, data: bytes) -> bytes:
    rng = np.random.default_rng(seed)
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(len(changed)))
        kind = int(rng.integers(5))
        if kind == 0:
            changed[place] = int(rng.integers(256))
        elif kind == 1:
            changed[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del changed[place : place + int(rng.integers(1, 20))]
        elif kind == 3:
            changed[place:place] = changed[place : place + int(rng.integers(1, 40))]
        else:
            other = int(rng.integers(len(changed)))
            length = int(rng.integers(1, 16))
            changed[place : place + length] = changed[other : other + length]
        if not changed:
            break
    return bytes(changed)


MUTATED = ("tree", "forest", "boosting", "hist_boosting_of_categories", "svc", "svc_sparse", "neighbors", "mlp")


def _sources() -> list[tuple[bytes, pd.DataFrame]]:
    found = []
    for name in MUTATED:
        model, rows = fitted(name)
        found += [(pickle.dumps(model, 2), rows), (pickle.dumps(model, 5), rows), (as_joblib(model), rows)]
    return found


def _outlive(seeds: range, folder: Path) -> dict[str, int]:
    """Loads mutated files in a process of its own, and asks what loads; how many ended how."""
    sources = _sources()
    script, result = os.fork(), folder / "counts.json"
    if script == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            warnings.simplefilter("ignore")
            counts: Counter[str] = Counter()
            for seed in seeds:
                data, rows = sources[seed % len(sources)]
                (folder / "seed").write_text(str(seed))
                signal.alarm(SECONDS)
                try:
                    model = load_bytes(_mutated(seed, data), folder)
                    model.predict_proba(rows) if model.kind == "classifier" else model.predict(rows)
                    counts["loaded"] += 1
                except AuditorError:
                    counts["refused"] += 1
            result.write_text(json.dumps(counts))
        finally:
            os._exit(0 if result.exists() else 1)
    _, status = os.waitpid(script, 0)
    assert status == 0, f"seed {(folder / 'seed').read_text()}: the process ended with {status}"
    found: dict[str, int] = json.loads(result.read_text())
    return found


@pytest.mark.grid
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("first", [0, pytest.param(120, marks=pytest.mark.slow)])
def test_mutated_pickles_crash_and_hang_nothing(first: int, tmp_path: Path) -> None:
    """Each ends in a model that answers, or in one of our own errors; nothing else, in a process that may die."""
    seeds = range(first, 120 if not first else 5120)
    counts = _outlive(seeds, tmp_path)
    assert sum(counts.values()) == len(seeds)
    assert counts["refused"] > len(seeds) / 4 and counts["loaded"] > len(seeds) / 50
