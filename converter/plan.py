"""Bind a rule file to a header: every name, shape, dtype and byte offset, before a byte is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from converter.canonical import Placement, arrange, partition, shard_name
from converter.errors import PlanError, StepError
from converter.finding import Finding
from converter.fold import fold_findings
from converter.hints import Neighbours, option_hint
from converter.rules.expand import DroppedName, Expansion, Unit, expand
from converter.rules.lint import expand_checked
from converter.rules.rule_file import Rule, RuleFile, StandIn
from converter.rules.settings import Settings, choices, resolve
from converter.spec import DTYPES, Header, Shape, TensorSpec
from converter.steps.build import build
from converter.steps.chain import infer_chain
from converter.steps.step import Specs, Step


@dataclass(frozen=True, slots=True)
class Binding:
    """One unit of work: its sources, steps and targets, all with their specs.

    A binding with a ``stand_in`` has no sources; its targets are filled.
    """

    line: int
    sources: tuple[str, ...]
    steps: tuple[Step, ...]
    targets: tuple[str, ...]
    inputs: Specs
    outputs: Specs
    stand_in: StandIn | None = None
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """A source tensor that is left out, why, and what its value is to be shown to be."""

    name: str
    because: str
    expect: str | None
    equals: str | None
    line: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One output file and where its tensors lie in it."""

    file: str
    placements: tuple[Placement, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that a conversion will do. Coverage is complete, or there is no plan."""

    rule_file: RuleFile
    settings: Settings
    bindings: tuple[Binding, ...]
    dropped: tuple[Dropped, ...]
    aliases: Mapping[str, str]
    allow_nan: frozenset[str]
    out_of_scope: int
    shards: tuple[Shard, ...]
    dtype: str | None

    @cached_property
    def targets(self) -> dict[str, TensorSpec]:
        """All canonical tensors that are stored, in execution order."""
        return {
            name: spec
            for binding in self.bindings
            for name, spec in zip(binding.targets, binding.outputs, strict=True)
        }

    @property
    def used(self) -> int:
        """Number of source tensors that go into canonical ones."""
        return sum(len(binding.sources) for binding in self.bindings)

    @property
    def total_bytes(self) -> int:
        """Size of all canonical data in bytes."""
        return sum(spec.nbytes for spec in self.targets.values())


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
    findings = [*binder.findings, *binder.unexpected(bindings, dropped)]
    if findings:
        raise PlanError.of(fold_findings(binder.explained(findings)))
    return Plan(
        rule_file=rule_file,
        settings=settings,
        bindings=bindings,
        dropped=dropped,
        aliases={alias.name: alias.of for alias in expansion.aliases},
        allow_nan=expansion.allow_nan,
        out_of_scope=len(header) - len(binder.in_scope),
        shards=_shards(bindings, max_shard_bytes),
        dtype=dtype,
    )


def _shards(bindings: tuple[Binding, ...], max_shard_bytes: int | None) -> tuple[Shard, ...]:
    targets = (
        pair for binding in bindings for pair in zip(binding.targets, binding.outputs, strict=True)
    )
    parts = partition(targets, max_shard_bytes)
    return tuple(
        Shard(shard_name(number, len(parts)), arrange(part))
        for number, part in enumerate(parts, start=1)
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
        prefix, scope = settings.source_prefix, settings.scope
        self.in_scope = {
            name
            for name in header
            if name.startswith(prefix) and scope.holds(name.removeprefix(prefix))
        }
        self.findings: list[Finding] = []

    def note(
        self,
        code: str,
        what: str,
        line: int,
        *,
        tensor: str,
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
    ) -> None:
        where = self.rule_file.where(line)
        self.findings.append(Finding(code, what, where, tensor, expected, got, hint))

    def bindings(self) -> Iterator[Binding]:
        for unit in self.expansion.units:
            missing = [name for name in unit.sources if name not in self.header]
            if unit.rule.absent and missing and len(missing) == len(unit.sources):
                yield self.standing_in(unit, unit.rule.absent)
            elif missing:
                self.missing(unit, missing)
            elif binding := self.bound(unit):
                yield binding

    def standing_in(self, unit: Unit, stand_in: StandIn) -> Binding:
        specs = tuple(TensorSpec(stand_in.dtype, shape) for _, shape in unit.targets)
        outputs = tuple(TensorSpec(self.dtype_of(unit.rule, s), s.shape) for s in specs)
        names = tuple(name for name, _ in unit.targets)
        return Binding(unit.rule.line, (), (), names, (), outputs, stand_in, unit.sources)

    def missing(self, unit: Unit, names: list[str]) -> None:
        shapes = dict(zip(unit.sources, unit.source_shapes or (), strict=False))
        for name in names:
            self.note(
                "missing",
                "a source tensor is missing",
                unit.rule.line,
                tensor=name,
                expected=_wanted(unit.rule, shapes.get(name)),
            )

    def bound(self, unit: Unit) -> Binding | None:
        inputs = tuple(self.header[name] for name in unit.sources)
        if not self.takes(unit, inputs):
            return None
        line = unit.rule.line
        targets = tuple(name for name, _ in unit.targets)
        try:
            outputs = infer_chain(unit.steps, inputs)
        except StepError as error:
            fact = error.findings[0]
            self.note(
                "step",
                f"a step cannot take these tensors: {fact.what}",
                line,
                tensor=", ".join(unit.sources),
                expected=fact.expected,
                got=fact.got or ", ".join(map(str, inputs)),
                hint=fact.hint,
            )
            return None
        declared = tuple(shape for _, shape in unit.targets)
        inferred = tuple(spec.shape for spec in outputs)
        if inferred != declared:
            self.note(
                "shape",
                "the steps lead to other shapes than the rule declares",
                line,
                tensor=", ".join(targets),
                expected=_shapes(declared),
                got=f"{_shapes(inferred)} from {', '.join(map(str, inputs))}",
                hint="set the dims to the source's: --set dim=value",
            )
            return None
        steps = unit.steps + self.cast(unit.rule, outputs)
        outputs = infer_chain(steps, inputs)
        return Binding(line, unit.sources, steps, targets, inputs, outputs)

    def takes(self, unit: Unit, inputs: Specs) -> bool:
        """Note every source of another dtype or shape than the rule says."""
        before = len(self.findings)
        shapes: tuple[Shape | None, ...] = unit.source_shapes or (None,) * len(inputs)
        for name, spec, shape in zip(unit.sources, inputs, shapes, strict=True):
            if spec.dtype not in unit.rule.dtypes:
                self.note(
                    "dtype",
                    "a source tensor has a dtype that the rule file does not allow",
                    unit.rule.line,
                    tensor=name,
                    expected=" or ".join(unit.rule.dtypes),
                    got=spec.dtype,
                    hint="add it to dtypes if the model really comes in it",
                )
            if shape is not None and spec.shape != shape:
                self.note(
                    "shape",
                    "a source tensor has another shape",
                    unit.rule.line,
                    tensor=name,
                    expected=str(list(shape)),
                    got=str(list(spec.shape)),
                    hint="set the dims (--set dim=value) if the model is of another size",
                )
        return len(self.findings) == before

    def dtype_of(self, rule: Rule, spec: TensorSpec) -> str:
        """Return the canonical dtype of a tensor that the steps leave as ``spec``."""
        kept = self.dtype is None or rule.keep_dtype or DTYPES[spec.dtype].kind != "float"
        return spec.dtype if kept or self.dtype is None else self.dtype

    def cast(self, rule: Rule, outputs: Specs) -> tuple[Step, ...]:
        """Return the cast that ``--dtype`` adds, if any; a rule's outputs share one dtype."""
        wanted = {self.dtype_of(rule, spec) for spec in outputs}
        if len(wanted) != 1 or wanted == {spec.dtype for spec in outputs}:
            return ()
        return (build("cast", {"dtype": wanted.pop()}),)

    def dropped(self) -> Iterator[Dropped]:
        for drop in self.expansion.drops:
            if drop.count is not None:
                yield from self.dropped_rest(drop, drop.count)
            elif drop.name in self.header:
                if drop.equals is not None and drop.equals not in self.header:
                    self.missing_twin(drop, drop.equals)
                yield _dropped(drop, drop.name)
            elif not drop.drop.optional:
                self.note(
                    "missing",
                    "a source tensor that would be dropped is missing",
                    drop.drop.line,
                    tensor=drop.name,
                    hint="mark the drop optional: true if checkpoints come without it",
                )

    def missing_twin(self, drop: DroppedName, equals: str) -> None:
        self.note(
            "missing",
            "a tensor that must equal another is there, but the other is not",
            drop.drop.line,
            tensor=equals,
            expected=f"the tensor that {drop.name} equals",
        )

    def dropped_rest(self, drop: DroppedName, count: int) -> Iterator[Dropped]:
        named = {name for unit in self.expansion.units for name in unit.sources}
        names = [n for n in self.header if n in self.in_scope and n.startswith(drop.name)]
        rest = [name for name in names if name not in named]
        if len(rest) != count and not (drop.drop.optional and not rest):
            self.note(
                "count",
                "another number of tensors would be dropped than the rule states",
                drop.drop.line,
                tensor=f"{drop.name}**",
                expected=str(count),
                got=str(len(rest)),
            )
        yield from (_dropped(drop, name) for name in rest)

    def unexpected(
        self, bindings: tuple[Binding, ...], dropped: tuple[Dropped, ...]
    ) -> Iterator[Finding]:
        """Yield every tensor in scope that nothing names, whether or not its rule was bound."""
        named = {name for unit in self.expansion.units for name in unit.sources}
        named |= {drop.name for drop in dropped}
        for name in self.header:
            if name in self.in_scope and name not in named:
                yield Finding(
                    "unexpected",
                    "a tensor in scope that no rule takes or drops",
                    self.rule_file.name,
                    tensor=name,
                    got=str(self.header[name]),
                )

    def explained(self, findings: list[Finding]) -> list[Finding]:
        """Add hints; when not one expected name is there, say that once instead of every name."""
        expected = [name for unit in self.expansion.units for name in unit.sources]
        if expected and not any(name in self.header for name in expected):
            return [self.nothing_fits(expected)]
        stray = [f.tensor for f in findings if f.code == "unexpected" and f.tensor]
        near = Neighbours.of(expected, stray)
        return [_hinted(finding, near) for finding in findings]

    def nothing_fits(self, expected: list[str]) -> Finding:
        names = sorted(self.header)
        hint = option_hint(expected, self.settings.scope.prefix, self.header)
        hint = hint or self.variant_hint()
        return Finding(
            "missing",
            f"none of the {len(expected)} tensors that the rules name is in the source",
            self.rule_file.name,
            expected=f"names such as {expected[0]}",
            got=f"{len(names)} tensors, such as {names[0]}" if names else "an empty source",
            hint=hint or "look at the names with convert inspect; choose the model and --variant",
        )

    def variant_hint(self) -> str | None:
        """Say which variants name tensors of this source, when the chosen ones name none."""
        best, most = None, 0
        for variant in choices(self.rule_file):
            settings = resolve(
                self.rule_file, variant=variant, source_prefix=self.settings.source_prefix
            )
            units = expand(self.rule_file, settings).units
            found = sum(name in self.header for unit in units for name in unit.sources)
            if found > most:
                best, most = variant, found
        if best is None:
            return None
        axes = zip(self.rule_file.variants.values(), best, strict=True)
        names = ",".join(name for variants, name in axes if not variants[name].is_default)
        option = f"--variant {names}" if names else "no --variant at all"
        return f"with {option} the rules name {most} tensors of this source"


def _dropped(drop: DroppedName, name: str) -> Dropped:
    return Dropped(name, drop.drop.because, drop.drop.expect, drop.equals, drop.drop.line)


def _hinted(finding: Finding, near: Neighbours) -> Finding:
    if finding.tensor is None or finding.hint is not None:
        return finding
    if finding.code == "missing":
        return replace(finding, hint=near.of_missing(finding.tensor))
    if finding.code == "unexpected":
        return replace(finding, hint=near.of_unexpected(finding.tensor))
    return finding


def _wanted(rule: Rule, shape: Shape | None) -> str:
    dtypes = " or ".join(rule.dtypes)
    return dtypes if shape is None else f"{dtypes} {list(shape)}"


def _shapes(shapes: tuple[Shape, ...]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
