"""Make the pictures in docs/images anew: ``python docs/make_screenshots.py [NAME …]``.

Pictures of a terminal are SVG, made from what the real commands write to a terminal; pictures of a
page are taken by a headless Chromium. They show the real all-MiniLM-L6-v2, which ``make demo``
fetches, a damaged copy of it, and models whose headers or small originals the tests have.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
sys.path[:0] = [str(ROOT / "tests" / "browser"), str(ROOT / "examples")]
CONVERT = Path(sys.executable).with_name("convert")

_THEME = TerminalTheme(
    background=(22, 26, 32),
    foreground=(222, 227, 234),
    normal=[
        (60, 68, 80),
        (255, 123, 114),
        (111, 207, 151),
        (236, 188, 102),
        (121, 172, 255),
        (214, 156, 255),
        (98, 205, 218),
        (222, 227, 234),
    ],
    bright=[
        (130, 140, 155),
        (255, 150, 140),
        (140, 225, 170),
        (245, 205, 130),
        (150, 190, 255),
        (225, 180, 255),
        (130, 220, 230),
        (255, 255, 255),
    ],
)
# As rich's own, without the fonts that it would fetch.
_SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas,
"DejaVu Sans Mono", monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: system-ui, sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


@dataclass(frozen=True)
class Terminal:
    """A command as one types it, in a terminal of so many columns; its exit code is known."""

    arguments: str
    columns: int
    exit_code: int = 0
    most_lines: int = 60


TERMINALS: Mapping[str, Terminal] = {
    "inspect": Terminal("inspect minilm.safetensors", 104),
    "plan": Terminal("plan --model gpt2 --table gpt2.json", 146),
    "failing-convert": Terminal("--model bert damaged.safetensors out/", 104, 5),
}


def main() -> None:
    """Make all pictures, or those that are named."""
    pages: dict[str, Callable[[Path], None]] = {"report": make_report, "lineage": make_lineage}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *TERMINALS, *pages], metavar="NAME")
    names = parser.parse_args().names or [*TERMINALS, *pages]
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for name in names:
            if name in TERMINALS:
                make_terminal(name, TERMINALS[name], Path(folder))
            else:
                pages[name](Path(folder))


def prepare(folder: Path) -> None:
    """Put the checkpoints that the commands read into a folder."""
    import demo
    from safetensors.numpy import load_file, save_file

    os.chdir(ROOT)
    print(demo.fetch())
    (folder / "minilm.safetensors").symlink_to(ROOT / demo.CHECKPOINT)
    (folder / "gpt2.json").symlink_to(ROOT / "tests/headers/gpt2.json")
    tensors = load_file(demo.CHECKPOINT)
    layer = "encoder.layer"
    del tensors[f"{layer}.3.attention.self.key.weight"]
    tensors[f"{layer}.5.output.dense.weights"] = tensors.pop(f"{layer}.5.output.dense.weight")
    transposed = tensors[f"{layer}.0.intermediate.dense.weight"].T.copy()
    tensors[f"{layer}.0.intermediate.dense.weight"] = transposed
    save_file(tensors, folder / "damaged.safetensors")


def make_terminal(name: str, terminal: Terminal, folder: Path) -> None:
    """Run a command in a terminal, and draw what is in it."""
    text, exit_code = in_terminal(
        [str(CONVERT), *shlex.split(terminal.arguments)], folder, terminal.columns
    )
    assert exit_code == terminal.exit_code, f"{name} left with {exit_code}:\n{text}"
    shown = text.rpartition("\x1b[2K")[2]  # what was before, as a bar of progress, was erased
    lines = shown.replace(f"{ROOT}/", "").rstrip().splitlines()
    if len(lines) > terminal.most_lines:
        lines = [*lines[: terminal.most_lines], "…"]
    console = Console(
        record=True,
        width=terminal.columns,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    typed = Text(f"$ convert {terminal.arguments}", style="bold")
    console.print(typed)
    for line in lines:
        console.print(Text.from_ansi(line), no_wrap=True, crop=False, soft_wrap=True)
    if exit_code:
        console.print(Text("$ echo $?", style="bold"))
        console.print(Text(str(exit_code)))
    console.print()
    svg = console.export_svg(title="", theme=_THEME, code_format=_SVG, unique_id=f"terminal-{name}")
    write(f"{name}.svg", "\n".join(line.rstrip() for line in svg.splitlines()).encode() + b"\n")


def in_terminal(command: list[str], folder: Path, columns: int) -> tuple[str, int]:
    """Return what a command writes to a terminal of so many columns, and its exit code."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 200, columns, 0, 0))
    environment = {
        **{key: value for key, value in os.environ.items() if key in ("PATH", "HOME")},
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }
    process = subprocess.Popen(
        command, cwd=folder, stdin=its, stdout=its, stderr=its, env=environment
    )
    os.close(its)
    written = b""
    while True:
        try:
            data = os.read(ours, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            break
        if not data:
            break
        written += data
    os.close(ours)
    return written.decode().replace("\r\n", "\n"), process.wait()


def make_report(folder: Path) -> None:
    """Take pictures of the page about the real model, on a desk and on a phone."""
    from converter import api

    api.convert(folder / "minilm.safetensors", folder / "minilm", model="bert")
    page = api.report(folder / "minilm", folder / "report.html", level="full", values=True).out
    take("report-desk", page, 1120, 800)
    take("report-weights", page, 1120, 1180, section="#weights")
    take("report-phone", page, 390, 844, scale=1.5)
    take("report-night", page, 1120, 610, section="#weights", dark=True)


def make_lineage(folder: Path) -> None:
    """Take pictures of the lineage of a model with steps on its edges."""
    from converter import api
    from converter.dims import read_dims

    api.convert(
        ROOT / "tests/golden/s2mel/checkpoint.safetensors",
        folder / "dit",
        model="dit",
        source_prefix="net.",
        dims=read_dims(ROOT / "tests/models/dit/golden-dims.yaml", ()),
    )
    page = api.report(folder / "dit", folder / "dit.html").out
    take("report-lineage", page, 1120, 1000, section="#lineage")
    take("report-lineage-phone", page, 390, 844, section="#lineage", scale=1.5)


def take(
    name: str,
    page: Path,
    width: int,
    height: int,
    *,
    section: str | None = None,
    scale: float = 1,
    dark: bool = False,
) -> None:
    """Take a picture of the beginning of a page, or of a section of it."""
    import chromium

    program = chromium.find()
    assert program is not None, "no Chromium is found; on Debian: apt-get install chromium"
    with chromium.opened(program) as browser:
        browser.size(width, height, scale=scale, mobile=width < 700)
        browser.dark(on=dark)
        browser.open(page)
        top = 0.0
        if section is not None:
            top = browser.evaluate(f"document.querySelector('{section}').getBoundingClientRect().y")
        png = browser.screenshot(top=top, height=height)
    write(f"{name}.png", smaller(png))


def smaller(png: bytes) -> bytes:
    """Return the same picture, packed as well as can be."""
    from PIL import Image

    into = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(into, "PNG", optimize=True)
    return into.getvalue()


def write(name: str, data: bytes) -> None:
    """Write a picture, and say how large it is."""
    (IMAGES / name).write_bytes(data)
    print(f"{IMAGES.relative_to(ROOT)}/{name}: {len(data) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
