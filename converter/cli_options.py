"""The options that commands share, and what they mean to the library."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from converter import cli_complete
from converter.errors import UsageError

if TYPE_CHECKING:
    from converter.api import Rules

F = TypeVar("F", bound=Callable[..., Any])


class _FilePath(click.Path):
    """A path; an empty one, such as of a variable that is not set, is not the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("a path is empty", param, ctx)
        return super().convert(value, param, ctx)


FILE = _FilePath(path_type=Path)


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    return lambda command: functools.reduce(lambda done, add: add(done), reversed(options), command)


RULES = _options(
    click.option(
        "--model",
        metavar="NAME",
        shell_complete=cli_complete.models,
        help="A model that comes with this package.",
    ),
    click.option("--rules", type=FILE, metavar="FILE", help="A rule file, in place of --model."),
    click.option(
        "--variant",
        multiple=True,
        metavar="A,B",
        shell_complete=cli_complete.variants,
        help="Variants of the model, at most one of each axis; convert models NAME lists them.",
    ),
    click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="DIM=N",
        shell_complete=cli_complete.dims,
        help="Set a dim; a list as 4,2,2.",
    ),
    click.option("--dims", type=FILE, metavar="FILE", help="Set dims from a YAML file."),
    click.option("--scope", metavar="PREFIX", help="The model's prefix in this source; may be ''."),
    click.option("--source-prefix", metavar="PREFIX", help="A prefix that every name carries."),
)
LAYOUT = _options(
    click.option(
        "--dtype",
        metavar="DTYPE",
        shell_complete=cli_complete.dtypes,
        help="Cast every floating tensor, such as to bf16.",
    ),
    click.option("--max-shard-size", metavar="SIZE", help="Most data in a file, as 5GB."),
)
BUNDLE = click.option(
    "--bundle",
    metavar="NAME",
    shell_complete=cli_complete.bundles,
    help="All models of a pipeline, from a folder; --set MEMBER.DIM=N, --source-prefix SOURCE=P.",
)
TRUST = _options(
    click.option(
        "--manifest-sha256",
        metavar="HEX",
        help="The digest that manifest.json, or the bundle.json of a bundle, must have.",
    ),
    click.option(
        "--pins",
        type=FILE,
        metavar="FILE",
        help="A file of such digests, as sha256sum writes it, one for each directory.",
    ),
    click.option(
        "--public-key",
        type=FILE,
        metavar="KEY",
        help="The public key, in PEM, that each model.sig must be by; see sign.",
    ),
)
JOBS = click.option("--jobs", type=click.IntRange(1), metavar="N", help="Workers; else all cores.")
EXECUTOR = _options(
    click.option(
        "--executor",
        type=click.Choice(["local", "ray"]),
        default="local",
        help="Who converts: this process, or Ray, a task of --jobs cores for each output file.",
    ),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        help="The cluster, as HOST:PORT, auto or local; else RAY_ADDRESS says it, or else local.",
    ),
)
QUIET = click.option(
    "--quiet", is_flag=True, help="Plain text, without a progress bar, colour or tables."
)


def chosen_rules(
    model: str | None,
    rules: Path | None,
    variant: tuple[str, ...],
    sets: tuple[str, ...],
    dims: Path | None,
    scope: str | None,
    source_prefix: str | None,
) -> Rules:
    """Gather the options of ``RULES``."""
    from converter.dims import read_dims

    return {
        "model": model,
        "rules": rules,
        "variant": [name.strip() for text in variant for name in text.split(",")],
        "dims": read_dims(dims, sets),
        "scope": scope,
        "source_prefix": source_prefix or "",
    }


def chosen_bundle(bundle: str, options: dict[str, Any]) -> dict[str, Any]:
    """Gather what ``RULES`` and ``LAYOUT`` mean for a bundle; the rest does not apply to one."""
    from converter.dims import by_member, read_dims, read_prefixes

    dims = by_member(read_dims(options.pop("dims"), options.pop("sets")))
    prefixes = read_prefixes(options.pop("source_prefix") or "")
    if given := [name for name, value in options.items() if value not in (None, ())]:
        option = f"--{given[0].replace('_', '-')}"
        of_member = given[0] not in ("dtype", "max_shard_size")
        raise UsageError(
            f"{option} does not apply to a bundle",
            hint="a bundle file states it for each member; give one of your own"
            if of_member
            else "convert the members one by one",
        )
    return {"bundle": bundle, "dims": dims, "source_prefixes": prefixes}
