"""Dims and shapes: what the steps that only move elements have in common."""

from __future__ import annotations

from collections.abc import Sequence

from converter.errors import RuleError, StepError
from converter.spec import DTYPES, Shape, TensorSpec
from converter.steps.step import Shapes

# More than a header can name: see converter.header.
MAX_TENSORS = 1 << 20


def shape_text(shape: Shape) -> str:
    """Return a shape as messages spell it.

    >>> shape_text((2, 3))
    '[2, 3]'
    """
    return str(list(shape))


def refuse_negative_dims(step: str, *dims: int) -> None:
    """Raise RuleError when one of ``dims`` is negative."""
    for dim in dims:
        if dim < 0:
            raise RuleError(
                f"{step}: a negative dim",
                expected="0 or more",
                got=str(dim),
                hint="count dims from the front: the last of three is 2",
            )


def require_listable(step: str, count: int) -> None:
    """Raise StepError for more tensors than any checkpoint has, before they are listed."""
    if count > MAX_TENSORS:
        raise StepError(
            f"{step}: too many tensors", expected=f"at most {MAX_TENSORS:,}", got=f"{count:,}"
        )


def require_permutation(step: str, field: str, order: Sequence[int]) -> None:
    """Raise RuleError unless ``order`` holds each of 0, 1, … exactly once."""
    if not order or sorted(order) != list(range(len(order))):
        raise RuleError(
            f"{step}: {field} is not a permutation",
            expected="each of 0, 1, … n-1 exactly once",
            got=str(list(order)),
        )


def inverse_permutation(order: Sequence[int]) -> tuple[int, ...]:
    """Return the permutation that undoes ``order``.

    >>> inverse_permutation((2, 0, 1))
    (1, 2, 0)
    """
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def require_dim(step: str, dim: int, shape: Shape) -> None:
    """Raise StepError when a tensor of ``shape`` has no ``dim``."""
    if dim >= len(shape):
        raise StepError(
            f"{step}: no dim {dim}",
            expected=f"a tensor of at least {dim + 1} dims",
            got=shape_text(shape),
        )


def require_place(step: str, dim: int, shape: Shape) -> None:
    """Raise StepError when a tensor of ``shape`` has no place for a new ``dim``."""
    if dim > len(shape):
        raise StepError(
            f"{step}: no place for a new dim {dim}",
            expected=f"a tensor of at least {dim} dims",
            got=shape_text(shape),
        )


def require_whole_bytes(step: str, spec: TensorSpec) -> None:
    """Raise StepError when elements of this dtype cannot be moved one by one."""
    if DTYPES[spec.dtype].bits % 8:
        raise StepError(
            f"{step}: elements of {spec.dtype} are smaller than a byte and cannot be moved",
            expected="a dtype of whole bytes",
            got=str(spec),
        )


def movable(step: str, dim: int, spec: TensorSpec) -> int:
    """Return the size of ``dim``; raise StepError unless its elements can be moved along it."""
    require_whole_bytes(step, spec)
    require_dim(step, dim, spec.shape)
    return spec.shape[dim]


def require_count(step: str, expected: int, outputs: Shapes) -> None:
    """Raise StepError unless there are ``expected`` outputs."""
    if len(outputs) != expected:
        raise StepError(
            f"{step}: {expected} outputs are made",
            expected=f"{expected} outputs",
            got=f"{len(outputs)}",
        )


def chunk_size(step: str, dim: int, size: int, chunks: int) -> int:
    """Return the size of each of ``chunks`` equal parts of ``dim``; raise StepError if none is."""
    if size % chunks:
        raise StepError(
            f"{step}: dim {dim} does not divide into {chunks} equal chunks",
            expected=f"a multiple of {chunks}",
            got=str(size),
        )
    return size // chunks


def with_size(shape: Shape, dim: int, size: int) -> Shape:
    """Return ``shape`` with ``dim`` of another size."""
    return (*shape[:dim], size, *shape[dim + 1 :])


def with_dim(shape: Shape, dim: int, size: int) -> Shape:
    """Return ``shape`` with a new dim of ``size`` put in at ``dim``."""
    return (*shape[:dim], size, *shape[dim:])


def without_dim(shape: Shape, dim: int) -> Shape:
    """Return ``shape`` with ``dim`` taken out."""
    return (*shape[:dim], *shape[dim + 1 :])


def concatenated(step: str, dim: int, shapes: Shapes) -> Shape:
    """Return the shape of tensors laid end to end along ``dim``.

    Raises StepError when there are none, or when they differ along another dim.
    """
    if not shapes:
        raise StepError(f"{step}: no tensors", expected="at least one", got="none")
    first = shapes[0]
    for number, shape in enumerate(shapes):
        require_dim(step, dim, shape)
        if without_dim(shape, dim) != without_dim(first, dim):
            raise StepError(
                f"{step}: tensors 0 and {number} differ along a dim other than {dim}",
                expected=shape_text(with_size(first, dim, shape[dim])),
                got=shape_text(shape),
            )
    return with_size(first, dim, sum(shape[dim] for shape in shapes))


def common_shape(step: str, shapes: Shapes) -> Shape:
    """Return the one shape of all ``shapes``; raise StepError when there are none or several."""
    if not shapes:
        raise StepError(f"{step}: no tensors", expected="at least one", got="none")
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise StepError(
                f"{step}: tensors 0 and {number} differ in shape",
                expected=shape_text(shapes[0]),
                got=shape_text(shape),
            )
    return shapes[0]


def common_dtype(step: str, specs: Sequence[TensorSpec]) -> str:
    """Return the one dtype of ``specs``, at least one; raise StepError when there are several."""
    for number, spec in enumerate(specs):
        if spec.dtype != specs[0].dtype:
            raise StepError(
                f"{step}: tensors 0 and {number} differ in dtype",
                expected=specs[0].dtype,
                got=spec.dtype,
                hint="cast them to one dtype first",
            )
    return specs[0].dtype
