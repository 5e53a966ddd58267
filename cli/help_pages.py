"""Help of the command line: commands in panels by task, an example of each, and the options of a scan in panels."""

from __future__ import annotations

import difflib
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from auditor.core.errors import did_you_mean
from auditor.models.endpoint.client import is_endpoint

# The commands of the top level, each with a sentence that fits beside it on 80 columns.
PANELS: Mapping[str, Mapping[str, str]] = {
    "Audit": {
        "start": "Ask what is needed and run the first audit.",
        "scan": "Audit a model and write a report.",
        "scan-data": "Audit rows before there is a model.",
        "explain": "Explain decisions and what would change them.",
        "compare": "Compare two recorded audits.",
        "gate": "Fail a pipeline if an audit failed or got worse.",
        "report": "Render or publish a recorded audit.",
    },
    "Improve": {
        "mitigate": "Repair a model and audit the result.",
        "tradeoff": "Try several strengths of a repair.",
        "train": "Train a model on a table.",
        "export": "Write a model as a file that needs no auditor.",
    },
    "Evidence": {"evidence": "Pre-register, sign, verify and reproduce audits."},
    "Governance": {
        "history": "List past audits and findings, and sign off.",
        "policy": "Show rule packs and write the dossiers they need.",
    },
    "Privacy": {"dp": "Plan, check and attack private training."},
    "Synthetic media": {"detect": "Examine media files and train detectors."},
    "Extend": {"probes": "List the probes and write your own."},
}
EXAMPLES: Mapping[str, str] = {
    "start": "auditor start model.joblib test.csv",
    "scan": "auditor scan model.joblib --data test.csv --target approved --positive 1 --sensitive sex",
    "scan-data": "auditor scan-data train.csv --test test.csv --target approved --sensitive sex",
    "explain": "auditor explain model.joblib --data test.csv --target approved --positive 1 --row 17",
    "compare": "auditor compare old-report new-report --out comparison",
    "gate": "auditor gate new-report --baseline main-report",
    "report": "auditor report audit-report --format pdf,sarif",
    "report publish": "auditor report publish audit-report --to mlflow:credit",
    "mitigate": "auditor mitigate reweighing model.joblib --train train.csv --data test.csv --target approved "
    "--positive 1 --sensitive sex --out fairer.joblib",
    "mitigate list": "auditor mitigate list",
    "mitigate new": "auditor mitigate new same-share",
    "tradeoff": "auditor tradeoff correlation-remover model.joblib --train train.csv --data test.csv --target approved "
    "--positive 1 --sensitive sex --sweep alpha=0,0.5,1 --out sweep",
    "train": "auditor train rows.csv --target approved --positive 1 --out model.pt",
    "export": "auditor export model.pt --to onnx --out model.onnx",
    "evidence keygen": "auditor evidence keygen auditor.key",
    "evidence verify": "auditor evidence verify audit.zip --key auditor.key.pub",
    "evidence reproduce": "auditor evidence reproduce audit.zip",
    "evidence register": "auditor evidence register audit.toml --by 'Ann Example'",
    "history": "auditor history --verify",
    "history findings": "auditor history findings --severity high",
    "history due": "auditor history due",
    "history site": "auditor history site --out site",
    "history sign-off": "auditor history sign-off 1 --by 'Ann Example' --role 'Risk officer' --decision accept "
    "--finding attack_auc=0.6 --expires 2027-01-31",
    "policy": "auditor policy eu-ai-act",
    "policy dossier": "auditor policy dossier audit-report --policy eu-ai-act --out dossier.html",
    "dp audit": "auditor dp audit training:train --claimed-epsilon 1 --delta 1e-5",
    "dp budget": "auditor dp budget --noise 1.1 --sample-rate 0.01 --steps 1000 --delta 1e-5",
    "dp lint": "auditor dp lint model.pt",
    "dp inversion": "auditor dp inversion training:clients --updates 3",
    "detect": "auditor detect photo.jpg --detector detector.pt",
    "detect train": "auditor detect train media --out detector.pt",
    "detect calibrate": "auditor detect calibrate model.onnx --data media --out detector.pt",
    "detect compare": "auditor detect compare detector.pt model.onnx --data media",
    "probes": "auditor probes group_fairness",
    "probes endpoint": "auditor probes endpoint http://127.0.0.1:8000/v1 --model-name NAME",
    "probes self-test": "auditor probes self-test group_fairness --rows 5000",
    "probes new": "auditor probes new approval-speed",
    "probes examples": "auditor probes examples",
}
# Options of a scan that few audits need; a command with many options shows these with --help-all.
OPTION_PANELS: Mapping[str, tuple[str, ...]] = {
    "Other inputs": (
        "query", "predictions", "log", "score", "predicted", "loss", "generated", "reference", "quantize", "ood",
        "sensitive_file", "join_on",
    ),
    "Rows": (
        "features", "text", "image", "bins", "cluster", "cluster_at_most", "weight", "weight_at_most",
        "copies_are_real", "stream", "check_predictions",
    ),
    "Model file": (
        "task", "classes", "outputs", "threshold", "base", "architecture", "architecture_args", "predict", "generate",
        "dtype", "device_map", "allow_code", "trust_pickle", "trust_anchors",
        "model_signer",
    ),
    "Model server": (
        "model_name", "api_key_env", "max_calls", "concurrency", "allow_remote", "thinking_tokens", "reasoning_effort",
        "dry_run", "price_in", "price_out",
    ),
    "Probes": (
        "probe", "set_", "benchmark", "benchmark_filter", "scorer", "calibration", "judge", "judge_name",
        "judge_key_env", "chat", "system", "few_shot", "decoder", "embedder",
    ),
    "Judgement": ("as_of", "error_rate", "multiplicity", "allow_inconclusive", "no_controls"),
    "History and evidence": (
        "history", "db", "campaign", "campaign_looks", "registration", "bundle", "sign", "timestamp", "include_rows",
        "redact", "publish",
    ),
    "Computing": (
        "device", "executor", "address", "max_memory", "max_seconds", "allow_unsandboxed", "checkpoint",
    ),
    "Output": ("json_", "lang", "show_config", "debug", "force"),
}  # fmt: skip
# What other libraries call an option, with its name here.
_ELSEWHERE = {
    **dict.fromkeys(("favourable", "favorable", "favorable-label", "positive-label", "pos-label"), "positive"),
    **dict.fromkeys(("label", "labels", "label-column", "outcome", "y"), "target"),
    **dict.fromkeys(("protected", "protected-attribute", "group", "groups", "sensitive-attribute"), "sensitive"),
    **dict.fromkeys(("rows", "test-data", "dataset", "csv"), "data"),
    **dict.fromkeys(("output", "out-dir"), "out"),
}
_PANEL_OF = {name: panel for panel, names in OPTION_PANELS.items() for name in names}
_MOST_OPTIONS = 20
_ALL = "--help-all"


