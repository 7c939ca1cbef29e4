"""The sentence encoder: offline, deterministic, unit length, and sensible about meaning."""

import numpy as np
import pytest

from fakevlm.errors import UserError
from fakevlm.model import sentence_encoder as encoder
from fakevlm.model.sentence_encoder import encode


def test_rows_are_unit_vectors_in_the_order_asked() -> None:
    texts = ["the shadow is wrong", "", "the fur is too smooth", "the shadow is wrong"]
    rows = encode(texts)
    assert rows.shape == (4, 384)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert (rows[0] == rows[3]).all()
    assert (encode(texts[::-1])[::-1] == rows).all(), "order must not change the values"


def test_each_distinct_text_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    model = encoder._load("all-MiniLM-L6-v2")
    original = model.encode
    monkeypatch.setattr(
        model, "encode", lambda texts, **kw: (seen.append(list(texts)), original(texts, **kw))[1]
    )
    encode(["b", "a", "b", "a", "a"])
    assert seen == [["a", "b"]]


def test_meaning_beats_wording() -> None:
    same, other, base = encode(
        [
            "its fur is overly smooth, like plastic",
            "the shadow points the wrong way",
            "the coat looks waxy and plastic",
        ]
    )
    assert same @ base > other @ base + 0.2


def test_no_texts_give_no_rows() -> None:
    assert encode([]).shape == (0, 384)


def test_unknown_encoder_is_explained(tmp_path) -> None:
    with pytest.raises(UserError, match="all-MiniLM-L6-v2"):
        encode(["a"], str(tmp_path / "no-such-encoder"))
