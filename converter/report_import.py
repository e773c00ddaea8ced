"""What the import of a pickle made, and what it left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

from converter.finding import Finding, counted, printable
from converter.manifest import FileRecord, Totals
from converter.pickle_bundle import ImportedBundle
from converter.pickle_import import Imported
from converter.report import Report, amount, size_text, totals_of
from converter.sheet import columns

_LAYOUTS = {"archive": "an archive", "stream": "of the layout before torch 1.6"}
_LISTED = 12


def of_import(imported: Imported) -> Report:
    """Report the import of one file."""
    title = f"{imported.source.name}: imported{_unwrapped(imported)}"
    rows = [*_rows(imported), ("  time", f"{imported.seconds:.1f} s")]
    text = "\n".join([printable(title), columns(rows)])
    return Report("import", text, _json(imported), imported.warnings)


def of_bundle_import(made: ImportedBundle) -> Report:
    """Report the import of all sources of a bundle."""
    lines = [f"{made.bundle_file.bundle}: {made.bundle_file.title}"]
    for name, imported in made.imported.items():
        lines += [printable(f"{name}: imported{_unwrapped(imported)}"), columns(_rows(imported))]
    rows = [
        (f"{name}: copied", f"{file.name}, {size_text(file.size)}, sha256 {file.sha256}")
        for name, files in made.copied.items()
        for file in files
    ]
    rows += [("wrote", str(made.out)), ("time", f"{made.seconds:.1f} s")]
    result = {
        "out": str(made.out),
        "bundle": made.bundle_file.bundle,
        "imported": {name: _json(imported) for name, imported in made.imported.items()},
        "copied": {name: [_file_json(f) for f in files] for name, files in made.copied.items()},
        "seconds": round(made.seconds, 3),
    }
    return Report("import", "\n".join([*lines, columns(rows)]), result, made.warnings)


def with_notices(report: Report, notices: Sequence[Finding]) -> Report:
    """Add what was said while the work went on."""
    return replace(report, findings=(*notices, *report.findings))


def _unwrapped(imported: Imported) -> str:
    unwrapped = imported.selection.unwrapped
    return f", what is below {unwrapped}" if unwrapped else ""


def _rows(imported: Imported) -> Iterable[tuple[str, str]]:
    source, target, sandbox = imported.source, imported.target, imported.sandbox
    dtypes = "/".join(dict.fromkeys(piece.spec.dtype for piece in imported.selection.pieces))
    network = "without network" if sandbox.network else "with the network, which it could not leave"
    left = imported.selection.left_out
    shown = [f"{name}: {what}" for name, what in [*left.items()][:_LISTED]]
    if len(left) > _LISTED:
        shown.append(f"and {len(left) - _LISTED} more")
    return [
        ("  read", f"{source.name}, {size_text(source.size)}, {_LAYOUTS[imported.layout]}"),
        ("", f"sha256 {source.sha256}"),
        ("  read by", f"a process {network}; limited: {', '.join(sandbox.limits) or 'nothing'}"),
        ("  took", f"{amount(_totals(imported))} {dtypes}"),
        *(("  left out" if number == 0 else "", line) for number, line in enumerate(shown)),
        *_shared_row(imported),
        ("  wrote", f"{imported.out}, {size_text(target.size)}"),
        ("", f"sha256 {target.sha256}"),
    ]


def _shared_row(imported: Imported) -> Iterable[tuple[str, str]]:
    if shared := imported.selection.shared:
        names = sum(len(group.names) for group in shared)
        yield "  shared", f"{counted(names, 'tensor')}, in {counted(len(shared), 'group')}"


def _totals(imported: Imported) -> Totals:
    return totals_of([piece.spec for piece in imported.selection.pieces])


def _json(imported: Imported) -> dict[str, object]:
    selection = imported.selection
    return {
        "out": str(imported.out),
        "source": _file_json(imported.source),
        "target": _file_json(imported.target),
        "layout": imported.layout,
        "unwrap": selection.unwrapped,
        "totals": asdict(_totals(imported)),
        "left_out": [{"name": name, "what": what} for name, what in selection.left_out.items()],
        "shared": [{**asdict(group), "names": [*group.names]} for group in selection.shared],
        "sandbox": {
            "network_dropped": imported.sandbox.network,
            "limits": [*imported.sandbox.limits],
        },
        "seconds": round(imported.seconds, 3),
    }


def _file_json(file: FileRecord) -> dict[str, object]:
    return {"name": file.name, "size": file.size, "sha256": file.sha256}
