"""What an author or a user may have meant. Said in messages only; never acted on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable

from converter.finding import closest
from converter.fold import fold_names, skeleton

_SAMPLE = 20
_SHOWN = 3
_MOST_COMPARED = 20_000  # pairs of names; beyond it likeness would take seconds to find
# What speaks of options, and how it speaks of a bundle, which has others.
_OF_BUNDLES = (
    (r"add --source-prefix (?=\S)", "add --source-prefix {source}="),
    (r"leave --source-prefix out", "give --source-prefix {source}="),
    (r"add --scope (\S+)", r"give {member} the scope \1 in the bundle file"),
    (r"use --scope", "give {member} a scope in the bundle file"),
    (r"--set or --dims", "--set {member}.DIM=N"),
    (r"no --variant at all", "no variant in the bundle file"),
    (r"with --variant (\S+)", r"with the variant \1 in the bundle file"),
    (r"(a|and|choose with) --variant", r"\1 variant in the bundle file"),
)
_PADDING = re.compile(r"(?<![0-9])0+(?=[0-9])")


def option_hint(
    expected: Collection[str], found: Collection[str], *, scope: str, source_prefix: str
) -> str | None:
    """Say which option would make the expected names fit a source that has none of them.

    ``source_prefix`` and then ``scope`` are what the expected names begin with.
    """
    expected = [name.removeprefix(source_prefix) for name in expected]
    if source_prefix and any(name in found for name in expected):
        return f"the names fit without {source_prefix!r}: leave --source-prefix out"
    prefix = _common_prefix(expected, found)
    if prefix and all(name.startswith(prefix) for name in found):
        return f"the names of the source begin with {prefix!r}: add --source-prefix {prefix}"
    if prefix:
        return f"such names of the source begin with {prefix!r}: add --scope {prefix}{scope}"
    bare = [name.removeprefix(scope) for name in expected]
    if scope and any(name in found for name in bare):
        return f"the names of the source are bare, without {scope!r}: add --scope ''"
    other = _common_prefix(bare, found)
    if scope and other:
        return f"the names of the source begin with {other!r}, not {scope!r}: add --scope {other}"
    return None


def for_bundle(hint: str, *, member: str, source: str) -> str:
    """Return a hint as the member of a bundle needs it, whose options are other ones."""
    for words, instead in _OF_BUNDLES:
        hint = re.sub(words, instead.format(member=member, source=source), hint)
    return hint


def _common_prefix(expected: Iterable[str], found: Collection[str]) -> str | None:
    """Return the text that, put before most expected names, makes names that are found."""
    sample = sorted(expected, key=len, reverse=True)[:_SAMPLE]
    prefixes = Counter(
        name[: -len(wanted)]
        for wanted in sample
        for name in found
        if name.endswith(wanted) and name != wanted
    )
    best = prefixes.most_common(1)
    return best[0][0] if best and best[0][1] * 2 > len(sample) else None


def neighbour_hints(
    expected: Iterable[str], missing: Iterable[str], unexpected: Iterable[str]
) -> dict[str, str]:
    """Say of missing names what the source has instead, and of unexpected ones what rules name.

    Names that differ in their numbers only share one hint. Returns name → hint, for those names
    that have one.
    """
    wanted, absent, stray = map(_by_skeleton, (expected, missing, unexpected))
    hints: dict[str, str] = {}
    for shape, names in absent.items():
        near = shape if shape in stray else _near(shape, absent, stray)
        # What is nearer to another missing name is no hint for this one.
        if near is not None and (near == shape or _near(near, stray, absent) == shape):
            hint = f"the source has {_pattern(stray[near])}, which no rule names"
            hints.update(dict.fromkeys(names, hint))
    for shape, names in stray.items():
        unpadded = skeleton(_PADDING.sub("", names[0]))
        if shape in wanted:
            hint = f"the rules name {_pattern(wanted[shape])}: set the dim if the model has more"
        elif unpadded in wanted:
            hint = f"the rules name {_pattern(wanted[unpadded])}, without leading zeros"
        elif (near := _near(shape, stray, wanted)) is not None:
            hint = f"the rules name {_pattern(wanted[near])}"
        else:
            continue
        hints.update(dict.fromkeys(names, hint))
    return hints


def _by_skeleton(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(skeleton(name), []).append(name)
    return groups


def _near(shape: str, here: Collection[str], there: Collection[str]) -> str | None:
    return closest(shape, there) if len(here) * len(there) <= _MOST_COMPARED else None


def _pattern(names: Iterable[str]) -> str:
    patterns = fold_names(names)
    shown = ", ".join(map(repr, patterns[:_SHOWN]))
    return f"{shown} and others" if len(patterns) > _SHOWN else shown
