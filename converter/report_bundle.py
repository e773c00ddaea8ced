"""What the conversion of a bundle would do, and what it made."""

from __future__ import annotations

from dataclasses import asdict

from converter.bundle import BundleConversion, BundlePlan
from converter.bundle_record import dump
from converter.digest import sha256
from converter.finding import counted
from converter.manifest import Totals
from converter.report import Report, amount, of_plan, size_text
from converter.sheet import columns


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
