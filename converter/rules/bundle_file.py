"""What a bundle file says: which models a pipeline is made of, and what they must agree on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import RuleError
from converter.manifest import Dim
from converter.rules import expression, strict_yaml, structure
from converter.rules.expression import Expression


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
class BundleSource:
    """A checkpoint of a bundle: where it lies below the folder of sources."""

    line: int
    file: str
    source_prefix: str


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


def load(path: Path) -> BundleFile:
    """Read and parse a bundle file. Raises RuleError, with all findings."""
    try:
        text = strict_yaml.read(path)
    except OSError as error:
        what = f"the bundle file cannot be read: {error.strerror}"
        raise RuleError(what, where=str(path)) from error
    document = strict_yaml.parse(text, strict_yaml.display_name(path))
    findings = structure.check(document, "bundle")
    if findings:
        raise RuleError.of(findings)
    top: Any = document.value

    def line(*keys: str | int) -> int:
        return int(document.where(keys).rpartition(":")[2])

    bundle_file = BundleFile(
        name=document.name,
        sha256=hashlib.sha256(text).hexdigest(),
        folder=path.parent,
        bundle=top["bundle"],
        title=top["title"],
        about=top.get("about", ""),
        sources={
            name: BundleSource(line("sources", name), item["file"], item.get("source_prefix", ""))
            for name, item in top["sources"].items()
        },
        members={
            name: _member(item, line("members", name)) for name, item in top["members"].items()
        },
        agree=tuple(
            _agreement(item, document.where(("agree", n)), line("agree", n))
            for n, item in enumerate(top.get("agree", ()))
        ),
    )
    _check_sources(bundle_file)
    return bundle_file


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


def _agreement(item: Any, where: str, line: int) -> Agreement:
    try:
        return Agreement(line, expression.parse(item["that"]), item["because"])
    except RuleError as error:
        finding = error.findings[0]
        raise RuleError(
            finding.what, code=finding.code, where=where, expected=finding.expected
        ) from error


def _check_sources(bundle_file: BundleFile) -> None:
    for name, member in bundle_file.members.items():
        if member.source not in bundle_file.sources:
            raise RuleError(
                f"the member {name!r} reads a source that the bundle does not list",
                code="source",
                where=bundle_file.where(member.line),
                expected=f"one of {', '.join(bundle_file.sources)}",
                got=member.source,
            )
