"""Prompting a language model through its own chat template, with or without a system message."""

from __future__ import annotations

import hashlib
import json
import operator
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import islice
from types import BuiltinMethodType, MethodType
from typing import Any, Literal, Protocol

import jinja2
from jinja2 import nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer
from markupsafe import soft_str

from auditor.core.errors import ModelError, NotApplicableError

# Some templates name the day. A fixed one, so that the same seed asks the same.
TODAY = datetime(2026, 1, 1)
MOST_TEMPLATE = 256 << 10
MOST_TEXT = 1 << 20
MOST_STEPS = 100_000
MOST_SECONDS = 5.0
_MOST_NODES = 50_000
_MOST_DEPTH = 150
_MOST_BITS = 4096
_MOST_DATE = 200

_FILTERS = frozenset({
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "format", "groupby",
    "indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
    "replace", "reverse", "round", "safe", "select", "selectattr", "sort", "string", "title", "tojson", "trim",
    "truncate", "unique", "upper",
})  # fmt: skip
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset({
        "capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha", "isdigit",
        "islower", "isnumeric", "isspace", "isupper", "join", "lower", "lstrip", "partition", "removeprefix",
        "removesuffix", "replace", "rfind", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith",
        "strip", "swapcase", "title", "upper",
    }),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    LoopContext: frozenset({"changed", "cycle"}),
}  # fmt: skip
_STATEMENTS = (
    nodes.Template, nodes.Output, nodes.For, nodes.If, nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.Assign,
    nodes.AssignBlock, nodes.ExprStmt, nodes.Break, nodes.Continue, nodes.With, nodes.Scope,
)  # fmt: skip
_COUNT = "__count__"
_OURS = frozenset({"_each", "_kept", "_step", "_joined", "_said"})
_WIDTHS = re.compile(r"%(?:\([^)]*\))?[^%a-zA-Z]*[\d*]")


class _Refused(jinja2.TemplateError):
    """What a template may not do, said so that it follows "The chat template ..."."""


class _Raised(jinja2.TemplateError):
    """What a template itself raises, of a conversation that it was not made for."""


class _Count:
    """What one rendering has used so far."""

    def __init__(self) -> None:
        self.steps = 0
        self.text = 0
        self.until = time.thread_time() + MOST_SECONDS

    def step(self, n: int = 1) -> None:
        self.steps += n
        if self.steps > MOST_STEPS:
            raise _Refused(f"takes more than {MOST_STEPS:,} steps")
        if time.thread_time() > self.until:
            raise _Refused(f"takes more than {MOST_SECONDS:g} seconds of processor time")

    def count_characters(self, n: int) -> None:
        self.text += n
        if self.text > MOST_TEXT:
            raise _Refused(f"writes more than {MOST_TEXT:,} characters")


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    special: Mapping[str, str] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
) -> str:
    """The conversation as the template writes it: the same as transformers' ``apply_chat_template(tokenize=False)``.

    ``messages``: mappings with ``role`` and ``content``. ``special``: the tokenizer's special tokens by name, such as
    ``bos_token``. The day is :data:`TODAY`. Raises ModelError, in one sentence, for a template that is no Jinja, that
    asks for what no chat template needs, that runs over a limit, or that itself refuses the conversation.
    """
    count = _Count()
    try:
        made = _compiled(template)
        given = {**(special or {}), "messages": list(messages), "tools": tools, "documents": None}
        return made.render({**given, "add_generation_prompt": add_generation_prompt, _COUNT: count})
    except _Raised as error:
        raise ModelError(f"The chat template refuses this conversation: {_short(error)}.") from None
    except _Refused as error:
        raise ModelError(f"The chat template {error.message} and is not used: {_INSTEAD}.") from None
    except jinja2.exceptions.SecurityError as error:
        raise ModelError(f"The chat template asks for what is closed to it ({_short(error)}): {_INSTEAD}.") from None
    except (RecursionError, MemoryError):
        raise ModelError(f"The chat template is nested too deeply and is not used: {_INSTEAD}.") from None
    except Exception as error:  # whatever a foreign template comes to
        raise ModelError(
            f"The chat template cannot be rendered ({type(error).__name__}: {_short(error)}): {_INSTEAD}."
        ) from None


_INSTEAD = "mend it, or ask with plain text by --chat off"


def _short(error: Exception) -> str:
    return repr(" ".join(str(error).split())[:200])


