import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from converter.errors import SourceError
from converter.finding import Finding
from converter.source import open_source

INDEX = "model.safetensors.index.json"


def save(path: Path) -> Path:
    safetensors.numpy.save_file({path.stem: np.zeros(1, np.float32)}, path)
    return path


def refusal(path: Path) -> Finding:
    with pytest.raises(SourceError) as caught:
        open_source(path)
    (finding,) = caught.value.findings
    assert finding.where == str(path)
    return finding


def test_a_directory_of_one_file_is_that_file(tmp_path: Path) -> None:
    save(tmp_path / "weights.safetensors")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "._weights.safetensors").write_bytes(b"left by macOS")
    with open_source(tmp_path) as source:
        assert list(source.header) == ["weights"]


def test_a_directory_with_an_index_is_its_shards(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors")
    save(tmp_path / "b.safetensors")
    (tmp_path / INDEX).write_text('{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}')
    with open_source(tmp_path) as source:
        assert list(source.header) == ["a", "b"]


def test_two_files_without_an_index_are_not_chosen_between(tmp_path: Path) -> None:
    save(tmp_path / "b.safetensors")
    save(tmp_path / "a.safetensors")
    finding = refusal(tmp_path)
    assert finding.code == "ambiguous"
    assert finding.got == "a.safetensors, b.safetensors"
    assert finding.hint == (
        "name the file that is meant; parts of one checkpoint need a *.safetensors.index.json, "
        "its ranks a *.ranks.json"
    )


def test_a_file_that_the_index_does_not_list_makes_it_ambiguous(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors")
    save(tmp_path / "consolidated.safetensors")
    (tmp_path / INDEX).write_text('{"weight_map": {"a": "a.safetensors"}}')
    finding = refusal(tmp_path)
    assert (finding.code, finding.got) == ("ambiguous", f"{INDEX}, consolidated.safetensors")
    with open_source(tmp_path / INDEX) as source:
        assert list(source.header) == ["a"]


def test_two_indices_are_not_chosen_between(tmp_path: Path) -> None:
    (tmp_path / "one.safetensors.index.json").touch()
    (tmp_path / "two.safetensors.index.json").touch()
    assert refusal(tmp_path).code == "ambiguous"


def test_a_directory_without_a_checkpoint_says_what_it_holds(tmp_path: Path) -> None:
    assert refusal(tmp_path).got == "nothing"
    for number in range(20):
        (tmp_path / f"note-{number:02}.txt").touch()
    finding = refusal(tmp_path)
    assert finding.code == "absent"
    assert finding.hint is None
    assert finding.got is not None
    assert finding.got.endswith("note-11.txt and 8 more")
    (tmp_path / "model.pth").touch()
    hint = refusal(tmp_path).hint
    assert hint is not None
    assert f"convert import {tmp_path / 'model.pth'} " in hint


@pytest.mark.parametrize("name", ["s2mel.pth", "model.PT", "pytorch_model.bin", "last.ckpt"])
def test_a_pickle_is_refused_unread_with_a_way_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"cos\nsystem\n(S'touch marker'\ntR.")
    finding = refusal(path)
    assert finding.code == "kind"
    assert finding.hint is not None
    assert f"convert import {path} {path.with_suffix('.safetensors')}" in finding.hint


@pytest.mark.parametrize(
    "name", ["a.safetensors", INDEX, "header.json", "model.pth", "model", "no/such/dir"]
)
def test_what_is_absent_is_said_to_be_absent(tmp_path: Path, name: str) -> None:
    assert refusal(tmp_path / name).code == "absent"


def test_another_kind_of_file_is_told_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.touch()
    finding = refusal(path)
    assert finding.code == "kind"
    assert finding.hint is None
    assert finding.expected is not None
    assert ".safetensors" in finding.expected


def test_a_path_that_no_system_can_have_is_refused() -> None:
    with pytest.raises(SourceError, match="null"):
        open_source("a\0b.safetensors")
    with pytest.raises(SourceError, match="too long"):
        open_source("n" * 300 + ".safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_a_pipe_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    for name in ("a.safetensors", INDEX, "header.json"):
        os.mkfifo(tmp_path / name)
        assert refusal(tmp_path / name).what == "not a regular file"


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs a device")
def test_a_device_is_refused_and_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> int:
        raise AssertionError("opening a device can have effects of its own")

    (tmp_path / "a.safetensors").symlink_to("/dev/zero")
    monkeypatch.setattr(os, "open", opened)
    assert refusal(tmp_path / "a.safetensors").what == "not a regular file"


def test_a_directory_named_as_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.mkdir()
    assert refusal(path).what == "there is no checkpoint in the directory"
    with pytest.raises(SourceError, match="not a regular file"):
        open_source(tmp_path)


def test_a_file_without_permission_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:  # root may read everything
        raise PermissionError(errno.EACCES, "Permission denied")

    path = save(tmp_path / "a.safetensors")
    monkeypatch.setattr(os, "open", refuse)
    assert refusal(path).what == "the file cannot be read: Permission denied"


def test_paths_may_hold_spaces_and_letters_of_any_script(tmp_path: Path) -> None:
    directory = tmp_path / "重み und Gewichte"
    directory.mkdir()
    save(directory / "模 型.safetensors")
    with open_source(directory) as source:
        assert source.files[0].name == "模 型.safetensors"


def test_sources_need_no_torch_and_no_numpy() -> None:
    program = (
        "import sys, converter.source, converter.publish, converter.write\n"
        "print({'torch', 'numpy', 'safetensors'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
