import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import canonical
from converter.canonical import NamedSpec
from converter.errors import ExecutionError, UsageError
from converter.header import parse_header
from converter.spec import TensorSpec

NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U8": "|u1", "BOOL": "|b1"}

specs = st.builds(
    TensorSpec,
    st.sampled_from(sorted(NUMPY)),
    st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 64]), max_size=3).map(tuple),
)
names = st.from_regex(canonical.TENSOR_NAME, fullmatch=True).map(lambda name: name[:40])
named_specs = st.dictionaries(names, specs, max_size=12).map(lambda tensors: list(tensors.items()))


def lowest_bit(number: int) -> int:
    return number & -number


@settings(deadline=None)
@given(named_specs)
def test_tensors_tile_the_data_and_each_starts_aligned(tensors: list[NamedSpec]) -> None:
    placements = canonical.arrange(tensors)
    assert sorted((tensor.name, tensor.spec) for tensor in placements) == sorted(tensors)
    position = 0
    for tensor in placements:
        assert tensor.begin == position
        assert tensor.end - tensor.begin == tensor.spec.nbytes
        if tensor.spec.nbytes:
            assert tensor.begin % min(256, lowest_bit(tensor.spec.nbytes)) == 0
        position = tensor.end


@settings(deadline=None)
@given(named_specs)
def test_tensors_of_256_byte_multiples_come_first_and_keep_their_order(
    tensors: list[NamedSpec],
) -> None:
    whole = [name for name, spec in tensors if spec.nbytes and spec.nbytes % 256 == 0]
    assert [tensor.name for tensor in canonical.arrange(tensors)][: len(whole)] == whole


@settings(deadline=None)
@given(named_specs)
def test_a_header_is_read_back_as_it_was_written(tensors: list[NamedSpec]) -> None:
    placements = canonical.arrange(tensors)
    header = canonical.encode_header(placements)
    data_bytes = sum(spec.nbytes for _, spec in tensors)
    parsed = parse_header(header, len(header) + data_bytes, where="x")
    assert parsed.data_start == len(header)
    assert parsed.data_start % 4096 == 0
    assert parsed.metadata == {"format": "pt", "canonical": "1"}
    assert parsed.tensors == placements


@settings(deadline=None)
@given(tensors=named_specs, seed=st.integers(0, 2**32 - 1))
def test_every_reader_reads_equal_tensors(
    tmp_path_factory: pytest.TempPathFactory, tensors: list[NamedSpec], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    values = {
        name: generator.integers(0, 2, spec.shape).astype(NUMPY[spec.dtype])
        for name, spec in tensors
    }
    placements = canonical.arrange(tensors)
    data = b"".join(values[tensor.name].tobytes() for tensor in placements)
    path = tmp_path_factory.getbasetemp() / canonical.WEIGHTS_NAME
    path.write_bytes(canonical.encode_header(placements) + data)
    loaded = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="np") as opened:
        assert opened.metadata() == canonical.METADATA
        assert set(opened.keys()) == set(loaded) == set(values)
        for name, value in values.items():
            for read in (loaded[name], opened.get_tensor(name)):
                assert read.dtype == value.dtype
                np.testing.assert_array_equal(read, value)


@settings(deadline=None)
@given(tensors=named_specs, limit=st.integers(1, 5000))
def test_shards_keep_the_order_and_the_limit(tensors: list[NamedSpec], limit: int) -> None:
    shards = canonical.partition(tensors, limit)
    assert [tensor for shard in shards for tensor in shard] == tensors
    for shard in shards:
        data_bytes = sum(spec.nbytes for _, spec in shard)
        assert data_bytes <= limit or len(shard) == 1
    assert canonical.partition(tensors, None) == (tuple(tensors),)


def test_a_tensor_above_the_limit_gets_a_shard_of_its_own() -> None:
    small, large = TensorSpec("U8", (4,)), TensorSpec("U8", (100,))
    tensors = [("a", small), ("b", small), ("c", large), ("d", small)]
    shards = canonical.partition(tensors, 10)
    assert [[name for name, _ in shard] for shard in shards] == [["a", "b"], ["c"], ["d"]]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5_000_000_000),
        ("5GiB", 5 << 30),
        ("500 MB", 500_000_000),
        ("40kB", 40_000),
        ("64KiB", 65536),
        ("1TB", 10**12),
        ("12B", 12),
        ("4096", 4096),
    ],
)
def test_a_size_is_read_in_decimal_and_binary_units(text: str, size: int) -> None:
    assert canonical.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "0", "0GB", "-1GB", "1.5GB", "5gb", "5 Gi", "1e9", "٣GB"]
)
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="a size such as 5GB"):
        canonical.parse_size(text)


def test_a_header_that_no_reader_accepts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "MAX_HEADER_BYTES", 4096)
    tensors = [(f"tensor.{number}", TensorSpec("F32", (1,))) for number in range(100)]
    with pytest.raises(ExecutionError, match="--max-shard-size"):
        canonical.encode_header(canonical.arrange(tensors))


def test_the_index_is_the_one_that_transformers_writes() -> None:
    first = canonical.arrange([("b", TensorSpec("F32", (2, 3)))])
    second = canonical.arrange([("a", TensorSpec("I64", ()))])
    names = canonical.shard_name(1, 2), canonical.shard_name(2, 2)
    text = canonical.encode_index(dict(zip(names, (first, second), strict=True)))
    assert names == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert json.loads(text) == {
        "metadata": {"total_size": 32},
        "weight_map": {"a": names[1], "b": names[0]},
    }
    assert text == canonical.encode_index({names[1]: second, names[0]: first})


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
def test_the_sums_satisfy_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "abc").write_bytes(b"abc")
    sums = canonical.encode_sums(
        {
            "empty": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        }
    )
    (tmp_path / canonical.SUMS_NAME).write_bytes(sums)
    check = ["sha256sum", "--strict", "--check", canonical.SUMS_NAME]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "abc: OK\nempty: OK\n"


def test_names_of_canonical_files_are_told_from_others() -> None:
    ours = [
        canonical.WEIGHTS_NAME,
        canonical.shard_name(1, 3),
        canonical.shard_name(123456, 123456),
        canonical.INDEX_NAME,
        canonical.MANIFEST_NAME,
        canonical.SUMS_NAME,
        canonical.SIGNATURE_NAME,
    ]
    assert all(canonical.FILE_NAME.fullmatch(name) for name in ours)
    others = ["README.md", "model-1-of-2.safetensors", "a.safetensors", "manifest.json~", ""]
    assert not any(canonical.FILE_NAME.fullmatch(name) for name in others)


def test_a_scalar_counts_one_element() -> None:
    (tensor,) = canonical.arrange([("scalar", TensorSpec("F32", ()))])
    assert (tensor.begin, tensor.end) == (0, 4)
    assert tensor.spec.numel == math.prod(())
