"""Reported conversion bugs, each made again in a folder of ``tests/corpus`` and then caught.

A case is a ``case.yaml`` beside the rule files and headers that it needs:

``title``, ``thread``, ``what``
    What it is, the public thread that reported it (``owner/repository#number``), and what went
    wrong there.
``files``
    What is made before any command runs: name → recipe (see ``_make``).
``make``, ``damage``
    Commands that must succeed first, and what is then done to a file.
``bug``, ``exit_code``, ``codes``, ``says``
    The command that must catch the bug, how it ends, the codes of all its findings, and words that
    its text has.
``remake``, ``fixed``
    Commands that must succeed, warnings or not, and commands that succeed without a finding, once
    the bug is mended.

Commands are those of the command line, and ``load_into HEADER DIRECTORY`` and ``load_model
DIRECTORY`` of the runtime, where a module's parameters are those of a header.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor, nn

from converter.cli import main
from converter.errors import ConverterError
from converter.rules import strict_yaml
from converter.runtime import load_into, load_model
from converter.torch_dtypes import TORCH_DTYPES

CASES = Path(__file__).parent / "corpus"
_FIELDS = {"title", "thread", "what", "bug", "exit_code", "codes", "says", "fixed"}
_OPTIONAL = {"files", "make", "damage", "remake", "kind"}
Header = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One reported bug."""

    name: str
    title: str
    thread: str
    kind: str
    what: str
    files: Mapping[str, Any]
    make: Sequence[str]
    damage: Mapping[str, Any]
    bug: str
    exit_code: int
    codes: frozenset[str]
    says: str
    remake: Sequence[str]
    fixed: Sequence[str]

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return CASES / self.name

    @property
    def url(self) -> str:
        """Where the thread is."""
        repository, number = self.thread.split("#")
        return f"https://github.com/{repository}/{self.kind}/{number}"

    @property
    def command(self) -> str:
        """The word of the command that catches it."""
        return self.bug.split()[0]

    @property
    def mended_rules(self) -> set[str]:
        """The rule and bundle files that the mended form is made with."""
        words = [command.split() for command in (*self.remake, *self.fixed)]
        pairs = [pair for line in words for pair in pairwise(line)]
        return {name for option, name in pairs if option in ("lint", "--rules")}


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    exit_code: int
    codes: frozenset[str]
    text: str


def cases() -> Iterator[Case]:
    """Yield every case, by name."""
    for path in sorted(CASES.glob("*/case.yaml")):
        stated: Any = strict_yaml.parse(path.read_bytes(), str(path)).value
        unknown = stated.keys() - _FIELDS - _OPTIONAL
        assert not unknown, f"{path}: {unknown}"
        assert stated.keys() >= _FIELDS, f"{path}: {_FIELDS - stated.keys()}"
        yield Case(
            name=path.parent.name,
            title=stated["title"],
            thread=stated["thread"],
            kind=stated.get("kind", "issues"),
            what=" ".join(stated["what"].split()),
            files=stated.get("files", {}),
            make=stated.get("make", []),
            damage=stated.get("damage", {}),
            bug=stated["bug"],
            exit_code=stated["exit_code"],
            codes=frozenset(stated["codes"]),
            says=stated["says"],
            remake=stated.get("remake", []),
            fixed=stated["fixed"],
        )


@contextmanager
def prepared(case: Case, folder: Path) -> Iterator[None]:
    """Work in ``folder``, with the files of a case, until the context ends."""
    shutil.copytree(case.folder, folder, dirs_exist_ok=True)
    for name, recipe in case.files.items():
        _make(folder, name, recipe)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def catch(case: Case) -> Answer:
    """Return how the command that must catch the bug ends, in a prepared folder."""
    succeed(case.make)
    if case.damage:
        path = Path(case.damage["file"])
        data = bytearray(path.read_bytes())
        data[case.damage["flip_byte"]] ^= 1
        path.write_bytes(data)
    return run(case.bug)


def succeed(commands: Iterable[str]) -> None:
    """Run commands that must succeed."""
    for command in commands:
        made = run(command)
        assert made.exit_code == 0, made.text


