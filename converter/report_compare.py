"""What the comparison of a trace came to: the first module that parts, in words and figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from converter.errors import MismatchError
from converter.finding import Finding, counted, first_few, listed
from converter.report import Report, spec_json
from converter.sheet import Sheet, Slots, Table

if TYPE_CHECKING:
    from converter.compare import Compared, Comparison, Side
    from converter.compare_first import First, Status
    from converter.compare_values import Measure
    from converter.spec import TensorSpec
    from converter.trace_record import Call

_BEFORE, _AFTER = 4, 2
_NAMED = 6
_HEAD = ("", "tensor", "dtype and shape", "", "largest", "relative", "mean", "cosine", "at")
_FIGURES = frozenset({4, 5, 6, 7})
_COUNTS: Mapping[str, Status] = {
    "equal": "equal",
    "agree": "agrees",
    "part": "parts",
    "missing": "missing",
}
_WORDS: Mapping[Status, str] = {
    "equal": "equal",
    "agrees": "agrees",
    "parts": "PARTS",
    "missing": "missing",
}


def of_comparison(comparison: Comparison, *, whole: bool) -> Report:
    """Report a comparison; ``whole`` lists every tensor, and not only those around the first."""
    title = f"{comparison.other_side.path} against {comparison.first_side.path}"
    shown = comparison.tensors if whole else _surroundings(comparison)
    table = Table(list(_rows(comparison, shown)), _HEAD, _FIGURES, headed=True)
    sheet = Sheet([title, Slots(list(_summary(comparison))), "", table])
    return Report(
        "compare",
        sheet.text(),
        partial(_json, comparison),
        tuple(_findings(comparison)),
        0 if comparison.holds else MismatchError.exit_code,
        sheet,
    )


def _summary(comparison: Comparison) -> Iterator[tuple[str, str]]:
    inputs = {
        "equal": "equal",
        "agree": "not equal, within the tolerance",
        "differ": "DIFFERENT: the networks were not run on the same",
        "unknown": "not all there: whether both were run on the same is not known",
    }
    yield "inputs", inputs[comparison.inputs]
    said = [f"{comparison.count(status)} {word}" for word, status in _COUNTS.items()]
    if comparison.extra:
        said.append(f"{len(comparison.extra)} of other names")
    yield "tensors", ", ".join(said)
    if comparison.first is not None:
        yield "first", _subject(comparison.first)
    step, first = comparison.step, comparison.first
    if step is not None and (first is None or step.event != first.event):
        yield "step", f"{step.name}: the error grows from {step.before:.1e} to {step.error:.1e}"


def _subject(first: First) -> str:
    if first.kind == "inputs":
        return "the inputs"
    doubt = f", or {counted(len(first.suspects), 'other')}" if first.suspects else ""
    return f"{_named(first.call)}{', its own code' if first.kind == 'own code' else ''}{doubt}"


def _named(call: Call) -> str:
    where = call.name if call.module else f"the network itself{call.name}"
    return f"{where} ({call.type})"


def _surroundings(comparison: Comparison) -> Sequence[Compared]:
    """Return the network's outputs, or what stands around the first tensor that parts."""
    there = [tensor for tensor in comparison.tensors if tensor.other is not None]
    first = comparison.first
    if first is None:
        of_step = {comparison.step.name} if comparison.step else set()
        return [
            tensor for tensor in there if tensor.event.call.module == "" or tensor.name in of_step
        ]
    place = next(n for n, tensor in enumerate(there) if tensor.name in first.tensors)
    last = max(n for n, tensor in enumerate(there) if tensor.name in first.tensors)
    return [
        tensor
        for n, tensor in enumerate(there)
        if place - _BEFORE <= n <= last + _AFTER or tensor.name in first.call.inputs
    ]


