"""Run a network on recorded inputs, and compare all that it computes with what was recorded.

No test framework here, so that a script can hold real weights to the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from converter.runtime.networks.bert import Bert, mean_pool
from converter.runtime.networks.dit import DiT
from converter.runtime.networks.flow_matching import solve_flow

BERT_TOLERANCE = 1e-5
DIT_TOLERANCE = 2e-5


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest absolute difference of one tensor, and what is allowed."""

    name: str
    largest: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the difference is allowed; NaN never is."""
        return self.largest <= self.allowed


def compare(
    got: Mapping[str, Tensor],
    recorded: Mapping[str, Tensor],
    tolerance: float,
    attention_mask: Tensor | None = None,
) -> list[Difference]:
    """Compare every recorded output and intermediate with the tensor of the same name in ``got``.

    A difference is held against ``tolerance * max(1, largest recorded magnitude)`` of that same
    tensor. Tensors over positions [B, T, ...] count where ``attention_mask`` [B, T] is not zero.
    """
    differences = []
    for name, expected in recorded.items():
        if name.startswith("input."):
            continue
        actual = got[name].detach().cpu()
        if actual.shape != expected.shape:
            raise AssertionError(f"{name}: {actual.shape} where {expected.shape} was recorded")
        if attention_mask is not None and expected.ndim == 3:
            actual, expected = actual[attention_mask != 0], expected[attention_mask != 0]
        largest = (actual.double() - expected.double()).abs().max().item()
        allowed = tolerance * max(1.0, expected.abs().max().item())
        differences.append(Difference(name, largest, allowed))
    return differences


def compare_bert(network: Bert, recorded: Mapping[str, Tensor]) -> list[Difference]:
    """Compare a BERT with a recording of the golden sets ``bert`` or ``all-minilm-l6-v2``."""
    device = network.token_embedding.weight.device
    names = ("input_ids", "attention_mask", "token_type_ids")
    input_ids, mask, token_types = (recorded[f"input.{name}"].to(device) for name in names)
    paths = {f"layer{i}.output": f"layers.{i}" for i in range(len(network.layers))}
    with torch.no_grad(), watching(network, paths | {"embeddings.output": "embedding_norm"}) as got:
        output = network(input_ids, mask, token_types)
    for name in ("last_hidden_state", "pooler_output", "mlm_logits", "nsp_logits"):
        value = getattr(output, name)
        if value is not None:
            got[f"output.{name}"] = value
    embedding = mean_pool(output.last_hidden_state, mask)
    got["output.mean_pooled_normalized"] = got["output.sentence_embedding"] = embedding
    return compare(got, recorded, BERT_TOLERANCE, mask.cpu())


def compare_dit(network: DiT, recorded: Mapping[str, Tensor]) -> list[Difference]:
    """Compare a DiT with the estimator and solver recordings of the golden set ``s2mel``."""
    device = network.out_conv.weight.device
    inputs = {name: tensor.to(device) for name, tensor in recorded.items()}
    paths = {
        "t1": "timestep_embedder",
        "t2": "wavenet_timestep_embedder",
        "merged": "input_merge",
        "attn0": "blocks.0.attention",
        **{f"layer{i}": f"blocks.{i}" for i in range(len(network.blocks))},
        "transformer": "norm",
        "skip_linear": "long_skip_proj",
        "wavenet": "wavenet",
        "final_layer": "final_layer",
    }
    traces = {f"trace.estimator.{name}": path for name, path in paths.items()}
    names = ("x", "prompt_x", "x_lens", "t", "style", "cond")
    with torch.no_grad(), watching(network, traces) as got:
        got["output.estimator.v"] = network(*(inputs[f"input.estimator.{name}"] for name in names))
    guidance = recorded["input.cfm.cfg_rate"].item()
    got["output.cfm.mel"] = solve_recorded(network, inputs, guidance)
    got["output.cfm_nocfg.mel"] = solve_recorded(network, inputs, 0.0)
    kept = {
        name: tensor
        for name, tensor in recorded.items()
        if name.startswith(("output.estimator.", "output.cfm", "trace.estimator."))
    }
    return compare(got, kept, DIT_TOLERANCE)


def solve_recorded(network: DiT, inputs: Mapping[str, Tensor], guidance: float) -> Tensor:
    """Solve the flow from the recorded noise, in the recorded number of steps."""
    mu, x_lens, prompt, style, noise = (
        inputs[f"input.cfm.{name}"] for name in ("mu", "x_lens", "prompt", "style", "noise")
    )
    steps = len(inputs["input.cfm.t_span"]) - 1
    return solve_flow(
        network, mu, x_lens, prompt, style, noise=noise, steps=steps, guidance=guidance
    )


@contextmanager
def watching(network: nn.Module, paths: Mapping[str, str]) -> Iterator[dict[str, Tensor]]:
    """Collect what the submodules at ``paths`` (name → dotted path) return, under their names."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        seen[name] = output

    handles = [
        network.get_submodule(path).register_forward_hook(
            lambda _module, _inputs, output, name=name: keep(name, output)
        )
        for name, path in paths.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