def run(command: str) -> Answer:
    """Run a command of the command line or of the runtime."""
    word, *arguments = shlex.split(command)
    if word == "load_into":
        header, out = arguments
        return _loaded(lambda: load_into(_module(json.loads(Path(header).read_text())), out))
    if word == "load_model":
        return _loaded(lambda: load_model(arguments[0]))
    runner = CliRunner()
    shown = runner.invoke(main, [word, *arguments])
    again = [word, *arguments, "--json"]
    if word in ("convert", "trace") and shown.exit_code == 0:
        again.append("--overwrite")
    told = runner.invoke(main, again)
    assert told.exit_code == shown.exit_code, shown.output + told.output
    findings = json.loads(told.stdout)["findings"]
    codes = frozenset(finding["code"] for finding in findings)
    return Answer(shown.exit_code, codes, shown.output.rstrip("\n"))


def _loaded(load: Callable[[], object]) -> Answer:
    try:
        load()
    except ConverterError as error:
        codes = frozenset(finding.code for finding in error.findings)
        text = "\n".join(f"error: {finding.render()}" for finding in error.findings)
        return Answer(error.exit_code, codes, text)
    return Answer(0, frozenset(), "")


def _module(header: Header) -> nn.Module:
    """Return a module on meta whose parameters are those of a header."""
    module = nn.Module()
    for name, spec in header.items():
        owner, *path = module, *name.split(".")
        for part in path[:-1]:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        value = torch.empty(spec["shape"], dtype=TORCH_DTYPES[spec["dtype"]], device="meta")
        owner.register_parameter(path[-1], nn.Parameter(value, requires_grad=False))
    return module


def _make(folder: Path, name: str, recipe: Mapping[str, Any]) -> None:
    """Make one file or folder of a case.

    ``text``: a file of that text. ``copy``: a file of this repository; ``of`` and ``replace``: one
    with other words. ``header``: a checkpoint with the tensors of that header; ``values`` says
    which of them are not drawn at random; ``first_bytes`` how many bytes of the file are there;
    ``shards`` makes it a folder of files with an index, those of ``absent`` left out, and the whole
    under the name ``beside`` too.
    """
    path = folder / name
    if "copy" in recipe:
        shutil.copy(CASES.parent.parent / recipe["copy"], path)
        return
    if "text" in recipe:
        path.write_text(recipe["text"])
        return
    if "of" in recipe:
        path.write_text(_edited(recipe))
        return
    header: Header = json.loads((folder / recipe["header"]).read_text())
    values = recipe.get("values", {})
    tensors: dict[str, Tensor] = {}
    for tensor, spec in header.items():
        tensors[tensor] = _value(tensor, spec, values.get(tensor), tensors)
    if "shards" not in recipe:
        save_file(tensors, path)
        if "first_bytes" in recipe:
            path.write_bytes(path.read_bytes()[: recipe["first_bytes"]])
        return
    path.mkdir()
    index = {tensor: file for file, names in recipe["shards"].items() for tensor in names}
    for file, names in recipe["shards"].items():
        kept = {tensor: tensors[tensor] for tensor in names if tensor in tensors}
        if file not in recipe.get("absent", ()):
            save_file(kept, path / file)
    if "beside" in recipe:
        save_file(tensors, path / recipe["beside"])
    document = {"metadata": {}, "weight_map": index}
    (path / "model.safetensors.index.json").write_text(json.dumps(document))


def _edited(recipe: Mapping[str, Any]) -> str:
    text: str = (CASES.parent.parent / recipe["of"]).read_text("utf-8")
    for old, new in recipe["replace"].items():
        assert old in text
        text = text.replace(old, new)
    return text


def _value(name: str, spec: Mapping[str, Any], kind: Any, made: Mapping[str, Tensor]) -> Tensor:
    """Return a tensor: by default drawn at random, by its name alone."""
    dtype, shape = TORCH_DTYPES[spec["dtype"]], spec["shape"]
    count = torch.Size(shape).numel()
    if kind == "arange" or (kind is None and not dtype.is_floating_point):
        return torch.arange(count).reshape(shape).to(dtype)
    if isinstance(kind, str) and kind.startswith("same as "):
        return made[kind.removeprefix("same as ")].clone()
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    drawn = torch.randn(shape, generator=generator)
    if kind == "fresh":
        return (drawn * 0.02).to(dtype)
    drawn = drawn**3 * (0.05 + zlib.crc32(name.encode()) % 97 / 100) + 0.01
    if kind is not None:
        drawn.view(-1)[0] = float(kind)
    return drawn.to(dtype)
