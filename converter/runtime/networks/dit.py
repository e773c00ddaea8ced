"""DiT: the flow-matching estimator of IndexTTS2's S2Mel, which turns speech content into mels.

Source: index-tts ee40fa7, s2mel; built from DiT (arXiv:2212.09748), U-ViT (arXiv:2209.12152),
RoPE (arXiv:2104.09864) and ``wavenet``. ``flow_matching.solve_flow`` integrates it.

Shapes: B rows, T frames, M mels, C content, S style, D hidden, H heads, W wavenet hidden.
Activations have the weights' dtype; angles are float32: 1000·t does not survive bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from converter.errors import UsageError
from converter.manifest import ModelRecord
from converter.runtime.networks.config import read_config
from converter.runtime.networks.wavenet import WaveNet

CONVENTIONS: Mapping[str, object] = {
    "attention": ("bidirectional",),
    "rope": ("interleaved",),
    "rope_base": float,
    "norm": ("rms_norm",),
    "norm_eps": float,
    "adaptive_norm": ("weight_bias",),
    "activation": ("silu",),
    "skip": ("uvit",),
    "input_order": ("x_prompt_cond_style",),
    "timestep_embedding": ("cos_sin",),
    "timestep_scale": float,
    "wavenet_padding": ("reflect",),
    "wavenet_gate": ("tanh_sigmoid",),
    "wavenet_output": ("residual_skip",),
    "final_modulation": ("shift_scale",),
    "final_norm_eps": float,
}


@dataclass(frozen=True, slots=True)
class DiTConfig:
    """Dims, and the numbers among the conventions."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    mels: int
    style: int
    content: int
    timestep_freqs: int
    wavenet_hidden: int
    wavenet_layers: int
    wavenet_kernel: int
    wavenet_dilation_rate: int
    positions: int
    rope_base: float
    norm_eps: float
    timestep_scale: float
    final_norm_eps: float

    def __post_init__(self) -> None:
        if self.heads == 0 or self.hidden % (2 * self.heads):
            raise UsageError(f"hidden {self.hidden} does not make {self.heads} heads of even width")
        if self.wavenet_hidden != self.hidden:
            # The final layer modulates W channels by a timestep embedding of width D.
            raise UsageError(f"wavenet_hidden {self.wavenet_hidden} is not hidden {self.hidden}")


def build(model: ModelRecord) -> nn.Module:
    """Build the estimator that a manifest describes; its weights are not initialised for use."""
    return DiT(read_config(DiTConfig, model))


class DiT(nn.Module):
    """The velocity of the flow at time t: a U-ViT transformer, then a WaveNet."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        hidden, mels, width = config.hidden, config.mels, config.wavenet_hidden
        self.config = config
        self.timestep_embedder = TimestepEmbedder(config, hidden)
        self.wavenet_timestep_embedder = TimestepEmbedder(config, width)
        # Never read, here or in the original; kept because ports of the model load it.
        self.x_embedder = nn.Linear(mels, hidden)
        self.cond_proj = nn.Linear(config.content, hidden)
        self.input_merge = nn.Linear(2 * mels + hidden + config.style, hidden)
        self.blocks = nn.ModuleList(
            Block(config, receives_skip=i > config.layers // 2) for i in range(config.layers)
        )
        self.norm = AdaptiveRMSNorm(config)
        self.long_skip_proj = nn.Linear(hidden + mels, hidden)
        self.wavenet_in_proj = nn.Linear(hidden, width)
        self.wavenet = WaveNet(
            width, config.wavenet_layers, config.wavenet_kernel, config.wavenet_dilation_rate
        )
        self.wavenet_residual_proj = nn.Linear(hidden, width)
        self.final_layer = FinalLayer(config)
        self.out_conv = nn.Conv1d(width, mels, kernel_size=1)

    def forward(
        self, x: Tensor, prompt_x: Tensor, x_lens: Tensor, t: Tensor, style: Tensor, cond: Tensor
    ) -> Tensor:
        """Return the velocity [B, M, T] of the noisy mel ``x`` [B, M, T].

        ``prompt_x`` [B, M, T] is the prompt's mel, zero after it; ``x_lens`` [B] counts the
        frames to attend to; ``t`` [B] runs from 0 (noise) to 1 (mel), in float32; ``style``
        [B, S] is the speaker, ``cond`` [B, T, C] the content. ``x_lens`` and ``t`` may hold one
        value for all rows. Frames from ``x_lens`` on are padding, in the result too.
        """
        self._check(x, prompt_x, x_lens, t, style, cond)
        frames = x.shape[-1]
        t1 = self.timestep_embedder(t)  # [B, D]
        t2 = self.wavenet_timestep_embedder(t)  # [B, W]
        mask = torch.arange(frames, device=x.device) < x_lens[:, None]  # [B, T]
        rope = rope_table(frames, self.config, x.device)

        x, prompt = x.mT, prompt_x.mT  # [B, T, M]
        styles = style[:, None].expand(-1, frames, -1)  # [B, T, S]
        h = self.input_merge(torch.cat([x, prompt, self.cond_proj(cond), styles], dim=-1))
        h = self._transform(h, t1, rope, mask[:, None, None])  # [B, T, D]
        h = self.long_skip_proj(torch.cat([h, x], dim=-1))

        y = self.wavenet(self.wavenet_in_proj(h).mT, t2, mask)  # [B, W, T]
        y = self.final_layer(y.mT + self.wavenet_residual_proj(h), t1)  # [B, T, W]
        velocity: Tensor = self.out_conv(y.mT)
        return velocity

    def _transform(self, h: Tensor, t1: Tensor, rope: Tensor, mask: Tensor) -> Tensor:
        """Run the blocks: the first half pushes, the second half pops, the middle does neither.

        With an even number of blocks nobody pops the first push, as in the original.
        """
        middle = len(self.blocks) // 2
        skips: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            h = block(h, skips.pop() if i > middle else None, t1, rope, mask)
            if i < middle:
                skips.append(h)
        out: Tensor = self.norm(h, t1)
        return out

    def _check(self, *inputs: Tensor) -> None:
        config = self.config
        rows, frames = inputs[0].shape[0], inputs[0].shape[-1]
        if frames > config.positions:
            raise UsageError(f"{frames} frames, where the model knows {config.positions} positions")
        allowed = {
            "x": [[rows, config.mels, frames]],
            "prompt_x": [[rows, config.mels, frames]],
            "x_lens": [[rows], [1]],
            "t": [[rows], [1]],
            "style": [[rows, config.style]],
            "cond": [[rows, frames, config.content]],
        }
        for tensor, (name, shapes) in zip(inputs, allowed.items(), strict=True):
            if list(tensor.shape) not in shapes:
                raise UsageError(
                    f"{name} has another shape",
                    expected=" or ".join(map(str, shapes)),
                    got=str(list(tensor.shape)),
                )


class TimestepEmbedder(nn.Module):
    """A timestep as a vector: cosines, then sines, of 1000·t at stored frequencies; then an MLP."""

    freqs: Tensor

    def __init__(self, config: DiTConfig, width: int) -> None:
        super().__init__()
        self.scale = config.timestep_scale
        self.register_buffer("freqs", torch.empty(config.timestep_freqs))
        self.fc1 = nn.Linear(2 * config.timestep_freqs, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        """``t`` [B], float32 → [B, width], in the dtype of the weights."""
        # The original rounds this product to float32 too: in float64 its outputs are not met.
        angles = self.scale * t.float()[:, None] * self.freqs.float()  # [B, freqs]
        x = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.fc1.weight.dtype)
        out: Tensor = self.fc2(F.silu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention, then a gated feed-forward network, each after an adaptive norm."""

    def __init__(self, config: DiTConfig, *, receives_skip: bool) -> None:
        super().__init__()
        self.skip_proj = nn.Linear(2 * config.hidden, config.hidden) if receives_skip else None
        self.attention_norm = AdaptiveRMSNorm(config)
        self.attention = Attention(config)
        self.ffn_norm = AdaptiveRMSNorm(config)
        self.ffn = FeedForward(config)

    def forward(
        self, x: Tensor, skip: Tensor | None, t1: Tensor, rope: Tensor, mask: Tensor
    ) -> Tensor:
        """``x`` and ``skip`` [B, T, D], ``t1`` [B, D], ``mask`` [B, 1, 1, T] → [B, T, D]."""
        if self.skip_proj is not None and skip is not None:
            x = self.skip_proj(torch.cat([x, skip], dim=-1))
        x = x + self.attention(self.attention_norm(x, t1), rope, mask)
        out: Tensor = x + self.ffn(self.ffn_norm(x, t1))
        return out


