"""The exceptions of this package.

    ConverterError            1   never raised itself
    ├── UsageError            2   the caller asked for something that does not exist
    ├── RuleError             3   a rule file is wrong by itself
    ├── SourceError           4   a source is absent, unreadable, malformed or unsafe
    ├── PlanError             5   rules and source do not fit
    │   └── StepError         5   a step cannot take these tensors (bare fact, no names)
    ├── ExecutionError        6   a conversion could not be carried out
    │   └── ValueRefusedError 6   the values of a tensor are refused (overflow, NaN, a false expect)
    ├── MismatchError         7   things compared are not equal
    └── TrustError            8   a pinned digest or a signature is missing or wrong

The number is the exit code of the command line. Every error carries its findings; text is
rendered last, from their fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from converter.finding import Finding


class ConverterError(Exception):
    """Base of all errors of this package: one or more findings and an exit code."""

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        what: str,
        *,
        code: str | None = None,
        where: str | None = None,
        tensor: str | None = None,
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
    ) -> None:
        finding = Finding(
            code=code or self.default_code,
            what=what,
            where=where,
            tensor=tensor,
            expected=expected,
            got=got,
            hint=hint,
        )
        super().__init__(what)
        self.findings: tuple[Finding, ...] = (finding,)

    @classmethod
    def of(cls, findings: Sequence[Finding]) -> Self:
        """Return one error that carries all ``findings`` (at least one)."""
        error = cls(findings[0].what)
        error.findings = tuple(findings)
        return error

    def __str__(self) -> str:
        return "\n".join(finding.render() for finding in self.findings)


class UsageError(ConverterError):
    """The caller asked for something that does not exist: a model, variant, dim or option."""

    exit_code = 2
    default_code = "usage"


class RuleError(ConverterError):
    """A rule file is wrong by itself."""

    exit_code = 3
    default_code = "rule"


class SourceError(ConverterError):
    """A source is absent, cannot be read, or is malformed or unsafe."""

    exit_code = 4
    default_code = "source"


class PlanError(ConverterError):
    """Rules and source do not fit."""

    exit_code = 5
    default_code = "plan"


class StepError(PlanError):
    """A step cannot take these tensors; raised without names, which the plan adds."""

    default_code = "step"


class ExecutionError(ConverterError):
    """A conversion could not be carried out: values, a target that exists, I/O, a lock."""

    exit_code = 6
    default_code = "execution"


class ValueRefusedError(ExecutionError):
    """The values of a tensor are refused: an overflow, NaN, an ``expect`` that is false."""

    default_code = "values"


class MismatchError(ConverterError):
    """Things compared are not equal: a canonical directory and its manifest, or two sides."""

    exit_code = 7
    default_code = "mismatch"


class TrustError(ConverterError):
    """A pinned digest or a signature is missing or wrong."""

    exit_code = 8
    default_code = "trust"
