from __future__ import annotations

import pytest
import torch
from torch import Tensor

from converter.errors import UsageError
from converter.runtime.networks.flow_matching import solve_flow

MELS, PROMPT, FRAMES = 3, 2, 6
MU = torch.randn(1, FRAMES, 4)
LENGTHS = torch.tensor([FRAMES])
MEL_PROMPT = torch.randn(1, MELS, PROMPT)
STYLE = torch.randn(1, 5)
NOISE = torch.randn(1, MELS, FRAMES)


class Recorder:
    """An estimator that keeps what it is given, and answers a constant velocity per row."""

    def __init__(self, *velocities: float) -> None:
        self.velocities = torch.tensor(velocities)[:, None, None]
        self.calls: list[tuple[Tensor, ...]] = []

    def __call__(
        self, x: Tensor, prompt_x: Tensor, x_lens: Tensor, t: Tensor, style: Tensor, cond: Tensor
    ) -> Tensor:
        self.calls.append((x.clone(), prompt_x, x_lens, t, style, cond))
        return self.velocities.to(x.dtype).expand_as(x)


def test_a_constant_velocity_moves_the_noise_by_itself() -> None:
    mel = solve_flow(
        Recorder(2.0), MU, LENGTHS, MEL_PROMPT, STYLE, noise=NOISE, guidance=0, temperature=0.5
    )
    torch.testing.assert_close(mel[..., PROMPT:], NOISE[..., PROMPT:] * 0.5 + 2.0)
    assert not mel[..., :PROMPT].any()


def test_guidance_pushes_away_from_the_row_without_conditions() -> None:
    mel = solve_flow(Recorder(2.0, 1.0), MU, LENGTHS, MEL_PROMPT, STYLE, noise=NOISE, guidance=0.7)
    torch.testing.assert_close(mel[..., PROMPT:], NOISE[..., PROMPT:] + 1.7 * 2.0 - 0.7 * 1.0)


def test_the_second_row_goes_without_prompt_style_and_content() -> None:
    estimator = Recorder(0.0, 0.0)
    solve_flow(estimator, MU, LENGTHS, MEL_PROMPT, STYLE, noise=NOISE, steps=4, guidance=0.7)
    padded = torch.nn.functional.pad(MEL_PROMPT, (0, FRAMES - PROMPT))
    for x, prompt_x, x_lens, _, style, cond in estimator.calls:
        assert torch.equal(x[0], x[1])
        assert not x[..., :PROMPT].any()
        assert torch.equal(x_lens, LENGTHS)
        for given, rows in ((padded, prompt_x), (STYLE, style), (MU, cond)):
            assert torch.equal(rows, torch.cat([given, torch.zeros_like(given)]))
    times = torch.stack([t for _, _, _, t, _, _ in estimator.calls])
    torch.testing.assert_close(times, torch.tensor([[0.0, 0.25, 0.5, 0.75]]).T.expand(4, 2))


def test_without_guidance_one_row_is_computed() -> None:
    for guidance in (0.0, -1.0):
        estimator = Recorder(0.0)
        solve_flow(estimator, MU, LENGTHS, MEL_PROMPT, STYLE, noise=NOISE, guidance=guidance)
        assert len(estimator.calls) == 25
        assert {len(x) for x, *_ in estimator.calls} == {1}


def test_noise_is_drawn_from_the_generator() -> None:
    def solve(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return solve_flow(
            Recorder(0.0, 0.0), MU, LENGTHS, MEL_PROMPT, STYLE, steps=1, generator=generator
        )

    assert torch.equal(solve(1), solve(1))
    assert not torch.equal(solve(1), solve(2))


def test_the_caller_keeps_his_noise() -> None:
    before = NOISE.clone()
    solve_flow(Recorder(1.0, 1.0), MU, LENGTHS, MEL_PROMPT, STYLE, noise=NOISE)
    assert torch.equal(NOISE, before)


def test_steps_add_up_in_float32_under_a_bfloat16_estimator() -> None:
    estimator = Recorder(1.0)
    mu, prompt, style = (tensor.bfloat16() for tensor in (MU, MEL_PROMPT, STYLE))
    noise = torch.full_like(NOISE, 100.0)
    mel = solve_flow(estimator, mu, LENGTHS, prompt, style, noise=noise, steps=50, guidance=0)
    assert estimator.calls[0][0].dtype == torch.bfloat16
    torch.testing.assert_close(mel[..., PROMPT:], noise[..., PROMPT:] + 1, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("mu", "prompt", "noise", "steps", "what"),
    [
        (MU.repeat(2, 1, 1), MEL_PROMPT, NOISE, 5, "one utterance at a time"),
        (MU, MEL_PROMPT[0], NOISE, 5, "one utterance at a time"),
        (MU, MEL_PROMPT.repeat(2, 1, 1), NOISE, 5, "one utterance at a time"),
        (MU[:, :1], MEL_PROMPT, NOISE, 5, "covers the prompt and the target"),
        (MU, MEL_PROMPT, NOISE[..., 1:], 5, "noise has another shape"),
        (MU, MEL_PROMPT, NOISE, 0, "needs a step"),
    ],
)
def test_what_cannot_be_solved_is_refused(
    mu: Tensor, prompt: Tensor, noise: Tensor, steps: int, what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        solve_flow(Recorder(0.0, 0.0), mu, LENGTHS, prompt, STYLE, noise=noise, steps=steps)
