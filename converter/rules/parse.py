"""From the text of a rule file to its records; every error carries its line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from converter.errors import RuleError
from converter.finding import Finding
from converter.manifest import Dim
from converter.rules import expression, strict_yaml, structure, template
from converter.rules.expression import Expression
from converter.rules.rule_file import (
    Alias,
    Drop,
    Parameter,
    Range,
    Repeat,
    Requirement,
    Rule,
    RuleFile,
    Scope,
    StandIn,
    StepCall,
    Target,
    Variant,
)
from converter.rules.strict_yaml import Document
from converter.rules.strict_yaml import Path as YamlPath
from converter.rules.template import Template
from converter.steps.build import parameters

T = TypeVar("T")

# Facts of audio that are a dim of the network too, and so may be given as an expression.
_AUDIO_SIZES = frozenset({"n_mels"})


def load(path: Path) -> RuleFile:
    """Read and parse a rule file.

    Raises RuleError, with all findings, when the file cannot be read or is wrong by itself.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RuleError(
            f"the rule file cannot be read: {error.strerror}",
            where=str(path),
            hint="convert models lists the models that come with this package",
        ) from error
    return parse(text, strict_yaml.display_name(path))


def parse(text: bytes, name: str) -> RuleFile:
    """Parse the text of a rule file; ``name`` stands for the file in errors. Raises RuleError."""
    document = strict_yaml.parse(text, name)
    findings = structure.check(document, "rules")
    if findings:
        raise RuleError.of(findings)
    builder = _Builder(document, [])
    rule_file = builder.rule_file(hashlib.sha256(text).hexdigest())
    if builder.findings:
        raise RuleError.of(builder.findings)
    return rule_file


