"""What is odd about the canonical layout and the lists of names: holes, clashes, order."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from converter.finding import Finding
from converter.fold import fold_names, numbers, skeleton
from converter.rules.expand import Expansion, Unit
from converter.rules.rule_file import RuleFile
from converter.rules.settings import Settings
from converter.rules.template import Template

_HOLE = re.compile(r"\{([^{}]*)\}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


def layout(rule_file: RuleFile, settings: Settings, expansion: Expansion) -> Iterator[Finding]:
    """Yield what is wrong with the names of a rule file together, each fine by itself."""
    yield from _gaps(rule_file, expansion)
    yield from _tensors_that_are_modules(rule_file, expansion)
    yield from _in_order_of_text(rule_file, expansion)
    yield from _equal_to_nothing(rule_file, settings, expansion)


def _gaps(rule_file: RuleFile, expansion: Expansion) -> Iterator[Finding]:
    """Yield a finding for numbers of canonical names that do not run from 0 without a hole.

    Only numbers that an index makes are looked at: those that are written out are the author's.
    """
    lines = _numbered(expansion)
    held: dict[str, set[int]] = defaultdict(set)
    for name in _canonical(expansion):
        parts = name.split(".")
        for place, part in enumerate(parts):
            if _NUMBER.fullmatch(part):
                held[".".join(parts[:place])].add(int(part))
    for prefix, line in lines.items():
        found = held[prefix]
        if found and max(found) != len(found) - 1:
            yield Finding(
                "gap",
                "numbers of canonical tensors do not run from 0 without a hole",
                rule_file.where(line),
                tensor=_under(prefix, "*"),
                expected=f"all of 0 to {len(found) - 1}, or to {max(found)}",
                got=", ".join(fold_names(map(str, sorted(found)))),
                hint="the canonical layout counts from 0: use an expression such as {i - 1}, or "
                "make the tensors that are missing",
            )


def _under(prefix: str, part: str) -> str:
    return f"{prefix}.{part}" if prefix else part


def _canonical(expansion: Expansion) -> Iterator[str]:
    yield from (name for unit in expansion.units for name in unit.names)
    yield from (alias.name for alias in expansion.aliases)


def _numbered(expansion: Expansion) -> dict[str, int]:
    """Return the prefixes below which an index counts, each with the line of a rule that does."""
    lines: dict[str, int] = {}
    places: dict[int, tuple[int, ...]] = {}
    for unit in expansion.units:
        templates = [target.name for target in unit.rule.targets]
        each = len(unit.names) // len(templates)
        for number, name in enumerate(unit.names):
            template = templates[number // each]
            if id(template) not in places:
                places[id(template)] = _counting_parts(template, unit)
            parts = name.split(".")
            for place in places[id(template)]:
                lines.setdefault(".".join(parts[:place]), unit.rule.line)
    return lines


def _counting_parts(template: Template, unit: Unit) -> tuple[int, ...]:
    """Return which parts of a name, between dots, are nothing but a number that an index makes."""
    sets, ranges = unit.rule.repeat.sets, unit.rule.repeat.ranges
    holes = {hole.text: hole.names for hole in template.holes}
    if any("." in word for hole in holes for word in sets.get(hole, {}).values()):
        return ()  # the texts of a set move the parts behind them
    return tuple(
        place
        for place, part in enumerate(template.text.split("."))
        if (hole := _HOLE.fullmatch(part))
        and hole[1].strip() not in sets
        and not holes.get(hole[1].strip(), frozenset()).isdisjoint(ranges)
    )


def _tensors_that_are_modules(rule_file: RuleFile, expansion: Expansion) -> Iterator[Finding]:
    """Yield a finding where one canonical name goes on from another: no module tree holds both."""
    lines = {name: unit.rule.line for unit in expansion.units for name in unit.names}
    lines |= {alias.name: alias.alias.line for alias in expansion.aliases}
    for name, line in lines.items():
        for end in (found.start() for found in re.finditer(r"\.", name)):
            if name[:end] in lines:
                yield Finding(
                    "module",
                    "the name of one canonical tensor goes on from that of another",
                    rule_file.where(line),
                    tensor=name,
                    expected=f"no tensor of the name {name[:end]}, which must be a module",
                    got=f"a tensor at {rule_file.where(lines[name[:end]])}",
                    hint="no module tree can hold both: rename one of them",
                )


def _in_order_of_text(rule_file: RuleFile, expansion: Expansion) -> Iterator[Finding]:
    for unit in expansion.units:
        for side, names in (("from", unit.sources), ("to", unit.names)):
            if _is_in_order_of_text(names):
                yield Finding(
                    "text-order",
                    f"the numbers in {side} are in the order of text, not of numbers",
                    rule_file.where(unit.rule.line),
                    tensor=", ".join(names[:4]) + (", …" if len(names) > 4 else ""),
                    expected="2 before 10",
                    got="10 before 2",
                    hint="use gather, or scatter, with an index: it counts",
                )


def _is_in_order_of_text(names: Sequence[str]) -> bool:
    if len(names) < 3 or len({skeleton(name) for name in names}) > 1:
        return False
    counted = [numbers(name) for name in names]
    texts = [[str(number) for number in row] for row in counted]
    return counted != sorted(counted) and texts == sorted(texts)


def _equal_to_nothing(
    rule_file: RuleFile, settings: Settings, expansion: Expansion
) -> Iterator[Finding]:
    """Yield a finding for a drop that must equal itself, or what the file does not know."""
    named = {name for unit in expansion.units for name in unit.sources}
    exact = {drop.name for drop in expansion.drops if drop.count is None}
    rests = tuple(drop.name for drop in expansion.drops if drop.count is not None)
    for drop in expansion.drops:
        other = drop.equals
        if other is None or not settings.holds(other):
            continue
        if other == drop.name:
            got = "the same tensor, which it always equals"
        elif other in named | exact or other.startswith(rests):
            continue
        else:
            got = "no rule or drop names that tensor"
        yield Finding(
            "expect",
            "a tensor is dropped because it equals another, which proves nothing",
            rule_file.where(drop.drop.line),
            tensor=drop.name,
            expected="equals: another source tensor, which a rule takes",
            got=f"{other}: {got}",
            hint="name the tensor that is kept",
        )
