import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import contents, convert_small, small_tensors, write_small
from click.testing import CliRunner

from converter import api, bundle_record
from converter.canonical import encode_sums
from converter.cli import main
from converter.digest import sha256
from converter.errors import SourceError, UsageError
from converter.finding import Finding


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a bundle, and with another of the same sources but one tensor."""
    folder = tmp_path_factory.mktemp("small")
    tensors = small_tensors()
    write_small(folder, tensors)
    convert_small(folder)
    tensors["lm"]["model.norm.weight"] += 1
    write_small(folder, tensors)
    convert_small(folder, "other")
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "out", tmp_path / "out")


def findings(directory: Path, **options: Any) -> tuple[Finding, ...]:
    verification = api.verify(directory, jobs=1, **options)
    assert verification.holds == (not verification.findings)
    return verification.findings


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def edit_record(out: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit bundle.json with care: written as it is written, and SHA256SUMS written anew."""
    document = json.loads((out / "bundle.json").read_text())
    edit(document)
    text = (json.dumps(document, indent=1) + "\n").encode()
    (out / "bundle.json").write_bytes(text)
    sums = {
        f"{name}/manifest.json": m["manifest_sha256"] for name, m in document["members"].items()
    }
    (out / "SHA256SUMS").write_bytes(encode_sums({**sums, "bundle.json": sha256(text)}))


def test_a_bundle_as_written_holds(out: Path) -> None:
    verification = api.verify(out)
    assert verification.holds
    assert len(verification.members) == 7
    assert verification.data_bytes == sum(member.data_bytes for member in verification.members)
    assert api.verify(out, level="header").data_bytes == 0


def test_sha256sum_agrees(made: Path) -> None:
    for folder in (made / "out", made / "out" / "lm"):
        done = subprocess.run(
            ["sha256sum", "--check", "--strict", "SHA256SUMS"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        lines = (folder / "SHA256SUMS").read_text().splitlines()
        assert done.stdout.count(": OK\n") == len(lines) > 1


def test_any_changed_byte_of_the_record_and_of_the_sums_is_seen(out: Path) -> None:
    chance = random.Random(0)
    for name in ("bundle.json", "SHA256SUMS"):
        size = (out / name).stat().st_size
        for offset in (0, size - 1, *chance.sample(range(size), 12)):
            flip(out / name, offset)
            assert findings(out, level="header"), (name, offset)
            flip(out / name, offset)
    assert api.verify(out, level="header").holds


def test_a_changed_byte_of_any_file_of_any_member_is_seen(out: Path) -> None:
    for name, data in contents(out).items():
        flip(out / name, len(data) // 2)
        found = findings(out)
        assert any(str(out / name) in str(finding.where) for finding in found), name
        flip(out / name, len(data) // 2)
    assert api.verify(out).holds


def test_the_command_line_answers_with_seven(out: Path) -> None:
    flip(out / "lm" / "model.safetensors", -1)
    done = CliRunner().invoke(main, ["verify", str(out)])
    assert done.exit_code == 7
    assert f"{out / 'lm'}: soprano-lm" in done.output
    assert f"{out}: bundle of 7 members" in done.output
    assert "1 difference" in done.output


def test_a_member_of_another_bundle_is_refused_though_it_holds_by_itself(
    made: Path, out: Path
) -> None:
    shutil.rmtree(out / "lm")
    shutil.copytree(made / "other" / "lm", out / "lm")
    assert api.verify(out / "lm").holds
    finding = findings(out)[0]
    assert finding.what == "lm is not the member that the bundle was published with"
    assert finding.where == str(out / "lm" / "manifest.json")
    assert finding.code == "bundle"


def test_a_record_of_another_bundle_is_refused(made: Path, out: Path) -> None:
    shutil.copy(made / "other" / "bundle.json", out)
    shutil.copy(made / "other" / "SHA256SUMS", out)
    assert "lm is not the member that the bundle was published with" in {
        finding.what for finding in findings(out)
    }


@pytest.mark.parametrize("name", ["SHA256SUMS", "gpt", "lm/manifest.json", "lm/SHA256SUMS"])
def test_what_is_missing_is_told(name: str, out: Path) -> None:
    path = out / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert any(
        finding.code == "missing" and finding.where == str(path) for finding in findings(out)
    )


def test_without_its_record_it_is_no_bundle(out: Path) -> None:
    (out / "bundle.json").unlink()
    assert findings(out)[0].code in ("kind", "missing")


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("notes.txt", "notes.txt"),
        ("more/notes.txt", "more"),
        ("lm/notes.txt", "lm/notes.txt"),
        ("MODEL.json", "MODEL.json"),
    ],
)
def test_what_does_not_belong_there_is_told(name: str, where: str, out: Path) -> None:
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).touch()
    (finding,) = findings(out)
    assert (finding.code, finding.where) == ("extra", str(out / where))


def to_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("lm", to_link),
        ("SHA256SUMS", to_link),
        ("SHA256SUMS", to_folder),
        ("bundle.json", to_link),
        ("bundle.json", to_folder),
    ],
)
def test_a_file_or_directory_of_another_kind_is_told(
    name: str, change: Callable[[Path], None], out: Path
) -> None:
    change(out / name)
    found = [finding for finding in findings(out) if finding.code == "kind"]
    assert [finding.where for finding in found] == [str(out / name)]


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda d: d["members"]["lm"].update(model="gpt"), "model of lm differs"),
        (lambda d: d["members"]["lm"].update(content_sha256="0" * 64), "content_sha256 of lm"),
        (lambda d: d["members"]["lm"].update(source="gpt"), "source of lm differs"),
        (lambda d: d["sources"]["lm"][0].update(size=1), "source of lm differs"),
        (lambda d: d["agreed"][1]["values"].update({"gpt.hidden": 64}), "agreed: gpt.hidden"),
        (lambda d: d["agreed"][1]["values"].update({"gpt.hiden": 32}), "agreed: gpt.hiden"),
        (lambda d: d["members"].pop("lm"), "something that the bundle does not list"),
    ],
)
def test_a_record_edited_with_care_is_held_against_the_manifests(
    edit: Callable[[dict[str, Any]], object], what: str, out: Path
) -> None:
    edit_record(out, edit)
    assert any(what in finding.what for finding in findings(out))


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda d: d.update(format=2), "a format version that this program does not know"),
        (lambda d: d.update(format=True), "a format version that this program does not know"),
        (lambda d: d.pop("title"), "not a bundle"),
        (lambda d: d.update(more=1), "not a bundle"),
        (lambda d: d["rules"].update(options={}), "not a bundle, at rules"),
        (lambda d: d["sources"]["lm"][0].update(header_sha256=None), "not a bundle, at sources"),
        (lambda d: d["members"]["lm"].update(manifest_sha256="0"), "not a bundle, at members / lm"),
        (lambda d: d["members"].update({"../lm": d["members"]["lm"]}), "not a bundle, at members"),
        (lambda d: d["members"].update({"a/b": d["members"]["lm"]}), "not a bundle, at members"),
        (lambda d: d["agreed"][0].pop("because"), "not a bundle, at agreed / 0"),
        (lambda d: d["agreed"][0]["values"].update(x=[-1]), "not a bundle, at agreed / 0 / values"),
        (lambda d: d["agreed"][0]["values"].update(x={"y": []}), "values / x / y"),
    ],
)
def test_a_record_that_is_none_is_told_with_the_place(
    edit: Callable[[dict[str, Any]], object], what: str, out: Path
) -> None:
    text = json.loads((out / "bundle.json").read_text())
    edit(text)
    (out / "bundle.json").write_text(json.dumps(text, indent=1) + "\n")
    (finding,) = findings(out)
    assert what in finding.what


