"""Checks of canonical directories and bundles, as functions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from converter import verify as verifying
from converter.bundle_record import BUNDLE_NAME
from converter.cores import workers
from converter.errors import UsageError
from converter.needed import require_numpy
from converter.progress import Progress, Progresses, silent, unheard
from converter.signing import with_signature
from converter.verify import Depth, Level, Verification
from converter.verify_bundle import verify_bundle
from converter.verify_many import Verdict, verify_many
from converter.verify_pins import check_pins, pin_of, read_pins

PathLike: TypeAlias = "str | os.PathLike[str]"


def verify(
    directory: PathLike,
    *,
    level: Level = "full",
    all_digests: bool = False,
    manifest_sha256: str | None = None,
    public_key: PathLike | None = None,
    jobs: int | None = None,
    progress: Progress = unheard,
) -> Verification:
    """Check a canonical directory, or a bundle of them; differences are in the result.

    ``level="header"`` leaves the data of tensors unread; ``all_digests`` also hashes whole files,
    and whole tensors that have digests of their pieces. ``manifest_sha256`` is the digest that is
    pinned: of ``manifest.json``, or of the ``bundle.json`` of a bundle; ``public_key``, in PEM, is
    the one that ``model.sig`` must be by. Raises SourceError when there is no such directory,
    UsageError for another level and for what is no digest or key, ExecutionError where a key is
    given but the extra ``sign`` is missing.
    """
    path = Path(directory)
    pin = None if manifest_sha256 is None else pin_of(path, manifest_sha256)
    check = verify_bundle if os.path.lexists(path / BUNDLE_NAME) else verifying.verify
    depth = Depth(level, all_digests)
    verification = check(path, depth=depth, jobs=workers(jobs), progress=progress)
    if public_key is not None:
        key = Path(public_key)
        verification = with_signature(verification, public_key=key, jobs=workers(jobs))
    return verification if pin is None else check_pins([verification], [pin], below=())[0]


def verify_source(
    verification: Verification,
    source: PathLike,
    *,
    rules: PathLike | None = None,
    jobs: int | None = None,
    progress: Progress = unheard,
) -> Verification:
    """Derive what was verified from its source again, and add what differs to the result.

    ``source`` is the checkpoint, or the folder of a bundle's; ``rules`` the rule or bundle file, by
    default the one of this package. Nothing is written. For a proof, what was verified must hold
    with ``all_digests``. Raises SourceError, PlanError or ValueRefusedError when this source cannot
    be converted by these rules, RuleError when they are none, ExecutionError without numpy.
    """
    require_numpy("deriving again")
    from converter.verify_source import derive_again
    from converter.verify_source_bundle import derive_bundle_again

    derive = derive_again if verification.bundle is None else derive_bundle_again
    return derive(
        verification,
        Path(source),
        rules=None if rules is None else Path(rules),
        jobs=workers(jobs),
        progress=progress,
    )


def verify_all(
    directories: Iterable[PathLike],
    *,
    level: Level = "full",
    all_digests: bool = False,
    manifest_sha256: str | None = None,
    pins: PathLike | None = None,
    public_key: PathLike | None = None,
    source: PathLike | None = None,
    rules: PathLike | None = None,
    jobs: int | None = None,
    progress: Progresses = silent,
) -> Verdict:
    """Check all canonical directories and bundles at or below ``directories``.

    ``manifest_sha256`` and ``source`` are as for ``verify`` and ``verify_source``, and for one
    directory alone; ``pins`` is a file of digests in the form of ``sha256sum``, one for each
    directory; ``public_key`` is the one that each must be signed with. What cannot be read or
    derived is part of the verdict. Raises UsageError.
    """
    _require_fit(manifest_sha256, pins, source, rules)
    paths = [Path(path) for path in directories]
    known = None if pins is None else read_pins(Path(pins))
    depth = Depth(level, all_digests or source is not None)

    def check(directory: Path) -> Verification:
        with progress("verifying") as told:
            return verify(
                directory,
                level=depth.level,
                all_digests=depth.all_digests,
                manifest_sha256=manifest_sha256,
                jobs=jobs,
                progress=told,
            )

    def hold_signed(verification: Verification) -> Verification:
        assert public_key is not None
        with progress("checking the signature"):
            key = Path(public_key)
            return with_signature(verification, public_key=key, jobs=workers(jobs))

    def derive(verification: Verification) -> Verification:
        assert source is not None
        with progress("deriving again") as told:
            return verify_source(verification, source, rules=rules, jobs=jobs, progress=told)

    verdict = verify_many(
        paths,
        check,
        *([] if public_key is None else [hold_signed]),
        *([] if source is None else [derive]),
        alone="--source" if source is not None else manifest_sha256 and "--manifest-sha256",
    )
    if known is None:
        return verdict
    return replace(verdict, checked=tuple(check_pins(verdict.checked, known, below=paths)))


def _require_fit(
    manifest_sha256: str | None,
    pins: PathLike | None,
    source: PathLike | None,
    rules: PathLike | None,
) -> None:
    """Raise UsageError for options that do not go together."""
    if manifest_sha256 is not None and pins is not None:
        raise UsageError("a digest and a file of digests", expected="one of the two")
    if rules is not None and source is None:
        raise UsageError(
            "rules are for deriving again from a source",
            expected="--source IN beside --rules FILE",
        )
    if source is not None:
        require_numpy("deriving again")
