import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converter import manifest as manifests
from converter import resources
from converter.errors import SourceError
from converter.finding import Finding
from converter.manifest import (
    DropRecord,
    FileRecord,
    Manifest,
    ModelRecord,
    RulesRecord,
    StandInRecord,
    Statistics,
    TensorRecord,
    ToolRecord,
    Totals,
)
from converter.spec import DTYPES, TensorSpec

DIGEST = "0123456789abcdef" * 4

MANIFEST = Manifest(
    tool=ToolRecord("checkpoint-converter", "0.1.0", "2.10.0"),
    model=ModelRecord(
        "toy",
        "Ein Spielzeug – für Tests",
        "nowhere",
        ("a",),
        {"n": [1, [2]]},
        {"x": 1e-5},
        {"y": None},
    ),
    rules=RulesRecord("toy.yaml", DIGEST, {"dtype": "BF16"}),
    sources=(FileRecord("in.safetensors", 10, DIGEST),),
    files=(FileRecord("model.safetensors", 4096, DIGEST, DIGEST),),
    tensors=(
        TensorRecord(
            "w",
            "model.safetensors",
            "F32",
            (2, 3),
            4096,
            24,
            DIGEST,
            (),
            ("x",),
            (TensorSpec("F32", (3, 3)),),
            ({"split": {"dim": 0, "sizes": [1, 2]}},),
            Statistics(0.5, 1.0, -1.0, 2.0),
        ),
        TensorRecord("mask", "model.safetensors", "BOOL", (), 4120, 1, DIGEST),
    ),
    aliases={"v": "w"},
    dropped=(
        DropRecord("positions", "I64", (1, 4), "a ramp", "arange"),
        DropRecord("junk", "F32", (), "never read"),
    ),
    stand_ins=(StandInRecord("b", "zeros", ("c", "d")),),
    out_of_scope=3,
    totals=Totals(2, 7, 25),
    content_sha256=DIGEST,
)


def refusal(document: object) -> Finding:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(SourceError) as caught:
        manifests.load(text, where="m.json")
    (finding,) = caught.value.findings
    assert str(finding.where).startswith("m.json")
    return finding


# Back and forth


def texts(least: int = 1) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=8)


SIZES = st.integers(0, 1 << 62)
INTEGERS = st.integers(-(1 << 62), 1 << 62)
REALS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,9}", fullmatch=True)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
FACTS = st.dictionaries(
    texts(), texts(0) | INTEGERS | REALS | st.booleans() | st.none(), max_size=3
)
DIMS = st.recursive(SIZES, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
SOURCES = st.builds(FileRecord, texts(), SIZES, DIGESTS)
FILE_NAMES = st.sampled_from(
    ["model.safetensors", "model-00002-of-00003.safetensors", "model.safetensors.index.json"]
)
FILES = st.builds(FileRecord, FILE_NAMES, SIZES, DIGESTS, st.none() | DIGESTS)
STEPS = st.dictionaries(
    st.sampled_from(["split", "cast"]),
    st.dictionaries(texts(), INTEGERS | REALS | texts() | st.lists(SIZES), max_size=2),
    min_size=1,
    max_size=1,
)
DTYPE_NAMES = st.sampled_from(sorted(DTYPES))
SHAPES = st.lists(SIZES, max_size=3).map(tuple)
TENSORS = st.builds(
    TensorRecord,
    name=NAMES,
    file=texts(),
    dtype=DTYPE_NAMES,
    shape=SHAPES,
    offset=SIZES,
    size=SIZES,
    sha256=DIGESTS,
    pieces=st.lists(DIGESTS, max_size=2).map(tuple),
    sources=st.lists(texts(), max_size=2).map(tuple),
    source_specs=st.lists(st.builds(TensorSpec, DTYPE_NAMES, SHAPES), max_size=2).map(tuple),
    steps=st.lists(STEPS, max_size=2).map(tuple),
    stats=st.none() | st.builds(Statistics, REALS, REALS, REALS, REALS, SIZES),
)
MANIFESTS = st.builds(
    Manifest,
    tool=st.builds(ToolRecord, texts(), texts(), texts()),
    model=st.builds(
        ModelRecord,
        name=texts(),
        title=texts(),
        origin=texts(),
        variant=st.lists(texts(), max_size=2).map(tuple),
        dims=st.dictionaries(texts(), DIMS, max_size=3),
        conventions=FACTS,
        audio=FACTS,
    ),
    rules=st.builds(RulesRecord, texts(), DIGESTS, st.dictionaries(texts(), texts(), max_size=2)),
    sources=st.lists(SOURCES, max_size=2).map(tuple),
    files=st.lists(FILES, max_size=2).map(tuple),
    tensors=st.lists(TENSORS, max_size=3, unique_by=lambda tensor: tensor.name).map(tuple),
    aliases=st.dictionaries(NAMES, NAMES, max_size=2),
    dropped=st.lists(
        st.builds(DropRecord, texts(), DTYPE_NAMES, SHAPES, texts(), st.none() | texts()),
        max_size=2,
    ).map(tuple),
    stand_ins=st.lists(
        st.builds(StandInRecord, NAMES, st.sampled_from(["zeros", "ones"]), st.tuples(texts())),
        max_size=2,
    ).map(tuple),
    out_of_scope=SIZES,
    totals=st.builds(Totals, SIZES, SIZES, SIZES),
    content_sha256=DIGESTS,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(MANIFESTS)
def test_a_manifest_comes_back_as_it_was_written(manifest: Manifest) -> None:
    text = manifests.dump(manifest)
    assert manifests.load(text) == manifest
    assert manifests.dump(manifests.load(text)) == text


def test_it_is_written_in_ascii_with_a_line_for_each_file_tensor_and_drop() -> None:
    lines = manifests.dump(MANIFEST).decode("ascii").splitlines()
    assert [line.split(":")[0].strip() for line in lines if "BOOL" in line] == ['"mask"']
    assert sum(DIGEST in line for line in lines) == 6
    assert '  {"name": "junk", "dtype": "F32", "shape": [], "because": "never read"}' in lines


def test_it_satisfies_its_schema() -> None:
    jsonschema.validate(json.loads(manifests.dump(MANIFEST)), resources.schema("manifest"))


# What is not a manifest


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "not strict JSON"),
        (b"\xff", "not strict JSON"),
        (b"{", "not strict JSON"),
        (b"[]", "not a manifest"),
        (b"{}", "not a manifest"),
        (b'{"format": 1}', "not a manifest"),
        (b'{"format": 1, "format": 1}', "not strict JSON"),
        (b'{"format": 2}', "a format version that this program does not know"),
        (b'{"format": true}', "a format version that this program does not know"),
        (b'{"format": "1"}', "a format version that this program does not know"),
    ],
)
def test_what_is_no_manifest_is_refused(text: bytes, what: str) -> None:
    assert refusal(text).what.startswith(what)


