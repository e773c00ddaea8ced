"""Values are read whole, counted right, and in constant memory."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from toy import convert, toy_tensors, write_source

from converter import api
from converter.canonical import METADATA, arrange, encode_header
from converter.describe_values import CHUNK_BYTES
from converter.errors import SourceError
from converter.moments import BLOCK_ELEMENTS
from converter.numpy_dtypes import NUMPY_DTYPES
from converter.spec import DTYPES, TensorSpec


def test_chunks_are_whole_blocks_of_statistics() -> None:
    assert all(
        CHUNK_BYTES % (BLOCK_ELEMENTS * dtype.bits // 8) == 0
        for dtype in DTYPES.values()
        if dtype.bits >= 8
    )


def test_statistics_are_to_the_bit_those_that_a_conversion_writes_down(tmp_path: Path) -> None:
    tensors = toy_tensors()
    large = torch.randn(3, CHUNK_BYTES // 4 + 7)
    tensors["net.embedding"] = torch.randn(6, 4)
    tensors["net.head"] = tensors["net.embedding"].clone()
    made = convert(tmp_path, tensors)
    read = api.inspect(made.out, stats=True, jobs=2).values
    assert read.keys() == {record.name for record in made.manifest.tensors}
    for record in made.manifest.tensors:
        assert (read[record.name].sha256, read[record.name].stats) == (record.sha256, record.stats)
    save_file({"w": large}, tmp_path / "large.safetensors")
    of = api.inspect(tmp_path / "large.safetensors", stats=True).values["w"]
    assert of.stats is not None
    assert of.stats.mean == pytest.approx(large.double().mean().item(), rel=1e-9)
    assert of.stats.std == pytest.approx(large.double().std(correction=0).item(), rel=1e-9)


@pytest.mark.parametrize("dtype", [name for name, dtype in DTYPES.items() if dtype.bits >= 8])
def test_zeros_nan_and_infinity_are_counted_whatever_the_dtype(dtype: str, tmp_path: Path) -> None:
    numpy_dtype = NUMPY_DTYPES[dtype]
    width = numpy_dtype.itemsize
    data = bytes(range(256)) * width + bytes(8 * width)
    if dtype == "BOOL":
        data = bytes(byte & 1 for byte in data)
    path = tmp_path / "w.safetensors"
    spec = TensorSpec(dtype, (len(data) // width,))
    path.write_bytes(encode_header(arrange([("w", spec)]), METADATA) + data)
    of = api.inspect(path, stats=True).values["w"]
    array = np.frombuffer(data, numpy_dtype)
    wide = array.astype(np.complex128 if dtype == "C64" else np.float64)
    nonfinite = int((~np.isfinite(wide)).sum())
    assert (of.zeros, of.nan) == (int((wide == 0).sum()), int(np.isnan(wide).sum()))
    assert of.nonfinite == nonfinite
    assert of.sha256 == hashlib.sha256(data).hexdigest()
    assert (of.stats is None) == (dtype in ("BOOL", "C64"))


def test_both_zeros_are_zeros(tmp_path: Path) -> None:
    arrays = {
        "f32": np.array([0.0, -0.0, 1.0], np.float32),
        "bf16": np.array([0.0, -0.0, 1.0], ml_dtypes.bfloat16),
        "f16": np.array([0.0, -0.0, 1.0], np.float16),
    }
    save_arrays(arrays, tmp_path / "w.safetensors")
    read = api.inspect(tmp_path / "w.safetensors", stats=True).values
    assert {name: of.zeros for name, of in read.items()} == dict.fromkeys(arrays, 2)


def test_one_value_throughout_is_told_from_all_others(tmp_path: Path) -> None:
    size = CHUNK_BYTES // 4 + 3
    last = torch.zeros(size)
    last[-1] = 1
    tensors = {
        "ones": torch.ones(size),
        "last": last,
        "empty": torch.zeros(0),
        "ramp": torch.arange(3),
        "nothing": torch.zeros(5, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "w.safetensors")
    read = api.inspect(tmp_path / "w.safetensors", digests=True).values
    assert {name for name, of in read.items() if of.constant} == {"ones", "nothing"}


def test_digests_alone_count_nothing(tmp_path: Path) -> None:
    read = api.inspect(write_source(tmp_path, toy_tensors()), digests=True).values
    assert len(read) == len(toy_tensors())
    assert all((of.stats, of.zeros, of.nan, of.nonfinite) == (None,) * 4 for of in read.values())


def test_only_what_is_asked_for_is_read_and_progress_is_told_of_each_byte(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    description = api.inspect(
        write_source(tmp_path, toy_tensors()),
        stats=True,
        prefixes=["net.layers.1."],
        progress=lambda done, total: told.append((done, total)),
    )
    assert description.values.keys() == {f"net.layers.1.{leaf}" for leaf in ("qkv", "g", "v")}
    assert sum(done for done, _ in told) == description.nbytes == 4 * (48 + 4 + 16)
    assert {total for _, total in told} == {description.nbytes}


def test_tied_tensors_are_seen_by_their_bytes(tmp_path: Path) -> None:
    facts = api.inspect(write_source(tmp_path, toy_tensors()), digests=True).facts
    (equal,) = [fact for fact in facts if fact.kind == "equal"]
    assert [set(group) for group in equal.groups] == [{"net.embedding", "net.head"}]


def test_a_header_alone_has_no_values(tmp_path: Path) -> None:
    (tmp_path / "header.json").write_text('{"w": {"dtype": "F32", "shape": [1]}}')
    with pytest.raises(SourceError) as caught:
        api.inspect(tmp_path / "header.json", stats=True)
    assert caught.value.findings[0].code == "header-only"


def test_memory_does_not_grow_with_a_tensor(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    spec = TensorSpec("F32", (16 << 20,))
    with path.open("wb") as file:
        file.write(encode_header(arrange([("w", spec)]), METADATA))
        file.truncate(file.tell() + spec.nbytes)
    tracemalloc.start()
    try:
        read = api.inspect(path, stats=True, jobs=1).values["w"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (read.zeros, read.constant) == (16 << 20, True)
    assert peak < 16 << 20 < spec.nbytes
