import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forgery import forge, forge_member
from toy import convert, toy_tensors
from toy_bundle import convert_toys, write_toys

from converter import api
from converter.digest import sha256
from converter.errors import UsageError
from converter.finding import Finding
from converter.verify_many import Verdict
from converter.verify_pins import read_pins

OTHER = "0" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a canonical directory and a bundle."""
    folder = tmp_path_factory.mktemp("pins")
    convert(folder, toy_tensors())
    write_toys(folder / "toys")
    convert_toys(folder / "toys", "both")
    (folder / "models").mkdir()
    (folder / "out").rename(folder / "models" / "toy")
    (folder / "toys" / "both").rename(folder / "models" / "both")
    return folder / "models"


@pytest.fixture
def models(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to be damaged, ``models`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "models")
    return Path("models")


def digest(path: Path) -> str:
    return sha256(path.read_bytes())


def pinned(*paths: Path) -> Path:
    """Write a file of pins as they are now."""
    file = Path("pins.sha256")
    file.write_text("".join(f"{digest(path)}  {path}\n" for path in paths))
    return file


BOTH = Path("models/both/bundle.json"), Path("models/toy/manifest.json")


def distrusted(verdict: Verdict) -> list[Finding]:
    return [finding for check in verdict.checked for finding in check.distrusted]


# One digest


@pytest.mark.parametrize("file", BOTH, ids=lambda path: path.name)
def test_the_digest_of_the_manifest_or_record_is_the_one_to_pin(models: Path, file: Path) -> None:
    verification = api.verify(file.parent, manifest_sha256=digest(file))
    assert verification.holds
    assert verification.manifest_sha256 == digest(file)
    assert verification.trusted_by == ("pin",)
    assert api.verify(file.parent, manifest_sha256=digest(file).upper()).holds


@pytest.mark.parametrize("file", BOTH, ids=lambda path: path.name)
def test_another_digest_is_not_trusted_though_all_holds(models: Path, file: Path) -> None:
    verification = api.verify(file.parent, manifest_sha256=OTHER)
    assert verification.findings == ()
    assert not verification.holds
    assert verification.trusted_by == ()
    (finding,) = verification.distrusted
    assert (finding.code, finding.where) == ("pin", str(file))
    assert (finding.expected, finding.got) == (f"sha256 {OTHER}", f"sha256 {digest(file)}")


def forge_toy(models: Path) -> Path:
    forge(models / "toy", "embedding.weight")
    return models / "toy" / "manifest.json"


def forge_both(models: Path) -> Path:
    forge_member(models / "both", "right", "embedding.weight")
    return models / "both" / "bundle.json"


@pytest.mark.parametrize("forgery", [forge_toy, forge_both])
def test_a_consistent_rewrite_of_all_files_is_caught_by_the_pin_alone(
    models: Path, forgery: Callable[[Path], Path]
) -> None:
    pins = pinned(*BOTH)
    before = {file: digest(file) for file in BOTH}
    file = forgery(models)
    verification = api.verify(file.parent, all_digests=True)
    assert verification.holds  # nothing in it betrays it
    check = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=file.parent)
    assert check.returncode == 0
    pin = before[file]
    assert [f.code for f in api.verify(file.parent, manifest_sha256=pin).distrusted] == ["pin"]
    assert api.verify_all([file.parent], manifest_sha256=pin).exit_code == 8
    verdict = api.verify_all([models], pins=pins)
    assert verdict.exit_code == 8
    assert [finding.where for finding in distrusted(verdict)] == [str(file)]


def test_a_pin_that_is_wrong_wins_over_bytes_that_differ(models: Path) -> None:
    (models / "toy" / "extra").touch()
    assert api.verify_all([models / "toy"]).exit_code == 7
    verdict = api.verify_all([models / "toy"], manifest_sha256=OTHER)
    assert verdict.exit_code == 8
    assert [finding.code for finding in verdict.checked[0].findings] == ["extra"]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{}")])
def test_a_manifest_that_is_not_there_or_none_is_not_the_one_pinned(
    models: Path, damage: Callable[[Path], object]
) -> None:
    file = models / "toy" / "manifest.json"
    pin = digest(file)
    damage(file)
    verdict = api.verify_all([models / "toy"], manifest_sha256=pin)
    assert verdict.exit_code == 8
    assert [finding.code for finding in distrusted(verdict)] == ["pin"]


@pytest.mark.parametrize("text", ["", "abc", OTHER + "0", OTHER[1:] + "g", f" {OTHER}"])
def test_what_is_no_digest_is_refused_and_never_left_out(models: Path, text: str) -> None:
    with pytest.raises(UsageError, match="not a sha256"):
        api.verify(models / "toy", manifest_sha256=text)
    with pytest.raises(UsageError, match="not a sha256"):
        api.verify_all([models / "toy"], manifest_sha256=text)


@pytest.mark.parametrize("paths", [["models"], ["models/toy", "models/both"]])
def test_one_digest_is_for_one_directory(models: Path, paths: list[str]) -> None:
    with pytest.raises(UsageError, match="--manifest-sha256 is for one directory") as caught:
        api.verify_all(paths, manifest_sha256=OTHER)
    assert "--pins FILE" in str(caught.value)


def test_one_digest_and_a_file_of_them_are_not_both_given(models: Path) -> None:
    with pytest.raises(UsageError, match="a digest and a file of digests"):
        api.verify_all(["models"], manifest_sha256=OTHER, pins=pinned(*BOTH))


# A file of digests


def test_every_directory_has_its_pin(models: Path) -> None:
    verdict = api.verify_all([models], pins=pinned(*BOTH))
    assert verdict.exit_code == 0
    assert [check.trusted_by for check in verdict.checked] == [("pin",), ("pin",)]


def test_the_pins_are_what_sha256sum_writes_and_checks(models: Path) -> None:
    written = subprocess.run(
        ["sha256sum", *map(str, BOTH)], capture_output=True, text=True, check=True
    )
    Path("pins.sha256").write_text(written.stdout)
    assert api.verify_all([models], pins="pins.sha256").exit_code == 0
    subprocess.run(["sha256sum", "--check", "--strict", "pins.sha256"], check=True)


def test_paths_may_be_written_in_other_ways(models: Path) -> None:
    first, second = BOTH
    lines = [f"{digest(first)}  ./models/../{first}", f"{digest(second)} *{second.absolute()}"]
    Path("pins").write_text("# what we trust\n\n" + "\r\n".join(lines) + "\r\n")
    assert api.verify_all([models.absolute()], pins="pins").exit_code == 0


def test_a_directory_without_a_pin_is_not_trusted(models: Path) -> None:
    verdict = api.verify_all([models], pins=pinned(BOTH[0]))
    assert verdict.exit_code == 8
    (finding,) = distrusted(verdict)
    assert (finding.code, finding.where) == ("pin-missing", str(BOTH[1]))
    assert digest(BOTH[1]) in str(finding.got)


def test_a_directory_that_is_pinned_and_gone_is_missed(models: Path) -> None:
    pins = pinned(*BOTH)
    shutil.rmtree(models / "toy")
    verdict = api.verify_all([models], pins=pins)
    assert verdict.exit_code == 8
    (finding,) = distrusted(verdict)
    assert (finding.code, finding.expected) == ("pin-unused", str(models / "toy"))
    assert finding.where == "pins.sha256:2"


def test_of_pins_for_other_places_nothing_is_asked(models: Path) -> None:
    pins = pinned(*BOTH)
    assert api.verify_all([models / "toy"], pins=pins).exit_code == 0
    assert api.verify_all([models / "both"], pins=pins).exit_code == 0


def test_a_wrong_pin_is_told_with_its_line(models: Path) -> None:
    pins = pinned(*BOTH)
    pins.write_text(pins.read_text().replace(digest(BOTH[1]), OTHER))
    (finding,) = distrusted(api.verify_all([models], pins=pins))
    assert finding.code == "pin"
    assert finding.what == "not the manifest.json that was pinned at pins.sha256:2"


def test_members_of_a_bundle_may_be_pinned_but_their_bundle_must_be(models: Path) -> None:
    member = models / "both" / "left" / "manifest.json"
    assert api.verify_all([models], pins=pinned(*BOTH, member)).exit_code == 0
    verdict = api.verify_all([models / "both"], pins=pinned(member))
    assert [finding.code for finding in distrusted(verdict)] == ["pin-missing"]
    pins = pinned(*BOTH, member)
    pins.write_text(pins.read_text().replace(digest(member), OTHER))
    (finding,) = distrusted(api.verify_all([models], pins=pins))
    assert (finding.code, finding.where) == ("pin", str(member))


def test_a_record_that_cannot_be_read_is_told_by_its_own_name(models: Path) -> None:
    pins = pinned(*BOTH)
    (models / "both" / "bundle.json").write_text("{}")
    (finding,) = distrusted(api.verify_all([models], pins=pins))
    assert (finding.code, finding.where) == ("pin", str(BOTH[0]))


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("", "the file pins nothing", "pins"),
        ("# nothing yet\n\n", "the file pins nothing", "pins"),
        (f"{OTHER} toy/manifest.json\n", "not a pin", "pins:1"),
        (f"\n{OTHER}  toy/SHA256SUMS\n", "not a pin", "pins:2"),
        (f"{OTHER}  toy\n", "not a pin", "pins:1"),
        (f"{OTHER[1:]}  toy/manifest.json\n", "not a pin", "pins:1"),
        (f"\\{OTHER}  t\\noy/manifest.json\n", "not a pin", "pins:1"),
        (f"{OTHER}  a/manifest.json\n{OTHER}  ./a/manifest.json\n", "a is pinned twice", "pins:2"),
        (f"{OTHER}  a/manifest.json\n{OTHER}  a/bundle.json\n", "first at pins:1", "pins:2"),
    ],
)
def test_pins_that_are_none_are_refused_with_their_line(
    models: Path, text: str, what: str, where: str
) -> None:
    Path("pins").write_text(text)
    with pytest.raises(UsageError) as caught:
        api.verify_all([models], pins="pins")
    (finding,) = caught.value.findings
    assert (finding.code, finding.where) == ("pins", where)
    assert what in finding.what


def absent(path: Path) -> Any:
    return None


def binary(path: Path) -> Any:
    path.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize("prepare", [absent, binary, Path.mkdir])
def test_pins_that_cannot_be_read_let_nothing_pass(
    tmp_path: Path, prepare: Callable[[Path], Any]
) -> None:
    prepare(tmp_path / "pins")
    with pytest.raises(UsageError, match="the pins cannot be read"):
        read_pins(tmp_path / "pins")
