"""A bundle of two toys, small enough to be verified thousands of times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toy import toy_tensors, write_rules, write_source

from converter import api
from converter.bundle import BundleConversion

BUNDLE = """
format: 1
bundle: toys
title: Two toys
sources:
  left: {file: left/toy.safetensors}
  right: {file: right/toy.safetensors}
members:
  left: {source: left, rules: toy.yaml}
  right: {source: right, rules: toy.yaml}
agree:
  - {that: left.hidden == right.hidden, because: they play together}
"""


def write_toys(folder: Path) -> Path:
    """Write two checkpoints below ``folder / "in"``, their rules, and a bundle file; return it."""
    tensors = toy_tensors()
    del tensors["optimizer"]
    for number, side in enumerate(("left", "right")):
        (folder / "in" / side).mkdir(parents=True)
        tensors["net.steps_taken"] += number
        write_source(folder / "in" / side, tensors)
    write_rules(folder)
    path = folder / "toys.yaml"
    path.write_text(BUNDLE)
    return path


def convert_toys(folder: Path, out: str = "out", **options: Any) -> BundleConversion:
    """Convert the two toys, which were written, into ``folder / out``."""
    return api.convert_bundle(str(folder / "toys.yaml"), folder / "in", folder / out, **options)
