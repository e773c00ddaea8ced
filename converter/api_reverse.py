"""The way back from a canonical directory, as a function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from converter.api_verify import PathLike, verify
from converter.cores import workers
from converter.errors import MismatchError, UsageError
from converter.needed import require_numpy
from converter.progress import Progresses, silent

if TYPE_CHECKING:
    from converter.reverse import Reversed


def reverse(
    directory: PathLike,
    out: PathLike,
    *,
    rules: PathLike | None = None,
    allow_lossy: bool = False,
    overwrite: bool = False,
    jobs: int | None = None,
    progress: Progresses = silent,
) -> Reversed:
    """Write the original tensors of a canonical directory to the safetensors file ``out``.

    Every step that is exact is undone bit for bit, and a tensor that was dropped because its value
    is known is made again. ``rules`` is the rule file that was used, by default the one of this
    package. With ``allow_lossy``, tensors that do not come back as they were are made as well as
    can be, or left out; the result names them. The directory is verified in full beforehand.
    ``progress`` is entered with what is being done, and gives who is told how far it is.

    Raises SourceError and MismatchError when the directory does not hold or is not of these rules,
    UsageError for a bundle, and ExecutionError for a loss that is not allowed, and when ``out``
    cannot be written.
    """
    require_numpy("the way back")
    from converter.reverse import carry_out, check_target, plan_reverse

    path, target = Path(directory), Path(out)
    check_target(target, path, overwrite=overwrite)
    with progress("verifying") as told:
        verification = verify(path, jobs=jobs, progress=told)
    if verification.bundle is not None:
        hint = "give one of its directories"
        raise UsageError("a bundle has several models", got=str(path), hint=hint)
    if verification.findings or verification.manifest is None:
        raise MismatchError.of(list(verification.findings))
    reversal = plan_reverse(
        verification.manifest, path, target.name, rules=None if rules is None else Path(rules)
    )
    with progress("writing back") as told:
        return carry_out(
            reversal,
            path,
            target,
            allow_lossy=allow_lossy,
            overwrite=overwrite,
            jobs=workers(jobs),
            progress=told,
        )
