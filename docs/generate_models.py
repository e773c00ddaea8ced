"""Write a page for every rule file: what it says of the model, and how tensors are mapped.

``make docs`` writes the pages; with ``--check`` nothing is written, and pages that are not what
they would be are named. The mapping is that of ``convert plan --table`` on published headers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter import api, report
from converter.rules.expression import Expression
from converter.rules.rule_file import Derived, RuleFile, Scope, Variant

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "models"


@dataclass(frozen=True)
class Published:
    """A published checkpoint of a model: its header, and how it is read."""

    header: str
    variant: Sequence[str] = ()
    source_prefix: str = ""

    def command(self, model: str) -> str:
        """Return the command that shows the mapping."""
        options = [f"--variant {','.join(self.variant)}"] if self.variant else []
        options += [f"--source-prefix {self.source_prefix}"] if self.source_prefix else []
        options += ["--table", f"tests/headers/{self.header}.json"]
        return f"convert plan --model {model} {' '.join(options)}"

    def table(self, model: str) -> str:
        """Return what that command answers."""
        plan = api.plan(
            ROOT / "tests" / "headers" / f"{self.header}.json",
            model=model,
            variant=self.variant,
            source_prefix=self.source_prefix,
        )
        return report.of_plan(plan, table=True, whole=False).text


S2MEL = (Published("s2mel", source_prefix="net."),)
GPT = "indextts2-gpt"
PUBLISHED: Mapping[str, Sequence[Published]] = {
    "bert": (
        Published("all-minilm-l6-v2"),
        Published("bert-base-uncased", ["base", "legacy", "pretraining"]),
    ),
    "bigvgan": (Published("bigvgan_generator"),),
    "campplus": (Published("campplus_cn_common"),),
    "conformer": (Published(GPT), Published(GPT, ["emotion"])),
    "dit": S2MEL,
    "gpt": (Published(GPT),),
    "gpt-layer": S2MEL,
    "gpt-neox": (Published("pythia-70m"),),
    "gpt2": (Published("gpt2"),),
    "length-regulator": S2MEL,
    "perceiver": (Published(GPT), Published(GPT, ["emotion"])),
    "semantic-codec": (
        Published("semantic_codec"),
        Published("semantic_codec", ["inference"]),
    ),
    "soprano-decoder": (Published("soprano-1.1-80m-decoder"),),
    "soprano-lm": (Published("soprano-1.1-80m-lm"),),
    "wav2vec-bert": (Published("w2v-bert-2.0"), Published("w2v-bert-2.0", ["layers-17"])),
    "wav2vec-bert-stats": (Published("wav2vec2bert_stats"),),
    "whisper": (
        Published("whisper-tiny"),
        Published("whisper-large-v3-turbo.openai", ["large-v3-turbo", "openai"]),
    ),
}


def page(rules: RuleFile) -> str:
    """Return the page of one model."""
    parts = [
        f"<!-- Made by `make docs` from rules/{rules.model}.yaml; edit that file instead. -->",
        f"# `{rules.model}`: {rules.title}",
        " ".join(rules.about.split()),
        f"Origin: {rules.origin}. Rules: [rules/{rules.model}.yaml]"
        f"(../../rules/{rules.model}.yaml). Scope: {scope_text(rules.scope)}. "
        f"Source dtypes: {', '.join(rules.dtypes)}.",
        *section("Dims", ("dim", "published"), dims(rules)),
        *section("What dims must be", ("condition", "because"), requirements(rules)),
        *section("Variants", ("axis", "variant", "what it changes"), variants(rules)),
        *section("Conventions", ("fact", "value"), facts(rules.conventions)),
        *section("Audio", ("fact", "value"), facts(rules.audio)),
        *section("Aliases", ("name", "is", "because"), aliases(rules)),
        *section("Left out", ("source tensor", "because"), drops(rules)),
        "## Mapping",
    ]
    for published in PUBLISHED[rules.model]:
        shown = f"$ {published.command(rules.model)}\n{published.table(rules.model)}"
        parts.append(f"```\n{shown}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def scope_text(scope: Scope) -> str:
    """Return which tensors of a file are the model's."""
    if scope.excluded:
        return f"all but {', '.join(f'`{prefix}`' for prefix in scope.excluded)}"
    return ", ".join(f"`{prefix}`" for prefix in scope.prefixes if prefix) or "the whole file"


