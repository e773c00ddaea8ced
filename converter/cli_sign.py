"""The command that signs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converter.cli_answer import progress_bar, reports
from converter.cli_options import FILE, JOBS, QUIET
from converter.errors import UsageError

if TYPE_CHECKING:
    from converter.report import Report


@click.command(epilog="Example:  convert sign converted/dit --private-key key.pem")
@click.argument("directory", type=FILE)
@click.option(
    "--private-key",
    type=FILE,
    required=True,
    metavar="KEY",
    help="An elliptic-curve key (P-256, P-384 or P-521), in PEM.",
)
@click.option(
    "--password-env",
    metavar="VAR",
    help="The environment variable that holds the password of the key.",
)
@click.option("--overwrite", is_flag=True, help="Replace the signature that is there.")
@JOBS
@QUIET
@reports
def sign(
    directory: Path,
    private_key: Path,
    password_env: str | None,
    overwrite: bool,
    jobs: int | None,
    quiet: bool,
) -> Report:
    """Verify the canonical DIRECTORY, or bundle, and sign it: writes model.sig beside its files.

    The key stays on this machine, and no network is used. Whoever has the public key checks the
    signature by  convert verify DIRECTORY --public-key KEY  or with model_signing itself.
    """
    from converter import api, report_sign

    with progress_bar("verifying", quiet=quiet) as progress:
        signed = api.sign(
            directory,
            private_key,
            password=_password(password_env),
            overwrite=overwrite,
            jobs=jobs,
            progress=progress,
        )
    return report_sign.of_signing(directory, signed)


def _password(variable: str | None) -> str | None:
    if variable is None:
        return None
    if variable not in os.environ:
        raise UsageError(
            "the variable that holds the password of the key is not set",
            expected=f"a password in {variable}",
            got="no such variable",
            hint="--password-env takes the name of a variable, not the password",
        )
    return os.environ[variable]
