"""One table over all models: each golden original, converted and run, against what it computed.

``make parity`` prints it, and fails when a model does. ``make parity ARGS=--mutants`` makes, in
each model in turn, every mistake that its tests know, and fails when one is not seen.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conversion_fixture import convert_golden
from golden_conformer import compare_conformer
from golden_gpt import compare_gpt
from golden_gpt2 import compare_gpt2
from golden_gpt_neox import compare_gpt_neox
from golden_perceiver import compare_perceiver
from golden_soprano_decoder import compare_soprano_decoder
from golden_soprano_lm import compare_soprano_lm
from golden_wav2vec_bert import compare_wav2vec_bert
from golden_whisper import compare_whisper
from mutants import Mutant, gelu_tanh, ignored, replaced, swapped, transposed, with_epsilon
from oracle_bigvgan import bigvgan_outputs
from oracle_campplus import campplus_outputs
from oracle_s2mel import gpt_layer_outputs, length_regulator_outputs
from oracle_semantic_codec import semantic_codec_outputs
from parity import Difference, compare, compare_bert, compare_dit
from reference_weights import Tensors, golden_tensors
from safetensors.torch import save_file
from test_wav2vec_bert_stats import HIDDEN, HIDDEN_STATE, STATISTICS
from torch import nn

from converter import api
from converter.runtime import load_model
from converter.sheet import columns

Compare = Callable[[Any, Tensors], list[Difference]]

Row = tuple[str, ...]

PARITY_HEAD: Row = ("model", "golden", "compared", "largest", "of the bound", "of tensor", "")
MUTANT_HEAD: Row = ("model", "mistake", "tensors beyond", "of the bound", "")
S2MEL_TOLERANCE = 2e-5
TOLERANCE = 1e-5
BERT_MUTANTS: dict[str, Mutant] = {
    "query and key swapped": swapped("layers.0.attention.q_proj", "layers.0.attention.k_proj"),
    "norms swapped": swapped("layers.0.attention_norm", "layers.0.ffn_norm"),
    "norm without weight": ignored("layers.0.ffn_norm"),
    "key transposed": transposed("layers.1.attention.k_proj.weight"),
    "pooler transposed": transposed("pooler.dense.weight"),
    "eps 1e-2": with_epsilon(1e-2),
    "gelu by tanh": replaced("gelu", gelu_tanh),
    "silu for gelu": replaced("gelu", F.silu),
}


@dataclass(frozen=True)
class Case:
    """A model, the golden original that it is held against, and how it is converted and run."""

    model: str
    golden: str = ""
    compare: Compare = lambda network, golden: []
    options: Mapping[str, Any] = field(default_factory=dict)
    mutants: str | Mapping[str, Mutant] = ""  # or the test module that has them

    def __str__(self) -> str:
        variant = ", ".join(self.options.get("variant", ()))
        return f"{self.model} ({variant})" if variant else self.model

    def convert(self, out: Path) -> Path:
        """Convert the golden checkpoint as a user does."""
        return convert_golden(out, self.golden, self.model, **self.options)

    def differences(self, network: nn.Module) -> list[Difference]:
        """Run a network and compare all that was recorded."""
        return self.compare(network, golden_tensors(self.golden))

    def known_mutants(self) -> Mapping[str, Mutant]:
        """Return the mistakes that the tests of the model make."""
        if not isinstance(self.mutants, str):
            return self.mutants
        found: Mapping[str, Mutant] = importlib.import_module(self.mutants).MUTANTS
        return found


@dataclass(frozen=True)
class ClosedForm(Case):
    """The statistics, which have no golden: their closed form is their proof."""

    def convert(self, out: Path) -> Path:
        """Convert statistics of the published range."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "stats.safetensors")
            save_file(STATISTICS, source)
            api.convert(source, out, model=self.model, dims={"hidden": HIDDEN})
        return out

    def differences(self, network: nn.Module) -> list[Difference]:
        """Compare the normalised features with their closed form in float64."""
        mean, var = (STATISTICS[name].double() for name in ("mean", "var"))
        expected = (HIDDEN_STATE.double() - mean) / var.sqrt()
        return compare({"closed form": network(HIDDEN_STATE)}, {"closed form": expected}, TOLERANCE)

    def known_mutants(self) -> Mapping[str, Mutant]:
        """Return the other statistics of the tests, each put in place of the true ones."""
        others: Mapping[str, Tensors] = importlib.import_module(str(self.mutants)).MUTANTS
        return {name: partial(_put, tensors) for name, tensors in others.items()}


