"""The beginning of a rule file from a checkpoint's header, as a function."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from converter import resources
from converter import scaffold as scaffolding
from converter.errors import UsageError
from converter.publish_file import StagedFile
from converter.scaffold import Scaffold
from converter.source import open_source
from converter.spec import Shape
from converter.write import io_errors

PathLike: TypeAlias = "str | os.PathLike[str]"
_MODEL = re.compile(r"[a-z0-9][a-z0-9-]*")


class Shaped(Protocol):
    """Whatever has a shape: a tensor, an array, a parameter."""

    @property
    def shape(self) -> Sequence[int]:
        """The sizes, the slowest dim first."""
        ...


def scaffold(
    source: PathLike,
    out: PathLike | None = None,
    *,
    target: PathLike | Mapping[str, Shaped] | None = None,
    model: str | None = None,
    scope: str = "",
    overwrite: bool = False,
) -> Scaffold:
    """Begin a rule file from the header of ``source``, and write it to ``out`` if that is given.

    ``target`` is a header of what the tensors shall become: a checkpoint, a ``.json`` of names,
    dtypes and shapes, or the ``state_dict()`` of a module. ``model`` is the model's name, by
    default that of the file that is written, or else of the source. ``scope`` takes only the names
    that begin with it. Raises SourceError, UsageError for a model's name that is none, PlanError
    where names do not fold into rules, and ExecutionError where ``out`` exists or cannot be
    written.
    """
    name = _model_name(model, Path(out if out is not None else source))
    path = None if out is None else Path(out)
    with open_source(source) as opened:
        made = scaffolding.scaffold(
            opened.header,
            model=name,
            origin=Path(source).name or str(source),
            scope=scope,
            target=None if target is None else _target_shapes(target),
            schema=None if path is None else _schema_from(path),
        )
    if path is not None:
        _write(path, made.text, overwrite=overwrite)
    return made


def _model_name(model: str | None, path: Path) -> str:
    if model is None:
        # Unlike Path.resolve before Python 3.13, realpath lets links in a circle be.
        stem = os.path.basename(os.path.realpath(path)).lower()
        stem = stem.removesuffix(".index.json").partition(".")[0]
        model = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")
    if not _MODEL.fullmatch(model):
        raise UsageError(
            f"{model!r} is not the name of a model",
            expected="lower-case letters, digits and -, beginning with no -",
            hint="name it: --model NAME",
        )
    return model


def _target_shapes(target: PathLike | Mapping[str, Shaped]) -> dict[str, Shape]:
    if isinstance(target, Mapping):
        return {name: tuple(map(int, tensor.shape)) for name, tensor in target.items()}
    with open_source(target) as opened:
        return {name: spec.shape for name, spec in opened.header.items()}


def _schema_from(out: Path) -> str | None:
    """Return where the schema lies as seen from the rule file, for editors; None: too far."""
    schema = resources.schema_file("rules")
    try:
        return Path(os.path.relpath(schema, os.path.dirname(os.path.realpath(out)))).as_posix()
    except ValueError:  # another drive
        return None


def _write(out: Path, text: str, *, overwrite: bool) -> None:
    with StagedFile(out, overwrite=overwrite) as staged, io_errors(out):
        staged.path.write_text(text, encoding="utf-8", newline="\n")
        staged.publish()
