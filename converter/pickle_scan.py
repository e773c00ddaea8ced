"""Looking through a pickle without carrying out any of it, for all that a plain one never asks.

Stricter than torch's restricted unpickler, which looks again: what makes tensors that are not plain
is refused too, and what is refused is named before anything is made of the pickle.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from converter.errors import SourceError

_MAGIC = 0x1950A86A20F9469CFC6C

_NUMBERS = (
    "Double",
    "Float",
    "Half",
    "Long",
    "Int",
    "Short",
    "Char",
    "Byte",
    "Bool",
    "BFloat16",
    "ComplexDouble",
    "ComplexFloat",
)
_DTYPES = (
    *("float16", "float32", "float64", "bfloat16", "complex32", "complex64", "complex128", "bool"),
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    "float4_e2m1fn_x2",
)
# All of them are on torch's own list.
PLAIN_GLOBALS = frozenset(
    [
        "collections OrderedDict",
        "collections Counter",
        "_codecs encode",
        *(f"{module} set" for module in ("builtins", "__builtin__")),
        *(f"{module} complex" for module in ("builtins", "__builtin__")),
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_parameter_with_state",
        "torch._tensor _rebuild_from_type_v2",
        "torch Tensor",
        "torch Size",
        "torch device",
        "torch.nn.parameter Parameter",
        "torch.storage UntypedStorage",
        "torch.storage TypedStorage",
        *(f"torch {name}Storage" for name in _NUMBERS),
        *(f"torch.cuda {name}Storage" for name in _NUMBERS),
        *(f"torch {name}" for name in _DTYPES),
    ]
)
# Those that torch's restricted unpickler knows.
_PLAIN_OPCODES = frozenset(
    [
        *("PROTO", "STOP", "MARK", "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "BINPERSID"),
        *("APPEND", "APPENDS", "SETITEM", "SETITEMS", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "NONE", "NEWFALSE", "NEWTRUE"),
        *("BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "BINUNICODE", "SHORT_BINSTRING"),
        *("BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT"),
    ]
)
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING")
_KINDS = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_qtensor": "a quantized tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor without values",
    "_rebuild_wrapper_subclass": "a tensor of a class of its own",
    "_rebuild_device_tensor_from_numpy": "a tensor of a device that is not known",
    "_rebuild_device_tensor_from_cpu_tensor": "a tensor of a device that is not known",
}
_ADVICE = "in an environment that you trust, save it again: torch.save(model.state_dict(), FILE)"
_NUMPY_ADVICE = (
    "numpy's values need code of numpy; in an environment that you trust, save tensors and plain "
    "numbers in their place"
)


@dataclass(slots=True)
class Scanned:
    """What a pickle mentions: its first long number, its texts, and the storages that it asks for.

    Storages are asked for by the key that follows the text ``storage``.
    """

    number: int | None = None
    texts: list[str] = field(default_factory=list)
    storages: set[str] = field(default_factory=set)


def check_stream(file: IO[bytes]) -> None:
    """Check the pickles that a file of the layout before torch 1.6 begins with.

    Raises SourceError, also where not all storages have values: torch would not set them.
    """
    if check_pickle(file).number != _MAGIC:
        raise _not_torch("a pickle of something else")
    check_pickle(file)  # the protocol
    check_pickle(file)  # the machine
    asked = check_pickle(file).storages
    listed = check_pickle(file).texts
    if len(listed) != len(asked) or {*listed} != asked:
        raise SourceError(
            "not every storage has its values in the file",
            code="pickle",
            expected=f"{len(asked)} storages",
            got=f"{len(listed)}, of which {len(asked.intersection(listed))} are asked for",
            hint="fetch the file again",
        )


def check_pickle(file: IO[bytes]) -> Scanned:
    """Check one pickle and return what it mentions.

    Raises SourceError if it names anything but what plain tensors and plain values are made with,
    or has an instruction that torch's restricted unpickler does not know.
    """
    scanned = Scanned()
    strange: str | None = None
    texts = scanned.texts
    begin = 0  # of the texts of a storage
    try:
        for opcode, argument in _instructions(file):
            if opcode in _TEXTS:
                begin = len(texts) + 1 if argument == "storage" else begin
                texts.append(str(argument))
            elif opcode in ("GLOBAL", "INST"):
                _check_global(str(argument), near=texts[-1] if texts else "")
            elif opcode == "STACK_GLOBAL":
                _check_global(" ".join(texts[-2:]))
            elif opcode == "BINPERSID":
                scanned.storages.update(texts[begin : begin + 1])
            elif opcode == "LONG1" and isinstance(argument, int) and scanned.number is None:
                scanned.number = argument
            if opcode not in _PLAIN_OPCODES and strange is None:
                strange = opcode
    except ValueError as error:
        raise _not_torch(f"a broken pickle: {error}"[:200]) from error
    if strange is not None:
        raise SourceError(
            "the pickle has an instruction that torch's restricted loader does not know",
            code="pickle",
            expected="pickle protocol 2, as torch.save has it",
            got=strange,
            hint=_ADVICE,
        )
    return scanned


def _instructions(file: IO[bytes]) -> Iterator[tuple[str, object]]:
    """Yield name and argument of every instruction; of one that recalls a text, as that text."""
    memo: dict[object, str] = {}
    last: str | None = None
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            if last is not None:
                memo[len(memo) if name == "MEMOIZE" else argument] = last
        elif name in _TEXTS:
            last = str(argument)
        elif name in ("BINGET", "LONG_BINGET", "GET") and argument in memo:
            name, argument = "BINUNICODE", memo[argument]
            last = None
        else:
            last = None
        yield name, argument


def _check_global(asked: str, near: str = "") -> None:
    if asked in PLAIN_GLOBALS:
        return
    module, _, name = asked.rpartition(" ")
    if (kind := _kind(module, name)) is not None:
        raise SourceError(
            f"the file holds {kind}",
            code="tensor-kind",
            tensor=near or None,
            expected="plain tensors: dense, strided, with values of their own",
            got=f"{module}.{name}",
            hint="make it plain before it is saved",
        )
    raise SourceError(
        "the pickle asks for code, which is never run here",
        code="pickle-code",
        expected="nothing but tensors, dicts, lists, numbers and text",
        got=f"{module}.{name}",
        hint=_NUMPY_ADVICE if module.partition(".")[0] == "numpy" else _ADVICE,
    )


def _kind(module: str, name: str) -> str | None:
    """Return what kind of tensor a global of torch makes, if it is not a plain one."""
    if module == "torch._utils":
        return _KINDS.get(name)
    is_quantized = module in ("torch", "torch.cuda") and name.startswith(("Q", "q"))
    return "a quantized tensor" if is_quantized else None


def _not_torch(got: str) -> SourceError:
    return SourceError(
        "not a checkpoint of torch",
        code="pickle",
        expected="a file that torch.save wrote",
        got=got,
    )
