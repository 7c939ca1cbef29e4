"""The sentence encoder: offline, repeatable, unit length."""

import numpy as np
import pytest

from fakevlm.errors import UserError
from fakevlm.model.sentence_encoder import encode


def test_rows_are_unit_vectors_in_the_order_of_the_texts() -> None:
    texts = ["the shadow is wrong", "", "the fur is too smooth", "the shadow is wrong"]
    rows = encode(texts)
    assert (rows.shape, rows.dtype) == ((4, 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert (rows[0] == rows[3]).all()
    assert (encode(texts[::-1])[::-1] == rows).all(), "order does not change the values"
    assert encode([]).shape == (0, 384)


def test_unknown_encoder_is_explained(tmp_path) -> None:
    with pytest.raises(UserError, match="all-MiniLM-L6-v2"):
        encode(["a"], str(tmp_path / "no-such-encoder"))
