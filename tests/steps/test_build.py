import subprocess
import sys

import pytest

from converter.errors import RuleError
from converter.steps import STEPS, SUGAR
from converter.steps.build import build, build_all, parameters
from converter.steps.concat import Concat
from converter.steps.split import Split
from converter.steps.step import step_parameters
from converter.steps.transpose import Transpose

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
from converter.spec import TensorSpec
from converter.steps.build import build
from converter.steps.chain import infer_chain, preimage_chain
steps = (
    build("fold_weight_norm", {"dim": 0}),
    build("cast", {"dtype": "BF16"}),
    build("chunk", {"dim": 0, "chunks": 2}),
)
print(*infer_chain(steps, (TensorSpec("F32", (4, 1)), TensorSpec("F32", (4, 3)))))
print(preimage_chain(steps, ((2, 3), (2, 3)), sources=2))
"""


def test_a_step_is_built_from_the_values_of_its_fields() -> None:
    assert build("split", {"dim": 0, "sizes": [4, 2]}) == Split(dim=0, sizes=(4, 2))


def test_a_field_with_a_default_may_be_left_out() -> None:
    assert build("transpose", {}) == Transpose(dims=(0, 1))


def test_the_fields_of_a_step_have_kinds() -> None:
    assert parameters("constant") == {"value": "number", "shape": "integers", "dtype": "dtype"}
    assert parameters("slice")["because"] == "text"
    assert parameters("rearrange") == {"pattern": "text", "sizes": "sizes"}
    assert parameters("merge_shards") == {"dim": "integer", "replicated": "flag"}
    assert parameters("interleave")["stop"] == "integer"


def test_a_field_that_python_keeps_for_itself_goes_by_its_word() -> None:
    kinds = parameters("permute_rope")
    assert kinds["from"] == kinds["to"] == "word"
    given = {"from": "interleaved", "to": "half_split", "heads": 1, "head_dim": 2}
    assert len(build_all("permute_rope", given)) == 3


def test_a_mapping_of_sizes_is_kept_and_stated_again() -> None:
    given = {"pattern": "(a b) -> b a", "sizes": {"a": 2}}
    assert step_parameters(build("rearrange", given)) == given
    assert step_parameters(build("rearrange", {"pattern": "a b -> b a"})) == {
        "pattern": "a b -> b a"
    }


def test_a_short_way_is_no_step_but_stands_for_some() -> None:
    with pytest.raises(RuleError, match="unknown step 'split_qkv'"):
        build("split_qkv", {})
    assert build_all("merge_shards", {"dim": 1}) == (Concat(dim=1),)
    assert build_all("transpose", {}) == (Transpose(),)
    with pytest.raises(RuleError, match="unknown step 'fuse_kvq'") as caught:
        build_all("fuse_kvq", {})
    assert "transpose" in str(caught.value.findings[0].expected)


@pytest.mark.parametrize(
    "given", [{}, {"dim": 0, "replicated": True}, {"replicated": False}, {"dim": -1}]
)
def test_shards_are_merged_along_a_dim_or_are_replicas(given: dict[str, object]) -> None:
    with pytest.raises(RuleError, match=r"how the ranks hold the tensor|a negative dim"):
        build_all("merge_shards", given)


@pytest.mark.parametrize("name", SUGAR)
def test_every_short_way_is_in_the_table_under_its_name_and_has_kinds(name: str) -> None:
    assert SUGAR[name].name == name
    assert all(parameters(name).values())


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_in_the_table_under_its_name_and_has_kinds(name: str) -> None:
    assert STEPS[name].name == name
    assert all(parameters(name).values())


def test_an_unknown_step_is_refused_with_the_nearest() -> None:
    with pytest.raises(RuleError, match="unknown step 'tranpose'") as caught:
        build("tranpose", {})
    assert caught.value.findings[0].hint == "did you mean 'transpose'?"


def test_an_unknown_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(RuleError, match="chunk: unknown field 'chunk'") as caught:
        build("chunk", {"dim": 0, "chunks": 2, "chunk": 2})
    assert caught.value.findings[0].hint == "did you mean 'chunks'?"


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(RuleError, match="split: sizes is missing"):
        build("split", {"dim": 0})


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("squeeze", {"dim": "0"}, "an integer"),
        ("squeeze", {"dim": 0.0}, "an integer"),
        ("squeeze", {"dim": True}, "an integer"),
        ("permute", {"dims": 0}, "a list of integers"),
        ("permute", {"dims": [0, "1"]}, "a list of integers"),
        ("constant", {"value": "0", "shape": [], "dtype": "F32"}, "a number"),
        ("slice", {"dim": 0, "start": 0, "stop": 1, "because": 1}, "text"),
        ("rearrange", {"pattern": "a -> a", "sizes": [1]}, "names, each with an integer"),
        ("rearrange", {"pattern": "a -> a", "sizes": {"a": "1"}}, "names, each with an integer"),
        ("scale", {"by": True}, "a number"),
        ("merge_shards", {"replicated": 1}, "true or false"),
        ("interleave", {"dim": 0, "groups": 1, "stop": None}, "an integer"),
        (
            "split_qkv",
            {"layout": "by_head", "heads": 1, "head_dim": 1},
            "contiguous or per_head or grouped",
        ),
    ],
)
def test_a_field_of_another_kind_is_refused(
    name: str, params: dict[str, object], expected: str
) -> None:
    with pytest.raises(RuleError) as caught:
        build_all(name, params)
    (finding,) = caught.value.findings
    assert str(finding.expected).startswith(expected)


def test_everything_wrong_with_a_step_is_said_at_once() -> None:
    with pytest.raises(RuleError) as caught:
        build("split", {"dim": "0", "size": [1]})
    assert len(caught.value.findings) == 3


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("split", {"dim": -1, "sizes": [1]}),
        ("chunk", {"dim": -1, "chunks": 2}),
        ("concat", {"dim": -1}),
        ("stack", {"dim": -1}),
        ("unstack", {"dim": -1}),
        ("transpose", {"dims": [0, -1]}),
        ("squeeze", {"dim": -1}),
        ("unsqueeze", {"dim": -1}),
        ("slice", {"dim": -1, "start": 0, "stop": 1, "because": "padding"}),
        ("reorder_chunks", {"dim": -1, "order": [1, 0]}),
        ("fold_weight_norm", {"dim": -1}),
        ("fold_batch_norm", {"dim": -1, "eps": 0}),
        ("pad", {"dim": -1, "before": 0, "after": 0, "value": 0}),
        ("flip", {"dim": -1}),
    ],
)
def test_a_negative_dim_is_refused_with_a_hint(name: str, params: dict[str, object]) -> None:
    with pytest.raises(RuleError, match="a negative dim") as caught:
        build(name, params)
    assert caught.value.findings[0].hint == "count dims from the front: the last of three is 2"


def test_building_and_planning_need_neither_torch_nor_numpy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False
    )
    assert done.stdout == "BF16 [2, 3] BF16 [2, 3]\n((4, 1), (4, 3))\n", done.stderr
