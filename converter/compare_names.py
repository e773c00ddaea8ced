"""What a file calls the tensors that a trace has under names of its own: stated, never guessed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from converter import strict_json
from converter.errors import RuleError, SourceError, UsageError
from converter.finding import closest
from converter.rules import strict_yaml

_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_EXPECTED = "lines of  their name: our name;  {i} stands for a whole number, the same in both"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A name of theirs, as a pattern, and what it is called here; ``text`` is as it was written."""

    text: str
    theirs: re.Pattern[str]
    ours: str

    def filled(self, match: re.Match[str]) -> str:
        """Return our name for one of theirs."""
        return _PLACE.sub(lambda place: match[place[1]], self.ours)


def read_map(path: Path) -> dict[str, str]:
    """Return their name → our name, from a YAML or JSON file. Raises UsageError for all else."""
    where = str(path)
    try:
        data = strict_yaml.read(path)
        is_json = path.suffix.lower() == ".json"
        document = (
            strict_json.parse(data, where=where)
            if is_json
            else strict_yaml.parse(data, where).value
        )
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=where) from error
    except (RuleError, SourceError) as error:
        raise UsageError.of(error.findings) from error
    if not isinstance(document, dict) or not document:
        raise UsageError("not a map of names", where=where, expected=_EXPECTED)
    for theirs, ours in document.items():
        if not isinstance(ours, str):
            raise UsageError(
                "not the name of a tensor",
                where=where,
                tensor=theirs,
                expected=_EXPECTED,
                got=repr(ours),
            )
    return document


def renamed(names: Collection[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """Return our name → theirs, for all the ``names`` of a file.

    Names that no entry means are the same here. Raises UsageError for an entry that means none,
    and where two names become one.
    """
    entries = [_entry(theirs, ours) for theirs, ours in mapping.items()]
    used: set[str] = set()
    found: dict[str, str] = {}
    for name in names:
        ours = name
        for entry in entries:
            if match := entry.theirs.fullmatch(name):
                ours = entry.filled(match)
                used.add(entry.text)
                break
        if ours in found:
            raise UsageError(
                "the map gives two tensors one name",
                tensor=ours,
                expected="one name for each",
                got=f"{found[ours]} and {name}",
            )
        found[ours] = name
    for entry in entries:
        if entry.text not in used:
            near = closest(entry.text, names)
            raise UsageError(
                "the map names a tensor that the file does not have, or that another entry means",
                tensor=entry.text,
                hint=f"did you mean {near!r}?" if near else None,
            )
    return found


def _entry(theirs: str, ours: str) -> _Entry:
    pieces, seen, end = [], set(), 0
    for place in _PLACE.finditer(theirs):
        pieces.append(re.escape(theirs[end : place.start()]))
        pieces.append(f"(?P={place[1]})" if place[1] in seen else f"(?P<{place[1]}>[0-9]{{1,18}})")
        seen.add(place[1])
        end = place.end()
    pieces.append(re.escape(theirs[end:]))
    for place in _PLACE.finditer(ours):
        if place[1] not in seen:
            raise UsageError(
                f"{{{place[1]}}} stands in the name here, and not in the one that is mapped to it",
                expected=_EXPECTED,
                got=f"{theirs}: {ours}",
            )
    return _Entry(theirs, re.compile("".join(pieces)), ours)