def section(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a heading and a table, or nothing when there are no rows."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    if not lines:
        return []
    return [f"## {title}", "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines])]


def dims(rules: RuleFile) -> Iterator[Sequence[str]]:
    """Yield every dim, then the values that follow from others."""
    for name, value in rules.dims.items():
        yield f"`{name}`", f"`{value}`"
    for name, derived in rules.derived.items():
        yield f"`{name}`", f"= `{expression(derived)}`"


def expression(derived: Derived) -> str:
    """Return a derived value as it is written."""
    if isinstance(derived.value, tuple):
        return f"[{', '.join(item.text for item in derived.value)}]"
    return derived.value.text


def requirements(rules: RuleFile) -> Iterator[Sequence[str]]:
    """Yield every condition with its reason."""
    for requirement in rules.require:
        yield f"`{requirement.that.text}`", requirement.because


def variants(rules: RuleFile) -> Iterator[Sequence[str]]:
    """Yield every variant of every axis."""
    for axis, choices in rules.variants.items():
        for name, variant in choices.items():
            yield axis, f"`{name}`", changes(variant)


def changes(variant: Variant) -> str:
    """Return what a variant overrides."""
    if variant.is_default:
        return "nothing: holds when none of its axis is chosen"
    told = [f"`{name}` = `{value}`" for name, value in variant.dims.items()]
    words = variant.words.items()
    told += [f"`{{{word}}}` is {f'`{text}`' if text else 'nothing'}" for word, text in words]
    told += [f"`{name}` is `{value}`" for name, value in variant.conventions.items()]
    if variant.scope is not None:
        told.append(f"scope `{', '.join(variant.scope.prefixes)}`")
    return ", ".join(told)


def facts(values: Mapping[str, object]) -> Iterator[Sequence[str]]:
    """Yield what no shape can show."""
    for name, value in values.items():
        plain = value.text if isinstance(value, Expression) else value
        yield f"`{name}`", f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


def aliases(rules: RuleFile) -> Iterator[Sequence[str]]:
    """Yield the canonical names that are another tensor."""
    for alias in rules.aliases:
        yield f"`{alias.name.text}`", f"`{alias.of.text}`", alias.because


def drops(rules: RuleFile) -> Iterator[Sequence[str]]:
    """Yield what is left out, with its reason and what is proven of it."""
    for drop in rules.drops:
        names = ", ".join(f"`{name.text}{'**' if drop.rest else ''}`" for name in drop.names)
        notes = ["may be absent"] if drop.optional else []
        notes += [f"when `{drop.repeat.when.text}`"] if drop.repeat.when else []
        if drop.equals is not None:
            notes.append(f"proven to equal `{drop.equals.text}`")
        elif drop.expect is not None:
            notes.append(f"proven: {drop.expect}")
        yield names, drop.because + (f" ({'; '.join(notes)})" if notes else "")


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or name those that are not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    check = parser.parse_args(arguments).check
    pages = {f"{rules.model}.md": page(rules) for rules in api.models()}
    present = {path.name: path.read_text("utf-8") for path in PAGES.glob("*.md")}
    stale = [name for name in sorted({*pages, *present}) if pages.get(name) != present.get(name)]
    if check:
        for name in stale:
            print(f"docs/models/{name} is not up to date: make docs")
        return 1 if stale else 0
    PAGES.mkdir(exist_ok=True)
    for name in stale:
        if name in pages:
            (PAGES / name).write_text(pages[name], "utf-8")
        else:
            (PAGES / name).unlink()
    print(f"docs/models: {len(pages)} pages, {len(stale)} of them new or changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
