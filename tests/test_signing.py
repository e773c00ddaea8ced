"""Signatures: made only of what holds, and refused for any other byte, key or file."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import model_signing
import pytest
from bundles import convert_small, small_tensors, write_small
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from toy import convert, toy_tensors

from converter import api, canonical, resources
from converter import manifest as manifests
from converter.cli import main
from converter.digest import sha256
from converter.errors import (
    ConverterError,
    ExecutionError,
    MismatchError,
    SourceError,
    UsageError,
)
from converter.finding import Finding
from converter.publish import locked

PASSWORD = "correct horse"


@dataclass(frozen=True)
class Keys:
    """The paths of a private key and of its public key."""

    private: Path
    public: Path


def write_keys(folder: Path, name: str, key: Any, password: str | None = None) -> Keys:
    encryption = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    keys = Keys(folder / f"{name}.pem", folder / f"{name}.pub")
    pem = serialization.Encoding.PEM
    keys.private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption))
    keys.public.write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return keys


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signing")


@pytest.fixture(scope="module")
def keys(folder: Path) -> Keys:
    return write_keys(folder, "mine", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="module")
def others(folder: Path) -> Keys:
    return write_keys(folder, "other", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    return convert(folder, toy_tensors(), max_shard_size="200B").out


@pytest.fixture(scope="module")
def made_signed(made: Path, keys: Keys, folder: Path) -> Path:
    out = Path(shutil.copytree(made, folder / "signed"))
    api.sign(out, keys.private, jobs=1)
    return out


@pytest.fixture
def unsigned(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


@pytest.fixture
def signed(made_signed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_signed, tmp_path / "out"))


def run(*arguments: str | Path, exit_code: int = 0) -> dict[str, Any]:
    """What a command answers with --json."""
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    document = json.loads(result.stdout)
    jsonschema.validate(document, resources.schema("report"))
    assert (result.exit_code, document["exit_code"]) == (exit_code, exit_code), document
    assert isinstance(document, dict)
    return document


def distrust(directory: Path, public_key: Path) -> Finding:
    """The one reason not to trust a directory; the command leaves with 8 for it."""
    (finding,) = api.verify(directory, public_key=public_key, jobs=1).distrusted
    document = run("verify", directory, "--public-key", public_key, exit_code=8)
    assert document["findings"][0] == finding.as_json()
    assert document["result"]["directories"][-1]["trusted_by"] == []
    return finding


def refusal(error: type[ConverterError], directory: Path, key: Path, **options: Any) -> Finding:
    """Why a directory is not signed, of which nothing may be left in it or beside it."""
    before = tree(directory.parent)
    with pytest.raises(error) as caught:
        api.sign(directory, key, jobs=1, **options)
    assert tree(directory.parent) == before
    return caught.value.findings[0]


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def signed_files(directory: Path) -> dict[str, str]:
    bundle = json.loads((directory / "model.sig").read_text())
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return {item["name"]: item["digest"] for item in payload["predicate"]["resources"]}


def package(*arguments: str | Path) -> bool:
    """Whether the command line of model-signing succeeds."""
    program = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(program, capture_output=True).returncode == 0


# A signature that holds


def test_a_signed_directory_is_trusted_by_its_signature(unsigned: Path, keys: Keys) -> None:
    document = run("sign", unsigned, "--private-key", keys.private)
    assert document["result"]["signature"] == str(unsigned / "model.sig")
    assert document["result"]["public_key_sha256"] == sha256(keys.public.read_bytes())
    answer = run("verify", unsigned, "--public-key", keys.public)
    assert answer["result"]["directories"][0]["trusted_by"] == ["signature"]


def test_every_file_but_the_signature_is_signed(made: Path, made_signed: Path) -> None:
    assert signed_files(made_signed) == {
        path.name: sha256(path.read_bytes()) for path in made.iterdir()
    }


def test_signing_changes_nothing_but_adds_a_file(made: Path, made_signed: Path) -> None:
    after = tree(made_signed)
    assert after.pop("model.sig")
    assert after == tree(made)
    assert api.verify(made_signed).holds


@pytest.mark.skipif(os.name == "nt", reason="modes are those of POSIX")
def test_a_signature_may_be_read_by_all_whatever_the_umask(unsigned: Path, keys: Keys) -> None:
    before = os.umask(0o077)
    try:
        api.sign(unsigned, keys.private, jobs=1)
    finally:
        os.umask(before)
    assert (unsigned / "model.sig").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "curve",
    [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()],
    ids=["P-256", "P-384", "P-521"],
)
def test_keys_of_every_curve_of_the_standard_sign(
    unsigned: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    mine = write_keys(tmp_path, "key", ec.generate_private_key(curve))
    api.sign(unsigned, mine.private, jobs=1)
    assert api.verify(unsigned, public_key=mine.public, jobs=1).trusted_by == ("signature",)


def test_a_signed_directory_may_be_moved_and_renamed(signed: Path, keys: Keys) -> None:
    moved = signed.rename(signed.with_name("dit"))
    assert api.verify(moved, public_key=keys.public).holds


def test_a_directory_is_signed_and_checked_through_a_link(unsigned: Path, keys: Keys) -> None:
    link = unsigned.with_name("current")
    link.symlink_to(unsigned.name)
    api.sign(link, keys.private, jobs=1)
    assert (unsigned / "model.sig").is_file()
    assert api.verify(link, public_key=keys.public, jobs=1).holds


def test_the_working_directory_is_signed(
    unsigned: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(unsigned)
    run("sign", ".", "--private-key", keys.private)
    run("verify", ".", "--public-key", keys.public)


def test_each_directory_of_a_folder_must_be_signed(
    unsigned: Path, made_signed: Path, keys: Keys
) -> None:
    shutil.copytree(made_signed, unsigned.parent / "second")
    answer = run("verify", unsigned.parent, "--public-key", keys.public, exit_code=8)
    trusted = {Path(d["directory"]).name: d["trusted_by"] for d in answer["result"]["directories"]}
    assert trusted == {"out": [], "second": ["signature"]}


# The package that others use


def test_the_package_itself_accepts_a_signature(signed: Path, keys: Keys) -> None:
    check = ("verify", "key", signed, "--signature", signed / "model.sig", "--public_key")
    assert package(*check, keys.public)
    (signed / "manifest.json").write_text("{}")
    assert not package(*check, keys.public)


def test_a_signature_by_the_package_itself_is_accepted(unsigned: Path, keys: Keys) -> None:
    signature = unsigned / "model.sig"
    made = package("sign", "key", unsigned, "--signature", signature, "--private_key", keys.private)
    assert made
    assert api.verify(unsigned, public_key=keys.public, jobs=1).trusted_by == ("signature",)


def test_files_that_a_signer_ignored_are_not_trusted(unsigned: Path, keys: Keys) -> None:
    weights = "model-00001-of-00004.safetensors"
    hashing = model_signing.hashing.Config()
    hashing.set_ignored_paths(paths=["model.sig", weights])
    signer = model_signing.signing.Config()
    signer.use_elliptic_key_signer(private_key=keys.private).set_hashing_config(hashing)
    signer.sign(unsigned, unsigned / "model.sig")
    # For the package it is a signature that holds, whatever that file is.
    lenient = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys.public)
    lenient.verify(unsigned, unsigned / "model.sig")
    assert distrust(unsigned, keys.public).got == f"{weights} (not signed)"


# What was tampered with


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name",
    [
        "model-00001-of-00004.safetensors",
        "model.safetensors.index.json",
        "manifest.json",
        "SHA256SUMS",
    ],
)
def test_a_changed_byte_of_any_file_is_refused(signed: Path, keys: Keys, name: str) -> None:
    flip(signed / name)
    finding = distrust(signed, keys.public)
    assert (finding.code, finding.got) == ("signature", f"{name} (changed)")


def test_a_byte_that_the_level_leaves_unread_is_refused(signed: Path, keys: Keys) -> None:
    flip(signed / "model-00001-of-00004.safetensors")
    assert api.verify(signed, level="header").holds
    verification = api.verify(signed, level="header", public_key=keys.public)
    assert not verification.findings
    assert [finding.code for finding in verification.distrusted] == ["signature"]


def rewrite(directory: Path) -> None:
    """Change what only the manifest says, and all that follows from it."""
    path = directory / "manifest.json"
    manifest = manifests.load(path.read_bytes())
    old = path.read_bytes()
    path.write_bytes(old.replace(b'"A toy with one of everything"', b'"A toy of someone else"'))
    sums = directory / "SHA256SUMS"
    lines = sums.read_text().replace(sha256(old), sha256(path.read_bytes()))
    sums.write_text(lines)
    assert manifest.model.title == "A toy with one of everything"


def test_a_consistent_rewrite_holds_by_itself_and_is_refused(signed: Path, keys: Keys) -> None:
    rewrite(signed)
    assert api.verify(signed).holds
    assert distrust(signed, keys.public).got == "SHA256SUMS (changed), manifest.json (changed)"


def test_other_weights_that_hold_by_themselves_are_refused(
    signed: Path, keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    tensors = {
        name: tensor + 1 for name, tensor in toy_tensors().items() if tensor.is_floating_point()
    }
    other = convert(tmp_path / "other", toy_tensors() | tensors, max_shard_size="200B").out
    shutil.copy(signed / "model.sig", other)
    assert api.verify(other).holds
    assert "manifest.json (changed)" in str(distrust(other, keys.public).got)


@pytest.mark.parametrize("name", ["README.md", ".gitattributes", ".git/config", "sub/model.sig"])
def test_a_file_that_was_not_signed_is_refused(signed: Path, keys: Keys, name: str) -> None:
    (signed / name).parent.mkdir(exist_ok=True)
    (signed / name).write_text("x")
    assert distrust(signed, keys.public).got == f"{name} (not signed)"
    assert api.verify(signed).findings


def test_a_file_that_is_gone_is_refused(signed: Path, keys: Keys) -> None:
    (signed / "SHA256SUMS").unlink()
    assert distrust(signed, keys.public).got == "SHA256SUMS (missing)"


def test_a_link_in_place_of_a_file_is_refused(signed: Path, keys: Keys, tmp_path: Path) -> None:
    moved = (signed / "manifest.json").rename(tmp_path / "manifest.json")
    (signed / "manifest.json").symlink_to(moved)
    assert "symlink" in str(distrust(signed, keys.public).got)


def test_the_key_of_another_is_refused(signed: Path, others: Keys) -> None:
    finding = distrust(signed, others.public)
    assert (finding.code, finding.what) == ("signature", "not a signature by this key")


def test_a_key_that_only_claims_to_be_the_right_one_is_refused(
    unsigned: Path, keys: Keys, others: Keys
) -> None:
    api.sign(unsigned, others.private, jobs=1)
    signature = unsigned / "model.sig"
    claimed = signature.read_text().replace(
        sha256(others.public.read_bytes()), sha256(keys.public.read_bytes())
    )
    signature.write_text(claimed)
    assert distrust(unsigned, keys.public).got == "InvalidSignature"


def test_a_payload_that_was_edited_is_refused(signed: Path, keys: Keys) -> None:
    flip(signed / "model-00001-of-00004.safetensors")
    signature = signed / "model.sig"
    bundle = json.loads(signature.read_text())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).decode()
    for name, digest in signed_files(signed).items():
        payload = payload.replace(digest, sha256((signed / name).read_bytes()))
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload.encode()).decode()
    signature.write_text(json.dumps(bundle))
    assert distrust(signed, keys.public).what == "not a signature by this key"


# What is no signature


def test_no_signature_is_refused(unsigned: Path, keys: Keys) -> None:
    finding = distrust(unsigned, keys.public)
    assert (finding.code, finding.where) == ("unsigned", str(unsigned / "model.sig"))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"garbage",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b"null",
        b'{"verificationMaterial": {}}',
        b'{"verificationMaterial": {"publicKey": {}}, "dsseEnvelope": {"payload": "e30="}}',
        b"[" * 100_000,
        b'{"verificationMaterial": ' + b"9" * 100_000 + b"}",
    ],
    ids=["empty", "text", "binary", "object", "list", "null", "bare", "half", "deep", "digits"],
)
def test_garbage_is_refused(signed: Path, keys: Keys, text: bytes) -> None:
    (signed / "model.sig").write_bytes(text)
    assert distrust(signed, keys.public).what == "not a signature by this key"


def test_an_older_form_of_signature_says_nothing_on_stdout(
    signed: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    signature = signed / "model.sig"
    bundle = json.loads(signature.read_text())
    bundle["verificationMaterial"]["publicKey"] = {}
    signature.write_text(json.dumps(bundle))
    assert api.verify(signed, public_key=keys.public).trusted_by == ("signature",)
    assert capsys.readouterr().out == ""


def test_a_link_is_no_signature(signed: Path, keys: Keys, tmp_path: Path) -> None:
    moved = (signed / "model.sig").rename(tmp_path / "model.sig")
    (signed / "model.sig").symlink_to(moved)
    assert distrust(signed, keys.public).what == "not a regular file"


def test_a_file_too_large_to_be_a_signature_is_not_read(signed: Path, keys: Keys) -> None:
    with (signed / "model.sig").open("r+b") as file:
        file.truncate(1 << 34)
    assert distrust(signed, keys.public).what == "too large for a signature"


# What is not signed


def test_a_directory_that_does_not_hold_is_not_signed(unsigned: Path, keys: Keys) -> None:
    flip(unsigned / "model-00001-of-00004.safetensors")
    finding = refusal(MismatchError, unsigned, keys.private)
    assert finding.code == "digest"
    run("sign", unsigned, "--private-key", keys.private, exit_code=7)


def test_a_digest_of_a_whole_file_that_is_wrong_is_not_signed(unsigned: Path, keys: Keys) -> None:
    path, name = unsigned / "manifest.json", "model-00001-of-00004.safetensors"
    right = sha256((unsigned / name).read_bytes())
    for file in (path, unsigned / "SHA256SUMS"):
        old = path.read_bytes()
        file.write_text(file.read_text().replace(right, "0" * 64))
    sums = unsigned / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(sha256(old), sha256(path.read_bytes())))
    forge_sums(unsigned)
    assert api.verify(unsigned).holds
    finding = refusal(MismatchError, unsigned, keys.private)
    assert (finding.where, finding.got) == (str(unsigned / name), f"sha256 {right}")


def forge_sums(directory: Path) -> None:
    """Write the sums that a manifest asks for, whatever the files are."""
    text = (directory / "manifest.json").read_bytes()
    digests = {file.name: file.sha256 for file in manifests.load(text).files}
    digests["manifest.json"] = sha256(text)
    (directory / "SHA256SUMS").write_bytes(canonical.encode_sums(digests))


@pytest.mark.parametrize("name", ["model-00001-of-00004.safetensors", "SHA256SUMS", "extra"])
def test_what_changes_after_it_was_checked_is_not_signed(
    unsigned: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    check = api.verify

    def then_change(directory: Path, **options: Any) -> Any:
        verification = check(directory, **options)
        with (directory / name).open("ab") as file:
            file.write(b"more")
        return verification

    monkeypatch.setattr(api, "verify", then_change)
    with pytest.raises(MismatchError) as caught:
        api.sign(unsigned, keys.private, jobs=1)
    assert caught.value.findings[0].where == str(unsigned / name)
    assert not (unsigned / "model.sig").exists()


def test_what_is_no_directory_of_convert_is_not_signed(tmp_path: Path, keys: Keys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    assert refusal(SourceError, tmp_path / "absent", keys.private).code == "absent"
    assert refusal(SourceError, tmp_path / "file", keys.private).code == "absent"
    with pytest.raises(SourceError, match="no directory that can be signed"):
        api.sign(tmp_path.anchor, keys.private)
    assert refusal(MismatchError, tmp_path / "empty", keys.private).code == "missing"


# A signature in place of another


def test_a_signature_is_replaced_only_on_demand(signed: Path, keys: Keys, others: Keys) -> None:
    finding = refusal(ExecutionError, signed, others.private)
    assert (finding.code, finding.hint) == ("exists", "give --overwrite to replace it")
    run("sign", signed, "--private-key", others.private, "--overwrite")
    assert api.verify(signed, public_key=others.public).holds
    assert distrust(signed, keys.public)


def test_a_conversion_over_a_signed_directory_takes_the_signature_with_it(
    tmp_path: Path, keys: Keys
) -> None:
    out = convert(tmp_path, toy_tensors()).out
    api.sign(out, keys.private, jobs=1)
    convert(tmp_path, toy_tensors(), overwrite=True)
    assert distrust(out, keys.public).code == "unsigned"


def test_a_failure_leaves_the_signature_that_was_there(
    signed: Path, others: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert refusal(ExecutionError, signed, others.private, overwrite=True).code == "io"


def test_what_a_killed_run_left_is_cleared_away(unsigned: Path, keys: Keys) -> None:
    (unsigned.parent / ".out.partial").write_text("half a signature")
    (unsigned.parent / ".out.lock").write_text("")
    api.sign(unsigned, keys.private, jobs=1)
    assert [path.name for path in unsigned.parent.iterdir()] == ["out"]


def test_nobody_signs_what_is_being_written(unsigned: Path, keys: Keys) -> None:
    with locked(unsigned):
        assert refusal(ExecutionError, unsigned, keys.private).code == "locked"


# Keys


def test_an_encrypted_key_is_opened_by_the_password_of_a_variable(
    unsigned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    mine = write_keys(tmp_path, "key", key, PASSWORD)
    command = ("sign", unsigned, "--private-key", mine.private)
    answer = run(*command, exit_code=2)
    assert "--password-env" in answer["findings"][0]["hint"]
    answer = run(*command, "--password-env", "KEY_PASSWORD", exit_code=2)
    assert answer["findings"][0]["expected"] == "a password in KEY_PASSWORD"
    monkeypatch.setenv("KEY_PASSWORD", "wrong")
    answer = run(*command, "--password-env", "KEY_PASSWORD", exit_code=2)
    assert "wrong" not in json.dumps(answer)
    monkeypatch.setenv("KEY_PASSWORD", PASSWORD)
    run(*command, "--password-env", "KEY_PASSWORD")
    run("verify", unsigned, "--public-key", mine.public)


UNUSABLE: dict[str, Callable[[], Any]] = {
    "another curve": lambda: ec.generate_private_key(ec.SECP256K1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("make", UNUSABLE.values(), ids=UNUSABLE)
def test_a_key_of_another_kind_is_refused(
    unsigned: Path, tmp_path: Path, make: Callable[[], Any]
) -> None:
    other = write_keys(tmp_path, "key", make())
    finding = refusal(UsageError, unsigned, other.private)
    assert (finding.code, finding.where) == ("key", str(other.private))
    answer = run("verify", unsigned, "--public-key", other.public, exit_code=2)
    assert answer["findings"][0]["code"] == "key"


@pytest.mark.parametrize("name", ["absent", "folder", "text", "swapped"])
def test_a_file_that_is_no_key_is_refused(
    unsigned: Path, keys: Keys, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no key")
    swapped = Keys(keys.public, keys.private)
    files = swapped if name == "swapped" else Keys(tmp_path / name, tmp_path / name)
    assert refusal(UsageError, unsigned, files.private).code == "key"
    answer = run("verify", unsigned, "--public-key", files.public, exit_code=2)
    assert answer["findings"][0]["code"] == "key"
    assert "PRIVATE KEY" not in json.dumps(answer)


# A bundle is signed as a whole


@pytest.fixture(scope="module")
def made_bundle(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_small(folder, small_tensors())
    convert_small(folder)
    api.sign(folder / "out", keys.private)
    return folder / "out"


def test_a_bundle_is_signed_with_its_members(made_bundle: Path, keys: Keys) -> None:
    names = set(tree(made_bundle)) - {"model.sig"}
    assert set(signed_files(made_bundle)) == names
    assert {"bundle.json", "SHA256SUMS", "lm/model.safetensors", "lm/manifest.json"} <= names
    assert api.verify(made_bundle, public_key=keys.public).trusted_by == ("signature",)
    check = ("--signature", made_bundle / "model.sig", "--public_key", keys.public)
    assert package("verify", "key", made_bundle, *check)


@pytest.mark.parametrize("name", ["lm/model.safetensors", "lm/manifest.json", "bundle.json"])
def test_a_changed_byte_of_a_bundle_is_refused(
    made_bundle: Path, keys: Keys, tmp_path: Path, name: str
) -> None:
    out = Path(shutil.copytree(made_bundle, tmp_path / "out"))
    flip(out / name)
    assert distrust(out, keys.public).got == f"{name} (changed)"


def test_a_member_of_a_signed_bundle_is_not_signed_itself(made_bundle: Path, keys: Keys) -> None:
    finding = distrust(made_bundle / "lm", keys.public)
    assert finding.code == "unsigned"
    assert "signed with the whole bundle" in str(finding.hint)


# The machine


NO_NETWORK = """
import sys