def test_a_record_written_otherwise_is_told_with_its_line(out: Path) -> None:
    text = (out / "bundle.json").read_text()
    (out / "bundle.json").write_text(text.replace('"title": ', '"title":', 1))
    (finding,) = findings(out)
    assert finding.where == f"{out / 'bundle.json'}:4"
    assert "not written as a bundle is" in finding.what


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"{}", b"[" * 10_000, b'{"format": 1}'])
def test_what_is_no_json_of_a_bundle_is_a_finding_not_an_exception(text: bytes, out: Path) -> None:
    (out / "bundle.json").write_bytes(text)
    assert len(findings(out)) == 1


def test_a_record_comes_back_as_it_was_written(out: Path) -> None:
    text = (out / "bundle.json").read_bytes()
    assert bundle_record.dump(bundle_record.load(text)) == text


def test_a_level_that_does_not_exist_checks_nothing(out: Path) -> None:
    with pytest.raises(UsageError, match="unknown level"):
        api.verify(out, level="fulll")  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read_is_an_error(out: Path) -> None:
    (out / "bundle.json").chmod(0)
    with pytest.raises(SourceError, match="Permission denied"):
        api.verify(out)


@pytest.mark.parametrize("all_digests", [False, True])
def test_progress_is_of_the_whole_bundle_from_the_first(out: Path, all_digests: bool) -> None:
    told: list[tuple[int, int]] = []
    checked = api.verify(
        out,
        jobs=1,
        all_digests=all_digests,
        progress=lambda done, total: told.append((done, total)),
    )
    hashed = sum(done for done, _ in told)
    assert len(checked.members) > 1
    assert told[-1][1] == hashed >= checked.data_bytes > 0
    done, shares = 0, []
    for part, total in told:
        done += part
        shares.append(done / total)
    assert shares == sorted(shares)
    assert told[0][1] >= hashed * 0.9
