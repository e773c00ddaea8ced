"""Steps in a row, over a list of tensors; no steps at all leave the list as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from converter.errors import StepError
from converter.steps.cast import Cast
from converter.steps.step import Shapes, Specs, Step, Tensors

_Item = TypeVar("_Item")


def infer_chain(steps: Sequence[Step], specs: Specs) -> Specs:
    """Return the specs that ``steps`` make of ``specs``; raise StepError as the steps do.

    >>> from converter.spec import TensorSpec
    >>> from converter.steps.chunk import Chunk
    >>> from converter.steps.transpose import Transpose
    >>> print(*infer_chain((Chunk(dim=0, chunks=2), Transpose()), (TensorSpec("F32", (6, 8)),)))
    F32 [8, 3] F32 [8, 3]
    """
    for step in steps:
        specs = _over_list(step, step.infer, specs)
    return specs


def apply_chain(
    steps: Sequence[Step],
    tensors: Tensors,
    *,
    flushed: Callable[[list[int]], None] | None = None,
) -> Tensors:
    """Return the tensors that ``steps`` make of ``tensors``, which are not changed.

    ``flushed`` is told, after each cast, how many values of each tensor it rounded to zero. Raises
    ValueRefusedError as the steps do.
    """
    # Imported here, since a plan knows steps but needs no numpy.
    import numpy as np

    # What overflows, and what is no number, is refused or kept by those who look at values.
    with np.errstate(all="ignore"):
        for step in steps:
            made = _over_list(step, step.apply, tensors)
            if flushed is not None and isinstance(step, Cast):
                pairs = zip(tensors, made, strict=True)
                flushed([step.flushed((tensor,), (cast,)) for tensor, cast in pairs])
            tensors = made
    return tensors


def preimage_chain(
    steps: Sequence[Step], outputs: Shapes, *, sources: int | None = None
) -> Shapes | None:
    """Return the only shapes that ``steps`` take to ``outputs``, or None when undetermined.

    ``sources`` is how many tensors go in, where that is known. Raises StepError when no tensors,
    or not so many, can give these outputs.
    """
    counts = _counts(steps, sources)
    _require_count(counts[-1], outputs, "come out of the steps")
    for step, count in zip(reversed(steps), reversed(counts[:-1]), strict=True):
        inputs = _step_preimage(step, outputs, count)
        if inputs is None:
            return None
        _require_count(count, inputs, f"go into {step.name}")
        outputs = inputs
    return outputs


def _over_list(
    step: Step,
    function: Callable[[tuple[_Item, ...]], Sequence[_Item]],
    items: Sequence[_Item],
) -> tuple[_Item, ...]:
    if step.takes == "all":
        return tuple(function(tuple(items)))
    return tuple(output for item in items for output in function((item,)))


def _counts(steps: Sequence[Step], sources: int | None) -> list[int | None]:
    """Return the length of the list before each step and after the last, None where unknown."""
    counts = [sources]
    for step in steps:
        inputs = 1 if step.takes == "all" else counts[-1]
        counts.append(None if inputs is None or step.fan_out is None else inputs * step.fan_out)
    return counts


def _step_preimage(step: Step, outputs: Shapes, count: int | None) -> Shapes | None:
    """Return the shapes of the list before ``step``, ``count`` tensors where that is known."""
    if step.takes == "all":
        return step.preimage(outputs)
    group = len(outputs) if step.fan_out is None and count == 1 else step.fan_out
    if not group:
        return None
    if len(outputs) % group:
        raise StepError(
            f"{step.name}: each tensor becomes {group}",
            expected=f"a multiple of {group} tensors",
            got=str(len(outputs)),
        )
    inputs: Shapes = ()
    for start in range(0, len(outputs), group):
        one = step.preimage(outputs[start : start + group])
        if one is None:
            return None
        inputs += one
    return inputs


def _require_count(expected: int | None, shapes: Shapes, what: str) -> None:
    if expected is not None and len(shapes) != expected:
        raise StepError(
            f"another number of tensors {what}", expected=str(expected), got=str(len(shapes))
        )
