"""Say so where a package is needed and not installed; most commands do without most of them."""

from __future__ import annotations

import importlib.util

from converter.errors import ExecutionError


def require_torch(what: str) -> None:
    """Raise ExecutionError unless torch is installed; ``what`` needs it."""
    _require("torch", what)


def require_numpy(what: str) -> None:
    """Raise ExecutionError unless numpy, and its further dtypes, are installed."""
    _require("numpy", what)
    _require("ml_dtypes", what)


def require_page(what: str) -> None:
    """Raise ExecutionError unless all that a page is made with is installed."""
    for package in ("jinja2", "matplotlib", "numpy", "ml_dtypes"):
        _require(package, what, hint="pip install 'checkpoint-converter[report]'")


def _require(package: str, what: str, *, hint: str | None = None) -> None:
    try:
        is_there = importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # somebody hides it
        is_there = False
    if not is_there:
        raise ExecutionError(
            f"{what} needs {package}, which is not installed",
            code="not-installed",
            hint=hint or f"pip install {package}",
        )
