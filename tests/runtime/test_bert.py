from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from parity import Difference, compare_bert
from reference_weights import (
    BERT_CONVENTIONS,
    BERT_DIMS,
    Tensors,
    bert_dims,
    bert_weights,
    golden_checkpoint,
    golden_tensors,
    header_tensors,
    random_weights,
    record,
)

from converter.errors import UsageError
from converter.runtime.networks import bert

GOLDEN = golden_tensors("bert")
WEIGHTS = bert_weights(golden_checkpoint("bert"))
DIMS = bert_dims("bert", heads=True)
IDS, MASK, TYPES = (
    GOLDEN[f"input.{name}"] for name in ("input_ids", "attention_mask", "token_type_ids")
)


def make(
    weights: Tensors | None = None, *, dims: dict[str, int] | None = None, norm_eps: float = 1e-12
) -> bert.Bert:
    model = record("bert", DIMS | (dims or {}), BERT_CONVENTIONS | {"norm_eps": norm_eps})
    with torch.device("meta"):
        network = bert.build(model)
    assert isinstance(network, bert.Bert)
    network.load_state_dict(weights or random_weights(network), assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def failing(differences: list[Difference]) -> list[Difference]:
    return [difference for difference in differences if not difference.holds]


def test_every_recorded_output_and_intermediate_is_met() -> None:
    differences = compare_bert(make(WEIGHTS), GOLDEN)
    assert len(differences) == 7
    assert not failing(differences)


@pytest.mark.cuda
def test_every_recorded_output_is_met_on_cuda() -> None:
    assert not failing(compare_bert(make(WEIGHTS).to("cuda"), GOLDEN))


def swap(names: tuple[str, str], weights: Tensors) -> None:
    for leaf in ("weight", "bias"):
        first, second = (f"{name}.{leaf}" for name in names)
        weights[first], weights[second] = weights[second], weights[first]


def transpose(name: str, weights: Tensors) -> None:
    weights[name] = weights[name].T


@pytest.mark.parametrize(
    "mutate",
    [
        pytest.param(
            partial(swap, ("layers.0.attention.q_proj", "layers.0.attention.k_proj")),
            id="query and key swapped",
        ),
        pytest.param(
            partial(swap, ("layers.1.attention.v_proj", "layers.1.attention.out_proj")),
            id="value and output projections swapped",
        ),
        pytest.param(
            partial(swap, ("layers.0.attention_norm", "layers.0.ffn_norm")), id="norms swapped"
        ),
        pytest.param(
            partial(swap, ("pooler.dense", "mlm_head.dense")), id="pooler and MLM head swapped"
        ),
        pytest.param(partial(transpose, "pooler.dense.weight"), id="pooler transposed"),
        pytest.param(
            partial(transpose, "layers.1.attention.k_proj.weight"), id="a square matrix transposed"
        ),
    ],
)
def test_weights_in_a_wrong_place_are_seen(mutate: Callable[[Tensors], None]) -> None:
    weights = dict(WEIGHTS)
    mutate(weights)
    assert failing(compare_bert(make(weights), GOLDEN))


def test_another_epsilon_is_seen() -> None:
    assert failing(compare_bert(make(WEIGHTS, norm_eps=1e-2), GOLDEN))


def test_the_tanh_form_of_gelu_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    gelu = torch.nn.functional.gelu
    monkeypatch.setattr(torch.nn.functional, "gelu", partial(gelu, approximate="tanh"))
    assert failing(compare_bert(make(WEIGHTS), GOLDEN))


def test_all_tensors_but_the_key_biases_reach_an_output() -> None:
    # A bias on the keys adds the same to all scores of a query, which softmax takes away.
    def moves_nothing(name: str) -> bool:
        tied = ("token_embedding.weight", "mlm_head.decoder.weight")
        changed = tied if name in tied else (name,)
        moved = {other: WEIGHTS[other] * 1.3 for other in changed}
        return not failing(compare_bert(make(WEIGHTS | moved), GOLDEN))

    dead = {name for name in WEIGHTS if moves_nothing(name)}
    assert dead == {f"layers.{i}.attention.k_proj.bias" for i in range(2)}


def test_padding_does_not_reach_attended_positions() -> None:
    network = make(WEIGHTS)
    padded = network(IDS, MASK, TYPES).last_hidden_state
    length = int(MASK[1].sum())
    assert length < MASK.shape[1]
    alone = network(IDS[1:, :length], None, TYPES[1:, :length]).last_hidden_state
    torch.testing.assert_close(padded[1:, :length], alone)


def test_absent_masks_attend_to_all_and_absent_types_are_zero() -> None:
    network = make(WEIGHTS)
    explicit = network(IDS, torch.ones_like(IDS, dtype=torch.bool), torch.zeros_like(IDS))
    torch.testing.assert_close(network(IDS).mlm_logits, explicit.mlm_logits)


def test_a_sequence_without_attended_tokens_pools_to_zeros() -> None:
    hidden = torch.full((1, 3, 4), torch.nan)
    pooled = bert.mean_pool(hidden, torch.zeros(1, 3, dtype=torch.int64))
    assert torch.equal(pooled, torch.zeros(1, 4))


@pytest.mark.parametrize(
    "present", [{"mlm_head": 0}, {"nsp_head": 0}, {"pooler": 0, "nsp_head": 0}]
)
def test_heads_exist_as_the_dims_say(present: dict[str, int]) -> None:
    network = make(dims=present)
    output = network(IDS)
    for dim, head in (
        ("pooler", output.pooler_output),
        ("mlm_head", output.mlm_logits),
        ("nsp_head", output.nsp_logits),
    ):
        wanted = (DIMS | present)[dim] == 1
        assert (head is not None) == wanted
        assert any(name.startswith(dim) for name in network.state_dict()) == wanted


def test_the_published_size_has_the_tensors_of_its_header() -> None:
    with torch.device("meta"):
        network = bert.build(record("bert", BERT_DIMS, BERT_CONVENTIONS))
    expected = bert_weights(header_tensors("bert-base-uncased"))
    tensors = network.state_dict()
    assert len(tensors) == 206 + 1  # the decoder's weight is stored as the token embedding
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }


