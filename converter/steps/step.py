"""What a step is, and the few types that every step shares."""

from __future__ import annotations

from collections.abc import Sequence
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


def step_parameters(step: Step) -> dict[str, object]:
    """Return the parameters of a step as a rule file would state them; None is not stated."""
    values = {field.name: getattr(step, field.name) for field in fields(step)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }
