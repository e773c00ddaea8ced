"""What a tensor is explained to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from converter.explain import Explanation, Place, Role, Stage, Trace
from converter.report import Report, size_text, spec_json
from converter.sheet import Part, Sheet, Slots
from converter.spec import TensorSpec
from converter.steps.step import call_text

_KINDS = {
    "canonical": "a canonical tensor",
    "alias": "an alias",
    "source": "a source tensor",
    "dropped": "a source tensor that is dropped",
    "absent": "a source tensor that is not there",
    "out-of-scope": "a source tensor that is out of scope",
}


def of_explanation(explanation: Explanation) -> Report:
    """Report what names stand for; those of one unit of work share one picture of it."""
    groups: dict[int, list[Role]] = {}
    for role in explanation.roles:
        groups.setdefault(id(role.trace or role), []).append(role)
    parts: list[Part] = [_title(explanation)]
    for roles in groups.values():
        parts += ["", *(_headline(role) for role in roles)]
        rows = [row for role in roles for row in _facts(role, explanation)]
        if roles[0].trace is not None:
            rows += _rows(roles[0].trace)
        parts.append(Slots(rows))
    sheet = Sheet(parts)
    return Report("explain", sheet.text(), partial(_json, explanation), sheet=sheet)


def _title(explanation: Explanation) -> str:
    made = "was made" if explanation.by == "manifest" else "would be made"
    of = f" from {', '.join(explanation.files)}" if explanation.files else ""
    return f"{explanation.model}, as it {made}{of} by {explanation.rules}"


def _headline(role: Role) -> str:
    spec = f" {role.spec}" if role.spec else ""
    of = f" of {role.of}" if role.of else ""
    return f"{role.name}{spec}: {_KINDS[role.kind]}{of}"


def _facts(role: Role, explanation: Explanation) -> list[tuple[str, str]]:
    rows = []
    if role.because is not None:
        rows.append(("because", role.because))
    if role.value is not None:
        proven = "shown to be so" if explanation.by == "manifest" else "to be shown"
        rows.append(("values", f"{role.value}, {proven}"))
    if role.where is not None:
        rows.append(("said at", role.where))
    return rows


def _rows(trace: Trace) -> list[tuple[str, str]]:
    rows = []
    if trace.where is not None:
        rows.append(("rule", trace.where + _with(trace)))
    rows += [("source", f"{name} {spec or ''}".rstrip()) for name, spec in trace.sources]
    rows += [("absent", name) for name in trace.absent]
    if trace.fill is not None:
        rows.append(("stand-in", trace.fill))
    rows += [("step", _stage(stage)) for stage in trace.stages]
    for target in trace.targets:
        rows.append(("target", f"{target.name} {target.spec}"))
        rows += [("", line) for line in _place(target)]
    return rows


def _with(trace: Trace) -> str:
    chosen = [f"{name} = {value}" for name, value in trace.indices.items()]
    chosen += [
        f"{name} = {before}" + (f" → {after}" if before != after else "")
        for name, (before, after) in trace.words.items()
    ]
    return f" with {', '.join(chosen)}" if chosen else ""


def _stage(stage: Stage) -> str:
    call = call_text(stage.name, stage.parameters)
    if stage.specs is None:
        return f"{call} → shapes that follow from nothing known here"
    return f"{call} → {', '.join(_counted(stage.specs))}"


def _counted(specs: Sequence[TensorSpec]) -> list[str]:
    """Write specs, with equal ones in a row as one."""
    runs: list[list[TensorSpec]] = []
    for spec in specs:
        if runs and runs[-1][0] == spec:
            runs[-1].append(spec)
        else:
            runs.append([spec])
    return [str(run[0]) + (f" ×{len(run)}" if len(run) > 1 else "") for run in runs]


def _place(target: Place) -> list[str]:
    size = size_text(target.spec.nbytes)
    lines = [f"  {target.file} from byte {target.offset:,}, {size}"]
    if target.sha256 is not None:
        lines.append(f"  sha256 {target.sha256}")
    if (stats := target.stats) is not None:
        figures = f"mean {stats.mean:.6g}, std {stats.std:.6g}"
        bounds = f"from {stats.min:.6g} to {stats.max:.6g}"
        odd = f", {stats.nonfinite:,} not finite" if stats.nonfinite else ""
        lines.append(f"  {figures}, {bounds}{odd}")
    return lines


def _json(explanation: Explanation) -> dict[str, object]:
    traces = {id(role.trace): role.trace for role in explanation.roles if role.trace is not None}
    numbers = {key: number for number, key in enumerate(traces)}
    return {
        "by": explanation.by,
        "model": explanation.model,
        "rules": explanation.rules,
        "rules_sha256": explanation.rules_sha256,
        "files": list(explanation.files),
        "roles": [_role_json(role, numbers) for role in explanation.roles],
        "traces": [_trace_json(trace) for trace in traces.values()],
    }


def _role_json(role: Role, numbers: dict[int, int]) -> dict[str, object]:
    return {
        "name": role.name,
        "kind": role.kind,
        "trace": None if role.trace is None else numbers[id(role.trace)],
        "spec": _spec_json(role.spec),
        "of": role.of,
        "because": role.because,
        "value": role.value,
        "where": role.where,
    }


def _trace_json(trace: Trace) -> dict[str, object]:
    return {
        "where": trace.where,
        "indices": dict(trace.indices),
        "words": {name: list(pair) for name, pair in trace.words.items()},
        "sources": [{"name": name, "spec": _spec_json(spec)} for name, spec in trace.sources],
        "absent": list(trace.absent),
        "stand_in": trace.fill,
        "steps": [
            {
                "step": {stage.name: dict(stage.parameters)},
                "gives": None if stage.specs is None else list(map(spec_json, stage.specs)),
            }
            for stage in trace.stages
        ],
        "targets": [_place_json(target) for target in trace.targets],
    }


def _place_json(target: Place) -> dict[str, object]:
    return {
        "name": target.name,
        **spec_json(target.spec),
        "file": target.file,
        "offset": target.offset,
        "size": target.spec.nbytes,
        "sha256": target.sha256,
        "stats": None if target.stats is None else asdict(target.stats),
    }


def _spec_json(spec: TensorSpec | None) -> dict[str, object] | None:
    return None if spec is None else spec_json(spec)