@dataclass(frozen=True)
class _Builder:
    """Builds the records of one document, whose structure is known to be right."""

    document: Document
    findings: list[Finding]

    def rule_file(self, sha256: str) -> RuleFile:
        top: Any = self.document.value
        ranges = self.ranges(top.get("index", {}), ("index",))
        sets = _sets(top.get("sets", {}))
        rules = self.each(top, "rules", lambda item, path: self.rule(item, path, ranges, sets, top))
        return RuleFile(
            name=self.document.name,
            sha256=sha256,
            model=top["model"],
            title=top["title"],
            origin=top["origin"],
            about=top.get("about", ""),
            scope=_scope(top.get("scope")),
            dtypes=tuple(top["dtypes"]),
            dims={
                key: self.dim(value, ("dims", key)) for key, value in top.get("dims", {}).items()
            },
            derived={
                key: self.derived(value, ("derived", key))
                for key, value in top.get("derived", {}).items()
            },
            require=self.each(top, "require", self.requirement),
            words=top.get("words", {}),
            variants={
                axis: {name: _variant(item or {}) for name, item in choices.items()}
                for axis, choices in top.get("variants", {}).items()
            },
            conventions=top.get("conventions", {}),
            audio={
                key: self.expression(value, ("audio", key)) if key in _AUDIO_SIZES else value
                for key, value in top.get("audio", {}).items()
            },
            rules=rules,
            aliases=self.each(
                top, "alias", lambda item, path: self.alias(item, path, ranges, sets)
            ),
            drops=self.each(top, "drop", lambda item, path: self.drop(item, path, ranges, sets)),
            allow_nan=self.each(
                top,
                "allow_nan",
                lambda item, path: (self.template(item, path), Repeat(ranges, sets)),
            ),
        )

    def each(self, top: Any, key: str, build: Callable[[Any, YamlPath], T]) -> tuple[T, ...]:
        """Build every item of a list; an item that fails leaves a finding and is skipped."""
        built = []
        for number, item in enumerate(top.get(key, ())):
            try:
                built.append(build(item, (key, number)))
            except RuleError as error:
                self.findings.extend(error.findings)
        return tuple(built)

    def at(self, path: YamlPath, parse: Callable[[], T]) -> T:
        """Run ``parse`` and put the line of ``path`` on the error it may raise."""
        try:
            return parse()
        except RuleError as error:
            finding = error.findings[0]
            raise RuleError(
                finding.what,
                code=finding.code,
                where=self.document.where(path),
                expected=finding.expected,
                got=finding.got,
                hint=finding.hint,
            ) from error

    def line(self, path: YamlPath) -> int:
        return int(self.document.where(path).rpartition(":")[2])

    def expression(self, value: Any, path: YamlPath) -> Expression:
        if isinstance(value, int):
            return expression.constant(value)
        return self.at(path, lambda: expression.parse(value))

    def expressions(self, values: Any, path: YamlPath) -> tuple[Expression, ...]:
        return tuple(self.expression(value, (*path, n)) for n, value in enumerate(values))

    def dim(self, value: Any, path: YamlPath) -> Dim:
        if isinstance(value, list):
            return [self.dim(item, (*path, n)) for n, item in enumerate(value)]
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        where = self.document.where(path)
        raise RuleError("a dim is a whole number, or a list of them", where=where, got=repr(value))

    def derived(self, value: Any, path: YamlPath) -> Expression | tuple[Expression, ...]:
        if isinstance(value, list):
            return self.expressions(value, path)
        return self.expression(value, path)

    def template(self, text: str, path: YamlPath) -> Template:
        return self.at(path, lambda: template.parse(text))

    def templates(self, value: Any, path: YamlPath) -> tuple[Template, ...]:
        if isinstance(value, str):
            return (self.template(value, path),)
        return tuple(self.template(text, (*path, n)) for n, text in enumerate(value))

    def range(self, value: Any, path: YamlPath) -> Range:
        if isinstance(value, str) and ".." in value:
            first, _, last = value.partition("..")
            return Range(self.expression(first, path), self.expression(last, path))
        return Range(expression.constant(0), expression.before(self.expression(value, path)))

    def ranges(self, items: Any, path: YamlPath) -> dict[str, Range]:
        return {name: self.range(value, (*path, name)) for name, value in items.items()}

    def repeat(
        self, item: Any, path: YamlPath, ranges: Mapping[str, Range], sets: Mapping[str, Any]
    ) -> Repeat:
        own = self.ranges(item.get("index", {}), (*path, "index"))
        when = item.get("when")
        return Repeat(
            ranges={**ranges, **own},
            sets={**sets, **_sets(item.get("sets", {}))},
            when=None if when is None else self.expression(when, (*path, "when")),
        )

    def rule(
        self,
        item: Any,
        path: YamlPath,
        ranges: Mapping[str, Range],
        sets: Mapping[str, Any],
        top: Any,
    ) -> Rule:
        dtypes = tuple(item.get("dtypes", top["dtypes"]))
        absent = item.get("absent")
        return Rule(
            line=self.line(path),
            sources=self.templates(item.get("from", ()), (*path, "from")),
            steps=self.steps(item.get("steps", ()), (*path, "steps")),
            targets=tuple(
                self.target(name, shape, (*path, "to", name)) for name, shape in item["to"].items()
            ),
            repeat=self.repeat(item, path, ranges, sets),
            dtypes=dtypes,
            gather=item.get("gather"),
            scatter=item.get("scatter"),
            absent=None if absent is None else self.stand_in(absent, dtypes, (*path, "absent")),
            keep_dtype=item.get("keep_dtype", False),
        )

    def target(self, name: str, shape: Any, path: YamlPath) -> Target:
        return Target(self.template(name, path), self.expressions(shape, path), self.line(path))

    def steps(self, items: Any, path: YamlPath) -> tuple[StepCall, ...]:
        return tuple(self.step(item, (*path, n)) for n, item in enumerate(items))

    def step(self, item: Any, path: YamlPath) -> StepCall:
        name, values = (item, {}) if isinstance(item, str) else next(iter(item.items()))
        kinds = self.at(path, lambda: parameters(name))
        built: dict[str, Parameter] = {}
        for key, value in (values or {}).items():
            here = (*path, name, key)
            if kinds.get(key) == "integer":
                built[key] = self.expression(value, here)
            elif kinds.get(key) == "integers":
                built[key] = self.expressions(value, here)
            else:
                built[key] = value
        return StepCall(name, built, self.line(path))

    def stand_in(self, value: Any, dtypes: tuple[str, ...], path: YamlPath) -> StandIn:
        if isinstance(value, dict):
            return StandIn(value["fill"], value["dtype"])
        if len(dtypes) != 1:
            raise RuleError(
                "what stands in for an absent tensor has no dtype",
                code="absent-dtype",
                where=self.document.where(path),
                expected="one dtype",
                got=f"the rule accepts {', '.join(dtypes)}",
                hint=f"name it: absent: {{fill: {value}, dtype: {dtypes[0]}}}",
            )
        return StandIn(value, dtypes[0])

    def requirement(self, item: Any, path: YamlPath) -> Requirement:
        that = self.expression(item["that"], (*path, "that"))
        return Requirement(self.line(path), that, item["because"])

    def alias(
        self, item: Any, path: YamlPath, ranges: Mapping[str, Range], sets: Mapping[str, Any]
    ) -> Alias:
        return Alias(
            line=self.line(path),
            name=self.template(item["name"], (*path, "name")),
            of=self.template(item["of"], (*path, "of")),
            because=item["because"],
            repeat=self.repeat(item, path, ranges, sets),
        )

    def drop(
        self, item: Any, path: YamlPath, ranges: Mapping[str, Range], sets: Mapping[str, Any]
    ) -> Drop:
        name, count, expect = item["name"], item.get("count"), item.get("expect")
        rest = isinstance(name, str) and name.endswith("**")
        if rest != (count is not None):
            raise RuleError(
                "a name that ends in ** and a count belong together",
                code="drop-count",
                where=self.document.where(path),
                hint="state how many tensors the ** stands for: count: N",
            )
        equals = expect["equals"] if isinstance(expect, dict) else None
        return Drop(
            line=self.line(path),
            names=self.templates(name[:-2] if rest else name, (*path, "name")),
            rest=rest,
            because=item["because"],
            repeat=self.repeat(item, path, ranges, sets),
            optional=item.get("optional", False),
            expect="equals" if equals is not None else expect,
            equals=None if equals is None else self.template(equals, (*path, "expect")),
            count=None if count is None else self.expression(count, (*path, "count")),
        )


def _sets(items: Any) -> dict[str, dict[str, str]]:
    return {
        name: dict(zip(words, words, strict=True)) if isinstance(words, list) else dict(words)
        for name, words in items.items()
    }


def _scope(value: Any) -> Scope:
    if value is None:
        return Scope()
    if isinstance(value, str):
        return Scope((value,))
    if isinstance(value, list):
        return Scope(tuple(value))
    return Scope(excluded=tuple(value["except"]))


def _variant(item: Any) -> Variant:
    scope = _scope(item["scope"]) if "scope" in item else None
    return Variant(dims=item.get("dims", {}), words=item.get("words", {}), scope=scope)
