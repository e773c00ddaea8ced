"""What lies in a clone before a page of docs/ is followed, and what a test changes in its text.

Pages speak of published checkpoints and of GPUs; a test follows them with small checkpoints, on
the CPU. Every such difference is declared here, and none of them is in an output that is compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from random_sources import make_sources
from safetensors.torch import load_file

from converter import api, resources
from converter.rules import strict_yaml

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


def _nothing(folder: Path) -> None:
    """Leave the clone as it is."""


@dataclass(frozen=True)
class Setup:
    """How a page is followed.

    ``prepare`` is given the clone; ``replaced`` is text of the page and what stands in for it, on
    as many lines, so that the lines of errors are those of the page.
    """

    prepare: Callable[[Path], None] = _nothing
    replaced: Mapping[str, str] = field(default_factory=dict)

    def changed(self, text: str) -> str:
        """Return the text of a page as it is followed."""
        for words, others in self.replaced.items():
            assert words in text, f"the page says nothing of {words!r}"
            assert words.count("\n") == others.count("\n")
            text = text.replace(words, others)
        return text


def _dims(model: str) -> Path:
    return ROOT / "tests" / "models" / model / "golden-dims.yaml"


def _convert(model: str, source: Path, out: Path, **options: Any) -> None:
    api.convert(source, out, model=model, dims=_document(_dims(model)), **options)


def _document(path: Path) -> Any:
    return strict_yaml.parse(path.read_bytes(), path.name).value


def make_dit(folder: Path) -> None:
    """Make ``dit.safetensors``, which has two other models too, and ``converted/dit``."""
    source = folder / "dit.safetensors"
    shutil.copy(GOLDEN / "s2mel" / "checkpoint.safetensors", source)
    _convert("dit", source, folder / "converted" / "dit", source_prefix="net.")


def make_gpt2(folder: Path) -> None:
    """Make ``gpt2.safetensors`` and ``converted/gpt2``."""
    source = folder / "gpt2.safetensors"
    shutil.copy(GOLDEN / "gpt2-hub-layout" / "checkpoint.safetensors", source)
    _convert("gpt2", source, folder / "converted" / "gpt2")


def make_published(folder: Path) -> None:
    """Make ``published``, what soprano is published as, but small, and ``small.yaml``, its dims."""
    dims = {"lm": _document(_dims("soprano-lm")), "decoder": _document(_dims("soprano-decoder"))}
    dims["decoder"]["input"] = dims["lm"]["hidden"]
    stated = {f"{word}.{dim}": n for word, of in dims.items() for dim, n in of.items()}
    (folder / "small.yaml").write_text("".join(f"{dim}: {n}\n" for dim, n in stated.items()))
    text = resources.bundle_file("soprano").read_text("utf-8")
    for word, of in dims.items():
        text = text.replace(f"model: soprano-{word}", f"model: soprano-{word}, dims: {_flow(of)}")
    bundle = folder / "random.yaml"
    bundle.write_text(text)
    for path in make_sources(bundle, folder / "published"):
        if path.stem == "decoder":
            torch.save(load_file(path), path.with_suffix(".pth"))
            path.unlink()


def _flow(mapping: Mapping[str, Any]) -> str:
    """Return a mapping of plain values in YAML, on one line."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in mapping.items()) + "}"


def make_s2mel(folder: Path) -> None:
    """Make ``s2mel.pth``, as training code saves it, beside what ``make_published`` makes."""
    make_published(folder)
    tensors = load_file(GOLDEN / "s2mel" / "checkpoint.safetensors")
    net = {name.removeprefix("net."): tensor for name, tensor in tensors.items()}
    states = [{"step": torch.tensor(1.0), "exp_avg": tensor} for tensor in net.values()]
    torch.save({"net": net, "optimizer": [states], "iters": 1}, folder / "s2mel.pth")


def make_runtime(folder: Path) -> None:
    """Make what the page on the runtime loads, and a module of the user's own."""
    make_dit(folder)
    given = 'from converter.runtime import load_model\n\nmy_module = load_model("converted/dit")\n'
    (folder / "given.py").write_text(given)
    dims = {"layers": 1, "hidden": 384, "heads": 12, "ffn": 1536, "vocab": 14000}
    bundle = folder / "random.yaml"
    bundle.write_text(
        "format: 1\nbundle: random\ntitle: random\nsources: {one: {file: one.safetensors}}\n"
        f"members: {{one: {{source: one, model: bert, dims: {_flow(dims)}}}}}\n"
    )
    (source,) = make_sources(bundle, folder)
    api.convert(source, folder / "converted" / "all-minilm-l6-v2", model="bert", dims=dims)


def make_scale(folder: Path) -> None:
    """Make a checkpoint to be cut in files, and what ranks load."""
    make_dit(folder)
    (folder / "in").mkdir()
    shutil.copy(
        GOLDEN / "gpt2-hub-layout" / "checkpoint.safetensors", folder / "in" / "model.safetensors"
    )
    given = (
        "import warnings\n\nfrom converter.runtime import load_model\n\n"
        'warnings.filterwarnings("ignore", "torch.distributed is disabled")\n'
        'model, rank, ranks = load_model("converted/dit"), 1, 2\n'
    )
    (folder / "given.py").write_text(given)


ON_CPU = {'device="cuda"': 'device="cpu"'}
SMALL_BUNDLE = {"soprano checkpoints/": "soprano --dims small.yaml checkpoints/"}

SETUPS: Mapping[str, Setup] = {
    "bundles.md": Setup(make_published, {**ON_CPU, **SMALL_BUNDLE}),
    "canonical-format.md": Setup(),
    "checkpoints.md": Setup(),
    "ci.md": Setup(make_dit),
    "import.md": Setup(make_s2mel, SMALL_BUNDLE),
    "reverse.md": Setup(make_gpt2),
    "rules.md": Setup(),
    "runtime.md": Setup(
        make_runtime,
        {**ON_CPU, "\nload_into(my_module": "\nfrom given import my_module; load_into(my_module"},
    ),
    "scale.md": Setup(
        make_scale,
        {
            **ON_CPU,
            "--model gpt2": f"--model gpt2 --dims {_dims('gpt2').relative_to(ROOT)}",
            "5GB": "50kB",
            '"/shared/dit"': '"converted/dit"',
            "\nstate = model": "\nfrom given import model; state = model",
            "\ntensors = load_slices": "\nfrom given import rank, ranks; tensors = load_slices",
        },
    ),
    "signing.md": Setup(make_dit),
}
