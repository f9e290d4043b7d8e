import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from loopedge.graph.integer_weights.channels import quantize_weight

MATRICES = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.floats(-1e4, 1e4, width=32),
)


@given(MATRICES)
def test_rounding_is_off_by_at_most_half_a_scale(weight: np.ndarray) -> None:
    values, scales = quantize_weight(weight)
    assert values.dtype == np.int8
    assert values.min() >= -127
    assert scales.shape == (weight.shape[1],)
    assert (scales > 0).all()
    error = np.abs(values.astype(np.float64) * scales - weight)
    assert (error <= scales * 0.5 + 1e-6 * np.abs(weight)).all()


@given(MATRICES)
def test_the_largest_value_of_a_channel_uses_the_whole_range(weight: np.ndarray) -> None:
    values, _ = quantize_weight(weight)
    for channel in range(weight.shape[1]):
        if np.abs(weight[:, channel]).max() > 1e-30:
            assert np.abs(values[:, channel]).max() == 127


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        quantize_weight(np.array([[1.0, np.nan]], np.float32))
