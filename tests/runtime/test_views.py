"""Tensors that share memory, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from canonical_fixture import every_dtype, write_canonical
from torch import nn

from converter.runtime import load_into, load_tensors


@pytest.mark.parametrize("mapped", [False, True])
def test_tensors_are_contiguous_aligned_and_no_views_of_one_another(
    tmp_path: Path, *, mapped: bool
) -> None:
    path = write_canonical(tmp_path / "toy", every_dtype())
    for name, tensor in load_tensors(path, mapped=mapped).items():
        assert tensor.is_contiguous(), name
        assert tensor.data_ptr() % tensor.element_size() == 0, name
        assert tensor.is_leaf, name
        assert not tensor._is_view(), name


@pytest.mark.parametrize("mapped", [False, True])
def test_a_parameter_is_updated_while_the_backward_pass_still_needs_another(
    tmp_path: Path, *, mapped: bool
) -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    module = nn.Sequential(first, second)
    load_into(module, write_canonical(tmp_path / "toy", module.state_dict()), mapped=mapped)

    def step(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        with torch.no_grad():
            parameter.sub_(parameter.grad)

    for parameter in module.parameters():
        parameter.register_post_accumulate_grad_hook(step)  # type: ignore[no-untyped-call]
    before = first.weight.clone()
    module(torch.ones(2, 4, requires_grad=True)).sum().backward()
    assert not torch.equal(first.weight, before)
