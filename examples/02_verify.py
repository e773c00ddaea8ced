"""Verify a canonical directory; then change one bit of it, and see it found."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tiny import RULES, make_checkpoint

from converter import api

with tempfile.TemporaryDirectory() as folder:
    source = make_checkpoint(Path(folder, "tiny.safetensors"))
    out = Path(folder, "out")
    conversion = api.convert(source, out, rules=RULES)

    verification = api.verify(out)
    print(f"As written: holds is {verification.holds}, {verification.data_bytes:,} bytes hashed")

    tensor = conversion.manifest.tensors[3]
    with open(out / tensor.file, "r+b") as weights:
        weights.seek(tensor.offset)
        byte = weights.read(1)[0]
        weights.seek(tensor.offset)
        weights.write(bytes([byte ^ 1]))

    verification = api.verify(out)
    print(f"One bit changed: holds is {verification.holds}\n")
    for finding in verification.findings:
        print(finding.render())
