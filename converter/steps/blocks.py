"""Blocks along one dim that lie by turns or by groups: what interleave and deinterleave share."""

from __future__ import annotations

from dataclasses import dataclass

from converter.errors import RuleError, StepError
from converter.spec import Shape
from converter.steps.layout import refuse_negative_dims
from converter.steps.runs import MAX_RUNS, reordered_blocks
from converter.steps.step import Array, Runs


@dataclass(frozen=True, slots=True)
class Grid:
    """Blocks of ``size`` along ``dim``, read as ``rows`` by ``columns`` and transposed.

    ``stop`` is where they end; what lies behind it stays.
    """

    dim: int
    rows: int
    columns: int
    size: int
    stop: int


def require_blocks(step: str, dim: int, groups: int, size: int, stop: int | None) -> None:
    """Raise RuleError for parameters that fit no tensor."""
    refuse_negative_dims(step, dim)
    if groups < 1 or size < 1:
        raise RuleError(
            f"{step}: no groups, or blocks of no elements",
            expected="groups and size of 1 or more",
            got=f"groups {groups}, size {size}",
        )
    if stop is not None and (stop < 0 or stop % (groups * size)):
        raise RuleError(
            f"{step}: stop is not the end of whole blocks of all groups",
            expected=f"a multiple of groups {groups} · size {size}",
            got=str(stop),
        )


def blocks_per_group(
    step: str, shape: Shape, dim: int, groups: int, size: int, stop: int | None
) -> int:
    """Return how many blocks each group has; raise StepError when they are not equally many."""
    length = shape[dim]
    end = length if stop is None else stop
    if end > length:
        raise StepError(
            f"{step}: stop lies beyond the end of dim {dim}",
            expected=f"stop up to {length}",
            got=str(end),
        )
    if end % (groups * size):
        raise StepError(
            f"{step}: dim {dim} is not made up of blocks, equally many of each group",
            expected=f"a multiple of groups {groups} · size {size}",
            got=str(end),
        )
    return end // (groups * size)


def transposed(tensor: Array, grid: Grid) -> Array:
    """Return ``tensor`` with the blocks of ``grid`` in their new order."""
    import numpy as np

    before, behind = tensor.shape[: grid.dim], tensor.shape[grid.dim + 1 :]
    lead = (slice(None),) * grid.dim
    part = tensor[(*lead, slice(0, grid.stop))]
    cells = part.reshape(*before, grid.rows, grid.columns, grid.size, *behind)
    moved = cells.swapaxes(grid.dim, grid.dim + 1).reshape(part.shape)
    if grid.stop == tensor.shape[grid.dim]:
        return moved
    return np.concatenate([moved, tensor[(*lead, slice(grid.stop, None))]], grid.dim)


def transposed_runs(shape: Shape, grid: Grid) -> Runs | None:
    """Return the runs that ``transposed`` moves; None for too many."""
    blocks = grid.rows * grid.columns
    if blocks > MAX_RUNS:
        return None
    sizes = (*(grid.size,) * blocks, shape[grid.dim] - grid.stop)
    order = [
        row * grid.columns + column for column in range(grid.columns) for row in range(grid.rows)
    ]
    return reordered_blocks(shape, grid.dim, sizes, (*order, blocks))
