"""The wall of DESIGN §1: the runtime stands on the leaves and torch alone."""

from __future__ import annotations

import json
import subprocess
import sys

ALLOWED = {
    "converter",
    "converter.bundle_record",
    "converter.canonical",
    "converter.digest",
    "converter.errors",
    "converter.cores",
    "converter.finding",
    "converter.fold",
    "converter.header",
    "converter.layout",
    "converter.manifest",
    "converter.manifest_lines",
    "converter.positional",
    "converter.runtime",
    "converter.runtime.bundle",
    "converter.runtime.collector",
    "converter.runtime.compare",
    "converter.runtime.device",
    "converter.runtime.directory",
    "converter.runtime.load",
    "converter.runtime.mapped",
    "converter.runtime.networks",
    "converter.runtime.parts",
    "converter.runtime.read",
    "converter.runtime.slices",
    "converter.runtime.tensors",
    "converter.runtime.views",
    "converter.signals",
    "converter.spec",
    "converter.strict_json",
    "converter.torch_dtypes",
    "converter.typed_json",
}


def modules_after(statement: str) -> set[str]:
    """Return what a fresh interpreter holds after ``statement``."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_the_runtime_imports_leaves_and_torch_and_nothing_of_the_conversion() -> None:
    modules = modules_after("import converter.runtime")
    assert {name for name in modules if name.split(".")[0] == "converter"} == ALLOWED
    assert not modules & {"yaml", "click", "jsonschema", "rich", "safetensors"}


def test_networks_add_nothing_but_themselves() -> None:
    modules = modules_after(
        "import converter.runtime.networks.bert, converter.runtime.networks.dit"
    )
    added = {name for name in modules if name.split(".")[0] == "converter"} - ALLOWED
    assert all(name.startswith("converter.runtime.networks.") for name in added)
    assert not modules & {"yaml", "click", "jsonschema", "rich", "safetensors"}