@lru_cache(maxsize=8)
def _compiled(text: str) -> jinja2.Template:
    if len(text) > MOST_TEMPLATE:
        raise _Refused(f"has more than {MOST_TEMPLATE:,} characters")
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters = {name: f for name, f in environment.filters.items() if name in _FILTERS} | _OWN_FILTERS
    environment.globals = {
        "range": environment.globals["range"], "dict": _Dict(), "namespace": _Namespace,
        "raise_exception": _raise_exception, "strftime_now": _strftime_now,
    }  # fmt: skip
    tree = environment.parse(text)
    _check(tree)
    return environment.from_string(_Counting().visit(tree))


def _check(tree: nodes.Node) -> None:
    """Raises for statements that no chat template needs, names that are Python's own, and trees beyond all measure."""
    waiting, seen = [(tree, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if seen > _MOST_NODES or depth > _MOST_DEPTH:
            raise _Refused("is nested too deeply or too long")
        if isinstance(node, nodes.Stmt) and not isinstance(node, _STATEMENTS):
            raise _Refused(f"holds a statement that no chat template needs ({type(node).__name__})")
        if isinstance(node, nodes.ExtensionAttribute):
            continue
        attribute = getattr(node, "attr", None)
        named, closed = (attribute, "_") if isinstance(attribute, str) else (getattr(node, "name", None), "__")
        if isinstance(named, str) and (named.startswith(closed) or (isinstance(node, nodes.Filter) and named in _OURS)):
            raise _Refused(f"asks for {named[:40]!r}, which is closed to it,")
        waiting += [(child, depth + 1) for child in node.iter_child_nodes()]


class _Counting(NodeTransformer):
    """The same template with every loop, every filter, everything kept and everything written passed by a count."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        node.iter = _through("_each", node.iter)
        return node

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        node.node = _through("_kept", node.node)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        # That of a block has no value of its own.
        return node if node.node is None else _through("_step", node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        node = self.generic_visit(node)  # type: ignore[assignment]
        return _through("_joined", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        written = [
            nodes.Const(child.data, lineno=child.lineno) if isinstance(child, nodes.TemplateData) else self.visit(child)
            for child in node.nodes
        ]
        node.nodes = [_through("_said", child) for child in written]
        return node


def _through(name: str, node: Any) -> nodes.Expr:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


# ---- what is counted -------------------------------------------------------------------------------------------------


def _count_of(context: Context) -> _Count:
    found: _Count = context.parent[_COUNT]
    return found


@pass_context
def _count_items(context: Context, values: Iterable[Any]) -> Sequence[Any]:
    found = values if isinstance(values, range) else list(islice(values, MOST_STEPS + 1))
    _count_of(context).step(len(found) + 1)
    return found


@pass_context
def _count_value(context: Context, value: object) -> object:
    _count_of(context).step()
    _size(value)
    return value


@pass_context
def _step(context: Context, value: object) -> object:
    _count_of(context).step()
    if isinstance(value, str):
        _bounded(len(value))
    return value


@pass_context
def _join_counted(context: Context, parts: Sequence[object]) -> str:
    _count_of(context).step()
    _size(parts)
    return "".join(map(str, parts))


@pass_context
def _count_output(context: Context, value: object) -> object:
    count = _count_of(context)
    count.step()
    count.count_characters(_size(value))
    return value


def _size(value: object) -> int:
    """How many characters and parts a value has, each as often as it would be written; raises beyond the limit."""
    total, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        total += len(item) if isinstance(item, str) else 1
        if isinstance(item, (list, tuple, set)):
            total += len(item)
            _bounded(total)
            waiting += item
        elif isinstance(item, dict):
            total += len(item)
            _bounded(total)
            waiting += [*item, *item.values()]
        elif isinstance(item, Namespace):
            waiting.append(dict(item._Namespace__attrs))
        _bounded(total)
    return total


def _bounded(n: int) -> None:
    if n > MOST_TEXT:
        raise _Refused(f"makes more than {MOST_TEXT:,} characters of text")


# ---- what a template has ---------------------------------------------------------------------------------------------


class _Environment(ImmutableSandboxedEnvironment):
    # What one sign could make without end; those that are counted are left out of what is worked out beforehand.
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _count_of(context).step()
        return _BINARY[operator](left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        count = _count_of(__context)
        count.step(1 + sum(len(a) for a in args if isinstance(a, (list, tuple, dict, range))))
        size = _size([*args, kwargs])
        owner: Any = getattr(__obj, "__self__", None)
        name: str = getattr(__obj, "__name__", "")
        if isinstance(__obj, (BuiltinMethodType, MethodType)):
            if isinstance(owner, Extension):
                return __self._call_base(__context, __obj, args, kwargs)
            kinds = [kind for kind in _METHODS if isinstance(owner, kind)]
            if not kinds or name not in _METHODS[kinds[0]]:
                raise _Refused(f"calls {name[:40]!r}, which no chat template needs,")
            if name == "join":
                args = (list(islice(args[0], MOST_STEPS)), *args[1:])
                _bounded(_size(args[0]) + len(owner) * len(args[0]))
            elif name == "replace":
                _bounded(_replaced(owner, *args[:2]))
        elif hasattr(__obj, "__wrapped__") and name == "format":
            text = __obj.__wrapped__.__self__
            if re.search(r"\{[^{}]*:", text):
                raise _Refused("formats with widths, which no chat template needs,")
            _bounded(len(text) + text.count("{") * size)
        elif not (isinstance(__obj, (Macro, LoopContext, Undefined)) or __self._is_own_global(__obj)):
            raise _Refused("calls what no chat template needs")
        return __self._call_base(__context, __obj, args, kwargs)

    def _is_own_global(self, function: object) -> bool:
        return any(function is known for known in self.globals.values())

    def _call_base(self, context: Context, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return super().call(context, function, *args, **kwargs)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise _Refused(f"asks for {str(attribute)[:40]!r}, which is closed to it,")


class _Generation(Extension):
    """``{% generation %}``, which marks what the model is trained on and writes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_as_it_is"), [], [], body).set_lineno(lineno)

    def _as_it_is(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """``dict(...)``, without what else the class of that name has."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class _Namespace(Namespace):
    """A namespace without names of Python's own."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            _check_name(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise _Refused(f"keeps something as {name[:40]!r}, a name that is closed to it,")


def _raise_exception(message: object) -> None:
    raise _Raised(str(message))


def _strftime_now(format: str) -> str:
    if len(format) > _MOST_DATE or _WIDTHS.search(format):
        raise _Refused("writes the day with widths, which no chat template needs,")
    return TODAY.strftime(format)


def _times(left: Any, right: Any) -> Any:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, (str, list, tuple)) and isinstance(times, int):
            _bounded(_size(value) * max(times, 0))
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _MOST_BITS:
        raise _Refused("makes a number beyond all measure")
    return left * right


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MOST_BITS:
        raise _Refused("makes a number beyond all measure")
    return left**right


def _plus(left: Any, right: Any) -> Any:
    if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
        _bounded(len(left) + len(right))
    return left + right


def _formatted(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        if _WIDTHS.search(left):
            raise _Refused("formats with widths, which no chat template needs,")
        _bounded(len(left) + left.count("%") * _size(right))
    return operator.mod(left, right)


_BINARY: dict[str, Callable[[Any, Any], Any]] = {"*": _times, "**": _power, "+": _plus, "%": _formatted}


def _replaced(text: str, old: str, new: str) -> int:
    return len(text) + text.count(old) * len(new)


@pass_context
def _replace(context: Context, value: Any, old: Any, new: Any, count: int | None = None) -> Any:
    _bounded(_replaced(str(value), str(old), str(new)))
    return jinja2.filters.do_replace(context.eval_ctx, value, old, new, count)


@pass_context
def _join(context: Context, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    parts = list(islice(value, MOST_STEPS))
    _bounded(_size(parts) + len(str(d)) * len(parts))
    return str(jinja2.filters.sync_do_join(context.eval_ctx, parts, d, attribute))


@pass_context
def _indent(context: Context, s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    by = len(width) if isinstance(width, str) else int(width)
    _bounded(_size(s) + (str(s).count("\n") + 1) * by)
    return jinja2.filters.do_indent(s, width, first, blank)


@pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    return str(_formatted(str(value), kwargs or args))


@pass_context
def _string(context: Context, value: Any) -> str:
    _size(value)
    return str(soft_str(value))


@pass_context
def _tojson(
    context: Context,
    x: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    _bounded(_size(x) * (1 + (len(indent) if isinstance(indent, str) else int(indent or 0))))
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


_OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "_each": _count_items, "_kept": _count_value, "_step": _step, "_joined": _join_counted,
    "_said": _count_output, "replace": _replace,
    "join": _join, "indent": _indent, "format": _format, "string": _string, "tojson": _tojson,
}  # fmt: skip


How = Literal["auto", "on", "off"]
_TRIED = "a"


@dataclass(frozen=True)
class Chat:
    """The conversation format of a model: ``template`` is Jinja, ``special`` the tokenizer's special tokens by name,
    ``system`` the system message, "" for none."""

    template: str
    special: Mapping[str, str] = field(default_factory=dict)
    system: str = ""

    @property
    def sha256(self) -> str:
        """SHA-256 of the template, as UTF-8."""
        return template_sha256(self.template)

    def render_prompt(self, *turns: str) -> str:
        """The text up to the start of the model's answer; ``turns``: alternating user and assistant, a user's last.

        Raises ModelError where the template cannot be rendered or refuses the conversation.
        """
        return self._rendered(turns, add_generation_prompt=True)

    @cached_property
    def lead(self) -> str:
        """The template's text between :meth:`render_prompt` and an answer, such as a blank, or nothing."""
        before, whole = self.render_prompt(_TRIED), self._rendered((_TRIED, _TRIED), add_generation_prompt=False)
        rest = whole.removeprefix(before)
        lead = rest.partition(_TRIED)[0]
        # Where the answer stands elsewhere, as after a part for thoughts, it follows the prompt directly.
        return lead if rest != whole and not lead.strip() else ""

    def describe(self) -> str:
        """The prompting mode, for a finding's detail."""
        told = f"after a system message of {len(self.system):,} characters" if self.system else "without system message"
        return f"asked through its chat template (sha256 {self.sha256}), {told}, as on {TODAY:%Y-%m-%d}"

    def _rendered(self, turns: Sequence[str], *, add_generation_prompt: bool) -> str:
        said = [{"role": "system", "content": self.system}] if self.system else []
        said += [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
        return render(self.template, said, special=self.special, add_generation_prompt=add_generation_prompt)


class HasTokenizer(Protocol):
    """A language model, as far as its prompts go."""

    @property
    def objective(self) -> str:
        """``masked``, or how else it reads texts."""

    @property
    def tokenizer(self) -> Any:
        """A tokenizer of transformers."""


def chat_of(model: HasTokenizer, chat_mode: How = "auto", system: str = "") -> Chat | None:
    """The model's chat; None for plain text: ``off``, or ``auto`` without a template.

    Of named templates it is the one named "default". Raises NotApplicableError where a template is asked for, by ``on``
    or by a system message, and there is none.
    """
    found = None if chat_mode == "off" else _template(model)
    if found is None:
        if chat_mode == "on" or (system and chat_mode != "off"):
            asked = "--chat on" if chat_mode == "on" else "--system"
            raise NotApplicableError(
                f"Needs a model with a chat template, which its tokenizer has not: leave {asked} out."
            )
        return None
    return Chat(found, _special(model.tokenizer), system)


def in_plain_text(model: HasTokenizer) -> str:
    """The note on a model with a chat template prompted without it, else ""."""
    return "" if _template(model) is None else "asked in plain text, not through its chat template"


def template_of(tokenizer: Any) -> str | None:
    """A tokenizer's chat template; the default one if there are several."""
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict):
        found = found.get("default")
    return found if isinstance(found, str) else None


def template_sha256(template: str) -> str:
    """SHA-256 of a template, as UTF-8."""
    return hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()


# What opens or ends a turn, for tokenizers that come without their template, and what separates documents.
_TURN = re.compile(r"<\|?(im_(start|end)|(start|end)_header_id|eot_id|(start|end)_of_turn|user|assistant|system)\|?>")
_ROLE = r"\s*(system|user|assistant)\b"
_SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")


def document_start(tokenizer: Any, begin: int, end: int | None) -> int:
    """The token behind which training texts began, of a tokenizer that puts none before a text by itself.

    It is the beginning-of-sequence token, unless that opens the turns of a chat: pretraining separated its documents by
    another one, the end-of-sequence token where that is no part of a chat either, else one that is called so.
    """
    token_of = tokenizer.backend_tokenizer.id_to_token
    written = _conversation(tokenizer)
    opening = str(token_of(begin))
    if not (_TURN.fullmatch(opening) or re.search(re.escape(opening) + _ROLE, written)):
        return begin
    ending = "" if end is None else str(token_of(end))
    if end is not None and end != begin and not _TURN.fullmatch(ending) and ending not in written:
        return end
    named = map(tokenizer.backend_tokenizer.token_to_id, _SEPARATORS)
    return next((i for i in named if i is not None), begin if end is None else end)


def _conversation(tokenizer: Any) -> str:
    """A question as the tokenizer's chat template writes it, "" without a template that can be rendered."""
    template = template_of(tokenizer)
    try:
        return "" if template is None else Chat(template, _special(tokenizer)).render_prompt(_TRIED)
    except ModelError:
        return ""


def _special(tokenizer: Any) -> dict[str, str]:
    return {k: v for k, v in dict(getattr(tokenizer, "special_tokens_map", {})).items() if isinstance(v, str)}


def _template(model: HasTokenizer) -> str | None:
    # A masked model fills in; it answers nobody.
    return None if model.objective == "masked" else template_of(model.tokenizer)
