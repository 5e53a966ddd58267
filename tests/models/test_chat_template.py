"""Chat templates: the same text as transformers makes of them, and nothing that a hostile one asks for."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest
import transformers.utils.chat_template_utils as of_transformers

from auditor.core.errors import ModelError
from auditor.models.chat import MOST_TEMPLATE, TODAY, render
from tests.toys.language import causal_tokenizer

# ---- the same bytes as transformers ----------------------------------------------------------------------------------

CHATML = (
    "{%- for message in messages %}\n"
    "    {%- if loop.first and message['role'] != 'system' %}\n"
    "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' ~ '\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "{{ '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}"
)
DATED = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|head|>system<|tail|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\nToday Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|tail|>\n\n'+ message['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|tail|>\n\n' }}
{%- endif %}
"""
ALTERNATING = """{{ bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {{- raise_exception('System role not supported') }}
    {%- endif %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + message['content'] + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'] + '</s>' }}
    {%- endif %}
{%- endfor %}
"""
TOOLS = """{%- macro listed(items, depth=0) %}
    {%- for item in items recursive %}
        {{- '- %s: %s' | format(item.function.name, item.function.description | default('none')) }}
        {%- if not loop.last %}{{ '\n' }}{% endif %}
    {%- endfor %}
{%- endmacro %}
{%- set ns = namespace(found=false, calls=[], last=messages | length) %}
{%- if tools is not none and tools %}
{{- '<tools>\n' + listed(tools) + '\n' }}
{%- for tool in tools %}{{ tool | tojson }}{{ '\n' }}{{ tool | tojson(indent=2, sort_keys=true) }}{{ '\n' }}{% endfor %}
{{- '</tools>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'nobody' %}{% continue %}{% endif %}
    {%- if message.role == 'assistant' %}
        {%- set ns.found = true %}
        {%- generation %}
        {{- '<|assistant|>' }}{% set inner = message.content | upper %}
        {{- message.content | replace('a', 'e') | indent(2) }}
        {%- endgeneration %}
    {%- else %}
        {%- set ns.calls = ns.calls + [message.role ~ ':' ~ loop.index ~ '/' ~ loop.length] %}
        {{- '<|' ~ message.role ~ '|>' ~ message['content'].strip().split('  ')[-1] ~ loop.cycle('.', '!') }}
    {%- endif %}
    {%- if loop.index > 40 %}{% break %}{% endif %}
{%- endfor %}
{%- set captured %}{{ ns.calls | join(', ') }}{% endset %}
{{- captured | title if ns.found else captured }}{{ inner is defined }}
{%- for key, value in dict(a=1, b=[1, 'x<y']).items() %}{{ key }}={{ value }}{{ value is sequence }};{% endfor %}
{{- messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | tojson }}
{{- '{} of {}'.format(1, ns.last) }}{{ range(3) | list }}{{ 'a' * 3 }}{{ 2 ** 5 % 7 }}{{ undefined_name }}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "  Who forgot,\nAnn or Bob?  "},
    {"role": "assistant", "content": "Nobody <said>, \u00e4 'that'."},
    {"role": "user", "content": "Then say. \U0001f600"},
]
SYSTEM = [{"role": "system", "content": " Be brief. "}, *TALK]
GIVEN_TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "b": 1, "a": "<\u00e9>"}}}
]


class _Fixed(datetime):
    @classmethod
    def now(cls, tz: object = None) -> _Fixed:
        return cls(TODAY.year, TODAY.month, TODAY.day)


@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize("talk", [TALK, SYSTEM, TALK[:1]])
@pytest.mark.parametrize("template", [CHATML, DATED, ALTERNATING, TOOLS])
def test_a_template_is_rendered_as_transformers_does(
    template: str, talk: list[dict[str, Any]], prompted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_transformers, "datetime", _Fixed)
    tokenizer = causal_tokenizer()
    tokenizer.chat_template = template
    tools = GIVEN_TOOLS if template is TOOLS else None
    asked: dict[str, Any] = {"add_generation_prompt": prompted, "tools": tools}
    if template is ALTERNATING and talk is SYSTEM:
        with pytest.raises(ModelError, match=r"refuses this conversation: 'System role not supported'\."):
            render(template, talk, special=tokenizer.special_tokens_map, **asked)
        return
    theirs = tokenizer.apply_chat_template(talk, tokenize=False, **asked)
    assert render(template, talk, special=tokenizer.special_tokens_map, **asked) == theirs
    assert len(theirs) > 20


# ---- what no template gets -------------------------------------------------------------------------------------------

_TEXT, _STEPS, _CLOSED = "characters", "takes more than 100,000 steps", "closed to it"
_NESTED, _WIDTH, _NO_FILTER = "nested too deeply", "widths", "No filter named"
_NUMBER = "beyond all measure"
_DOUBLE = "{{% set n = namespace(x={0}, y={0}) %}}{{% for i in range(60) %}}{1}{{% endfor %}}{{{{ n.x == n.y }}}}"
HOSTILE = {
    "a repetition": ('{{ "a" * 10**9 }}', _TEXT),
    "a repetition of one": ('{{ ("a" * 1000) * 1000 * 1000 }}', _TEXT),
    "a repetition of lists": ("{{ [1] * 10**9 }}", _TEXT),
    "a power": ("{{ 10 ** (10 ** 10) }}", _NUMBER),
    "a product": ("{% set n = 9 ** 999 %}{{ n * n * n * n }}", _NUMBER),
    "a long range": ("{% for i in range(10**12) %}x{% endfor %}", "Range too big"),
    "loops in loops": ("{% for i in range(999) %}{% for j in range(999) %}{% endfor %}{% endfor %}", _STEPS),
    "a loop in itself": ("{% for i in range(90000) recursive %}{{ loop(range(90000)) }}{% endfor %}", _STEPS),
    "a macro in itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", _NESTED),
    "a macro twice in itself": ("{% macro m(n) %}{{ m(n-1) ~ m(n-1) if n }}{% endmacro %}{{ m(40) }}", _STEPS),
    "brackets": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", _NESTED),
    "conditions": ("{% if 1 %}" * 300 + "{% endif %}" * 300, _NESTED),
    "doubled text": (_DOUBLE.format("'ab'", "{% set n.x = n.x ~ n.x %}"), _TEXT),
    "added text": (_DOUBLE.format("'ab'", "{% set n.x = n.x + n.x %}"), _TEXT),
    "captured text": (_DOUBLE.format("'ab'", "{% set t %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = t %}"), _TEXT),
    "doubled lists": (_DOUBLE.format("[1]", "{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}"), _TEXT),
    "data in a loop": ("{% set x %}{% for i in range(9000) %}" + "y" * 1000 + "{% endfor %}{% endset %}", _TEXT),
    "a template too long": ("x" * (MOST_TEMPLATE + 1), _TEXT),
    "a width": ("{{ '%1000000000d' % 1 }}", _WIDTH),
    "a width of a name": ("{{ '%(a)1000000000d' % {'a': 1} }}", _WIDTH),
    "a width of a filter": ("{{ '%*d' | format(1000000000, 1) }}", _WIDTH),
    "a width of a method": ("{{ '{:1000000000}'.format(1) }}", _WIDTH),
    "a width of a date": ("{{ strftime_now('%1000000000d') }}", _WIDTH),
    "an inserted text": ("{{ ('%s' * 9000) % ('a' * 9000) }}", _TEXT),
    "an indent": ("{{ 'a\n' | indent(1000000000) }}", _TEXT),
    "an indent of JSON": ("{{ messages | tojson(indent=1000000000) }}", _TEXT),
    "a join": ("{{ range(99999) | join('a' * 100000) }}", _TEXT),
    "a replacement": ("{{ ('a' * 1000) | replace('a', 'b' * 100000) }}", _TEXT),
    "a replacing method": ("{{ ('a' * 1000).replace('a', 'b' * 100000) }}", _TEXT),
    "an escape": ("{{ ('<' * 1000000) | escape }}", _TEXT),
    "a joining method": ("{{ ('b' * 100000).join('a' * 1000) }}", _TEXT),
    "a padding method": ("{{ 'a'.ljust(10**9) }}", "no chat template needs"),
    "a padding filter": ("{{ 'a' | center(1000000000) }}", _NO_FILTER),
    "a padding filter by name": ("{{ ['a'] | map('center', 1000000000) | list }}", "center"),
    "a class": ("{{ ''.__class__ }}", _CLOSED),
    "a walk to os": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", _CLOSED),
    "a walk by index": ("{{ ''['__class__'] }}", _CLOSED),
    "a walk by a made name": ("{{ ''['__cl' ~ 'ass__'] }}", _CLOSED),
    "a walk by a filter": ("{{ '' | attr('__class__') }}", _NO_FILTER),
    "a walk by map": ("{{ [''] | map(attribute='__class__') | list }}", _CLOSED),
    "a walk in a format": ("{{ '{0.__class__}'.format('') }}", _CLOSED),
    "a walk from a global": ("{{ raise_exception.__globals__ }}", _CLOSED),
    "a walk from the count": ("{{ __count__.steps }}", _CLOSED),
    "a call of what is counted by": ("{{ 'x' | _said }}", _CLOSED),
    "os": ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", _CLOSED),
    "a name kept": ("{% set n = namespace(__x=1) %}", _CLOSED),
    "a change of what is given": ("{{ messages.append(1) }}", _CLOSED),
    "another file": ("{% include '/etc/passwd' %}", "statement that no chat template needs"),
    "a statement that changes how all is written": ("{% autoescape true %}x{% endautoescape %}", "Scoped"),
    "no Jinja": ("{% for %}", "cannot be rendered"),
    "words of its own": ("{{ raise_exception('\u202e\x1b[2J' * 3) }}", r"\\u202e\\x1b\[2J"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_in_a_sentence(name: str) -> None:
    template, said = HOSTILE[name]
    started = time.process_time()
    with pytest.raises(ModelError, match=said) as error:
        render(template, TALK)
    assert time.process_time() - started < 2.0
    text = str(error.value)
    assert text.startswith("The chat template ") and text.endswith(".") and len(text) < 400 and "\n" not in text
    assert text.isprintable()


def test_what_is_counted_begins_anew_with_every_rendering() -> None:
    many = "{% for i in range(60000) %}{% endfor %}done"
    assert [render(many, TALK) for _ in range(3)] == ["done"] * 3