class AdaptiveRMSNorm(nn.Module):
    """RMSNorm whose result is scaled and moved by the timestep: weight first, not 1 + scale."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.empty(config.hidden))
        self.modulation = nn.Linear(config.hidden, 2 * config.hidden)

    def forward(self, x: Tensor, t1: Tensor) -> Tensor:
        """``x`` [B, T, D], ``t1`` [B, D] → [B, T, D]."""
        weight, bias = self.modulation(t1)[:, None].chunk(2, dim=-1)  # [B, 1, D]
        normed = F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        out: Tensor = weight * normed + bias
        return out


class Attention(nn.Module):
    """Multi-head attention over all frames within ``mask``, scaled by 1/sqrt(D/H)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.heads = config.heads
        self.q_proj = nn.Linear(hidden, hidden, bias=False)
        self.k_proj = nn.Linear(hidden, hidden, bias=False)
        self.v_proj = nn.Linear(hidden, hidden, bias=False)
        self.out_proj = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor) -> Tensor:
        """``x`` [B, T, D]; ``rope`` of ``rope_table``; ``mask`` [B, 1, 1, T] → [B, T, D]."""
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, T, D/H]
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, rope), rotate(k, rope)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """SwiGLU: ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, T, D] → [B, T, D]."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class FinalLayer(nn.Module):
    """LayerNorm without weights, moved and scaled by the timestep (shift first), then a Linear."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.wavenet_hidden
        self.eps = config.final_norm_eps
        self.modulation = nn.Linear(width, 2 * width)
        self.linear = nn.Linear(width, width)

    def forward(self, y: Tensor, t1: Tensor) -> Tensor:
        """``y`` [B, T, W], ``t1`` [B, D] → [B, T, W]."""
        shift, scale = self.modulation(F.silu(t1))[:, None].chunk(2, dim=-1)  # [B, 1, W]
        normed = F.layer_norm(y, y.shape[-1:], eps=self.eps)
        out: Tensor = self.linear(normed * (1 + scale) + shift)
        return out


def rope_table(frames: int, config: DiTConfig, device: torch.device) -> Tensor:
    """Return the cosines and the sines [2, T, D/H/2], float32, of position · base^(-2i/(D/H))."""
    head = config.hidden // config.heads
    pairs = torch.arange(0, head, 2, device=device, dtype=torch.float32)
    positions = torch.arange(frames, device=device, dtype=torch.float32)
    angles = torch.outer(positions, config.rope_base ** (-pairs / head))
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn each interleaved pair (2i, 2i + 1) of ``x`` [B, H, T, D/H] by its angle."""
    cos, sin = rope
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return turned.flatten(-2).to(x.dtype)