@dataclass(frozen=True)
class ByWeights(Case):
    """A model whose tests change weights by name, before a network has them."""

    def known_mutants(self) -> Mapping[str, Mutant]:
        """Return the same changes, made to the weights of a network."""
        changes = importlib.import_module(str(self.mutants)).MUTANTS
        return {name: partial(_change, change) for name, change in changes.items()}


def _put(tensors: Tensors, network: nn.Module, _: pytest.MonkeyPatch) -> None:
    network.load_state_dict(tensors)


def _change(change: Callable[[Tensors], None], network: nn.Module, _: pytest.MonkeyPatch) -> None:
    weights = dict(network.state_dict())
    change(weights)
    network.load_state_dict(weights, assign=True)


def _recorded(outputs: Callable[[Any, Tensors], Tensors], tolerance: float) -> Compare:
    """Return the comparison of all that ``outputs`` gives and that was recorded."""

    def compared(network: Any, golden: Tensors) -> list[Difference]:
        got = outputs(network, golden)
        recorded = {name: tensor for name, tensor in golden.items() if name in got}
        return compare(got, recorded, tolerance)

    return compared


def _s2mel(part: str) -> dict[str, str]:
    return {"scope": f"net.{part}."}


CASES: tuple[Case, ...] = (
    Case("bert", "bert", compare_bert, {"variant": ["legacy", "pretraining"]}, BERT_MUTANTS),
    Case(
        "bigvgan",
        "bigvgan",
        _recorded(bigvgan_outputs, TOLERANCE),
        mutants="test_bigvgan",
    ),
    Case("campplus", "campplus", _recorded(campplus_outputs, TOLERANCE), mutants="test_campplus"),
    Case("conformer", "conformer", compare_conformer, {"scope": ""}, "golden_conformer"),
    ByWeights("dit", "s2mel", compare_dit, _s2mel("cfm.estimator"), "test_dit"),
    Case("gpt", "gpt", compare_gpt, mutants="test_gpt"),
    Case(
        "gpt-layer",
        "s2mel",
        _recorded(gpt_layer_outputs, S2MEL_TOLERANCE),
        _s2mel("gpt_layer"),
        "test_gpt_layer",
    ),
    Case("gpt2", "gpt2", compare_gpt2, {"variant": ["saved"]}, "test_gpt2"),
    Case("gpt2", "gpt2-hub-layout", compare_gpt2, {"variant": ["hub"]}),
    Case("gpt-neox", "gpt-neox", compare_gpt_neox, mutants="test_gpt_neox"),
    Case(
        "gpt-neox",
        "gpt-neox-sequential",
        compare_gpt_neox,
        {"dims": "golden-sequential-dims", "variant": ["sequential", "gpt-neox-20b"]},
    ),
    Case(
        "length-regulator",
        "s2mel",
        _recorded(length_regulator_outputs, S2MEL_TOLERANCE),
        _s2mel("length_regulator"),
        "test_length_regulator",
    ),
    Case("perceiver", "perceiver", compare_perceiver, {"scope": ""}, "golden_perceiver"),
    Case(
        "semantic-codec",
        "semantic_codec",
        _recorded(semantic_codec_outputs, TOLERANCE),
        {"variant": ["full"]},
        "test_semantic_codec",
    ),
    Case(
        "semantic-codec",
        "semantic_codec",
        _recorded(semantic_codec_outputs, TOLERANCE),
        {"variant": ["inference"]},
    ),
    Case(
        "soprano-decoder",
        "soprano-decoder",
        compare_soprano_decoder,
        mutants="test_soprano_decoder",
    ),
    Case("soprano-lm", "soprano-lm", compare_soprano_lm, mutants="test_soprano_lm"),
    Case(
        "wav2vec-bert",
        "wav2vec-bert",
        compare_wav2vec_bert,
        {"variant": ["full"]},
        "golden_wav2vec_bert",
    ),
    Case(
        "wav2vec-bert",
        "wav2vec-bert",
        compare_wav2vec_bert,
        {"variant": ["layers-17"], "dims": "golden-layers-17-dims"},
    ),
    ClosedForm("wav2vec-bert-stats", mutants="test_wav2vec_bert_stats"),
    Case("whisper", "whisper", compare_whisper, {"variant": ["hub"]}, "test_whisper"),
    Case(
        "whisper",
        "whisper-openai-layout",
        compare_whisper,
        {"variant": ["openai"], "dims": "golden-openai-dims"},
    ),
)


