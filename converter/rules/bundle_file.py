"""What a bundle file says: which models a pipeline is made of, and what they must agree on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import RuleError
from converter.finding import Finding, closest, first_few, listed
from converter.manifest import Dim
from converter.rules import expression, strict_yaml
from converter.rules.expression import Expression
from converter.rules.strict_yaml import Document


@dataclass(frozen=True, slots=True)
class Member:
    """One model of a bundle and how its source is to be read; ``model`` or ``rules`` is set."""

    line: int
    source: str
    model: str | None
    rules: str | None
    variant: tuple[str, ...]
    dims: Mapping[str, Dim]
    scope: str | None


@dataclass(frozen=True, slots=True)
class Original:
    """What a source is imported from: a file as it is published, and the subtree that is meant.

    ``bare`` allows that there is no such subtree, and the tensors lie at the top.
    """

    file: str
    unwrap: str
    bare: bool


@dataclass(frozen=True, slots=True)
class BundleSource:
    """A checkpoint of a bundle: where it lies below the folder of sources.

    ``original`` is what it is imported from, unless it is published as it is.
    """

    line: int
    file: str
    source_prefix: str
    original: Original | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """A condition between members, and its reason."""

    line: int
    that: Expression
    because: str


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A parsed bundle file; ``name`` and ``sha256`` are the file's, ``folder`` is where it lies."""

    name: str
    sha256: str
    folder: Path
    bundle: str
    title: str
    about: str
    sources: Mapping[str, BundleSource]
    members: Mapping[str, Member]
    agree: tuple[Agreement, ...]

    def where(self, line: int) -> str:
        """Return ``file:line``."""
        return f"{self.name}:{line}"

    def members_of(self, source: str) -> list[str]:
        """Return the members that read a source."""
        return [name for name, member in self.members.items() if member.source == source]


def is_bundle(path: Path) -> bool:
    """Return whether a YAML file says of itself that it is a bundle; a broken one does not."""
    try:
        document = strict_yaml.parse(strict_yaml.read(path), strict_yaml.display_name(path))
    except (OSError, RuleError):
        return False
    return isinstance(document.value, dict) and "bundle" in document.value


def load(path: Path) -> BundleFile:
    """Read and parse a bundle file. Raises RuleError, with all findings and their lines."""
    try:
        text = strict_yaml.read(path)
    except OSError as error:
        what = f"the bundle file cannot be read: {error.strerror}"
        raise RuleError(what, where=str(path)) from error
    document = strict_yaml.parse(text, strict_yaml.display_name(path))
    # Imported here because jsonschema takes long, and some commands read no rules.
    from converter.rules import structure

    findings = structure.check(document, "bundle")
    if findings:
        raise RuleError.of(findings)
    top: Any = document.value
    agreements, findings = _agreements(document, top.get("agree", ()))
    bundle_file = BundleFile(
        name=document.name,
        sha256=hashlib.sha256(text).hexdigest(),
        folder=path.parent,
        bundle=top["bundle"],
        title=top["title"],
        about=top.get("about", ""),
        sources={
            name: _source(item, document.line(("sources", name)))
            for name, item in top["sources"].items()
        },
        members={
            name: _member(item, document.line(("members", name)))
            for name, item in top["members"].items()
        },
        agree=agreements,
    )
    findings += [*_check_sources(bundle_file), *_check_mentioned(bundle_file)]
    if findings:
        raise RuleError.of(first_few(findings, document.name))
    return bundle_file


def _source(item: Any, line: int) -> BundleSource:
    original = item.get("import")
    return BundleSource(
        line=line,
        file=item["file"],
        source_prefix=item.get("source_prefix", ""),
        original=original
        and Original(original["file"], original.get("unwrap", ""), original.get("bare", False)),
    )


def _member(item: Any, line: int) -> Member:
    return Member(
        line=line,
        source=item["source"],
        model=item.get("model"),
        rules=item.get("rules"),
        variant=tuple(item.get("variant", ())),
        dims=item.get("dims", {}),
        scope=item.get("scope"),
    )


def _agreements(document: Document, items: Any) -> tuple[tuple[Agreement, ...], list[Finding]]:
    agreements, findings = [], []
    for number, item in enumerate(items):
        line = document.line(("agree", number))
        try:
            agreements.append(Agreement(line, expression.parse(item["that"]), item["because"]))
        except RuleError as error:
            fact = error.findings[0]
            where = document.where(("agree", number, "that"))
            findings.append(
                Finding(fact.code, fact.what, where, expected=fact.expected, hint=fact.hint)
            )
    return tuple(agreements), findings


def _check_sources(bundle_file: BundleFile) -> Iterator[Finding]:
    for name, member in bundle_file.members.items():
        if member.source not in bundle_file.sources:
            yield unknown(
                "source",
                f"the member {name!r} reads a source that the bundle does not list",
                bundle_file.where(member.line),
                member.source,
                bundle_file.sources,
            )
    for name, source in bundle_file.sources.items():
        if not bundle_file.members_of(name):
            yield Finding(
                "source",
                "a source that no member reads",
                bundle_file.where(source.line),
                expected="a member for every source",
                got=name,
                hint="add a member that reads it, or leave it out",
            )
    files: dict[str, str] = {}
    for name, source in bundle_file.sources.items():
        if (first := files.setdefault(source.file, name)) and first != name:
            yield Finding(
                "source",
                "two sources are one file",
                bundle_file.where(source.line),
                expected="one source for each file",
                got=f"{first} and {name} are {source.file}",
                hint="let the members of both read one source",
            )


def _check_mentioned(bundle_file: BundleFile) -> Iterator[Finding]:
    """Check that conditions speak of members; of what these have, only their rule files know."""
    for agreement in bundle_file.agree:
        where = bundle_file.where(agreement.line)
        for name in sorted(agreement.that.names):
            member, dot, _ = name.partition(".")
            if not dot:
                yield Finding(
                    "agree",
                    "a condition between members that names none",
                    where,
                    expected="member.dim, member.convention or member.audio",
                    got=repr(name),
                )
            elif member not in bundle_file.members:
                what = f"{agreement.that.text!r} mentions a member that the bundle does not have"
                yield unknown("unknown-member", what, where, member, bundle_file.members)


def unknown(code: str, what: str, where: str, name: str, known: Mapping[str, object]) -> Finding:
    """Return the finding that a name is none of those that are known."""
    near = closest(name, known)
    return Finding(
        code,
        what,
        where,
        expected=listed(known),
        got=repr(name),
        hint=f"did you mean {near!r}?" if near else None,
    )
