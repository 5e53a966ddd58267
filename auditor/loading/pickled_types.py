"""scikit-learn models from pickle and joblib files, without unpickling: types from an exact list, made safely.

The estimators are the list that skops has. Everything else of a pickle, its arrays, numbers, generators and search
trees, is made here from checked parts; no reconstructor of numpy, scipy or scikit-learn sees a state that was not
looked at before, because compiled code takes what it gets.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from io import BytesIO
from typing import Any

import numpy as np
import sklearn

from auditor.core.errors import DamagedError, ModelError, UnsupportedError
from auditor.loading import pickled_parts as parts
from auditor.loading.boosted_libraries import estimator_of_any_library
from auditor.loading.estimator_checks import check_trees
from auditor.loading.estimators import HARMLESS
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel
from auditor.models.files import pickled_arrays as arrays
from auditor.models.files import pickled_boosters as boosters
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.unpickling import Foreign, as_key, canonical, follow

_MAX_DEPTH = 16
_TREE = "sklearn.tree._tree.Tree"
_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_EMPTY = "numpy._core.multiarray._reconstruct"
_SEARCH = "sklearn.neighbors._kd_tree", "sklearn.neighbors._ball_tree"
_DISTANCES = "sklearn.metrics._dist_metrics"
_FUNCTION_TRANSFORMER = "sklearn.preprocessing._function_transformer.FunctionTransformer"
_BSPLINE = "scipy.interpolate._bsplines.BSpline"
# Built anew from their parts, which compiled code takes unseen.
_REBUILT = frozenset(
    {_BSPLINE, *(f"scipy.sparse._{kind}.{kind}_{form}" for kind in ("csr", "csc") for form in ("matrix", "array"))}
)
# Plain objects inside estimators, which skops does not name: attributes, and methods of scikit-learn's own.
_PARTS = frozenset(
    {
        "sklearn.compose._column_transformer._RemainderColsList",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.metrics._scorer._CurveScorer",
        "sklearn.metrics._scorer._Scorer",
        "sklearn.utils._metadata_requests.MetadataRequest",
        "sklearn.utils._metadata_requests.MethodMetadataRequest",
        *(f"sklearn._loss.loss.{name}" for name in parts.LOSSES),
    }
)
# Functions that stand as a setting and do nothing but arithmetic.
_FUNCTIONS = frozenset(
    {
        "numpy.mean",
        "sklearn.utils.validation.check_array",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        *(
            f"sklearn.feature_selection._univariate_selection.{name}"
            for name in ("chi2", "f_classif", "f_oneway", "f_regression", "r_regression")
        ),
        *(
            f"sklearn.feature_selection._mutual_info.{name}"
            for name in ("mutual_info_classif", "mutual_info_regression")
        ),
        *(
            f"sklearn.metrics._classification.{name}"
            for name in (
                "accuracy_score",
                "balanced_accuracy_score",
                "brier_score_loss",
                "f1_score",
                "jaccard_score",
                "log_loss",
                "matthews_corrcoef",
                "precision_score",
                "recall_score",
            )
        ),
        *(
            f"sklearn.metrics._ranking.{name}"
            for name in ("average_precision_score", "roc_auc_score", "top_k_accuracy_score")
        ),
        *(
            f"sklearn.metrics._regression.{name}"
            for name in (
                "explained_variance_score",
                "max_error",
                "mean_absolute_error",
                "mean_absolute_percentage_error",
                "mean_squared_error",
                "median_absolute_error",
                "r2_score",
                "root_mean_squared_error",
            )
        ),
    }
)
_BUILTIN_TYPES = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (
        *(int, float, bool, complex, str, bytes, list, dict, set, frozenset, tuple, slice, range, object),
        OrderedDict,
    )
}


@cache
def classes() -> frozenset[str]:
    """The exact names of the classes allowed in a pickle."""
    from skops.io._trusted_types import SKLEARN_ESTIMATOR_TYPE_NAMES, SKLEARN_INTERNAL_TYPE_NAMES

    plain = {name for name in HARMLESS if name.startswith("sklearn.") and name != _TREE}
    listed = {*SKLEARN_ESTIMATOR_TYPE_NAMES, *SKLEARN_INTERNAL_TYPE_NAMES, *plain, *_PARTS, *boosters.CLASSES}
    return frozenset(listed) - _FUNCTIONS


@cache
def _values() -> frozenset[str]:
    from skops.io._trusted_types import NUMPY_DTYPE_TYPE_NAMES, NUMPY_UFUNC_TYPE_NAMES

    return frozenset(
        {
            *NUMPY_DTYPE_TYPE_NAMES,
            *NUMPY_UFUNC_TYPE_NAMES,
            *_FUNCTIONS,
            "numpy.ndarray",
            "numpy.dtype",
            "numpy.ma.MaskedArray",
        }
    )


def is_allowed(name: str) -> bool:
    """Whether a name of a pickle is on one of the lists."""
    name = canonical(name)
    return (
        name in classes()
        or name in _values()
        or name in _CALLS
        or name in _BUILTIN_TYPES
        or name in (*_REBUILT, _TREE, _WRAPPER, "copyreg._reconstructor")
        or _is_compiled(name)
        or name.removesuffix(".newObj") in (*_SEARCH, _DISTANCES)
        or name.replace("__pyx_unpickle_", "") in parts.COMPILED_LOSSES
    )


class EstimatorMaker:
    """Construct the objects of one pickle; ``versions``: the scikit-learn versions that it states."""

    def __init__(self) -> None:
        self.depth = 0
        self.versions: set[str] = set()
        self.bare: dict[int, tuple[Any, str]] = {}
        self._names: dict[int, str] = {}

    def value(self, name: str) -> object:
        """A type or a function on the list. Raises Foreign for any other name."""
        if name in _BUILTIN_TYPES:
            return _BUILTIN_TYPES[name]
        if name not in classes() and name not in _values() and name not in _REBUILT and not _is_compiled(name):
            raise Foreign(name)
        found = parts.resolved(name)
        self._names[id(found)] = name
        return found

    def call(self, name: str, arguments: tuple[Any, ...]) -> object:
        """The result of an allowed constructor with checked arguments."""
        if name == "copyreg._reconstructor" and len(arguments) == 3:
            return self._reconstructed(*arguments)
        if name in _CALLS:
            return _CALLS[name](*arguments)
        if name in parts.COMPILED_LOSSES or name.startswith("sklearn._loss._loss.__pyx_unpickle_Cy"):
            return parts.make_loss(name, arguments)
        if name == _TREE:
            made = parts.make_tree(*arguments)
        elif name.endswith(".newObj") and name.removesuffix(".newObj") in (*_SEARCH, _DISTANCES):
            made = self._search(name.removesuffix(".newObj"), *arguments)
        elif name in _REBUILT or name in classes():
            raise Foreign(name, "called with arguments of the file's own")
        else:
            raise Foreign(name)
        self.bare[id(made)] = (made, name)
        return made

    def make(self, name: str) -> object:
        """An instance of a listed class, without attributes; arrays, trees and generators are made elsewhere."""
        if name == _WRAPPER:
            return _Wrapper()
        if name in _REBUILT:
            made = object.__new__(parts.resolved(name))
            self.bare[id(made)] = (made, name)
            return made
        if name in boosters.CLASSES:
            made = boosters.make(name)
            self.bare[id(made)] = (made, name)
            return made
        if name not in classes():
            raise Foreign(name)
        kind = parts.resolved(name)
        if not isinstance(kind, type) or kind.__module__ != name.rpartition(".")[0]:
            raise Foreign(name)
        return object.__new__(kind) if not issubclass(kind, dict) else dict.__new__(kind)

    def fill(self, instance: Any, name: str, state: Any, file: BytesIO) -> object:
        """The object with its state."""
        self.bare.pop(id(instance), None)
        if isinstance(instance, _Wrapper):
            return self._raw_array(state, file)
        if isinstance(instance, arrays.Dtype):
            return arrays.filled_dtype(instance, state)
        if isinstance(instance, parts.Metric):
            instance.p = float(state[0])
            return instance
        if type(instance) is np.ndarray and name == _EMPTY:
            # Of no array made otherwise: its memory may be in use by then.
            instance.__setstate__(arrays.array_state(*state))
            return instance
        if type(instance) is np.ma.MaskedArray:
            return arrays.filled_masked(instance, *state)
        if type(instance) is partial:
            return parts.filled_partial(instance, *state)
        if isinstance(instance, (np.random.RandomState, np.random.BitGenerator, arrays.Seeds)):
            return arrays.filled_generator(instance, state)
        if name == _TREE:
            return parts.filled_tree(instance, state)
        if name.endswith(".newObj"):
            return parts.filled_search(instance, state)
        rebuilt = f"{type(instance).__module__}.{type(instance).__qualname__}"
        if rebuilt in _REBUILT:
            return parts.filled_spline(instance, state) if rebuilt == _BSPLINE else parts.filled_sparse(instance, state)
        if type(instance).__module__.startswith(("sklearn._loss._loss", "sklearn.linear_model._sgd_fast")) or (
            type(instance) is np.random.Generator
        ):
            return parts.needs_nothing(instance, state)
        return self._with_attributes(instance, state)

    def persistent(self, key: Any) -> object:
        """Raise an error: a model is complete in its pickle."""
        raise Foreign("the opcode BINPERSID", "which no scikit-learn model needs")

    def complete(self) -> None:
        """Raise ValueError if a compiled object did not get its state."""
        for _, name in self.bare.values():
            raise ValueError(f"an object of {name} has no content")

    def _reconstructed(self, kind: Any, base: Any, content: Any) -> object:
        name = self._names.get(id(kind), "")
        if name not in classes() | _REBUILT or base not in (object, dict) or (base is object and content is not None):
            raise Foreign(name or printable(kind), "made by a state of its base")
        made = self.make(name)
        if base is dict:
            if not isinstance(made, dict) or type(content) is not dict:
                raise ValueError("a mapping is made of what is none")
            made.update(content)
        return made

    def _search(self, module: str, kind: Any) -> object:
        name = self._names.get(id(kind), "")
        if name.rpartition(".")[0] != module:
            raise Foreign(name or printable(kind))
        if module == _DISTANCES:
            found = name.rpartition(".")[2].removesuffix("64").removesuffix("32").removesuffix("Distance")
            if found not in parts.METRICS:
                raise Foreign(name, "a metric that is not supported yet")
            return parts.Metric(parts.METRICS[found])
        return kind.__new__(kind)

    def _with_attributes(self, instance: Any, state: Any) -> object:
        kind: type = type(instance)
        full = f"{kind.__module__}.{kind.__qualname__}"
        if full not in classes() or type(state) is not dict:
            raise Foreign(full, "with a state that is no set of attributes")
        of_trees = full in boosters.CLASSES
        for key in state:
            if type(key) is not str or (key.startswith("__") and not (of_trees and key == "__model")):
                raise Foreign(f"the attribute {printable(key, 40)!r}", f"in the state of {full}")
            if _hides_method(kind, key):
                raise Foreign(f"the attribute {printable(key, 40)!r}", f"which hides a method of {full}")
        version = state.pop("_sklearn_version", None)
        if version is not None:
            self.versions.add(printable(version, 20))
        if of_trees:
            return boosters.fill(instance, state)
        if full == _FUNCTION_TRANSFORMER and not parts.only_checks(state):
            raise Foreign(full, "a transformer that calls a function of its own")
        if state.get("input", "content") != "content" and full.startswith("sklearn.feature_extraction.text."):
            raise Foreign(full, "which opens files by the names that rows give it")
        if full == "sklearn.isotonic.IsotonicRegression":
            instance.__setstate__(state)
        else:
            instance.__dict__.update(state)
        return instance

    def _raw_array(self, state: Mapping[str, Any], file: BytesIO) -> object:
        """An array whose bytes joblib writes after the opcode; one of objects is a pickle of its own."""
        if state["subclass"] is not np.ndarray:
            raise Foreign(
                getattr(state["subclass"], "__name__", "an array"), "a kind of array that is not supported yet"
            )
        dtype, shape, order = state["dtype"], state["shape"], state["order"]
        if not isinstance(dtype, np.dtype):
            raise ValueError("an array has no dtype")
        if dtype.kind == "O":
            if self.depth >= _MAX_DEPTH:
                raise ValueError("its arrays are nested too deeply")
            self.depth += 1
            found = follow(file, self)
            self.depth -= 1
            if type(found) is not np.ndarray:
                raise ValueError("an array of objects is none")
            return found
        if state.get("numpy_array_alignment_bytes") is not None:
            file.read(int.from_bytes(file.read(1), "little"))
        size = arrays.n_bytes(shape, dtype)
        raw = file.read(size) if size <= file.getbuffer().nbytes - file.tell() else b""
        if len(raw) != size:
            raise ValueError("an array claims more than the file holds")
        if order == "F":
            return np.frombuffer(raw, dtype).copy().reshape(shape[::-1]).transpose()
        return np.frombuffer(raw, dtype).copy().reshape(shape)


# A forest's trees are all of one kind.
@lru_cache(maxsize=4096)
def _hides_method(kind: type, key: str) -> bool:
    """Whether a class's attribute is something to call; a property stays what it is whatever an instance holds."""
    found = inspect.getattr_static(kind, key, None)
    return callable(found) or (hasattr(type(found), "__get__") and not isinstance(found, property))


