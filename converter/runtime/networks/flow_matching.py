"""Conditional flow matching: from noise to a mel, by Euler steps along a learned velocity.

Source: index-tts ee40fa7, s2mel; Lipman et al. 2022 (arXiv:2210.02747), with classifier-free
guidance (Ho and Salimans 2022, arXiv:2207.12598).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from converter.errors import UsageError

Estimator: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@torch.no_grad()
def solve_flow(
    estimator: Estimator,
    mu: Tensor,
    x_lens: Tensor,
    prompt: Tensor,
    style: Tensor,
    *,
    noise: Tensor | None = None,
    steps: int = 25,
    guidance: float = 0.7,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the mel [1, M, T], float32; its first P frames, the prompt's, are zero.

    ``estimator`` is called as ``DiT.forward``, in the dtype of ``mu``. ``mu`` [1, T, C] is the
    content of prompt and target together, ``x_lens`` [1] its length in frames, ``prompt``
    [1, M, P] the prompt's mel, ``style`` [1, S] the speaker. ``noise`` [1, M, T] is drawn on the
    device of ``mu`` when not given. Time runs from 0 to 1 in ``steps`` equal steps. With
    ``guidance`` r > 0 a second row goes without prompt, style and content, and
    v = (1 + r)·v_with - r·v_without. The default values are those of the original's inference.
    """
    _check(mu, prompt, noise, steps)
    mels, prompt_frames, frames = prompt.shape[1], prompt.shape[2], mu.shape[1]
    if noise is None:
        noise = torch.randn((1, mels, frames), device=mu.device, generator=generator)

    prompt_x = F.pad(prompt, (0, frames - prompt_frames))  # [1, M, T]
    if guidance > 0:
        prompt_x, style, mu = (
            torch.cat([given, torch.zeros_like(given)]) for given in (prompt_x, style, mu)
        )
    rows = mu.shape[0]

    # Small steps are summed in float32, whatever the estimator computes in.
    x = noise.float() * temperature
    x[..., :prompt_frames] = 0
    # Taken on the CPU: one ulp between devices would be 6e-5 rad in the timestep embedding.
    times = torch.linspace(0, 1, steps + 1, device="cpu").to(mu.device)
    for now, then in pairwise(times):
        x_rows = x.to(mu.dtype).expand(rows, -1, -1)
        v = estimator(x_rows, prompt_x, x_lens, now.expand(rows), style, mu).float()
        if guidance > 0:
            v = (1 + guidance) * v[:1] - guidance * v[1:]
        x = x + (then - now) * v
        x[..., :prompt_frames] = 0
    return x


def _check(mu: Tensor, prompt: Tensor, noise: Tensor | None, steps: int) -> None:
    if mu.ndim != 3 or prompt.ndim != 3 or len(mu) != 1 or len(prompt) != 1:
        raise UsageError(
            "one utterance at a time: guidance fills the batch",
            expected="mu [1, T, C] and prompt [1, M, P]",
            got=f"{list(mu.shape)} and {list(prompt.shape)}",
        )
    if prompt.shape[2] > mu.shape[1]:
        raise UsageError(
            "mu covers the prompt and the target",
            expected=f"at least {prompt.shape[2]} frames",
            got=str(mu.shape[1]),
        )
    if noise is not None and noise.shape != (1, prompt.shape[1], mu.shape[1]):
        raise UsageError(
            "noise has another shape",
            expected=str([1, prompt.shape[1], mu.shape[1]]),
            got=str(list(noise.shape)),
        )
    if steps < 1:
        raise UsageError("the solver needs a step", expected="steps: 1 or more", got=str(steps))
