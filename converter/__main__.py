"""``python -m converter`` is the command line."""

from converter.cli import main

main(prog_name="convert")