def test_the_decoder_and_the_token_embedding_are_one_parameter_when_built() -> None:
    with torch.device("meta"):
        network = bert.build(record("bert", DIMS, BERT_CONVENTIONS))
    names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    unique = [name for name, _ in network.named_parameters()]
    assert set(names) - set(unique) == {"mlm_head.decoder.weight"}
    assert set(names) == set(WEIGHTS)


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_run(layers: int, dtype: torch.dtype) -> None:
    dims = {"layers": layers, "hidden": 24, "heads": 3, "ffn": 20, "vocab": 50, "token_types": 1}
    network = make(dims=dims).to(dtype)
    output = network(IDS % 50, MASK)
    assert output.last_hidden_state.shape == (2, 12, 24)
    assert output.last_hidden_state.dtype == output.mlm_logits.dtype == dtype
    assert output.mlm_logits.shape == (2, 12, 50)
    assert output.mlm_logits.isfinite().all()
    assert bert.mean_pool(output.last_hidden_state, MASK).dtype == torch.float32


@pytest.mark.parametrize(
    ("dims", "what"),
    [
        ({"heads": 5}, "hidden 32 does not make 5 equal heads"),
        ({"heads": 0}, "hidden 32 does not make 0 equal heads"),
        ({"pooler": 0}, "next-sentence head reads the pooler"),
    ],
)
def test_dims_that_do_not_fit_together_are_refused(dims: dict[str, int], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        make(dims=dims)


@pytest.mark.parametrize(
    "inputs",
    [
        (IDS[0],),
        (IDS.repeat(1, 3),),
        (IDS, MASK[:, :-1]),
        (IDS, None, TYPES[:1]),
    ],
    ids=["one dimension", "more tokens than positions", "a shorter mask", "fewer rows of types"],
)
def test_inputs_of_another_shape_are_refused(inputs: tuple[torch.Tensor | None, ...]) -> None:
    with pytest.raises(UsageError, match="shape"):
        make(WEIGHTS)(*inputs)
