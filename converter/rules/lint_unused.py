"""What a rule file declares and does not use: dims, derived values, indices, sets and words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from converter.finding import Finding
from converter.rules.expression import Expression
from converter.rules.lint_uses import Use, joined, uses
from converter.rules.rule_file import Range, RuleFile

_CHECK = "remove it; if the network needs it, say under require what it must be"
_USE = "use it, or remove it"


def unused(rule_file: RuleFile) -> Iterator[Finding]:
    """Yield a finding for every declared name that nothing mentions.

    A dim that only ``require`` mentions is used: that is where a number stands that the network
    needs and no shape shows.
    """
    found = tuple(uses(rule_file))
    for name, bounds in _idle_indices(found):
        yield _unused("index", name, bounds.where, _USE)
    for name, line in _idle_sets(found):
        yield _unused("set", name, rule_file.where(line), _USE)
    used = _mentioned_anywhere(rule_file, found)
    for name in rule_file.words:
        if name not in used:
            yield _unused("word", name, rule_file.name, _USE)
    for name, derived in rule_file.derived.items():
        if name not in used:
            yield _unused("derived value", name, rule_file.where(derived.line), _CHECK)
    for name in rule_file.dims:
        if name not in used:
            yield _unused("dim", name, rule_file.name, _CHECK)


def _unused(kind: str, name: str, where: str, hint: str) -> Finding:
    return Finding(
        "unused",
        f"the {kind} {name!r} is declared and not used",
        where,
        expected="every declared name in a name, a shape, a parameter or a condition",
        got="nothing that it holds for mentions it",
        hint=hint,
    )


def _idle_indices(found: Iterable[Use]) -> list[tuple[str, Range]]:
    """Return the indices that repeat nothing for which they hold; an own one hides the file's."""
    declared: dict[int, tuple[str, Range]] = {}
    busy: set[int] = set()
    for use in found:
        repeating = use.indices
        for name, bounds in use.repeat.ranges.items():
            declared.setdefault(id(bounds), (name, bounds))
            if name in repeating:
                busy.add(id(bounds))
    return [index for key, index in declared.items() if key not in busy]


def _idle_sets(found: Iterable[Use]) -> list[tuple[str, int]]:
    """Return the sets that nothing for which they hold mentions, each with a line where it does."""
    declared: dict[int, tuple[str, int]] = {}
    busy: set[int] = set()
    for use in found:
        for name, words in use.repeat.sets.items():
            declared.setdefault(id(words), (name, use.part.line))
            if name in use.mentioned:
                busy.add(id(words))
    return [named for key, named in declared.items() if key not in busy]


def _mentioned_anywhere(rule_file: RuleFile, found: Iterable[Use]) -> frozenset[str]:
    """Return all names that are mentioned; by the ranges of an index that repeats nothing, too."""
    derived = (item.value for item in rule_file.derived.values())
    worked_out = [item.names for value in derived for item in _listed(value)]
    facts = [fact.names for fact in rule_file.audio.values() if isinstance(fact, Expression)]
    bounds = [bounds.names for use in found for bounds in use.repeat.ranges.values()]
    return joined(*worked_out, *facts, *bounds, *(use.mentioned for use in found))


def _listed(value: Expression | tuple[Expression, ...]) -> tuple[Expression, ...]:
    return value if isinstance(value, tuple) else (value,)
