"""What a checkpoint holds, as it is shown and as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from converter.describe import Description
from converter.describe_facts import Fact, Group
from converter.describe_tree import Branch, prefixes_of, tree_of
from converter.finding import counted
from converter.fold import few, fold_names, skeleton
from converter.manifest import Manifest
from converter.report import Report, amount, size_text, spec_json, totals_of
from converter.sheet import Part, Sheet, Slots, Table
from converter.spec import Header, TensorSpec

if TYPE_CHECKING:
    from converter.describe_values import TensorValues

View: TypeAlias = Literal["folded", "tree", "flat"]

_HEAD = ("name", "shape", "dtype", "count", "size")
_STATS = ("mean", "std", "min", "max", "zeros", "NaN", "inf")
_SIZE_COLUMN = frozenset({4})
_MOST_FILES = 12
_MOST_PATTERNS = 6


def of_description(
    path: Path,
    description: Description,
    *,
    view: View = "folded",
    by_size: bool = False,
    with_digests: bool = False,
) -> Report:
    """Report a checkpoint at a glance: names folded, as a tree, or flat with a line for each.

    Where values were read, there is a line for each tensor whatever the view; ``with_digests``
    adds the digests to these.
    """
    tree = tree_of(description.header, by_size=by_size) if view == "tree" else ()
    parts: list[Part] = [_title(path, description), Slots(list(_slots(description)))]
    if view == "tree":
        rows = list(_tree_rows(tree))
        parts += ["", Table(rows, ("name", "shape", "dtype", "tensors", "size"), _SIZE_COLUMN)]
    if description.values:
        parts += ["", _values_table(description, with_digests=with_digests)]
    elif view != "tree":
        rows = list(_flat(description.header) if view == "flat" else _folded(description))
        parts += ["", Table(rows, _HEAD, _SIZE_COLUMN)]
    if description.facts:
        lines = [line for fact in description.facts for line in _fact_lines(fact)]
        parts += ["", "To be seen:", Slots(lines)]
    sheet = Sheet(parts)
    details = partial(_json, path, description, tree)
    return Report("inspect", sheet.text(), details, description.findings, sheet=sheet)


def _title(path: Path, description: Description) -> str:
    header = description.header
    dtypes = "/".join(dict.fromkeys(spec.dtype for spec in header.values()))
    amounts = amount(totals_of(header.values()))
    if len(header) < description.held:
        first, _, rest = amounts.partition(", ")
        amounts = f"{first.split()[0]} of {counted(description.held, 'tensor')}, {rest}"
    return f"{path}: {amounts} {dtypes}".rstrip()


def _slots(description: Description) -> Iterator[tuple[str, str]]:
    files = description.files
    if len(files) > _MOST_FILES:
        size = size_text(sum(file.size_bytes for file in files))
        yield "files", f"{len(files):,}, {files[0].name} to {files[-1].name}, {size}"
    else:
        yield from ((f"file {file.name}", size_text(file.size_bytes)) for file in files)
    yield from ((f"metadata {key}", value) for key, value in description.metadata.items())
    if len(description.dtypes) > 1:
        counts = (f"{dtype} {counted(n, 'tensor')}" for dtype, n in description.dtypes.items())
        yield "dtypes", ", ".join(counts)
    if description.canonical is not None:
        yield from (("canonical", line) for line in _canonical_lines(description.canonical))


def _canonical_lines(manifest: Manifest) -> Iterator[str]:
    model = manifest.model
    variant = f" ({', '.join(model.variant)})" if model.variant else ""
    yield f"{model.name}{variant}: {model.title}"
    sources = ", ".join(file.name for file in manifest.sources)
    yield f"from {sources}, by {manifest.rules.file}, {manifest.tool.name} {manifest.tool.version}"
    yield f"content sha256 {manifest.content_sha256}, as the manifest says"


def _folded(description: Description) -> Iterator[tuple[str, ...]]:
    for row in description.rows:
        count = len(row.names)
        yield _row(row.pattern, row.spec, f"×{count}" if count > 1 else "", row.nbytes)


def _flat(header: Header) -> Iterator[tuple[str, ...]]:
    for name, spec in header.items():
        yield _row(name, spec, "", spec.nbytes)


def _row(name: str, spec: TensorSpec, count: str, nbytes: int) -> tuple[str, ...]:
    return name, _shape(spec), spec.dtype, count, size_text(nbytes)


def _shape(spec: TensorSpec) -> str:
    return str(list(spec.shape))


def _tree_rows(branches: tuple[Branch, ...], guides: str = "") -> Iterator[tuple[str, ...]]:
    for number, branch in enumerate(branches):
        is_last = number == len(branches) - 1
        mark, below = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        name = f"{guides}{mark}{branch.label}"
        if branch.spec is None:
            yield name, "", "", counted(branch.tensors, "tensor"), size_text(branch.nbytes)
        else:
            count = f"×{branch.tensors}" if branch.tensors > 1 else ""
            yield _row(name, branch.spec, count, branch.nbytes)
        yield from _tree_rows(branch.children, guides + below)


def _values_table(description: Description, *, with_digests: bool) -> Table:
    counted_too = any(of.zeros is not None for of in description.values.values())
    head: tuple[str, ...] = ("name", "shape", "dtype", "size")
    head += _STATS if counted_too else ()
    numbers = frozenset(range(3, len(head)))
    head += ("sha256",) if with_digests or not counted_too else ()
    rows = []
    for name, spec in description.header.items():
        of = description.values[name]
        cells: tuple[str, ...] = (name, _shape(spec), spec.dtype, size_text(spec.nbytes))
        cells += _statistics(of, spec.numel) if counted_too else ()
        rows.append((*cells, of.sha256)[: len(head)])
    return Table(rows, head, numbers, headed=True)


def _statistics(of: TensorValues, count: int) -> tuple[str, ...]:
    stats = of.stats if of.nonfinite != count else None  # of no finite value there is none
    figures = (stats.mean, stats.std, stats.min, stats.max) if stats else ()
    infinite = None if of.nan is None else (of.nonfinite or 0) - of.nan
    shown = [f"{figure:.4g}" for figure in figures] or ["–"] * 4
    return (*shown, *("–" if n is None else f"{n:,}" for n in (of.zeros, of.nan, infinite)))


def _fact_lines(fact: Fact) -> Iterator[tuple[str, str]]:
    by_length: dict[int, list[Group]] = {}
    for group in fact.groups:
        by_length.setdefault(len(group), []).append(group)
    shown = [text for groups in by_length.values() for text in _groups(groups)]
    yield from ((fact.kind, f"{text}: {fact.what}") for text in shown[:_MOST_PATTERNS])
    if (more := len(shown) - _MOST_PATTERNS) > 0:
        yield fact.kind, f"and {more:,} more patterns: {fact.what}"


def _groups(groups: list[Group]) -> list[str]:
    """Return groups of as many tensors as text: folded together where their names do."""
    places = [fold_names(names) for names in zip(*groups, strict=True)]
    if all(len(patterns) == 1 for patterns in places):
        return [_together([patterns[0] for patterns in places], len(groups))]
    if len(places) == 1:
        return [f"{', '.join(few(places[0], _MOST_PATTERNS))} ×{len(groups)}"]
    by_first: dict[str, list[Group]] = {}
    for group in groups:
        by_first.setdefault(skeleton(group[0]), []).append(group)
    if len(by_first) == 1:
        return [_together(group, 1) for group in groups]
    return [text for alike in by_first.values() for text in _groups(alike)]


def _together(names: Iterable[str], count: int) -> str:
    """Write names side by side; of those after the first, what they do not share with it."""
    first, *others = names
    module = first.rpartition(".")[0]
    shorter = [name.removeprefix(f"{module}.") if module else name for name in others]
    return ", ".join([first, *shorter]) + (f" ×{count}" if count > 1 else "")


def _json(path: Path, description: Description, tree: tuple[Branch, ...]) -> dict[str, object]:
    header = description.header
    result: dict[str, object] = {
        "path": str(path),
        "files": [{"name": f.name, "size": f.size_bytes} for f in description.files],
        "metadata": dict(description.metadata),
        "canonical": description.canonical and _canonical_json(description.canonical),
        "held": description.held,
        "totals": asdict(totals_of(header.values())),
        "dtypes": dict(description.dtypes),
        "tensors": {name: spec_json(spec) for name, spec in header.items()},
        "rows": [
            {
                "pattern": row.pattern,
                **spec_json(row.spec),
                "count": len(row.names),
                "bytes": row.nbytes,
            }
            for row in description.rows
        ],
        "facts": [
            {"kind": fact.kind, "what": fact.what, "tensors": [list(g) for g in fact.groups]}
            for fact in description.facts
        ],
    }
    if tree:
        result["prefixes"] = [
            {
                "prefix": prefix,
                "tensors": branch.tensors,
                "parameters": branch.parameters,
                "bytes": branch.nbytes,
            }
            for prefix, branch in prefixes_of(tree)
        ]
    if description.values:
        result["values"] = _values_json(description.values)
    return result


def _values_json(values: Mapping[str, TensorValues]) -> dict[str, object]:
    return {
        name: {key: value for key, value in asdict(of).items() if value is not None}
        for name, of in values.items()
    }


def _canonical_json(manifest: Manifest) -> dict[str, object]:
    return {
        "model": manifest.model.name,
        "title": manifest.model.title,
        "variant": list(manifest.model.variant),
        "dims": dict(manifest.model.dims),
        "rules": manifest.rules.file,
        "tool": f"{manifest.tool.name} {manifest.tool.version}",
        "sources": [file.name for file in manifest.sources],
        "content_sha256": manifest.content_sha256,
    }
