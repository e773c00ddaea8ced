"""What commands answer: text for people, JSON for machines.

The JSON has one envelope for every command; its schema is ``schemas/report.schema.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from converter.finding import Finding, counted
from converter.fold import few, fold_names, skeleton
from converter.manifest import Totals
from converter.sheet import Part, Sheet, Slots, Table
from converter.spec import TensorSpec

if TYPE_CHECKING:
    from converter.conversion import Conversion
    from converter.plan import Binding, Plan
    from converter.steps.step import Step

_SHOWN = 3
_UNITS = ("B", "kB", "MB", "GB", "TB")


Details: TypeAlias = Mapping[str, object] | Callable[[], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of one command: text, the same as data, and what was found.

    Details may be what makes them, since those of many tensors take longer than the rest. A sheet
    is what the text was made of, for terminals, which draw it.
    """

    command: str
    text: str
    details: Details = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    exit_code: int = 0
    sheet: Sheet | None = None

    @property
    def result(self) -> Mapping[str, object]:
        """The answer as data."""
        return self.details() if callable(self.details) else self.details

    def as_json(self) -> str:
        """Return the report as ASCII JSON on one line."""
        document = {
            "command": self.command,
            "ok": self.exit_code == 0,
            "exit_code": self.exit_code,
            "findings": [finding.as_json() for finding in self.findings],
            "result": self.result,
        }
        return json.dumps(document, ensure_ascii=True)


def of_plan(plan: Plan, *, table: bool, whole: bool) -> Report:
    """Report what a conversion would do; ``table`` adds a row per target, ``whole`` unfolded."""
    rows = [
        ("source", _used(plan)),
        ("target", f"{amount(totals_of(plan.specs))} {_dtypes(plan.specs)}"),
        ("files", ", ".join(shard.file for shard in plan.shards)),
        *(("dropped", line) for line in _by_text((d.name, d.because) for d in plan.dropped)),
        *(
            ("stand-in", line)
            for line in _by_text((name, fill) for name, fill, _ in plan.standing_in)
        ),
        *(("alias", f"{name} is {of}") for name, of in plan.aliases.items()),
    ]
    parts: list[Part] = [_title(plan), Slots(rows)]
    if table:
        parts += ["", Table(_table(plan, whole=whole), ("source", "steps", "target"))]
    sheet = Sheet(parts)
    return Report("plan", sheet.text(), partial(_plan_json, plan), sheet=sheet)


def _plan_json(plan: Plan) -> dict[str, object]:
    return {
        "model": plan.rule_file.model,
        "variant": list(plan.settings.variant),
        "dims": plan.settings.dims,
        "used": plan.used,
        "dropped": [{"name": d.name, "because": d.because} for d in plan.dropped],
        "out_of_scope": plan.out_of_scope,
        "totals": asdict(totals_of(plan.specs)),
        "files": [shard.file for shard in plan.shards],
        "aliases": dict(plan.aliases),
        "stand_ins": [{"name": name, "value": value} for name, value, _ in plan.standing_in],
        "bindings": [_binding_json(binding) for binding in plan.bindings],
    }


def of_conversion(conversion: Conversion) -> Report:
    """Report what a conversion made."""
    plan, manifest = conversion.plan, conversion.manifest
    read = sum(file.size for file in manifest.sources)
    written = sum(file.size for file in manifest.files)
    rate = size_text(round((read + written) / max(conversion.seconds, 1e-9)))
    names = ", ".join(file.name for file in manifest.sources)
    rows = [
        ("read", f"{names}, {size_text(read)}: {_used(plan)}"),
        ("made", f"{amount(manifest.totals)} {_dtypes(plan.specs)}"),
        ("wrote", f"{conversion.out}, {size_text(written)}"),
        ("time", f"{conversion.seconds:.1f} s, {rate}/s read and written"),
        ("manifest", f"sha256 {conversion.manifest_sha256}"),
        ("content", f"sha256 {manifest.content_sha256}"),
        *(
            ("stand-in", line)
            for line in _by_text((name, fill) for name, fill, _ in plan.standing_in)
        ),
    ]
    result = {
        "out": str(conversion.out),
        "model": manifest.model.name,
        "variant": list(manifest.model.variant),
        "used": plan.used,
        "dropped": len(plan.dropped),
        "stand_ins": len(manifest.stand_ins),
        "out_of_scope": plan.out_of_scope,
        "totals": asdict(manifest.totals),
        "files": [asdict(file) for file in manifest.files],
        "manifest_sha256": conversion.manifest_sha256,
        "content_sha256": manifest.content_sha256,
        "seconds": round(conversion.seconds, 3),
    }
    sheet = Sheet([_title(plan), Slots(rows)])
    return Report("convert", sheet.text(), result, conversion.warnings, sheet=sheet)


