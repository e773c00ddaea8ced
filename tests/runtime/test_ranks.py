"""Two processes load one directory together, each what it holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from canonical_fixture import flip, read_manifest, write_canonical
from ranks_fixture import RANKS, tensors

PROGRAM = Path(__file__).parent / "one_of_two_ranks.py"

# What each rank is to say of each way to load: that all is equal, or words of an error.
EXPECTED = {
    "torch": "equal",  # torch's own reader, which knows nothing of this package
    "reader, header": "equal",
    "reader, full": "equal",
    "slices, header": "equal",
    "slices, full": "equal",
    "flipped, header": "long",  # a byte differs
    "flipped, full": "the bytes are not those that were written\n  tensor:   long\n",
    "two directories": "rank 1 found other tensors than rank 0",
    "another directory": "the reader is of one directory",
    "dtype": "the dtype of the state dict is not that of the files\n  tensor:   rows\n",
}


def write_directories(folder: Path) -> None:
    stored = tensors()
    shards = [list(stored)[1::2], list(stored)[::2]]
    aliases = {"tied": "rows"}
    for name in ("toy", "flipped"):
        write_canonical(folder / name, stored, shards=shards, aliases=aliases)
    write_canonical(folder / "other", {**stored, "rows": stored["rows"] + 1}, aliases=aliases)
    record = next(one for one in read_manifest(folder / "toy").tensors if one.name == "long")
    flip(folder / "flipped" / record.file, record.offset + record.size - 1)


def said_by_ranks(folder: Path) -> list[Mapping[str, str]]:
    """Run all ranks at once; return what each says."""
    paths = os.pathsep.join(sys.path)
    ranks = [
        subprocess.Popen(
            [sys.executable, PROGRAM, str(rank), folder],
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(RANKS)
    ]
    printed = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * RANKS, "\n".join(printed)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(RANKS)]


# One test of all ways, since what takes its time is that two processes import torch.distributed.
def test_ranks_hold_together_what_is_stored_and_learn_together_of_what_is_wrong(
    tmp_path: Path,
) -> None:
    write_directories(tmp_path)
    for said in said_by_ranks(tmp_path):
        assert said.keys() == EXPECTED.keys()
        for way, expected in EXPECTED.items():
            if expected == "equal":
                assert said[way] == expected, way
            else:
                assert expected in said[way], said[way]
