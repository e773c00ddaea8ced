"""Mistakes that leave every name and shape in place, made to a network on purpose.

Each takes the network and a monkeypatch, which undoes what is changed outside of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

Mutant: TypeAlias = Callable[[nn.Module, pytest.MonkeyPatch], None]


def swapped(first: str, second: str) -> Mutant:
    """Give two submodules, or two parameters, each what belongs to the other."""

    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        one, other = (list(_tensors(network, path)) for path in (first, second))
        for mine, yours in zip(one, other, strict=True):
            mine.data, yours.data = yours.data, mine.data

    return mutate


def transposed(path: str) -> Mutant:
    """Transpose a square weight."""

    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        weight = network.get_parameter(path)
        assert weight.shape == weight.T.shape
        weight.data = weight.data.T

    return mutate


def ignored(path: str) -> Mutant:
    """Have a norm without its weight."""

    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        network.get_parameter(f"{path}.weight").data.fill_(1)

    return mutate


def halves_swapped(path: str) -> Mutant:
    """Put the second half of a fused projection first."""

    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        for tensor in _tensors(network, path):
            tensor.data = tensor.data.roll(len(tensor) // 2, dims=0)

    return mutate


def replaced(name: str, by: Callable[..., Tensor]) -> Mutant:
    """Call another function where ``torch.nn.functional`` has the one of this name."""

    def mutate(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(F, name, by)

    return mutate


def patched(owner: object, name: str, by: object) -> Mutant:
    """Put something else where ``owner`` has what bears this name."""

    def mutate(_: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(owner, name, by)

    return mutate


def changed(path: str, by: Callable[[Tensor], Tensor]) -> Mutant:
    """Pass on what ``by`` makes of a submodule's output; the path of the network itself is ''."""

    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        module = network.get_submodule(path)
        module.register_forward_hook(lambda _module, _inputs, output: by(output))

    return mutate


def with_epsilon(eps: float) -> Mutant:
    """Give every norm another epsilon."""

    def mutate(network: nn.Module, _: pytest.MonkeyPatch) -> None:
        for module in network.modules():
            if "eps" in vars(module):
                vars(module)["eps"] = eps

    return mutate


gelu_tanh = partial(F.gelu, approximate="tanh")


def _tensors(network: nn.Module, path: str) -> list[nn.Parameter]:
    parent, _, leaf = path.rpartition(".")
    found = getattr(network.get_submodule(parent), leaf)
    return [found] if isinstance(found, nn.Parameter) else list(found.parameters())
