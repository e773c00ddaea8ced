"""A page is made of crafted manifests or refused; what is made has nothing of theirs that runs."""

from pathlib import Path

import pytest
from crafted_manifests import MANIFESTS
from toy import convert, toy_tensors

from converter import api
from converter.errors import MismatchError, SourceError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("crafted")
    convert(folder, toy_tensors())
    return folder, (folder / "out" / "manifest.json").read_bytes()


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_crafted_manifest_is_refused_or_told_of_as_different(
    case: str, made: tuple[Path, bytes]
) -> None:
    folder, original = made
    (folder / "out" / "manifest.json").write_bytes(MANIFESTS[case](original))
    page = folder / "report.html"
    page.unlink(missing_ok=True)
    try:
        written = api.report(folder / "out", page, values=True, jobs=1)
    except (SourceError, MismatchError):
        assert not page.exists()
        return
    assert written.verification.findings
    assert not written.has_values
    text = page.read_text(encoding="utf-8").lower()
    assert "<script" not in text
    assert "<img" not in text