class _Context(typer.Context):
    """A context whose path has no gap where a group's own command, which has no name, stands."""

    @property
    def command_path(self) -> str:
        return " ".join(super().command_path.split())


class _Help:
    """What every help has in common."""

    context_class: ClassVar[Any] = _Context

    def get_help_option_names(self, ctx: Any) -> list[str]:
        """Their names, in one order."""
        return ["--help", "-h"]


class Command(_Help, TyperCommand):
    """A command whose help has an example and, if it has many options, the rarer ones in panels."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Print the full help for ``--help-all``."""
        if _ALL in args:
            ctx.meta[_ALL] = True
            typer.echo(ctx.get_help())
            ctx.exit()
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # Of no class that all versions of Typer have in one place.
            asked = getattr(error, "option_name", "") if hasattr(error, "possibilities") else ""
            if asked:
                ctx.fail(f"No such option: {asked}{_near_option(ctx, asked)}")
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the example, arguments, options and sub-commands."""
        example = EXAMPLES.get(ctx.command_path.partition(" ")[2])
        if example is not None:
            # Whoever copies it from the terminal copies all of it.
            lines = textwrap.wrap(example, formatter.width - 8, break_on_hyphens=False)
            formatter.write("\nExample:\n  " + " \\\n    ".join(lines) + "\n")
        panels: dict[str, list[tuple[str, str]]] = dict.fromkeys(("Arguments", "Options", *OPTION_PANELS), [])
        many = len(self.params) > _MOST_OPTIONS
        for parameter in self.get_params(ctx):
            option = parameter.param_type_name == "option"
            panel = (_PANEL_OF.get(parameter.name, "Options") if many else "Options") if option else "Arguments"
            if option and parameter.required:
                panel = "Options"
            if record := parameter.get_help_record(ctx):
                panels[panel] = [*panels[panel], _plain(record)]
        hidden = [panel for panel in OPTION_PANELS if panels[panel]]
        if hidden and _ALL not in ctx.meta:
            rest = sum(len(panels.pop(panel)) for panel in hidden)
            panels["Options"].append((_ALL, f"Show {rest} more options: {', '.join(hidden).lower()}."))
        for panel, rows in panels.items():
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)
        group = getattr(ctx.parent, "command", None)
        if isinstance(group, Group) and group.own is self:
            group.format_commands(ctx.parent, formatter)


def _near_option(ctx: Any, asked: str) -> str:
    """The nearest option of this command, or which commands have what was asked for."""
    root = ctx.find_root().command
    having: dict[str, list[str]] = {}
    for name, command in leaf_commands(root) if isinstance(root, Group) else ():
        for flag in (each for parameter in command.params for each in parameter.opts if each.startswith("--")):
            having.setdefault(flag, []).append(f"auditor {name}")
    own = [flag for parameter in ctx.command.params for flag in parameter.opts if flag.startswith("--")]
    words = {f"--{word}": f"--{flag}" for word, flag in _ELSEWHERE.items()} | {flag: flag for flag in [*having, *own]}
    near = difflib.get_close_matches(asked.casefold(), words, n=1, cutoff=0.75)
    flag = words[near[0]] if near else ""
    if flag in own:
        return f"; did you mean {flag!r}?"
    if flag in having:
        return f"; {flag} is an option of {', '.join(having[flag][:3])}."
    return did_you_mean(asked, own) or f": see {ctx.command_path} --help."


class Group(_Help, TyperGroup):
    """A group that is a command too, where it has one of its own name: ``report RUN`` beside ``report publish``."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.own = self.commands.pop(self.name or "", None)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The sub-command; the group's own for the empty name."""
        return super().get_command(ctx, cmd_name) if cmd_name else self.own

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Pass words that begin with no sub-command to the group's own command."""
        own = self.own is not None and not (args and args[0] in self.commands)
        return super().parse_args(ctx, ["", *args] if own else args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The sub-command of the first word. Raises UsageError with the nearest name."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = did_you_mean(args[0], self.commands) or f": see {ctx.command_path} --help."
            ctx.fail(f"No such command {args[0]!r}{near}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each sub-command with the first sentence of its help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, first_sentence(self.commands[name].help or "")) for name in self.commands])


class Root(Group):
    """The tool itself: commands in panels, and ``start`` for a model file without a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Start with ``start`` where the first word is a file or a URL and no command."""
        if args and args[0] not in self.commands and (os.path.exists(args[0]) or is_endpoint(args[0])):
            args = ["start", *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write all commands on one screen."""
        self.format_usage(ctx, formatter)
        formatter.write(f"\n{self.help}\nFirst time:  {EXAMPLES['start']}\n\n")
        names = [(panel, name, words) for panel, own in PANELS.items() for name, words in own.items()]
        wide = max(map(len, PANELS)), max(len(name) for _, name, _ in names)
        before = ""
        for panel, name, words in names:
            formatter.write(f"{'' if panel == before else panel:<{wide[0]}}  {name:<{wide[1]}}  {words}\n")
            before = panel
        options = [", ".join(sorted(p.opts, key=len)) for p in self.get_params(ctx) if p.param_type_name == "option"]
        formatter.write(f"\nOptions:  {'  '.join(reversed(options))}\n")


def _plain(record: tuple[str, str]) -> tuple[str, str]:
    """A line of an option in words, without markup that some versions of Typer leave in it."""
    name, text = record
    name = re.sub(r"<list\[(\w+)\]>", lambda found: f"<{found[1].lower()}> ...", name)
    return re.sub(r"\.\.\. <.*", "...", name), text.replace("\\[", "[")


def first_sentence(text: str) -> str:
    """The first sentence of a help text."""
    return re.split(r"(?<=\.)\s", " ".join(text.partition("\n\n")[0].split()))[0]


def leaf_commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words after ``auditor``."""
    for name, command in group.commands.items():
        words = f"{path} {name}".strip()
        if not isinstance(command, Group):
            yield words, command
            continue
        if command.own is not None:
            yield words, command.own
        yield from leaf_commands(command, words)
