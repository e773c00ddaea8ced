"""Steps that cannot lead where a rule says, that do nothing, or that lose something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from converter.errors import StepError
from converter.finding import Finding
from converter.fold import fold_names
from converter.header import MAX_RANK
from converter.rules.expand import Expansion, Unit
from converter.rules.form import Form
from converter.rules.rule_file import RuleFile
from converter.spec import Shape, TensorSpec
from converter.steps.chain import infer_chain, preimage_chain
from converter.steps.step import Shapes, Specs, Step


@dataclass(frozen=True, slots=True)
class Note:
    """A fact about a rule that is no fault: a step that cannot be undone bit for bit."""

    where: str
    what: str
    tensor: str

    def as_json(self) -> dict[str, str]:
        """Return the note for a ``--json`` report."""
        return {"where": self.where, "what": self.what, "tensor": self.tensor}


def steps(rule_file: RuleFile, expansion: Expansion) -> Iterator[Finding]:
    """Yield what is wrong with the steps of rules, each form of a rule once."""
    for unit in _one_of_each_form(expansion):
        clash = _forward(rule_file, unit)
        if clash is not None:
            yield clash
        yield from _idle(rule_file, unit)


def notes(rule_file: RuleFile, expansion: Expansion) -> Iterator[Note]:
    """Yield a note for every step that loses something, and the targets that it is for."""
    losses: dict[tuple[int, str], list[str]] = {}
    lossy: dict[int, list[str]] = {}
    for unit in expansion.units:
        if id(unit.form) not in lossy:
            lossy[id(unit.form)] = list(_lossy(unit))
        for what in lossy[id(unit.form)]:
            losses.setdefault((unit.rule.line, what), []).extend(unit.names)
    for (line, what), names in losses.items():
        yield Note(rule_file.where(line), what, ", ".join(fold_names(names)))


def _one_of_each_form(expansion: Expansion) -> Iterator[Unit]:
    forms: set[int] = set()
    for unit in expansion.units:
        if id(unit.form) not in forms:
            forms.add(id(unit.form))
            yield unit


def _forward(rule_file: RuleFile, unit: Unit) -> Finding | None:
    """Return a finding when what a reshape leaves, whatever it got, does not become the targets.

    Shapes are worked back from the targets as far as that goes, which is up to the last reshape;
    what stands before it is worked forth from each reshape to the end. One dtype of the rule for
    which it does is enough.
    """
    clashes = [_forward_with(rule_file, unit, dtype) for dtype in unit.form.rule.dtypes]
    return None if None in clashes else clashes[0]


def _forward_with(rule_file: RuleFile, unit: Unit, dtype: str) -> Finding | None:
    form = unit.form
    counts = _counts(form.steps, len(unit.sources))
    for number, step in enumerate(form.steps[:-1]):
        shape, count = getattr(step, "shape", None), counts[number + 1]
        if step.name != "reshape" or shape is None or count is None:
            continue
        specs = (TensorSpec(dtype, shape),) * count
        try:
            made = tuple(spec.shape for spec in infer_chain(form.steps[number + 1 :], specs))
        except StepError as error:
            fact = error.findings[0]
            return _clash(rule_file, unit, number, fact.what, fact.expected, fact.got)
        if made != form.shapes:
            return _clash(
                rule_file, unit, number, "the steps lead elsewhere", _text(form.shapes), _text(made)
            )
    return None


def _counts(steps: Sequence[Step], sources: int) -> list[int | None]:
    counts: list[int | None] = [sources]
    for step in steps:
        inputs = 1 if step.takes == "all" else counts[-1]
        counts.append(None if inputs is None or step.fan_out is None else inputs * step.fan_out)
    return counts


def _clash(
    rule_file: RuleFile, unit: Unit, number: int, what: str, expected: str | None, got: str | None
) -> Finding:
    return Finding(
        "shape",
        f"the shapes cannot add up: after reshape, {what}",
        rule_file.where(unit.form.calls[number].line),
        tensor=", ".join(f"{name} {list(shape)}" for name, shape in unit.targets),
        expected=expected,
        got=got,
        hint="correct the shape of the reshape, or what follows it",
    )


def _text(shapes: Shapes) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)


def _idle(rule_file: RuleFile, unit: Unit) -> Iterator[Finding]:
    """Yield a finding for steps that change nothing, or undo the one before, for all dims."""
    form = unit.form
    known = _known_specs(form)
    before: Step | None = None
    for number, (step, specs) in enumerate(zip(form.steps, known, strict=True)):
        call = form.calls[number]
        constant = not any(item.names for item in call.expressions)
        why = None
        if before is not None and specs is not None and known[number - 1] is not None:
            undoing = before.inverse(known[number - 1] or ())
            why = "undoes the one before it" if undoing == step else None
        if why is None and constant and specs is not None and _changes_nothing(step, specs):
            why = "changes nothing"
        if why is not None:
            yield Finding(
                "idle-step",
                f"the step {step.name} {why}",
                rule_file.where(call.line),
                tensor=", ".join(unit.names),
                expected="steps that each do something",
                got=f"{step.name} of {', '.join(map(str, specs or ()))}",
                hint="correct its parameters, or remove it",
            )
        before = step


def _known_specs(form: Form) -> list[Specs | None]:
    """Return what goes into each step, or None for all where the sources' shapes are open."""
    if form.source_shapes is None:
        return [None] * len(form.steps)
    specs: Specs = tuple(TensorSpec(form.dtype, shape) for shape in form.source_shapes)
    known: list[Specs | None] = []
    for step in form.steps:
        known.append(specs)
        specs = infer_chain((step,), specs)
    return known


