"""The transforms: one file per step, one table.

To add a step: write ``converter/steps/<name>.py`` after the example of its neighbours, add it to
the table, and give ``tests/laws/test_step_laws.py`` a case. Nothing here imports numpy before a
step is applied.
"""

from __future__ import annotations

from collections.abc import Mapping

from converter.steps.cast import Cast
from converter.steps.chunk import Chunk
from converter.steps.concat import Concat
from converter.steps.constant import Constant
from converter.steps.fold_weight_norm import FoldWeightNorm
from converter.steps.permute import Permute
from converter.steps.reorder_chunks import ReorderChunks
from converter.steps.reshape import Reshape
from converter.steps.slice_ import Slice
from converter.steps.split import Split
from converter.steps.squeeze import Squeeze
from converter.steps.stack import Stack
from converter.steps.step import Step
from converter.steps.transpose import Transpose
from converter.steps.unsqueeze import Unsqueeze
from converter.steps.unstack import Unstack

STEPS: Mapping[str, type[Step]] = {
    "split": Split,
    "chunk": Chunk,
    "concat": Concat,
    "stack": Stack,
    "unstack": Unstack,
    "transpose": Transpose,
    "permute": Permute,
    "reshape": Reshape,
    "squeeze": Squeeze,
    "unsqueeze": Unsqueeze,
    "slice": Slice,
    "reorder_chunks": ReorderChunks,
    "fold_weight_norm": FoldWeightNorm,
    "cast": Cast,
    "constant": Constant,
}
