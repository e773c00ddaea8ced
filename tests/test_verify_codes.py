"""The codes that docs/ci.md promises are those that verify gives, each for what it says."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from forgery import forge, write
from toy import RULES, convert, toy_tensors
from toy_bundle import convert_toys, write_toys

from converter import api, canonical, errors, verify_weights
from converter import manifest as manifests
from converter.errors import ConverterError
from converter.manifest import Manifest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")

# Beside the modules of verify itself: what reads manifests and records, and what api asks.
OTHERS = (
    "api_verify",
    "bundle_record",
    "canonical",
    "cores",
    "header",
    "layout",
    "needed",
    "signing",
    "strict_json",
    "typed_json",
)
# What only sign says.
OF_SIGN = {"exists"}
# What a code that is no constant may be.
COMPUTED = {("typed_json", "what"): {"manifest", "bundle"}}


def promised() -> dict[str, int]:
    """Return code → exit code, as the page has them."""
    rows = re.findall(r"^\| `([a-z-]+)` \| ([0-9]) \| \S", PAGE, flags=re.MULTILINE)
    return {code: int(number) for code, number in rows}


def codes_in(path: Path) -> Iterator[str]:
    """Yield the codes of the findings and errors that a module makes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        kind = getattr(errors, node.func.id, None)
        is_error = isinstance(kind, type) and issubclass(kind, ConverterError)
        if not is_error and node.func.id != "Finding":
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        code = given[0] if given else None if is_error else node.args[0]
        if code is None:
            yield kind.default_code  # type: ignore[union-attr]
        elif isinstance(code, ast.Constant):
            yield str(code.value)
        else:
            yield from COMPUTED[path.stem, ast.unparse(code)]


def test_the_page_lists_the_codes_that_there_are() -> None:
    modules = [*(ROOT / "converter").glob("verify*.py")]
    modules += [ROOT / "converter" / f"{name}.py" for name in OTHERS]
    codes = {code for path in modules for code in codes_in(path)}
    assert sorted(codes - OF_SIGN) == sorted(promised())
    assert len(codes) > 20


# Each of them, for real


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codes")
    convert(folder, toy_tensors(), max_shard_size="200B")
    write_toys(folder / "toys")
    convert_toys(folder / "toys")
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "right.pub").write_bytes(key.public_bytes(serialization.Encoding.PEM, form))
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with ``out``, of four shards, its source and rules, ``toys``, a key."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def edit(change: Callable[[Manifest], Manifest]) -> Callable[[], None]:
    """Return what edits the manifest, and writes the sums that it then has."""
    return lambda: write(
        Path("out"), change(manifests.load(Path("out/manifest.json").read_bytes()))
    )


def overwrite(name: str, text: str) -> Callable[[], object]:
    return lambda: Path(name).write_text(text)


def flip(name: str, at: int) -> Callable[[], None]:
    def damage() -> None:
        data = bytearray(Path(name).read_bytes())
        data[at] ^= 1
        Path(name).write_bytes(data)

    return damage


def swap_members() -> None:
    shutil.rmtree("toys/out/left")
    shutil.copytree("toys/out/right", "toys/out/left")


def pin(*lines: str) -> Callable[[], object]:
    return overwrite("pins", "".join(f"{line}\n" for line in lines))


FIRST = "out/model-00001-of-00004.safetensors"
ZEROS = "0" * 64
SOURCE = {"source": "toy.safetensors", "rules": "toy.yaml"}

CASES: dict[str, tuple[Callable[[], object], dict[str, Any]]] = {
    "absent": (lambda: shutil.rmtree("out"), {}),
    "boolean": (lambda: forge(Path("out"), "mask", flip=2), {}),
    "bundle": (swap_members, {}),
    "derived": (lambda: forge(Path("out"), "embedding.weight"), SOURCE),
    "differs": (edit(lambda m: replace(m, content_sha256=ZEROS)), {}),
    "digest": (flip("out/model-00004-of-00004.safetensors", -1), {}),
    "extra": (lambda: Path("out/notes").touch(), {}),
    "format": (overwrite("out/manifest.json", '{"format": 2}'), {}),
    "header": (flip(FIRST, 20), {}),
    "json": (overwrite("out/manifest.json", "{"), {}),
    "key": (overwrite("key.pub", "none"), {"public_key": "key.pub"}),
    "kind": (lambda: Path("out/folder").mkdir(), {}),
    "layout": (
        edit(lambda m: replace(m, tensors=(replace(m.tensors[0], offset=1), *m.tensors[1:]))),
        {},
    ),
    "link": (lambda: Path("toys/link").symlink_to("nowhere"), {}),
    "manifest": (overwrite("out/manifest.json", '{"format": 1}'), {}),
    "missing": (lambda: Path(FIRST).unlink(), {}),
    "pin": (lambda: None, {"manifest_sha256": ZEROS}),
    "pin-missing": (pin(f"{ZEROS}  elsewhere/manifest.json"), {"pins": "pins"}),
    "pin-unused": (pin(f"{ZEROS}  out/gone/manifest.json"), {"pins": "pins"}),
    "pins": (pin("nothing of the kind"), {"pins": "pins"}),
    "rules": (overwrite("toy.yaml", RULES + "#"), SOURCE),
    "signature": (overwrite("out/model.sig", "none"), {"public_key": "right.pub"}),
    "size": (overwrite(FIRST, ""), {}),
    "source": (lambda: Path("toy.safetensors").rename("other.safetensors"), SOURCE),
    "unsigned": (lambda: None, {"public_key": "right.pub"}),
    "usage": (lambda: None, {"manifest_sha256": ""}),
}


def patched(code: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make the machine one on which a code comes up; return the options for it."""

    def ending(*_: object) -> str:
        raise EOFError("the file ends")

    def refusing(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    if code == "execution":
        monkeypatch.setattr(canonical, "MAX_HEADER_BYTES", 100)
    elif code == "io":
        monkeypatch.setattr(Path, "read_bytes", refusing)
    elif code == "not-installed":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        return SOURCE
    elif code == "unreadable":
        monkeypatch.setattr(verify_weights, "sha256_range", ending)
    return {}


@pytest.mark.parametrize("code", promised())
def test_every_code_comes_up_with_its_exit_code(
    here: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if code in CASES:
        damage, options = CASES[code]
        damage()
    else:
        options = patched(code, monkeypatch)
    if code == "source":
        options = {**options, "source": "other.safetensors"}
    directory = {"bundle": "toys/out", "link": "toys"}.get(code, "out")
    try:
        verdict = api.verify_all([directory], **options)
    except ConverterError as error:
        found, exit_code = {f.code for f in error.findings}, error.exit_code
    else:
        found = {f.code for check in verdict.checked for f in (*check.findings, *check.distrusted)}
        found |= {f.code for f in verdict.findings}
        found |= {f.code for error in verdict.errors for f in error.findings}
        exit_code = verdict.exit_code
    assert code in found
    assert exit_code == promised()[code]
