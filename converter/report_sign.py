"""What a signature was made of."""

from __future__ import annotations

from pathlib import Path

from converter.finding import counted
from converter.report import Report
from converter.sheet import Sheet, Slots
from converter.signing import Signed


def of_signing(directory: Path, signed: Signed) -> Report:
    """Report the signature that was written into ``directory``."""
    rows = [
        ("signature", str(signed.path)),
        ("key", f"sha256 {signed.public_key_sha256} of the public key in PEM"),
        ("check", f"convert verify {directory} --public-key KEY"),
    ]
    count = counted(len(signed.files), "file")
    title = f"{directory}: verified, and signed with its {count}"
    sheet = Sheet([title, Slots(rows)])
    result = {
        "directory": str(directory),
        "signature": str(signed.path),
        "public_key_sha256": signed.public_key_sha256,
        "files": [{"name": name, "sha256": digest} for name, digest in signed.files.items()],
    }
    return Report("sign", sheet.text(), result, sheet=sheet)
