"""Compare the manifest of a conversion that was repeated with the one that a directory has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path

from converter.finding import Finding
from converter.manifest import FileRecord, Manifest, TensorRecord, dump, load
from converter.typed_json import first_difference

_HINT = "these files were not made from this source by these rules; convert it, and see"
_SHOWN_BYTES = 200


def compare(derived: Manifest, stated: Manifest, where: Path) -> list[Finding]:
    """Return how two manifests differ, but for the versions of the tools; nothing: not at all."""
    derived = load(dump(replace(derived, tool=stated.tool)))
    found = [
        *compare_sources(derived.sources, stated.sources, where),
        *_compare_tensors(derived, stated, where),
        *_compare_facts(_facts(derived), _facts(stated), where),
    ]
    return found or list(_compare_text(dump(derived), dump(stated), where))


def compare_sources(
    derived: tuple[FileRecord, ...], stated: tuple[FileRecord, ...], where: Path
) -> Iterator[Finding]:
    """Yield how the files of the source differ from those that were read."""
    if derived != stated:
        yield Finding(
            "source",
            "the source is not the one that was converted",
            str(where),
            expected=_files(stated),
            got=_files(derived),
            hint="give the very files that were converted, under their names",
        )


def _files(records: tuple[FileRecord, ...]) -> str:
    return "; ".join(f"{f.name}, {f.size:,} bytes, sha256 {f.sha256}" for f in records) or "none"


def _compare_tensors(derived: Manifest, stated: Manifest, where: Path) -> Iterator[Finding]:
    """Yield a finding for each tensor that differs, with the first of its fields that does."""
    made = {record.name: record for record in derived.tensors}
    have = {record.name: record for record in stated.tensors}
    for name in dict.fromkeys((*made, *have)):
        if name not in have or name not in made:
            only = "the source gives a tensor" if name in made else "the manifest has a tensor"
            lacks = "the manifest lacks" if name in made else "the source does not give"
            yield Finding("derived", f"{only} that {lacks}", str(where), name, hint=_HINT)
        elif differing := _differing(made[name], have[name]):
            field, *more = differing
            also = f" (and {', '.join(more)})" if more else ""
            yield _differs(f"{field}{also}", made[name], have[name], where, field)


def _differing(made: TensorRecord, have: TensorRecord) -> list[str]:
    names = [field.name for field in fields(TensorRecord)]
    return [name for name in names if getattr(made, name) != getattr(have, name)]


def _differs(what: str, made: TensorRecord, have: TensorRecord, where: Path, field: str) -> Finding:
    expected, got = str(getattr(made, field)), str(getattr(have, field))
    return _finding(what, where, expected, got, made.name)


def _finding(what: str, where: Path, expected: str, got: str, tensor: str | None = None) -> Finding:
    what = f"{what} differs from what the source gives by the rules"
    return Finding("derived", what, str(where), tensor, expected, got, _HINT)


def _facts(manifest: Manifest) -> Mapping[str, object]:
    """Return all that a manifest says beside tensors and sources, by its place in it."""
    model = asdict(manifest.model)
    tables = {
        **{f"model.{key}": model.pop(key) for key in ("dims", "conventions", "audio")},
        "model": model,
        "rules": {"file": manifest.rules.file, "sha256": manifest.rules.sha256},
        "rules.options": manifest.rules.options,
        "files": {file.name: file for file in manifest.files},
        "aliases": manifest.aliases,
        "dropped": {drop.name: drop for drop in manifest.dropped},
        "stand_ins": {stand_in.name: stand_in for stand_in in manifest.stand_ins},
        "totals": asdict(manifest.totals),
    }
    facts = {
        f"{table}.{key}": item for table, items in tables.items() for key, item in items.items()
    }
    return facts | {
        "out_of_scope": manifest.out_of_scope,
        "content_sha256": manifest.content_sha256,
    }


def _compare_facts(
    made: Mapping[str, object], have: Mapping[str, object], where: Path
) -> Iterator[Finding]:
    for place in dict.fromkeys((*made, *have)):
        if place not in made or place not in have or made[place] != have[place]:
            yield _finding(place, where, _shown(made, place), _shown(have, place))


def _shown(facts: Mapping[str, object], place: str) -> str:
    return str(facts[place]) if place in facts else "nothing"


def _compare_text(made: bytes, have: bytes, where: Path) -> Iterator[Finding]:
    """Yield the first line that differs, such as in the order of records."""
    if made != have:
        number, want, got = first_difference(made, have)
        shown = [line[:_SHOWN_BYTES].decode(errors="backslashreplace") for line in (want, got)]
        yield _finding(f"line {number}", where, *shown)
