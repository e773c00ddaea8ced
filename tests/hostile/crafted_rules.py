"""Rule and bundle files that no honest author writes, each made by a function without arguments."""

from collections.abc import Callable
from typing import TypeAlias

Case: TypeAlias = Callable[[], str]

HEAD = "format: 1\nmodel: evil\ntitle: t\norigin: o\ndtypes: [F32]\n"
RULE = "rules:\n  - {from: a, to: {b: [1]}}\n"
NAMES = [f"n{number}" for number in range(8)]
REFUSED_SIZE = 256 << 10
LONG = 30_000  # a rule file may be eight times as long, but takes seconds to read


def filled(head: str, line: Callable[[int], str], share: int = 1) -> str:
    """A text of very many lines."""
    lines, length = [head], len(head)
    while length < LONG // share:
        lines.append(line(len(lines)))
        length += len(lines[-1])
    return "".join(lines)


def indexed(index: str, source: str = "a.{i}.{j}", **fields: str) -> str:
    """A rule file of one rule over some indices."""
    more = "".join(f"    {name}: {value}\n" for name, value in fields.items())
    rule = f'rules:\n  - from: "{source}"\n    to: {{"{source}": [1]}}\n{more}'
    return f"{HEAD}index: {{{index}}}\n{rule}"


def laughing() -> str:
    """Aliases of lists of aliases: nine levels of nine."""
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(["l0: &l0 lol", *levels, ""])


def merging() -> str:
    """Merge keys that double what they merge."""
    levels = [f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}" for n in range(1, 30)]
    return "\n".join(["m0: &m0 {a: 1}", *levels, ""])


def many_sets() -> str:
    """Sets whose product has more members than there are atoms."""
    words = ", ".join(f"w{n}" for n in range(200))
    sets = "".join(f"  s{n}: [{words}]\n" for n in range(40))
    name = ".".join(f"{{s{n}}}" for n in range(40))
    return f'{HEAD}sets:\n{sets}rules:\n  - {{from: "{name}", to: {{"{name}": [1]}}}}\n'


def long_sums() -> str:
    """A shape that sums a long list, many times over, for every value of an index."""
    sums = "+".join(["sum(r)"] * 60)
    rule = f'rules:\n  - {{from: "a.{{i}}", to: {{"a.{{i}}": ["{sums} - i"]}}}}\n'
    return f"{HEAD}dims: {{r: [{', '.join(['1'] * 1000)}]}}\nindex: {{i: 400000}}\n{rule}"


def many_targets() -> str:
    """A rule of very many targets, for every value of an index."""
    head = HEAD + "index: {i: 400000}\nrules:\n  - from: a.{i}\n    to:\n"
    return filled(head, lambda n: f'      "b{n}.{{i}}": [i * {n}]\n')


def many_variants() -> str:
    """Variants each of which costs as much as one rule file may."""
    rule = 'rules: [{from: "{i}", to: {"{i}": [n]}}]\n'
    head = f"{HEAD}dims: {{n: 0}}\nindex: {{i: 400000}}\n{rule}variants:\n  size:\n"
    return filled(head, lambda n: f"    v{n}: {{dims: {{n: {n}}}}}\n", 4)


def doubling() -> str:
    """Steps that double the number of tensors."""
    steps = "".join("      - chunk: {dim: 0, chunks: 2}\n" for _ in range(60))
    return f"{HEAD}rules:\n  - from: a\n    steps:\n{steps}    to: {{b: [1]}}\n"


