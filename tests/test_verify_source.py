import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forgery import forge, write
from safetensors.torch import save_file
from torch import Tensor
from toy import RULES, convert, one, toy_tensors, write_source

from converter import api, resources
from converter import manifest as manifests
from converter.canonical import arrange, partition
from converter.errors import PlanError, RuleError, SourceError, UsageError
from converter.finding import Finding
from converter.manifest import FileRecord, Manifest, ModelRecord
from converter.spec import TensorSpec
from converter.verify import Verification
from converter.verify_source import shard_limit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy's checkpoint, rules and canonical directory, of four shards."""
    folder = tmp_path_factory.mktemp("toy")
    convert(folder, toy_tensors(), max_shard_size="200B")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "here"))


def derived(here: Path, source: str = "toy.safetensors", **options: Any) -> Verification:
    given: dict[str, Any] = {"rules": here / "toy.yaml", "jobs": 2, **options}
    return api.verify_source(api.verify(here / "out"), here / source, **given)


def findings(here: Path, **options: Any) -> tuple[Finding, ...]:
    verification = derived(here, **options)
    assert verification.derived == (not verification.findings)
    return verification.findings


def read(here: Path) -> Manifest:
    return manifests.load((here / "out" / "manifest.json").read_bytes())


def rewrite(here: Path, edit: Callable[[Manifest], Manifest]) -> None:
    """Edit the manifest so that the directory still holds by itself."""
    write(here / "out", edit(read(here)))
    assert api.verify(here / "out", all_digests=True).holds


# What was made from the source


def test_what_was_made_from_the_source_is_derived_again_and_nothing_is_written(here: Path) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    (here / "out").chmod(0o500)
    verification = derived(here)
    assert (verification.holds, verification.derived) == (True, True)
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("jobs", [1, 3])
def test_progress_is_told_of_every_byte(here: Path, jobs: int) -> None:
    told: list[tuple[int, int]] = []
    derived(here, jobs=jobs, progress=lambda done, total: told.append((done, total)))
    total = read(here).totals.bytes
    assert sum(done for done, _ in told) == total
    assert {of for _, of in told} == {total}


def under(prefix: str) -> dict[str, Tensor]:
    """Return the toy's own tensors under another prefix."""
    own = {name for name in toy_tensors() if name.startswith("net.")}
    return {prefix + name.removeprefix("net."): toy_tensors()[name] for name in own}


@pytest.mark.parametrize(
    ("tensors", "options"),
    [
        (toy_tensors(), {"dtype": "bf16"}),
        (toy_tensors(), {"max_shard_size": "1B"}),
        (under("net."), {"scope": "net."}),
        (under(""), {"scope": ""}),
        (under("model.net."), {"source_prefix": "model."}),
        (under("model.net."), {"source_prefix": "model.", "dtype": "F16", "max_shard_size": "99B"}),
        (under("a.b.c."), {"source_prefix": "a.", "scope": "b.c."}),
    ],
)
def test_whatever_was_chosen_is_chosen_again(
    tmp_path: Path, tensors: dict[str, Tensor], options: dict[str, Any]
) -> None:
    convert(tmp_path, tensors, **options)
    assert findings(tmp_path) == ()


CHOICES = """
dtypes: [F32]
dims: {n: 2, rows: [1, 2]}
derived: {both: n * len(rows)}
variants:
  size:
    small: {}
    large: {dims: {n: 3}}
rules:
  - from: w
    to: {w: [both]}
"""


@pytest.mark.parametrize(
    ("length", "options"),
    [
        (4, {}),
        (6, {"variant": "large"}),
        (10, {"dims": {"n": 5}}),
        (6, {"dims": {"rows": [1, 2, 3]}}),
        (9, {"dims": {"rows": [1, 2, 3]}, "variant": "large"}),
    ],
)
def test_variants_and_dims_are_chosen_again(
    tmp_path: Path, length: int, options: dict[str, Any]
) -> None:
    convert(tmp_path, {"w": torch.arange(float(length))}, CHOICES, **options)
    assert findings(tmp_path) == ()


def test_the_rules_are_those_of_the_package_when_none_are_given(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"toy": made / "toy.yaml"}
    monkeypatch.setattr(resources, "rule_files", lambda: known)
    assert findings(made, rules=None) == ()


def test_the_versions_of_the_tools_may_be_others(here: Path) -> None:
    rewrite(here, lambda m: replace(m, tool=replace(m.tool, version="0.0.1", numpy="1.0")))
    assert findings(here) == ()


# What was not


def test_a_consistent_rewrite_of_all_files_is_caught(here: Path) -> None:
    forge(here / "out", "embedding.weight")
    assert api.verify(here / "out", all_digests=True).holds
    found = findings(here)
    assert [(finding.code, finding.tensor) for finding in found] == [
        ("derived", "embedding.weight"),
        ("derived", None),
    ]
    assert found[0].what.startswith("sha256 differs from what the source gives")
    assert found[1].what.startswith("content_sha256 differs")


def edited_stats(manifest: Manifest) -> Manifest:
    first, *rest = manifest.tensors
    assert first.stats is not None
    edited = replace(first, stats=replace(first.stats, mean=first.stats.mean + 1))
    return replace(manifest, tensors=(edited, *rest))


def edited_model(**changes: Any) -> Callable[[Manifest], Manifest]:
    return lambda m: replace(m, model=replace(m.model, **changes))


def edited_first(**changes: Any) -> Callable[[Manifest], Manifest]:
    return lambda m: replace(m, tensors=(replace(m.tensors[0], **changes), *m.tensors[1:]))


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (edited_stats, "stats"),
        (edited_first(sources=("another",)), "sources"),
        (edited_first(steps=({"transpose": {"dims": [0, 1]}},)), "steps"),
        (edited_first(sources=("another",), steps=()), "sources (and steps)"),
        (edited_model(title="Another"), "model.title"),
        (edited_model(origin="elsewhere"), "model.origin"),
        (edited_model(conventions={"norm_eps": 1e-6}), "model.conventions.norm_eps"),
        (edited_model(conventions={}), "model.conventions.norm_eps"),
        (edited_model(audio={"n_mels": 80}), "model.audio.n_mels"),
        (lambda m: replace(m, rules=replace(m.rules, file="toy2.yaml")), "rules.file"),
        (
            lambda m: replace(m, rules=replace(m.rules, options={"speed": "high"})),
            "rules.options.speed",
        ),
        (lambda m: replace(m, aliases={}), "aliases.head.weight"),
        (lambda m: replace(m, dropped=m.dropped[1:]), "dropped.net.positions"),
        (
            lambda m: replace(
                m, dropped=(replace(m.dropped[0], because="unknown"), *m.dropped[1:])
            ),
            "dropped.net.positions",
        ),
        (lambda m: replace(m, dropped=m.dropped[::-1]), "line"),
        (lambda m: replace(m, stand_ins=()), "stand_ins.blocks.0.norm.weight"),
        (lambda m: replace(m, out_of_scope=2), "out_of_scope"),
    ],
)
def test_whatever_the_manifest_says_is_held_against_the_source(
    here: Path, edit: Callable[[Manifest], Manifest], what: str
) -> None:
    rewrite(here, edit)
    found = findings(here)
    assert {finding.code for finding in found} == {"derived"}
    assert found[0].what.startswith(what)
    assert "differs from what the source gives by the rules" in found[0].what
    assert found[0].where == str(here / "out" / "manifest.json")


def test_another_layout_than_the_rules_give_is_told(tmp_path: Path) -> None:
    """Consistent by itself: what rules in another order would have written."""
    rule = "  - from: {0}\n    to: {{{0}: [64]}}\n"
    head = "dtypes: [F32]\nrules:\n"
    tensors = {"a": torch.zeros(64), "b": torch.ones(64)}
    for folder, names in (("here", "ab"), ("other", "ba")):
        (tmp_path / folder).mkdir()
        convert(tmp_path / folder, tensors, head + "".join(map(rule.format, names)))
    here = tmp_path / "here"
    digest = read(here).rules.sha256
    shutil.rmtree(here / "out")
    shutil.copytree(tmp_path / "other" / "out", here / "out")
    rewrite(here, lambda m: replace(m, rules=replace(m.rules, sha256=digest)))
    places = {finding.what.split()[0] for finding in findings(here)}
    assert places == {"offset", "files.model.safetensors"}


