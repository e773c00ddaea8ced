"""The members of a bundle before any source is opened: their settings, and what they agree on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from converter import resources
from converter.bundle_record import AgreedRecord, Fact, facts_of
from converter.errors import ConverterError, PlanError, RuleError, UsageError
from converter.finding import Finding
from converter.fold import fold_findings
from converter.hints import for_bundle
from converter.manifest import Dim
from converter.rules import bundle_file as bundle_files
from converter.rules import parse
from converter.rules.bundle_file import Agreement, BundleFile, Member, unknown
from converter.rules.lint import lint
from converter.rules.rule_file import RuleFile
from converter.rules.settings import Settings, resolve

Dims = Mapping[str, Mapping[str, Dim]]


@dataclass(frozen=True, slots=True)
class MemberRules:
    """The rules of one member and what they mean for it; ``facts`` are named ``member.fact``."""

    rule_file: RuleFile
    settings: Settings
    facts: Mapping[str, Fact]


def resolve_members(
    bundle_file: BundleFile, *, dims: Dims, source_prefixes: Mapping[str, str]
) -> dict[str, MemberRules]:
    """Choose the settings of every member; ``dims`` and ``source_prefixes`` are the caller's.

    Raises, with the findings of all members, RuleError for what the bundle file says wrongly, and
    UsageError or PlanError for dims of the caller.
    """
    members: dict[str, MemberRules] = {}
    errors: list[ConverterError] = []
    for name, member in bundle_file.members.items():
        source = bundle_file.sources[member.source]
        prefix = source_prefixes.get(member.source, source.source_prefix)
        try:
            members[name] = _resolved(bundle_file, name, member, dims.get(name, {}), prefix)
        except ConverterError as error:
            errors.append(error)
    if findings := list(_unknown_facts(bundle_file, members)):
        errors.append(RuleError.of(findings))
    if errors:
        raise_all(errors)
    return members


def raise_all(errors: Sequence[ConverterError]) -> NoReturn:
    """Raise the findings of several errors as one, of the kind with the lowest exit code."""
    worst = min(errors, key=lambda error: error.exit_code)
    raise type(worst).of(fold_findings(f for error in errors for f in error.findings))


def spoken_of(bundle_file: BundleFile, name: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Name the member in findings about its rules, and have their hints speak of the bundle."""
    source = bundle_file.members[name].source
    for finding in findings:
        hint = finding.hint and for_bundle(finding.hint, member=name, source=source)
        yield replace(finding, what=f"{name}: {finding.what}", hint=hint)


def _resolved(
    bundle_file: BundleFile,
    name: str,
    member: Member,
    overrides: Mapping[str, Dim],
    source_prefix: str,
) -> MemberRules:
    rule_file = _rule_file(bundle_file, member)

    def choose(dims: Mapping[str, Dim]) -> Settings:
        return resolve(
            rule_file,
            variant=member.variant,
            dims=dims,
            scope=member.scope,
            source_prefix=source_prefix,
        )

    try:
        settings = choose(member.dims)
    except (RuleError, PlanError, UsageError) as error:
        here = bundle_file.where(member.line)
        found = [replace(f, where=f.where or here) for f in error.findings]
        raise RuleError.of([*spoken_of(bundle_file, name, found)]) from error
    if overrides:
        try:
            settings = choose({**member.dims, **overrides})
        except ConverterError as error:
            raise type(error).of([*spoken_of(bundle_file, name, error.findings)]) from error
    facts = facts_of(
        name, dims=settings.dims, conventions=settings.conventions, audio=settings.audio
    )
    return MemberRules(rule_file, settings, facts)


def _rule_file(bundle_file: BundleFile, member: Member) -> RuleFile:
    where = bundle_file.where(member.line)
    if member.model is not None:
        known = resources.rule_files()
        if member.model not in known:
            what = "a model that does not come with this package"
            raise RuleError.of([unknown("unknown-model", what, where, member.model, known)])
        return parse.load(known[member.model])
    path = bundle_file.folder / (member.rules or "")
    if not os.path.isfile(path):  # unlike Path.is_file, also when no file can have such a name
        raise RuleError(
            "there is no such rule file",
            where=where,
            expected="a path from the bundle file's folder",
            got=f"{member.rules:.200}",
        )
    return parse.load(path)


def _unknown_facts(
    bundle_file: BundleFile, members: Mapping[str, MemberRules]
) -> Iterator[Finding]:
    """Yield what conditions mention of a member that its rule file does not have."""
    for agreement in bundle_file.agree:
        for name in sorted(agreement.that.names):
            member = name.partition(".")[0]
            if member in members and name not in members[member].facts:
                yield unknown(
                    "unknown-fact",
                    f"{agreement.that.text!r} mentions what {member} does not have",
                    bundle_file.where(agreement.line),
                    name,
                    members[member].facts,
                )


def check_agreements(
    bundle_file: BundleFile, members: Mapping[str, MemberRules], *, dims: Dims
) -> tuple[tuple[AgreedRecord, ...], list[ConverterError]]:
    """Return the conditions that hold, and an error for each that does not or has no value.

    ``dims`` are the caller's, who is at fault when with them a condition has no value.
    """
    facts = {name: fact for member in members.values() for name, fact in member.facts.items()}
    agreed: list[AgreedRecord] = []
    errors: list[ConverterError] = []
    for agreement in bundle_file.agree:
        mentioned = {name: facts[name] for name in sorted(agreement.that.names)}
        where = bundle_file.where(agreement.line)
        values: Any = facts
        try:
            holds = agreement.that.evaluate(values)
        except RuleError as error:
            kind = PlanError if dims else RuleError
            errors.append(kind.of([replace(f, where=where) for f in error.findings]))
            continue
        if holds:
            agreed.append(AgreedRecord(agreement.that.text, agreement.because, mentioned))
        else:
            errors.append(PlanError.of([_disagreement(agreement, where, mentioned)]))
    return tuple(agreed), errors


def _disagreement(agreement: Agreement, where: str, mentioned: Mapping[str, Fact]) -> Finding:
    return Finding(
        "agree",
        f"members do not agree: {agreement.because}",
        where,
        expected=agreement.that.text,
        got=", ".join(_shown(mentioned)),
        hint="these files are not of one pipeline, or a dim of one member is wrong",
    )


def _shown(mentioned: Mapping[str, Fact]) -> Iterator[str]:
    """Yield the values on both sides; of tables, the entries in which they are not alike."""
    tables = {name: value for name, value in mentioned.items() if isinstance(value, Mapping)}
    keys = dict.fromkeys(key for table in tables.values() for key in table)
    for name, value in mentioned.items():
        if name not in tables:
            yield f"{name} = {value}"
    for key in keys:
        found = [repr(table[key]) if key in table else "not stated" for table in tables.values()]
        if len(set(found)) > 1:
            yield from (f"{name}.{key} = {v}" for name, v in zip(tables, found, strict=True))


def lint_bundle(path: Path) -> tuple[Finding, ...]:
    """Return what is wrong with a bundle file by itself, and with its members as it sets them."""
    try:
        bundle_file = bundle_files.load(path)
        members = resolve_members(bundle_file, dims={}, source_prefixes={})
    except ConverterError as error:
        return error.findings
    found: list[Finding] = []
    for name, member in members.items():
        wrong = lint(member.rule_file, member.settings)
        found += spoken_of(bundle_file, name, wrong)
    _, errors = check_agreements(bundle_file, members, dims={})
    found += (finding for error in errors for finding in error.findings)
    return tuple(found)
