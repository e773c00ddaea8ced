"""Split, join and reorder dims by the names of their axes, as ``einops.rearrange`` does.

The pattern language is that of einops (Rogozhnikov 2022, ICLR, "Einops: Clear and Reliable Tensor
Manipulations with Einstein-like Notation"). It is parsed here, because shapes are inferred in the
plan, where there are no tensors, and because an error names the rule's own words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from converter.errors import RuleError
from converter.spec import Shape, TensorSpec
from converter.steps.axes import (
    Layout,
    Pattern,
    axis_sizes,
    layout_of,
    parse,
    shape_of,
)
from converter.steps.layout import require_whole_bytes
from converter.steps.runs import reordered_dims
from converter.steps.step import AxisSizes, Runs, Shapes, Specs, Takes, Tensors


@dataclass(frozen=True, slots=True)
class Rearrange:
    """Split, join and reorder dims as ``pattern`` says, ``(head row) ... -> head row ...``.

    ``sizes`` states how long axes are. Of the axes that are one dim, all but one are stated.

    Shapes: ``[a·b, c] → [b, a, c]`` for ``(a b) c -> b a c``; ``...`` is any number of dims.
    Dtype: unchanged.
    Inverse: ``rearrange`` with the sides exchanged; none for two empty axes that are one dim.
    Raises RuleError for what is no pattern, sizes below 1, of axes that are not there, or too few;
    StepError when a dim is not made up of its axes.

    >>> step = Rearrange(pattern="(head row) ... -> head row ...", sizes=(("head", 2),))
    >>> print(*step.infer((TensorSpec("F32", (6, 8)),)))
    F32 [2, 3, 8]
    """

    name: ClassVar[str] = "rearrange"
    takes: ClassVar[Takes] = "each"
    fan_out: ClassVar[int] = 1

    pattern: str
    sizes: AxisSizes = ()

    def __post_init__(self) -> None:
        pattern, stated = parse(self.pattern), dict(self.sizes)
        for axis, size in stated.items():
            if axis not in pattern.axes:
                raise RuleError(
                    f"rearrange: the pattern has no axis {axis!r:.80}",
                    expected=f"one of {', '.join(pattern.axes)}",
                    got=repr(self.pattern),
                )
            if size < 1:
                raise RuleError(
                    f"rearrange: no size of the axis {axis!r}", expected="1 or more", got=str(size)
                )
        for group in pattern.before:
            unstated = [axis for axis in group if axis not in stated]
            if len(unstated) > 1:
                raise RuleError(
                    f"rearrange: the sizes of {' and '.join(unstated)} are open",
                    expected="sizes of all but one of the axes that are one dim",
                    got=repr(self.pattern),
                    hint=f"add sizes: {{{unstated[0]}: …}}",
                )

    def infer(self, inputs: Specs) -> Specs:
        (spec,) = inputs
        require_whole_bytes(self.name, spec)
        return (TensorSpec(spec.dtype, self._layout(spec.shape).shape),)

    def apply(self, inputs: Tensors) -> Tensors:
        (tensor,) = inputs
        layout = self._layout(tensor.shape)
        return (tensor.reshape(layout.sizes).transpose(layout.order).reshape(layout.shape),)

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        layout = self._layout(inputs[0].shape)
        runs = reordered_dims(layout.sizes, layout.order)
        return None if runs is None else (runs,)

    @property
    def keeps_rows(self) -> bool:
        pattern = self._pattern
        if not pattern.before or not pattern.after:
            return False
        first = pattern.before[0]
        # A stated size is that of all rows; and ``...`` may stand for no dim at all.
        plain = len(first) == 1 and first[0] != "..." and first[0] not in dict(self.sizes)
        return plain and pattern.after[0] == first

    def inverse(self, inputs: Specs) -> Rearrange | None:
        (spec,) = inputs
        before, _, after = self.pattern.partition("->")
        joined = [group for group in self._pattern.after if len(group) > 1]
        sizes = dict(self.sizes)
        if any(axis not in sizes for group in joined for axis in group):
            sizes = self._sizes(spec.shape)[0]
        # No size 0 can be stated, and two of one dim cannot be left open.
        if any([sizes[axis] for axis in group].count(0) > 1 for group in joined):
            return None
        stated = tuple((axis, sizes[axis]) for group in joined for axis in group if sizes[axis])
        return Rearrange(f"{after.strip()} -> {before.strip()}", stated)

    def preimage(self, outputs: Shapes) -> Shapes | None:
        (shape,) = outputs
        found = axis_sizes(self.name, self._pattern.after, shape, dict(self.sizes))
        return None if found is None else (shape_of(self._pattern.before, *found),)

    @property
    def _pattern(self) -> Pattern:
        return parse(self.pattern)

    def _sizes(self, shape: Shape) -> tuple[dict[str, int], Shape]:
        found = axis_sizes(self.name, self._pattern.before, shape, dict(self.sizes))
        assert found is not None, "no dim has two axes of open size"
        return found

    def _layout(self, shape: Shape) -> Layout:
        return layout_of(self._pattern, *self._sizes(shape))
