"""Make the golden GPT-NeoX models anew.

    PYTHONPATH=examples python tests/golden/gpt-neox/make.py

One as Pythia is; one with whole heads turned, sublayers one after the other, and the GELU of
GPT-NeoX-20B.
"""

from __future__ import annotations

from pathlib import Path

from small_gpt_neox import Size, write

HERE = Path(__file__).parent
SIZES = {
    "gpt-neox": Size(),
    "gpt-neox-sequential": Size(
        rotary_pct=1.0, use_parallel_residual=False, hidden_act="gelu_fast", seed=8
    ),
}

if __name__ == "__main__":
    for name, size in SIZES.items():
        write(HERE.parent / name, size)
