"""What fine-tuning reads: encoded examples, from records in memory or on disk, a seeded sample, the answer of each objective."""

import pytest
import torch
from torch.utils.data import DataLoader

import tinyllava
from fakevlm.data.records import FAKE, REAL, write_records
from fakevlm.data.shards import Records
from fakevlm.errors import UserError
from fakevlm.model.collate import Collator
from fakevlm.model.llava import load_processor
from fakevlm.training.data import Batches, Examples, answer, draw

QUESTIONS = (None, "Does the person's nose look real or fake, and why?")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tinyllava.build(tmp_path_factory.mktemp("base"))


def test_examples_decoded_when_needed_equal_those_kept(base, tmp_path):
    collator = Collator(load_processor(base), 120)
    records = tinyllava.records(6, 0, QUESTIONS)
    write_records(records, tmp_path, shard_rows=2)
    kept = Examples(records, collator, "explanation", in_memory=1 << 20)
    lazy = Examples(Records(tmp_path), collator, "explanation", in_memory=0)
    assert kept.items is not None
    assert lazy.items is None
    assert lazy.truncated is None
    batches = Batches(collator, "explanation")
    loaders = [
        DataLoader(kept, 3, collate_fn=batches),
        DataLoader(lazy, 3, collate_fn=batches, num_workers=2),
    ]
    for one, other in zip(*loaders, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(torch.as_tensor(one[k]), torch.as_tensor(other[k])) for k in one)


def test_mirror_flips_half_of_the_images_anew_each_epoch_and_nothing_else(base):
    collator = Collator(load_processor(base), 120)
    records = tinyllava.records(60)
    plain = Examples(records, collator, "explanation")
    kept, lazy = (Examples(records, collator, "explanation", m, mirror=3) for m in (1 << 20, 0))

    def flipped(examples, epoch):
        examples.epoch = epoch
        for one, other in zip(plain, examples, strict=True):
            assert one.target == other.target
            assert torch.equal(one.encoded.ids, other.encoded.ids)
            same = torch.equal(one.encoded.pixels, other.encoded.pixels)
            assert same or torch.equal(one.encoded.pixels.flip(-1), other.encoded.pixels)
            yield not same

    first, second = list(flipped(kept, 0)), list(flipped(kept, 1))
    assert 18 <= sum(first) <= 42
    assert first != second
    assert list(flipped(lazy, 1)) == second
    assert list(flipped(kept, 0)) == first  # what is kept stays as it was


def test_draw_is_seeded_and_keeps_order(tmp_path):
    records = tinyllava.records(20)
    drawn = draw(records, 7, 3)
    assert drawn == draw(records, 7, 3) != draw(records, 7, 4)
    assert len(drawn) == 7
    assert [records.index(r) for r in drawn] == sorted(records.index(r) for r in drawn)
    assert draw(records, 20, 3) == records
    write_records(records, tmp_path, shard_rows=6)
    assert list(draw(Records(tmp_path), 7, 3)) == drawn


def test_answers():
    fake, real = tinyllava.records(2)
    assert (fake.label, real.label) == (FAKE, REAL)
    assert [answer(r, "label") for r in (fake, real)] == ["Fake", "Real"]
    assert answer(fake, "explanation") == fake.references[0]
    assert answer(fake, "head") is None
    fake.references.clear()
    with pytest.raises(UserError, match="no reference answer"):
        answer(fake, "explanation")
