from pathlib import Path
from typing import Any

import pytest
from toy import convert, toy_tensors
from toy_bundle import convert_toys, write_toys

from converter import api
from converter.digest import sha256
from converter.report import Report
from converter.report_verify import of_verdict


def report(*paths: Path, **options: Any) -> Report:
    return of_verdict(api.verify_all(paths, **options))


def directories(answer: Report) -> list[dict[str, Any]]:
    listed = answer.result["directories"]
    assert isinstance(listed, list)
    return listed


@pytest.mark.parametrize(
    ("damage", "verdict"),
    [(0, "651 B of data checked: holds"), (1, "1 difference"), (2, "2 differences")],
)
def test_a_check_says_how_much_was_read_and_what_differs(
    tmp_path: Path, damage: int, verdict: str
) -> None:
    convert(tmp_path, toy_tensors())
    for number in range(damage):
        (tmp_path / "out" / f"notes{number}.txt").touch()
    answer = report(tmp_path / "out")
    assert answer.text.splitlines()[0].endswith(verdict)
    assert answer.exit_code == (7 if damage else 0)


def test_a_check_says_which_digest_to_pin_and_whether_it_is(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors())
    digest = sha256((tmp_path / "out" / "manifest.json").read_bytes())
    line = f"  manifest.json sha256 {digest}"
    assert report(tmp_path / "out").text.splitlines()[1:] == [line]
    answer = report(tmp_path / "out", manifest_sha256=digest)
    assert answer.text.splitlines()[1:] == [f"{line}; trusted by pin"]
    (directory,) = directories(answer)
    assert (directory["manifest_sha256"], directory["trusted_by"]) == (digest, ["pin"])
    assert directory["derived"] is False


def test_a_check_says_that_it_was_derived_again(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors())
    source = {"source": tmp_path / "toy.safetensors", "rules": tmp_path / "toy.yaml"}
    answer = report(tmp_path / "out", **source)
    assert "651 B of data checked, derived again from its source: holds" in answer.text
    assert directories(answer)[0]["derived"] is True


def test_a_check_of_headers_says_that_no_data_was_read(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors())
    assert (
        report(tmp_path / "out", level="header")
        .text.splitlines()[0]
        .endswith("; no data read: holds")
    )


def test_a_directory_without_manifest_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").touch()
    answer = report(tmp_path)
    assert answer.text == f"{tmp_path}: no manifest that can be read: 1 difference"
    assert answer.exit_code == 7


def test_a_directory_that_is_pinned_and_gone_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    convert(tmp_path, toy_tensors())
    digest = sha256(Path("out/manifest.json").read_bytes())
    Path("pins").write_text(f"{digest}  out/manifest.json\n{digest}  gone/manifest.json\n")
    answer = report(Path(), pins="pins")
    assert answer.text.splitlines()[-1] == "gone: not there: 1 difference"
    assert [item["holds"] for item in directories(answer)] == [True, False]
    assert answer.exit_code == 8


def test_members_stand_before_their_bundle_whose_digest_is_the_one_to_pin(tmp_path: Path) -> None:
    write_toys(tmp_path)
    convert_toys(tmp_path)
    out = tmp_path / "out"
    answer = report(out)
    digest = sha256((out / "bundle.json").read_bytes())
    lines = answer.text.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == [
        str(path) for path in (out / "left", out / "right", out)
    ]
    assert lines[3:] == [f"  bundle.json sha256 {digest}"]
    assert "bundle of 2 members" in lines[2]


def test_the_digests_to_pin_are_those_that_a_conversion_tells(tmp_path: Path) -> None:
    from converter.report import of_conversion
    from converter.report_bundle import of_bundle_conversion

    made = of_conversion(convert(tmp_path, toy_tensors()))
    (tmp_path / "out").rename(tmp_path / "one")
    write_toys(tmp_path)
    both = of_bundle_conversion(convert_toys(tmp_path))
    for answer, name in ((made, "one"), (both, "out")):
        digest = directories(report(tmp_path / name))[-1]["manifest_sha256"]
        assert answer.result["manifest_sha256"] == digest
        assert f"sha256 {digest}" in answer.text


def test_one_directory_that_differs_is_enough(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "SHA256SUMS").touch()
    answer = report(tmp_path / "out", tmp_path / "other")
    assert answer.exit_code == 7
    assert [item["holds"] for item in directories(answer)] == [True, False]


def test_what_is_told_twice_is_listed_once(tmp_path: Path) -> None:
    answer = report(tmp_path / "absent", tmp_path / "absent")
    assert [finding.code for finding in answer.findings] == ["absent"]
    assert answer.exit_code == 4
