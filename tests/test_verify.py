import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from toy import RULES, convert, toy_tensors

from converter import api, canonical, verify, verify_weights
from converter import manifest as manifests
from converter.digest import sha256
from converter.errors import SourceError, UsageError
from converter.finding import Finding
from converter.manifest import Manifest

FIRST, LAST = "model-00001-of-00004.safetensors", "model-00004-of-00004.safetensors"
INDEX = "model.safetensors.index.json"
WRONG = "0" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    convert(folder, toy_tensors(), max_shard_size="200B")
    return folder / "out"


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A canonical directory of four shards, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "out"))


def findings(out: Path, **options: Any) -> tuple[Finding, ...]:
    return api.verify(out, jobs=1, **options).findings


def only(out: Path, **options: Any) -> Finding:
    (finding,) = findings(out, **options)
    return finding


def flip(file: Path, at: int, bits: int = 1) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= bits
    file.write_bytes(data)


def read(out: Path) -> Manifest:
    return manifests.load((out / "manifest.json").read_bytes())


def rewrite(out: Path, change: Callable[[Manifest], Manifest], *, sums: bool = False) -> None:
    """Edit the manifest as one who knows its format would; with ``sums``, SHA256SUMS as well."""
    text = manifests.dump(change(read(out)))
    if sums:
        old = sha256((out / "manifest.json").read_bytes())
        lines = (out / "SHA256SUMS").read_text().replace(old, sha256(text))
        (out / "SHA256SUMS").write_text(lines)
    (out / "manifest.json").write_bytes(text)


def with_tensor(manifest: Manifest, name: str, /, **changes: Any) -> Manifest:
    tensors = [replace(t, **changes) if t.name == name else t for t in manifest.tensors]
    return replace(manifest, tensors=tuple(tensors))


# What holds


@pytest.mark.parametrize("level", ["full", "header"])
def test_what_convert_wrote_holds(made: Path, level: Any) -> None:
    verification = api.verify(made, level=level)
    assert verification.holds
    assert verification.manifest == read(made)
    total = read(made).totals.bytes
    assert verification.data_bytes == (total if level == "full" else 0)


def test_progress_is_told_of_every_byte_of_data(made: Path) -> None:
    told: list[tuple[int, int]] = []
    api.verify(made, progress=lambda done, total: told.append((done, total)))
    total = read(made).totals.bytes
    assert sum(done for done, _ in told) == total
    assert {of for _, of in told} == {total}


def test_a_signature_beside_the_files_is_not_theirs_to_judge(out: Path) -> None:
    (out / "model.sig").write_bytes(b"signed")
    assert findings(out) == ()


def test_sha256sum_agrees(made: Path) -> None:
    program = shutil.which("sha256sum")
    assert program, "a machine without coreutils"
    done = subprocess.run(
        [program, "--check", "--strict", "SHA256SUMS"], cwd=made, check=True, capture_output=True
    )
    assert done.stdout.decode().count(": OK\n") == len(list(made.iterdir())) - 1


# A changed byte


def regions(out: Path) -> dict[tuple[str, int], str | None]:
    """Return, for every byte of the weights files, the tensor that it belongs to."""
    owners: dict[tuple[str, int], str | None] = {}
    for record in read(out).files[:-1]:
        data = (out / record.name).read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        owners |= {(record.name, at): None for at in range(start)}
        with safe_open(out / record.name, framework="np") as opened:
            names = list(opened.keys())
        for name in names:
            at = data.index(f'"{name}":{{"dtype"'.encode())
            end = data.index(b"}", at) + 1
            owners |= {(record.name, place): name for place in range(at, end)}
    for tensor in read(out).tensors:
        begin, end = tensor.offset, tensor.offset + tensor.size
        owners |= {(tensor.file, place): tensor.name for place in range(begin, end)}
    return owners


def test_no_changed_byte_of_any_file_is_missed(out: Path) -> None:
    """Hundreds of bytes, each changed alone: found, and named as far as it can be."""
    chance = random.Random(0)
    owners = regions(out)
    for file in sorted(out.iterdir()):
        data = file.read_bytes()
        places = chance.sample(range(len(data)), min(len(data), 60))
        for at in places:
            flip(file, at, bits=chance.randrange(1, 256))
            found = findings(out)
            file.write_bytes(data)
            assert found, f"{file.name}, byte {at}"
            owner = owners.get((file.name, at))
            if owner is not None:
                assert [f.tensor for f in found] == [owner], f"{file.name}, byte {at}"
            place = [finding.where for finding in found]
            assert any(str(file) in str(where) for where in place), f"{file.name}, byte {at}"
    assert findings(out) == ()


