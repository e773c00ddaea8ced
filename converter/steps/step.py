"""What a step is, and the few types that every step shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

from converter.spec import Shape, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

Specs: TypeAlias = tuple[TensorSpec, ...]
Shapes: TypeAlias = tuple[Shape, ...]
Array: TypeAlias = "NDArray[Any]"
Tensors: TypeAlias = "Sequence[NDArray[Any]]"
Takes = Literal["each", "all"]


@dataclass(frozen=True, slots=True)
class Run:
    """The elements ``[begin, end)``, in row-major order, of input ``number``."""

    number: int
    begin: int
    end: int


Runs: TypeAlias = tuple[Run, ...]

# The type of a field says how a rule file spells it: see converter.steps.build.
DTypeName: TypeAlias = str
Number: TypeAlias = int | float
AxisSizes: TypeAlias = tuple[tuple[str, int], ...]  # in a rule file, a mapping
QkvLayout: TypeAlias = Literal["contiguous", "per_head", "grouped"]
RopeOrder: TypeAlias = Literal["interleaved", "half_split"]


class Step(Protocol):
    """One transform of a list of tensors: pure, and ignorant of names, files and models.

    A step is a frozen dataclass; its fields are its parameters in a rule file, and what is wrong
    with them whatever the tensors raises RuleError at construction. A step that ``takes``
    ``each`` is applied to every tensor of the list in turn and the results are joined in order
    (``transpose`` maps 1→1, ``split`` 1→n); one that takes ``all`` is given the whole list at
    once (``concat``, ``fold_weight_norm``).
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    name: ClassVar[str]
    takes: ClassVar[Takes]

    @property
    def fan_out(self) -> int | None:
        """How many outputs one application gives, or None when that depends on shapes."""
        ...

    def infer(self, inputs: Specs) -> Specs:
        """Return the specs of the outputs; raise StepError when the inputs cannot be taken."""
        ...

    def apply(self, inputs: Tensors) -> Tensors:
        """Return the outputs, bit for bit the same on every CPU; never change the inputs.

        The inputs are such that ``infer`` takes them; the outputs may be views of them. Raises
        ValueRefusedError when the values themselves cannot be taken.
        """
        ...

    def runs(self, inputs: Specs) -> tuple[Runs, ...] | None:
        """Return, for each output, the runs of input elements that it is; None if not a few runs.

        The inputs are such that ``infer`` takes them.
        """
        ...

    @property
    def keeps_rows(self) -> bool:
        """Whether rows of the outputs follow from the same rows of all inputs alone.

        A row is a slice of dim 0. If so, ``apply`` may be given some rows at a time.
        """
        ...

    def inverse(self, inputs: Specs) -> Step | None:
        """Return the step that undoes this one on inputs of these specs, or None when lossy."""
        ...

    def preimage(self, outputs: Shapes) -> Shapes | None:
        """Return the only shapes that ``infer`` takes to ``outputs``, or None when undetermined.

        Raises StepError when no input can give outputs of these shapes. Dtypes play no part.
        """
        ...


class Sugar(Protocol):
    """A short way to write several steps, which are what a plan and a manifest hold.

    Like a step it is a frozen dataclass whose fields are its parameters in a rule file, and
    refuses wrong ones with RuleError at construction.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    name: ClassVar[str]

    def expansion(self) -> tuple[Step, ...]:
        """Return the steps that it stands for."""
        ...


def step_parameters(step: Step) -> dict[str, object]:
    """Return the parameters of a step as a rule file would state them; None is not stated."""
    stated: dict[str, object] = {}
    for parameter in fields(step):
        value = getattr(step, parameter.name)
        if parameter.type == "AxisSizes":
            value = dict(value) or None
        if value is not None:
            stated[parameter.name] = list(value) if isinstance(value, tuple) else value
    return stated


def call_text(name: str, parameters: Mapping[str, object]) -> str:
    """Return a step as a rule file would state it.

    >>> call_text("rearrange", {"pattern": "(a b) -> a b", "sizes": {"a": 2}})
    'rearrange {pattern: (a b) -> a b, sizes: {a: 2}}'
    >>> call_text("merge_shards", {"replicated": True})
    'merge_shards {replicated: true}'
    """
    values = ", ".join(f"{key}: {_value_text(value)}" for key, value in parameters.items())
    return f"{name} {{{values}}}" if values else name


def _value_text(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {item}' for key, item in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) else str(value)
