"""Manifests to make pages of: records with what matters to a page, and made-up rest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from converter.manifest import (
    DropRecord,
    FileRecord,
    Manifest,
    ModelRecord,
    RulesRecord,
    StandInRecord,
    Statistics,
    TensorRecord,
    ToolRecord,
    content_digest,
    total,
)
from converter.spec import TensorSpec
from converter.verify import Verification

DIGEST = "0123456789abcdef" * 4
HOSTILE = "</script></style></title><img src=x onerror=alert(1)>\"'{{7*7}}<svg onload=alert(2)>"


def stats(mean: float = 0.0, std: float = 0.02, *, nonfinite: int = 0) -> Statistics:
    return Statistics(mean, std, mean - 4 * std, mean + 4 * std, nonfinite)


def tensor(
    name: str,
    *shape: int,
    sources: Iterable[str] | None = None,
    source_shapes: Iterable[tuple[int, ...]] = (),
    steps: Iterable[Mapping[str, object]] = (),
    statistics: Statistics | None = None,
) -> TensorRecord:
    """Return a record of an F32 tensor; by default it was renamed from ``old.NAME``."""
    spec = TensorSpec("F32", shape)
    return TensorRecord(
        name,
        "model.safetensors",
        spec.dtype,
        shape,
        offset=4096,
        size=spec.nbytes,
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        sources=tuple([f"old.{name}"] if sources is None else sources),
        source_specs=tuple(TensorSpec("F32", at) for at in source_shapes),
        steps=tuple(steps),
        stats=statistics or stats(),
    )


def manifest(
    *tensors: TensorRecord,
    dropped: Iterable[DropRecord] = (),
    stand_ins: Iterable[StandInRecord] = (),
    aliases: Mapping[str, str] | None = None,
) -> Manifest:
    return Manifest(
        ToolRecord("checkpoint-converter", "1.2.3", "2.0"),
        ModelRecord("toy", "A toy", "nowhere", (), {"layers": 2}, {"norm": "rms_norm"}, {}),
        RulesRecord("toy.yaml", DIGEST, {}),
        sources=(FileRecord("source.safetensors", 1000, DIGEST),),
        files=(FileRecord("model.safetensors", 5000, DIGEST, DIGEST),),
        tensors=tensors,
        aliases=aliases or {},
        dropped=tuple(dropped),
        stand_ins=tuple(stand_ins),
        out_of_scope=3,
        totals=total(tensors),
        content_sha256=content_digest(tensors),
    )


def layered(layers: int = 6) -> list[TensorRecord]:
    """Return the tensors of a model of so many layers, and an embedding."""
    kinds = {"attention.q.weight": (64, 64), "fc1.weight": (256, 64), "fc2.weight": (64, 256)}
    kinds_of_vectors = {"norm.weight": (64,), "fc1.bias": (256,)}
    return [
        tensor("embedding.weight", 100, 64),
        *(
            tensor(f"layers.{i}.{kind}", *shape, statistics=stats(0.001 * i, 0.02 + 0.001 * i))
            for i in range(layers)
            for kind, shape in (kinds | kinds_of_vectors).items()
        ),
    ]


def verified(about: Manifest) -> Verification:
    """Return a check of the structure that found nothing."""
    return Verification(Path("out"), about, (), 0, manifest_sha256=DIGEST)


def hostile() -> Manifest:
    """Return a manifest in which a stranger chose every text."""
    bad = HOSTILE
    steps = ({bad: {bad: bad, "sizes": [1, 2]}},)
    made = tensor(f"layers.0.{bad}", 64, 64, sources=[bad, f"{bad}2"], steps=steps)
    plain = manifest(
        made,
        tensor(f"layers.1.{bad}", 64, 64, statistics=stats(nonfinite=1)),
        tensor(bad, 0),
        dropped=[DropRecord(f"{bad}3", "F32", (2,), bad, bad)],
        stand_ins=[StandInRecord(bad, bad, (bad,))],
        aliases={f"{bad}4": made.name},
    )
    model = ModelRecord(bad, bad, bad, (bad,), {bad: [1, [2]]}, {bad: bad}, {bad: bad})
    return replace(
        plain,
        tool=ToolRecord(bad, bad, bad),
        model=model,
        rules=RulesRecord(bad, bad, {bad: bad}),
        sources=(FileRecord(bad, 1, bad),),
        files=(FileRecord(bad, 1, bad),),
        content_sha256=bad,
    )