def _rows(comparison: Comparison, shown: Sequence[Compared]) -> Iterator[tuple[str, ...]]:
    first = comparison.first
    for tensor in shown:
        is_first = first is not None and tensor.name in first.tensors
        yield (
            "→" if is_first else "",
            tensor.name,
            _specs(tensor.spec, tensor.other),
            _WORDS[tensor.status],
            *_figures(tensor.measure),
        )


def _specs(one: TensorSpec, other: TensorSpec | None) -> str:
    return str(one) if other in (None, one) else f"{one} ↔ {other}"


def _figures(measure: Measure | None) -> tuple[str, ...]:
    if measure is None or measure.same_bytes:
        return ("",) * 5
    return (
        f"{measure.largest:.1e}",
        f"{measure.relative:.1e}",
        f"{measure.mean:.1e}",
        f"{measure.cosine:.6f}",
        str(list(measure.index)),
    )


def _findings(comparison: Comparison) -> Iterator[Finding]:
    where = str(comparison.other_side.path)
    if comparison.first is not None:
        yield _of_first(comparison, comparison.first, where)
    if comparison.complete:
        missing = [tensor for tensor in comparison.tensors if tensor.status == "missing"]
        lacking = (
            Finding("missing", "the trace has it, the other file does not", where, tensor.name)
            for tensor in missing
        )
        yield from first_few(lacking, where)
    step = comparison.step
    if step is not None and comparison.first is None:
        yield Finding(
            "step",
            "all is within the tolerance, but at one place the error grows steeply",
            where=where,
            tensor=step.name,
            expected=f"an error like those before it, at most {step.before:.1e}",
            got=f"{step.error:.1e} of its root mean square",
            hint="a small fault such as another epsilon looks like this; a lower --rtol names it",
            severity="warning",
        )
    if comparison.extra:
        yield Finding(
            "extra",
            "names that the trace does not have were not compared",
            where=where,
            got=listed(comparison.extra).removeprefix("one of "),
            hint="see that they are spelled as in the trace, or name them in a file for --map",
            severity="warning",
        )
    yield from _other_weights(comparison.first_side, comparison.other_side)


def _other_weights(one: Side, other: Side) -> Iterator[Finding]:
    digests = [side.trace.content_sha256 if side.trace else None for side in (one, other)]
    if None not in digests and digests[0] != digests[1]:
        yield Finding(
            "weights",
            "the two traces are of other weights",
            where=str(other.path),
            expected=f"content sha256 {digests[0]}",
            got=f"content sha256 {digests[1]}",
            severity="warning",
        )


def _of_first(comparison: Comparison, first: First, where: str) -> Finding:
    tensor = next(t for t in comparison.tensors if t.name == first.tensors[0])
    expected, got = _difference(tensor)
    return Finding(
        "inputs" if first.kind == "inputs" else "parts",
        _verdict(first),
        where=where,
        tensor=tensor.name,
        expected=expected,
        got=got,
        hint=_hint(first) or _made_up_for(comparison, first),
    )


def _verdict(first: First) -> str:
    if first.kind == "inputs":
        return "the inputs differ, so where the networks part cannot be told"
    parts = f"the first to part is {_named(first.call)}"
    if first.suspects:
        others = ", ".join(_named(call) for call in first.suspects[:_NAMED])
        more = len(first.suspects) - _NAMED
        others += f" and {more} more" if more > 0 else ""
        return f"{parts}, but the other file lacks what would tell whether it is {others}"
    if not first.call.whole:
        return f"{parts}, or one of its modules that the trace leaves out"
    if first.kind == "module":
        return f"{parts}: all that it takes agrees, and what it returns does not"
    if first.before is not None:
        given = _named(first.before)
        return f"{parts}: all before agrees, but not what its own code gives to {given}"
    return (
        f"{parts}: all that it takes and all that its modules return agrees, but not what its own "
        "code makes of that"
    )


