"""Where the package's own rule files and schemas lie.

A wheel carries them inside the package; a checkout's own are used when the package runs from
that checkout. The working directory is never searched.
"""

from __future__ import annotations

from pathlib import Path

from converter import strict_json
from converter.errors import UsageError
from converter.finding import closest

_PACKAGE = Path(__file__).resolve().parent


def rule_files() -> dict[str, Path]:
    """Return the models that come with this package: name → rule file, sorted by name."""
    return dict(sorted((path.stem, path) for path in _folder("rules").glob("*.yaml")))


def bundle_files() -> dict[str, Path]:
    """Return the bundles that come with this package: name → bundle file, sorted by name."""
    return {path.stem: path for path in sorted(_folder("rules").glob("bundles/*.yaml"))}


def rule_file(model: str) -> Path:
    """Return the rule file of a model by name. Raises UsageError for a name that is not known."""
    return _known("model", model, rule_files(), "give a rule file by path: --rules FILE")


def bundle_file(bundle: str) -> Path:
    """Return the file of a bundle by name or path. Raises UsageError when there is none."""
    if bundle.endswith(".yaml"):
        return Path(bundle)
    hint = "give a bundle file by path: --bundle FILE.yaml"
    return _known("bundle", bundle, bundle_files(), hint)


def model_or_bundle(name: str) -> Path:
    """Return the file of a model or bundle by name. Raises UsageError for one that is not known."""
    files = {**rule_files(), **bundle_files()}
    return _known("model or bundle", name, files, "your own is named by the path of its .yaml")


def _known(what: str, name: str, files: dict[str, Path], hint: str) -> Path:
    if name not in files:
        near = closest(name, files)
        raise UsageError(
            f"unknown {what} {name!r}",
            expected=f"one of {', '.join(files)}",
            hint=f"did you mean {near!r}?" if near else hint,
        )
    return files[name]


def has_network(model: str) -> bool:
    """Return whether the runtime comes with a network for a model.

    The table of networks is read as text, since to import it would import torch.
    """
    table = (_PACKAGE / "runtime" / "networks" / "__init__.py").read_text(encoding="utf-8")
    return f'"{model}": "converter.runtime.networks.' in table


def schema(name: str) -> dict[str, object]:
    """Return the JSON Schema ``schemas/<name>.schema.json``."""
    path = schema_file(name)
    document = strict_json.parse(path.read_bytes(), where=str(path))
    assert isinstance(document, dict)
    return document


def schema_file(name: str) -> Path:
    """Return where the JSON Schema of that name lies."""
    return _folder("schemas") / f"{name}.schema.json"


def _folder(name: str) -> Path:
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name
