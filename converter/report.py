"""What commands answer: text for people, JSON for machines.

The JSON has one envelope for every command; its schema is ``schemas/report.schema.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from converter.describe import Description
from converter.finding import Finding, printable
from converter.fold import fold_names, skeleton
from converter.manifest import Scalar, Totals
from converter.plan import Binding, Plan
from converter.rules.expression import Expression
from converter.rules.rule_file import RuleFile
from converter.spec import TensorSpec
from converter.steps.step import Step, step_parameters

if TYPE_CHECKING:
    from converter.conversion import Conversion

_SHOWN = 3
_WIDEST_COLUMN = 200  # a cell beyond it moves the rest of its own row alone
_UNITS = ("B", "kB", "MB", "GB", "TB")


Details: TypeAlias = Mapping[str, object] | Callable[[], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of one command: text, the same as data, and what was found.

    Details may be what makes them, since those of many tensors take longer than the rest.
    """

    command: str
    text: str
    details: Details = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    exit_code: int = 0

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
    targets = plan.targets
    rows = [
        ("source", _used(plan)),
        ("target", f"{amount(_totals(targets))} {_dtypes(targets)}"),
        ("files", ", ".join(shard.file for shard in plan.shards)),
        *(("dropped", line) for line in _by_text((d.name, d.because) for d in plan.dropped)),
        *(
            ("stand-in", line)
            for line in _by_text((name, fill) for name, fill, _ in plan.standing_in)
        ),
        *(("alias", f"{name} is {of}") for name, of in plan.aliases.items()),
    ]
    text = "\n".join([_title(plan), *_slots(rows)])
    if table:
        text += "\n\n" + columns(_table(plan, whole=whole))
    return Report("plan", text, partial(_plan_json, plan))


