"""Pages are followed as they say: what they print is compared, and what is variable is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from doc_pages import Command, File, differs, follow, follow_text, read_page, renewed, run

PAGE = """\
Text with `$ no command`.

```sh
exit 9
```

```console
$ echo one
one
$ cat <<'X'
> two
> X
two
```

```yaml file=a/b.yaml
k: v
```
"""


def test_a_page_is_read_in_order() -> None:
    assert read_page(PAGE) == [
        Command("echo one", "one", 8),
        Command("cat <<'X'\ntwo\nX", "two", 10),
        File("a/b.yaml", "k: v\n", 17),
    ]


@pytest.mark.parametrize("text", ["```console\nno command\n```", "```console\n```", "```sh\n"])
def test_a_page_that_cannot_be_followed_is_refused(text: str) -> None:
    with pytest.raises(AssertionError):
        read_page(text)


def test_commands_share_a_shell_and_the_exit_code_of_the_one_before(tmp_path: Path) -> None:
    steps: list[Command | File] = [
        Command("mkdir d && cd d && x=5", "", 1),
        File("f.txt", "held\n", 2),
        Command("cat f.txt; echo $x; pwd", "", 3),
        Command("sh -c 'echo wrong >&2; exit 3'", "", 4),
        Command("echo $?", "", 5),
    ]
    printed = [text for _, text in run(steps, tmp_path)]
    assert printed == ["", f"held\n5\n{tmp_path}/d\n".replace(f"{tmp_path}/", ""), "wrong\n", "3\n"]


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a\nb", "a\nb\n", True),
        ("a\nb", "a\nc\n", False),
        ("a", "a\nb\n", False),
        ("a\nb", "a\n", False),
        ("", "", True),
        ("", "a\n", False),
        ("a … c", "a b b c\n", True),
        ("a … c", "a b\nc\n", False),
        ("a\n…\nc", "a\nb\nb\nc\n", True),
        ("a\n…\nc", "a\nc\n", True),
        ("a\n…", "a\nb\n", True),
        ("…\nc", "a\nb\n", False),
        ("took 1.5 s", "took 20.25 s\n", True),
        ("took 1.5 s", "took long\n", False),
        ("at 3.1 MB/s", "at 812 kB/s\n", True),
        ("sha256 " + "a" * 64, "sha256 " + "0" * 64 + "\n", True),
        ("sha256 " + "a" * 64, "sha256 " + "0" * 63 + "\n", False),
        ("off by 1.4e-06", "off by 2.1e-07\n", True),
        ("off by 1.4e-06", "off by 2.1e-02\n", False),
        ("a.c", "abc\n", False),
    ],
)
def test_what_is_printed_is_compared_but_for_what_is_variable(
    expected: str, printed: str, same: bool
) -> None:
    assert (differs(expected, printed) is None) is same


def test_blocks_to_run_are_run_and_are_wrong_when_they_fail(tmp_path: Path) -> None:
    good = "```sh run\necho one > made\ngrep -q one made\n```\n"
    good += "```python run\nfrom pathlib import Path\n\nprint(Path('made').read_text())\n```\n"
    assert follow_text("page.md", good, tmp_path) == 2
    for bad in ("```sh run\nfalse\ntrue\n```", "```python run\nx = 1\nassert x == 2\n```"):
        with pytest.raises(AssertionError, match="failed:"):
            follow_text("page.md", bad, tmp_path)


def test_a_page_that_is_wrong_is_told_with_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo one\none\n$ echo two\nthree\n```\n")
    (tmp_path / "clone").mkdir()
    with pytest.raises(AssertionError, match=r"page\.md:4: \$ echo two"):
        follow(page, tmp_path / "clone")


def test_a_clone_has_what_the_checkout_has(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ ls rules/gpt2.yaml converted\nrules/gpt2.yaml\n\nconverted:\n```\n"
    )
    (tmp_path / "clone").mkdir()
    assert follow(page, tmp_path / "clone") == 1


def test_a_page_is_renewed_where_it_is_wrong_and_only_there(tmp_path: Path) -> None:
    page = (
        "```console\n$ echo one two\none …\n$ printf 'a\\n\\nb\\n'\nc\n$ true\ngone\n```\nText.\n"
    )
    assert renewed(page, tmp_path) == (
        "```console\n$ echo one two\none …\n$ printf 'a\\n\\nb\\n'\na\n\nb\n$ true\n```\nText.\n"
    )