def _hint(first: First) -> str | None:
    if first.unknown:
        more = len(first.unknown) - _NAMED
        names = ", ".join(first.unknown[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"to know, have these in the other file: {names}"
    if not first.call.whole:
        return "not all of its modules are in the trace: record it without --only"
    return None


def _made_up_for(comparison: Comparison, first: First) -> str | None:
    """Say so if a module around the one that parts returns what it should all the same."""
    around: dict[str, list[Compared]] = {}
    for tensor in comparison.tensors:
        module = tensor.event.call.module
        within = first.call.module.startswith(f"{module}." if module else "")
        if within and module != first.call.module and not tensor.event.is_input:
            around.setdefault(module, []).append(tensor)
    agreeing = [
        module
        for module, returned in around.items()
        if all(tensor.status in ("equal", "agrees") for tensor in returned)
    ]
    if first.kind == "inputs" or not agreeing:
        return None
    nearest = around[max(agreeing, key=len)][0]
    return (
        f"{nearest.name} agrees all the same: if it is computed in another way on purpose, as with "
        "a norm that is folded, leave what lies within out of the other file, and compare again"
    )


def _difference(tensor: Compared) -> tuple[str, str]:
    """Return what was expected, and what was got instead."""
    assert tensor.other is not None
    measure = tensor.measure
    if measure is None:
        return str(tensor.spec), f"{tensor.other}, another shape"
    allowed = f"within {measure.atol:.1e} + {measure.rtol:.1e} × its magnitude"
    largest = "" if math.isinf(measure.largest) else f", {measure.largest:.1e} apart"
    beyond = f"{measure.beyond:,} of {counted(tensor.spec.numel, 'element')} beyond"
    return (
        f"{measure.expected} at {list(measure.index)}, {allowed}",
        f"{measure.got}{largest}; {beyond}",
    )


def _json(comparison: Comparison) -> dict[str, object]:
    first, step = comparison.first, comparison.step
    return {
        "trace": _side(comparison.first_side),
        "other": _side(comparison.other_side),
        "holds": comparison.holds,
        "inputs": comparison.inputs,
        "counts": {word: comparison.count(status) for word, status in _COUNTS.items()},
        "first": None if first is None else _first_json(first),
        "step": None
        if step is None
        else {"tensor": step.name, "before": step.before, "error": step.error},
        "tensors": [_tensor_json(tensor) for tensor in comparison.tensors],
        "extra": list(comparison.extra),
    }


def _side(side: Side) -> dict[str, object]:
    return {
        "path": str(side.path),
        "is_trace": side.trace is not None,
        "model": side.trace.model if side.trace else None,
        "content_sha256": side.trace.content_sha256 if side.trace else None,
        "tensors": side.tensors,
    }


def _first_json(first: First) -> dict[str, object]:
    return {
        "call": first.call.name,
        "module": first.call.module,
        "type": first.call.type,
        "kind": first.kind,
        "tensors": list(first.tensors),
        "before": None if first.before is None else first.before.name,
        "is_certain": first.is_certain,
        "suspects": [call.name for call in first.suspects],
        "unknown": list(first.unknown),
    }


def _tensor_json(tensor: Compared) -> dict[str, object]:
    return {
        "name": tensor.name,
        "call": tensor.event.call.name,
        "role": "input" if tensor.event.is_input else "output",
        "status": tensor.status,
        "spec": spec_json(tensor.spec),
        "other": None if tensor.other is None else spec_json(tensor.other),
        "difference": None if tensor.measure is None else _measure_json(tensor.measure),
    }


def _measure_json(measure: Measure) -> dict[str, object]:
    return {
        "largest": _finite(measure.largest),
        "relative": _finite(measure.relative),
        "mean": _finite(measure.mean),
        "error": _finite(measure.error),
        "cosine": measure.cosine,
        "index": list(measure.index),
        "beyond": measure.beyond,
        "atol": measure.atol,
        "rtol": measure.rtol,
    }


def _finite(figure: float) -> float | None:
    """Return a figure, or None for what JSON has no number for."""
    return figure if math.isfinite(figure) else None
