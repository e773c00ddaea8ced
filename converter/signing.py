"""Signatures of canonical directories and bundles, by OpenSSF model signing and one's own key.

``model.sig`` is a sigstore bundle over the sha256 of every file beside it, those of a bundle's
members included, so that any tool of that standard can check it. Keys stay on this machine, and
nothing here uses the network. It needs the extra ``sign``.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from converter import manifest as manifests
from converter.bundle_record import BUNDLE_NAME
from converter.canonical import MANIFEST_NAME, SIGNATURE_NAME, SUMS_NAME, encode_sums
from converter.digest import sha256
from converter.errors import ExecutionError, MismatchError, SourceError, UsageError
from converter.finding import Finding
from converter.publish import locked, put_file
from converter.verify import Verification
from converter.write import io_errors

if TYPE_CHECKING:
    from model_signing import signing

SIGNED = "signature"

# A signature has some 200 bytes for each file; the largest bundles have a few hundred files.
_MOST_BYTES = 16 << 20
_SHOWN_CHARACTERS = 500

_KEY_HINTS = {
    "private": "openssl ecparam -name prime256v1 -genkey -noout -out key.pem makes one; "
    "--password-env names the variable with the password of an encrypted one",
    "public": "openssl ec -in key.pem -pubout -out key.pub writes that of a private key",
}


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that was made: of which files (name → sha256), and with which key.

    ``public_key_sha256`` is the digest of the public key in PEM, by which signatures name it.
    """

    path: Path
    files: Mapping[str, str]
    public_key_sha256: str


def sign(
    directory: Path,
    *,
    private_key: Path,
    password: str | None = None,
    overwrite: bool = False,
    jobs: int,
    check: Callable[[Path], Verification],
) -> Signed:
    """Write ``model.sig`` into a directory that holds by ``check``; no run writes to it meanwhile.

    ``private_key`` is the path of an elliptic-curve key in PEM, ``password`` what it is encrypted
    with; ``overwrite`` replaces a signature that is there. Raises UsageError for a key that cannot
    be used; SourceError when the directory cannot be read, MismatchError when it does not hold;
    ExecutionError when it is signed already or cannot be written to, or the extra is missing.
    """
    path = _resolve(directory)
    _require_package()
    signer = _signer(private_key, password, jobs)
    with ExitStack() as stack:
        with io_errors(path):
            stack.enter_context(locked(path))
        if os.path.lexists(path / SIGNATURE_NAME) and not overwrite:
            raise ExecutionError(
                "there is a signature already",
                code="exists",
                where=str(directory / SIGNATURE_NAME),
                hint="give --overwrite to replace it",
            )
        verification = check(directory)
        if not verification.holds:
            raise MismatchError.of(verification.findings)
        text = _signature_of(path, signer)
        signed = _read(directory / SIGNATURE_NAME, text)
        _require_verified(verification, signed)
        put_file(path / SIGNATURE_NAME, text)
    return signed


def with_signature(verification: Verification, *, public_key: Path, jobs: int) -> Verification:
    """Hold a directory, or a bundle as a whole, against its ``model.sig`` by this key.

    It must cover every byte of every file but itself, whatever its maker chose to ignore. Raises
    UsageError for a key that cannot be used, SourceError when a file cannot be read,
    ExecutionError when the extra is missing.
    """
    if finding := _wrong_signature(verification.directory, public_key, jobs):
        return replace(verification, distrusted=(*verification.distrusted, finding))
    return replace(verification, trusted_by=(*verification.trusted_by, SIGNED))


def _wrong_signature(directory: Path, public_key: Path, jobs: int) -> Finding | None:
    _require_package()
    from model_signing import verifying

    from converter.signing_files import every_file

    with _key_errors(public_key, "public"):
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    files = every_file(jobs)
    signature = directory / SIGNATURE_NAME
    if unsigned := _no_signature(signature):
        return unsigned
    try:
        # What it has to say about signatures of early versions would spoil an answer in JSON.
        with redirect_stdout(sys.stderr):
            verifier.set_hashing_config(files).verify(directory.resolve(), signature)
    except OSError as error:
        where = str(error.filename or directory)
        raise SourceError(f"cannot be read: {error.strerror}", code="io", where=where) from error
    except Exception as error:  # the package promises no kind of its own
        return _wrong(signature, error, files.digests)
    return None


def _resolve(directory: Path) -> Path:
    path = Path(os.path.realpath(directory))
    if not path.is_dir() or not path.name:
        raise SourceError(
            "no directory that can be signed" if path.exists() else "there is no such directory",
            code="absent",
            where=str(directory),
            hint="give the directory that convert wrote",
        )
    return path


def _require_package() -> None:
    try:
        importlib.import_module("model_signing.signing")
    except ImportError as error:
        raise ExecutionError(
            "signatures need the package model-signing, which is not installed",
            code="not-installed",
            got=str(error),
            hint="pip install 'checkpoint-converter[sign]'",
        ) from error