def _changes_nothing(step: Step, specs: Specs) -> bool:
    """Whether a step leaves tensors of these specs as they are, of more than one element each."""
    if any(spec.numel < 2 for spec in specs) or infer_chain((step,), specs) != specs:
        return False
    lists = [specs] if step.takes == "all" else [(spec,) for spec in specs]
    return bool(specs) and all(_moves_nothing(step, part) for part in lists)


def _moves_nothing(step: Step, inputs: Specs) -> bool:
    """Whether the one output is the one input, run after run; or a permutation of dims is none."""
    if step.name == "permute":
        return getattr(step, "dims", None) == tuple(range(len(inputs[0].shape)))
    outputs = step.runs(inputs)
    if outputs is None or len(outputs) != 1 or len(inputs) != 1:
        return False
    runs = outputs[0]
    ends = [0, *(run.end for run in runs)]
    return [run.begin for run in runs] == ends[:-1] and ends[-1] == inputs[0].numel


def _lossy(unit: Unit) -> Iterator[str]:
    """Yield what the steps of a unit lose: those that have no inverse for some dtype it accepts."""
    if not unit.sources:
        return
    for step, shapes in zip(unit.form.steps, _input_shapes(unit), strict=True):
        for dtype in unit.rule.dtypes:
            specs = tuple(TensorSpec(dtype, shape) for shape in shapes)
            if _is_lossy(step, specs if step.takes == "all" else specs[:1]):
                yield _loss(step, dtype)
                break


def _is_lossy(step: Step, specs: Specs) -> bool:
    try:
        return step.inverse(specs) is None
    except StepError:  # it looks at shapes, and they are open: it moves elements, and loses none
        return False


def _loss(step: Step, dtype: str) -> str:
    because = getattr(step, "because", None)
    kind = f"{step.name} is lossy"
    if step.name == "cast":
        kind += f" from {dtype}"
    return f"{kind}: {because}" if because else kind


def _input_shapes(unit: Unit) -> list[Shapes]:
    """Return shapes that each step could get: those that it gets, where they are known.

    Elsewhere they are of the highest rank, so that every dim which a step may name is there.
    """
    form = unit.form
    counts = _counts(form.steps, len(unit.sources))
    shapes: list[Shapes] = []
    for number in range(len(form.steps)):
        known = _preimage(form.steps[number:], form.shapes, counts[number])
        open_shape: Shape = (1,) * MAX_RANK
        shapes.append(known or (open_shape,) * (counts[number] or 1))
    return shapes


def _preimage(steps: Sequence[Step], declared: Shapes, count: int | None) -> Shapes | None:
    try:
        return preimage_chain(steps, declared, sources=count)
    except StepError:
        return None
