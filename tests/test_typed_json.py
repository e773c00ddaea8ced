import pytest

from converter import typed_json
from converter.typed_json import (
    Reader,
    WrongJsonError,
    mapping,
    one_of,
    record,
    sequence,
    size,
    text,
)

DIGEST = "0123456789abcdef" * 4

READERS: dict[str, Reader] = {
    "text": typed_json.text,
    "size": typed_json.size,
    "real": typed_json.real,
    "sha256": typed_json.sha256,
    "scalar": typed_json.scalar,
    "word": one_of(("yes", "no")),
    "sequence": sequence(size),
    "mapping": mapping(size),
    "members": typed_json.members,
    "record": record(dict, optional=("b",), a=size, b=text),
}


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        ("text", ""),
        ("size", 0),
        ("size", 1 << 60),
        ("real", -1.5),
        ("sha256", DIGEST),
        ("scalar", None),
        ("scalar", True),
        ("scalar", "x"),
        ("scalar", 1e-5),
        ("word", "yes"),
        ("mapping", {"a": 1}),
        ("members", {"a": []}),
        ("record", {"a": 1}),
        ("record", {"b": "x", "a": 1}),
    ],
)
def test_what_is_right_is_returned(reader: str, value: object) -> None:
    assert READERS[reader](value) == value


def test_a_list_becomes_a_tuple() -> None:
    assert sequence(size)([1, 2]) == (1, 2)


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        ("text", 1),
        ("text", None),
        ("size", -1),
        ("size", True),
        ("size", 1.0),
        ("size", "1"),
        ("real", 1),
        ("real", "1.0"),
        ("sha256", DIGEST.upper()),
        ("sha256", DIGEST[1:]),
        ("sha256", DIGEST + "\n"),
        ("sha256", 5),
        ("scalar", []),
        ("scalar", {}),
        ("word", "maybe"),
        ("word", ["yes"]),
        ("sequence", {"0": 1}),
        ("sequence", "12"),
        ("mapping", [1]),
        ("members", None),
        ("record", {}),
        ("record", {"a": 1, "c": 2}),
        ("record", []),
    ],
)
def test_what_is_wrong_is_refused(reader: str, value: object) -> None:
    with pytest.raises(WrongJsonError):
        READERS[reader](value)


def test_an_error_leads_to_the_value_that_is_wrong() -> None:
    reader: Reader = mapping(record(dict, sizes=sequence(size)))
    with pytest.raises(WrongJsonError) as caught:
        reader({"w": {"sizes": [1, 2]}, "x": {"sizes": [1, "2"]}})
    assert caught.value.path == ["x", "sizes", "1"]
    assert (caught.value.expected, caught.value.got) == ("an integer from 0 on", "'2'")


def test_a_value_that_is_long_is_cut_in_the_error() -> None:
    with pytest.raises(WrongJsonError) as caught:
        size("x" * 1000)
    assert len(caught.value.got) <= 60


def test_a_record_is_made_by_name() -> None:
    assert record(lambda *, a, b=7: (a, b), optional=("b",), a=size, b=size)({"a": 1}) == (1, 7)