def _signer(private_key: Path, password: str | None, jobs: int) -> signing.Config:
    from model_signing import signing

    from converter.signing_files import every_file

    secret: Any = None if password is None else password.encode()  # declared as text, used as bytes
    with _key_errors(private_key, "private"):
        signer = signing.Config().use_elliptic_key_signer(private_key=private_key, password=secret)
    return signer.set_hashing_config(every_file(jobs))


@contextmanager
def _key_errors(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever the package raises about a key into a UsageError."""
    try:
        yield
    except Exception as error:  # the package promises no kind of its own
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"a file that cannot be read: {error.strerror}"
        elif isinstance(error, AttributeError):  # a key that has no curve
            reason = "a key of another kind"
        raise UsageError(
            f"not a {kind} key that can be used",
            code="key",
            where=str(path),
            expected="a key on the curve P-256, P-384 or P-521, in PEM",
            got=_shown(reason),
            hint=_KEY_HINTS[kind],
        ) from error


def _signature_of(directory: Path, signer: signing.Config) -> bytes:
    """Return the text of a signature of all files of a directory."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / SIGNATURE_NAME
        try:
            signer.sign(directory, made)
        except OSError as error:
            where = str(error.filename or directory)
            what = f"cannot be signed: {error.strerror}"
            raise ExecutionError(what, code="io", where=where) from error
        return made.read_bytes()


def _read(path: Path, text: bytes) -> Signed:
    """Return what a signature that was just made says."""
    bundle = json.loads(text)
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    files = {item["name"]: item["digest"] for item in statement["predicate"]["resources"]}
    return Signed(path, files, bundle["verificationMaterial"]["publicKey"]["hint"])


def _require_verified(verification: Verification, signed: Signed) -> None:
    """Refuse a signature of other bytes than those that hold: files may change in between."""
    expected = dict(_digests(verification))
    beside = {BUNDLE_NAME, SUMS_NAME} if verification.members else set()
    for name in sorted({*expected, *signed.files}):
        known = name in beside or PurePosixPath(name).name == SIGNATURE_NAME
        if expected.get(name) != signed.files.get(name) and not known:
            raise MismatchError(
                "not the file that was checked, or not the one that the manifest describes",
                code="differs",
                where=str(verification.directory / name),
                expected=f"sha256 {expected.get(name)}",
                got=f"sha256 {signed.files.get(name)}",
                hint="sign again when nothing writes to it; then convert the source again",
            )


def _digests(verification: Verification) -> Iterator[tuple[str, str]]:
    """Yield the files that a verified directory or bundle has, and their digests."""
    for member in verification.members:
        yield from ((f"{member.directory.name}/{name}", one) for name, one in _digests(member))
    if verification.manifest is not None:
        digests = {file.name: file.sha256 for file in verification.manifest.files}
        digests[MANIFEST_NAME] = sha256(manifests.dump(verification.manifest))
        yield from digests.items()
        yield SUMS_NAME, sha256(encode_sums(digests))


def _no_signature(path: Path) -> Finding | None:
    """Return why there is nothing at ``path`` that could be a signature."""
    expected = "the signature of the directory"
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return Finding(
            "unsigned",
            "there is no signature",
            str(path),
            expected=expected,
            hint="get the signed directory from who made it; sign makes signatures of your own. "
            "A member of a bundle is signed with the whole bundle",
        )
    if not stat.S_ISREG(status.st_mode):
        return Finding("unsigned", "not a regular file", str(path), expected=expected)
    if status.st_size > _MOST_BYTES:
        got = f"{status.st_size:,} bytes"
        return Finding("unsigned", "too large for a signature", str(path), expected, got=got)
    return None


def _wrong(path: Path, error: Exception, digests: Mapping[str, str] | None) -> Finding:
    """Return what is wrong with a signature; with ``digests`` it is at least by the right key."""
    if digests is None:
        return Finding(
            "signature",
            "not a signature by this key",
            str(path),
            expected="a sigstore bundle, signed with the private key of this public one",
            got=_shown(str(error).strip() or type(error).__name__),
            hint="check that the key is the signer's; otherwise trust nothing in this directory",
        )
    return Finding(
        "signature",
        "the signature is of other files than these",
        str(path),
        expected="the files that were signed, and no others",
        got=_shown((_differences(path, digests) if digests else "") or str(error)),
        hint="get the directory again from who signed it",
    )


def _differences(path: Path, digests: Mapping[str, str]) -> str:
    """Return which files are not as they were signed; nothing where that cannot be told."""
    try:
        signed = _read(path, path.read_bytes()).files
    except (OSError, ValueError, LookupError, TypeError):
        return ""  # an early form of signature
    kinds = {
        name: "missing" if name not in digests else "changed" if name in signed else "not signed"
        for name in sorted({*digests, *signed})
        if digests.get(name) != signed.get(name)
    }
    return ", ".join(f"{name} ({kind})" for name, kind in kinds.items())


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} …"
