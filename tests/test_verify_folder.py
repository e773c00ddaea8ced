import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from toy import convert, toy_tensors
from toy_bundle import convert_toys, write_toys

from converter import api
from converter.errors import SourceError
from converter.verify_many import Verdict


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    convert(folder, toy_tensors())
    write_toys(folder / "toys")
    convert_toys(folder / "toys")
    return folder


@pytest.fixture
def models(made: Path, tmp_path: Path) -> Path:
    """A folder as ``converted/`` is: a directory, a bundle, one more further down, a plain file."""
    models = tmp_path / "models"
    shutil.copytree(made / "out", models / "toy")
    shutil.copytree(made / "toys" / "out", models / "both")
    shutil.copytree(made / "out", models / "more" / "toy")
    (models / ".gitkeep").touch()
    (models / "README.md").touch()
    return models


def checked(verdict: Verdict) -> list[str]:
    return [str(check.directory) for check in verdict.checked]


def test_all_that_a_folder_holds_is_verified_in_order(models: Path) -> None:
    verdict = api.verify_all([models])
    assert checked(verdict) == [str(models / name) for name in ("both", "more/toy", "toy")]
    assert verdict.exit_code == 0


def test_what_is_named_twice_is_verified_once(models: Path) -> None:
    assert len(api.verify_all([models, models / "toy", models]).checked) == 3


def test_one_that_differs_is_enough(models: Path) -> None:
    (models / "more" / "toy" / "extra").touch()
    verdict = api.verify_all([models])
    assert verdict.exit_code == 7
    assert [check.holds for check in verdict.checked] == [True, False, True]


def nothing(path: Path) -> None:
    path.mkdir()


def plain_files(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").touch()


def empty_folders(path: Path) -> None:
    (path / "a" / "b").mkdir(parents=True)


@pytest.mark.parametrize("make", [nothing, plain_files, empty_folders])
def test_a_directory_beside_them_that_is_none_is_told_not_left_out(
    models: Path, make: Callable[[Path], None]
) -> None:
    make(models / "voice")
    verdict = api.verify_all([models])
    assert verdict.exit_code == 7
    (stranger,) = [check for check in verdict.checked if not check.holds]
    assert stranger.directory == models / "voice"
    assert [(f.code, f.where) for f in stranger.findings] == [
        ("missing", str(models / "voice" / "manifest.json"))
    ]


@pytest.mark.parametrize("make", [nothing, plain_files, empty_folders])
def test_a_folder_that_holds_none_never_passes(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "models")
    verdict = api.verify_all([tmp_path / "models"])
    assert verdict.exit_code == 4
    (error,) = verdict.errors
    assert isinstance(error, SourceError)
    assert error.findings[0].code == "absent"


@pytest.mark.parametrize(
    "left", ["SHA256SUMS", "model.safetensors", "model-00001-of-00002.safetensors", "model.sig"]
)
def test_what_lost_its_manifest_is_one_still(models: Path, left: str) -> None:
    shutil.rmtree(models / "toy")
    (models / "toy").mkdir()
    (models / "toy" / left).touch()
    for path in (models, models / "toy"):
        verdict = api.verify_all([path])
        assert verdict.exit_code == 7
        assert {f.code for check in verdict.checked for f in check.findings} == {"missing"}


def test_a_bundle_that_lost_its_record_is_no_folder_of_directories(models: Path) -> None:
    (models / "both" / "bundle.json").unlink()
    verdict = api.verify_all([models / "both"])
    assert verdict.exit_code == 7
    assert checked(verdict) == [str(models / "both")]


def test_hidden_directories_are_left_out(models: Path) -> None:
    (models / ".toy.partial").mkdir()
    assert api.verify_all([models]).exit_code == 0
    assert api.verify_all([models / ".toy.partial"]).exit_code == 4


def test_a_link_is_not_followed_and_told_unless_its_target_is_checked(
    models: Path, made: Path
) -> None:
    (models / "latest").symlink_to("toy")
    (models / "notes").symlink_to("README.md")
    assert api.verify_all([models]).exit_code == 0
    (models / "elsewhere").symlink_to(made / "out")
    (models / "dangling").symlink_to("nowhere")
    verdict = api.verify_all([models])
    assert verdict.exit_code == 7
    assert [(finding.code, finding.where) for finding in verdict.findings] == [
        ("link", str(models / name)) for name in ("dangling", "elsewhere")
    ]
    assert len(verdict.checked) == 3


def test_the_path_that_is_named_may_be_a_link(models: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(models)
    assert checked(api.verify_all([tmp_path / "link"]))[0] == str(tmp_path / "link" / "both")


def test_links_in_a_circle_end(models: Path) -> None:
    (models / "more" / "up").symlink_to(models)
    verdict = api.verify_all([models])
    assert len(verdict.checked) == 3
    assert [finding.code for finding in verdict.findings] == ["link"]


def test_what_is_not_there_hides_nothing_of_the_rest(models: Path, tmp_path: Path) -> None:
    verdict = api.verify_all([tmp_path / "absent", models, models / "README.md"])
    assert verdict.exit_code == 4
    assert len(verdict.checked) == 3
    assert [error.findings[0].what for error in verdict.errors] == [
        "there is no such directory",
        "not a directory",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_an_error(models: Path) -> None:
    (models / "more").chmod(0)
    try:
        verdict = api.verify_all([models])
    finally:
        (models / "more").chmod(0o755)
    assert verdict.exit_code == 4
    assert verdict.errors[0].findings[0].code == "io"
