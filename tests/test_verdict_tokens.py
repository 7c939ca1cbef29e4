"""Where a verdict stands among generated tokens, and P(fake) from the tokens that begin its words."""

import numpy as np
import pytest

from fakevlm.model import verdict


class Letters:
    """A tokenizer with known ids: words keep the space before them, `<eos>` is special."""

    vocabulary = (
        "<eos>",
        "This",
        " is",
        " a",
        " fake",
        " real",
        " image",
        ".",
        " not",
        "Fake",
        "Real",
        "fa",
        "ke",
        "re",
        "al",
    )

    def decode(self, ids, skip_special_tokens: bool = False) -> str:
        return "".join(self.vocabulary[i] for i in ids if i or not skip_special_tokens)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = []
        while text:
            piece = max((w for w in self.vocabulary if text.startswith(w)), key=len, default=None)
            ids += [] if piece is None else [self.vocabulary.index(piece)]
            text = text[len(piece) if piece else 1 :]
        return ids


@pytest.mark.parametrize(
    ("ids", "position"),
    [
        ([1, 2, 3, 4, 6, 7, 0], 3),  # This is a fake image.
        ([1, 2, 8, 3, 5, 6, 7], 4),  # This is not a real image.
        ([0, 0, 9, 7], 2),  # Fake.
        ([11, 12, 7], 0),  # fa-ke.
        ([1, 2, 3, 6, 7], None),  # This is a image.
        ([1, 2, 3, 6, 7, 1, 2, 3, 4, 6], 8),  # in the second sentence
        ([], None),
    ],
)
def test_position_of_the_verdict_token(ids: list[int], position: int | None) -> None:
    assert verdict.verdict_position(ids, Letters()) == position


def test_p_fake_is_a_softmax_and_turns_under_negation() -> None:
    assert verdict.p_fake(0.0) == 0.5
    assert verdict.p_fake(1.0) == pytest.approx(np.exp(3.0) / (np.exp(3.0) + np.exp(2.0)))
    assert verdict.p_fake(2.0, negated=True) == pytest.approx(1 - verdict.p_fake(2.0))
    assert (verdict.p_fake(-1e9), verdict.p_fake(1e9)) == (0.0, 1.0)


def test_a_model_that_is_very_sure_still_ranks_its_answers() -> None:
    """Six decimals of P(fake) would make one tie of all these; so would half of them in float32."""
    gaps = np.linspace(15, 30, 1000)
    p_fake = np.array([verdict.p_fake(gap) for gap in gaps])
    assert (np.diff(p_fake) > 0).all()
    assert (np.diff([verdict.p_fake(-gap) for gap in gaps]) < 0).all()
    np.testing.assert_allclose(verdict.settled(p_fake), p_fake, rtol=1e-14)
    assert verdict.settled(np.array([0.0, 0.5, 1.0])).tolist() == [0.0, 0.5, 1.0]


def test_noise_of_machines_is_rounded_away() -> None:
    assert verdict.p_fake(1.23456) == verdict.p_fake(1.23456 + 3e-6)
    p_fake = np.array([0.2, 0.7])
    assert verdict.settled(p_fake).tolist() == verdict.settled(p_fake + 1e-7).tolist()


def test_a_tokenizer_that_cannot_tell_the_words_apart_is_refused() -> None:
    class Bytes(Letters):
        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [7] * len(text)

    with pytest.raises(ValueError, match="same token"):
        verdict.word_ids(Bytes())


def test_word_ids_are_single_tokens_and_disjoint() -> None:
    fake, real = verdict.word_ids(Letters())
    assert [Letters.vocabulary[i] for i in fake] == [" fake", "Fake"]
    assert [Letters.vocabulary[i] for i in real] == [" real", "Real"]


def test_a_word_of_two_pieces_is_known_by_its_first_where_the_other_is_one() -> None:
    class Llama(Letters):
        """ " Real" is one token, " Fake" is " F" and "ake"; of " FAKE" and " REAL" neither is."""

        vocabulary = (
            "",
            " fake",
            " real",
            " Real",
            " F",
            "ake",
            "AKE",
            " R",
            "EAL",
            "f",
            "r",
            "eal",
            "F",
            "R",
        )

    fake, real = verdict.word_ids(Llama())
    assert [Llama.vocabulary[i] for i in fake] == [" fake", " F"]
    assert [Llama.vocabulary[i] for i in real] == [" real", " Real"]