def test_every_byte_of_a_header_is_named_by_its_place(out: Path) -> None:
    file, record = out / FIRST, read(out).files[0]
    data = file.read_bytes()
    for at, place in {0: "its length", 20: "its metadata", 4095: "its end"}.items():
        flip(file, at)
        assert place in only(out).what
        file.write_bytes(data)
    assert record.name == FIRST


def test_names_that_look_like_fields_of_a_header_are_told_apart(tmp_path: Path) -> None:
    """The entry of a tensor called shape is not the field of that name in an entry before it."""
    names = ("dtype", "shape", "format", "data_offsets")
    rules = f"dtypes: [F32]\nsets: {{n: [{', '.join(names)}]}}\n"
    rules += "rules:\n  - from: '{n}'\n    to: {'{n}': [2]}\n"
    convert(tmp_path, {name: torch.zeros(2) for name in names}, rules)
    file = tmp_path / "out" / "model.safetensors"
    data = file.read_bytes()
    for name in names:
        flip(file, data.index(f'"{name}":{{"dtype"'.encode()) + 1)
        assert only(tmp_path / "out").tensor == name
        file.write_bytes(data)


def test_changed_data_is_told_with_its_place_and_both_digests(out: Path) -> None:
    record = next(tensor for tensor in read(out).tensors if tensor.name == "mask")
    flip(out / record.file, record.offset + 1)
    finding = only(out)
    assert (finding.code, finding.tensor) == ("digest", "mask")
    assert f"bytes {record.offset} to {record.offset + 3} of the file" in finding.what
    assert finding.expected == f"sha256 {record.sha256}"
    assert finding.got == f"sha256 {sha256(bytes([1, 1, 1]))}"


def in_pieces(out: Path) -> Callable[[Manifest], Manifest]:
    """Return what gives every tensor of over 64 bytes the digests of its pieces of 64 bytes."""

    def edit(manifest: Manifest) -> Manifest:
        tensors = []
        for record in manifest.tensors:
            data = (out / record.file).read_bytes()[record.offset :][: record.size]
            pieces = tuple(sha256(data[at : at + 64]) for at in range(0, len(data), 64))
            tensors.append(replace(record, pieces=pieces if len(pieces) > 1 else ()))
        digest = manifests.content_digest(tensors)
        return replace(manifest, tensors=tuple(tensors), content_sha256=digest)

    return edit