RULES: dict[str, Case] = {
    "a billion laughs": lambda: HEAD + laughing() + RULE,
    "doubling merge keys": lambda: HEAD + merging() + RULE,
    "flow nested deeply": lambda: HEAD + "dims: {a: " + "[" * 50_000 + "\n" + RULE,
    "blocks nested deeply": lambda: HEAD + "".join("  " * n + "a:\n" for n in range(400)) + RULE,
    "dims nested deeply": lambda: (
        HEAD
        + f"dims: {{a: {'[' * 29}1{']' * 29}}}\n"
        + "require: [{that: len(a) == 1, because: it is}]\n"
        + RULE
    ),
    "a key twice": lambda: HEAD + "model: twice\n" + RULE,
    "a second document": lambda: HEAD + RULE + "---\n" + HEAD + RULE,
    "an object of Python": lambda: HEAD + "about: !!python/object/apply:os.system [id]\n" + RULE,
    "tower of powers": lambda: HEAD + "derived: {a: 9**9**9}\n" + RULE,
    "powers of powers": lambda: HEAD + f"derived: {{a: {'(' * 60}9{'**64)' * 60}}}\n" + RULE,
    "power in a shape": lambda: HEAD + 'rules: [{from: a, to: {b: ["10**10**10"]}}]\n',
    "number of 100000 digits": lambda: HEAD + f"dims: {{a: {'9' * 100_000}}}\n" + RULE,
    "numbers of 300 digits": lambda: (
        HEAD + f"dims: {{a: [{', '.join(['9' * 300] * 500)}]}}\nderived: {{b: prod(a)}}\n" + RULE
    ),
    "an expression of parentheses": lambda: (
        HEAD + f"derived: {{a: {'(' * 240}1{')' * 240}}}\n" + RULE
    ),
    "an expression of signs": lambda: HEAD + f"derived: {{a: '{'-' * 499}1'}}\n" + RULE,
    "an expression of 100 kB": lambda: HEAD + f"derived: {{a: {'1+' * 50_000}1}}\n" + RULE,
    "code for an expression": lambda: HEAD + 'derived: {a: "__import__(1)"}\n' + RULE,
    "an index without end": lambda: indexed("i: 0..10**12, j: 1"),
    "an index of 10^12": lambda: indexed("i: 1000000000000, j: 1"),
    "a thousand million names": lambda: indexed("i: 40000, j: 40000"),
    "indices that an empty one empties": lambda: indexed(
        "i: 400000, j: 400000, k: 1..0", "a.{i}.{j}.{k}"
    ),
    "indices that never count": lambda: indexed("i: 400000, j: 400000", when="i < 0"),
    "an index that hangs on another": lambda: indexed("i: 400000, j: i"),
    "lists in lists": lambda: indexed("i: 400000, e: 400000", "a.{i}.{e}", gather="e", scatter="e"),
    "a requirement without end": lambda: (
        HEAD
        + "index: {i: 400000, j: 400000}\nrequire: [{that: i + j >= 0, because: it is}]\n"
        + RULE
    ),
    "many requirements without end": lambda: filled(
        HEAD + "index: {i: 500000}\n" + RULE + "require:\n",
        lambda n: f"  - {{that: i + {n} >= 0, because: it is}}\n",
    ),
    "sets without end": many_sets,
    "sums without end": long_sums,
    "targets without end": many_targets,
    "variants without end": many_variants,
    "drops without end": lambda: filled(
        HEAD + "index: {i: 500000}\n" + RULE + "drop:\n",
        lambda n: f'  - {{name: "d{n}.{{i}}", because: it is}}\n',
    ),
    "aliases without end": lambda: filled(
        HEAD + "index: {i: 500000}\n" + RULE + "alias:\n",
        lambda n: f'  - {{name: "d{n}.{{i}}", of: b, because: it is}}\n',
    ),
    "allow_nan without end": lambda: filled(
        HEAD + "index: {i: 500000}\n" + RULE + "allow_nan:\n", lambda n: f'  - "d{n}.{{i}}"\n'
    ),
    "steps that double": doubling,
    "chunks without end": lambda: (
        HEAD
        + "rules:\n  - from: a\n    steps: [chunk: {dim: 0, chunks: 10**15}]\n    to: {b: [1]}\n"
    ),
    "a constant without end": lambda: (
        HEAD + "rules:\n  - steps: [constant: {value: 0, shape: [2**50, 2**50], dtype: F32}]\n"
        "    to: {b: [2**50, 2**50]}\n"
    ),
    "names longer than any": lambda: (
        HEAD + f'rules:\n  - {{from: "{"x" * 100_000}", to: {{b: [1]}}}}\n'
    ),
    "names of thousands of numbers": lambda: (
        HEAD + f'words: {{w: "{"1." * 5000}"}}\nrules:\n  - {{from: "{{w}}", to: {{b: [1]}}}}\n'
    ),
    "targets with escapes": lambda: HEAD + 'rules: [{from: a, to: {"b\\e[2J\\u202e": [1]}}]\n',
    "aliases with escapes": lambda: (
        HEAD + RULE + 'alias: [{name: "b\\e[2J", of: b, because: "\\e[31m"}]\n'
    ),
    "names that are paths": lambda: HEAD + 'rules: [{from: a, to: {"../../b": [1]}}]\n',
    "thousands of unknown fields": lambda: filled(HEAD + RULE, lambda n: f"f{n}: 1\n"),
    "thousands of unknown names": lambda: filled(
        HEAD + f"dims: {{{', '.join(f'dimension_{n}: 1' for n in range(5000))}}}\nrules:\n",
        lambda n: f'  - {{from: "a{n}", to: {{b{n}: [dimension{n}]}}}}\n',
    ),
    "thousands of unknown placeholders": lambda: filled(
        HEAD + "rules:\n", lambda n: f'  - {{from: "{"{a}{b}" * 200}", to: {{b{n}: [1]}}}}\n'
    ),
    "thousands of unknown steps": lambda: filled(
        HEAD + "rules:\n  - from: a\n    to: {b: [1]}\n    steps:\n",
        lambda n: f"      - splat{n}: {{dim: 0}}\n",
    ),
    "thousands of steps with a wrong parameter": lambda: filled(
        HEAD + "rules:\n  - from: a\n    to: {b: [1]}\n    steps:\n",
        lambda n: "      - split: {dim: x y, sizes: [1, z z]}\n",
    ),
    "thousands of dtypes of two kinds": lambda: (
        HEAD.replace("[F32]", f"[{', '.join(f'D{n}, {n}' for n in range(1500))}]") + RULE
    ),
    "thousands of rules for one name": lambda: filled(
        HEAD + "rules:\n", lambda n: "  - {from: a, to: {b: [1]}}\n"
    ),
    "thousands of names for one target": lambda: filled(
        HEAD + "rules:\n", lambda n: f"  - {{from: a{n}, to: {{b: [1]}}}}\n"
    ),
    "thousands of aliases of nothing": lambda: filled(
        HEAD + RULE + "alias:\n", lambda n: f"  - {{name: a{n}, of: c{n}, because: it is}}\n"
    ),
    "a file larger than any": lambda: HEAD + RULE + "#" * (REFUSED_SIZE + 1),
    "not text": lambda: "\x00\x1b[2J",
    "nothing": lambda: "",
}


