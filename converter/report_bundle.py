"""What there is of bundles, what the conversion of one would do, and what it made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from converter.bundle import BundleConversion, BundlePlan
from converter.bundle_record import dump
from converter.digest import sha256
from converter.manifest import Totals
from converter.report import Report, amount, columns, counted, of_plan, size_text
from converter.report import of_models as models_alone
from converter.rules.bundle_file import BundleFile, BundleSource, Member
from converter.rules.rule_file import RuleFile


def of_models(rule_files: Sequence[RuleFile], bundle_files: Sequence[BundleFile]) -> Report:
    """Report the models and the bundles that come with the package."""
    alone = models_alone(rule_files)
    rows = [(file.bundle, f"{file.title} ({len(file.members)} models)") for file in bundle_files]
    text = f"{alone.text}\n\nBundles, for --bundle:\n{columns(rows)}"
    bundles = [_bundle_json(bundle_file) for bundle_file in bundle_files]
    return Report("models", text, {**alone.result, "bundles": bundles})


def of_bundle_file(bundle_file: BundleFile) -> Report:
    """Report one bundle: its sources, its members, and what they must agree on."""
    sources = [
        ("  source", name, source.file, _said_of(source))
        for name, source in bundle_file.sources.items()
    ]
    members = [
        ("  member", name, _rules_of(member), f"from {member.source}")
        for name, member in bundle_file.members.items()
    ]
    agreed = [f"  agree   {item.that.text}: {item.because}" for item in bundle_file.agree]
    lines = [
        f"{bundle_file.bundle}: {bundle_file.title}",
        columns([*sources, *members]),
        *agreed,
        f"  rules   {bundle_file.name}",
    ]
    return Report(
        "models", "\n".join(lines), {"models": [], "bundles": [_bundle_json(bundle_file)]}
    )


def _said_of(source: BundleSource) -> str:
    """Return how a source is read, and what it is imported from."""
    said = [f"prefix {source.source_prefix}"] if source.source_prefix else []
    if (original := source.original) is not None:
        unwrapped = f" ({original.unwrap})" if original.unwrap else ""
        said.append(f"imported from {original.file}{unwrapped}")
    return "; ".join(said)


def _rules_of(member: Member) -> str:
    """Return what a member's rules are, with its variant and the dims that it sets."""
    chosen = [*member.variant, *(f"{name} = {value}" for name, value in member.dims.items())]
    rules = member.model or member.rules or ""
    return f"{rules} ({', '.join(chosen)})" if chosen else rules


def _bundle_json(bundle_file: BundleFile) -> dict[str, object]:
    return {
        "name": bundle_file.bundle,
        "title": bundle_file.title,
        "about": bundle_file.about,
        "rules": bundle_file.name,
        "sha256": bundle_file.sha256,
        "sources": {
            name: {
                "file": source.file,
                "source_prefix": source.source_prefix,
                "import": source.original and asdict(source.original),
            }
            for name, source in bundle_file.sources.items()
        },
        "members": {
            name: {
                "source": member.source,
                "rules": member.model or member.rules,
                "variant": list(member.variant),
                "dims": dict(member.dims),
            }
            for name, member in bundle_file.members.items()
        },
        "agree": [{"that": a.that.text, "because": a.because} for a in bundle_file.agree],
    }


def of_bundle_plan(plan: BundlePlan, *, table: bool, whole: bool) -> Report:
    """Report the members of a bundle, what each takes, and what they agree on.

    ``table`` adds the whole plan of each member, with a row per target, ``whole`` unfolded.
    """
    rows = [
        (
            f"  {name}",
            member.rule_file.model,
            f"{plan.bundle_file.sources[plan.bundle_file.members[name].source].file}:",
            f"{member.used} tensors used, {len(member.dropped)} dropped",
            f"→ {len(member.targets)} tensors, {size_text(member.total_bytes)}",
        )
        for name, member in plan.plans.items()
    ]
    agreed = [f"  agreed   {record.that}: {record.because}" for record in plan.agreed]
    total = f"  total    {size_text(plan.total_bytes)}; every tensor of every source has its member"
    title = f"{plan.bundle_file.bundle}: {plan.bundle_file.title}"
    result = {
        "bundle": plan.bundle_file.bundle,
        "members": {
            name: {
                "model": member.rule_file.model,
                "variant": list(member.settings.variant),
                "used": member.used,
                "dropped": len(member.dropped),
                "tensors": len(member.targets),
                "bytes": member.total_bytes,
            }
            for name, member in plan.plans.items()
        },
        "agreed": [record.that for record in plan.agreed],
    }
    texts = ["\n".join([title, columns(rows), *agreed, total])]
    if table:
        for name, member in plan.plans.items():
            texts.append(f"{name} = {of_plan(member, table=True, whole=whole).text}")
    return Report("plan", "\n\n".join(texts), result)


def of_bundle_conversion(conversion: BundleConversion) -> Report:
    """Report what the conversion of a bundle made."""
    plan, record = conversion.plan, conversion.record
    made = {name: manifest.totals for name, manifest in conversion.manifests.items()}
    total = Totals(*(sum(column) for column in zip(*map(_row, made.values()), strict=True)))
    read = sum(file.size for files in record.sources.values() for file in files)
    rate = size_text((read + total.bytes) / max(conversion.seconds, 1e-9))
    rows = [(f"  {name}", record.members[name].model, amount(t)) for name, t in made.items()]
    sources = counted(len(record.sources), "source")
    record_sha256 = sha256(dump(record))
    lines = [
        f"{record.bundle}: {record.title}",
        columns(rows),
        f"  read     {sources}, {size_text(read)}; every tensor has its member",
        f"  made     {amount(total)}",
        f"  wrote    {conversion.out}",
        f"  time     {conversion.seconds:.1f} s, {rate}/s read and written",
        f"  agreed   {counted(len(plan.agreed), 'condition')} between members",
        f"  record   sha256 {record_sha256}",
    ]
    result = {
        "out": str(conversion.out),
        "bundle": record.bundle,
        "manifest_sha256": record_sha256,
        "members": {name: asdict(member) for name, member in record.members.items()},
        "totals": asdict(total),
        "agreed": [item.that for item in record.agreed],
        "seconds": round(conversion.seconds, 3),
    }
    return Report("convert", "\n".join(lines), result, conversion.warnings)


def _row(totals: Totals) -> tuple[int, int, int]:
    return totals.tensors, totals.parameters, totals.bytes
