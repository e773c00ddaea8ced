"""Integer expressions of rule files: parsed into closures, never evaluated as code.

Grammar: integers, names (``dim``, ``member.dim``), ``+ - * // % **``, parentheses, ``list[i]``,
``len sum prod min max``, comparisons, ``and or not``. A comparison is 1 or 0.
"""

from __future__ import annotations

import ast
import functools
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from converter.errors import RuleError
from converter.finding import closest, listed

Value: TypeAlias = "int | list[Value]"
Values: TypeAlias = Mapping[str, Value]

MAX_LENGTH = 500
_LIMIT = 1 << 62
_ALLOWED = re.compile(r"[A-Za-z0-9_.+\-*/%()\[\],<>=! ]*")
_LIST_WEIGHT = 1000
_SHOWN_CHARS = 200
_BAD_NUMBER = re.compile(r"(?<![A-Za-z0-9_])(?:0[0-9]|[0-9]+[A-Za-z_.])")

_Closure: TypeAlias = Callable[[Values], Any]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "len": lambda items: len(_list(items)),
    "sum": lambda items: sum(_numbers(items)),
    "prod": lambda items: _product(_numbers(items)),
    "min": lambda *items: min(_numbers(*items)),
    "max": lambda *items: max(_numbers(*items)),
}


@dataclass(frozen=True)
class Expression:
    """An expression over named integers and lists of integers.

    ``weight`` is what an evaluation takes at most, in operations.
    """

    text: str
    names: frozenset[str]
    weight: int
    _closure: _Closure

    def evaluate(self, values: Values) -> int:
        """Return the value as an integer.

        Raises RuleError for an unknown name, a list where a number is needed, an index out of
        range, a division by zero, or a result beyond 62 bits.
        """
        result = self._run(values)
        if not isinstance(result, int):
            raise RuleError(
                f"{self.text!r} is a list, not a number",
                code="expression",
                expected="one number, such as that of list[i], len(list) or sum(list)",
                got=f"{result!s:.{_SHOWN_CHARS}}",
            )
        if abs(result) > _LIMIT:
            raise RuleError(
                f"{self.text!r} is too large a number",
                code="expression",
                expected="62 bits",
                got=str(result),
            )
        return int(result)

    def _run(self, values: Values) -> Any:
        try:
            return self._closure(values)
        except KeyError as error:
            name = error.args[0]
            near = closest(str(name), [*values, *_FUNCTIONS])
            raise RuleError(
                f"{name!r} in {self.text!r} is no dim, derived name or index that holds here",
                code="unknown-name",
                expected=listed(values, "none: there are none"),
                got=repr(name),
                hint=f"did you mean {near!r}?" if near else "declare it, or correct the name",
            ) from error
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            known = sorted(self.names & values.keys())
            raise RuleError(
                f"{self.text!r} has no value: {error}",
                code="expression",
                expected="a whole number",
                got=", ".join(f"{name} = {values[name]!s:.{_SHOWN_CHARS}}" for name in known)
                or repr(self.text),
            ) from error


@functools.cache
def parse(text: str) -> Expression:
    """Parse an expression. Raises RuleError for anything outside the grammar."""
    if len(text) > MAX_LENGTH or not _ALLOWED.fullmatch(text) or _BAD_NUMBER.search(text):
        raise _not_an_expression(text)
    names: set[str] = set()
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        closure = _compile(tree, text, names)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise _not_an_expression(text) from error
    weight = sum(_LIST_WEIGHT if isinstance(node, ast.Call) else 1 for node in ast.walk(tree))
    return Expression(text, frozenset(names), weight, closure)


def constant(number: int) -> Expression:
    """Return the expression that is a number."""
    return Expression(str(number), frozenset(), 1, lambda _: number)


def before(length: Expression) -> Expression:
    """Return the expression for the last index of a list of this length."""
    return Expression(
        length.text, length.names, length.weight, lambda values: length.evaluate(values) - 1
    )


