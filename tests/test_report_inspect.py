"""What inspect shows of a checkpoint, folded, as a tree and flat, and as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from toy import convert, toy_tensors, write_source

from converter import api
from converter.report_inspect import View, of_description


def header(folder: Path, shapes: Mapping[str, list[int]]) -> Path:
    path = folder / "header.json"
    path.write_text(json.dumps({n: {"dtype": "F32", "shape": s} for n, s in shapes.items()}))
    return path


def lines(path: Path, view: View = "folded", **options: Any) -> list[str]:
    return of_description(path, api.inspect(path, **options), view=view).text.splitlines()


def data(path: Path, view: View = "folded", **options: Any) -> Any:
    return json.loads(of_description(path, api.inspect(path, **options), view=view).as_json())[
        "result"
    ]


def words(text: str) -> list[str]:
    return text.split()


LAYERS = {f"layers.{i}.attention.wqkv.weight": [1536, 512] for i in range(24)}


def test_names_are_folded_by_their_indices(tmp_path: Path) -> None:
    path = header(tmp_path, LAYERS)
    assert lines(path) == [
        f"{path}: 24 tensors, 18,874,368 parameters, 75.5 MB F32",
        "",
        "layers.{0..23}.attention.wqkv.weight  [1536, 512]  F32  ×24  75.5 MB",
        "",
        "To be seen:",
        "  fused-qkv  layers.{0..23}.attention.wqkv.weight ×24: 3 × 512 rows of 512",
    ]


def test_a_layer_of_another_shape_is_never_folded_away(tmp_path: Path) -> None:
    path = header(tmp_path, {f"l.{i}.w": [3 if i == 5 else 2] for i in range(9)})
    assert [line.split()[:3] for line in lines(path)[2:]] == [
        ["l.{0..4,6..8}.w", "[2]", "F32"],
        ["l.5.w", "[3]", "F32"],
    ]


def test_a_flat_list_has_a_line_for_each_tensor(tmp_path: Path) -> None:
    rows = lines(header(tmp_path, LAYERS), "flat")[2:-3]
    assert [row.split()[0] for row in rows] == list(LAYERS)


def test_a_tree_shows_what_each_level_comes_to(tmp_path: Path) -> None:
    path = header(tmp_path, LAYERS | {"head.weight": [4, 2], "head.bias": [2]})
    cells = [line.split() for line in lines(path, "tree")[2:6]]
    assert cells == [
        ["├─", *words("layers.{0..23}.attention.wqkv.weight [1536, 512] F32 ×24 75.5 MB")],
        ["└─", "head", "2", "tensors", "40", "B"],
        ["├─", *words("weight [4, 2] F32 32 B")],
        ["└─", *words("bias [2] F32 8 B")],
    ]
    assert data(path, "tree")["prefixes"] == [
        {"prefix": "head.", "tensors": 2, "parameters": 10, "bytes": 40}
    ]


def test_a_narrowed_checkpoint_says_of_how_many(tmp_path: Path) -> None:
    path = header(tmp_path, LAYERS | {"head.weight": [4, 2]})
    assert ": 1 of 25 tensors, 8 parameters, " in lines(path, prefixes=["head."])[0]
    assert data(path, prefixes=["head.", "layers.2"])["totals"]["tensors"] == 6
    assert data(path, prefixes=["head."])["held"] == 25


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (None, ["l.10.w", "l.2.w", "a"]),
        ("name", ["a", "l.2.w", "l.10.w"]),
        ("size", ["l.2.w", "a", "l.10.w"]),
    ],
)
def test_tensors_are_sorted_by_name_or_size(tmp_path: Path, order: Any, names: list[str]) -> None:
    path = header(tmp_path, {"l.10.w": [1], "l.2.w": [9], "a": [5]})
    assert list(data(path, order=order)["tensors"]) == names
    assert [line.split()[0] for line in lines(path, "flat", order=order)[2:]] == names


def test_statistics_have_a_line_for_each_tensor_whatever_the_view(tmp_path: Path) -> None:
    path = write_source(tmp_path, {"l.0.w": torch.tensor([0.0, 3.0]), "l.1.w": torch.ones(2)})
    head, *rows = [line.split() for line in lines(path, stats=True)[3:6]]
    assert head == words("name shape dtype size mean std min max zeros NaN inf")
    assert rows == [
        ["l.0.w", "[2]", "F32", "8", "B", "1.5", "1.5", "0", "3", "1", "0", "0"],
        ["l.1.w", "[2]", "F32", "8", "B", "1", "0", "1", "1", "0", "0", "0"],
    ]
    of = data(path, stats=True)["values"]["l.0.w"]
    assert of["stats"] == {"mean": 1.5, "std": 1.5, "min": 0.0, "max": 3.0, "nonfinite": 0}
    assert (of["zeros"], of["nan"], of["nonfinite"]) == (1, 0, 0)


def test_nan_and_infinity_are_shown_apart(tmp_path: Path) -> None:
    values = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])
    path = write_source(tmp_path, {"w": values})
    assert lines(path, stats=True)[4].split()[-3:] == ["0", "1", "2"]
    assert any("not-finite  w: NaN or infinity" in line for line in lines(path, stats=True))


def test_of_no_finite_value_no_figures_are_shown(tmp_path: Path) -> None:
    path = write_source(tmp_path, {"w": torch.full((3,), float("nan"))})
    row = lines(path, stats=True)[4].split()
    assert row[-7:] == ["–", "–", "–", "–", "0", "3", "0"]


def test_digests_are_shown_when_they_are_asked_for(tmp_path: Path) -> None:
    path = write_source(tmp_path, {"w": torch.ones(2)})
    digest = data(path, digests=True)["values"]["w"]["sha256"]
    assert lines(path, digests=True)[4].endswith(digest)
    with_stats = api.inspect(path, stats=True)
    assert digest not in of_description(path, with_stats).text
    assert digest in of_description(path, with_stats, with_digests=True).text


def test_a_canonical_directory_is_named_with_its_model(tmp_path: Path) -> None:
    out = convert(tmp_path, toy_tensors()).out
    shown = [line.strip() for line in lines(out)]
    assert "canonical               toy: A toy with one of everything" in shown
    assert any(line.startswith("from toy.safetensors, by toy.yaml, checkp") for line in shown)
    assert data(out)["canonical"]["model"] == "toy"
    assert data(tmp_path / "toy.safetensors")["canonical"] is None


def test_a_manifest_that_says_otherwise_is_a_warning(tmp_path: Path) -> None:
    out = convert(tmp_path, toy_tensors()).out
    tensors = {"embedding.weight": torch.zeros(6, 5)}
    save_file(tensors, out / "model.safetensors")
    report = of_description(out, api.inspect(out))
    (finding,) = report.findings
    assert (report.exit_code, finding.severity, finding.code) == (0, "warning", "differs")
    assert (finding.expected, finding.got) == ("F32 [4, 4]", "nothing of this name")
    assert finding.hint == "14 tensors in all; convert verify tells"


def test_a_manifest_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    out = convert(tmp_path, toy_tensors()).out
    (out / "manifest.json").write_text("{}")
    report = of_description(out, api.inspect(out))
    assert [finding.severity for finding in report.findings] == ["warning"]
    assert report.exit_code == 0
    assert data(out)["canonical"] is None
    (out / "manifest.json").unlink()
    (out / "manifest.json").symlink_to(tmp_path / "toy.yaml")
    (finding,) = api.inspect(out).findings
    assert (finding.code, finding.severity) == ("link", "warning")


def test_a_file_of_that_name_beside_other_weights_is_a_strangers(tmp_path: Path) -> None:
    write_source(tmp_path, toy_tensors())
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    description = api.inspect(tmp_path)
    assert (description.canonical, description.findings) == (None, ())


def test_many_files_are_counted(tmp_path: Path) -> None:
    weight_map = {}
    for number in range(20):
        name = f"model-{number + 1:05d}-of-00020.safetensors"
        save_file({f"w.{number}": torch.zeros(2)}, tmp_path / name)
        weight_map[f"w.{number}"] = name
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    shown = lines(index)
    assert any("20, model-00001-of-00020.safetensors to model-00020" in line for line in shown)
    assert len(data(index)["files"]) == 20


def test_pairs_that_do_not_fold_are_shown_one_by_one_up_to_some(tmp_path: Path) -> None:
    shapes: dict[str, list[int]] = {}
    for word in "abcdefghi":
        shapes |= {f"{word}.weight_g": [2, 1], f"{word}.weight_v": [2, 3]}
    shown = [line for line in lines(header(tmp_path, shapes)) if "magnitude" in line]
    assert shown[0] == "  weight-norm  a.weight_g, weight_v: magnitude along dim 0 and direction"
    assert shown[-1].endswith("and 3 more patterns: magnitude along dim 0 and direction")
    assert len(shown) == 7


def test_nothing_that_a_stranger_wrote_can_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "evil\x1b[31m.safetensors"
    metadata = {"key": "a\nfile fake  1 B\x1b[2J\u202e"}
    save_file({"w": torch.zeros(2), "b.c": torch.zeros(2)}, path, metadata=metadata)
    views: tuple[View, ...] = ("folded", "tree", "flat")
    for view in views:
        text = of_description(path, api.inspect(path), view=view).text
        assert all(char.isprintable() or char == "\n" for char in text)
        assert len(text.splitlines()) == 6
