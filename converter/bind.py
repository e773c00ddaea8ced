"""Bind a rule file to a header: look up every name, infer every shape, and report all misfits."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import takewhile

from converter.bind_variants import fitting_hint, naming_hint
from converter.errors import PlanError, StepError
from converter.finding import Finding, counted
from converter.fold import fold_findings, fold_names
from converter.hints import neighbour_hints, option_hint
from converter.plan import Binding, Dropped, Plan, shards_of
from converter.rules.expand import DroppedName, Expansion, Unit
from converter.rules.form import Form
from converter.rules.lint import expand_checked
from converter.rules.rule_file import Rule, RuleFile, StandIn
from converter.rules.settings import Settings
from converter.spec import DTYPES, Header, Shape, TensorSpec
from converter.steps.build import build
from converter.steps.chain import infer_chain
from converter.steps.step import Specs, Step

# What a finding may be when nothing but the size or the layout is another.
_OF_ANOTHER_SIZE = frozenset({"missing", "unexpected", "shape", "step"})


def bind(
    rule_file: RuleFile,
    header: Header,
    settings: Settings,
    *,
    dtype: str | None = None,
    max_shard_bytes: int | None = None,
) -> Plan:
    """Return the plan of a conversion.

    ``dtype`` is what every floating tensor not marked ``keep_dtype`` is cast to; shards hold at
    most ``max_shard_bytes`` of data. Raises RuleError when the rule file is wrong by itself, and
    PlanError with all findings when rules and header do not fit.
    """
    expansion = expand_checked(rule_file, settings)
    binder = _Binder(rule_file, header, settings, expansion, dtype)
    bindings = tuple(binder.bindings())
    dropped = tuple(binder.dropped())
    findings = [*binder.findings, *binder.unexpected(dropped)]
    if findings:
        raise PlanError.of(fold_findings(binder.explained(findings)))
    return Plan(
        rule_file=rule_file,
        settings=settings,
        bindings=bindings,
        dropped=dropped,
        aliases={alias.name: alias.of for alias in expansion.aliases},
        allow_nan=frozenset(expansion.allow_nan),
        out_of_scope=len(header) - len(binder.in_scope),
        shards=shards_of(bindings, max_shard_bytes),
        dtype=dtype,
    )


class _Binder:
    """Looks up the names of an expansion in a header and collects what does not fit."""

    def __init__(
        self,
        rule_file: RuleFile,
        header: Header,
        settings: Settings,
        expansion: Expansion,
        dtype: str | None,
    ) -> None:
        self.rule_file = rule_file
        self.header = header
        self.settings = settings
        self.expansion = expansion
        self.dtype = dtype
        self.in_scope = settings.held(header)
        self.named = {name for unit in expansion.units for name in unit.sources}
        self.named |= {drop.name for drop in expansion.drops if drop.count is None}
        self.absent = self.named.difference(header)
        self.findings: list[Finding] = []
        self.known: dict[tuple[Form, Specs], tuple[tuple[Step, ...], Specs]] = {}

    def note(
        self,
        code: str,
        what: str,
        line: int,
        *tensors: str,
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
    ) -> None:
        where = self.rule_file.where(line)
        self.findings += (Finding(code, what, where, t, expected, got, hint) for t in tensors)

    def bindings(self) -> Iterator[Binding]:
        for unit in self.expansion.units:
            if self.absent.isdisjoint(unit.sources):
                if binding := self.bound(unit):
                    yield binding
            elif unit.rule.absent and self.absent.issuperset(unit.sources):
                yield self.standing_in(unit, unit.rule.absent)
            else:
                self.missing(unit, [name for name in unit.sources if name in self.absent])

    def standing_in(self, unit: Unit, stand_in: StandIn) -> Binding:
        specs = tuple(TensorSpec(stand_in.dtype, shape) for shape in unit.form.shapes)
        outputs = tuple(TensorSpec(self.dtype_of(unit.rule, s), s.shape) for s in specs)
        return Binding(unit.rule.line, (), (), unit.names, (), outputs, stand_in, unit.sources)

    def missing(self, unit: Unit, names: list[str]) -> None:
        shapes = dict(zip(unit.sources, unit.form.source_shapes or (), strict=False))
        for name in names:
            self.note(
                "missing",
                "a source tensor is missing",
                unit.rule.line,
                name,
                expected=_wanted(unit.rule, shapes.get(name)),
                got="no such name",
                hint="look for it with convert inspect; set dims or choose a --variant without it",
            )

    def bound(self, unit: Unit) -> Binding | None:
        inputs = tuple([self.header[name] for name in unit.sources])
        key = (unit.form, inputs)
        found = self.known.get(key)
        if found is None:
            found = self.inferred(unit, inputs)
            if found is None:
                return None
            self.known[key] = found
        steps, outputs = found
        return Binding(unit.rule.line, unit.sources, steps, unit.names, inputs, outputs)

    def inferred(self, unit: Unit, inputs: Specs) -> tuple[tuple[Step, ...], Specs] | None:
        """Return the steps with their cast, and what they make; note why they cannot make it."""
        if not self.takes(unit, inputs):
            return None
        rule, steps, declared = unit.rule, unit.form.steps, unit.form.shapes
        try:
            outputs = infer_chain(steps, inputs)
            inferred = tuple(spec.shape for spec in outputs)
            if inferred == declared:
                steps += self.cast(rule, outputs)
                return steps, infer_chain(steps, inputs)
        except StepError as error:
            fact = error.findings[0]
            self.note(
                "step",
                f"a step cannot take these tensors: {fact.what}",
                rule.line,
                *unit.sources,
                expected=fact.expected,
                got=fact.got or ", ".join(map(str, inputs)),
                hint=fact.hint or self.dims_hint(rule),
            )
            return None
        self.note(
            "shape",
            "the steps lead to other shapes than the rule declares",
            rule.line,
            *unit.names,
            expected=_shapes(declared),
            got=f"{_shapes(inferred)} from {', '.join(map(str, inputs))}",
            hint=self.dims_hint(rule),
        )
        return None

    def takes(self, unit: Unit, inputs: Specs) -> bool:
        """Note every source of another dtype or shape than the rule says."""
        before = len(self.findings)
        shapes: tuple[Shape | None, ...] = unit.form.source_shapes or (None,) * len(inputs)
        for name, spec, shape in zip(unit.sources, inputs, shapes, strict=True):
            if spec.dtype not in unit.rule.dtypes:
                self.note(
                    "dtype",
                    "a source tensor has a dtype that the rule file does not allow",
                    unit.rule.line,
                    name,
                    expected=" or ".join(unit.rule.dtypes),
                    got=spec.dtype,
                    hint="add it to dtypes if the model really comes in it",
                )
            if shape is not None and spec.shape != shape:
                self.note(
                    "shape",
                    "a source tensor has another shape",
                    unit.rule.line,
                    name,
                    expected=str(list(shape)),
                    got=str(list(spec.shape)),
                    hint=self.dims_hint(unit.rule),
                )
        return len(self.findings) == before

    def dims_hint(self, rule: Rule) -> str:
        """Say which dims the shapes of a rule depend on."""
        names = {
            name for target in rule.targets for length in target.shape for name in length.names
        }
        for name, derived in reversed(list(self.rule_file.derived.items())):
            if name in names:
                listed = derived.value if isinstance(derived.value, tuple) else (derived.value,)
                names = names.union(*(item.names for item in listed))
        dims = ", ".join(name for name in self.rule_file.dims if name in names)
        what = f"set its dims with --set or --dims: {dims}" if dims else "its rules must differ"
        return f"if the model is of another size, {what}"

    def dtype_of(self, rule: Rule, spec: TensorSpec) -> str:
        """Return the canonical dtype of a tensor that the steps leave as ``spec``."""
        kept = self.dtype is None or rule.keep_dtype or DTYPES[spec.dtype].kind != "float"
        return spec.dtype if kept or self.dtype is None else self.dtype

    def cast(self, rule: Rule, outputs: Specs) -> tuple[Step, ...]:
        """Return the cast that ``--dtype`` adds, if any; raise StepError where it fits a part."""
        wanted = [self.dtype_of(rule, spec) for spec in outputs]
        if wanted == [spec.dtype for spec in outputs]:
            return ()
        if len(set(wanted)) > 1:
            raise StepError(
                f"--dtype {self.dtype} is for some of them only",
                expected="one dtype for all tensors of a rule",
                got=", ".join(map(str, outputs)),
                hint="give each its own rule",
            )
        return (build("cast", {"dtype": wanted[0]}),)

    def dropped(self) -> Iterator[Dropped]:
        for drop in self.expansion.drops:
            if drop.count is not None:
                yield from self.dropped_rest(drop, drop.count)
            elif drop.name in self.header:
                self.check_expected(drop, drop.name)
                yield self.left_out(drop, drop.name)
            elif not drop.drop.optional:
                self.note(
                    "missing",
                    "a source tensor that would be dropped is missing",
                    drop.drop.line,
                    drop.name,
                    expected="a tensor to drop",
                    got="no such name",
                    hint="mark the drop optional: true if checkpoints come without it",
                )

    def check_expected(self, drop: DroppedName, name: str) -> None:
        """Note what the header alone shows of an expected value: that it cannot be so."""
        spec, line = self.header[name], drop.drop.line
        if drop.equals is not None and drop.equals not in self.header:
            self.note(
                "missing",
                "a tensor that must equal another is there, but the other is not",
                line,
                drop.equals,
                expected=f"the tensor that {name} equals",
                got="no such name",
                hint="if the model has only this one, a rule must take it instead",
            )
        elif drop.equals is not None and self.header[drop.equals] != spec:
            self.note(
                "expect",
                "a tensor that would be dropped cannot equal another",
                line,
                name,
                expected=f"{self.header[drop.equals]}, as {drop.equals}",
                got=str(spec),
                hint="a rule must take it if it is not the same tensor",
            )
        elif drop.drop.expect and not _can_be(drop.drop.expect, spec):
            self.note(
                "expect",
                f"a tensor that would be dropped cannot be {drop.drop.expect}",
                line,
                name,
                expected="values of a byte or more; two dims or more for lower_triangular",
                got=str(spec),
            )

    def dropped_rest(self, drop: DroppedName, count: int) -> Iterator[Dropped]:
        begin = bisect_left(self.sorted_names, drop.name)
        names = takewhile(lambda name: name.startswith(drop.name), self.sorted_names[begin:])
        rest = [name for name in names if name in self.in_scope and name not in self.named]
        if len(rest) != count and not (drop.drop.optional and not rest):
            self.note(
                "count",
                "another number of tensors would be dropped than the rule states",
                drop.drop.line,
                f"{drop.name}**",
                expected=str(count),
                got=f"{len(rest)}: {', '.join(fold_names(rest))}" if rest else "none",
                hint="look at what they are before you correct the count",
            )
        for name in rest:
            self.check_expected(drop, name)
            yield self.left_out(drop, name)

    def left_out(self, drop: DroppedName, name: str) -> Dropped:
        said = drop.drop
        return Dropped(name, self.header[name], said.because, said.expect, drop.equals, said.line)

    @cached_property
    def sorted_names(self) -> list[str]:
        return sorted(self.header)

    def unexpected(self, dropped: tuple[Dropped, ...]) -> Iterator[Finding]:
        """Yield every tensor in scope that nothing names, whether or not its rule was bound."""
        named = self.named | {drop.name for drop in dropped}
        prefix = self.settings.source_prefix
        for name, spec in self.header.items():
            if name in named:
                continue
            if not name.startswith(prefix):
                yield Finding(
                    "source-prefix",
                    "a tensor without the prefix that every name carries",
                    "--source-prefix",
                    tensor=name,
                    expected=f"names that begin with {prefix!r}",
                    got=str(spec),
                    hint="to take one model of several in the file, use --scope",
                )
            elif name in self.in_scope:
                yield Finding(
                    "unexpected",
                    "a tensor in scope that no rule takes or drops",
                    self.rule_file.name,
                    tensor=name,
                    expected="nothing of this name",
                    got=str(spec),
                    hint="set dims or choose a --variant that has it; or add a rule or a drop",
                )

    def explained(self, findings: list[Finding]) -> list[Finding]:
        """Add hints; when not one expected name is there, say that once instead of every name."""
        expected = [name for unit in self.expansion.units for name in unit.sources]
        if expected and not any(name in self.header for name in expected):
            return [self.nothing_fits(expected)]
        expected += [drop.name for drop in self.expansion.drops if drop.count is None]
        missing = [f.tensor for f in findings if f.code == "missing" and f.tensor]
        stray = [f.tensor for f in findings if f.code == "unexpected" and f.tensor]
        hints = neighbour_hints(expected, missing, stray)
        # A variant that fits is a better hint than a likely name, and that than what is always so.
        if any(f.code in _OF_ANOTHER_SIZE for f in findings) and (hint := self.fitting_hint()):
            hints.update({f.tensor: hint for f in findings if f.tensor})
        return [replace(f, hint=hints.get(f.tensor or "", f.hint)) for f in findings]

    def fitting_hint(self) -> str | None:
        """Say which variants fit the whole source, if the file has any that do."""

        def fits(settings: Settings, expansion: Expansion) -> bool:
            other = _Binder(self.rule_file, self.header, settings, expansion, self.dtype)
            deque(other.bindings(), maxlen=0)
            return not [*other.unexpected(tuple(other.dropped())), *other.findings]

        return fitting_hint(self.rule_file, self.header, self.settings, fits)

    def nothing_fits(self, expected: list[str]) -> Finding:
        names = sorted(self.header)
        scope, source_prefix = self.settings.scope.prefix, self.settings.source_prefix
        hint = self.fitting_hint() or naming_hint(self.rule_file, self.header, self.settings)
        hint = hint or option_hint(expected, self.header, scope=scope, source_prefix=source_prefix)
        there = counted(len(names), "tensor")
        return Finding(
            "missing",
            f"none of the {len(expected)} tensors that the rules name is in the source",
            self.rule_file.name,
            expected=f"names such as {expected[0]}",
            got=f"{there}, such as {names[0]}" if names else "an empty source",
            hint=hint or "look at the names with convert inspect; choose the model and --variant",
        )


def _can_be(expect: str, spec: TensorSpec) -> bool:
    if expect == "lower_triangular" and len(spec.shape) < 2:
        return False
    return DTYPES[spec.dtype].bits >= 8 or expect == "equals"


def _wanted(rule: Rule, shape: Shape | None) -> str:
    dtypes = " or ".join(rule.dtypes)
    return dtypes if shape is None else f"{dtypes} {list(shape)}"


def _shapes(shapes: tuple[Shape, ...]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
