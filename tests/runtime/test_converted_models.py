"""The whole product on bert and dit: rules, conversion, loading and network, to the original."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conversion_fixture import MODELS, failing
from parity import Difference, compare_bert, compare_dit
from reference_weights import (
    GOLDEN,
    bert_weights,
    dit_weights,
    golden_checkpoint,
    golden_tensors,
)
from ulps import assert_near

from converter import api
from converter.dims import read_dims
from converter.runtime import load_model, load_tensors
from converter.runtime.networks.bert import Bert
from converter.runtime.networks.dit import DiT


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "dit"
    source, dims = GOLDEN / "s2mel" / "checkpoint.safetensors", MODELS / "dit" / "golden-dims.yaml"
    api.convert(source, out, model="dit", dims=read_dims(dims, []), source_prefix="net.")
    return out


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "bert"
    source, dims = GOLDEN / "bert" / "checkpoint.safetensors", MODELS / "bert" / "golden-dims.yaml"
    api.convert(source, out, model="bert", variant="legacy,pretraining", dims=read_dims(dims, []))
    return out


def recorded(golden: str, *prefixes: str) -> set[str]:
    return {name for name in golden_tensors(golden) if name.startswith(prefixes)}


def names(differences: list[Difference]) -> set[str]:
    return {difference.name for difference in differences}


def test_a_converted_dit_computes_all_that_the_original_did(dit: Path) -> None:
    network = load_model(dit, check="full")
    assert isinstance(network, DiT)
    differences = compare_dit(network, golden_tensors("s2mel"))
    assert names(differences) == recorded(
        "s2mel", "output.estimator.", "output.cfm", "trace.estimator."
    )
    assert {"output.cfm.mel", "output.cfm_nocfg.mel"} <= names(differences)
    assert not failing(differences)


def test_a_converted_bert_computes_all_that_the_original_did(bert: Path) -> None:
    network = load_model(bert, check="full")
    assert isinstance(network, Bert)
    differences = compare_bert(network, golden_tensors("bert"))
    everything = recorded("bert", "")
    assert names(differences) == everything - recorded("bert", "input.")
    assert not failing(differences)


def test_every_tensor_of_a_converted_dit_is_that_of_the_oracle(dit: Path) -> None:
    """The oracle knows no rule language. What moves data is equal in its bits, a fold is near."""
    tensors = json.loads((dit / "manifest.json").read_text())["tensors"]
    folds = {
        name
        for name, tensor in tensors.items()
        if any("fold_weight_norm" in step for step in tensor.get("steps", []))
    }
    assert len(folds) == 3 + 2 * 3  # x_embedder, cond_layer, final_layer; two in each WaveNet layer
    assert_near(
        load_tensors(dit, check="full"), dit_weights(golden_checkpoint("s2mel")), frozenset(folds)
    )


def test_every_tensor_of_a_converted_bert_is_that_of_the_oracle(bert: Path) -> None:
    loaded = load_tensors(bert, check="full")
    assert_near(loaded, bert_weights(golden_checkpoint("bert")), frozenset())
    assert loaded["mlm_head.decoder.weight"] is loaded["token_embedding.weight"]
