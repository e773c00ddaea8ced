"""Everything that the command line does, as functions.

    >>> from converter import api
    >>> api.plan("s2mel.json", model="dit").used            # doctest: +SKIP
    239

Each raises the exceptions of ``converter.errors``; their exit codes are those of the commands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

from converter import bundle as bundling
from converter import resources, signing
from converter.api_compare import compare as compare
from converter.api_diff import diff as diff
from converter.api_explain import explain_directory as explain_directory
from converter.api_html import report as report
from converter.api_import import import_bundle as import_bundle
from converter.api_import import import_checkpoint as import_checkpoint
from converter.api_inspect import inspect as inspect
from converter.api_lint import lint as lint
from converter.api_lint import linted as linted
from converter.api_models import bundle_paths as bundle_paths
from converter.api_models import bundles as bundles
from converter.api_models import describe_model as describe_model
from converter.api_models import model as model
from converter.api_models import models as models
from converter.api_models import rule_paths as rule_paths
from converter.api_reverse import reverse as reverse
from converter.api_scaffold import scaffold as scaffold
from converter.api_trace import trace as trace
from converter.api_verify import PathLike
from converter.api_verify import verify as verify
from converter.api_verify import verify_all as verify_all
from converter.api_verify import verify_source as verify_source
from converter.bind import bind
from converter.bundle import BundleConversion, BundlePlan
from converter.canonical import parse_size
from converter.cores import workers
from converter.errors import UsageError
from converter.explain import Explanation
from converter.explain_plan import explain_plan
from converter.finding import Finding, closest
from converter.manifest import Dim
from converter.needed import require_numpy
from converter.plan import Plan
from converter.progress import Progress, unheard
from converter.record import opened_beside
from converter.rules import bundle_file as bundle_files
from converter.rules import parse
from converter.rules.rule_file import RuleFile
from converter.rules.settings import Settings, resolve
from converter.signing import Signed
from converter.source import open_source
from converter.spec import Header
from converter.steps.dtypes import FLOATS

if TYPE_CHECKING:
    from converter.conversion import Conversion, Executor

EXECUTORS = ("local", "ray")


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
    executor: str = "local",
    ray_address: str | None = None,
    overwrite: bool = False,
    progress: Progress = unheard,
    **rules: Unpack[Rules],
) -> Conversion:
    """Convert a checkpoint into the canonical directory ``out``, complete or not at all.

    ``dtype`` is a safetensors dtype for every floating tensor; ``max_shard_size`` is text such as
    ``5GB``; ``jobs`` is the number of workers, by default one per core. ``executor`` is ``local``,
    or ``ray``: then each output file is a task of the cluster at ``ray_address``, by default that
    of RAY_ADDRESS or else a local one, and has ``jobs`` workers, by default one. Raises any
    ConverterError.
    """
    require_numpy("a conversion")
    chosen = _executor(executor, ray_address, jobs)
    with opened_beside(source, digested=chosen.executor is None) as opening:
        from converter.conversion import carry_out

        make_plan = _binder(dtype, max_shard_size, rules)
        opened = opening.source()
        conversion = carry_out(
            make_plan(opened.header),
            opened,
            Path(out),
            jobs=chosen.jobs,
            overwrite=overwrite,
            progress=progress,
            executor=chosen.executor,
            digests=opening.records,
        )
    noticed = chosen.notice([conversion.plan])
    return replace(conversion, warnings=(*conversion.warnings, *noticed))


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
    executor: str = "local",
    ray_address: str | None = None,
    overwrite: bool = False,
    progress: Progress = unheard,
) -> BundleConversion:
    """Convert every member of a bundle from the sources below ``folder``, all or nothing.

    ``bundle`` is the name of one that comes with this package, or the path of a ``.yaml``;
    ``dims`` overrides dims by member, ``source_prefixes`` the prefix of a source's names. The rest
    is as for ``convert``. Raises any ConverterError.
    """
    require_numpy("a conversion")
    chosen = _executor(executor, ray_address, jobs)
    with _planned(bundle, folder, dims, source_prefixes) as made:
        conversion = bundling.carry_out(
            made,
            Path(out),
            jobs=chosen.jobs,
            overwrite=overwrite,
            progress=progress,
            executor=chosen.executor,
        )
    noticed = chosen.notice(made.plans.values())
    return replace(conversion, warnings=(*conversion.warnings, *noticed))


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


def sign(
    directory: PathLike,
    private_key: PathLike,
    *,
    password: str | None = None,
    overwrite: bool = False,
    jobs: int | None = None,
    progress: Progress = unheard,
) -> Signed:
    """Verify a canonical directory, or a bundle, and write its signature, ``model.sig``, into it.

    ``private_key`` is an elliptic-curve key in PEM, ``password`` what it is encrypted with;
    ``overwrite`` replaces a signature that is there. Raises MismatchError when the directory does
    not hold, UsageError for a key that cannot be used, SourceError, and ExecutionError.
    """
    return signing.sign(
        Path(directory),
        private_key=Path(private_key),
        password=password,
        overwrite=overwrite,
        jobs=workers(jobs),
        check=functools.partial(verify, jobs=jobs, progress=progress),
    )


def explain(
    name: str,
    path: PathLike,
    *,
    dtype: str | None = None,
    max_shard_size: str | None = None,
    **rules: Unpack[Rules],
) -> Explanation:
    """Trace a tensor, or all whose names begin with what is before a final ``**``.

    ``path`` is a canonical directory; or, with ``rules``, a checkpoint or its header, explained by
    what ``convert`` would do. Raises UsageError for a name that is not there, and as
    ``explain_directory`` and ``plan`` do.
    """
    if not (dtype or max_shard_size or any(rules.values())):
        return explain_directory(name, path)
    make_plan = _binder(dtype, max_shard_size, rules)
    with open_source(path) as opened:
        return explain_plan(name, make_plan(opened.header), opened.header)


class _Chosen(NamedTuple):
    """Who makes the files of a conversion, each with how many workers, and what to say of that.

    ``executor`` is None for this process.
    """

    executor: Executor | None
    jobs: int
    notice: Callable[[Iterable[Plan]], Sequence[Finding]]


def _executor(name: str, ray_address: str | None, jobs: int | None) -> _Chosen:
    if name == "ray":
        from converter.ray_cluster import require_ray
        from converter.ray_executor import on_ray, too_few_files

        require_ray()
        jobs = workers(1 if jobs is None else jobs)
        ray = functools.partial(on_ray, ray_address, jobs)
        return _Chosen(ray, jobs, too_few_files)
    if name != "local":
        raise UsageError(
            f"there is no executor {name!r}", expected=f"one of {', '.join(EXECUTORS)}"
        )
    if ray_address is not None:
        raise UsageError("an address of Ray without its executor", hint="give --executor ray too")
    return _Chosen(None, workers(jobs), lambda plans: ())


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
