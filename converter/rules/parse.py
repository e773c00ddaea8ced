"""From the text of a rule file to its records; every error carries its line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from converter.errors import RuleError
from converter.finding import Finding, first_few
from converter.rules import expression, names, strict_yaml, template
from converter.rules.expression import Expression
from converter.rules.rule_file import (
    Alias,
    Allowed,
    Derived,
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
from converter.rules.undecided import undecided
from converter.steps.build import parameters
from converter.steps.dtypes import NUMERIC, NUMERIC_TEXT

T = TypeVar("T")

_DOCS = "docs/rules.md describes names and expressions"

# Facts of audio that the dims of the network settle, and so may be given as an expression.
_AUDIO_SIZES = frozenset(
    {"n_mels", "n_fft", "win_length", "hop_length", "pad_samples", "clip_samples"}
)


def load(path: Path) -> RuleFile:
    """Read and parse a rule file.

    Raises RuleError, with all findings, when the file cannot be read or is wrong by itself.
    """
    try:
        text = strict_yaml.read(path)
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
    # Imported here because jsonschema takes long, and some commands read no rules.
    from converter.rules import structure

    findings = structure.check(document, "rules")
    if findings:
        raise RuleError.of(findings)
    builder = _Builder(document, [])
    rule_file = builder.rule_file(hashlib.sha256(text).hexdigest())
    found = [*builder.findings, *names.check(rule_file, document), *undecided(document)]
    findings = first_few(found, name)
    if findings:
        raise RuleError.of(findings)
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
            dims=top.get("dims", {}),
            derived={
                key: self.derived(value, ("derived", key))
                for key, value in top.get("derived", {}).items()
            },
            require=self.each(
                top, "require", lambda item, path: self.requirement(item, path, ranges)
            ),
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
                lambda item, path: Allowed(
                    self.line(path), self.template(item, path), Repeat(ranges, sets)
                ),
            ),
        )

    def each(self, top: Any, key: str, build: Callable[[Any, YamlPath], T]) -> tuple[T, ...]:
        return tuple(build(item, (key, number)) for number, item in enumerate(top.get(key, ())))

    def parsed(self, parse: Callable[[str], T], text: str, path: YamlPath, instead: str) -> T:
        """Return ``parse(text)``; when it fails, leave a finding and go on with ``instead``."""
        try:
            return parse(text)
        except RuleError as error:
            where = self.document.where(path)
            self.findings.extend(
                replace(f, where=where, got=f.got or repr(text), hint=f.hint or _DOCS)
                for f in error.findings
            )
            return parse(instead)

    def note(
        self,
        code: str,
        what: str,
        path: YamlPath,
        *,
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
    ) -> None:
        where = self.document.where(path)
        self.findings.append(Finding(code, what, where, expected=expected, got=got, hint=hint))

    def line(self, path: YamlPath) -> int:
        return self.document.line(path)

    def expression(self, value: Any, path: YamlPath) -> Expression:
        if isinstance(value, int):
            return expression.constant(value)
        return self.parsed(expression.parse, value, path, "0")

    def expressions(self, values: Any, path: YamlPath) -> tuple[Expression, ...]:
        return tuple(self.expression(value, (*path, n)) for n, value in enumerate(values))

    def derived(self, value: Any, path: YamlPath) -> Derived:
        if isinstance(value, list):
            return Derived(self.line(path), self.expressions(value, path))
        return Derived(self.line(path), self.expression(value, path))

    def template(self, text: str, path: YamlPath) -> Template:
        return self.parsed(template.parse, text, path, "_")

    def templates(self, value: Any, path: YamlPath) -> tuple[Template, ...]:
        if isinstance(value, str):
            return (self.template(value, path),)
        return tuple(self.template(text, (*path, n)) for n, text in enumerate(value))

    def range(self, value: Any, path: YamlPath) -> Range:
        where = self.document.where(path)
        if isinstance(value, str) and ".." in value:
            first, _, last = value.partition("..")
            return Range(where, self.expression(first, path), self.expression(last, path))
        return Range(where, expression.constant(0), expression.before(self.expression(value, path)))

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
        kinds = parameters(name)
        built: dict[str, Parameter] = {}
        for key, value in (values or {}).items():
            here = (*path, name, key)
            if kinds.get(key) == "integer":
                built[key] = self.expression(value, here)
            elif kinds.get(key) == "integers":
                built[key] = self.expressions(value, here)
            elif kinds.get(key) == "sizes":
                built[key] = {
                    axis: self.expression(size, (*here, axis)) for axis, size in value.items()
                }
            else:
                built[key] = value
        return StepCall(name, built, self.line(path))

    def stand_in(self, value: Any, dtypes: tuple[str, ...], path: YamlPath) -> StandIn:
        named = isinstance(value, dict)
        fill, dtype = (value["fill"], value["dtype"]) if named else (value, dtypes[0])
        if not named and len(dtypes) != 1:
            self.note(
                "absent-dtype",
                "what stands in for an absent tensor has no dtype",
                path,
                expected="one dtype",
                got=f"the rule accepts {', '.join(dtypes)}",
                hint=f"name it: absent: {{fill: {fill}, dtype: {dtype}}}",
            )
        elif dtype not in NUMERIC:
            self.note(
                "absent-dtype",
                f"no {fill} of {dtype} can be made to stand in for an absent tensor",
                path,
                expected=NUMERIC_TEXT,
                got=dtype,
                hint="name the dtype that the tensor has where it is there",
            )
        return StandIn(fill, dtype)

    def requirement(self, item: Any, path: YamlPath, ranges: Mapping[str, Range]) -> Requirement:
        that = self.expression(item["that"], (*path, "that"))
        return Requirement(self.line(path), that, item["because"], ranges)

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
            self.note(
                "drop-count",
                "a name that ends in ** and a count belong together",
                path,
                expected="both or neither",
                got=f"name: {name}" if rest else f"count: {count}",
                hint="state how many tensors the ** stands for: count: N",
            )
        if rest and re.search(r"[0-9}]\*\*$", name):
            self.note(
                "drop-count",
                "a number before ** also stands for all longer numbers that begin with it",
                path,
                expected="a dot, or other text, between a number and **",
                got=name,
                hint=f"write {name[:-2]}.**",
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
        return Scope.of_prefix(value)
    if isinstance(value, list):
        return Scope(prefixes=tuple(value))
    return Scope(excluded=tuple(value["except"]))


def _variant(item: Any) -> Variant:
    scope = _scope(item["scope"]) if "scope" in item else None
    given = {key: item.get(key, {}) for key in ("dims", "words", "conventions")}
    return Variant(scope=scope, **given)
