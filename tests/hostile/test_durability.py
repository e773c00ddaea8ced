"""What reaches the disk, and in which order, so that a crash of the machine finds old or new."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blocks import write_bundles, write_models

from converter import api, publish

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/fd")

Event = tuple[str, Path]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """A log of the calls that make, write, sync and move what lies on the disk."""
    log: list[Event] = []

    def of_descriptor(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def logged(fd: int, *arguments: Any) -> Any:
            done = call(fd, *arguments)
            log.append((what, Path(os.readlink(f"/proc/self/fd/{fd}"))))
            return done

        return logged

    def of_path(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def logged(*paths: Any, **options: Any) -> Any:
            done = call(*paths, **options)
            log.append((what, Path(paths[0])))
            return done

        return logged

    def opened(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        fd = system_open(path, flags, *arguments, **options)
        if flags & os.O_CREAT:
            log.append(("make", Path(path)))
        return fd

    system_open = os.open
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "mkdir", of_path("make", os.mkdir))
    monkeypatch.setattr(os, "pwrite", of_descriptor("write", os.pwrite))
    monkeypatch.setattr(os, "posix_fallocate", of_descriptor("write", os.posix_fallocate))
    monkeypatch.setattr(os, "fsync", of_descriptor("sync", os.fsync))
    monkeypatch.setattr(os, "rename", of_path("publish", os.rename))
    monkeypatch.setattr(publish, "exchange", of_path("publish", publish.exchange))
    return log


def convert(kind: str, folder: Path, out: Path) -> Path:
    """Convert over what is at ``out``; return where it was made."""
    if kind == "bundle":
        api.convert_bundle(str(folder / "pair.yaml"), folder / "a", out, overwrite=True, jobs=2)
    else:
        size = "2MB" if kind == "shards" else None
        source, rules = folder / "a" / "blocks.safetensors", folder / "blocks.yaml"
        api.convert(source, out, rules=rules, max_shard_size=size, overwrite=True, jobs=2)
    return out.with_name(f".{out.name}.partial")


def indices(events: list[Event], what: str, path: Path) -> Iterator[int]:
    return (number for number, event in enumerate(events) if event == (what, path))


@pytest.mark.parametrize("over", ["nothing", "an old one"])
@pytest.mark.parametrize("kind", ["model", "shards", "bundle"])
def test_all_is_on_disk_before_it_is_published_and_then_the_publication_is(
    tmp_path: Path, events: list[Event], kind: str, over: str
) -> None:
    (write_bundles if kind == "bundle" else write_models)(tmp_path)
    out = tmp_path / "new" / "parent" / "out"
    if over == "an old one":
        convert(kind, tmp_path, out)
    events.clear()
    made = convert(kind, tmp_path, out)
    files = [made / path.relative_to(out) for path in out.rglob("*") if path.is_file()]
    folders = [made, *(made / path.name for path in out.iterdir() if path.is_dir())]
    assert len(files) >= (6 if kind != "model" else 3)
    assert len(folders) == (3 if kind == "bundle" else 1)
    (published,) = indices(events, "publish", made)
    for path in files:
        written, synced = (list(indices(events, what, path)) for what in ("write", "sync"))
        assert max(written) < max(synced) < published, path
    for folder in folders:
        inside = (n for n, (what, path) in enumerate(events[:published]) if path.parent == folder)
        assert max(inside) < max(indices(events, "sync", folder)) < published, folder
    assert min(indices(events[published:], "sync", out.parent)) > 0
    if over == "nothing":
        for parent in (out.parent, out.parent.parent):
            (parent_made,) = indices(events, "make", parent)
            assert parent_made < min(indices(events, "sync", parent.parent))


@pytest.mark.parametrize("kind", ["model", "shards", "bundle"])
def test_what_vouches_for_files_is_made_when_they_are_on_disk(
    tmp_path: Path, events: list[Event], kind: str
) -> None:
    (write_bundles if kind == "bundle" else write_models)(tmp_path)
    made = convert(kind, tmp_path, tmp_path / "out")

    def is_last_of(name: str, folder: Path, *before: str) -> None:
        (begun,) = indices(events, "make", folder / name)
        others = [path for pattern in before for path in (tmp_path / "out").rglob(pattern)]
        paths = [made / path.relative_to(tmp_path / "out") for path in others]
        paths = [path for path in paths if folder in path.parents]
        assert paths
        for path in paths:
            assert max(indices(events, "sync", path)) < begun, (name, path)

    for folder in [made / "front", made / "back"] if kind == "bundle" else [made]:
        is_last_of("manifest.json", folder, "*.safetensors", "*.index.json")
        is_last_of("SHA256SUMS", folder, "manifest.json")
    if kind == "bundle":
        is_last_of("bundle.json", made, "manifest.json")
        is_last_of("SHA256SUMS", made, "bundle.json")
