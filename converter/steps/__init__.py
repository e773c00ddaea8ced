"""The transforms: one file per step, one table; and short ways to write several of them.

To add a step: write ``converter/steps/<name>.py`` after the example of its neighbours, add it to
the table, and give ``tests/laws/test_step_laws.py`` a case. Nothing here imports numpy before a
step is applied.
"""

from __future__ import annotations

from collections.abc import Mapping

from converter.steps.add import Add
from converter.steps.cast import Cast
from converter.steps.chunk import Chunk
from converter.steps.concat import Concat
from converter.steps.constant import Constant
from converter.steps.deduplicate import Deduplicate
from converter.steps.deinterleave import Deinterleave
from converter.steps.dequantize import Dequantize
from converter.steps.flip import Flip
from converter.steps.fold_batch_norm import FoldBatchNorm
from converter.steps.fold_weight_norm import FoldWeightNorm
from converter.steps.interleave import Interleave
from converter.steps.merge_shards import MergeShards
from converter.steps.pad import Pad
from converter.steps.permute import Permute
from converter.steps.permute_rope import PermuteRope
from converter.steps.qkv import FuseQkv, SplitQkv
from converter.steps.rearrange import Rearrange
from converter.steps.reorder_chunks import ReorderChunks
from converter.steps.replicate import Replicate
from converter.steps.reshape import Reshape
from converter.steps.scale import Scale
from converter.steps.slice_ import Slice
from converter.steps.split import Split
from converter.steps.squeeze import Squeeze
from converter.steps.stack import Stack
from converter.steps.step import Step, Sugar
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
    "rearrange": Rearrange,
    "reshape": Reshape,
    "squeeze": Squeeze,
    "unsqueeze": Unsqueeze,
    "slice": Slice,
    "pad": Pad,
    "flip": Flip,
    "reorder_chunks": ReorderChunks,
    "interleave": Interleave,
    "deinterleave": Deinterleave,
    "replicate": Replicate,
    "deduplicate": Deduplicate,
    "fold_weight_norm": FoldWeightNorm,
    "fold_batch_norm": FoldBatchNorm,
    "scale": Scale,
    "add": Add,
    "cast": Cast,
    "dequantize": Dequantize,
    "constant": Constant,
}

SUGAR: Mapping[str, type[Sugar]] = {
    "split_qkv": SplitQkv,
    "fuse_qkv": FuseQkv,
    "permute_rope": PermuteRope,
    "merge_shards": MergeShards,
}
