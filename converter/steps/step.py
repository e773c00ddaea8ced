"""What a step is, and the few types that every step shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias

from converter.spec import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor

Specs: TypeAlias = tuple[TensorSpec, ...]
Tensors: TypeAlias = "Sequence[Tensor]"
Takes = Literal["each", "all"]


class Step(Protocol):
    """One transform of a list of tensors: pure, and ignorant of names, files and models.

    A step is a frozen dataclass; its fields are its parameters in a rule file. A step that
    ``takes`` ``each`` is applied to every tensor of the list in turn and the results are joined
    in order (``transpose`` maps 1→1, ``split`` 1→n); one that takes ``all`` is given the whole
    list at once (``concat``, ``fold_weight_norm``).
    """

    name: ClassVar[str]
    takes: ClassVar[Takes]

    @property
    def fan_out(self) -> int | None:
        """How many outputs each input becomes, or None when that depends on its shape."""
        ...

    def infer(self, inputs: Specs) -> Specs:
        """Return the specs of the outputs; raise StepError when the inputs cannot be taken."""
        ...

    def apply(self, inputs: Tensors) -> Tensors:
        """Return the outputs, bit for bit the same on every CPU; never change the inputs.

        The outputs may be views of the inputs. Raises ValueRefusedError when the values
        themselves cannot be taken.
        """
        ...

    def inverse(self, inputs: Specs) -> Step | None:
        """Return the step that undoes this one on inputs of these specs, or None when lossy."""
        ...

    def preimage(self, outputs: Specs) -> Specs | None:
        """Return the only specs that ``infer`` takes to ``outputs``, or None when not determined.

        Raises StepError when no input can give these outputs. Dtypes follow the outputs.
        """
        ...
