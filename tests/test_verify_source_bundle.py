import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import convert_small, small_tensors, write_small
from forgery import forge_member
from safetensors.torch import load_file, save_file
from toy_bundle import BUNDLE, convert_toys, write_toys

from converter import api, bundle_record, resources
from converter.bundle_record import BundleRecord
from converter.canonical import encode_sums
from converter.digest import sha256
from converter.errors import PlanError, SourceError
from converter.finding import Finding


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    write_toys(folder)
    convert_toys(folder)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "here"))


def findings(here: Path, **options: Any) -> tuple[Finding, ...]:
    given: dict[str, Any] = {"rules": here / "toys.yaml", "jobs": 2, **options}
    verification = api.verify(here / "out")
    assert verification.holds
    derived = api.verify_source(verification, here / "in", **given)
    assert derived.derived == derived.holds
    assert {member.derived for member in derived.members} == {derived.derived}
    return derived.findings


def edit_record(here: Path, edit: Callable[[BundleRecord], BundleRecord]) -> None:
    """Edit the record so that the bundle still holds by itself."""
    path = here / "out" / "bundle.json"
    record = edit(bundle_record.load(path.read_bytes()))
    path.write_bytes(bundle_record.dump(record))
    sums = {f"{name}/manifest.json": m.manifest_sha256 for name, m in record.members.items()}
    sums["bundle.json"] = sha256(path.read_bytes())
    (here / "out" / "SHA256SUMS").write_bytes(encode_sums(sums))


def test_every_member_is_derived_again(here: Path) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert findings(here) == ()
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_a_bundle_of_the_package_needs_no_rules(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"toys": made / "toys.yaml"}
    monkeypatch.setattr(resources, "bundle_files", lambda: known)
    assert findings(made, rules=None) == ()


def test_members_that_share_a_source_and_set_dims_are_derived_again(tmp_path: Path) -> None:
    write_small(tmp_path, small_tensors())
    convert_small(tmp_path)
    assert findings(tmp_path, rules=tmp_path / "small.yaml") == ()


def test_prefixes_and_dims_that_were_given_are_given_again(here: Path) -> None:
    path = here / "in" / "left" / "toy.safetensors"
    tensors = {f"model.{name}": tensor for name, tensor in load_file(path).items()}
    for name in [name for name in tensors if ".layers.1." in name]:
        del tensors[name]
    save_file(tensors, path)
    shutil.rmtree(here / "out")
    convert_toys(here, source_prefixes={"left": "model."}, dims={"left": {"layers": 1}})
    assert findings(here) == ()


def test_a_consistent_rewrite_of_all_files_is_caught(here: Path) -> None:
    forge_member(here / "out", "right", "embedding.weight")
    found = findings(here)
    assert {finding.code for finding in found} == {"derived"}
    assert found[0].tensor == "embedding.weight"
    assert {finding.where for finding in found} == {str(here / "out" / "right" / "manifest.json")}


def test_another_source_is_told_with_its_member(here: Path) -> None:
    path = here / "in" / "left" / "toy.safetensors"
    tensors = load_file(path)
    tensors["net.steps_taken"] += 5
    save_file(tensors, path)
    found = findings(here)
    assert [finding.code for finding in found] == ["source", "derived", "derived"]
    assert {finding.where for finding in found} == {str(here / "out" / "left" / "manifest.json")}


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: replace(r, title="Three toys"),
        lambda r: replace(r, agreed=()),
        lambda r: replace(r, rules=replace(r.rules, file="others.yaml")),
    ],
)
def test_whatever_the_record_says_is_held_against_the_sources(
    here: Path, edit: Callable[[BundleRecord], BundleRecord]
) -> None:
    edit_record(here, edit)
    (finding,) = findings(here)
    assert (finding.code, finding.where) == ("derived", str(here / "out" / "bundle.json"))
    assert "differs from what the sources give" in finding.what


@pytest.mark.parametrize("name", ["toys.yaml", "toy.yaml"])
def test_other_rules_are_not_those_that_were_used(here: Path, name: str) -> None:
    path = here / name
    path.write_text(path.read_text() + "# a comment\n")
    (finding,) = findings(here)
    assert finding.code == "rules"
    assert name in finding.what


def test_a_bundle_that_the_package_does_not_have_needs_its_file(here: Path) -> None:
    (finding,) = findings(here, rules=None)
    assert finding.what == "no bundle 'toys' comes with this package"


def test_other_members_than_the_bundle_file_has_are_told(here: Path) -> None:
    text = BUNDLE.replace("  right: {source: right, rules", "  third: {source: right, rules")
    text = text.replace("right.hidden", "third.hidden")
    (here / "toys.yaml").write_text(text)
    digest = sha256(text.encode())
    edit_record(here, lambda r: replace(r, rules=replace(r.rules, sha256=digest)))
    (finding,) = findings(here)
    assert finding.what == "the members are not those of the bundle file"
    assert (finding.expected, finding.got) == ("left, third", "left, right")


def test_a_bundle_that_is_not_whole_stays_as_it_was_checked(here: Path) -> None:
    (here / "out" / "left" / "manifest.json").unlink()
    verification = api.verify(here / "out")
    again = api.verify_source(verification, here / "in", rules=here / "toys.yaml")
    assert again == verification
    assert not again.derived


def test_sources_that_cannot_be_converted_raise_as_a_conversion_does(here: Path) -> None:
    path = here / "in" / "left" / "toy.safetensors"
    tensors = load_file(path)
    del tensors["net.embedding"]
    save_file(tensors, path)
    with pytest.raises(PlanError):
        findings(here)
    path.unlink()
    with pytest.raises(SourceError):
        findings(here)
    header = {name: {"dtype": "F32", "shape": [1]} for name in tensors}
    path.with_name("toy.json").write_text(json.dumps(header))
    options: dict[str, Any] = {"source": here / "in", "rules": here / "toys.yaml"}
    verdict = api.verify_all([here / "out"], **options)
    assert verdict.exit_code == 4
    assert verdict.checked[0].holds
