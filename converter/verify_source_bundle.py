"""Derive every member of a bundle from the folder of its sources again, and compare."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from converter import bundle as bundling
from converter import resources
from converter.bundle import BundlePlan
from converter.bundle_members import resolve_members
from converter.bundle_record import BUNDLE_NAME, BundleRecord, dump
from converter.canonical import MANIFEST_NAME
from converter.errors import MismatchError
from converter.finding import Finding
from converter.manifest import Dim, FileRecord, Manifest
from converter.progress import Progress
from converter.rules import bundle_file as bundle_files
from converter.rules.bundle_file import BundleFile
from converter.typed_json import first_difference
from converter.verify import Verification
from converter.verify_compare import compare
from converter.verify_source import derive, not_the_rules, require_rules, with_findings

_HINT = "these members were not made from these sources; convert the bundle, and see"


def derive_bundle_again(
    verification: Verification, folder: Path, *, rules: Path | None, jobs: int, progress: Progress
) -> Verification:
    """Return the check of a bundle with all that differs from its sources added.

    ``folder`` holds the sources; ``rules`` is the bundle file, by default that of the package for
    the bundle's name. A bundle of which a record cannot be read stays as it was checked. Raises as
    the conversion of a bundle does.
    """
    record = verification.bundle
    stated = {member.directory.name: member.manifest for member in verification.members}
    known = {name: manifest for name, manifest in stated.items() if manifest is not None}
    if record is None or known.keys() != record.members.keys():
        return verification
    where = verification.directory / BUNDLE_NAME
    try:
        bundle_file = _bundle_file(record, rules, where)
        dims, prefixes = _chosen(bundle_file, known, verification.directory, where)
    except MismatchError as error:
        return with_findings(verification, error.findings)
    with bundling.planned(bundle_file, folder, dims=dims, source_prefixes=prefixes) as plan:
        findings = _derive_members(plan, record, known, verification.directory, jobs, progress)
    return with_findings(verification, findings)


def _bundle_file(record: BundleRecord, path: Path | None, where: Path) -> BundleFile:
    """Return the bundle file whose digest the record has; raise MismatchError when it is not."""
    path = path or resources.bundle_files().get(record.bundle)
    if path is None:
        expected = f"the bundle file {record.rules.file}, sha256 {record.rules.sha256}"
        what = f"no bundle {record.bundle!r} comes with this package"
        raise not_the_rules(what, where, expected, "none")
    bundle_file = bundle_files.load(path)
    require_rules(bundle_file.name, bundle_file.sha256, record.rules.sha256, where)
    return bundle_file


def _chosen(
    bundle_file: BundleFile, stated: Mapping[str, Manifest], directory: Path, where: Path
) -> tuple[dict[str, dict[str, Dim]], dict[str, str]]:
    """Return the dims of each member and the prefix of each source that the manifests have.

    Raises MismatchError when members are others than those of the bundle file, or their rules are.
    """
    if stated.keys() != bundle_file.members.keys():
        raise MismatchError(
            "the members are not those of the bundle file",
            code="derived",
            where=str(where),
            expected=", ".join(bundle_file.members),
            got=", ".join(stated),
            hint=_HINT,
        )
    dims, prefixes = {}, {}
    for name, member in resolve_members(bundle_file, dims={}, source_prefixes={}).items():
        manifest, rule_file = stated[name], member.rule_file
        place = directory / name / MANIFEST_NAME
        require_rules(rule_file.name, rule_file.sha256, manifest.rules.sha256, place)
        dims[name] = {n: v for n, v in manifest.model.dims.items() if n in rule_file.dims}
        source = bundle_file.members[name].source
        prefixes[source] = manifest.rules.options.get("source_prefix", "")
    return dims, prefixes


def _derive_members(
    plan: BundlePlan,
    record: BundleRecord,
    stated: Mapping[str, Manifest],
    directory: Path,
    jobs: int,
    progress: Progress,
) -> list[Finding]:
    read: dict[str, tuple[FileRecord, ...]] = {}
    derived: dict[str, Manifest] = {}
    findings: list[Finding] = []
    total_bytes = plan.total_bytes
    for name, member in plan.plans.items():
        source = plan.bundle_file.members[name].source
        derived[name] = derive(
            member,
            plan.sources[source],
            stated[name],
            jobs=jobs,
            progress=lambda done, _: progress(done, total_bytes),
            digests=functools.partial(bundling.digest_once, read, source),
        )
        findings += compare(derived[name], stated[name], directory / name / MANIFEST_NAME)
    # What the record has of a manifest is held against it where the bundle itself is checked.
    sums = {f"{n}/{MANIFEST_NAME}": m.manifest_sha256 for n, m in record.members.items()}
    again = dump(bundling.record_of(plan, derived, sums, read))
    return findings or list(_compare_records(again, dump(record), directory / BUNDLE_NAME))


def _compare_records(again: bytes, stated: bytes, where: Path) -> Iterator[Finding]:
    if again != stated:
        number, want, have = first_difference(again, stated)
        yield Finding(
            "derived",
            f"line {number} differs from what the sources give",
            str(where),
            expected=want.decode(),
            got=have.decode(),
            hint=_HINT,
        )
