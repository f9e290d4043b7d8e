"""What the library knows of each operator of ONNX and of ONNX Runtime: one table, asked by `having`.

Plain Python: what runs on the device and what reads a trace ask it too. An operator is known by its name alone;
who walks a graph looks at the domain.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Flag, auto
from functools import cache

__all__ = [
    "CONTROL_FLOW",
    "ELEMENTWISE",
    "LINEARS",
    "OPERANDS",
    "PRODUCTS",
    "WEIGHT_PLACES",
    "Fact",
    "having",
]


class Fact(Flag):
    """What is true of an operator."""

    UNARY = auto()
    """Each output value depends on the input value at its place, of the first input."""
    BROADCAST = auto()
    """Each output value depends on the values at its place, of all inputs, as NumPy broadcasts them."""
    NORM = auto()
    """Scales the values along the last axes by their own size; the scale and bias are the next inputs."""
    SOFTMAX = auto()
    """Normalises along the attribute ``axis``, and keeps the shape."""
    REDUCTION = auto()
    """Reduces along the axes of its second input."""
    ROUNDING = auto()
    """Between floats and integers, by a scale that is given."""
    RANGED = auto()
    """Takes its range at run time, over all of its input: no position stands alone."""
    VIEW = auto()
    """Gives the same bytes under another shape."""
    SIZE = auto()
    """Gives the size of its input, and nothing of its values."""
    PICK = auto()
    """Reads of its input as much as it gives."""
    RANDOM = auto()
    """Gives something else each time."""
    REPEAT = auto()
    """Runs its body several times."""
    BRANCH = auto()
    """Runs one of its bodies."""
    MATMUL = auto()
    """A product of matrices."""
    FACTORS = auto()
    """Multiplies its first two inputs as ``numpy.matmul`` does, without turning one."""
    LINEAR = auto()
    """Where its weight is stored, it is what the quantizer calls a linear."""
    ATTENTION = auto()
    """Two products and a softmax between them."""
    CONVOLUTION = auto()
    """Products with a window that moves."""
    RECURRENT = auto()
    """A layer that runs along the sequence."""
    EXPERTS = auto()
    """Linears of which each position takes a few."""
    EINSUM = auto()
    """A product that an equation describes."""
    FLOAT = auto()
    """A product of floats."""
    INT8 = auto()
    """A product of integers."""
    BLOCKS = auto()
    """A product with a weight that is stored in blocks of integers."""


@dataclass(frozen=True, slots=True)
class _Operator:
    """``weights``: inputs of a product that may hold its stored weight, the usual one first."""

    facts: Fact
    weights: tuple[int, ...] = ()


def _rows() -> Iterator[tuple[str, _Operator]]:
    for names, facts in _ALIKE.items():
        for name in names.split():
            yield name, _Operator(facts)
    yield from _WITH_WEIGHTS.items()


_ALIKE = {
    "Abs Acos Asin Atan Cast Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish "
    "IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus "
    "Softsign Sqrt Swish Tan Tanh ThresholdedRelu FastGelu QuickGelu": Fact.UNARY,
    "Identity": Fact.UNARY | Fact.VIEW,
    "Add And BiasGelu Clip Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or "
    "Pow PRelu Sub Sum Where Xor": Fact.BROADCAST,
    "LayerNormalization RMSNormalization SimplifiedLayerNormalization": Fact.NORM,
    "Softmax LogSoftmax Hardmax LpNormalization": Fact.SOFTMAX,
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare": Fact.REDUCTION,
    "QuantizeLinear DequantizeLinear": Fact.ROUNDING,
    "DynamicQuantizeLinear": Fact.RANGED,
    "Reshape Squeeze Unsqueeze Flatten": Fact.VIEW,
    "Shape Size": Fact.SIZE,
    "Gather Slice GatherElements GatherND GatherBlockQuantized": Fact.PICK,
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial": Fact.RANDOM,
    "Loop Scan": Fact.REPEAT,
    "If": Fact.BRANCH,
    "Attention MultiHeadAttention GroupQueryAttention": Fact.ATTENTION | Fact.FLOAT,
    "QAttention": Fact.ATTENTION | Fact.INT8,
    "Einsum": Fact.EINSUM | Fact.FLOAT,
    "Conv FusedConv NhwcFusedConv ConvTranspose DeformConv": Fact.CONVOLUTION | Fact.FLOAT,
    "ConvInteger QLinearConv": Fact.CONVOLUTION | Fact.INT8,
    "GRU LSTM RNN": Fact.RECURRENT | Fact.FLOAT,
    "DynamicQuantizeLSTM": Fact.RECURRENT | Fact.INT8,
    "MoE": Fact.EXPERTS | Fact.FLOAT,
    "QMoE": Fact.EXPERTS | Fact.BLOCKS,
}

_WITH_WEIGHTS = {
    "MatMul": _Operator(Fact.MATMUL | Fact.FLOAT | Fact.LINEAR | Fact.FACTORS, (1, 0)),
    "Gemm": _Operator(Fact.MATMUL | Fact.FLOAT | Fact.LINEAR, (1, 0)),
    "FusedMatMul": _Operator(Fact.MATMUL | Fact.FLOAT, (1, 0)),
    "FusedGemm": _Operator(Fact.MATMUL | Fact.FLOAT, (1, 0)),
    "TransposeMatMul": _Operator(Fact.MATMUL | Fact.FLOAT, (1, 0)),
    "MatMulInteger": _Operator(Fact.MATMUL | Fact.INT8 | Fact.FACTORS, (1, 0)),
    "MatMulIntegerToFloat": _Operator(Fact.MATMUL | Fact.INT8 | Fact.FACTORS, (1, 0)),
    "DynamicQuantizeMatMul": _Operator(Fact.MATMUL | Fact.INT8 | Fact.FACTORS | Fact.RANGED, (1,)),
    "QLinearMatMul": _Operator(Fact.MATMUL | Fact.INT8, (3, 0)),
    "QGemm": _Operator(Fact.MATMUL | Fact.INT8, (3,)),
    "MatMulNBits": _Operator(Fact.MATMUL | Fact.BLOCKS, (1,)),
    "MatMulBnb4": _Operator(Fact.MATMUL | Fact.BLOCKS, (1,)),
}
"""Of a tied head the table is the first factor, W [out, in] @ x^T: place 0, behind the usual one."""

_TABLE = dict(_rows())


@cache
def having(facts: Fact) -> frozenset[str]:
    """Return the operators of which all of these facts are true."""
    return frozenset(name for name, operator in _TABLE.items() if facts in operator.facts)


ELEMENTWISE = having(Fact.UNARY) | having(Fact.BROADCAST)
"""They mix no positions, no channels and no batch rows."""

LINEARS = having(Fact.LINEAR)

PRODUCTS = frozenset().union(
    *map(having, (Fact.MATMUL, Fact.ATTENTION, Fact.CONVOLUTION, Fact.EINSUM, Fact.EXPERTS))
)
"""They hold nearly all of a transformer's arithmetic."""

CONTROL_FLOW = having(Fact.REPEAT) | having(Fact.BRANCH)

WEIGHT_PLACES = {name: operator.weights for name, operator in _TABLE.items() if operator.weights}
"""By operator: the inputs that may hold a stored weight, the usual one first."""

OPERANDS: dict[str, tuple[int, ...]] = {
    **WEIGHT_PLACES,
    **dict.fromkeys(having(Fact.ATTENTION), (0, 1, 2)),
    "QAttention": (1,),
    "Einsum": tuple(range(8)),
    **dict.fromkeys(having(Fact.CONVOLUTION), (1,)),
    "QLinearConv": (3,),
    **dict.fromkeys(having(Fact.RECURRENT), (1, 2)),
    "MoE": (2, 4, 6),
    "QMoE": (2, 5, 8),
}
"""By operator: the inputs that are multiplied and may be weights; of a product of matrices the usual one first."""