def loaded(case: Case, folder: Path) -> nn.Module:
    """Convert a case once, and load it anew."""
    out = folder / str(case)
    if not out.exists():
        case.convert(out)
    return load_model(out, check="full")


@torch.no_grad()
def parity_rows(cases: Sequence[Case], folder: Path) -> Iterator[Row]:
    """Yield a row per case; the last cell is the verdict."""
    for case in cases:
        found = case.differences(loaded(case, folder))
        worst = max(found, key=_share, default=Difference("nothing", float("inf"), 0))
        yield (
            str(case),
            case.golden or "closed form",
            str(len(found)),
            f"{worst.largest:.1e}",
            f"{_share(worst):.1%}",
            worst.name,
            "holds" if found and all(d.holds for d in found) else "FAILS",
        )


@torch.no_grad()
def mutant_rows(cases: Sequence[Case], folder: Path) -> Iterator[Row]:
    """Yield a row per mutant; it is seen when some tensor is beyond its bound."""
    for case in cases:
        for name, mutate in case.known_mutants().items() if case.mutants else ():
            network = loaded(case, folder)
            with pytest.MonkeyPatch.context() as monkeypatch:
                mutate(network, monkeypatch)
                found = case.differences(network)
            beyond = [difference for difference in found if not difference.holds]
            share = max(map(_share, found))
            verdict = "caught" if beyond else "MISSED"
            yield str(case), name, f"{len(beyond)} of {len(found)}", f"{share:.1e}×", verdict


def _share(difference: Difference) -> float:
    """Return which part of the bound a difference is; NaN is beyond all."""
    share = difference.largest / difference.allowed if difference.allowed else float("inf")
    return share if share == share else float("inf")


def main(arguments: Sequence[str]) -> int:
    """Print a table; return 1 when something in it fails."""
    parser = argparse.ArgumentParser(prog="make parity", description=__doc__)
    parser.add_argument("models", nargs="*", help="only these models")
    parser.add_argument("--mutants", action="store_true", help="make mistakes, and see them caught")
    chosen = parser.parse_args(arguments)
    if unknown := {*chosen.models} - {case.model for case in CASES}:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    cases = [case for case in CASES if not chosen.models or case.model in chosen.models]
    head = MUTANT_HEAD if chosen.mutants else PARITY_HEAD
    make = mutant_rows if chosen.mutants else parity_rows
    with tempfile.TemporaryDirectory() as folder:
        rows = list(make(cases, Path(folder)))
    print(columns([head, *rows]))
    wrong = sum(row[-1] in ("FAILS", "MISSED") for row in rows)
    print(f"\n{len(rows)} rows, {wrong} of them wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
