"""Compare two checkpoints by digest and value: what is equal, what was moved, what was changed.

Names come first: tensors of one name are held against each other. What is not equal there is looked
for under other names, by its bytes, and by its elements in another order. Nothing is guessed: where
several tensors, or none that can be told from others, would fit, all of them are listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from converter.diff_entry import Comparison, Entry, Inventory, Kind, Level, Tolerance
from converter.diff_side import Meter, Side, digests, is_constant
from converter.progress import Progresses
from converter.spec import TensorSpec

_ONE_VALUE = "the same bytes, but of one value throughout, which tells nothing of what they are"
_SEVERAL = "the same bytes, and several tensors have them, so they do not tell which is which"


def diff(
    here: Side,
    there: Side,
    *,
    level: Level,
    tolerance: Tolerance | None,
    jobs: int,
    progress: Progresses,
) -> Comparison:
    """Compare two open checkpoints.

    With the level ``header`` no values are read: digests are those that manifests state, where
    there are any. Raises SourceError when a value cannot be read.
    """
    if level == "full":
        with progress("hashing") as told:
            known = digests((here, there), jobs=jobs, meter=Meter(told))
    else:
        known = [_stated(here), _stated(there)]
    matcher = _Matcher(here, there, known[0], known[1], level)
    entries = [*matcher.by_name(), *matcher.by_digest()]
    if level == "full":
        from converter.diff_pairs import Examiner

        with progress("comparing") as told, ThreadPoolExecutor(jobs) as pool:
            examiner = Examiner(here, there, tolerance, pool, Meter(told))
            entries += examiner.pairs(matcher.pairs())
            entries += matcher.settled(examiner.ordered(matcher.left, matcher.right))
            entries += matcher.settled(examiner.cast(matcher.left, matcher.right, *known))
    else:
        entries += [Entry("changed", (name,), (name,)) for name in matcher.pairs()]
    entries += matcher.alone()
    names = dict.fromkeys((*here.header, *there.header))
    order = {name: number for number, name in enumerate(names)}
    entries.sort(key=lambda entry: min(order[name] for name in (*entry.here, *entry.there)))
    return Comparison(
        Inventory(str(here.path), here.header, known[0]),
        Inventory(str(there.path), there.header, known[1]),
        level,
        tolerance,
        tuple(entries),
    )


def _stated(side: Side) -> dict[str, str]:
    """Return the digests that a manifest states, by name."""
    return {name: side.stated[of] for name, of in side.stored.items() if of in side.stated}


class _Matcher:
    """Settles tensors by name and by digest; ``left`` and ``right`` are not settled yet."""

    def __init__(
        self,
        here: Side,
        there: Side,
        here_digests: Mapping[str, str],
        there_digests: Mapping[str, str],
        level: Level,
    ) -> None:
        self.here, self.there = here, there
        self.here_digests, self.there_digests = here_digests, there_digests
        self.level = level
        self.left = dict(here.header)
        self.right = dict(there.header)
        self.taken: dict[tuple[str, str], str] = {}

    def settle(self, here: Iterable[str], there: Iterable[str]) -> None:
        """Take tensors out of what is not settled."""
        for name in here:
            del self.left[name]
        for name in there:
            del self.right[name]

    def settled(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return entries, once what they are about is settled."""
        found = list(entries)
        for entry in found:
            self.settle(entry.here, entry.there)
        return found

    def by_name(self) -> Iterator[Entry]:
        """Yield what is equal under one name, or would be but for its shape."""
        for name in [name for name in self.left if name in self.right]:
            one, other = self.left[name], self.right[name]
            digest, match = self.here_digests.get(name), self.there_digests.get(name)
            kind: Kind | None = None
            if digest is None or match is None:
                kind = "unread" if one == other else None
            elif digest == match and one.dtype == other.dtype:
                kind = "equal" if one == other else "reshaped"
            if kind is not None:
                self.settle([name], [name])
                yield Entry(kind, (name,), (name,))

    def by_digest(self) -> Iterator[Entry]:
        """Yield what has another name, or may have."""
        holders = _by_digest(self.here.header, self.here_digests)
        matches = _by_digest(self.there.header, self.there_digests)
        ambiguous = []
        for key in [key for key in holders if key in matches]:
            here = [name for name in holders[key] if name in self.left]
            there = [name for name in matches[key] if name in self.right]
            if not here or not there:
                continue
            alone = len(holders[key]) == len(matches[key]) == 1
            if alone and not self.is_constant(here[0]):
                self.settle(here, there)
                self.taken |= {("here", here[0]): there[0], ("there", there[0]): here[0]}
                yield Entry("renamed", tuple(here), tuple(there))
            else:
                ambiguous.append((here, there, _ONE_VALUE if alone else _SEVERAL))
        for here, there, note in ambiguous:
            # What has its name on the other side too is compared with that.
            new = [name for name in here if name not in self.right]
            gone = [name for name in there if name not in self.left]
            if new and gone:
                self.settle(new, gone)
                yield Entry("ambiguous", tuple(new), tuple(gone), note=note)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor here is one value throughout, which says nothing of what it is."""
        if self.here.header[name].numel == 1:
            return True
        if self.level == "full":
            return is_constant(self.here.tensor(name))
        stats = self.here.stats.get(self.here.stored[name])
        return stats is not None and stats.min == stats.max and not stats.nonfinite

    def pairs(self) -> list[str]:
        """Return the names on both sides that are not settled, and count them as settled."""
        names = [name for name in self.left if name in self.right]
        self.settle(names, names)
        return names

    def alone(self) -> Iterator[Entry]:
        """Yield what nothing was found for."""
        for name in self.left:
            yield Entry("only-here", here=(name,), note=self.note("there", name))
        for name in self.right:
            yield Entry("only-there", there=(name,), note=self.note("here", name))

    def note(self, side: str, name: str) -> str | None:
        """Say what bears the name on the other side, if anything does."""
        other = self.taken.get((side, name))
        return None if other is None else f"what bears its name {side} is {other} on this side"


def _by_digest(
    header: Mapping[str, TensorSpec], known: Mapping[str, str]
) -> dict[tuple[str, str], list[str]]:
    """Group names by dtype and digest; what is empty has nothing to be known by."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, spec in header.items():
        if spec.numel and name in known:
            groups.setdefault((spec.dtype, known[name]), []).append(name)
    return groups