@pytest.fixture
def pieced(out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose larger tensors are digested by pieces of 64 bytes."""
    for module in (verify, verify_weights):
        monkeypatch.setattr(module, "PIECE_BYTES", 64)
    rewrite(out, in_pieces(out), sums=True)
    return out


def test_of_a_large_tensor_the_piece_is_told(pieced: Path) -> None:
    record = next(t for t in read(pieced).tensors if t.name == "embedding.weight")
    assert len(record.pieces) == 2
    assert findings(pieced) == ()
    flip(pieced / record.file, record.offset + 64)
    finding = only(pieced)
    assert finding.tensor == "embedding.weight"
    assert f"bytes {record.offset + 64} to {record.offset + 96} of" in finding.what


# Every digest


@pytest.mark.parametrize("name", [FIRST, LAST])
def test_all_digests_are_those_of_whole_files_too(out: Path, name: str) -> None:
    """A wrong digest of a file that SHA256SUMS repeats is one that sha256sum would refuse."""
    digest = next(file.sha256 for file in read(out).files if file.name == name)
    sums = (out / "SHA256SUMS").read_text().replace(digest, WRONG)
    (out / "SHA256SUMS").write_text(sums)
    wrong = {
        file.name: replace(file, sha256=WRONG) for file in read(out).files if file.name == name
    }
    rewrite(
        out,
        lambda m: replace(m, files=tuple(wrong.get(file.name, file) for file in m.files)),
        sums=True,
    )
    assert findings(out) == ()
    finding = only(out, all_digests=True)
    assert (finding.code, finding.where) == ("digest", str(out / name))
    assert finding.what == "the manifest has another digest for the whole file than its parts have"
    assert (finding.expected, finding.got) == (f"sha256 {WRONG}", f"sha256 {digest}")


def test_all_digests_are_those_of_whole_tensors_in_pieces_too(pieced: Path) -> None:
    def edit(manifest: Manifest) -> Manifest:
        edited = with_tensor(manifest, "embedding.weight", sha256=WRONG)
        return replace(edited, content_sha256=manifests.content_digest(edited.tensors))

    rewrite(pieced, edit, sums=True)
    assert findings(pieced) == ()
    finding = only(pieced, all_digests=True)
    assert (finding.code, finding.tensor) == ("digest", "embedding.weight")
    assert "for the whole tensor" in finding.what


def test_a_changed_byte_is_told_once_though_several_digests_cover_it(pieced: Path) -> None:
    assert findings(pieced, all_digests=True) == ()
    record = next(t for t in read(pieced).tensors if t.name == "embedding.weight")
    data = (pieced / record.file).read_bytes()
    flip(pieced / record.file, record.offset + 64)
    assert "bytes " in only(pieced, all_digests=True).what
    (pieced / record.file).write_bytes(data)
    flip(pieced / record.file, 20)
    assert only(pieced, all_digests=True).code == "header"


def test_data_counts_once_however_often_it_is_hashed(pieced: Path) -> None:
    told: list[tuple[int, int]] = []
    verification = api.verify(
        pieced, all_digests=True, progress=lambda done, total: told.append((done, total))
    )
    assert verification.data_bytes == read(pieced).totals.bytes
    hashed = sum(done for done, _ in told)
    assert {total for _, total in told} == {hashed}
    files = sum((pieced / file.name).stat().st_size for file in read(pieced).files[:-1])
    assert hashed >= files + verification.data_bytes


def test_no_digest_of_data_can_be_checked_without_it(made: Path) -> None:
    with pytest.raises(UsageError, match="cannot be checked without the data"):
        api.verify(made, level="header", all_digests=True)


def test_data_that_is_not_read_is_not_judged(out: Path) -> None:
    record = read(out).tensors[0]
    flip(out / record.file, record.offset)
    assert findings(out, level="header") == ()
    flip(out / record.file, 100)
    assert only(out, level="header").code == "header"


def test_several_changes_are_all_told(out: Path) -> None:
    first, *_, last = [tensor for tensor in read(out).tensors if tensor.size]
    for record in (first, last):
        flip(out / record.file, record.offset)
    (out / "notes.txt").touch()
    assert {(f.code, f.tensor) for f in findings(out)} == {
        ("extra", None),
        ("digest", first.name),
        ("digest", last.name),
    }


# A file too short, too long, absent, or of another kind


@pytest.mark.parametrize("change", [-1, 1, -4096])
def test_a_file_of_another_size_is_told_with_both_sizes(out: Path, change: int) -> None:
    size = (out / LAST).stat().st_size
    os.truncate(out / LAST, size + change)
    finding = only(out)
    assert (finding.code, finding.where) == ("size", str(out / LAST))
    assert (finding.expected, finding.got) == (f"{size:,} bytes", f"{size + change:,} bytes")


@pytest.mark.parametrize("name", [FIRST, INDEX, "SHA256SUMS", "manifest.json"])
def test_a_file_that_is_missing_is_named(out: Path, name: str) -> None:
    (out / name).unlink()
    finding = only(out)
    assert (finding.code, finding.where) == ("missing", str(out / name))


@pytest.mark.parametrize("name", [FIRST, INDEX, "SHA256SUMS", "manifest.json"])
def test_a_file_that_is_cut_short_is_named(out: Path, name: str) -> None:
    os.truncate(out / name, (out / name).stat().st_size // 2)
    assert all(str(out / name) in str(finding.where) for finding in findings(out))
    assert findings(out)


@pytest.mark.parametrize("name", [FIRST, INDEX, "SHA256SUMS", "manifest.json"])
def test_a_file_that_is_longer_is_named(out: Path, name: str) -> None:
    with (out / name).open("ab") as file:
        file.write(b"\n")
    assert findings(out)
    assert all(str(out / name) in str(finding.where) for finding in findings(out))


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "model.safetensors", "é\n"])
def test_a_file_more_is_named(out: Path, name: str) -> None:
    (out / name).touch()
    finding = only(out)
    assert (finding.code, finding.where) == ("extra", str(out / name))


def linked(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def made_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [linked, made_a_folder, made_a_pipe])
@pytest.mark.parametrize("name", [FIRST, "SHA256SUMS", "manifest.json"])
def test_what_is_no_file_of_its_own_is_none(
    out: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(out / name)
    codes = {finding.code for finding in findings(out) if finding.where == str(out / name)}
    assert codes == {"kind", "missing"}


def test_a_link_or_a_folder_more_is_named(out: Path) -> None:
    (out / "link").symlink_to(out / FIRST)
    (out / "folder").mkdir()
    assert [(f.code, f.where) for f in findings(out)] == [
        ("kind", str(out / "folder")),
        ("kind", str(out / "link")),
    ]


def test_a_file_that_ends_while_it_is_read_is_a_finding(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ending(fd: int, begin: int, end: int) -> str:
        raise EOFError("the file ends")

    monkeypatch.setattr(verify_weights, "sha256_range", ending)
    assert {finding.code for finding in findings(out)} == {"unreadable"}


# The manifest, the sums and the index


def edited_title(manifest: Manifest) -> Manifest:
    return replace(manifest, model=replace(manifest.model, title="Another"))


def edited_convention(manifest: Manifest) -> Manifest:
    return replace(manifest, model=replace(manifest.model, conventions={"norm_eps": 1e-6}))


def edited_statistics(manifest: Manifest) -> Manifest:
    stats = manifest.tensors[0].stats
    assert stats is not None
    return with_tensor(manifest, manifest.tensors[0].name, stats=replace(stats, mean=0.25))


def edited_step(manifest: Manifest) -> Manifest:
    return with_tensor(manifest, "blocks.0.k.weight", steps=({"transpose": {"dims": [0, 1]}},))


def edited_source(manifest: Manifest) -> Manifest:
    return replace(manifest, sources=(replace(manifest.sources[0], size=1),))


def edited_alias(manifest: Manifest) -> Manifest:
    return replace(manifest, aliases={})


def edited_drop(manifest: Manifest) -> Manifest:
    return replace(manifest, dropped=manifest.dropped[1:])


@pytest.mark.parametrize(
    "edit",
    [
        edited_title,
        edited_convention,
        edited_statistics,
        edited_step,
        edited_source,
        edited_alias,
        edited_drop,
    ],
)
def test_a_manifest_edited_with_care_is_not_the_one_that_was_written(
    out: Path, edit: Callable[[Manifest], Manifest]
) -> None:
    rewrite(out, edit)
    finding = only(out)
    assert finding.what == "not the manifest that SHA256SUMS was written for"
    assert finding.where == str(out / "manifest.json")
    assert "proven right are names, dtypes, shapes, offsets, sizes, digests" in str(finding.hint)
    assert "what may have changed is tool, model, rules" in str(finding.hint)


def test_less_is_proven_of_such_a_manifest_when_data_is_not_read(out: Path) -> None:
    rewrite(out, edited_title)
    hint = str(only(out, level="header").hint)
    assert "proven right are names, dtypes, shapes, offsets, sizes and totals" in hint


def test_such_a_manifest_proves_nothing_beside_other_findings(out: Path) -> None:
    rewrite(out, edited_title)
    (out / "notes.txt").touch()
    assert not any("proven" in str(finding.hint) for finding in findings(out))


@pytest.mark.parametrize(
    ("field", "edit"),
    [
        ("totals", lambda m: replace(m, totals=replace(m.totals, parameters=1))),
        ("content_sha256", lambda m: replace(m, content_sha256=WRONG)),
        ("content_sha256", lambda m: with_tensor(m, "mask", sha256=WRONG)),
        ("number of pieces", lambda m: with_tensor(m, "mask", pieces=(m.tensors[0].sha256,))),
        ("files", lambda m: replace(m, files=m.files[:-1])),
        ("files", lambda m: replace(m, files=(*m.files, m.files[-1]))),
        (
            f"files: {INDEX}",
            lambda m: replace(m, files=(*m.files[:-1], replace(m.files[-1], size=1))),
        ),
        (
            f"files: {INDEX}",
            lambda m: replace(m, files=(*m.files[:-1], replace(m.files[-1], sha256=WRONG))),
        ),
    ],
)
def test_a_field_that_follows_from_others_is_derived_again(
    out: Path, field: str, edit: Callable[[Manifest], Manifest]
) -> None:
    """Even when SHA256SUMS was written anew for the edited manifest."""
    rewrite(out, edit, sums=True)
    assert f"{field} differs" in {finding.what for finding in findings(out)}


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: with_tensor(m, "mask", dtype="U8"),
        lambda m: with_tensor(m, "mask", shape=(3, 1)),
        lambda m: with_tensor(m, "mask", name="musk"),
        lambda m: with_tensor(m, "mask", offset=0),
        lambda m: with_tensor(m, "mask", file="model.safetensors"),
        lambda m: replace(m, tensors=m.tensors[:-1]),
        lambda m: replace(m, files=(*m.files, replace(m.files[-1], name="möd"))),
    ],
)
def test_a_tensor_that_is_another_in_the_manifest_never_holds(
    out: Path, edit: Callable[[Manifest], Manifest]
) -> None:
    rewrite(out, edit, sums=True)
    assert findings(out)


@pytest.mark.parametrize("line", range(6))
def test_a_damaged_line_of_the_sums_is_told_with_its_file(out: Path, line: int) -> None:
    lines = (out / "SHA256SUMS").read_text().splitlines(keepends=True)
    digit = "1" if lines[line][0] == "0" else "0"
    lines[line] = digit + lines[line][1:]
    (out / "SHA256SUMS").write_text("".join(lines))
    finding = only(out)
    name = lines[line].split()[1]
    assert finding.what == f"line {line + 1} ({name}) differs"
    assert finding.where == str(out / "SHA256SUMS")


def test_a_damaged_entry_of_the_index_names_the_tensor(out: Path) -> None:
    flip(out / INDEX, (out / INDEX).read_bytes().index(b'"mask": "model-0000') + 19)
    finding = only(out)
    assert (finding.tensor, finding.where) == ("mask", str(out / INDEX))


@pytest.mark.parametrize(
    "text", [b"", b"\xff\x00", b"[]", b'{"format": 1}', b'{"format": 2}', b"{" * 10_000]
)
def test_a_manifest_that_is_none_is_a_finding_not_an_exception(out: Path, text: bytes) -> None:
    (out / "manifest.json").write_bytes(text)
    verification = api.verify(out)
    assert verification.manifest is None
    last = verification.findings[-1]
    assert last.what == "not the manifest that SHA256SUMS was written for"


# What cannot be checked at all


def test_a_directory_that_is_not_there_is_no_difference_but_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", Path(__file__)):
        with pytest.raises(SourceError, match=r"no such directory|not a directory"):
            api.verify(path)


def test_a_directory_without_manifest_is_told_in_one_finding(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    finding = only(tmp_path)
    assert finding.what == "not a canonical directory: there is no manifest"


def test_what_cannot_be_read_is_an_error(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SourceError, match="Permission denied") as caught:
        api.verify(out)
    assert str(out) in str(caught.value.findings[0].where)


def test_a_level_that_does_not_exist_checks_nothing(made: Path) -> None:
    with pytest.raises(UsageError, match="unknown level 'fulll'"):
        api.verify(made, level="fulll")  # type: ignore[arg-type]


def test_a_directory_may_be_reached_through_a_link(made: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(made)
    assert api.verify(tmp_path / "link").holds


def test_one_file_needs_no_index(tmp_path: Path) -> None:
    convert(tmp_path, toy_tensors(), RULES)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {canonical.WEIGHTS_NAME, canonical.MANIFEST_NAME, canonical.SUMS_NAME}
    assert findings(tmp_path / "out") == ()


def test_a_manifest_of_absurd_size_is_not_read(out: Path) -> None:
    os.truncate(out / "manifest.json", 60 << 30)  # without a byte on disk
    with pytest.raises(SourceError, match="File too large") as caught:
        api.verify(out)
    assert str(out / "manifest.json") in str(caught.value.findings[0].where)