def test_another_source_of_the_same_shapes_is_told_with_its_digest(here: Path) -> None:
    tensors = toy_tensors()
    tensors["net.embedding"] += 1
    tensors["net.head"] += 1
    write_source(here, tensors)
    found = findings(here)
    assert [(finding.code, finding.tensor) for finding in found] == [
        ("source", None),
        ("derived", "embedding.weight"),
        ("derived", None),
    ]
    assert read(here).sources[0].sha256 in str(found[0].expected)


def test_a_source_of_another_name_or_with_other_metadata_is_not_the_one(here: Path) -> None:
    (here / "toy.safetensors").rename(here / "other.safetensors")
    (finding,) = findings(here, source="other.safetensors")
    assert (finding.code, finding.what) == (
        "source",
        "the source is not the one that was converted",
    )
    save_file(toy_tensors(), here / "toy.safetensors", metadata={"format": "pt"})
    (finding,) = findings(here)
    assert finding.code == "source"


def test_a_directory_that_differs_by_itself_is_derived_all_the_same(here: Path) -> None:
    record = read(here).tensors[0]
    data = bytearray((here / "out" / record.file).read_bytes())
    data[record.offset] ^= 1
    (here / "out" / record.file).write_bytes(data)
    verification = derived(here)
    assert [(f.code, f.tensor) for f in verification.findings] == [("digest", record.name)]
    assert verification.derived  # what its manifest says is right
    assert not verification.holds


def test_a_directory_without_a_manifest_stays_as_it_was_checked(here: Path) -> None:
    (here / "out" / "manifest.json").unlink()
    verification = derived(here)
    assert [finding.code for finding in verification.findings] == ["missing"]
    assert not verification.derived


# The rules


def test_other_rules_are_not_those_that_were_used(here: Path) -> None:
    (here / "toy.yaml").write_text(RULES + "# a comment\n")
    (finding,) = findings(here)
    assert finding.code == "rules"
    assert finding.expected == f"sha256 {read(here).rules.sha256}"
    assert "--rules" in str(finding.hint)


def test_a_model_that_the_package_does_not_have_needs_its_rules(here: Path) -> None:
    (finding,) = findings(here, rules=None)
    assert (finding.code, finding.got) == ("rules", "none")
    assert finding.what == "no model 'toy' comes with this package"


def test_a_file_that_holds_no_rules_is_an_error(here: Path) -> None:
    (here / "toy.yaml").write_text("no rules")
    with pytest.raises(RuleError):
        derived(here)


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (edited_model(variant=("large",)), "toy has no variant 'large'"),
        (edited_model(dims={"layers": [2], "hidden": 4, "vocab": 6}), "of another kind"),
        (
            lambda m: replace(m, rules=replace(m.rules, options={"dtype": "I8"})),
            "no floating dtype 'I8'",
        ),
    ],
)
def test_what_cannot_have_been_chosen_is_told(
    here: Path, edit: Callable[[Manifest], Manifest], what: str
) -> None:
    rewrite(here, edit)
    (finding,) = findings(here)
    assert finding.code == "derived"
    assert what in finding.what


def test_a_dim_that_is_not_stated_is_told(here: Path) -> None:
    dims = {name: value for name, value in read(here).model.dims.items() if name != "hidden"}
    rewrite(here, edited_model(dims=dims))
    (finding,) = findings(here)
    assert finding.what.startswith("model.dims.hidden differs")
    assert (finding.expected, finding.got) == ("4", "nothing")


# What cannot be derived


