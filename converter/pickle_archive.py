"""The zip archive around a checkpoint of torch, read by its directory alone and taken at its word.

Every member must be stored as it is, once, within the file, and apart from all others, so that
what a directory says of a member is what anybody would read there. Source of the container: the
zip format description (APPNOTE 6.3), and the archives that ``torch.save`` writes since torch 1.6.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from converter.errors import SourceError
from converter.source.regular_file import RegularFile

MAX_MEMBERS = 500_000
MAX_DIRECTORY_BYTES = 64 << 20
MAX_PICKLE_BYTES = 64 << 20
LOCAL_SIGNATURE = b"PK\x03\x04"

_BLOCK_BYTES = 4 << 20
_RECORD_BYTES = 64
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_SIZES_FOLLOW, _UTF8 = 1 << 3, 1 << 11
_LARGE16, _LARGE32 = 0xFFFF, 0xFFFFFFFF

_STORAGES = "data/"
_PICKLE = "data.pkl"
_BYTE_ORDER = "byteorder"
_CODE_SUFFIXES = (".py", ".pyc", ".pkl", ".debug_pkl", ".so", ".dll", ".dylib")


@dataclass(frozen=True, slots=True)
class Member:
    """A member whose data are the bytes ``[begin, end)`` of the file.

    ``name`` is without the folder that all members share; ``crc32`` is None where the writer
    computed none.
    """

    name: str
    begin: int
    end: int
    crc32: int | None

    @property
    def size_bytes(self) -> int:
        """Size of the data in bytes."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Archive:
    """A checkpoint's archive: its one pickle, and its storages by key."""

    pickle: Member
    storages: Mapping[str, Member]


class _Directory(NamedTuple):
    """Where the central directory lies, and how many members it lists."""

    begin: int
    end: int
    members: int


class _Entry(NamedTuple):
    """What the central directory says of one member; ``header`` is where its own header lies."""

    path: str
    raw_path: bytes
    flags: int
    crc32: int
    size: int
    header: int


def is_archive(file: RegularFile) -> bool:
    """Return whether a file begins as a zip archive does. Raises SourceError."""
    return bytes(file.read(0, min(4, file.size_bytes))) == LOCAL_SIGNATURE


def read_archive(file: RegularFile) -> Archive:
    """Check the archive in ``file`` and return where its pickle and its storages lie.

    Reads the directory and the header of every member, no data. Raises SourceError for members
    that are compressed, encrypted, listed twice, overlapping, outside of the file or of unfit
    names; for an archive that carries code; and for one that is no checkpoint of torch.
    """
    where = str(file.path)
    directory = _find_directory(file)
    data = bytes(file.read(directory.begin, directory.end - directory.begin))
    entries = list(_entries(data, directory, where))
    _check_unique(entries, where)
    extents = [_extent(file, entry, directory.begin) for entry in entries]
    _check_apart(entries, extents, where)
    unchecked = not any(entry.crc32 for entry in entries)
    members = {
        member.name: member
        for member in (
            Member(_below_folder(entries, entry, where), begin, end, entry.crc32)
            for entry, (begin, end) in zip(entries, extents, strict=True)
        )
    }
    if unchecked:
        members = {name: Member(name, m.begin, m.end, None) for name, m in members.items()}
    return _checkpoint(file, members)


def check_crc32(file: RegularFile, member: Member) -> Iterator[int]:
    """Read a member and yield how many bytes were read, block by block; then check its CRC-32.

    Raises SourceError when the data are not what was written.
    """
    crc = 0
    block = memoryview(bytearray(min(_BLOCK_BYTES, member.size_bytes)))
    for position in range(member.begin, member.end, _BLOCK_BYTES):
        part = block[: member.end - position]
        file.read_into(part, position)
        crc = zlib.crc32(part, crc)
        yield len(part)
    if member.crc32 is not None and crc != member.crc32:
        raise _malformed(
            f"the data of {member.name} are damaged",
            str(file.path),
            f"CRC-32 {member.crc32:08x}",
            f"{crc:08x}",
            hint="fetch the file again",
        )


