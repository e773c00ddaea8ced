import json
from pathlib import Path

import pytest

from converter.errors import SourceError
from converter.source import SourceFile, open_source
from converter.spec import TensorSpec


def test_a_snapshot_gives_names_dtypes_and_shapes(tmp_path: Path) -> None:
    path = tmp_path / "s2mel.pth.json"
    path.write_text('{"b": {"dtype": "F32", "shape": [2, 3]}, "a": {"dtype": "I64", "shape": []}}')
    with open_source(path) as source:
        assert source.header == {"b": TensorSpec("F32", (2, 3)), "a": TensorSpec("I64", ())}
        assert list(source.header) == ["b", "a"]
        assert source.files == ()
        assert source.metadata == {}
        source.check_unchanged()


def test_a_snapshot_has_no_values(tmp_path: Path) -> None:
    path = tmp_path / "header.json"
    path.write_text('{"a": {"dtype": "F32", "shape": []}}')
    with open_source(path) as source:
        for read in (lambda: source.read("a"), lambda: source.read_into("a", bytearray(4))):
            with pytest.raises(SourceError, match="a header alone has no values"):
                read()
        with pytest.raises(ValueError, match="not of this checkpoint"):
            source.sha256(SourceFile("header.json", path, 1))


@pytest.mark.parametrize(
    "document",
    [
        [],
        None,
        {"note": "…", "tensors": {}},
        {"a": {"dtype": "F32"}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "float32", "shape": [1]}},
        {"a": {"dtype": "F32", "shape": [-1]}},
        {"a": {"dtype": "F32", "shape": [1.0]}},
        {"a\u202e": {"dtype": "F32", "shape": [1]}},
        {"__metadata__": {"dtype": "F32", "shape": [1]}},
        {"": {"dtype": "F32", "shape": [1]}},
    ],
)
def test_what_is_no_header_is_refused(tmp_path: Path, document: object) -> None:
    path = tmp_path / "header.json"
    path.write_text(json.dumps(document))
    with pytest.raises(SourceError) as caught:
        open_source(path)
    (finding,) = caught.value.findings
    assert finding.code == "header"
    assert finding.where == str(path)
    assert finding.expected


def test_a_json_file_beyond_all_measure_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "header.json"
    with path.open("wb") as file:
        file.truncate(100_000_001)
    with pytest.raises(SourceError, match="too large"):
        open_source(path)
