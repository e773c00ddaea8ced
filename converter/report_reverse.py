"""What the way back from a canonical directory made, and what did not come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converter.finding import Finding, counted
from converter.fold import fold_findings
from converter.report import Report, amount, size_text

if TYPE_CHECKING:
    from converter.reverse import Loss, Reversed
from converter.sheet import Sheet, Slots


def of_reverse(made: Reversed) -> Report:
    """Report a file of original tensors."""
    manifest, losses = made.reversal.manifest, made.reversal.losses
    targets = made.reversal.plan.targets
    differing = sum(loss.made for loss in losses)
    absent = len(losses) - differing
    rows = [
        ("read", amount(manifest.totals)),
        ("exact", f"{counted(len(targets) - differing, 'tensor')}, bit for bit"),
        *([("differ", counted(differing, "tensor"))] if differing else []),
        *([("absent", counted(absent, "tensor"))] if absent else []),
        ("wrote", f"{made.out}, {size_text(made.file.size)}, sha256 {made.file.sha256}"),
        ("time", f"{made.seconds:.1f} s"),
    ]
    title = f"{manifest.model.name}: the layout of {manifest.model.origin}"
    sheet = Sheet([title, Slots(rows)])
    result = {
        "out": str(made.out),
        "model": manifest.model.name,
        "variant": list(manifest.model.variant),
        "file": {"name": made.file.name, "size": made.file.size, "sha256": made.file.sha256},
        "tensors": len(targets),
        "losses": [{"name": loss.name, "why": loss.why, "made": loss.made} for loss in losses],
        "seconds": round(made.seconds, 3),
    }
    findings = fold_findings([_finding(loss) for loss in losses])
    return Report("convert", sheet.text(), result, tuple(findings), sheet=sheet)


def _finding(loss: Loss) -> Finding:
    what = "a tensor is not the original's" if loss.made else "a tensor of the original is not made"
    return Finding("loss", what, tensor=loss.name, got=loss.why, severity="warning")
