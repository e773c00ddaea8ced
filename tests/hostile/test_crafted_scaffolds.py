"""Odd but plain files, as scaffold meets them: their names come out as they are, or are refused."""

from pathlib import Path

import pytest
from crafted_files import TAKEN
from test_scaffold import assert_fits, decided, undecided

from converter import api
from converter.errors import PlanError, SourceError

NAMES = [
    "a#b",
    "a:b",
    "-a",
    '"quoted"',
    "'single'",
    "back\\slash",
    "&anchor",
    "!tag",
    "%directive",
    "@at",
    "`tick`",
    "|",
    ">",
    "[list]",
    "null",
    "~",
    "1e5",
    "0x10",
    "010",
    "1:30",
    "on",
    "?",
    "é",
    "名",
    "a,b",
    "..",
    "1.2.3",
    "h..0..w",
    "__metadata",
]


def test_names_that_mean_something_in_yaml_come_out_as_they_are(tmp_path: Path) -> None:
    source = tmp_path / "names.json"
    tensors = ", ".join(f'{_json(name)}: {{"dtype": "F32", "shape": [3]}}' for name in NAMES)
    source.write_text(f"{{{tensors}}}", encoding="utf-8")
    header = api.inspect(source).header
    assert list(header) == NAMES
    text = api.scaffold(source).text
    undecided(text)
    assert_fits(decided(text), header)


def _json(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@pytest.mark.parametrize("name", TAKEN)
def test_an_odd_but_plain_file_is_begun_or_refused(name: str, tmp_path: Path) -> None:
    source = tmp_path / "crafted.safetensors"
    source.write_bytes(TAKEN[name]())
    header = api.inspect(source).header
    if not header or any(" " in tensor for tensor in header):
        with pytest.raises((SourceError, PlanError), match=r"nothing to begin|cannot write"):
            api.scaffold(source)
        return
    text = api.scaffold(source).text
    undecided(text)
    assert_fits(decided(text), header)
