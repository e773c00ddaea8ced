"""Everything that the command line does, as functions.

    >>> from converter import api
    >>> api.plan("s2mel.json", model="dit").used            # doctest: +SKIP
    239

Each raises the exceptions of ``converter.errors``; their exit codes are those of the commands.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from converter import describe as describing
from converter import plan as planning
from converter import resources, spec
from converter import verify as verifying
from converter.canonical import parse_size
from converter.cores import available_cores
from converter.describe import Description
from converter.errors import PlanError, RuleError, UsageError
from converter.finding import Finding, closest
from converter.manifest import Dim
from converter.plan import Plan
from converter.rules import lint as linting
from converter.rules import parse
from converter.rules.rule_file import RuleFile
from converter.rules.settings import Settings, choices, resolve
from converter.source import open_source
from converter.spec import Header
from converter.verify import Level, Verification

if TYPE_CHECKING:
    from converter.conversion import Conversion

Progress = Callable[[int, int], None]  # bytes done now, bytes there are

PathLike = str | os.PathLike[str]


class Rules(TypedDict, total=False):
    """Which rules are meant, and for which settings.

    Exactly one of ``model`` (a model that comes with this package) and ``rules`` (a rule file).
    ``variant`` has at most one of each axis; ``dims`` overrides dims; ``scope`` overrides the
    file's scope by one prefix; ``source_prefix`` stands before every name of the source.
    """

    model: str | None
    rules: PathLike | None
    variant: Sequence[str]
    dims: Mapping[str, Dim] | None
    scope: str | None
    source_prefix: str


def convert(
    source: PathLike,
    out: PathLike,
    *,
    dtype: str | None = None,
    max_shard_size: str | None = None,
    jobs: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    **rules: Unpack[Rules],
) -> Conversion:
    """Convert a checkpoint into the canonical directory ``out``, complete or not at all.

    ``dtype`` is a safetensors dtype for every floating tensor; ``max_shard_size`` is text such as
    ``5GB``; ``jobs`` is the number of workers, by default one per core. Raises any ConverterError.
    """
    from converter.conversion import carry_out

    bind = _binder(dtype, max_shard_size, rules)
    with open_source(source) as opened:
        made = bind(opened.header)
        workers = jobs or available_cores()
        return carry_out(
            made, opened, Path(out), jobs=workers, overwrite=overwrite, progress=progress
        )


def plan(
    source: PathLike,
    *,
    dtype: str | None = None,
    max_shard_size: str | None = None,
    **rules: Unpack[Rules],
) -> Plan:
    """Return what ``convert`` would do, from the header of ``source`` alone.

    ``source`` may be a ``.json`` of names, dtypes and shapes. Raises PlanError with all findings
    when rules and source do not fit, and UsageError, RuleError and SourceError.
    """
    bind = _binder(dtype, max_shard_size, rules)
    with open_source(source) as opened:
        return bind(opened.header)


def verify(
    directory: PathLike,
    *,
    level: Level = "full",
    jobs: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Verification:
    """Check a canonical directory against its manifest; differences are in the result.

    Raises SourceError when there is no such directory.
    """
    workers = jobs or available_cores()
    return verifying.verify(Path(directory), level=level, jobs=workers, progress=progress)


def lint(rules: PathLike) -> tuple[Finding, ...]:
    """Return what is wrong with a rule file by itself, as it stands and under each variant."""
    try:
        rule_file = parse.load(Path(rules))
        found = [
            finding
            for variant in choices(rule_file)
            for finding in linting.lint(rule_file, resolve(rule_file, variant=variant))
        ]
    except (RuleError, PlanError) as error:
        return error.findings
    return tuple(dict.fromkeys(found))


def inspect(source: PathLike) -> Description:
    """Describe a checkpoint from its header. Raises SourceError."""
    with open_source(source) as opened:
        return describing.describe(opened)


def rule_paths() -> tuple[Path, ...]:
    """Return the paths of the rule files that come with this package."""
    return tuple(resources.rule_files().values())


def models() -> list[RuleFile]:
    """Return the rule files that come with this package."""
    return [parse.load(path) for path in rule_paths()]


def model(name: str) -> RuleFile:
    """Return the rule file of one model. Raises UsageError for a name that is not known."""
    return parse.load(resources.rule_file(name))


def _binder(
    dtype: str | None, max_shard_size: str | None, rules: Rules
) -> Callable[[Header], Plan]:
    """Return what makes the plan of a header, once all that the caller chose is known to exist."""
    rule_file, settings = _resolved(rules)
    return functools.partial(
        planning.bind,
        rule_file,
        settings=settings,
        dtype=None if dtype is None else _float_dtype(dtype),
        max_shard_bytes=None if max_shard_size is None else parse_size(max_shard_size),
    )


def _resolved(rules: Rules) -> tuple[RuleFile, Settings]:
    named, path = rules.get("model"), rules.get("rules")
    if (named is None) == (path is None):
        raise UsageError(
            "exactly one of a model and a rule file is needed",
            expected="--model NAME or --rules FILE",
            hint="convert models lists the models",
        )
    rule_file = model(named) if named is not None else parse.load(Path(path or ""))
    settings = resolve(
        rule_file,
        variant=rules.get("variant", ()),
        dims=rules.get("dims"),
        scope=rules.get("scope"),
        source_prefix=rules.get("source_prefix", ""),
    )
    return rule_file, settings


def _float_dtype(name: str) -> str:
    """Return the safetensors spelling of a floating dtype, whatever its case."""
    known = [key for key, dtype in spec.DTYPES.items() if dtype.kind == "float"]
    if name.upper() not in known:
        near = closest(name.upper(), known)
        raise UsageError(
            f"{name!r} is not a floating dtype",
            expected=f"one of {', '.join(known)}",
            hint=f"did you mean {near}?" if near else None,
        )
    return name.upper()