def places(value: object, *path: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside, containers included."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, *path, key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from places(item, *path, number)


PLACES = [path for path in places(json.loads(manifests.dump(MANIFEST))) if path != ("format",)]
# What a rule file states freely may be any text, number or boolean.
FREE = [("model", "conventions"), ("model", "audio"), ("tensors", "w", "steps", 0, "split")]


def owner_of(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


@pytest.mark.parametrize("wrong", [True, [["x"]], {"a": {"b": {"c": {}}}}], ids=str)
def test_a_value_of_the_wrong_kind_is_named_wherever_it_stands(wrong: object) -> None:
    for path in PLACES:
        if wrong is True and any(path[: len(free)] == free for free in FREE):
            continue
        document = json.loads(manifests.dump(MANIFEST))
        owner_of(document, path)[path[-1]] = wrong
        named = f"not a manifest, at {' / '.join(map(str, path))}"
        assert refusal(document).what.startswith(named), path


def test_no_member_may_be_missing_but_those_that_are_left_out_when_empty() -> None:
    spared = set()
    for path in PLACES:
        document = json.loads(manifests.dump(MANIFEST))
        owner = owner_of(document, path)
        if isinstance(owner, dict):
            del owner[path[-1]]
            if not refusal(document).what.startswith("not a manifest"):
                spared.add(path)
    assert {path for path in spared if path[:-1] not in [*FREE, ("model", "dims")]} == {
        ("rules", "options", "dtype"),
        ("files", 0, "header_sha256"),
        ("tensors", "w"),
        ("tensors", "mask"),
        ("tensors", "w", "sources"),
        ("tensors", "w", "source_specs"),
        ("tensors", "w", "steps"),
        ("tensors", "w", "steps", 0, "split"),
        ("tensors", "w", "stats"),
        ("aliases", "v"),
        ("dropped", 0, "proven"),
    }


def test_a_wrong_value_is_named_with_its_path_and_its_tensor() -> None:
    document = json.loads(manifests.dump(MANIFEST))
    document["tensors"]["w"]["stats"]["mean"] = "0.5"
    finding = refusal(document)
    assert finding.what == "not a manifest, at tensors / w / stats / mean"
    assert finding.tensor == "w"
    assert (finding.expected, finding.got) == ("a number with a point", "'0.5'")


def test_a_member_that_is_unknown_is_refused() -> None:
    document = json.loads(manifests.dump(MANIFEST))
    document["totals"]["cost"] = 1
    assert refusal(document).what == "not a manifest, at totals"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"\n", b"\r\n"), (b' "rules"', b'  "rules"'), (b"0.5", b"5e-1"), (b"\n}\n", b"\n\n}\n")],
    ids=["line end", "space", "another spelling of a number", "a line more"],
)
def test_the_same_content_in_other_bytes_is_refused_with_its_line(old: bytes, new: bytes) -> None:
    text = manifests.dump(MANIFEST)
    at = text.rindex(old)
    finding = refusal(text[:at] + new + text[at + len(old) :])
    line = text[:at].count(b"\n") + (2 if new.startswith(b"\n") else 1)
    assert finding.what.startswith("not written as a manifest is")
    assert finding.where == f"m.json:{line}"


def test_a_line_after_the_end_is_refused() -> None:
    assert refusal(manifests.dump(MANIFEST) + b"\n").where == "m.json:41"


def test_dims_that_nest_too_deeply_are_refused() -> None:
    text = manifests.dump(MANIFEST).replace(b"[1, [2]]", b"[" * 900 + b"]" * 900)
    assert "too deeply" in refusal(text).what


# Totals and the digest of the content


def test_totals_are_sums_over_the_tensors() -> None:
    assert manifests.total(MANIFEST.tensors) == MANIFEST.totals


def test_the_content_is_the_same_whatever_the_layout() -> None:
    moved = [replace(tensor, file="other", offset=0, sources=()) for tensor in MANIFEST.tensors]
    assert manifests.content_digest(reversed(moved)) == manifests.content_digest(MANIFEST.tensors)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "u"},
        {"dtype": "F16"},
        {"shape": (3, 2)},
        {"shape": (6,)},
        {"sha256": DIGEST[::-1]},
        {"pieces": (DIGEST,)},
    ],
    ids=str,
)
def test_the_content_is_another_with_another_tensor(change: dict[str, Any]) -> None:
    first, second = MANIFEST.tensors
    changed = manifests.content_digest((replace(first, **change), second))
    assert changed != manifests.content_digest(MANIFEST.tensors)