def _compile(node: ast.expr, text: str, names: set[str]) -> _Closure:
    """Turn one node into a closure over the values, and note the names it uses."""
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return lambda _: number
        case ast.Name() | ast.Attribute(value=ast.Name()):
            name = ast.unparse(node)
            names.add(name)
            return lambda values: values[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            a, b = _compile(left, text, names), _compile(right, text, names)
            apply = _BINARY[type(op)]
            return lambda values: _bounded(apply, a(values), b(values))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _compile(operand, text, names)
            return lambda values: -_number(inner(values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _compile(operand, text, names)
            return lambda values: not _number(inner(values))
        case ast.BoolOp(op=op, values=parts):
            terms = [_compile(part, text, names) for part in parts]
            decide = all if isinstance(op, ast.And) else any
            return lambda values: decide(_number(term(values)) for term in terms)
        case ast.Compare():
            return _compile_comparison(node, text, names)
        case ast.Subscript(
            value=ast.Name() | ast.Attribute() | ast.Subscript() as target, slice=index
        ):
            items, position = _compile(target, text, names), _compile(index, text, names)
            return lambda values: _item(items(values), position(values))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if (
            name in _FUNCTIONS and (len(arguments) == 1 or (arguments and name in ("min", "max")))
        ):
            function = _FUNCTIONS[name]
            inputs = [_compile(argument, text, names) for argument in arguments]
            return lambda values: function(*(value(values) for value in inputs))
    raise _not_an_expression(text)


def _compile_comparison(node: ast.Compare, text: str, names: set[str]) -> _Closure:
    terms = [_compile(part, text, names) for part in (node.left, *node.comparators)]
    if not all(type(op) in _COMPARE for op in node.ops):
        raise _not_an_expression(text)
    tests = [_COMPARE[type(op)] for op in node.ops]

    def compare(values: Values) -> bool:
        operands = [term(values) for term in terms]
        pairs = zip(tests, operands, operands[1:], strict=False)
        return all(test(*_comparable(test, a, b)) for test, a, b in pairs)

    return compare


def _comparable(test: Callable[[Any, Any], bool], left: Any, right: Any) -> tuple[Any, Any]:
    """Return both operands: numbers, or for equality also two facts, of which one may be none."""
    if test in (operator.eq, operator.ne):
        numbers = all(isinstance(side, int | float) for side in (left, right))
        if numbers or left is None or right is None or type(left) is type(right):
            return left, right
        raise TypeError("they are of different kinds")
    return _number(left), _number(right)


def _bounded(apply: Callable[[Any, Any], Any], left: Any, right: Any) -> int:
    if apply is operator.pow and not 0 <= _number(right) <= 64:
        raise ValueError(f"the exponent {right} is not between 0 and 64")
    result = apply(_number(left), _number(right))
    if abs(result) > _LIMIT:
        raise ValueError("the result does not fit in 62 bits")
    return int(result)


def _item(items: Any, position: Any) -> Any:
    if not 0 <= _number(position) < len(_list(items)):
        raise IndexError(f"index {position} is outside a list of {len(items)}")
    return items[position]


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError("a list is not a number")
    return value


def _numbers(*items: Any) -> list[int]:
    """Return several numbers, or those of one list."""
    return [_number(item) for item in (items if len(items) > 1 else _list(*items))]


def _product(numbers: list[int]) -> int:
    if 0 in numbers:
        return 0
    return functools.reduce(functools.partial(_bounded, operator.mul), numbers, 1)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a number is not a list")
    return value


def _not_an_expression(text: str) -> RuleError:
    return RuleError(
        f"{text!r:.80} is not an integer expression",
        code="expression",
        expected="integers, names, + - * // % **, ( ), list[i], len() sum() prod() min() max(), "
        "comparisons, and or not",
        hint="write // for division" if re.search(r"(?<!/)/(?!/)", text) else None,
    )
