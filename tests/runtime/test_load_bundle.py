from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import convert_small, small_tensors, write_small
from torch import Tensor, nn

from converter.errors import ExecutionError, MismatchError, SourceError, UsageError
from converter.publish import exchange
from converter.runtime import Check, load_bundle, load_model, load_tensors
from converter.runtime.directory import OpenDirectory, open_files
from converter.runtime.load import load_network
from converter.runtime.networks.gpt import GPT
from converter.runtime.networks.perceiver import Perceiver


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


def exchange_lm(made: Path, out: Path) -> None:
    shutil.rmtree(out / "lm")
    shutil.copytree(made / "other" / "lm", out / "lm")


@pytest.mark.parametrize("check", ["header", "full"])
def test_every_member_is_loaded_by_its_word(check: Check, made: Path) -> None:
    networks = load_bundle(made / "out", check=check)
    assert len(networks) == 7
    assert isinstance(networks["gpt"], GPT)
    assert isinstance(networks["emotion_perceiver"], Perceiver)
    for name, network in networks.items():
        assert not network.training
        tensors = load_tensors(made / "out" / name)
        parameters = network.named_parameters(remove_duplicate=False)
        held: dict[str, Tensor] = {**dict(parameters), **dict(network.named_buffers())}
        assert held.keys() == tensors.keys()
        assert all(torch.equal(held[key], tensor) for key, tensor in tensors.items())


def test_every_member_is_mapped_when_asked(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = {name: member.state_dict() for name, member in load_bundle(made / "out").items()}
    monkeypatch.setattr("converter.runtime.tensors.read_units", None)
    networks = load_bundle(made / "out", mapped=True)
    assert networks.keys() == copies.keys()
    for name, network in networks.items():
        held = network.state_dict()
        assert all(torch.equal(tensor, held[key]) for key, tensor in copies[name].items())


@pytest.mark.cuda
def test_every_tensor_ends_on_the_device_asked(made: Path) -> None:
    for network in load_bundle(made / "out", device="cuda").values():
        assert all(tensor.is_cuda for tensor in network.state_dict().values())


def test_a_member_of_another_bundle_is_refused(made: Path, out: Path) -> None:
    exchange_lm(made, out)
    load_model(out / "lm")
    with pytest.raises(MismatchError) as caught:
        load_bundle(out)
    (finding,) = caught.value.findings
    assert finding.what == "lm is not the member that the bundle was published with"


def test_all_members_that_do_not_belong_are_told_at_once(made: Path, out: Path) -> None:
    exchange_lm(made, out)
    shutil.rmtree(out / "gpt")
    shutil.copytree(out / "decoder", out / "gpt")
    shutil.rmtree(out / "decoder")
    with pytest.raises(MismatchError) as caught:
        load_bundle(out)
    assert {finding.where for finding in caught.value.findings} == {
        str(out / name / "manifest.json") for name in ("lm", "gpt", "decoder")
    }


def test_a_member_exchanged_after_all_are_opened_is_loaded_as_it_was(
    made: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exchange_first(member: OpenDirectory, *arguments: Any, **options: Any) -> nn.Module:
        if member.path.name == "lm":
            exchange_lm(made, out)
        return load_network(member, *arguments, **options)

    monkeypatch.setattr("converter.runtime.bundle.load_network", exchange_first)
    network = load_bundle(out)["lm"]
    tensors = load_tensors(made / "out" / "lm")
    assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())
    with pytest.raises(MismatchError, match="lm is not the member"):
        load_bundle(out)


def test_a_member_exchanged_between_the_check_and_its_opening_is_refused(
    made: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exchange_first(folder: int, stack: ExitStack, **options: Any) -> OpenDirectory:
        if options["path"].name == "gpt":
            text = (made / "other" / "lm" / "manifest.json").read_bytes()
            (out / "lm" / "manifest.json").write_bytes(text)
        return open_files(folder, stack, **options)

    monkeypatch.setattr("converter.runtime.bundle.open_files", exchange_first)
    with pytest.raises(MismatchError, match="lm is not the member") as caught:
        load_bundle(out)
    assert caught.value.findings[0].where == str(out / "lm" / "manifest.json")


@pytest.mark.parametrize("check", ["header", "full"])
def test_a_bundle_that_is_exchanged_while_it_is_loaded_is_the_old_one(
    check: Check, made: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(made / "other", out.with_name("other"))

    def exchange_first(member: OpenDirectory, *arguments: Any, **options: Any) -> nn.Module:
        if other.exists():
            exchange(other, out)
            shutil.rmtree(other)
        return load_network(member, *arguments, **options)

    monkeypatch.setattr("converter.runtime.bundle.load_network", exchange_first)
    network = load_bundle(out, check=check)["lm"]
    tensors = load_tensors(made / "out" / "lm")
    assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())
    load_bundle(out, check=check)


def test_a_link_in_place_of_a_member_is_refused(out: Path) -> None:
    (out / "lm").rename(out.with_name("lm"))
    (out / "lm").symlink_to(out.with_name("lm"))
    with pytest.raises(SourceError, match="lm: not a directory"):
        load_bundle(out)


def test_a_changed_byte_of_the_record_is_seen_when_all_bytes_are_checked(out: Path) -> None:
    text = (out / "bundle.json").read_text()
    (out / "bundle.json").write_text(text.replace("Small originals", "Small Originals"))
    load_bundle(out)
    with pytest.raises(MismatchError, match=r"bundle\.json: not the file that SHA256SUMS"):
        load_bundle(out, check="full")


def test_a_changed_byte_of_a_member_is_seen_when_all_bytes_are_checked(out: Path) -> None:
    path = out / "lm" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(MismatchError):
        load_bundle(out, check="full")


def test_a_single_directory_is_no_bundle_and_the_error_says_so(made: Path) -> None:
    with pytest.raises(SourceError, match="not a bundle"):
        load_bundle(made / "out" / "lm")


def test_a_record_that_leads_elsewhere_is_refused(out: Path) -> None:
    text = (out / "bundle.json").read_text()
    (out / "bundle.json").write_text(text.replace('"lm": {\n   "model"', '"../lm": {\n   "model"'))
    with pytest.raises(SourceError, match="not a bundle, at members"):
        load_bundle(out)


def test_what_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown check"):
        load_bundle(tmp_path, check="some")  # type: ignore[arg-type]
    with pytest.raises((UsageError, ExecutionError)):
        load_bundle(tmp_path, device="cuda:99")
