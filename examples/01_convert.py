"""Convert a checkpoint with a rule file of one's own, and look at what came out."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tiny import RULES, make_checkpoint

from converter import api, report

with tempfile.TemporaryDirectory() as folder:
    source = make_checkpoint(Path(folder, "tiny.safetensors"))

    # The plan reads the header alone: names, shapes and dtypes are proven before any weights.
    print(report.of_plan(api.plan(source, rules=RULES), table=True, whole=False).text)

    conversion = api.convert(source, Path(folder, "out"), rules=RULES)

    print("\nThe canonical directory:")
    for file in sorted(conversion.out.iterdir()):
        print(f"  {file.name:<20}{file.stat().st_size:>7,} bytes")

    tensor = conversion.manifest.tensors[0]
    print(f"\nIts first tensor: {tensor.name} {tensor.spec}")
    print(f"  made from {', '.join(tensor.sources)}")
    print(f"  sha256 {tensor.sha256}")
