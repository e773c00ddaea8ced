import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toy import toy_tensors, write_source

from converter import api
from converter.describe import Description

HEADERS = sorted((Path(__file__).parent / "headers").glob("*.json"))


def described(folder: Path, shapes: dict[str, tuple[str, list[int]]]) -> Description:
    path = folder / "header.json"
    header = {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in shapes.items()}
    path.write_text(json.dumps(header))
    return api.inspect(path)


def test_names_that_differ_in_numbers_share_a_row(tmp_path: Path) -> None:
    rows = described(tmp_path, {f"layers.{i}.w": ("F32", [2]) for i in range(12)}).rows
    assert [(row.pattern, len(row.names), row.nbytes) for row in rows] == [
        ("layers.{0..11}.w", 12, 96)
    ]


def test_a_hole_in_the_numbers_is_seen(tmp_path: Path) -> None:
    rows = described(tmp_path, {f"layers.{i}.w": ("F32", [2]) for i in (0, 1, 3)}).rows
    assert [row.pattern for row in rows] == ["layers.{0..1,3}.w"]


def test_another_shape_or_dtype_has_a_row_of_its_own(tmp_path: Path) -> None:
    shapes = {"w.0": ("F32", [2]), "w.1": ("F32", [3]), "w.2": ("F16", [2]), "w.3": ("F32", [2])}
    rows = described(tmp_path, shapes).rows
    assert [(row.pattern, str(row.spec)) for row in rows] == [
        ("w.{0,3}", "F32 [2]"),
        ("w.1", "F32 [3]"),
        ("w.2", "F16 [2]"),
    ]


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.stem)
def test_every_name_of_a_real_header_is_in_one_row(header: Path) -> None:
    description = api.inspect(header)
    names = [name for row in description.rows for name in row.names]
    assert sorted(names) == sorted(description.header)
    assert sum(row.nbytes for row in description.rows) == description.nbytes
    assert len(description.rows) <= len(names)


def test_sums_are_over_all_tensors_and_the_commonest_dtype_comes_first(tmp_path: Path) -> None:
    shapes = {"a": ("I64", [2]), "b": ("F32", [2, 3]), "c": ("F32", []), "d": ("F16", [0])}
    description = described(tmp_path, shapes)
    assert (description.parameters, description.nbytes) == (9, 16 + 24 + 4)
    assert list(description.dtypes.items()) == [("F32", 2), ("I64", 1), ("F16", 1)]


def test_files_and_metadata_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.zeros(2)}, path, metadata={"format": "pt", "epoch": "3"})
    description = api.inspect(path)
    assert [(file.name, file.size_bytes) for file in description.files] == [
        (path.name, path.stat().st_size)
    ]
    assert description.metadata == {"format": "pt", "epoch": "3"}


def test_a_folder_an_index_and_its_shards_are_one_checkpoint(tmp_path: Path) -> None:
    whole = api.inspect(write_source(tmp_path, toy_tensors()))
    parts = tmp_path / "parts"
    parts.mkdir()
    weight_map = {name: f"{name[-1]}.safetensors" for name in toy_tensors()}
    for file in set(weight_map.values()):
        part = {name: t for name, t in toy_tensors().items() if weight_map[name] == file}
        save_file(part, parts / file)
    index = parts / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    for source in (parts, index):
        description = api.inspect(source)
        assert description.header == whole.header
        assert [file.name for file in description.files] == sorted(set(weight_map.values()))


def test_an_empty_checkpoint_has_no_rows(tmp_path: Path) -> None:
    description = described(tmp_path, {})
    assert (description.rows, description.parameters, description.dtypes) == ((), 0, {})