class _Wrapper:
    """joblib's mark of an array whose bytes follow."""


def _is_compiled(name: str) -> bool:
    module, _, kind = name.rpartition(".")
    return (
        name in parts.COMPILED_LOSSES
        or name in arrays.GENERATORS
        or name == "numpy.random.bit_generator.SeedSequence"
        or (module in _SEARCH and kind in ("KDTree", "KDTree32", "KDTree64", "BallTree", "BallTree32", "BallTree64"))
        or (module == _DISTANCES and kind.removesuffix("64").removesuffix("32").endswith("Distance"))
    )


# ---- Python's own --------------------------------------------------------------------------------------------------


def _collected(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    def make(items: Any = ()) -> Any:
        if type(items) not in (list, tuple):
            raise ValueError("a set is made of what is no list")
        return kind(map(as_key, items))

    return make


def _numbered(kind: Callable[..., Any]) -> Callable[..., Any]:
    def make(*numbers: Any) -> Any:
        if not 1 <= len(numbers) <= 3 or not all(n is None or type(n) in (int, float, str) for n in numbers):
            raise ValueError("a range is made of what are no numbers")
        return kind(*numbers)

    return make


def _bytes(content: Any = b"", encoding: Any = "latin-1") -> bytes:
    if type(content) is bytes:
        return content
    return arrays.encoded(content, encoding) if content else b""


def _ordered_dict(pairs: Any = ()) -> Any:
    return OrderedDict((as_key(key), value) for key, value in pairs)


def _defaulted(factory: Any = None, *_: Any) -> Any:
    if factory not in (None, int, float, list, dict, set, str, OrderedDict):
        raise Foreign("collections.defaultdict", "of a function")
    return defaultdict(factory)


_CALLS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": arrays.encoded,
    "builtins.set": _collected(set),
    "builtins.frozenset": _collected(frozenset),
    "builtins.slice": _numbered(slice),
    "builtins.range": _numbered(range),
    "builtins.complex": _numbered(complex),
    "builtins.bytes": _bytes,
    "builtins.bytearray": lambda *content: bytearray(_bytes(*content)),
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _defaulted,
    "functools.partial": parts.partial_check,
    "numpy.dtype": arrays.make_dtype,
    _EMPTY: arrays.empty_array,
    "numpy._core.multiarray.scalar": arrays.make_scalar,
    "numpy._core.numeric._frombuffer": arrays.array_of_buffer,
    "numpy.ma.core._mareconstruct": arrays.empty_masked,
    "numpy.random._pickle.__randomstate_ctor": arrays.make_random_state,
    "numpy.random._pickle.__bit_generator_ctor": arrays.make_bit_generator,
    "numpy.random._pickle.__generator_ctor": arrays.make_generator,
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": lambda *_: arrays.Seeds(),
}


