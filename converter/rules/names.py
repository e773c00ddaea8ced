"""Every name that a rule file mentions is declared, once, and stands where it means something."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

from converter.finding import Finding, closest, first_few, listed
from converter.rules.expression import Expression
from converter.rules.indices import with_bounds
from converter.rules.rule_file import Range, Repeat, Rule, RuleFile
from converter.rules.strict_yaml import Document, Path
from converter.rules.template import Template

Names: TypeAlias = Collection[str]

_SHOWN_CHARS = 200
_SECTIONS = ("dims", "derived", "index", "sets", "words")
_OWNERS = ("rules", "alias", "drop")


def check(rule_file: RuleFile, document: Document) -> list[Finding]:
    """Return what is wrong with the names of a rule file, each fault once."""
    found = chain(
        _declared_twice(document),
        _unknown_overrides(document),
        _Checker(rule_file, document).all_findings(),
    )
    return list(dict.fromkeys(first_few(found, document.name)))


def _declared_twice(document: Document) -> Iterator[Finding]:
    top: Any = document.value
    first: dict[str, Path] = {}
    for section in _SECTIONS:
        for name in top.get(section, ()):
            if first.setdefault(name, (section, name)) != (section, name):
                yield _twice(document, name, (section, name), first[name])
    for owner in _OWNERS:
        for number, item in enumerate(top.get(owner, ())):
            for section in ("index", "sets"):
                for name in item.get(section, ()):
                    here = (owner, number, section, name)
                    other = first.get(name, (section,))
                    if other[0] != section:
                        yield _twice(document, name, here, other)
                    elif section == "sets" and name in item.get("index", ()):
                        yield _twice(document, name, here, (owner, number, "index", name))
    yield from _variants_twice(document)


def _variants_twice(document: Document) -> Iterator[Finding]:
    top: Any = document.value
    first: dict[str, Path] = {}
    for axis, choices in top.get("variants", {}).items():
        for name in choices:
            here = ("variants", axis, name)
            if first.setdefault(name, here) != here:
                yield _twice(document, name, here, first[name])


def _twice(document: Document, name: str, here: Path, first: Path) -> Finding:
    return Finding(
        "namespace",
        f"{name!r} is declared twice",
        document.where(here),
        expected="one meaning for each name",
        got=f"{'.'.join(map(str, first))} at {document.where(first)}",
        hint="rename one of the two",
    )


def _unknown_overrides(document: Document) -> Iterator[Finding]:
    """Yield what variants override that the file does not have."""
    top: Any = document.value
    for axis, choices in top.get("variants", {}).items():
        for variant, overridden in choices.items():
            for section in ("dims", "words"):
                declared = top.get(section, {})
                for name, value in (overridden or {}).get(section, {}).items():
                    where = document.where(("variants", axis, variant, section, name))
                    if name not in declared:
                        what = f"the variant {variant!r} overrides {name!r}, which is none"
                        yield _unknown(name, f"{what} of the file's {section}", where, declared)
                    elif depth(value) != depth(declared[name]):
                        yield Finding(
                            "dim",
                            f"the variant {variant!r} makes {name!r} of another kind",
                            where,
                            expected=f"something like {declared[name]}",
                            got=str(value),
                            hint="a number stays a number, and a list a list",
                        )
            yield from _unknown_conventions(document, axis, variant)


def _unknown_conventions(document: Document, axis: str, variant: str) -> Iterator[Finding]:
    """Yield the conventions of a variant that the file does not state for the other variants."""
    top: Any = document.value
    stated = top.get("conventions", {})
    for name in (top["variants"][axis][variant] or {}).get("conventions", {}):
        if name not in stated:
            where = document.where(("variants", axis, variant, "conventions", name))
            what = f"the variant {variant!r} overrides {name!r}, which is none"
            yield _unknown(name, f"{what} of the file's conventions", where, stated)


def depth(value: object) -> int:
    """Return how deeply lists nest; 0 for a number."""
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


class _Checker:
    """Looks up the names in the expressions and templates of a rule file."""

    def __init__(self, rule_file: RuleFile, document: Document) -> None:
        self.rule_file = rule_file
        self.document = document
        self.values = {*rule_file.dims, *rule_file.derived}
        self.words = rule_file.words.keys()

    def all_findings(self) -> Iterator[Finding]:
        """Yield the findings of every part of the file, in the order in which parts are read."""
        earlier = set(self.rule_file.dims)
        for name, derived in self.rule_file.derived.items():
            listed = derived.value if isinstance(derived.value, tuple) else (derived.value,)
            yield from self.numbers(listed, derived.line, earlier)
            earlier.add(name)
        for requirement in self.rule_file.require:
            known = self.values | requirement.ranges.keys()
            yield from self.ranges(requirement.ranges)
            yield from self.numbers([requirement.that], requirement.line, known)
        for key, value in self.rule_file.audio.items():
            if isinstance(value, Expression):
                yield from self.numbers([value], self.document.line(("audio", key)), self.values)
        for rule in self.rule_file.rules:
            yield from self.rule(rule)
        for drop in self.rule_file.drops:
            yield from self.repeat(drop.repeat, drop.line)
            equals = [] if drop.equals is None else [drop.equals]
            yield from self.sources([*drop.names, *equals], drop.line, drop.repeat)
            if drop.count is not None:
                yield from self.numbers([drop.count], drop.line, self.known(drop.repeat))
        for alias in self.rule_file.aliases:
            yield from self.repeat(alias.repeat, alias.line)
            yield from self.targets([alias.name, alias.of], alias.line, alias.repeat)
        for allowed in self.rule_file.allow_nan:
            yield from self.targets([allowed.name], allowed.line, allowed.repeat)

    def rule(self, rule: Rule) -> Iterator[Finding]:
        repeat, line = rule.repeat, rule.line
        yield from self.repeat(repeat, line)
        yield from self.sources(rule.sources, line, repeat)
        for target in rule.targets:
            yield from self.targets([target.name], target.line, repeat)
            yield from self.numbers(target.shape, target.line, self.known(repeat))
        for call in rule.steps:
            yield from self.numbers(call.expressions, call.line, self.known(repeat))
        inside = [template.names for template in rule.sources]
        outside = [target.name.names for target in rule.targets]
        shapes = {
            name for target in rule.targets for length in target.shape for name in length.names
        }
        yield from self.listed("gather", rule.gather, rule, inside, [*outside, shapes])
        yield from self.listed("scatter", rule.scatter, rule, outside, inside)

    def listed(
        self,
        field: str,
        index: str | None,
        rule: Rule,
        inside: Sequence[Names],
        outside: Sequence[Names],
    ) -> Iterator[Finding]:
        """Yield what is wrong with an index that lists tensors on one side of a rule."""
        if index is None:
            return
        where = self.rule_file.where(rule.line)
        ranges = rule.repeat.ranges
        if index not in ranges:
            yield _unknown(index, f"{field}: {index!r} is no index", where, ranges)
            return
        side, other = ("from", "to") if field == "gather" else ("to", "from")
        what = f"{field}: the index {index!r}"
        steps = [item.names for call in rule.steps for item in call.expressions]
        when = [] if rule.repeat.when is None else [rule.repeat.when.names]
        mentioned = frozenset().union(*inside, *outside, *steps, *when)
        bound = [ranges[name].names for name in with_bounds(ranges, mentioned)]
        expected = f"in every name of {side}, and nowhere else"
        hint = f"{field} makes one list of all its values; leave it out to repeat the rule instead"
        places = ((other, outside), ("steps", steps), ("when", when), ("index", bound))
        found = [f"stands in {place} too" for place, held in places if _in_any(index, held)]
        if not all(index in names for names in inside):
            found.insert(0, f"is not in every name of {side}")
        for fact in found:
            yield Finding(field, f"{what} {fact}", where, None, expected, repr(index), hint)

    def repeat(self, repeat: Repeat, line: int) -> Iterator[Finding]:
        yield from self.ranges(repeat.ranges)
        if repeat.when is not None:
            yield from self.numbers([repeat.when], line, self.known(repeat))

    def ranges(self, ranges: Mapping[str, Range]) -> Iterator[Finding]:
        earlier = set(self.values)
        for name, bounds in ranges.items():
            yield from self.numbers_at([bounds.first, bounds.last], bounds.where, earlier)
            earlier.add(name)

    def known(self, repeat: Repeat) -> set[str]:
        return self.values | repeat.ranges.keys()

    def sources(
        self, templates: Iterable[Template], line: int, repeat: Repeat
    ) -> Iterator[Finding]:
        texts = self.words | repeat.sets.keys()
        yield from self.templates(templates, line, self.known(repeat), texts)

    def targets(
        self, templates: Iterable[Template], line: int, repeat: Repeat
    ) -> Iterator[Finding]:
        yield from self.templates(templates, line, self.known(repeat), repeat.sets.keys())

    def templates(
        self, templates: Iterable[Template], line: int, known: Names, texts: Names
    ) -> Iterator[Finding]:
        where = self.rule_file.where(line)
        for template in templates:
            for hole in template.holes:
                if hole.text in texts or hole.names <= set(known):
                    continue
                if hole.text in self.words:
                    yield Finding(
                        "word",
                        f"the word {hole.text!r} stands in the canonical name "
                        f"{template.text!r:.{_SHOWN_CHARS}}",
                        where,
                        expected="indices, sets and expressions over numbers",
                        got=f"{{{hole.text}}}",
                        hint="words are for source names; a set has a text for either side",
                    )
                    continue
                for name in sorted(hole.names - set(known)):
                    what = f"{name!r} in {template.text!r:.{_SHOWN_CHARS}} is no index"
                    yield _unknown(name, f"{what}, set, word or dim", where, {*known, *texts})

    def numbers(
        self, expressions: Iterable[Expression], line: int, known: Names
    ) -> Iterator[Finding]:
        return self.numbers_at(expressions, self.rule_file.where(line), known)

    def numbers_at(
        self, expressions: Iterable[Expression], where: str, known: Names
    ) -> Iterator[Finding]:
        for expression in expressions:
            for name in sorted(expression.names - set(known)):
                what = f"{name!r} in {expression.text!r} is no dim, derived name or index"
                yield _unknown(name, f"{what} that holds here", where, known)


def _in_any(name: str, held: Iterable[Names]) -> bool:
    return any(name in names for names in held)


def _unknown(name: str, what: str, where: str, known: Iterable[str]) -> Finding:
    near = closest(name, known)
    return Finding(
        "unknown-name",
        what,
        where,
        expected=listed(sorted(known), "none: there are none"),
        got=repr(name),
        hint=f"did you mean {near!r}?" if near else "declare it, or correct the name",
    )
