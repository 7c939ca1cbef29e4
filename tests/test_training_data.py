"""What fine-tuning reads: records in memory or on disk, encoded examples, a seeded sample, the answer of each objective."""

import pytest
import torch
from torch.utils.data import DataLoader

import tinyllava
from fakevlm.errors import UserError
from fakevlm.model.collate import Collator
from fakevlm.model.llava import load_processor
from fakevlm.records import FAKE, REAL, write_records
from fakevlm.training.data import Batches, DiskRecords, Examples, answer, draw, open_records, without_images

QUESTIONS = (None, "Does the person's nose look real or fake, and why?")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tinyllava.build(tmp_path_factory.mktemp("base"))


def test_records_on_disk_equal_those_in_memory(project):
    records = tinyllava.records(5, 0, QUESTIONS)
    write_records(records, project / "shards", shard_rows=2)
    held, mapped = open_records(project / "shards"), open_records(project / "shards", in_memory=0)
    assert isinstance(mapped, DiskRecords)
    assert list(mapped) == list(held)
    assert mapped[1:3] == held[1:3]
    assert [(r.sha256, r.references) for r in without_images(mapped)] == [
        (r.sha256, r.references) for r in held
    ]


def test_examples_decoded_when_needed_equal_those_kept(base):
    collator = Collator(load_processor(base), 120)
    records = tinyllava.records(6)
    kept, lazy = (Examples(records, collator, "explanation", in_memory=m) for m in (1 << 20, 0))
    assert kept.items is not None
    assert lazy.items is None
    assert lazy.truncated is None
    loaders = [DataLoader(e, 3, collate_fn=Batches(collator, "explanation")) for e in (kept, lazy)]
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


def test_draw_is_seeded_and_keeps_order():
    records = tinyllava.records(20)
    drawn = draw(records, 7, 3)
    assert drawn == draw(records, 7, 3) != draw(records, 7, 4)
    assert len(drawn) == 7
    assert [records.index(r) for r in drawn] == sorted(records.index(r) for r in drawn)
    assert draw(records, 20, 3) == records


def test_answers():
    fake, real = tinyllava.records(2)
    assert (fake.label, real.label) == (FAKE, REAL)
    assert [answer(r, "label") for r in (fake, real)] == ["Fake", "Real"]
    assert answer(fake, "explanation") == fake.references[0]
    assert answer(fake, "head") is None
    fake.references.clear()
    with pytest.raises(UserError, match="no reference answer"):
        answer(fake, "explanation")
