"""Tensors of any strides come out row by row, from files and in tiles of any size."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import pickle_copy
from converter.pickle_copy import copy, is_contiguous
from converter.pickle_select import Piece
from converter.positional import ReadBuffer
from converter.source.regular_file import RegularFile
from converter.spec import TensorSpec
from converter.torch_dtypes import SAFETENSORS_DTYPES


def copied(path: Path, tensor: torch.Tensor) -> bytes:
    """Copy a view of what lies in a file, and return its bytes; no byte is written twice."""
    spec = TensorSpec(SAFETENSORS_DTYPES[tensor.dtype], tuple(tensor.shape))
    begin = int(tensor.storage_offset()) * tensor.itemsize
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    end = begin + (reach + 1) * tensor.itemsize
    piece = Piece("a", spec, tuple(tensor.stride()), 0, begin, end)
    target = bytearray(spec.nbytes)
    written: set[int] = set()

    def write(position: int, data: ReadBuffer) -> None:
        size = memoryview(data).nbytes
        taken = range(position, position + size)
        assert written.isdisjoint(taken)
        written.update(taken)
        target[position : position + size] = data

    file = RegularFile(path)
    try:
        assert sum(copy(file, piece, write)) == spec.nbytes
    finally:
        file.close()
    return bytes(target)


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """Return a view that torch makes by slicing and permuting."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    dtype = draw(st.sampled_from([torch.uint8, torch.int16, torch.float32, torch.complex64]))
    count = 1
    for n in shape:
        count *= n
    tensor = torch.arange(count).to(dtype).reshape(shape)
    for dim, n in enumerate(shape):
        begin = draw(st.integers(0, n - 1))
        tensor = tensor.narrow(dim, begin, n - begin)
        step = draw(st.integers(1, 3))
        tensor = tensor[(slice(None),) * dim + (slice(None, None, step),)]
    return tensor.permute(draw(st.permutations(range(len(shape)))))


@settings(max_examples=200, deadline=None)
@given(views(), st.integers(1, 64), st.sampled_from([0, 8, 64]), st.sampled_from([1, 4]))
def test_any_view_is_copied_as_torch_would(
    tmp_path_factory: pytest.TempPathFactory, view: torch.Tensor, tile: int, part: int, waste: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "values"
    path.write_bytes(bytes(view.untyped_storage()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickle_copy, "TILE_BYTES", tile * view.itemsize)
        patch.setattr(pickle_copy, "PART_BYTES", part)
        patch.setattr(pickle_copy, "WASTE", waste)
        patch.setattr(pickle_copy, "BLOCK_BYTES", 16)
        whole = view.clone(memory_format=torch.contiguous_format)
        assert copied(path, view) == bytes(whole.untyped_storage())


def test_a_large_transposed_matrix_is_copied_in_tiles(tmp_path: Path) -> None:
    matrix = torch.arange(3000 * 2100, dtype=torch.int32).reshape(3000, 2100)
    (tmp_path / "values").write_bytes(matrix.numpy().tobytes())
    assert matrix.nbytes > pickle_copy.TILE_BYTES
    file = RegularFile(tmp_path / "values")
    view = matrix.t()
    spec = TensorSpec("I32", tuple(view.shape))
    piece = Piece("a", spec, tuple(view.stride()), 0, 0, matrix.nbytes)
    target = bytearray(matrix.nbytes)

    def write(position: int, data: ReadBuffer) -> None:
        target[position : position + memoryview(data).nbytes] = data

    try:
        steps = list(copy(file, piece, write))
    finally:
        file.close()
    assert len(steps) > 1
    assert bytes(target) == view.contiguous().numpy().tobytes()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 4), (4, 1), (2, 1, 3), (0, 2)])
def test_contiguous_is_what_torch_says(shape: tuple[int, ...]) -> None:
    tensor = torch.zeros(shape)
    for order in itertools.permutations(range(len(shape))):
        view = tensor.permute(order)
        if view.numel():
            assert is_contiguous(tuple(view.shape), tuple(view.stride())) == view.is_contiguous()