def _find_directory(file: RegularFile) -> _Directory:
    """Read the record at the very end of the file, and the one of large archives before it."""
    where, size = str(file.path), file.size_bytes
    begin = size - _END.size
    if begin < 0:
        raise _truncated(where)
    record = _END.unpack(file.read(begin, _END.size))
    if record[0] != b"PK\x05\x06" or record[7]:
        raise _truncated(where)
    _, disk, first_disk, here, count, length, position, _ = record
    locator = bytes(file.read(max(0, begin - _LOCATOR64.size), _LOCATOR64.size))
    large = _LARGE16 in (here, count) or _LARGE32 in (length, position)
    if locator[:4] == b"PK\x06\x07" or large:
        begin, disk, first_disk, here, count, length, position = _find_large(file, begin, locator)
    if disk or first_disk or here != count:
        raise _malformed("an archive in several parts", where, "one file", f"part {disk}")
    if position + length != begin:
        expected = f"a directory of {length:,} bytes that ends at byte {begin:,}"
        raise _malformed("the archive's directory is not where it should be", where, expected)
    if count > MAX_MEMBERS or length > MAX_DIRECTORY_BYTES:
        expected = f"at most {MAX_MEMBERS:,} members and {MAX_DIRECTORY_BYTES:,} bytes"
        got = f"{count:,} and {length:,}"
        raise _malformed("the archive's directory is stuffed", where, expected, got)
    return _Directory(position, begin, count)


def _find_large(file: RegularFile, end: int, locator: bytes) -> tuple[int, ...]:
    """Read the record of large archives, which lies before its locator, which ends at ``end``."""
    where = str(file.path)
    begin = end - _LOCATOR64.size - _END64.size
    if begin < 0 or locator[:4] != b"PK\x06\x07":
        raise _truncated(where)
    _, disk, position, disks = _LOCATOR64.unpack(locator)
    record = _END64.unpack(file.read(begin, _END64.size))
    if record[0] != b"PK\x06\x06" or position != begin or disk or disks > 1:
        raise _truncated(where)
    return (begin, *record[4:])


def _entries(data: bytes, directory: _Directory, where: str) -> Iterator[_Entry]:
    position = 0
    for _ in range(directory.members):
        if position + _ENTRY.size > len(data):
            raise _truncated(where)
        fields = _ENTRY.unpack_from(data, position)
        position += _ENTRY.size
        lengths = fields[10:13]
        if fields[0] != b"PK\x01\x02" or position + sum(lengths) > len(data):
            raise _truncated(where)
        path, extra = data[position:][: lengths[0]], data[position + lengths[0] :][: lengths[1]]
        position += sum(lengths)
        yield _entry(path, extra, fields, where)
    if position != len(data):
        raise _malformed("bytes after the archive's directory", where, "nothing")


def _entry(raw_path: bytes, extra: bytes, fields: tuple[int, ...], where: str) -> _Entry:
    flags, method, crc32 = fields[3], fields[4], fields[7]
    path = _path(raw_path, where)
    compressed, size, header = _wide(extra, fields[8], fields[9], fields[16], where, path)
    if flags & ~(_SIZES_FOLLOW | _UTF8):
        what = "encrypted" if flags & 1 else "of an unknown kind"
        raise _malformed(f"a member is {what}", where, "plain members", f"{path}, flags {flags:#x}")
    if method or compressed != size:
        raise _malformed(
            "a member is compressed",
            where,
            "members stored as they are, as torch.save writes them",
            f"{path}: {compressed:,} bytes that become {size:,}",
            hint="a small file could become a huge one; unpack and store it again if you trust it",
        )
    if fields[13]:
        raise _malformed("an archive in several parts", where, "one file", path)
    return _Entry(path, raw_path, flags, crc32, size, header)


def _path(raw: bytes, where: str) -> str:
    """Return the path of a member, if it is plain: relative, downwards, printable."""
    path = raw.decode("utf-8", "replace")
    plain = (
        path.isprintable()
        and "\ufffd" not in path
        and not set(path) & set('\\:*?"<>|')
        and path == str(PurePosixPath(path))
        and not path.startswith("/")
        and ".." not in path.split("/")
    )
    if not plain:
        raise _malformed("a member's name is not fit", where, "a plain relative path", ascii(path))
    return path


def _wide(
    extra: bytes, compressed: int, size: int, header: int, where: str, path: str
) -> tuple[int, int, int]:
    """Return sizes and position, of which those too large for 32 bits stand in ``extra``."""
    values = _extra_values(extra, where, path)
    wide = []
    for value in (size, compressed, header):
        if value == _LARGE32:
            if not values:
                raise _malformed("a member's size is missing", where, "its 64 bits", path)
            value = values.pop(0)
        wide.append(value)
    return wide[1], wide[0], wide[2]