def _plan_json(plan: Plan) -> dict[str, object]:
    return {
        "model": plan.rule_file.model,
        "variant": list(plan.settings.variant),
        "dims": plan.settings.dims,
        "used": plan.used,
        "dropped": [{"name": d.name, "because": d.because} for d in plan.dropped],
        "out_of_scope": plan.out_of_scope,
        "totals": asdict(_totals(plan.targets)),
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
        ("made", f"{amount(manifest.totals)} {_dtypes(plan.targets)}"),
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
    text = "\n".join([_title(plan), *_slots(rows)])
    return Report("convert", text, result, conversion.warnings)


def of_lint(files: Mapping[str, Sequence[Finding]]) -> Report:
    """Report the findings of each rule file; exit code 3 when there are any."""
    lines = [
        printable(f"{name}: {counted(len(found), 'finding') if found else 'no findings'}")
        for name, found in files.items()
    ]
    findings = tuple(finding for found in files.values() for finding in found)
    result = {"files": {name: len(found) for name, found in files.items()}}
    return Report("lint", "\n".join(lines), result, findings, 3 if findings else 0)


def of_description(path: Path, description: Description, *, whole: bool) -> Report:
    """Report a checkpoint at a glance; ``whole`` lists every name instead of folding numbers."""
    header = description.header
    title = printable(f"{path}: {amount(_totals(header))} {_dtypes(header)}")
    rows = [(f"file {file.name}", size_text(file.size_bytes)) for file in description.files]
    rows += [(f"metadata {key}", value) for key, value in description.metadata.items()]
    if whole:
        table = [(name, str(spec), size_text(spec.nbytes)) for name, spec in header.items()]
    else:
        table = [
            (row.pattern, f"{row.spec} ×{len(row.names)}", size_text(row.nbytes))
            for row in description.rows
        ]
    text = "\n".join([title, *_slots(rows), "", columns(table)])
    tensors = {
        name: {"dtype": spec.dtype, "shape": list(spec.shape)} for name, spec in header.items()
    }
    result = {
        "path": str(path),
        "files": [{"name": f.name, "size": f.size_bytes} for f in description.files],
        "metadata": dict(description.metadata),
        "totals": asdict(_totals(header)),
        "dtypes": dict(description.dtypes),
        "tensors": tensors,
    }
    return Report("inspect", text, result)


def of_models(rule_files: Sequence[RuleFile]) -> Report:
    """Report the models that come with the package."""
    table = [(rule_file.model, rule_file.title) for rule_file in rule_files]
    result = {"models": [_model_json(rule_file) for rule_file in rule_files]}
    return Report("models", columns(table), result)


def of_model(rule_file: RuleFile) -> Report:
    """Report one model: where it comes from, its dims, variants and conventions."""
    rows = [("origin", rule_file.origin), ("rules", rule_file.name)]
    rows += [("dim", f"{name} = {value}") for name, value in rule_file.dims.items()]
    for axis, choices in rule_file.variants.items():
        names = (f"{n} (default)" if v.is_default else n for n, v in choices.items())
        rows.append(("variant", f"{axis}: {', '.join(names)}"))
    facts = {"convention": rule_file.conventions, "audio": _audio(rule_file)}
    rows += [
        (kind, f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
        for kind, values in facts.items()
        for key, value in values.items()
    ]
    text = "\n".join([f"{rule_file.model}: {rule_file.title}", *_slots(rows)])
    return Report("models", text, {"models": [_model_json(rule_file)]})


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Return rows of text with their columns aligned, and nothing cut off."""
    lines = [[printable(cell) for cell in row] for row in rows]
    cells = zip(*lines, strict=True)
    widths = [min(max(map(len, column)), _WIDEST_COLUMN) for column in cells]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _title(plan: Plan) -> str:
    axes = zip(plan.rule_file.variants.values(), plan.settings.variant, strict=True)
    chosen = [name for choices, name in axes if not choices[name].is_default]
    variant = f" ({', '.join(chosen)})" if chosen else ""
    return f"{plan.rule_file.model}{variant}: {plan.rule_file.title}"


def _slots(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Indent rows of a key and a text; a key that repeats is written once."""
    kept = [(printable(key), printable(text)) for key, text in rows]
    width = max((len(key) for key, _ in kept), default=0)
    lines, last = [], ""
    for key, text in kept:
        lines.append(f"  {'' if key == last else key:<{width}}  {text}")
        last = key
    return lines


def _used(plan: Plan) -> str:
    used = counted(plan.used, "tensor")
    return f"{used} used, {len(plan.dropped)} dropped, {plan.out_of_scope} out of scope"


def _by_text(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each text of (name, text): how many names have it, and these, folded."""
    names: dict[str, list[str]] = {}
    for name, text in pairs:
        names.setdefault(text, []).append(name)
    return [
        f"{counted(len(having), 'tensor')}: {text} ({_sample(fold_names(having))})"
        for text, having in names.items()
    ]


def counted(number: int, what: str) -> str:
    """Return a number of things as text: ``1 tensor``, ``2 tensors``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _sample(patterns: Sequence[str]) -> str:
    shown = ", ".join(patterns[:_SHOWN])
    left = len(patterns) - _SHOWN
    return f"{shown}, and {left} more patterns" if left > 0 else shown


def _totals(specs: Mapping[str, TensorSpec]) -> Totals:
    return Totals(
        tensors=len(specs),
        parameters=sum(spec.numel for spec in specs.values()),
        bytes=sum(spec.nbytes for spec in specs.values()),
    )


def amount(totals: Totals) -> str:
    """Return tensors, parameters and size as text."""
    tensors = counted(totals.tensors, "tensor")
    return f"{tensors}, {totals.parameters:,} parameters, {size_text(totals.bytes)}"


def _dtypes(specs: Mapping[str, TensorSpec]) -> str:
    return "/".join(dict.fromkeys(spec.dtype for spec in specs.values()))


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
    values = ", ".join(f"{name}: {value}" for name, value in step_parameters(step).items())
    return f"{step.name} {{{values}}}" if values else step.name


def _binding_json(binding: Binding) -> dict[str, object]:
    return {
        "sources": [
            _spec_json(*pair) for pair in zip(binding.sources, binding.inputs, strict=True)
        ],
        "steps": [{step.name: step_parameters(step)} for step in binding.steps],
        "targets": [
            _spec_json(*pair) for pair in zip(binding.targets, binding.outputs, strict=True)
        ],
    }


def _spec_json(name: str, spec: TensorSpec) -> dict[str, object]:
    return {"name": name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _model_json(rule_file: RuleFile) -> dict[str, object]:
    return {
        "name": rule_file.model,
        "title": rule_file.title,
        "origin": rule_file.origin,
        "rules": rule_file.name,
        "sha256": rule_file.sha256,
        "dims": dict(rule_file.dims),
        "variants": {axis: list(choices) for axis, choices in rule_file.variants.items()},
        "conventions": dict(rule_file.conventions),
        "audio": _audio(rule_file),
    }


def _audio(rule_file: RuleFile) -> dict[str, Scalar]:
    return {
        key: value.text if isinstance(value, Expression) else value
        for key, value in rule_file.audio.items()
    }
