"""How two checkpoints differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

from converter.diff_entry import Comparison, Difference, Entry, Inventory
from converter.errors import MismatchError
from converter.finding import Finding
from converter.fold import Numbers, fold_names, numbers, skeleton
from converter.report import Report, amount, spec_json, totals_of
from converter.sheet import Part, Sheet, Table

_UNREAD = "no values were read: digests are those that manifests state, where both have one"


def of_comparison(comparison: Comparison, *, whole: bool) -> Report:
    """Report a comparison; ``whole`` lists every tensor, equal ones too, and folds no numbers."""
    counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(comparison.counts.items()))
    parts: list[Part] = [
        _side("here ", comparison.here),
        _side("there", comparison.there),
        counts or "no tensors on either side",
    ]
    if comparison.level == "header":
        parts.append(_UNREAD)
    shown = [entry for entry in comparison.entries if whole or entry.kind != "equal"]
    rows = [_row(group, comparison) for group in _groups(shown, comparison, whole=whole)]
    if rows:
        parts += ["", Table(rows, ("finding", "tensor", "dtype and shape", "difference"))]
    sheet = Sheet(parts)
    differs = comparison.differs
    return Report(
        "diff",
        sheet.text(),
        partial(_json, comparison),
        (_finding(comparison, counts),) if differs else (),
        MismatchError.exit_code if differs else 0,
        sheet,
    )


def _finding(comparison: Comparison, counts: str) -> Finding:
    where = f"{comparison.here.path}, {comparison.there.path}"
    return Finding("different", "the two are not equal", where, expected="all equal", got=counts)


def _side(which: str, side: Inventory) -> str:
    return f"{which}  {side.path}: {amount(totals_of(side.header.values()))}"


def _groups(
    entries: Sequence[Entry], comparison: Comparison, *, whole: bool
) -> list[Sequence[Entry]]:
    """Join entries that differ in nothing but the numbers of names, and the figures of values.

    Pairs of other numbers than one another are joined only where they are as far apart in all.
    """
    groups: dict[object, list[Entry]] = {}
    for number, entry in enumerate(entries):
        alone = whole or len(entry.here) > 1 or len(entry.there) > 1
        key = number if alone else _likeness(entry, comparison)
        groups.setdefault(key, []).append(entry)
    return [part for group in groups.values() for part in _parted(group)]


def _likeness(entry: Entry, comparison: Comparison) -> object:
    return (
        entry.kind,
        tuple(map(skeleton, entry.here)),
        tuple(map(skeleton, entry.there)),
        _specs(entry, comparison),
        (entry.dims, entry.rows, entry.rounded, entry.note, entry.difference is None),
    )


def _parted(group: Sequence[Entry]) -> list[list[Entry]]:
    """Part pairs of names by how far apart those of their numbers are that vary in the group."""
    if len(group) == 1 or not all(entry.here and entry.there for entry in group):
        return [list(group)]
    here = [numbers(entry.here[0]) for entry in group]
    there = [numbers(entry.there[0]) for entry in group]
    columns = [_varying(here), _varying(there)]
    parts: dict[object, list[Entry]] = {}
    for entry, one, other in zip(group, here, there, strict=True):
        apart: object = (one, other)
        if len(columns[0]) == len(columns[1]):
            apart = tuple(other[b] - one[a] for a, b in zip(*columns, strict=True))
        parts.setdefault(apart, []).append(entry)
    return list(parts.values())


def _varying(rows: Sequence[Numbers]) -> list[int]:
    """Return the columns that do not have the same number in all rows."""
    return [place for place, column in enumerate(zip(*rows, strict=True)) if len(set(column)) > 1]


def _row(group: Sequence[Entry], comparison: Comparison) -> tuple[str, str, str, str]:
    first = group[0]
    here = ", ".join(fold_names(name for entry in group for name in entry.here))
    there = ", ".join(fold_names(name for entry in group for name in entry.there))
    if first.kind == "ambiguous":
        names = f"{here} ↔ {there}"
    else:
        names = " → ".join(dict.fromkeys(filter(None, (here, there))))
    count = f" ×{len(group)}" if len(group) > 1 else ""
    return first.kind, names, _specs(first, comparison) + count, _what(group)


def _specs(entry: Entry, comparison: Comparison) -> str:
    """Write what is on both sides; of a difference in shape or dtype alone, that alone twice."""
    here = [comparison.here.header[name] for name in entry.here]
    there = [comparison.there.header[name] for name in entry.there]
    if not here or not there or here[0] == there[0]:
        return str((here or there)[0])
    if here[0].dtype == there[0].dtype:
        return f"{here[0]} → {list(there[0].shape)}"
    if here[0].shape == there[0].shape:
        return f"{here[0]} → {there[0].dtype}"
    return f"{here[0]} → {there[0]}"


def _what(group: Sequence[Entry]) -> str:
    first = group[0]
    facts = []
    if first.kind == "rearranged":
        facts.append("the same elements, but neither the dims nor the rows in another order")
    if first.dims:
        facts.append(f"dims in the order {', '.join(map(str, first.dims))}")
    if first.rows is not None:
        facts.append(f"{first.rows:,} rows lie elsewhere")
    if first.rounded is not None:
        facts.append("values rounded to nearest" if first.rounded else "all values equal")
    apart = [entry.difference for entry in group if entry.difference is not None]
    if apart:
        facts.append(_figures(apart))
    if first.note is not None:
        facts.append(first.note)
    return "; ".join(facts)


def _figures(apart: Sequence[Difference]) -> str:
    def spread(of: Callable[[Difference], float | None], digits: int = 3) -> str:
        values = [value for value in map(of, apart) if value is not None]
        if not values:
            return "none"
        low, high = (f"{bound:.{digits}g}" for bound in (min(values), max(values)))
        return low if low == high else f"{low} to {high}"

    text = (
        f"largest {spread(lambda d: d.largest)}, relative {spread(lambda d: d.largest_relative)}"
        f", mean {spread(lambda d: d.mean)}, cosine {spread(lambda d: d.cosine, 8)}"
    )
    differing = spread(lambda d: 100 * d.differing / d.elements)
    odd = sum(d.nonfinite for d in apart)
    return f"{text}; {differing}% of elements differ" + (
        f", {odd:,} in NaN or infinity" if odd else ""
    )


def _json(comparison: Comparison) -> dict[str, object]:
    tolerance = comparison.tolerance
    return {
        "here": comparison.here.path,
        "there": comparison.there.path,
        "level": comparison.level,
        "tolerance": None if tolerance is None else asdict(tolerance),
        "equal": not comparison.differs,
        "counts": dict(sorted(comparison.counts.items())),
        "entries": [_entry_json(entry, comparison) for entry in comparison.entries],
    }


def _entry_json(entry: Entry, comparison: Comparison) -> dict[str, object]:
    return {
        "kind": entry.kind,
        "here": [_tensor_json(name, comparison.here) for name in entry.here],
        "there": [_tensor_json(name, comparison.there) for name in entry.there],
        "dims": list(entry.dims) or None,
        "rows": entry.rows,
        "rounded": entry.rounded,
        "difference": None if entry.difference is None else asdict(entry.difference),
        "note": entry.note,
    }


def _tensor_json(name: str, side: Inventory) -> dict[str, object]:
    spec = side.header[name]
    return {
        "name": name,
        **spec_json(spec),
        "sha256": side.digests.get(name),
    }
