"""The way back: the tensors of an original checkpoint, from the canonical ones made of them.

A manifest says what every source tensor was, and which rule file made what of it, so the plan of
the conversion is bound again and turned round. A step that is exact is undone bit for bit. Where
one is not, the tensors that would differ are named, and nothing is written unless that is allowed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from converter.bind import bind
from converter.canonical import MANIFEST_NAME, arrange
from converter.errors import ExecutionError, MismatchError, PlanError, UsageError
from converter.finding import Finding
from converter.fold import fold_findings
from converter.manifest import FileRecord, Manifest
from converter.plan import Binding, Dropped, Plan, Shard
from converter.progress import Progress
from converter.publish_file import StagedFile, require_outside, require_replaceable
from converter.shards import write_shards
from converter.source import open_source
from converter.spec import TensorSpec
from converter.steps.cast import Cast
from converter.steps.chain import infer_chain
from converter.steps.fold_weight_norm import FoldWeightNorm
from converter.steps.step import Specs, Step
from converter.steps.undo import Apart, Known, Pick, SplitWeightNorm
from converter.verify_source import rules_of, settings_of

SUFFIX = ".safetensors"
METADATA = {"format": "pt"}
_KNOWN = ("arange", "lower_triangular")


@dataclass(frozen=True, slots=True)
class Loss:
    """A tensor of the original that does not come back as it was, and why.

    ``made`` says that one is made which stands for the same; else there is none.
    """

    name: str
    why: str
    made: bool


@dataclass(frozen=True, slots=True)
class Reversal:
    """The plan of a way back: its sources are canonical names, its targets original ones."""

    manifest: Manifest
    plan: Plan
    losses: tuple[Loss, ...]


@dataclass(frozen=True, slots=True)
class Reversed:
    """What a way back made."""

    out: Path
    reversal: Reversal
    file: FileRecord
    seconds: float


def plan_reverse(manifest: Manifest, directory: Path, file: str, *, rules: Path | None) -> Reversal:
    """Return how ``file`` is to be made of the canonical ``directory`` that has ``manifest``.

    ``rules`` is the rule file that was used, by default that of the package. Raises MismatchError
    when it is not the one that was, or when the manifest is not what it gives.
    """
    where = directory / MANIFEST_NAME
    if any(len(record.given) != len(record.sources) for record in manifest.tensors):
        raise _changed(where)
    rule_file = rules_of(manifest, rules, where)
    settings = settings_of(manifest, rule_file, where)
    dtype = manifest.rules.options.get("dtype")
    try:
        forward = bind(rule_file, _header(manifest), settings, dtype=dtype)
    except PlanError as error:
        raise _changed(where) from error
    if forward.targets != {record.name: record.spec for record in manifest.tensors}:
        raise _changed(where)
    turned = [_turned(binding) for binding in forward.bindings if binding.sources]
    made = {name: (back, n) for back in turned for n, name in enumerate(back.binding.targets)}
    for dropped in sorted(forward.dropped, key=lambda dropped: dropped.equals is not None):
        turned.append(_rebuilt(dropped, made))
        made[dropped.name] = (turned[-1], 0)
    losses = [loss for back in turned for loss in back.losses]
    bindings = tuple(back.binding for back in turned if back.binding.targets)
    targets = [pair for b in bindings for pair in zip(b.targets, b.outputs, strict=True)]
    plan = replace(
        forward,
        bindings=bindings,
        dropped=(),
        aliases={},
        allow_nan=frozenset(name for name, _ in targets),  # all were allowed in the canonical ones
        shards=(Shard(file, arrange(targets)),),
    )
    return Reversal(manifest, plan, tuple(losses))


def check_target(out: Path, directory: Path, *, overwrite: bool) -> None:
    """Refuse, before any work is done, a target that cannot be written.

    Raises UsageError for a name that is not that of a safetensors file, and for one in the
    canonical ``directory`` itself; ExecutionError for what may not be replaced.
    """
    if out.suffix != SUFFIX:
        expected = f"a file name that ends in {SUFFIX}"
        raise UsageError("not a name for the target", expected=expected, got=str(out))
    require_outside(out, directory)
    require_replaceable(out, overwrite=overwrite)


def carry_out(
    reversal: Reversal,
    directory: Path,
    out: Path,
    *,
    allow_lossy: bool,
    overwrite: bool,
    jobs: int,
    progress: Progress,
) -> Reversed:
    """Write the file ``out``, complete or not at all, from the canonical ``directory``.

    Raises ExecutionError for losses that are not allowed and when ``out`` cannot be written.
    """
    begun = time.monotonic()
    if reversal.losses and not allow_lossy:
        raise ExecutionError.of(fold_findings(map(_refusal, reversal.losses)))
    with StagedFile(out, overwrite=overwrite) as staged, open_source(directory) as source:
        staged.require_space(reversal.plan.total_bytes)
        shard = replace(reversal.plan.shards[0], file=staged.path.name)
        plan = replace(reversal.plan, shards=(shard,))
        made = write_shards(
            plan, source, staged.path.parent, jobs=jobs, progress=progress, metadata=METADATA
        )
        source.check_unchanged()
        staged.publish()
    return Reversed(out, reversal, replace(made.files[0], name=out.name), time.monotonic() - begun)


def _changed(where: Path) -> MismatchError:
    return MismatchError(
        "the tensors are not those that the rules make of the sources that the manifest lists",
        code="derived",
        where=str(where),
        hint="the directory was changed after it was written; convert the source again",
    )


def _header(manifest: Manifest) -> dict[str, TensorSpec]:
    """Return what the manifest says of the source: of what was used, and of what was dropped."""
    used = {
        name: spec
        for record in manifest.tensors
        for name, spec in zip(record.sources, record.given, strict=True)
    }
    left = {drop.name: TensorSpec(drop.dtype, drop.shape) for drop in manifest.dropped}
    return used | left


@dataclass(frozen=True, slots=True)
class _Back:
    """A binding turned round, without targets where nothing gives them, and what it loses."""

    binding: Binding
    losses: tuple[Loss, ...] = ()


def _turned(binding: Binding) -> _Back:
    """Return the way back of a binding."""
    stages: list[Specs] = [binding.inputs]
    for step in binding.steps:
        stages.append(infer_chain((step,), stages[-1]))
    steps: list[Step] = []
    whys: list[str] = []
    for step, before in zip(reversed(binding.steps), reversed(stages[:-1]), strict=True):
        undone, why = _undone(step, before)
        if why is not None:
            whys.append(why)
        if undone is None:
            losses = tuple(Loss(name, whys[-1], made=False) for name in binding.sources)
            return _Back(binding._replace(sources=(), targets=(), inputs=(), outputs=()), losses)
        steps.append(undone)
    back = Binding(
        line=binding.line,
        sources=binding.targets,
        steps=tuple(steps),
        targets=binding.sources,
        inputs=binding.outputs,
        outputs=binding.inputs,
    )
    why = "; ".join(whys)
    return _Back(back, tuple(Loss(name, why, made=True) for name in binding.sources if why))


def _undone(step: Step, before: Specs) -> tuple[Step | None, str | None]:
    """Return what undoes a step on tensors of these specs, and why it is not exact if it is not."""
    groups = [before] if step.takes == "all" else [(spec,) for spec in before]
    inverses: list[Step] = []
    why = None
    for group in groups:
        inverse = step.inverse(group)
        if inverse is None:
            inverse, why = _equivalent(step, group)
        if inverse is None:
            return None, why
        inverses.append(inverse)
    if len(groups) == 1:
        return inverses[0], why
    counts = tuple(len(step.infer(group)) for group in groups)
    return Apart(tuple(inverses), counts), why


def _equivalent(step: Step, before: Specs) -> tuple[Step | None, str]:
    """Return what makes tensors that mean the same, where something does, and how they differ."""
    if isinstance(step, FoldWeightNorm):
        why = "the length of the direction is lost: the direction is the weight, the gain its norm"
        return SplitWeightNorm(step.dim), why
    if isinstance(step, Cast):
        why = f"values were rounded from {before[0].dtype} to {step.dtype}"
        return Cast(before[0].dtype), why
    return None, f"{step.name} cannot be undone"


def _rebuilt(dropped: Dropped, made: Mapping[str, tuple[_Back, int]]) -> _Back:
    """Return how a tensor that was dropped is made from what its value was proven to be."""
    nothing = Binding(dropped.line, (), (), (), (), ())
    back, number = made.get(dropped.equals or "", (None, 0))
    if back is not None and back.binding.targets:
        steps = (*back.binding.steps, Pick(number))
        targets, outputs = (dropped.name,), (dropped.spec,)
        found = back.binding._replace(steps=steps, targets=targets, outputs=outputs)
        losses = [loss for loss in back.losses if loss.name == dropped.equals]
        return _Back(found, tuple(replace(loss, name=dropped.name) for loss in losses))
    if dropped.expect in _KNOWN:
        step = Known(dropped.expect, dropped.spec.shape, dropped.spec.dtype)
        targets, outputs = (dropped.name,), (dropped.spec,)
        return _Back(nothing._replace(steps=(step,), targets=targets, outputs=outputs))
    return _Back(nothing, (Loss(dropped.name, f"it was dropped: {dropped.because}", made=False),))


def _refusal(loss: Loss) -> Finding:
    return Finding(
        "loss",
        "a tensor of the original would not come back as it was",
        tensor=loss.name,
        expected="a conversion that can be undone bit for bit",
        got=f"{'another one' if loss.made else 'none'}: {loss.why}",
        hint="--allow-lossy writes all the same, and says again what differs",
    )
