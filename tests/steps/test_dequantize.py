import ml_dtypes
import numpy as np
import pytest

from converter.errors import RuleError, StepError, ValueRefusedError
from converter.numpy_dtypes import NUMPY_DTYPES
from converter.spec import TensorSpec
from converter.steps import dequantize
from converter.steps.chain import apply_chain
from converter.steps.dequantize import Dequantize
from converter.steps.step import Array


def by_loops(weight: Array, scale: Array, block: tuple[int, int]) -> list[list[float]]:
    """Multiply every element by the scale of the block that it lies in."""
    rows, columns = weight.shape
    return [
        [float(weight[r, c]) * float(scale[r // block[0], c // block[1]]) for c in range(columns)]
        for r in range(rows)
    ]


@pytest.mark.parametrize("name", ["F8_E4M3", "F8_E5M2", "I8", "U8"])
@pytest.mark.parametrize("shape", [(256, 256), (300, 200), (1, 129), (127, 1)])
def test_blocks_of_128_by_128_are_multiplied_by_their_scales_the_last_cut_short(
    name: str, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 100, shape).astype(NUMPY_DTYPES[name])
    scale = rng.random((-(-shape[0] // 128), -(-shape[1] // 128)), np.float32)
    (made,) = Dequantize(block=(128, 128), dtype="F32").apply([weight, scale])
    expected = by_loops(weight.astype(np.float64), scale.astype(np.float64), (128, 128))
    assert made.dtype == np.float32
    assert made.tolist() == np.array(expected).astype(np.float32).tolist()


@pytest.mark.parametrize(
    ("block", "shape"),
    [
        ((1, 4), (3, 1)),
        ((1, 4), (3,)),
        ((3, 1), (1, 4)),
        ((3, 1), (4,)),
        ((3, 4), (1, 1)),
        ((3, 4), (1,)),
        ((3, 4), ()),
        ((128, 128), ()),
    ],
)
def test_scales_per_row_per_column_and_for_all_may_lack_dims_of_one_block(
    block: tuple[int, int], shape: tuple[int, ...]
) -> None:
    weight = np.arange(12, dtype=np.int8).reshape(3, 4)
    scale = (np.arange(np.prod(shape, dtype=int)) + 1).astype(np.float32).reshape(shape)
    step = Dequantize(block=block, dtype="F32")
    assert step.infer((TensorSpec("I8", (3, 4)), TensorSpec("F32", shape))) == (
        TensorSpec("F32", (3, 4)),
    )
    blocks = tuple(-(-size // part) for size, part in zip((3, 4), block, strict=True))
    (made,) = step.apply([weight, scale])
    assert made.tolist() == by_loops(weight.astype(np.float64), scale.reshape(blocks), block)


def test_the_zero_point_is_taken_away_first() -> None:
    weight, zero = np.array([[0, 128, 255]], np.uint8), np.array([128], np.uint8)
    scale = np.array([0.5], np.float32)
    (made,) = Dequantize(block=(1, 3), dtype="BF16").apply([weight, scale, zero])
    assert made.dtype == ml_dtypes.bfloat16
    assert made.astype(np.float64).tolist() == [[-64.0, 0.0, 63.5]]


def test_scales_that_are_powers_of_two_alone_are_taken() -> None:
    scale = np.array([0.25, 4], ml_dtypes.float8_e8m0fnu)
    weight = np.array([[1, 2], [3, 4]], ml_dtypes.float8_e4m3fn)
    (made,) = Dequantize(block=(1, 2), dtype="F32").apply([weight, scale])
    assert made.tolist() == [[0.25, 0.5], [12, 16]]


def test_the_rows_taken_at_a_time_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.arange(35, dtype=np.int8).reshape(7, 5)
    scale = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    step = Dequantize(block=(2, 2), dtype="F16")
    (whole,) = step.apply([weight, scale])
    monkeypatch.setattr(dequantize, "_BLOCK_ELEMENTS", 1)
    (by_row,) = step.apply([weight, scale])
    assert whole.tobytes() == by_row.tobytes()


@pytest.mark.parametrize("name", ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "I8", "U8"])
@pytest.mark.parametrize("zero", [False, True])
def test_every_byte_becomes_the_same_alone_and_by_a_table(
    name: str, zero: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = np.arange(256, dtype=np.uint8)
    weight = np.tile(every, (8, 4)).view(NUMPY_DTYPES[name])
    scale = np.array([[0.1, 1.7], [0.003, 2.0]], np.float32)
    points = [np.array([[1, 2], [3, 4]], np.uint8)] * zero
    step = Dequantize(block=(4, 512), dtype="BF16")
    assert step._tables(weight, [scale, *points]) is not None
    (by_table,) = apply_chain([step], [weight, scale, *points])
    monkeypatch.setattr(dequantize, "_CODES", weight.size)
    assert step._tables(weight, [scale, *points]) is None
    (alone,) = apply_chain([step], [weight, scale, *points])
    assert by_table.tobytes() == alone.tobytes()


def test_a_byte_that_would_overflow_is_refused_only_where_it_is() -> None:
    scale = np.array([[1000]], np.float32)
    step = Dequantize(block=(32, 32), dtype="F16")
    weight = np.ones((32, 32), np.int8)
    (made,) = step.apply([weight, scale])
    assert made.max() == 1000
    weight[3, 4] = 100
    with pytest.raises(ValueRefusedError, match="1 of 1024 values overflow F16"):
        step.apply([weight, scale])


def test_a_result_beyond_the_dtype_is_refused() -> None:
    weight, scale = np.array([[127, 1]], np.int8), np.array(1000, np.float32)
    with pytest.raises(ValueRefusedError, match="1 of 2 values overflow F16"):
        Dequantize(block=(1, 2), dtype="F16").apply([weight, scale])


WEIGHT, SCALE = TensorSpec("F8_E4M3", (300, 256)), TensorSpec("F32", (3, 2))


@pytest.mark.parametrize(
    ("inputs", "what"),
    [
        ((WEIGHT,), "not a weight and its scale"),
        ((WEIGHT, SCALE, SCALE, SCALE), "not a weight and its scale"),
        ((WEIGHT, TensorSpec("F32", (2, 2))), "the scale is not one number for each block"),
        ((WEIGHT, TensorSpec("F32", (2, 3))), "the scale is not one number for each block"),
        ((WEIGHT, SCALE, TensorSpec("U8", (6,))), "the zero point is not one number"),
        ((WEIGHT, TensorSpec("I32", (3, 2))), "no scale is of I32"),
        ((TensorSpec("I64", (300, 256)), SCALE), "no weight is of I64"),
        ((TensorSpec("F8_E4M3", (300,)), SCALE), "blocks of 2 dims"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(inputs: tuple[TensorSpec, ...], what: str) -> None:
    with pytest.raises(StepError, match=what):
        Dequantize(block=(128, 128), dtype="BF16").infer(inputs)


def test_blocks_and_dtypes_that_mean_nothing_are_refused() -> None:
    with pytest.raises(RuleError, match="a block of no elements"):
        Dequantize(block=(128, 0), dtype="BF16")
    with pytest.raises(RuleError, match="I8 is no float"):
        Dequantize(block=(1,), dtype="I8")
    with pytest.raises(RuleError, match="no dtype of numbers"):
        Dequantize(block=(1,), dtype="float32")
