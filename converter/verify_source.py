"""Derive a canonical directory from its source again, and compare all that its manifest says.

What the manifest says of the conversion (variant, dims, options, layout) is taken from it. The
rules are not: they must be the very file whose digest it has. Nothing is written; the bytes of each
tensor are made, digested and dropped. It needs numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from converter import resources
from converter.bind import bind
from converter.canonical import INDEX_NAME, MANIFEST_NAME, encode_header, encode_index
from converter.digest import sha256
from converter.errors import ConverterError, MismatchError
from converter.finding import Finding
from converter.manifest import FileRecord, Manifest
from converter.plan import Plan
from converter.progress import Progress
from converter.record import SourceDigests
from converter.rules import parse
from converter.rules.rule_file import RuleFile
from converter.rules.settings import Settings, resolve
from converter.source import Source, open_source
from converter.steps.dtypes import FLOATS
from converter.verify import Verification
from converter.verify_compare import compare


def derive_again(
    verification: Verification, source: Path, *, rules: Path | None, jobs: int, progress: Progress
) -> Verification:
    """Return the check of a canonical directory with all that differs from its source added.

    ``rules`` is the rule file, by default that of the package for the manifest's model;
    ``progress`` is told the bytes of tensors derived, and of all. A directory whose manifest cannot
    be read stays as it was checked. Raises SourceError, PlanError or ValueRefusedError when this
    source cannot be converted by these rules, and RuleError when ``rules`` is no rule file.
    """
    manifest = verification.manifest
    if manifest is None:
        return verification
    where = verification.directory / MANIFEST_NAME
    try:
        rule_file = rules_of(manifest, rules, where)
        settings = settings_of(manifest, rule_file, where)
    except MismatchError as error:
        return with_findings(verification, error.findings)
    with open_source(source) as opened:
        plan = bind(
            rule_file,
            opened.header,
            settings,
            dtype=manifest.rules.options.get("dtype"),
            max_shard_bytes=shard_limit(manifest),
        )
        derived = derive(plan, opened, manifest, jobs=jobs, progress=progress)
    return with_findings(verification, compare(derived, manifest, where))


def with_findings(verification: Verification, findings: Iterable[Finding]) -> Verification:
    """Return a check with what a derivation found added; what found nothing is derived."""
    found = tuple(findings)
    return replace(
        verification,
        findings=(*verification.findings, *found),
        members=tuple(replace(member, derived=not found) for member in verification.members),
        derived=not found,
    )


def derive(
    plan: Plan,
    source: Source,
    stated: Manifest,
    *,
    jobs: int,
    progress: Progress,
    digests: SourceDigests | None = None,
) -> Manifest:
    """Carry out ``plan``, write nothing, and return its manifest.

    The digests of weights files are those of ``stated``, which are proven where the files are.
    ``digests`` gives the records of the source's files, where they are known already. Raises as a
    conversion does.
    """
    from converter.execute import execute
    from converter.record import describe, source_records

    with ThreadPoolExecutor(1) as beside:
        sources = beside.submit(digests or source_records, source)
        written = execute(plan, source, _drop, jobs=jobs, progress=progress)
        records = sources.result()
    source.check_unchanged()
    headers = {shard.file: encode_header(shard.placements) for shard in plan.shards}
    return describe(
        plan,
        written,
        sources=records,
        files=tuple(_file_records(plan, headers, stated)),
        data_starts={name: len(header) for name, header in headers.items()},
    )


def _drop(*_: object) -> None:
    """Write nothing."""


def _file_records(plan: Plan, headers: dict[str, bytes], stated: Manifest) -> Iterator[FileRecord]:
    known = {file.name: file.sha256 for file in stated.files}
    for shard in plan.shards:
        header = headers[shard.file]
        size = len(header) + max((tensor.end for tensor in shard.placements), default=0)
        digest = known.get(shard.file, sha256(b""))
        yield FileRecord(shard.file, size, digest, sha256(header))
    if len(plan.shards) > 1:
        text = encode_index({shard.file: shard.placements for shard in plan.shards})
        yield FileRecord(INDEX_NAME, len(text), sha256(text))


def shard_limit(manifest: Manifest) -> int | None:
    """Return a limit of data in a file that parts the tensors as they are; None for one file.

    The one that was given is not recorded. Files are filled in order, so any limit from the largest
    file of several tensors up to the one that was given parts them alike.
    """
    sizes: dict[str, list[int]] = {}
    for record in manifest.tensors:
        sizes.setdefault(record.file, []).append(record.size)
    if sum(file.header_sha256 is not None for file in manifest.files) == 1:
        return None
    return max((sum(held) for held in sizes.values() if len(held) > 1), default=0)


def rules_of(manifest: Manifest, path: Path | None, where: Path) -> RuleFile:
    """Return the rule file whose digest the manifest has; raise MismatchError when it is not."""
    name, expected = manifest.model.name, manifest.rules.sha256
    path = path or resources.rule_files().get(name)
    if path is None:
        raise not_the_rules(
            f"no model {name!r} comes with this package",
            where,
            f"the rule file {manifest.rules.file}, sha256 {expected}",
            "none",
        )
    rule_file = parse.load(path)
    require_rules(rule_file.name, rule_file.sha256, expected, where)
    return rule_file


def require_rules(name: str, got: str, expected: str, where: Path) -> None:
    """Raise MismatchError unless the rules at hand are those that were used."""
    if got != expected:
        what = f"{name} is not the rule file that was used"
        raise not_the_rules(what, where, f"sha256 {expected}", f"sha256 {got}")


def not_the_rules(what: str, where: Path, expected: str, got: str) -> MismatchError:
    """Return the error that the rules which were used are not at hand."""
    return MismatchError(
        what,
        code="rules",
        where=str(where),
        expected=expected,
        got=got,
        hint="give the file of that digest with --rules, or use the version that has it",
    )


def settings_of(manifest: Manifest, rule_file: RuleFile, where: Path) -> Settings:
    """Choose what the manifest says was chosen; raise MismatchError where that cannot be."""
    options = manifest.rules.options
    dtype = options.get("dtype")
    if dtype is not None and dtype not in FLOATS:
        raise _no_choice(f"no floating dtype {dtype!r}", where)
    try:
        return resolve(
            rule_file,
            variant=manifest.model.variant,
            dims={n: v for n, v in manifest.model.dims.items() if n in rule_file.dims},
            scope=options.get("scope"),
            source_prefix=options.get("source_prefix", ""),
        )
    except ConverterError as error:
        raise _no_choice(error.findings[0].what, where) from error


def _no_choice(what: str, where: Path) -> MismatchError:
    return MismatchError(
        f"what the manifest says was chosen cannot be: {what}",
        code="derived",
        where=str(where),
        hint="the directory was changed after it was written; convert the source again",
    )