def watch(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.bind"):
        raise SystemExit(f"the network was used: {event} {arguments}")
    if event == "socket.bind" and arguments[1][0] not in ("::1", "127.0.0.1"):
        raise SystemExit(f"the network was used: {event} {arguments}")

sys.addaudithook(watch)
if sys.argv[1:] == ["probe"]:
    import socket
    socket.create_connection(("127.0.0.1", 9))
from converter.cli import main
main(sys.argv[1:], prog_name="convert")
"""

WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from converter.cli import main
main(sys.argv[1:], prog_name="convert")
"""

WITHOUT_EXTRA = WITHOUT.replace("ABSENT", "('model_signing', 'sigstore', 'cryptography')")


def run_under(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True)


def test_neither_signing_nor_checking_uses_the_network(unsigned: Path, keys: Keys) -> None:
    assert "the network was used" in run_under(NO_NETWORK, "probe").stderr
    for arguments in (
        ("sign", unsigned, "--private-key", keys.private),
        ("verify", unsigned, "--public-key", keys.public),
    ):
        done = run_under(NO_NETWORK, *arguments)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["sign", "verify"])
def test_without_the_extra_a_message_says_how_to_get_it(
    signed: Path, keys: Keys, command: str
) -> None:
    options: Sequence[str | Path] = ("--private-key", keys.private, "--overwrite")
    if command == "verify":
        options = ("--public-key", keys.public)
    done = run_under(WITHOUT_EXTRA, command, signed, *options)
    assert done.returncode == 6
    assert "pip install 'checkpoint-converter[sign]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_signing_and_checking_need_no_torch(unsigned: Path, keys: Keys) -> None:
    without_torch = WITHOUT.replace("ABSENT", "('torch', 'numpy')")
    for arguments in (
        ("sign", unsigned, "--private-key", keys.private),
        ("verify", unsigned, "--public-key", keys.public),
    ):
        done = run_under(without_torch, *arguments)
        assert (done.returncode, done.stderr) == (0, "")


def test_what_needs_no_key_works_without_the_extra(signed: Path) -> None:
    assert run_under(WITHOUT_EXTRA, "verify", signed).returncode == 0


def test_the_private_key_is_copied_nowhere(unsigned: Path, keys: Keys) -> None:
    api.sign(unsigned, keys.private, jobs=1)
    secret = "".join(keys.private.read_text().splitlines()[1:-1])
    assert len(secret) > 100
    found = [path for path in unsigned.iterdir() if secret[:40].encode() in path.read_bytes()]
    assert not found
