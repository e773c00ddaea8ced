"""What the page says of a directory, or of each member of a bundle, before it is HTML."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from converter.finding import Finding
from converter.manifest import Manifest, TensorRecord
from converter.page import plots
from converter.page.heatmaps import Heatmap, heatmaps_of, left_out
from converter.page.lineage import Dropped, common_prefix, dropped_of, flows_of
from converter.page.outliers import Outlier, outliers_of
from converter.page.picture import Lane, lanes_of
from converter.page.plots import Plot
from converter.page.stacks import Stack, stacks_of
from converter.page.tensors import TensorGroup, groups_of, kind_of_each
from converter.page.value_counts import EXPONENTS, Z_BINS, Z_END, ValueCounts
from converter.suspicions import suspicions
from converter.verify import Verification

_MOST_STACKS = 12
_MOST_OUTLIERS = 20
_MOST_LOOSE = 60
_MOST_KINDS_OF_VALUES = 11

# The powers of two between which F16 keeps all digits, and below which it has nothing.
_F16_MARKS = ((-14.0, "F16 loses digits below"), (16.0, "F16 ends"))
_F16_NOTHING = -25


@dataclass(frozen=True, slots=True)
class Mapped:
    """A stack and its heatmaps, with what these have no room for."""

    stack: Stack
    heatmaps: Sequence[Heatmap]
    left_out: str


@dataclass(frozen=True, slots=True)
class Member:
    """One canonical directory, as the page shows it; ``prefix`` keeps its ids apart.

    ``manifest`` is None where it cannot be read, and then there is nothing but findings.
    """

    name: str
    prefix: str
    verification: Verification
    findings: tuple[Finding, ...]
    warnings: tuple[Finding, ...] = ()
    manifest: Manifest | None = None
    used: int = 0
    dtypes: str = ""
    settings: Mapping[str, Mapping[str, str]] | None = None
    source_prefix: str = ""
    lanes: tuple[Lane, ...] = ()
    flows_left_out: int = 0
    stacks: tuple[Mapped, ...] = ()
    stacks_left_out: int = 0
    outliers: tuple[Outlier, ...] = ()
    outliers_left_out: int = 0
    loose: tuple[TensorRecord, ...] = ()
    loose_left_out: int = 0
    plots: tuple[Plot, ...] = ()
    value_plots: tuple[Plot, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    groups: tuple[TensorGroup, ...] = ()

    @property
    def looks(self) -> set[str]:
        """Which kinds of lines its lineage has."""
        return {edge.look for lane in self.lanes for edge in lane.wide.edges}


def member_of(
    verification: Verification, *, name: str, prefix: str, values: ValueCounts | None
) -> Member:
    """Return what the page says of one canonical directory; ``prefix`` begins its ids."""
    findings = relative(verification.findings, verification)
    manifest = verification.manifest
    if manifest is None:
        return Member(name, prefix, verification, findings)
    left_out_before = common_prefix(manifest)
    lanes, flows_left_out = lanes_of(flows_of(manifest, prefix=left_out_before))
    stacks, rest = stacks_of(manifest.tensors)
    outliers = outliers_of(stacks, manifest.tensors)
    mapped = [
        Mapped(stack, maps, left_out(stack))
        for stack in stacks[:_MOST_STACKS]
        if (maps := heatmaps_of(stack))
    ]
    loose = [tensor for tensor in rest if tensor.stats is not None]
    return Member(
        name,
        prefix,
        verification,
        findings,
        warnings=tuple(suspicions(manifest.tensors)),
        manifest=manifest,
        used=len({source for tensor in manifest.tensors for source in tensor.sources}),
        dtypes=" / ".join(dict.fromkeys(tensor.dtype for tensor in manifest.tensors)),
        settings=_settings(manifest),
        source_prefix=left_out_before,
        lanes=lanes,
        flows_left_out=flows_left_out,
        stacks=tuple(mapped),
        stacks_left_out=max(0, len(stacks) - _MOST_STACKS),
        outliers=tuple(outliers[:_MOST_OUTLIERS]),
        outliers_left_out=max(0, len(outliers) - _MOST_OUTLIERS),
        loose=tuple(loose[:_MOST_LOOSE]),
        loose_left_out=max(0, len(loose) - _MOST_LOOSE),
        plots=tuple(plots.of_tensors(manifest.tensors, f"{prefix}plot-")),
        value_plots=tuple(_value_plots(values, prefix)) if values and values.total else (),
        dropped=tuple(dropped_of(manifest)),
        groups=tuple(groups_of(manifest.tensors)),
    )


def groups_for_values(manifest: Manifest) -> dict[str, str]:
    """Return by tensor in which group its values are counted: its kind, whatever its layer."""
    return kind_of_each(*stacks_of(manifest.tensors))


def relative(findings: Iterable[Finding], verification: Verification) -> tuple[Finding, ...]:
    """Name files from the directory on, so that the page does not say where it lay."""
    start = f"{verification.directory}{os.sep}"
    return tuple(
        replace(finding, where=finding.where.removeprefix(start)) if finding.where else finding
        for finding in findings
    )


def _settings(manifest: Manifest) -> dict[str, Mapping[str, str]]:
    """Return what was chosen for the model, as text; what there is none of is left out."""
    model = manifest.model
    tables: dict[str, Mapping[str, object]] = {
        "Dims": model.dims,
        "Conventions": model.conventions,
        "Audio": model.audio,
        "Options": manifest.rules.options,
    }
    return {
        title: {key: v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}
        for title, values in tables.items()
        if values
    }


def _value_plots(values: ValueCounts, prefix: str) -> list[Plot]:
    """Draw the magnitudes of all values, and how those of the largest kinds lie."""
    total = values.total
    below = sum(n for e, n in zip(EXPONENTS, values.exponents, strict=True) if e <= _F16_NOTHING)
    seen = [e for e, n in zip(EXPONENTS, values.exponents, strict=True) if n]
    shown = range(min([*seen, -18]), max([*seen, 24]) + 1)
    magnitudes = plots.steps_figure(
        "Magnitudes of all values",
        f"Magnitudes of {total:,} values; {values.zeros:,} more are zero, {values.nonfinite:,} "
        f"are not finite, and {below:,} are so small that F16 would make them zero."
        if (total := total - values.zeros - values.nonfinite)
        else "All values are zero or not finite.",
        [values.exponents[e - EXPONENTS[0]] / max(1, total) for e in shown],
        [float(e - 1) for e in (*shown, shown[-1] + 1)],
        prefix=f"{prefix}values-all",
        label="magnitude, as a power of two",
        marks=_F16_MARKS,
        logarithmic=True,
    )
    largest = sorted(values.deviations.items(), key=lambda item: (-sum(item[1]), item[0]))
    kinds = [(kind, counts) for kind, counts in largest if sum(counts)][:_MOST_KINDS_OF_VALUES]
    return [
        magnitudes,
        *(_deviations(*kind, f"{prefix}values-{n}") for n, kind in enumerate(kinds)),
    ]


def _deviations(kind: str, counts: Sequence[int], prefix: str) -> Plot:
    total = sum(counts)
    width = 2 * Z_END / Z_BINS
    edges = [-Z_END + width * n for n in range(Z_BINS + 1)]
    normal = [
        width * math.exp(-((edge + width / 2) ** 2) / 2) / math.sqrt(2 * math.pi)
        for edge in edges[:-1]
    ]
    beyond = counts[0] + counts[-1]
    return plots.steps_figure(
        kind,
        f"{total:,} values; {beyond:,} of them, {100 * beyond / total:.2g} %, lie more than "
        f"{Z_END:g} standard deviations from the mean of their tensor.",
        [count / total for count in counts[1:-1]],
        edges,
        prefix=prefix,
        label="standard deviations from the mean",
        curve=normal,
    )
