"""What the conversion of a bundle would do, and what it made."""

from __future__ import annotations

from dataclasses import asdict

from converter.bundle import BundleConversion, BundlePlan
from converter.manifest import Totals
from converter.report import Report, amount, columns, size_text


def of_bundle_plan(plan: BundlePlan) -> Report:
    """Report the members of a bundle, what each takes, and what they agree on."""
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
    whole = f"  total    {size_text(plan.total_bytes)}; every tensor of every source has its member"
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
    return Report("plan", "\n".join([title, columns(rows), *agreed, whole]), result)


def of_bundle_conversion(conversion: BundleConversion) -> Report:
    """Report what the conversion of a bundle made."""
    plan, record = conversion.plan, conversion.record
    made = {name: manifest.totals for name, manifest in conversion.manifests.items()}
    total = Totals(*(sum(column) for column in zip(*map(_row, made.values()), strict=True)))
    read = sum(file.size for files in record.sources.values() for file in files)
    rate = size_text((read + total.bytes) / max(conversion.seconds, 1e-9))
    rows = [(f"  {name}", record.members[name].model, amount(t)) for name, t in made.items()]
    lines = [
        f"{record.bundle}: {record.title}",
        columns(rows),
        f"  read     {len(record.sources)} sources, {size_text(read)}; every tensor has its member",
        f"  made     {amount(total)}",
        f"  wrote    {conversion.out}",
        f"  time     {conversion.seconds:.1f} s, {rate}/s read and written",
        f"  agreed   {len(plan.agreed)} conditions between members",
    ]
    result = {
        "out": str(conversion.out),
        "bundle": record.bundle,
        "members": {name: asdict(member) for name, member in record.members.items()},
        "totals": asdict(total),
        "agreed": [item.that for item in record.agreed],
        "seconds": round(conversion.seconds, 3),
    }
    return Report("convert", "\n".join(lines), result, conversion.warnings)


def _row(totals: Totals) -> tuple[int, int, int]:
    return totals.tensors, totals.parameters, totals.bytes
