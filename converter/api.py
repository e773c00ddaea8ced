"""Everything that the command line does, as functions.

    >>> from converter import api
    >>> api.plan("s2mel.json", model="dit").used            # doctest: +SKIP
    239

Each raises the exceptions of ``converter.errors``; their exit codes are those of the commands.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from converter import bundle as bundling
from converter import describe as describing
from converter import resources
from converter import verify as verifying
from converter.bind import bind
from converter.bundle import BundleConversion, BundlePlan
from converter.bundle_members import lint_bundle
from converter.bundle_record import BUNDLE_NAME
from converter.canonical import parse_size
from converter.cores import available_cores
from converter.describe import Description
from converter.errors import ExecutionError, PlanError, RuleError, UsageError
from converter.finding import Finding, closest
from converter.manifest import Dim
from converter.plan import Plan
from converter.progress import Progress
from converter.rules import bundle_file as bundle_files
from converter.rules import lint as linting
from converter.rules import parse
from converter.rules.bundle_file import BundleFile
from converter.rules.rule_file import RuleFile
from converter.rules.settings import Settings, choices, resolve
from converter.source import open_source
from converter.spec import Header
from converter.steps.dtypes import FLOATS
from converter.verify import Level, Verification
from converter.verify_bundle import verify_bundle

if TYPE_CHECKING:
    from converter.conversion import Conversion


PathLike = str | os.PathLike[str]


class Rules(TypedDict, total=False):
    """Which rules are meant, and for which settings.

    Exactly one of ``model`` (a model that comes with this package) and ``rules`` (a rule file).
    ``variant`` has at most one of each axis, as a sequence or as text with commas; ``dims``
    overrides dims; ``scope`` overrides the file's scope by one prefix; ``source_prefix`` stands
    before every name of the source.
    """

    model: str | None
    rules: PathLike | None
    variant: str | Sequence[str]
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
    _require_torch()
    from converter.conversion import carry_out

    make_plan = _binder(dtype, max_shard_size, rules)
    with open_source(source) as opened:
        made = make_plan(opened.header)
        workers = _workers(jobs)
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
    make_plan = _binder(dtype, max_shard_size, rules)
    with open_source(source) as opened:
        return make_plan(opened.header)


def convert_bundle(
    bundle: str,
    folder: PathLike,
    out: PathLike,
    *,
    dims: Mapping[str, Mapping[str, Dim]] | None = None,
    source_prefixes: Mapping[str, str] | None = None,
    jobs: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> BundleConversion:
    """Convert every member of a bundle from the sources below ``folder``, all or nothing.

    ``bundle`` is the name of one that comes with this package, or the path of a ``.yaml``;
    ``dims`` overrides dims by member, ``source_prefixes`` the prefix of a source's names. Raises
    any ConverterError.
    """
    _require_torch()
    with _planned(bundle, folder, dims, source_prefixes) as made:
        workers = _workers(jobs)
        return bundling.carry_out(
            made, Path(out), jobs=workers, overwrite=overwrite, progress=progress
        )


def plan_bundle(
    bundle: str,
    folder: PathLike,
    *,
    dims: Mapping[str, Mapping[str, Dim]] | None = None,
    source_prefixes: Mapping[str, str] | None = None,
) -> BundlePlan:
    """Return what ``convert_bundle`` would do, from headers alone. Its sources are closed again."""
    with _planned(bundle, folder, dims, source_prefixes) as made:
        return made


def _planned(
    bundle: str,
    folder: PathLike,
    dims: Mapping[str, Mapping[str, Dim]] | None,
    source_prefixes: Mapping[str, str] | None,
) -> AbstractContextManager[BundlePlan]:
    return bundling.planned(
        bundle_files.load(resources.bundle_file(bundle)),
        Path(folder),
        dims=dims or {},
        source_prefixes=source_prefixes or {},
    )


def verify(
    directory: PathLike,
    *,
    level: Level = "full",
    jobs: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Verification:
    """Check a canonical directory, or a bundle of them; differences are in the result.

    ``level="header"`` leaves the data of tensors unread. Raises SourceError when there is no such
    directory, UsageError when there is no such level.
    """
    path = Path(directory)
    check = verify_bundle if os.path.exists(path / BUNDLE_NAME) else verifying.verify
    return check(path, level=level, jobs=_workers(jobs), progress=progress)


def lint(rules: PathLike) -> tuple[Finding, ...]:
    """Return what is wrong with a rule or bundle file by itself.

    A rule file is checked as it stands and under each variant; a bundle file with its members.
    """
    if bundle_files.is_bundle(Path(rules)):
        return lint_bundle(Path(rules))
    found: list[Finding] = []
    try:
        rule_file = parse.load(Path(rules))
    except RuleError as error:
        return error.findings
    for variant in choices(rule_file):
        try:
            found += linting.lint(rule_file, resolve(rule_file, variant=variant))
        except (RuleError, PlanError, UsageError) as error:
            found += error.findings
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


def bundle_paths() -> tuple[Path, ...]:
    """Return the paths of the bundle files that come with this package."""
    return tuple(resources.bundle_files().values())


def bundles() -> list[BundleFile]:
    """Return the bundle files that come with this package."""
    return [bundle_files.load(path) for path in bundle_paths()]


def _binder(
    dtype: str | None, max_shard_size: str | None, rules: Rules
) -> Callable[[Header], Plan]:
    """Return what makes the plan of a header, once all that the caller chose is known to exist."""
    rule_file, settings = _resolved(rules)
    return functools.partial(
        bind,
        rule_file,
        settings=settings,
        dtype=None if dtype is None else _float_dtype(dtype),
        max_shard_bytes=None if max_shard_size is None else parse_size(max_shard_size),
    )


def _resolved(rules: Rules) -> tuple[RuleFile, Settings]:
    if unknown := sorted(rules.keys() - Rules.__annotations__.keys()):
        raise TypeError(f"there is no argument {unknown[0]!r}")
    named, path = rules.get("model"), rules.get("rules")
    if (named is None) == (path is None):
        raise UsageError(
            "exactly one of a model and a rule file is needed",
            expected="--model NAME or --rules FILE",
            hint="convert models lists the models",
        )
    rule_file = model(named) if named is not None else parse.load(Path(path or ""))
    variant = rules.get("variant", ())
    settings = resolve(
        rule_file,
        variant=variant.split(",") if isinstance(variant, str) else variant,
        dims=rules.get("dims"),
        scope=rules.get("scope"),
        source_prefix=rules.get("source_prefix", ""),
    )
    return rule_file, settings


def _workers(jobs: int | None) -> int:
    if jobs is not None and jobs < 1:
        raise UsageError("the number of workers", expected="1 or more", got=str(jobs))
    return jobs or available_cores()


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise ExecutionError(
            "a conversion needs torch, which is not installed",
            code="torch",
            hint="pip install torch; inspect, plan, lint, models and verify work without it",
        )


def _float_dtype(name: str) -> str:
    """Return the safetensors spelling of a floating dtype, whatever its case."""
    if name.upper() not in FLOATS:
        near = closest(name.upper(), FLOATS)
        raise UsageError(
            f"{name!r} is not a floating dtype that can be cast to",
            expected=f"one of {', '.join(FLOATS)}",
            hint=f"did you mean {near}?" if near else None,
        )
    return name.upper()