# ---- files -----------------------------------------------------------------------------------------------------------

LOADED_BY = "auditor's own reader of scikit-learn pickles"
_VERSION = re.compile(rb"_sklearn_version.{1,12}?(\d{1,2}\.\d{1,2}(?:\.\d{1,2})?)", re.DOTALL)


def load_pickled_estimator(source: Source, data: bytes, kind: str, spec: ModelSpec) -> AuditedModel:
    """The model of a pickle with the bytes ``data``; ``kind`` names the file in messages, e.g. "a joblib file".

    Raises Foreign for a type off the list, ModelError for a damaged file or one that holds no fitted model.
    """
    maker = EstimatorMaker()
    file = BytesIO(data)
    with warnings.catch_warnings():
        # numpy and scikit-learn warn of what earlier versions wrote; the note on versions says it once.
        warnings.simplefilter("ignore")
        try:
            with convert_parser_errors(f"{source.name!r} is {kind} that is damaged"):
                estimator = follow(file, maker)
                maker.complete()
        except Foreign:
            raise
        except ModelError as error:
            raise ModelError(f"{error}{_of_another_version(data)}", code=error.code) from None
        rest = len(data) - file.tell()
        if rest:
            raise DamagedError(
                f"{source.name!r} is {kind} with {rest:,} bytes after its end: save one model a file, with joblib.dump."
            )
        with convert_parser_errors(f"{source.name!r} holds a model that is incomplete"):
            check_trees(estimator, source.name)
    if isinstance(estimator, (dict, list, tuple)):
        raise UnsupportedError(_nested_model_advice(estimator, source.name))
    with convert_parser_errors(f"{source.name!r} holds a model that is incomplete"):
        return estimator_of_any_library(
            estimator,
            source,
            spec,
            format=kind.partition(" ")[2],
            loaded_by=LOADED_BY,
            notes=_version_notes(maker.versions),
        )


