from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy import convert, toy_tensors

from converter import manifest as manifests
from converter.errors import ConverterError, MismatchError, SourceError
from converter.layout import layouts
from converter.manifest import FileRecord, Manifest

HERE = Path("somewhere")


@pytest.fixture(scope="module", params=["1GB", "200B"], ids=["one file", "shards"])
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    convert(folder, toy_tensors(), max_shard_size=request.param)
    return folder / "out"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return convert(tmp_path_factory.mktemp("toy"), toy_tensors(), max_shard_size="200B").manifest


def read(directory: Path) -> Manifest:
    return manifests.load((directory / "manifest.json").read_bytes())


def with_tensor(manifest: Manifest, number: int, **changes: Any) -> Manifest:
    tensors = list(manifest.tensors)
    tensors[number] = replace(tensors[number], **changes)
    return replace(manifest, tensors=tuple(tensors))


def with_file(manifest: Manifest, number: int, **changes: Any) -> Manifest:
    files = list(manifest.files)
    files[number] = replace(files[number], **changes)
    return replace(manifest, files=tuple(files))


def refusal(manifest: Manifest) -> ConverterError:
    with pytest.raises(ConverterError) as caught:
        layouts(manifest, HERE)
    return caught.value


def test_the_manifest_determines_every_file_but_its_values(converted: Path) -> None:
    for layout in layouts(read(converted), converted):
        data = (converted / layout.name).read_bytes()
        assert len(data) == layout.size
        assert data.startswith(layout.header)
        assert [item.name for item in layout.placements] == [item.name for item in layout.tensors]


def test_files_come_in_the_order_of_shards(manifest: Manifest) -> None:
    names = [layout.name for layout in layouts(manifest, HERE)]
    assert names == sorted(names)
    shuffled = replace(manifest, files=manifest.files[::-1])
    assert [layout.name for layout in layouts(shuffled, HERE)] == names


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: replace(manifest, files=manifest.files[1:]),
        lambda manifest: with_file(manifest, 0, name="model.safetensors"),
        lambda manifest: with_file(manifest, 0, name="../model.safetensors"),
        lambda manifest: replace(manifest, files=()),
    ],
    ids=["one shard fewer", "another name", "another folder", "none"],
)
def test_files_that_are_not_those_of_a_conversion_are_refused(
    manifest: Manifest, change: Callable[[Manifest], Manifest]
) -> None:
    error = refusal(change(manifest))
    assert isinstance(error, SourceError)
    assert error.findings[0].where == str(HERE / "manifest.json")


@pytest.mark.parametrize("name", ["", "a b", "__metadata__", "../x", "é", "a" * 513, '"', "a\n"])
def test_a_name_that_no_canonical_file_has_is_refused(manifest: Manifest, name: str) -> None:
    assert isinstance(refusal(with_tensor(manifest, 0, name=name)), SourceError)
    assert isinstance(refusal(replace(manifest, aliases={name: "mask"})), SourceError)


@pytest.mark.parametrize(
    "aliases", [{"a": "absent"}, {"mask": "nothing"}, {"a": "b", "b": "mask"}], ids=str
)
def test_an_alias_stands_for_a_tensor_that_is_stored(
    manifest: Manifest, aliases: dict[str, str]
) -> None:
    error = refusal(replace(manifest, aliases=aliases))
    assert isinstance(error, SourceError)
    assert "not an alias" in error.findings[0].what


def test_all_that_is_wrong_with_names_is_told_at_once(manifest: Manifest) -> None:
    wrong = with_tensor(with_tensor(manifest, 0, file="elsewhere"), -1, name="a b")
    assert len(refusal(wrong).findings) == 2


@pytest.mark.parametrize("field", ["offset", "size"])
def test_a_place_that_does_not_follow_is_a_mismatch(manifest: Manifest, field: str) -> None:
    record = manifest.tensors[0]
    error = refusal(with_tensor(manifest, 0, **{field: getattr(record, field) + 4}))
    assert isinstance(error, MismatchError)
    assert any(
        finding.tensor == record.name and finding.what.startswith(field)
        for finding in error.findings
    )


@pytest.mark.parametrize("changes", [{"size": 5}, {"header_sha256": "0" * 64}], ids=str)
def test_a_file_that_does_not_follow_is_a_mismatch(
    manifest: Manifest, changes: dict[str, Any]
) -> None:
    error = refusal(with_file(manifest, 0, **changes))
    assert isinstance(error, MismatchError)
    (finding,) = error.findings
    assert finding.what.startswith(next(iter(changes)))
    assert finding.where == str(HERE / manifest.files[0].name)


@pytest.mark.parametrize("shape", [(1 << 60, 1 << 60), (2,) * 9, (1 << 49,)], ids=str)
def test_a_shape_that_no_tensor_has_is_refused(manifest: Manifest, shape: tuple[int, ...]) -> None:
    assert isinstance(refusal(with_tensor(manifest, 0, shape=shape)), SourceError)


def test_a_file_without_header_is_no_weights_file(manifest: Manifest) -> None:
    index = FileRecord("model.safetensors.index.json", 1, "0" * 64)
    only = replace(manifest, files=(index,))
    assert refusal(only).findings[0].got == "no weights file"
