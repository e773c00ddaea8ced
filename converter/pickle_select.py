"""Which of a pickle's tensors are meant, and that each is plain and within its storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from converter.errors import SourceError
from converter.finding import Finding, closest
from converter.fold import fold_findings
from converter.header import check_name, parse_spec
from converter.pickle_archive import Member
from converter.pickle_process import Answer, Other, View
from converter.spec import DTYPES, Shape, TensorSpec

# What torch calls the dtypes of safetensors, without its name before them.
SAFETENSORS_DTYPES: Mapping[str, str] = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}
# Shared storage may make the result larger than the source, within reason.
MAX_GROWTH = 64
_LISTED = 12


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor to import: its first element is at byte ``begin``, its last one ends at ``end``.

    Strides are in elements, as many as dims.
    """

    name: str
    spec: TensorSpec
    strides: Shape
    storage: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Shared:
    """Tensors of one storage that have bytes in common; each is written in full."""

    names: tuple[str, ...]
    stored_bytes: int
    written_bytes: int


@dataclass(frozen=True, slots=True)
class Selection:
    """What is imported, what is left out and of what kind it is, and what several names share."""

    unwrapped: str
    pieces: tuple[Piece, ...]
    left_out: Mapping[str, str]
    shared: tuple[Shared, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all values in bytes."""
        return sum(piece.spec.nbytes for piece in self.pieces)


def select(
    answer: Answer, storages: Mapping[int, Member], *, unwrap: str, bare: bool, where: str
) -> Selection:
    """Choose the tensors below ``unwrap``, a dotted path, and check each; all, if it is empty.

    ``bare`` allows that there is no such subtree, and the tensors lie at the top. Raises
    SourceError, with every finding, unless all that is chosen are plain tensors within their
    storages, and all that is not is outside of a subtree that was named.
    """
    items: tuple[View | Other, ...] = (*answer.tensors, *answer.others)
    if bare and all(_below(item.path, unwrap) is None for item in items):
        unwrap = ""
    named = [(_below(item.path, unwrap), item) for item in items]
    views = [(name, item) for name, item in named if name and isinstance(item, View)]
    odd = [item for name, item in named if name and isinstance(item, Other)]
    if odd:
        raise _below_named(odd, unwrap, where) if unwrap else _not_alone(items, where)
    if not views:
        raise _no_tensors(items, unwrap, where)
    pieces, findings = _pieces(views, storages, where)
    if findings:
        raise SourceError.of(fold_findings(findings))
    _check_growth(pieces, storages, where)
    left = _entries((item for name, item in named if not name), beside=unwrap)
    return Selection(unwrap, pieces, left, tuple(_shared(pieces)))


def _below(path: Sequence[str], unwrap: str) -> str | None:
    """Return the dotted name below ``unwrap``; None for what is not below it."""
    if not unwrap:
        return ".".join(path)
    for depth, prefix in enumerate(accumulate(path[:-1], "{}.{}".format), start=1):
        if prefix == unwrap:
            return ".".join(path[depth:])
    return None


def _below_named(odd: Sequence[Other], unwrap: str, where: str) -> SourceError:
    findings = [
        Finding(
            "content",
            "not a plain tensor",
            where=where,
            tensor=".".join(item.path),
            expected=f"nothing but plain tensors below {unwrap}",
            got=item.what,
        )
        for item in odd
    ]
    return SourceError.of(fold_findings(findings))


def _not_alone(items: Sequence[View | Other], where: str) -> SourceError:
    """Return the error that there is more than tensors, and which subtrees hold only these."""
    odd = {
        ".".join(item.path[:depth])
        for item in items
        if isinstance(item, Other)
        for depth in range(len(item.path))
    }
    fit = {}
    for item in items:
        above = accumulate(item.path[:-1], "{}.{}".format)
        first = next((prefix for prefix in above if prefix not in odd), None)
        if first is not None and isinstance(item, View):
            fit[first] = True
    return SourceError(
        "there is more than plain tensors in the file, and nothing is left out by guess",
        code="content",
        where=where,
        expected="nothing but plain tensors, in dicts",
        got=_listing(items),
        hint=f"say which part is meant: --unwrap {' or --unwrap '.join(fit)}" if fit else None,
    )


def _no_tensors(items: Sequence[View | Other], unwrap: str, where: str) -> SourceError:
    subtrees = {".".join(item.path[:depth]) for item in items for depth in range(1, len(item.path))}
    near = closest(unwrap, sorted(subtrees)) if unwrap else None
    return SourceError(
        f"there is nothing below {unwrap!r}" if unwrap else "there is no tensor in the file",
        code="content",
        where=where,
        expected="a dict of tensors",
        got=_listing(items) or "nothing",
        hint=f"did you mean --unwrap {near}?" if near else None,
    )


def _listing(items: Sequence[View | Other]) -> str:
    tops = _entries(items)
    shown = "; ".join(f"{name}: {what}" for name, what in islice(tops.items(), _LISTED))
    return f"{shown}; and {len(tops) - _LISTED} more" if len(tops) > _LISTED else shown


def _entries(items: Iterable[View | Other], beside: str = "") -> dict[str, str]:
    """Return what there is ``beside`` a subtree, at each level above it, and what it is or holds.

    Without a subtree these are the entries at the top of the file.
    """
    inside: dict[str, list[View | Other]] = {}
    for item in items:
        prefixes = accumulate(item.path, "{}.{}".format)
        apart = (prefix for prefix in prefixes if not f"{beside}.".startswith(f"{prefix}."))
        name = next(apart, ".".join(item.path))
        inside.setdefault(name, []).append(item)
    return {name: _held(name, found) for name, found in inside.items()}


def _held(name: str, found: Sequence[View | Other]) -> str:
    first = found[0]
    if ".".join(first.path) == name:
        return first.what if isinstance(first, Other) else "a tensor"
    tensors = sum(isinstance(item, View) for item in found)
    others = len(found) - tensors
    text = f"a dict with {tensors:,} tensor{'' if tensors == 1 else 's'}"
    return f"{text} and {others:,} other value{'' if others == 1 else 's'}" if others else text


def _pieces(
    views: Sequence[tuple[str, View]], storages: Mapping[int, Member], where: str
) -> tuple[tuple[Piece, ...], list[Finding]]:
    pieces: dict[str, Piece] = {}
    findings: list[Finding] = []
    for name, view in views:
        try:
            check_name(name, where=where)
            piece = _piece(name, view, storages, where)
        except SourceError as error:
            findings += error.findings
            continue
        if name in pieces:
            what = "two tensors of one name, once nested names are joined by dots"
            findings.append(Finding("content", what, where=where, tensor=name))
        pieces[name] = piece
    return tuple(pieces.values()), findings


def _piece(name: str, view: View, storages: Mapping[int, Member], where: str) -> Piece:
    """Check one tensor against the storage that it says it has. Raises SourceError."""
    if view.dtype not in SAFETENSORS_DTYPES:
        expected = f"one of {' '.join(SAFETENSORS_DTYPES)}"
        raise _unfit("a dtype that safetensors does not have", name, where, expected, view.dtype)
    spec = parse_spec(name, SAFETENSORS_DTYPES[view.dtype], [*view.shape], where=where)
    extent = storages.get(view.storage)
    if extent is None or len(view.strides) != len(view.shape):
        raise _unfit(
            "a tensor without values in the file", name, where, "values of its own", "none"
        )
    if view.storage_bytes not in (None, extent.size_bytes):
        expected = f"{view.storage_bytes:,} bytes, as the pickle says"
        got = f"{extent.size_bytes:,} bytes"
        raise _unfit("a storage of another size", name, where, expected, got)
    item = DTYPES[spec.dtype].bits // 8
    if spec.numel == 0:
        return Piece(name, spec, view.strides, view.storage, extent.begin, extent.begin)
    if not _elements_apart(view):
        expected = "a value of its own for every element"
        got = f"shape {[*view.shape]}, strides {[*view.strides]}"
        raise _unfit("a tensor that repeats its values", name, where, expected, got)
    last = sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True))
    begin = extent.begin + view.offset * item
    end = begin + (last + 1) * item
    if end > extent.end:
        expected = f"at most {extent.size_bytes:,} bytes of storage"
        got = f"{end - extent.begin:,} bytes"
        raise _unfit("a tensor that reaches out of its storage", name, where, expected, got)
    return Piece(name, spec, view.strides, view.storage, begin, end)


def _unfit(what: str, name: str, where: str, expected: str, got: str) -> SourceError:
    return SourceError(
        what, code="tensor-kind", where=where, tensor=name, expected=expected, got=got
    )


def _elements_apart(view: View) -> bool:
    """Whether no two elements can be the same: every stride is beyond what smaller ones reach."""
    reach = 0
    for stride, n in sorted(zip(view.strides, view.shape, strict=True)):
        if n > 1:
            if stride <= reach:
                return False
            reach += stride * (n - 1)
    return True


def _check_growth(pieces: Sequence[Piece], storages: Mapping[int, Member], where: str) -> None:
    used = {piece.storage for piece in pieces}
    stored = sum(storages[number].size_bytes for number in used)
    size = sum(piece.spec.nbytes for piece in pieces)
    if size > MAX_GROWTH * stored:
        raise SourceError(
            "a few values stand for very many",
            code="content",
            where=where,
            expected=f"at most {MAX_GROWTH} names for one value",
            got=f"{size:,} bytes to write for {stored:,} bytes in the file",
        )


def _shared(pieces: Sequence[Piece]) -> Iterator[Shared]:
    """Yield the groups of tensors whose bytes overlap."""
    ordered = sorted((p for p in pieces if p.begin < p.end), key=lambda p: (p.begin, p.end))
    group: list[Piece] = []
    end = 0
    for piece in ordered:
        if group and piece.begin >= end:
            yield from _group(group)
            group = []
        group.append(piece)
        end = max(end, piece.end)
    yield from _group(group)


def _group(group: Sequence[Piece]) -> Iterator[Shared]:
    if len(group) > 1:
        span = max(piece.end for piece in group) - group[0].begin
        size = sum(piece.spec.nbytes for piece in group)
        yield Shared(tuple(piece.name for piece in group), span, size)