def _title(plan: Plan) -> str:
    axes = zip(plan.rule_file.variants.values(), plan.settings.variant, strict=True)
    chosen = [name for choices, name in axes if not choices[name].is_default]
    variant = f" ({', '.join(chosen)})" if chosen else ""
    return f"{plan.rule_file.model}{variant}: {plan.rule_file.title}"


def _used(plan: Plan) -> str:
    used = counted(plan.used, "tensor")
    return f"{used} used, {len(plan.dropped)} dropped, {plan.out_of_scope} out of scope"


def _by_text(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each text of (name, text): how many names have it, and these, folded."""
    names: dict[str, list[str]] = {}
    for name, text in pairs:
        names.setdefault(text, []).append(name)
    return [
        f"{counted(len(having), 'tensor')}: {text} ({', '.join(few(fold_names(having), _SHOWN))})"
        for text, having in names.items()
    ]


def totals_of(specs: Collection[TensorSpec]) -> Totals:
    """Return the sums over tensors."""
    return Totals(
        tensors=len(specs),
        parameters=sum(spec.numel for spec in specs),
        bytes=sum(spec.nbytes for spec in specs),
    )


def amount(totals: Totals) -> str:
    """Return tensors, parameters and size as text."""
    tensors = counted(totals.tensors, "tensor")
    return f"{tensors}, {counted(totals.parameters, 'parameter')}, {size_text(totals.bytes)}"


def _dtypes(specs: Iterable[TensorSpec]) -> str:
    return "/".join(dict.fromkeys(spec.dtype for spec in specs))


def size_text(size: float) -> str:
    """Return a size in bytes as text with a decimal unit."""
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _table(plan: Plan, *, whole: bool) -> list[tuple[str, str, str]]:
    """Return rows of source, steps and target; bindings alike but for numbers share a row."""
    groups: dict[tuple[object, ...], list[Binding]] = {}
    for number, binding in enumerate(plan.bindings):
        alike = (
            binding.line,
            tuple(map(skeleton, binding.sources)),
            tuple(map(skeleton, binding.targets)),
            binding.inputs,
            binding.outputs,
            binding.steps,
            number if whole else 0,
        )
        groups.setdefault(alike, []).append(binding)
    return [row for bindings in groups.values() for row in _table_rows(bindings)]


def _table_rows(bindings: Sequence[Binding]) -> list[tuple[str, str, str]]:
    first = bindings[0]
    sources = _named([binding.sources for binding in bindings], first.inputs)
    targets = _named([binding.targets for binding in bindings], first.outputs)
    steps = [_step_text(step) for step in first.steps]
    if first.stand_in is not None:
        absent = fold_names(name for binding in bindings for name in binding.absent)
        steps = [f"{first.stand_in.fill} for {', '.join(absent)}"]
    length = max(len(sources), len(targets), len(steps))
    padded = [list(cells) + [""] * (length - len(cells)) for cells in (sources, steps, targets)]
    return [
        (source, f"→ {step}" if step else ("→" if source or target else ""), target)
        for source, step, target in zip(*padded, strict=True)
    ]


def _named(rows: Sequence[tuple[str, ...]], specs: Sequence[TensorSpec]) -> list[str]:
    """Fold the names at each place of the rows and add their spec."""
    return [
        f"{', '.join(fold_names(names))} {spec}"
        for names, spec in zip(zip(*rows, strict=True), specs, strict=True)
    ]


def _step_text(step: Step) -> str:
    from converter.steps.step import call_text, step_parameters

    return call_text(step.name, step_parameters(step))


def _binding_json(binding: Binding) -> dict[str, object]:
    from converter.steps.step import step_parameters

    return {
        "sources": [
            _tensor_json(*pair) for pair in zip(binding.sources, binding.inputs, strict=True)
        ],
        "steps": [{step.name: step_parameters(step)} for step in binding.steps],
        "targets": [
            _tensor_json(*pair) for pair in zip(binding.targets, binding.outputs, strict=True)
        ],
    }


def _tensor_json(name: str, spec: TensorSpec) -> dict[str, object]:
    return {"name": name, **spec_json(spec)}


def spec_json(spec: TensorSpec) -> dict[str, object]:
    """Return a spec as data."""
    return {"dtype": spec.dtype, "shape": list(spec.shape)}
