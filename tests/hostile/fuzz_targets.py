"""What reads the texts of strangers: of a damaged one it may say no more than that it is refused.

``check`` returns whether an input was taken, and raises where something is wrong: an exception that
is no ConverterError, an answer that cannot be shown, or an input that was taken for another.
"""

import json
import random
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar
from unittest.mock import patch

import safetensors
from crafted_files import REFUSED, TAKEN, container
from crafted_manifests import BUNDLE_RECORDS, MANIFESTS, write_manifest
from crafted_rules import BUNDLES, HEAD, RULES
from mutate import EXPRESSION, JSON, YAML, Words, mutate
from toy import RULES as TOY_RULES
from toy import convert, toy_tensors, write_rules, write_source

from converter import api, bundle_record, manifest, manifest_lines, resources
from converter.bind import bind
from converter.canonical import MANIFEST_NAME
from converter.dims import read_dims
from converter.errors import ConverterError
from converter.finding import Finding
from converter.header import parse_header
from converter.manifest import FileRecord
from converter.rules import expression, indices, parse, strict_yaml, template
from converter.rules.expand import Expansion, expand
from converter.rules.expression import Value
from converter.rules.lint import lint_file
from converter.rules.settings import resolve
from converter.runtime import load_tensors
from converter.source import open_source
from converter.spec import Header, TensorSpec

Change: TypeAlias = Callable[[bytes, random.Random], bytes]
Check: TypeAlias = Callable[[bytes], bool]
Make: TypeAlias = Callable[[Path], "Target"]

T = TypeVar("T")

LONGEST_SEED = 12_000


@dataclass(frozen=True)
class Target:
    """One reader of texts: what to begin with, how to damage it, and how to check what comes."""

    seeds: Sequence[bytes]
    change: Change
    check: Check

    def draw(self, chance: random.Random) -> bytes:
        """Draw a seed and damage it."""
        return self.change(chance.choice(self.seeds), chance)


def target(seeds: Iterable[bytes], words: Words, check: Check) -> Target:
    """Make a target of texts; the shorter half of the seeds is drawn twice as often."""
    ordered = sorted(seeds, key=len)
    weighted = ordered + ordered[: len(ordered) // 2]
    return Target(weighted, partial(mutate, words=words), check)


def taken(call: Callable[[], T]) -> T | None:
    """Return what ``call`` returns; None when it refuses, as this package refuses."""
    try:
        return call()
    except ConverterError as caught:
        error = caught
    assert error.exit_code > 1
    require_shown(error.findings)
    return None


def require_shown(findings: Iterable[Finding]) -> None:
    """Check that findings can be shown: in lines of printable text, and as JSON."""
    for finding in findings:
        assert all(line.isprintable() for line in finding.render().split("\n"))
        assert len(finding.what) < 5000
        json.dumps(finding.as_json()).encode("ascii")


def short(seeds: Iterable[bytes]) -> list[bytes]:
    """Return the seeds that are not long for the sake of being long."""
    return [seed for seed in seeds if 0 < len(seed) <= LONGEST_SEED]


# Headers, where the safetensors library is a second opinion


def header_target(_: Path) -> Target:
    """Whatever our parser takes, the library takes too, and reads the same."""
    seeds = [container(header, bytes(size)) for header, size in header_seeds()]
    return Target(seeds, change_header, check_header)


def change_header(file: bytes, chance: random.Random) -> bytes:
    """Damage the header of a file, whose length stays right; change the data's length at times."""
    end = min(8 + int.from_bytes(file[:8], "little"), len(file))
    size = max(0, len(file) - end + chance.choice((0, 0, 0, 0, -1, 1, 4)))
    return container(mutate(file[8:end], chance, JSON), bytes(size))


def header_seeds() -> list[tuple[bytes, int]]:
    """Headers to start from, and the bytes of data behind each."""
    plain = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b.weight": {"dtype": "BF16", "shape": [], "data_offsets": [16, 18]},
        "empty": {"dtype": "I64", "shape": [0, 3], "data_offsets": [18, 18]},
        "c": {"dtype": "F4", "shape": [4], "data_offsets": [18, 20]},
    }
    headers = [(json.dumps(plain, indent=indent).encode(), 20) for indent in (None, 1)] * 20
    for case in (*TAKEN.values(), *REFUSED.values()):
        data = case()
        end = 8 + int.from_bytes(data[:8], "little")
        if 8 < end <= len(data) < 1000:
            headers.append((data[8:end], len(data) - end))
    return headers


