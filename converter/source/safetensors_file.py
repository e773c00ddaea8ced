"""A checkpoint in one safetensors file."""

from __future__ import annotations

from pathlib import Path

from converter.digest import GivenUp, never
from converter.header import LENGTH_BYTES, SafetensorsHeader, find_data_start, parse_header
from converter.positional import WriteBuffer
from converter.source.regular_file import RegularFile
from converter.source.source import Source, SourceFile


class SafetensorsFile(Source):
    """A safetensors file, opened; raises SourceError when its header is not plain.

    ``within`` is the folder in which it was found, unless the user named the file itself.
    """

    def __init__(self, path: Path, *, within: Path | None = None) -> None:
        self._file = RegularFile(path, within=within)
        try:
            parsed = _read_header(self._file)
        except BaseException:
            self._file.close()
            raise
        self._data_start = parsed.data_start
        self._tensors = {tensor.name: tensor for tensor in parsed.tensors}
        self.header = {tensor.name: tensor.spec for tensor in parsed.tensors}
        self.metadata = parsed.metadata
        self.files = (SourceFile(path.name, path, self._file.size_bytes),)

    def read(self, name: str) -> bytearray:
        """Return exactly the bytes of a tensor; raises SourceError."""
        tensor = self._tensors[name]
        return self._file.read(self._data_start + tensor.begin, tensor.end - tensor.begin)

    def read_into(self, name: str, buffer: WriteBuffer, begin: int = 0) -> None:
        """Fill ``buffer`` with the bytes of a tensor from its byte ``begin`` on."""
        tensor = self._tensors[name]
        position = tensor.begin + begin
        if begin < 0 or position + memoryview(buffer).nbytes > tensor.end:
            raise ValueError(f"{name} ends before the bytes asked for")
        self._file.read_into(buffer, self._data_start + position)

    def sha256(self, file: SourceFile, given_up: GivenUp = never) -> str:
        """Return the digest of the file."""
        if file not in self.files:
            raise ValueError(f"{file.name} is not of this checkpoint")
        return self._file.sha256(given_up)

    def check_unchanged(self) -> None:
        """Raise SourceError if the file was written to since it was opened."""
        self._file.check_unchanged()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read_header(file: RegularFile) -> SafetensorsHeader:
    where = str(file.path)
    prefix = bytes(file.read(0, min(LENGTH_BYTES, file.size_bytes)))
    data_start = find_data_start(prefix, file.size_bytes, where=where)
    return parse_header(bytes(file.read(0, data_start)), file.size_bytes, where=where)
