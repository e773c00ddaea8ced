"""A rule file begun from a checkpoint's header: it states what the header shows, and asks the rest.

Every tensor is in exactly one rule, with its shape over dims. What a tensor becomes is left open
as ``"?"``, which lint refuses; what names and shapes suggest stands in comments and is never acted
on.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from converter.errors import PlanError, SourceError
from converter.finding import Finding
from converter.fold import fold_names
from converter.rules.strict_yaml import MAX_BYTES
from converter.rules.undecided import OPEN
from converter.scaffold_facts import facts
from converter.scaffold_fold import Pattern, fold_header
from converter.scaffold_names import Named, name_all
from converter.scaffold_target import Candidates, candidates
from converter.source.ranked import RANKS_SUFFIX
from converter.spec import DTYPES, Header, Shape

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./{}+* -]*(?<! )")
_NOT_TEXT = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
_IN_NO_NAME = re.compile(r"[{}*\s]")
_COMMENT_CHARS = 110
_MOST_COUNTED = 524_288  # names that a rule file may have

HEAD = """\
# Begun from {origin}: {tensors} in {rules}, each tensor in one of them.
# What the header shows is filled in. What only you know is "?": say what each tensor becomes, with
# steps where it changes, or move it to drop, with the reason. Comments are what names and shapes
# suggest, which is no proof. `convert lint` names what is left to decide.
"""
TAIL = """\
# What no shape shows, and a network relies on: which elements rope turns, epsilons, activations.
# The vocabulary is in the schema of rule files.
# conventions: {norm_eps: 1e-5}
"""
RANKED = """\
# Each tensor is one of several ranks: gather lists them in order, and merge_shards says along which
# dim each holds a part, or replicated: true. The shape under "?" is that of a part.
"""


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The text of a rule file, and what there was to say and to ask."""

    model: str
    text: str
    tensors: int
    patterns: int
    dims: Mapping[str, int]
    undecided: int


def scaffold(
    header: Header,
    *,
    model: str,
    origin: str,
    scope: str = "",
    target: Mapping[str, Shape] | None = None,
    schema: str | None = None,
) -> Scaffold:
    """Begin a rule file for the tensors of ``header`` whose names begin with ``scope``.

    ``target`` is names and shapes of what they may become; ``schema`` is where an editor finds the
    schema. Raises SourceError where nothing is in scope, PlanError for names that the rule language
    cannot write and for a header that does not fold into a file of its size.
    """
    held = {name.removeprefix(scope): s for name, s in header.items() if name.startswith(scope)}
    _check(held, origin, scope)
    patterns = fold_header(held)
    named = name_all(patterns)
    accepted = _accepted(patterns)
    proposals = None if target is None else candidates(patterns, target)
    lines = [
        *([f"# yaml-language-server: $schema={schema}"] if schema else []),
        *HEAD.format(
            origin=_comment(origin),
            tensors=_counted(len(held), "tensor"),
            rules=_counted(len(patterns), "rule"),
        ).splitlines(),
        "format: 1",
        f"model: {_scalar(model)}",
        f'title: "{OPEN}"',
        f"origin: {_scalar(origin)}",
        *([f"scope: {_scalar(scope)}"] if scope else []),
        f"dtypes: [{', '.join(accepted)}]",
        "",
        *_declarations(named),
        *TAIL.splitlines(),
        "",
        *(RANKED.splitlines() if origin.endswith(RANKS_SUFFIX) else []),
        "rules:",
        *_rules(patterns, named, accepted, proposals),
    ]
    if proposals and proposals.left:
        lines += ["# Of the target, of no shape that the source has:"]
        lines += [f"#   {_comment(name)}" for name in proposals.left]
    text = "\n".join(lines) + "\n"
    _check_size(text, patterns, origin)
    return Scaffold(model, text, len(held), len(patterns), named.dims, len(patterns) + 1)


def _check(header: Header, origin: str, scope: str) -> None:
    if not header:
        raise SourceError(
            "there is nothing to begin a rule file from",
            code="empty",
            where=origin,
            expected=f"tensors whose names begin with {scope!r}" if scope else "tensors",
            got="none",
        )
    if strange := [name for name in header if not name or _IN_NO_NAME.search(name)]:
        raise PlanError.of(
            [
                Finding(
                    "name",
                    "a rule cannot write this name",
                    origin,
                    tensor=", ".join(fold_names(strange)),
                    expected="names without blanks, braces and asterisks, longer than the scope",
                    got=_counted(len(strange), "other name"),
                    hint="rename the tensors first",
                )
            ]
        )


def _check_size(text: str, patterns: Sequence[Pattern], origin: str) -> None:
    if len(text.encode()) > MAX_BYTES or sum(p.count for p in patterns) > _MOST_COUNTED:
        raise PlanError(
            "the names do not fold into a rule file",
            code="scaffold-size",
            where=origin,
            expected=f"at most {MAX_BYTES:,} bytes and {_MOST_COUNTED:,} names",
            got=f"{len(text.encode()):,} bytes of {_counted(len(patterns), 'rule')}",
            hint="begin with a part of it: --scope PREFIX",
        )


def _accepted(patterns: Sequence[Pattern]) -> list[str]:
    """Return the floating dtypes of the file, the commonest first; without any, all."""
    times: Counter[str] = Counter()
    for pattern in patterns:
        times.update(dict.fromkeys(pattern.dtypes, pattern.count))
    ordered = sorted(times, key=lambda dtype: (-times[dtype], dtype))
    return [dtype for dtype in ordered if DTYPES[dtype].kind == "float"] or ordered


def _declarations(named: Named) -> Iterator[str]:
    if named.dims:
        yield "dims:"
        width = max(len(f"{name}: {value}") for name, value in named.dims.items())
        for name, value in named.dims.items():
            multiple = named.multiples(value) if name == named.sizes.get(value) else ""
            line = f"{name}: {value}"
            yield f"  {line:<{width}}  # {multiple}" if multiple else f"  {line}"
    if named.index:
        yield "index:"
        yield from (f"  {letter}: {bounds}" for letter, bounds in named.index.items())
    if named.dims or named.index:
        yield ""


def _rules(
    patterns: Sequence[Pattern],
    named: Named,
    accepted: Sequence[str],
    proposals: Candidates | None,
) -> Iterator[str]:
    shown = facts(patterns)
    for number, pattern in enumerate(patterns):
        yield f"  - from: {_scalar(named.template(pattern))}"
        proposed = proposals.proposed[number] if proposals else ()
        for remark in (*shown[number], *proposed):
            yield from (f"    # {line}" for line in textwrap.wrap(remark, _COMMENT_CHARS))
        if own := named.own_index(pattern):
            pairs = ", ".join(f"{letter}: {bounds}" for letter, bounds in own.items())
            yield f"    index: {{{pairs}}}"
        if not set(pattern.dtypes) <= set(accepted):
            yield f"    dtypes: [{', '.join(pattern.dtypes)}]"
        yield "    to:"
        yield f'      "{OPEN}": {named.shape(pattern)}'


def _scalar(text: str) -> str:
    """Return text as a YAML scalar that reads as that text."""
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _NOT_TEXT
    return text if plain else json.dumps(text, ensure_ascii=False)


def _comment(text: str) -> str:
    return " ".join(text.split())


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