def _of_another_version(data: bytes) -> str:
    """What else may be wrong with a file that cannot be read: another version's objects have other parts."""
    found = _VERSION.search(data)
    version = found[1].decode() if found else sklearn.__version__
    if version == sklearn.__version__:
        return ""
    return (
        f" It was saved by scikit-learn {version}, and this is {sklearn.__version__}: install that version to read it."
    )


def _version_notes(versions: set[str]) -> tuple[str, ...]:
    others = sorted(versions - {sklearn.__version__})
    if not others:
        return ()
    return (
        f"Saved by scikit-learn {', '.join(others[:3])} and read by {sklearn.__version__}: its answers may differ from "
        "those it gave there.",
    )


def _nested_model_advice(container: dict[Any, Any] | list[Any] | tuple[Any, ...], name: str) -> str:
    """What to do with a dict, list or tuple that holds a model among other things."""
    items = container.items() if isinstance(container, dict) else enumerate(container)
    models = [printable(repr(key), 40) for key, value in items if callable(getattr(type(value), "predict", None))]
    if not models:
        return f"{name!r} holds a {type(container).__name__} without any model: name the file that holds the estimator."
    return (
        f"{name!r} holds a {type(container).__name__} with a model under {models[0]}: save the model alone with "
        f"joblib.dump(joblib.load(path)[{models[0]}], 'model.joblib'), or, where the other parts prepare its rows, all "
        "of it as one sklearn Pipeline."
    )
