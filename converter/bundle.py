"""Several models converted as one: bound together, checked together, published at once.

A bundle proves what no single model can: that the members agree, and that together they account
for every tensor of every source.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converter import bundle_record, resources
from converter.bind import bind
from converter.bundle_record import BUNDLE_NAME, AgreedRecord, BundleRecord, Fact, MemberRecord
from converter.canonical import MANIFEST_NAME, SUMS_NAME, encode_sums
from converter.digest import sha256
from converter.errors import ConverterError, PlanError, RuleError, SourceError, UsageError
from converter.finding import Finding, closest
from converter.fold import fold_findings
from converter.manifest import Dim, FileRecord, Manifest, RulesRecord
from converter.plan import Plan
from converter.publish import Staging
from converter.rules import parse
from converter.rules.bundle_file import Agreement, BundleFile, Member
from converter.rules.rule_file import RuleFile
from converter.rules.settings import Settings, resolve
from converter.source import Source, open_source
from converter.write import write_file

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """Everything that the conversion of a bundle will do; all members fit and agree."""

    bundle_file: BundleFile
    sources: Mapping[str, Source]
    plans: Mapping[str, Plan]
    agreed: tuple[AgreedRecord, ...]

    @property
    def total_bytes(self) -> int:
        """Size of all canonical data in bytes."""
        return sum(plan.total_bytes for plan in self.plans.values())


@dataclass(frozen=True, slots=True)
class BundleConversion:
    """What the conversion of a bundle made."""

    out: Path
    plan: BundlePlan
    record: BundleRecord
    manifests: Mapping[str, Manifest]
    warnings: tuple[Finding, ...]
    seconds: float


@contextmanager
def planned(
    bundle_file: BundleFile,
    folder: Path,
    *,
    dims: Mapping[str, Mapping[str, Dim]],
    source_prefixes: Mapping[str, str],
) -> Iterator[BundlePlan]:
    """Open the sources below ``folder`` and bind every member.

    ``dims`` overrides dims by member, ``source_prefixes`` the prefix of a source's names. Raises
    UsageError for a member or source that does not exist; RuleError, SourceError and PlanError,
    each with the findings of all members.
    """
    _require_known("member", dims, bundle_file.members)
    _require_known("source", source_prefixes, bundle_file.sources)
    members = {
        name: _resolved(bundle_file, member, dims.get(name, {}), source_prefixes)
        for name, member in bundle_file.members.items()
    }
    with ExitStack() as stack:
        sources = _open_sources(bundle_file, folder, stack)
        plans, errors = _bind_members(bundle_file, members, sources)
        findings = [finding for error in errors for finding in error.findings]
        findings += _check_covers(bundle_file, sources, plans)
        agreed: tuple[AgreedRecord, ...] = ()
        if not errors:
            agreed, apart = _check_agreements(bundle_file, plans)
            findings += apart
        if findings:
            kind = type(min(errors, key=lambda error: error.exit_code)) if errors else PlanError
            raise kind.of(fold_findings(findings))
        yield BundlePlan(bundle_file, sources, plans, agreed)


def _require_known(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    for name in given:
        if name not in names:
            near = closest(name, names)
            raise UsageError(
                f"the bundle has no {what} {name!r}",
                expected=f"one of {', '.join(names)}",
                hint=f"did you mean {near!r}?" if near else None,
            )


def _resolved(
    bundle_file: BundleFile,
    member: Member,
    dims: Mapping[str, Dim],
    source_prefixes: Mapping[str, str],
) -> tuple[RuleFile, Settings]:
    path = (
        bundle_file.folder / member.rules
        if member.rules is not None
        else resources.rule_file(member.model or "")
    )
    rule_file = parse.load(path)
    source = bundle_file.sources[member.source]
    settings = resolve(
        rule_file,
        variant=member.variant,
        dims={**member.dims, **dims},
        scope=member.scope,
        source_prefix=source_prefixes.get(member.source, source.source_prefix),
    )
    return rule_file, settings


def _open_sources(bundle_file: BundleFile, folder: Path, stack: ExitStack) -> dict[str, Source]:
    """Open every source; those that cannot be are reported together."""
    opened: dict[str, Source] = {}
    findings: list[Finding] = []
    for name, source in bundle_file.sources.items():
        try:
            opened[name] = stack.enter_context(open_source(folder / source.file))
        except SourceError as error:
            findings += error.findings
    if findings:
        raise SourceError.of(findings)
    return opened


def _bind_members(
    bundle_file: BundleFile,
    members: Mapping[str, tuple[RuleFile, Settings]],
    sources: Mapping[str, Source],
) -> tuple[dict[str, Plan], list[ConverterError]]:
    """Bind every member; return the plans of those that fit, and why the others do not."""
    plans: dict[str, Plan] = {}
    errors: list[ConverterError] = []
    for name, (rule_file, settings) in members.items():
        header = sources[bundle_file.members[name].source].header
        try:
            plans[name] = bind(rule_file, header, settings)
        except ConverterError as error:
            errors.append(error)
    return plans, errors


def _check_agreements(
    bundle_file: BundleFile, plans: Mapping[str, Plan]
) -> tuple[tuple[AgreedRecord, ...], list[Finding]]:
    values: dict[str, Fact] = {}
    for name, plan in plans.items():
        facts = {**plan.rule_file.conventions, **plan.settings.dims}
        values |= {f"{name}.{key}": value for key, value in facts.items()}
        values[f"{name}.audio"] = dict(plan.settings.audio)
    agreed, findings = [], []
    for agreement in bundle_file.agree:
        mentioned = {name: values[name] for name in sorted(agreement.that.names) if name in values}
        if _holds(bundle_file, agreement, values):
            agreed.append(AgreedRecord(agreement.that.text, agreement.because, mentioned))
        else:
            findings.append(_disagreement(bundle_file, agreement, mentioned))
    return tuple(agreed), findings


def _holds(bundle_file: BundleFile, agreement: Agreement, values: Mapping[str, Any]) -> bool:
    try:
        return bool(agreement.that.evaluate(values))
    except RuleError as error:
        where = bundle_file.where(agreement.line)
        raise RuleError.of([replace(f, where=where) for f in error.findings]) from error


def _disagreement(
    bundle_file: BundleFile, agreement: Agreement, mentioned: Mapping[str, Fact]
) -> Finding:
    tables = [value for value in mentioned.values() if isinstance(value, Mapping)]
    keys = {key for table in tables for key in table}
    apart = {key for key in keys if len({str(table.get(key)) for table in tables}) > 1}
    shown = {
        name: {key: value.get(key) for key in sorted(apart)}
        if isinstance(value, Mapping)
        else value
        for name, value in mentioned.items()
    }
    return Finding(
        "agree",
        f"members do not agree: {agreement.because}",
        bundle_file.where(agreement.line),
        expected=agreement.that.text,
        got=", ".join(f"{name} = {value}" for name, value in shown.items()),
        hint="these files are not of one pipeline, or a dim of one member is wrong",
    )


def _check_covers(
    bundle_file: BundleFile, sources: Mapping[str, Source], plans: Mapping[str, Plan]
) -> Iterator[Finding]:
    """Check every source whose members all have a plan."""
    for name in sources:
        members = [key for key, member in bundle_file.members.items() if member.source == name]
        if plans.keys() >= {*members}:
            yield from _check_cover(
                bundle_file, name, sources[name], {m: plans[m] for m in members}
            )


def _check_cover(
    bundle_file: BundleFile, name: str, source: Source, plans: Mapping[str, Plan]
) -> Iterator[Finding]:
    """Yield every tensor of a source that no member accounts for, or that two do."""
    owners: dict[str, str] = {}
    for member, plan in plans.items():
        for tensor in plan.claimed:
            if tensor in owners:
                yield Finding(
                    "claimed-twice",
                    f"two members account for one tensor: {owners[tensor]} and {member}",
                    bundle_file.where(bundle_file.members[member].line),
                    tensor=tensor,
                )
            owners[tensor] = member
    for tensor, spec in source.header.items():
        if tensor not in owners:
            yield Finding(
                "unclaimed",
                f"a tensor of {bundle_file.sources[name].file} that no member accounts for",
                bundle_file.where(bundle_file.sources[name].line),
                tensor=tensor,
                got=str(spec),
                hint="it would be lost between two models; add a member or a drop for it",
            )


def carry_out(
    plan: BundlePlan, out: Path, *, jobs: int, overwrite: bool, progress: Progress
) -> BundleConversion:
    """Write every member and ``bundle.json`` below ``out``, all of them or nothing.

    Raises as the conversion of a single model does.
    """
    from converter.conversion import fill
    from converter.values import suspicions

    begun = time.monotonic()
    records: dict[str, tuple[FileRecord, ...]] = {}
    manifests: dict[str, Manifest] = {}
    sums: dict[str, str] = {}
    with Staging(out, size_bytes=plan.total_bytes, overwrite=overwrite) as staging:
        for name, member in plan.plans.items():
            folder = staging.make_directory(name)
            source = plan.bundle_file.members[name].source
            manifests[name] = fill(
                member,
                plan.sources[source],
                folder,
                jobs=jobs,
                progress=lambda done, _: progress(done, plan.total_bytes),
                digests=functools.partial(_digest_once, records, source),
            )
            sums[f"{name}/{MANIFEST_NAME}"] = sha256((folder / MANIFEST_NAME).read_bytes())
        record = _record(plan, manifests, sums, records)
        text = bundle_record.dump(record)
        write_file(staging.path / BUNDLE_NAME, text)
        write_file(staging.path / SUMS_NAME, encode_sums({**sums, BUNDLE_NAME: sha256(text)}))
        staging.publish()
    warnings = tuple(
        replace(warning, where=name)
        for name, manifest in manifests.items()
        for warning in suspicions(manifest.tensors)
    )
    return BundleConversion(out, plan, record, manifests, warnings, time.monotonic() - begun)


def _digest_once(
    records: dict[str, tuple[FileRecord, ...]], name: str, source: Source
) -> tuple[FileRecord, ...]:
    """Return the records of a source's files, which several members may share."""
    from converter.conversion import source_records

    if name not in records:
        records[name] = source_records(source)
    return records[name]


def _record(
    plan: BundlePlan,
    manifests: Mapping[str, Manifest],
    sums: Mapping[str, str],
    records: Mapping[str, tuple[FileRecord, ...]],
) -> BundleRecord:
    bundle_file = plan.bundle_file
    return BundleRecord(
        bundle=bundle_file.bundle,
        title=bundle_file.title,
        rules=RulesRecord(Path(bundle_file.name).name, bundle_file.sha256, {}),
        sources=dict(records),
        members={
            name: MemberRecord(
                model=manifest.model.name,
                source=bundle_file.members[name].source,
                manifest_sha256=sums[f"{name}/{MANIFEST_NAME}"],
                content_sha256=manifest.content_sha256,
            )
            for name, manifest in manifests.items()
        },
        agreed=plan.agreed,
    )
