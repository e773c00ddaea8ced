"""Several models converted as one: bound together, checked together, published at once.

A bundle proves what no single model can: that the members agree, and that together they account
for every tensor of every source.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from converter import bundle_record
from converter.bind import bind
from converter.bundle_members import (
    Dims,
    MemberRules,
    check_agreements,
    raise_all,
    resolve_members,
    spoken_of,
)
from converter.bundle_record import (
    BUNDLE_NAME,
    AgreedRecord,
    BundleFileRecord,
    BundleRecord,
    MemberRecord,
)
from converter.canonical import MANIFEST_NAME, SUMS_NAME, encode_sums
from converter.digest import sha256
from converter.errors import ConverterError, PlanError, SourceError, UsageError
from converter.finding import Finding, closest
from converter.manifest import FileRecord, Manifest
from converter.plan import Plan
from converter.progress import Progress
from converter.publish import Staging
from converter.record import SourceDigests, source_records
from converter.rules.bundle_file import BundleFile
from converter.source import Source, open_source
from converter.source.header_snapshot import HeaderSnapshot
from converter.write import write_file

if TYPE_CHECKING:
    from converter.conversion import Executor, Filled, Maker


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
    bundle_file: BundleFile, folder: Path, *, dims: Dims, source_prefixes: Mapping[str, str]
) -> Iterator[BundlePlan]:
    """Open the sources below ``folder`` and bind every member.

    ``dims`` overrides dims by member, ``source_prefixes`` the prefix of a source's names. Raises
    UsageError for a member or source that does not exist; RuleError, SourceError and PlanError,
    each with the findings of all members.
    """
    _require_known("member", dims, bundle_file.members)
    _require_known("source", source_prefixes, bundle_file.sources)
    members = resolve_members(bundle_file, dims=dims, source_prefixes=source_prefixes)
    agreed, errors = check_agreements(bundle_file, members, dims=dims)
    with ExitStack() as stack:
        sources, absent = _open_sources(bundle_file, folder, stack)
        plans, misfits = _bind_members(bundle_file, members, sources)
        errors += [*absent, *misfits.values()]
        for name, source in sources.items():
            lost = _check_cover(bundle_file, name, source, members, plans)
            told = any(member in misfits for member in bundle_file.members_of(name))
            findings = [*_check_claims(bundle_file, name, plans), *lost]
            # When all of a source is lost, a prefix is wrong, which its members have said.
            if findings and not (told and len(findings) == len(source.header)):
                errors.append(PlanError.of(findings))
        if errors:
            raise_all(errors)
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


def _open_sources(
    bundle_file: BundleFile, folder: Path, stack: ExitStack
) -> tuple[dict[str, Source], list[SourceError]]:
    """Open every source; return those that are there, and why the others are not."""
    opened: dict[str, Source] = {}
    errors: list[SourceError] = []
    for name, source in bundle_file.sources.items():
        try:
            opened[name] = stack.enter_context(open_source(folder / source.file))
        except SourceError as error:
            errors.append(error)
    return opened, errors


def _bind_members(
    bundle_file: BundleFile, members: Mapping[str, MemberRules], sources: Mapping[str, Source]
) -> tuple[dict[str, Plan], dict[str, ConverterError]]:
    """Bind every member whose source is open; return the plans, and why others do not fit.

    That a tensor lacks a source's prefix is no member's to say: it is one that nobody claims.
    """
    plans: dict[str, Plan] = {}
    misfits: dict[str, ConverterError] = {}
    for name, member in members.items():
        source = sources.get(bundle_file.members[name].source)
        if source is None:
            continue
        try:
            plans[name] = bind(member.rule_file, source.header, member.settings)
        except ConverterError as error:
            findings = [finding for finding in error.findings if finding.code != "source-prefix"]
            if findings:
                misfits[name] = type(error).of([*spoken_of(bundle_file, name, findings)])
    return plans, misfits


def _check_claims(
    bundle_file: BundleFile, name: str, plans: Mapping[str, Plan]
) -> Iterator[Finding]:
    """Yield every tensor of a source that two members account for."""
    owners: dict[str, str] = {}
    for member in bundle_file.members_of(name):
        for tensor in plans[member].claimed if member in plans else ():
            if owners.setdefault(tensor, member) != member:
                yield Finding(
                    "claimed-twice",
                    "two members account for one tensor",
                    bundle_file.where(bundle_file.members[member].line),
                    tensor=tensor,
                    expected="one member for each tensor",
                    got=f"{owners[tensor]} and {member}",
                    hint="narrow the scope of one of them",
                )


def _check_cover(
    bundle_file: BundleFile,
    name: str,
    source: Source,
    members: Mapping[str, MemberRules],
    plans: Mapping[str, Plan],
) -> Iterator[Finding]:
    """Yield every tensor of a source that no member accounts for.

    What is in the scope of a member without a plan is that member's to complain about.
    """
    readers = bundle_file.members_of(name)
    claimed = {tensor for m in readers if m in plans for tensor in plans[m].claimed}
    for member in readers:
        if member not in plans:
            claimed |= members[member].settings.held(source.header)
    for tensor, spec in source.header.items():
        if tensor not in claimed:
            yield Finding(
                "unclaimed",
                f"a tensor of {bundle_file.sources[name].file} that no member accounts for",
                bundle_file.where(bundle_file.sources[name].line),
                tensor=tensor,
                expected="a member whose rules take or drop it",
                got=str(spec),
                hint="it would be lost between the models; add a member or a drop for it",
            )


def carry_out(
    plan: BundlePlan,
    out: Path,
    *,
    jobs: int,
    overwrite: bool,
    progress: Progress,
    executor: Executor | None = None,
) -> BundleConversion:
    """Write every member and ``bundle.json`` below ``out``, all of them or nothing.

    Without ``executor`` this process does the work. Raises as the conversion of a single model
    does.
    """
    from converter.conversion import in_this_process

    begun = time.monotonic()
    _require_values(plan)
    records: dict[str, tuple[FileRecord, ...]] = {}
    with Staging(out, size_bytes=plan.total_bytes, overwrite=overwrite) as staging:
        folders = {name: staging.make_directory(name) for name in plan.plans}
        with (executor or in_this_process)() as maker:
            made = _fill_members(plan, folders, records, jobs, progress, maker)
        manifests = {name: member.manifest for name, member in made.items()}
        sums = {f"{name}/{MANIFEST_NAME}": member.manifest_sha256 for name, member in made.items()}
        record = record_of(plan, manifests, sums, records)
        text = bundle_record.dump(record)
        write_file(staging.path / BUNDLE_NAME, text)
        write_file(staging.path / SUMS_NAME, encode_sums({**sums, BUNDLE_NAME: sha256(text)}))
        staging.publish()
    warnings = tuple(
        replace(warning, where=name) for name, member in made.items() for warning in member.warnings
    )
    return BundleConversion(out, plan, record, manifests, warnings, time.monotonic() - begun)


def _fill_members(
    plan: BundlePlan,
    folders: Mapping[str, Path],
    records: dict[str, tuple[FileRecord, ...]],
    jobs: int,
    progress: Progress,
    maker: Maker,
) -> dict[str, Filled]:
    """Write the canonical directory of every member; gather the records of their sources."""
    from converter.conversion import fill

    named = {name: plan.bundle_file.members[name].source for name in plan.plans}
    total_bytes = plan.total_bytes
    for name, member in plan.plans.items():
        maker.begin(member, plan.sources[named[name]], folders[name], jobs)
    return {
        name: fill(
            member,
            plan.sources[named[name]],
            folders[name],
            jobs=jobs,
            progress=lambda done, _: progress(done, total_bytes),
            maker=maker,
            digests=functools.partial(
                digest_once, records, named[name], digest=maker.source_records
            ),
        )
        for name, member in plan.plans.items()
    }


def _require_values(plan: BundlePlan) -> None:
    """Raise SourceError when sources are headers alone, before anything is written."""
    findings = [
        Finding(
            "header-only",
            "a header alone has no values to read",
            plan.bundle_file.sources[name].file,
            hint="give the checkpoint itself; a header alone can be planned, not converted",
        )
        for name, source in plan.sources.items()
        if isinstance(source, HeaderSnapshot)
    ]
    if findings:
        raise SourceError.of(findings)


def digest_once(
    records: dict[str, tuple[FileRecord, ...]],
    name: str,
    source: Source,
    *,
    digest: SourceDigests = source_records,
) -> tuple[FileRecord, ...]:
    """Return the records of a source's files, which several members may share."""
    if name not in records:
        records[name] = digest(source)
    return records[name]


def record_of(
    plan: BundlePlan,
    manifests: Mapping[str, Manifest],
    sums: Mapping[str, str],
    records: Mapping[str, tuple[FileRecord, ...]],
) -> BundleRecord:
    """Return what ``bundle.json`` says of a plan that was carried out.

    ``manifests`` are those of the members, ``sums`` their digests by ``member/manifest.json``,
    ``records`` the files of each source.
    """
    bundle_file = plan.bundle_file
    return BundleRecord(
        bundle=bundle_file.bundle,
        title=bundle_file.title,
        rules=BundleFileRecord(Path(bundle_file.name).name, bundle_file.sha256),
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
