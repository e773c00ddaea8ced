"""What a trace holds."""

from __future__ import annotations

from functools import partial

from converter.finding import Finding, counted, listed
from converter.report import Report, size_text
from converter.sheet import Sheet, Slots
from converter.trace_record import Traced


def of_trace(traced: Traced) -> Report:
    """Report a trace that was written."""
    record, header = traced.record, traced.header
    network = next((call for call in record.calls if call.module == ""), None)
    modules = {call.module for call in record.calls}
    title = (
        f"{traced.path}: {record.model or (network.type if network else 'modules')}, "
        f"{counted(len(record.calls), 'call')} of {counted(len(modules), 'module')}, "
        f"{counted(len(header), 'tensor')}, {size_text(traced.size_bytes)}"
    )
    taken, given = (network.inputs, network.outputs) if network else ((), ())
    rows = [("takes", f"{name} {header[name]}") for name in taken]
    rows += [("gives", f"{name} {header[name]}") for name in given]
    sheet = Sheet([title, Slots(rows)])
    return Report("trace", sheet.text(), partial(_json, traced), _warnings(traced), sheet=sheet)


def _warnings(traced: Traced) -> tuple[Finding, ...]:
    if not traced.record.left_out:
        return ()
    return (
        Finding(
            "left-out",
            "tensors of a kind that safetensors does not know are not in the trace",
            where=str(traced.path),
            got=listed(traced.record.left_out).removeprefix("one of "),
            severity="warning",
        ),
    )


def _json(traced: Traced) -> dict[str, object]:
    record = traced.record
    return {
        "out": str(traced.path),
        "model": record.model,
        "content_sha256": record.content_sha256,
        "size": traced.size_bytes,
        "tensors": len(traced.header),
        "left_out": list(record.left_out),
        "calls": [
            {
                "name": call.name,
                "module": call.module,
                "type": call.type,
                "caller": call.caller,
                "inputs": list(call.inputs),
                "outputs": list(call.outputs),
            }
            for call in record.calls
        ],
    }
