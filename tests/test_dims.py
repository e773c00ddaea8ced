from pathlib import Path

import pytest
from tiny_rules import finding_of

from converter.dims import read_dims
from converter.errors import UsageError
from converter.finding import Finding
from converter.manifest import Dim


def refusal(*assignments: str, path: Path | None = None) -> Finding:
    with pytest.raises(UsageError) as caught:
        read_dims(path, assignments)
    return finding_of(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("layers=5", 5),
        (" layers = 5 ", 5),
        ("layers=0", 0),
        ("layers=4,2,2", [4, 2, 2]),
        ("layers=4, 2", [4, 2]),
        ("layers=4,", [4]),
        ("layers=[4]", [4]),
        ("layers=[]", []),
        ("layers=[[1, 3, 5], [2]]", [[1, 3, 5], [2]]),
    ],
)
def test_a_dim_is_a_number_or_a_list(text: str, value: Dim) -> None:
    assert read_dims(None, [text]) == {"layers": value}


@pytest.mark.parametrize("text", ["layers", "=5", " = 5", ""])
def test_what_assigns_nothing_is_refused(text: str) -> None:
    finding = refusal(text)
    assert finding.expected == "DIM=VALUE such as layers=5"
    assert finding.got == text


@pytest.mark.parametrize(
    "value",
    [
        *("", "x", "-1", "1.5", "1e3", "010", "1_000", "5 000", ",", "4,,2", "4,x", "true", "٣"),
        *("[1, -1]", "[1.0]", "[true]", '["1"]', "[1", "[null]", "{}", "9" * 19),
    ],
)
def test_what_is_no_dim_is_refused_by_name(value: str) -> None:
    finding = refusal(f"layers={value}")
    assert finding.what == "a dim is a whole number, or a list of them"
    assert finding.where == "--set layers"
    assert finding.expected == "0 or more: 5, or 4,2,2, or [[1, 3], [5]]"


def test_dims_of_a_file_come_before_those_that_are_assigned(tmp_path: Path) -> None:
    path = tmp_path / "dims.yaml"
    path.write_text("layers: 5\nrates: [4, 2]  # of the small one\n")
    assert read_dims(path, ["layers=6"]) == {"layers": 6, "rates": [4, 2]}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("layers: 5\nhidden: 1.5", 2, "a dim is a whole number, or a list of them"),
        ("layers: 5\nhidden: -1", 2, "a dim is a whole number, or a list of them"),
        ("layers: 5\nhidden: [1, x]", 2, "a dim is a whole number, or a list of them"),
        ("layers: 5\nlayers: 6", 2, "the key 'layers' stands twice"),
        ("layers: 010", 1, "'010' is read differently by different YAML versions"),
    ],
)
def test_what_is_wrong_in_a_file_of_dims_is_refused_where_it_stands(
    tmp_path: Path, text: str, line: int, what: str
) -> None:
    path = tmp_path / "dims.yaml"
    path.write_text(text)
    finding = refusal(path=path)
    assert finding.what == what
    assert finding.where == f"{path}:{line}"


def test_a_file_of_dims_is_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "dims.yaml"
    path.write_text("- 5")
    assert refusal(path=path).what == "not a mapping of dims"


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_file_of_dims_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    assert refusal(path=tmp_path / name).what.startswith("cannot be read: ")
