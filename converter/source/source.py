"""What a source is: names, dtypes and shapes at once, values when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from converter.digest import GivenUp, never
from converter.positional import WriteBuffer
from converter.spec import Header


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of weights: its name inside the checkpoint, where it was opened, its size in bytes.

    ``prefix`` stands before the names of its tensors in the checkpoint: that of its rank, if any.
    """

    name: str
    path: Path
    size_bytes: int
    prefix: str = ""


class Source(Protocol):
    """A checkpoint opened for reading, of which the headers have been checked.

    Every file is opened once and read by position through that one opening, so any number of
    threads may read at a time, and a file replaced meanwhile is still the one that was checked.
    """

    header: Header  # file by file, in the order of the data
    metadata: Mapping[str, str]  # of several files, the entries on which all agree
    files: tuple[SourceFile, ...]  # those that hold values, in order; none for a header alone

    def read(self, name: str) -> bytearray:
        """Return exactly the bytes of a tensor; raises SourceError."""
        ...

    def read_into(self, name: str, buffer: WriteBuffer, begin: int = 0) -> None:
        """Fill ``buffer`` with the bytes of a tensor from its byte ``begin`` on.

        Raises SourceError when they cannot be read, ValueError when the tensor ends before.
        """
        ...

    def sha256(self, file: SourceFile, given_up: GivenUp = never) -> str:
        """Return the digest of one of ``files``, read through the same opening.

        Raises SourceError, and CancelledError soon after ``given_up`` returns True.
        """
        ...

    def check_unchanged(self) -> None:
        """Raise SourceError if a file changed (size, time of last change) since it was opened."""
        ...

    def close(self) -> None:
        """Close all files; closing twice is harmless."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