def test_a_source_that_does_not_fit_raises_as_a_conversion_does(here: Path) -> None:
    tensors = toy_tensors()
    del tensors["net.embedding"]
    write_source(here, tensors)
    with pytest.raises(PlanError):
        derived(here)
    (here / "toy.safetensors").unlink()
    with pytest.raises(SourceError):
        derived(here)
    (here / "toy.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(SourceError):
        derived(here)


def test_what_cannot_be_derived_is_part_of_the_verdict_on_all(here: Path) -> None:
    options: dict[str, Any] = {"source": here / "absent.safetensors", "rules": here / "toy.yaml"}
    verdict = api.verify_all([here / "out"], **options)
    assert verdict.exit_code == 4
    assert verdict.checked[0].holds
    assert not verdict.checked[0].derived
    (here / "out" / "extra").touch()
    assert api.verify_all([here / "out"], **options).exit_code == 7
    assert api.verify_all([here / "out"], manifest_sha256=WRONG, **options).exit_code == 8


WRONG = "0" * 64


def test_with_a_source_every_digest_is_checked(here: Path) -> None:
    """The digest of a whole file follows from nothing else that is derived."""
    last = read(here).files[-2]

    def edit(manifest: Manifest) -> Manifest:
        files = [replace(f, sha256=WRONG) if f == last else f for f in manifest.files]
        return replace(manifest, files=tuple(files))

    write(here / "out", edit(read(here)))
    options: dict[str, Any] = {"source": here / "toy.safetensors", "rules": here / "toy.yaml"}
    assert api.verify_all([here / "out"]).exit_code == 0
    verdict = api.verify_all([here / "out"], **options)
    assert verdict.exit_code == 7
    assert "for the whole file" in verdict.checked[0].findings[0].what


def test_a_source_is_for_one_directory_read_in_full(here: Path) -> None:
    shutil.copytree(here / "out", here / "again")
    source = here / "toy.safetensors"
    with pytest.raises(UsageError, match="--source is for one directory"):
        api.verify_all([here / "out", here / "again"], source=source)
    with pytest.raises(UsageError, match="cannot be checked without the data"):
        api.verify_all([here / "out"], source=source, level="header")
    with pytest.raises(UsageError, match="rules are for deriving"):
        api.verify_all([here / "out"], rules=here / "toy.yaml")


# The limit of shards, which is not recorded


def sharded(sizes: list[int], limit: int | None) -> Manifest:
    """Return a manifest, as far as shards go, of tensors of these sizes in bytes."""
    specs = [(f"t{number:03}", TensorSpec("U8", (size,))) for number, size in enumerate(sizes)]
    parts = partition(specs, limit)
    records = [
        manifests.TensorRecord(p.name, f"f{n}", "U8", p.spec.shape, p.begin, p.spec.nbytes, WRONG)
        for n, part in enumerate(parts)
        for p in arrange(part)
    ]
    files = tuple(FileRecord(f"f{n}", 0, WRONG, WRONG) for n in range(len(parts)))
    empty = ModelRecord("m", "t", "o", (), {}, {}, {})
    return Manifest(
        tool=manifests.ToolRecord("t", "0", "0"),
        model=empty,
        rules=manifests.RulesRecord("r", WRONG, {}),
        sources=(),
        files=files,
        tensors=tuple(records),
        aliases={},
        dropped=(),
        stand_ins=(),
        out_of_scope=0,
        totals=manifests.total(records),
        content_sha256=WRONG,
    )


def test_a_limit_of_shards_is_found_that_parts_tensors_as_they_are() -> None:
    chance = random.Random(4)
    several = 0
    for _ in range(500):
        sizes = [chance.choice([0, 1, 7, 256, chance.randrange(900)]) for _ in range(12)]
        limit = chance.randrange(1, 1500)
        manifest = sharded(sizes, limit)
        found = shard_limit(manifest)
        assert [t.file for t in sharded(sizes, found).tensors] == [t.file for t in manifest.tensors]
        several += len(manifest.files) > 1
    assert several > 300
    assert shard_limit(sharded([1, 2], None)) is None


def test_one_tensor_needs_no_limit(tmp_path: Path) -> None:
    convert(tmp_path, {"w": torch.ones(2)}, one("F32", "[2]"), max_shard_size="1B")
    assert findings(tmp_path) == ()
