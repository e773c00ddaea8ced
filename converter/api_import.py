"""The import of pickles, as functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from converter import resources
from converter.api_verify import PathLike
from converter.finding import Finding
from converter.needed import require_numpy, require_torch
from converter.progress import Progress, unheard
from converter.rules import bundle_file as bundle_files

if TYPE_CHECKING:
    from converter.pickle_bundle import ImportedBundle
    from converter.pickle_import import Imported, Notice


def _say_nothing(finding: Finding) -> None:
    pass


def import_checkpoint(
    source: PathLike,
    out: PathLike,
    *,
    unwrap: str | None = None,
    overwrite: bool = False,
    progress: Progress = unheard,
    notice: Notice = _say_nothing,
) -> Imported:
    """Write the tensors of a pickle that ``torch.save`` wrote to the safetensors file ``out``.

    ``unwrap`` is the dotted path of the subtree that is meant; without it there may be nothing but
    tensors in the file. ``notice`` is told, before it is done, what costs much memory. Nothing in
    ``source`` is run: what asks for code is refused. Raises UsageError, SourceError and
    ExecutionError.
    """
    require_torch("an import")
    require_numpy("an import")
    from converter.pickle_import import import_file

    return import_file(
        Path(source),
        Path(out),
        unwrap=unwrap or "",
        overwrite=overwrite,
        progress=progress,
        notice=notice,
    )


def import_bundle(
    bundle: str,
    folder: PathLike,
    out: PathLike,
    *,
    progress: Progress = unheard,
    notice: Notice = _say_nothing,
) -> ImportedBundle:
    """Write the sources of a bundle into the new folder ``out``, from their published files.

    ``bundle`` is the name of one that comes with this package, or the path of a ``.yaml``. Pickles
    are imported, safetensors are copied, all or nothing. Raises RuleError, and as
    ``import_checkpoint``.
    """
    require_torch("an import")
    require_numpy("an import")
    from converter.pickle_bundle import import_bundle as carry_out

    return carry_out(
        bundle_files.load(resources.bundle_file(bundle)),
        Path(folder),
        Path(out),
        progress=progress,
        notice=notice,
    )
