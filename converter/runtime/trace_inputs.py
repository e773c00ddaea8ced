"""The inputs that a network is run on: read from a file, and held against its ``forward``."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from converter.errors import ExecutionError, SourceError, UsageError
from converter.finding import Finding, closest, listed
from converter.header import LENGTH_BYTES, SafetensorsHeader, find_data_start, parse_header
from converter.spec import DTYPES, TensorSpec
from converter.torch_dtypes import SAFETENSORS_DTYPES, TORCH_DTYPES

PREFIX = "input."
_LONGEST_DOC = 900
# What networks and torch raise at inputs that they cannot compute with.
_REFUSALS = (RuntimeError, IndexError, TypeError, ValueError, KeyError, AttributeError)


def read_inputs(path: Path, prefix: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, by the names of the network's arguments.

    Those whose names begin with ``prefix`` are meant, and are named without it; by default
    ``input.``, or all of them if no name begins so. Raises SourceError.
    """
    try:
        if not path.exists():
            raise SourceError("there is no such file", code="absent", where=str(path))
        if not path.is_file():
            what = "not a regular file"
            expected = "a safetensors file of the inputs"
            raise SourceError(what, code="kind", where=str(path), expected=expected)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = find_data_start(file.read(LENGTH_BYTES), size, where=str(path))
            file.seek(0)
            header = parse_header(file.read(start), size, where=str(path))
            tensors: dict[str, Tensor] = {}
            for argument, name in _meant(header, prefix, str(path)).items():
                placement = next(tensor for tensor in header.tensors if tensor.name == name)
                file.seek(start + placement.begin)
                data = bytearray(file.read(placement.end - placement.begin))
                tensors[argument] = _tensor(data, placement.spec, name, str(path))
    except OSError as error:
        raise SourceError(
            f"the inputs cannot be read: {error.strerror}", code="unreadable", where=str(path)
        ) from error
    return tensors


def _meant(header: SafetensorsHeader, prefix: str | None, where: str) -> dict[str, str]:
    names = [tensor.name for tensor in header.tensors]
    asked = PREFIX if prefix is None else prefix
    meant = {name.removeprefix(asked): name for name in names if name.startswith(asked)}
    if not meant and prefix is None:
        return {name: name for name in names}
    if not meant:
        raise SourceError(
            "no tensor has a name that begins so",
            code="inputs",
            where=where,
            expected=f"names such as {asked}x",
            got=listed(names),
        )
    return meant


def _tensor(data: bytearray, spec: TensorSpec, name: str, where: str) -> Tensor:
    if spec.dtype not in TORCH_DTYPES:
        raise SourceError(
            "torch has no such dtype", code="dtype", where=where, tensor=name, got=spec.dtype
        )
    dtype = TORCH_DTYPES[spec.dtype]
    if len(data) != spec.numel * DTYPES[spec.dtype].bits // 8:
        raise SourceError("the file was cut short meanwhile", code="changed", where=where)
    if not data:
        return torch.empty(spec.shape, dtype=dtype)
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).view(spec.shape)


def fit(module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the arguments of ``module`` that ``inputs`` are, on its device.

    A tensor of no dims is a number where ``forward`` asks for one. Raises UsageError, with all
    that is missing and unknown, unless the names are those of the arguments.
    """
    parameters = inspect.signature(module.forward).parameters
    takes = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    named = {parameter.name: parameter for parameter in takes}
    more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    takes_what, said = _told(module)
    findings = [
        Finding(
            "inputs",
            f"the network takes {name!r}, which the inputs lack",
            expected=takes_what,
            hint=said,
        )
        for name, parameter in named.items()
        if parameter.default is parameter.empty and name not in inputs
    ]
    for name in inputs:
        if name not in named and not more:
            near = closest(name, named)
            what = f"the network takes no {name!r}"
            if near:
                what += f". Did you mean {near!r}?"
            findings.append(Finding("inputs", what, expected=takes_what, hint=said))
    if findings:
        raise UsageError.of(findings)
    device = _device(module)
    return {name: _value(tensor.to(device), named.get(name)) for name, tensor in inputs.items()}


def run(module: nn.Module, arguments: Mapping[str, object]) -> None:
    """Call the network. Raises UsageError when it cannot compute with these, saying what it takes.

    What is wrong is said in the network's own words, or in those of torch.
    """
    try:
        module(**arguments)
    except torch.OutOfMemoryError as error:
        raise ExecutionError(
            "not enough memory on the device to run the network",
            code="memory",
            got=str(error).splitlines()[0],
            hint="give smaller inputs, or run on the CPU",
        ) from error
    except _REFUSALS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        takes, said = _told(module)
        raise UsageError(
            f"the network cannot compute with these inputs: {reason:.300}",
            code="inputs",
            expected=takes,
            got="; ".join(f"{name} {_spec(value)}" for name, value in arguments.items()),
            hint=said,
        ) from error


def _told(module: nn.Module) -> tuple[str, str | None]:
    """Return what a network says of its inputs: its signature, and its words."""
    taken = []
    for parameter in inspect.signature(module.forward).parameters.values():
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        taken.append(f"{parameter.name}{default}")
    # Not inspect.getdoc, which takes that of nn.Module where there is none.
    said = " ".join((module.forward.__doc__ or "").split())
    return f"{type(module).__name__}({', '.join(taken)})", said[:_LONGEST_DOC] or None


def _device(module: nn.Module) -> torch.device:
    held: Sequence[Tensor] = list(
        itertools.islice(itertools.chain(module.parameters(), module.buffers()), 1)
    )
    return held[0].device if held else torch.device("cpu")


def _value(tensor: Tensor, parameter: inspect.Parameter | None) -> object:
    asked = str(parameter.annotation) if parameter is not None else ""
    is_number = asked in ("bool", "int", "float", *(str(kind) for kind in (bool, int, float)))
    return tensor.item() if is_number and tensor.ndim == 0 else tensor


def _spec(value: object) -> str:
    if isinstance(value, Tensor):
        return str(
            TensorSpec(SAFETENSORS_DTYPES.get(value.dtype, str(value.dtype)), tuple(value.shape))
        )
    return repr(value)