def bundle(source: str = "{file: a.json}", member: str = "{source: a, model: dit}") -> str:
    """A bundle file of one source and one member."""
    head = "format: 1\nbundle: evil\ntitle: t\n"
    return f"{head}sources:\n  a: {source}\nmembers:\n  m: {member}\n"


BUNDLES: dict[str, Case] = {
    "aliases": lambda: bundle("&x {file: a.json}") + "agree: *x\n",
    "a key twice": lambda: bundle() + "title: t\n",
    "a source elsewhere": lambda: bundle("{file: ../a.json}"),
    "a source by its whole path": lambda: bundle("{file: /etc/passwd}"),
    "a source with a drive": lambda: bundle("{file: 'C:a.json'}"),
    "a source with NUL": lambda: bundle('{file: "a\\0.json"}'),
    "a source with a slash of another kind": lambda: bundle("{file: a\u2215b.json}"),
    "a member elsewhere": lambda: bundle().replace("  m:", "  ../m:"),
    "a member with escapes": lambda: bundle().replace("  m:", '  "m\\e[2J":'),
    "a model with escapes": lambda: bundle(member='{source: a, model: "\\e[2J\\u202e"}'),
    "rules with NUL": lambda: bundle(member='{source: a, rules: "a\\0"}'),
    "rules of a name too long": lambda: bundle(member=f"{{source: a, rules: {'x' * 5000}}}"),
    "rules that are a folder": lambda: bundle(member="{source: a, rules: .}"),
    "rules that are a device": lambda: bundle(member="{source: a, rules: /dev/zero}"),
    "a condition without end": lambda: bundle() + "agree: [{that: m.a**m.a**9, because: it is}]\n",
    "a condition that is code": lambda: bundle() + "agree: [{that: m.a(1), because: it is}]\n",
    "thousands of members": lambda: filled(
        bundle(), lambda n: f"  m{n}: {{source: a, model: dit}}\n"
    ),
    "thousands of sources": lambda: filled(
        bundle().partition("members")[0], lambda n: f"  a{n}: {{file: a{n}.json}}\n"
    ),
    "thousands of conditions": lambda: filled(
        bundle() + "agree:\n", lambda n: f"  - {{that: m.a{n} == x.b{n}, because: it is}}\n"
    ),
}
