"""Archives are read by their directory alone, of any size, and as zipfile reads them."""

import io
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from pickles import save

from converter.errors import SourceError
from converter.pickle_archive import Archive, Member, check_crc32, is_archive, read_archive
from converter.source.regular_file import RegularFile

HUGE = 5 << 30
TENSORS = {"a": torch.arange(5), "b": torch.zeros(0), "c": torch.ones(7, 3)}


def read(path: Path) -> Archive:
    file = RegularFile(path)
    try:
        assert is_archive(file)
        return read_archive(file)
    finally:
        file.close()


def test_members_lie_where_zipfile_finds_them(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", TENSORS)
    data = path.read_bytes()
    found = read(path)
    with zipfile.ZipFile(path) as theirs:
        for key, member in {"data.pkl": found.pickle, **found.storages}.items():
            name = f"a/{member.name}"
            assert data[member.begin : member.end] == theirs.read(name)
            assert member.crc32 == theirs.getinfo(name).CRC
            assert member.name == ("data.pkl" if key == "data.pkl" else f"data/{key}")
    assert len(found.storages) == len(TENSORS)


def test_sums_are_checked_in_blocks(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"a": torch.zeros(3_000_000)})
    (member,) = read(path).storages.values()
    file = RegularFile(path)
    try:
        steps = [*check_crc32(file, member)]
        assert len(steps) > 1
        assert sum(steps) == member.size_bytes == 12_000_000
        wrong = Member(member.name, member.begin, member.end, (member.crc32 or 0) ^ 1)
        with pytest.raises(SourceError, match="are damaged"):
            all(check_crc32(file, wrong))
    finally:
        file.close()


def huge(path: Path) -> Path:
    """Write an archive whose second member and directory lie beyond 4 GiB, most of it a hole."""
    names = (b"a/data/0", b"a/data.pkl")
    places = (0, HUGE + 100)
    sizes = (HUGE, 2)
    directory = b""
    with path.open("wb") as file:
        for name, place, length in zip(names, places, sizes, strict=True):
            file.seek(place)
            wide = struct.pack("<2H2Q", 1, 16, length, length)
            narrow = (0xFFFFFFFF, 0xFFFFFFFF)
            head = (b"PK\x03\x04", 45, 0, 0, 0, 0, 9, *narrow, len(name), len(wide))
            file.write(struct.pack("<4s5H3L2H", *head) + name + wide)
            file.seek(length, io.SEEK_CUR)
            wide = struct.pack("<2H3Q", 1, 24, length, length, place)
            entry = (b"PK\x01\x02", 45, 45, 0, 0, 0, 0, 9, *narrow, len(name), len(wide))
            directory += struct.pack("<4s6H3L5H2L", *entry, 0, 0, 0, 0, 0xFFFFFFFF) + name + wide
        begin = file.tell()
        file.write(directory)
        end = file.tell()
        fields = (b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, len(directory), begin)
        file.write(struct.pack("<4sQ2H2L4Q", *fields))
        file.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1))
        ends = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *ends))
    return path


def test_sizes_and_positions_beyond_4_gib_are_read(tmp_path: Path) -> None:
    found = read(huge(tmp_path / "huge.pth"))
    assert found.storages["0"].size_bytes == HUGE
    assert found.pickle.begin > HUGE


@pytest.mark.parametrize(
    ("size", "position", "words"),
    [
        (HUGE + 70, HUGE + 100, "overlap"),
        (1 << 63, HUGE + 100, "out of the file"),
        (HUGE, 0, "overlap|two accounts"),
    ],
)
def test_huge_lies_are_found_out(size: int, position: int, words: str, tmp_path: Path) -> None:
    path = huge(tmp_path / "honest.pth")
    with path.open("r+b") as file:
        file.seek(-400, io.SEEK_END)
        tail = file.read()
        for old, new in (
            (struct.pack("<3Q", HUGE, HUGE, 0), struct.pack("<3Q", size, size, 0)),
            (struct.pack("<3Q", 2, 2, HUGE + 100), struct.pack("<3Q", 2, 2, position)),
        ):
            assert old in tail
            tail = tail.replace(old, new)
        file.seek(-400, io.SEEK_END)
        file.write(tail)
    with pytest.raises(SourceError, match=words):
        read(path)
