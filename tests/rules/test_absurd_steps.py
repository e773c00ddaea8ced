"""Numbers in steps that no tensor has are refused from headers alone, and at once."""

import pytest
from tiny_rules import NAME, planned

from converter.errors import PlanError, RuleError

HUGE = 1 << 61
SOURCE = {"w": (12, 4), "v": (12, 4)}


@pytest.mark.parametrize(
    "step",
    [
        f"replicate: {{copies: {HUGE}}}",
        f"pad: {{dim: 0, before: {HUGE}, after: {HUGE}, value: 0}}",
        f"interleave: {{dim: 0, groups: {HUGE}}}",
        f"deinterleave: {{dim: 0, groups: 1, size: {HUGE}}}",
        f"deinterleave: {{dim: 0, groups: 2, stop: {HUGE}}}",
        f"interleave: {{dim: {HUGE}, groups: 1}}",
        f"flip: {{dim: {HUGE}}}",
        f"rearrange: {{pattern: (a b) ... -> b a ..., sizes: {{a: {HUGE}}}}}",
        f"rearrange: {{pattern: {' '.join(f'a{n}' for n in range(33))} -> b}}",
        f"rearrange: {{pattern: {'(' * 200} -> a}}",
        f"fold_batch_norm: {{dim: {HUGE}, eps: 1}}",
        f"dequantize: {{block: [{HUGE}, {HUGE}], dtype: F32}}",
        f"split_qkv: {{layout: per_head, heads: {HUGE}, head_dim: {HUGE}}}",
        f"fuse_qkv: {{layout: grouped, heads: {HUGE}, kv_heads: {HUGE}, head_dim: 1}}",
        f"permute_rope: {{from: interleaved, to: half_split, heads: {HUGE}, head_dim: {HUGE}}}",
        f"merge_shards: {{dim: {HUGE}}}",
        "scale: {by: 1e999}",
    ],
)
@pytest.mark.parametrize("sources", ["w", "[w, v]"])
def test_an_absurd_number_is_refused_before_anything_is_read(step: str, sources: str) -> None:
    body = f"""
        rules:
          - from: {sources}
            steps:
              - {step}
            to: {{x: [12, 4]}}
        """
    with pytest.raises((RuleError, PlanError)) as caught:
        planned(body, SOURCE)
    assert any((finding.where or "").startswith(f"{NAME}:") for finding in caught.value.findings)


@pytest.mark.parametrize("step", ["interleave", "deinterleave", "flip"])
def test_a_dim_of_billions_of_elements_is_planned_at_once(step: str) -> None:
    size = 1 << 40
    fields = "dim: 0" if step == "flip" else "dim: 0, groups: 2"
    body = f"""
        rules:
          - from: w
            steps:
              - {step}: {{{fields}}}
            to: {{x: [{size}]}}
        """
    (binding,) = planned(body, {"w": (size,)}).bindings
    (made,) = binding.steps
    assert made.runs(binding.inputs) is None