def _extra_values(extra: bytes, where: str, path: str) -> list[int]:
    """Return the 64-bit values of the extra field 1."""
    position = 0
    found: list[int] | None = None
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        field = extra[position + 4 : position + 4 + length]
        position += 4 + length
        if kind == 1:
            if found is not None or len(field) != length:
                raise _malformed("a member's size is unclear", where, "one size, whole", path)
            found = [value for (value,) in struct.iter_unpack("<Q", field[: length // 8 * 8])]
    return found or []


def _check_unique(entries: list[_Entry], where: str) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.path.casefold() in seen:
            raise _malformed("a member stands twice", where, "each name once", entry.path)
        seen.add(entry.path.casefold())


def _extent(file: RegularFile, entry: _Entry, directory: int) -> tuple[int, int]:
    """Return where a member's data lie, once its own header agrees with the directory."""
    where = str(file.path)
    if entry.header + _LOCAL.size > directory:
        raise _outside(entry, where)
    local = bytes(file.read(entry.header, _LOCAL.size + len(entry.raw_path)))
    signature, _, flags, method, _, _, crc32, compressed, size, names, extras = _LOCAL.unpack(
        local[: _LOCAL.size]
    )
    later = entry.flags & _SIZES_FOLLOW
    agrees = (
        signature == LOCAL_SIGNATURE
        and (flags, method) == (entry.flags, 0)
        and local[_LOCAL.size :] == entry.raw_path
        and names == len(entry.raw_path)
        and crc32 in ({0, entry.crc32} if later else {entry.crc32})
        and {compressed, size} <= {min(entry.size, _LARGE32), _LARGE32, 0 if later else entry.size}
    )
    if not agrees:
        expected = "the member's own header to say what the directory says"
        raise _malformed("two accounts of one member", where, expected, entry.path)
    begin = entry.header + _LOCAL.size + names + extras
    if begin + entry.size > directory:
        raise _outside(entry, where)
    return begin, begin + entry.size


def _check_apart(entries: list[_Entry], extents: list[tuple[int, int]], where: str) -> None:
    ranges = sorted(
        (entry.header, end, entry.path) for entry, (_, end) in zip(entries, extents, strict=True)
    )
    for (_, end, first), (begin, _, second) in itertools.pairwise(ranges):
        if begin < end:
            got = f"{first} and {second}"
            raise _malformed("members overlap", where, "each byte in one member", got)


def _below_folder(entries: list[_Entry], entry: _Entry, where: str) -> str:
    """Return a member's path below the folder in which ``torch.save`` puts all of them."""
    folder = entries[0].path.partition("/")[0]
    own, _, name = entry.path.partition("/")
    if own != folder or not name:
        expected = f"every member below {folder}/"
        raise _malformed("not a checkpoint of torch", where, expected, entry.path)
    return name


def _checkpoint(file: RegularFile, members: Mapping[str, Member]) -> Archive:
    where = str(file.path)
    _check_no_code(members, where)
    if _PICKLE not in members:
        got = ", ".join(itertools.islice(members, 5))
        raise _malformed("not a checkpoint of torch", where, f"a member {_PICKLE}", got)
    pickle = members[_PICKLE]
    if pickle.size_bytes > MAX_PICKLE_BYTES:
        expected = f"at most {MAX_PICKLE_BYTES:,} bytes"
        raise _malformed("too large a pickle", where, expected, f"{pickle.size_bytes:,}")
    if (order := members.get(_BYTE_ORDER)) is not None:
        record = bytes(file.read(order.begin, min(order.size_bytes, _RECORD_BYTES)))
        if record != b"little":
            hint = "save it again on a machine of little-endian byte order, as most are"
            raise _malformed("an unfit byte order", where, "little", ascii(record)[2:-1], hint=hint)
    storages = {
        name.removeprefix(_STORAGES): member
        for name, member in members.items()
        if name.startswith(_STORAGES)
    }
    return Archive(pickle, storages)


def _check_no_code(members: Mapping[str, Member], where: str) -> None:
    for name in members:
        if name.startswith("code/") or (name != _PICKLE and name.endswith(_CODE_SUFFIXES)):
            raise SourceError(
                "the archive carries code",
                code="pickle-code",
                where=where,
                expected="a checkpoint of tensors, as torch.save(model.state_dict()) writes it",
                got=f"{name}, as TorchScript and packages have it",
                hint="save the state_dict alone, in an environment that you trust",
            )


def _outside(entry: _Entry, where: str) -> SourceError:
    return _malformed("a member reaches out of the file", where, "data within the file", entry.path)


def _truncated(where: str) -> SourceError:
    return _malformed(
        "the archive is truncated or damaged",
        where,
        "a zip archive with its directory at the very end",
        hint="fetch the file again",
    )


def _malformed(
    what: str, where: str, expected: str, got: str | None = None, *, hint: str | None = None
) -> SourceError:
    return SourceError(what, code="archive", where=where, expected=expected, got=got, hint=hint)
