"""The networks that come with the runtime: one module each, imported when it is asked for.

Such a module has ``CONVENTIONS``, what it implements of the facts that no shape can show, and
``build(model)``, which returns an ``nn.Module`` whose attributes bear the canonical names. A
convention maps to the values that are implemented, or to ``float`` or ``int`` where the network
takes any positive number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from converter.errors import MismatchError, UsageError
from converter.finding import Finding
from converter.manifest import ModelRecord, Scalar

Options: TypeAlias = type[int] | type[float] | Collection[Scalar]

NETWORKS: Mapping[str, str] = {
    "bert": "converter.runtime.networks.bert",
    "bigvgan": "converter.runtime.networks.bigvgan",
    "campplus": "converter.runtime.networks.campplus",
    "conformer": "converter.runtime.networks.conformer",
    "dit": "converter.runtime.networks.dit",
    "gpt": "converter.runtime.networks.gpt",
    "gpt-layer": "converter.runtime.networks.gpt_layer",
    "gpt-neox": "converter.runtime.networks.gpt_neox",
    "gpt2": "converter.runtime.networks.gpt2",
    "length-regulator": "converter.runtime.networks.length_regulator",
    "perceiver": "converter.runtime.networks.perceiver",
    "semantic-codec": "converter.runtime.networks.semantic_codec",
    "soprano-decoder": "converter.runtime.networks.soprano_decoder",
    "soprano-lm": "converter.runtime.networks.soprano_lm",
    "wav2vec-bert": "converter.runtime.networks.wav2vec_bert",
    "wav2vec-bert-stats": "converter.runtime.networks.wav2vec_bert_stats",
    "whisper": "converter.runtime.networks.whisper",
}


def build_network(model: ModelRecord) -> nn.Module:
    """Return the network of ``model`` on the meta device.

    Raises UsageError when there is none, and MismatchError with every convention that the
    manifest lacks, has beyond those of the network, or sets to what it does not implement.
    """
    if model.name not in NETWORKS:
        raise UsageError(
            f"no network for the model {model.name!r}",
            expected=f"one of {', '.join(NETWORKS)}",
            hint="load_tensors gives its tensors by name; load_into fills a module of your own",
        )
    network = import_module(NETWORKS[model.name])
    findings = list(_differences(network.CONVENTIONS, model.conventions, model.name))
    if findings:
        raise MismatchError.of(findings)
    with torch.device("meta"), _WithoutInitialisers():
        module: nn.Module = network.build(model)
    return module


# Those of torch.nn.init that modes see themselves, and what the others come down to.
_INITIALISERS = frozenset(
    {
        nn.init.kaiming_uniform_,
        nn.init.normal_,
        nn.init.uniform_,
        Tensor.normal_,
        Tensor.uniform_,
    }
)


class _WithoutInitialisers(TorchFunctionMode):
    """Skips random initialisation: no weight of a network that is being built is ever kept.

    On the meta device it computes nothing, but makes torch import its reference implementations,
    which takes longer than many a load.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _INITIALISERS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _differences(
    implemented: Mapping[str, Options], stated: Mapping[str, Scalar], model: str
) -> Iterator[Finding]:
    """Find the conventions that a manifest states otherwise than the network implements them."""
    for key in [*implemented, *(key for key in stated if key not in implemented)]:
        if key not in stated:
            what = "the manifest does not state a convention that the network relies on"
        elif key not in implemented:
            what = "the network does not know a convention of the manifest"
        elif not _is_among(stated[key], implemented[key]):
            what = "the network does not implement what the manifest states"
        else:
            continue
        yield Finding(
            code="convention",
            what=f"{model}: {key}: {what}",
            expected=_describe(implemented[key]) if key in implemented else None,
            got=repr(stated[key]) if key in stated else None,
        )


def _is_among(value: Scalar, options: Options) -> bool:
    if isinstance(options, type):
        kinds = (int, float) if options is float else (int,)
        return isinstance(value, kinds) and not isinstance(value, bool) and value > 0
    # True is not 1 here, though Python finds them equal.
    return any(
        value == option and isinstance(value, bool) == isinstance(option, bool)
        for option in options
    )


def _describe(options: Options) -> str:
    if isinstance(options, type):
        return "a positive number" if options is float else "a positive integer"
    return " or ".join(sorted(map(repr, options)))