def check_header(file: bytes) -> bool:
    """Check a whole file."""
    ours = taken(lambda: parse_header(file, len(file), where="mutated"))
    if ours is None:
        return False
    theirs = dict(safetensors.deserialize(file))  # type: ignore[no-untyped-call]
    assert {tensor.name for tensor in ours.tensors} == theirs.keys()
    for tensor in ours.tensors:
        assert tensor.spec.dtype == theirs[tensor.name]["dtype"]
        assert list(tensor.spec.shape) == theirs[tensor.name]["shape"]
        begin = ours.data_start + tensor.begin
        assert file[begin : begin + tensor.spec.nbytes] == theirs[tensor.name]["data"]
    return True


# JSON files of sources


def index_target(folder: Path) -> Target:
    """An index that is taken is right about every tensor of every shard."""
    shards = ("a.safetensors", "model-00002-of-00002.safetensors")
    for shard, name in zip(shards, "ab", strict=True):
        header = {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        (folder / shard).write_bytes(container(json.dumps(header), bytes(4)))
    weight_map = dict(zip("ab", shards, strict=True))
    index = {"metadata": {"total_size": 8}, "weight_map": weight_map}
    seeds = [json.dumps(document, indent=1).encode() for document in (index, {**index, "x": []})]
    path = folder / "model.safetensors.index.json"

    def check(text: bytes) -> bool:
        path.write_bytes(text)
        source = taken(lambda: open_source(path))
        if source is None:
            return False
        with source:
            listed = json.loads(text)["weight_map"]
            assert source.header.keys() == listed.keys()
            assert listed.items() <= weight_map.items()
        return True

    return target(seeds, JSON, check)


def snapshot_target(folder: Path) -> Target:
    """A header of names, dtypes and shapes is read as it stands, or refused."""
    header = {
        "a": {"dtype": "F32", "shape": [2, 3]},
        "b.0": {"dtype": "I64", "shape": []},
        "\u00e9": {"dtype": "F4", "shape": [1, 2]},
    }
    seeds = [json.dumps(header, indent=indent).encode() for indent in (None, 1)]
    path = folder / "header.json"

    def check(text: bytes) -> bool:
        path.write_bytes(text)
        source = taken(lambda: open_source(path))
        if source is None:
            return False
        document = json.loads(text)
        assert list(source.header) == list(document)
        for name, spec in source.header.items():
            assert document[name] == {"dtype": spec.dtype, "shape": list(spec.shape)}
        api.inspect(path)
        return True

    return target(seeds, JSON, check)


# JSON files of canonical directories and bundles


def manifest_target(folder: Path) -> Target:
    """A directory is verified or refused; what holds, the runtime loads."""
    outs = []
    for name, options in (("one", {}), ("shards", {"max_shard_size": "200"})):
        (folder / name).mkdir()
        outs.append(convert(folder / name, toy_tensors(), **options).out)
    texts = [(out / MANIFEST_NAME).read_bytes() for out in outs]
    seeds = [*texts * 20, *short(edit(texts[0]) for edit in MANIFESTS.values())]

    def check(text: bytes) -> bool:
        require_one_reading(text)
        out = outs[b"model-00001-of-" in text]
        write_manifest(out, text)
        verification = api.verify(out, jobs=1)
        require_shown(verification.findings)
        loaded = taken(lambda: load_tensors(out, check="full"))
        assert loaded is not None or not verification.holds
        return verification.holds

    return target(seeds, JSON, check)


def require_one_reading(text: bytes) -> None:
    """Check that a manifest is read line by line as the parser reads it, or not at all."""
    quick = taken(lambda: manifest.load(text))
    bare = taken(lambda: manifest.load(text, statistics=False))
    with patch.object(manifest_lines, "part", return_value=None):
        assert taken(lambda: manifest.load(text)) == quick
    if quick is not None:
        assert manifest.dump(quick) == text
        assert bare is not None
    if bare is not None:
        stats = re.compile(rb', "stats": \{[^}]*\}')
        assert stats.sub(b"", manifest.dump(bare)) == stats.sub(b"", text)


def bundle_record_target(_: Path) -> Target:
    """A bundle's record is taken to the byte as it is written, or not at all."""
    digest = "0" * 64
    member = bundle_record.MemberRecord("bert", "a", digest, digest)
    file = FileRecord("a.safetensors", 4, digest)
    agreed = bundle_record.AgreedRecord("a.n == b.n", "they meet", {"a.n": 1, "b.n": [1, [2]]})
    record = bundle_record.BundleRecord(
        "pair",
        "A pair",
        bundle_record.BundleFileRecord("pair.yaml", digest),
        {"a": (file,)},
        {"a": member, "b": member},
        (agreed,),
    )
    text = bundle_record.dump(record)
    seeds = [*[text] * 20, *short(edit(text) for edit in BUNDLE_RECORDS.values())]

    def check(text: bytes) -> bool:
        found = taken(lambda: bundle_record.load(text))
        assert found is None or bundle_record.dump(found) == text
        return found is not None

    return target(seeds, JSON, check)


# Rule files and bundle files


def rule_seeds() -> list[bytes]:
    """Rule files to start from: shipped ones, the toy's, and crafted ones of no great length."""
    shipped = (path.read_bytes() for path in resources.rule_files().values())
    crafted = (case().encode() for case in RULES.values())
    return [TOY_RULES.encode(), *short(shipped), *(seed for seed in crafted if len(seed) < 2000)]


def rules_target(_: Path) -> Target:
    """A rule file without a fault is bound to the header that it describes, or does not fit it."""
    seeds = rule_seeds()

    @quickly_exhausted
    def check(text: bytes) -> bool:
        forget()
        rule_file = taken(lambda: parse.parse(text, "fuzz.yaml"))
        if rule_file is None:
            return False
        require_shown(lint_file(rule_file).findings)
        settings = taken(lambda: resolve(rule_file))
        if settings is None:
            return False
        header = described(expand(rule_file, settings))
        return taken(lambda: bind(rule_file, header, settings)) is not None

    return target(seeds, YAML, check)


def quickly_exhausted(check: Check) -> Check:
    """Let rules be repeated a hundredth as often: what is endless shall take no seconds each."""

    def checked(text: bytes) -> bool:
        with patch.object(indices, "MAX_WORK", 1 << 17), patch.object(indices, "MAX_VALUES", 4096):
            return check(text)

    return checked


def forget() -> None:
    """Empty the caches of texts: none of the next ones is likely to come again."""
    expression.parse.cache_clear()
    template.parse.cache_clear()


def described(expansion: Expansion) -> Header:
    """Return the header of a checkpoint for some rules, as far as they say what it must be."""
    header: dict[str, TensorSpec] = {}
    for unit in expansion.units:
        shapes = unit.form.source_shapes or unit.form.shapes * len(unit.sources)
        for name, shape in zip(unit.sources, shapes, strict=False):
            header[name] = TensorSpec(unit.rule.dtypes[0], shape)
    for drop in expansion.drops:
        header[drop.name] = TensorSpec("F32", (4,))
    return header


def conversion_target(folder: Path) -> Target:
    """What a damaged rule file makes of a checkpoint holds, or it makes nothing."""
    source = write_source(folder, toy_tensors())
    seeds = [write_rules(folder).read_bytes()]
    out = folder / "out"

    @quickly_exhausted
    def check(text: bytes) -> bool:
        forget()
        rules = folder / "toy.yaml"
        rules.write_bytes(text)
        made = taken(lambda: api.convert(source, out, rules=rules, jobs=1))
        if made is not None:
            assert api.verify(out, jobs=1).holds
            load_tensors(out, check="full")
            shutil.rmtree(out)
        assert {path.name for path in folder.iterdir()} <= {"toy.safetensors", "toy.yaml"}
        return made is not None

    return target(seeds, YAML, check)


def bundle_target(folder: Path) -> Target:
    """A bundle file without a fault is planned from headers, or does not fit them."""
    (folder / "tiny.yaml").write_text(
        f"{HEAD}dims: {{n: 2}}\nrules: [{{from: a, to: {{b: [n]}}}}]\n"
    )
    for name in ("one", "two"):
        header = {"a": {"dtype": "F32", "shape": [2]}}
        (folder / f"{name}.json").write_text(json.dumps(header))
    shipped = (path.read_bytes() for path in resources.bundle_files().values())
    crafted = (case().encode() for case in BUNDLES.values())
    seeds = [*[BUNDLE.encode()] * 60, *shipped, *(seed for seed in crafted if len(seed) < 1000)]
    path = folder / "fuzz.yaml"

    @quickly_exhausted
    def check(text: bytes) -> bool:
        forget()
        path.write_bytes(text)
        require_shown(api.lint(path))
        return taken(lambda: api.plan_bundle(str(path), folder)) is not None

    return target(seeds, YAML, check)


BUNDLE = """
format: 1
bundle: fuzz
title: Two of a kind
sources:
  one: {file: one.json}
  two: {file: two.json, source_prefix: ''}
members:
  first: {source: one, rules: tiny.yaml}
  second: {source: two, rules: tiny.yaml, dims: {n: 2}, scope: ''}
agree:
  - {that: first.n == second.n, because: one reads the other}
  - {that: first.audio == second.audio, because: they share their sound}
"""


# The parts of rule files


def yaml_target(_: Path) -> Target:
    """Any text is YAML of the plain kind, of which every value has a line, or it is refused."""
    seeds = rule_seeds()

    def check(text: bytes) -> bool:
        document = taken(lambda: strict_yaml.parse(text, "fuzz.yaml"))
        if document is None:
            return False
        count = len(re.split("\r\n|[\n\r\x85\u2028\u2029]", text.decode()))
        assert all(1 <= line <= count for line in document.lines.values())
        return True

    return target(seeds, YAML, check)


VALUES: Mapping[str, Value] = {
    "n": 12,
    "one": 1,
    "zero": 0,
    "r": [8, 4, 2],
    "d": [[1], []],
    "e": [],
}
EXPRESSIONS = (
    *("256 * ((8 * n // 3 + 255) // 256)", "sum(r) + d[0][0] - len(e)", "r[n % 3] ** 2", "-n // 7"),
    *("n % 3 == 0 and not one < zero or r == r", "max(r) - min(n, one)", "prod(r) >= 2 ** 10"),
)


def expression_target(_: Path) -> Target:
    """Any text is an integer expression with a value, or it is refused."""
    seeds = [text.encode() for text in EXPRESSIONS]

    def check(text: bytes) -> bool:
        forget()
        said = text.decode(errors="surrogateescape")
        return taken(lambda: expression.parse(said).evaluate(VALUES)) is not None

    return target(seeds, EXPRESSION, check)


def dims_target(_: Path) -> Target:
    """Any assignment is that of a dim, or it is refused."""
    seeds = [b"layers=5", b"rates=4,2,2", b"rates=4,", b"dilations=[[1, 3], [5]]", b"n = [1, 2]"]

    def check(text: bytes) -> bool:
        said = text.decode(errors="surrogateescape")
        return taken(lambda: read_dims(None, [said])) is not None

    return target(seeds, EXPRESSION, check)


TARGETS: Mapping[str, Make] = {
    "header": header_target,
    "index": index_target,
    "snapshot": snapshot_target,
    "manifest": manifest_target,
    "bundle-record": bundle_record_target,
    "rules": rules_target,
    "bundle": bundle_target,
    "conversion": conversion_target,
    "yaml": yaml_target,
    "expression": expression_target,
    "dims": dims_target,
}
