"""The tiny LLaVA has the real one's names of weights; the same seed gives the same bytes."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

import tinyllava
from conftest import ROOT
from fakevlm.errors import UserError
from fakevlm.model.build import build_llava, build_tokenizer, publish_names
from smallworld import content

TEXTS = ["This is a fake image. The surface is waxy.", "This is a real image.", "Two dogs on a meadow."]
SIZES = {**tinyllava.SIZES, "vocab_size": 500}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    build_llava(folder, TEXTS, **SIZES, seed=3)
    return folder


def test_weights_have_the_names_of_llava_1_5(folder: Path) -> None:
    for file in folder / "model.safetensors", ROOT / "embedded/base/model.safetensors":
        with safe_open(file, framework="pt") as weights:
            names = list(weights.keys())
        assert [name for name in names if not re.fullmatch(tinyllava.PUBLISHED_NAMES, name)] == []
        assert sum(name.startswith("vision_tower.") for name in names) > 30


def test_publishing_names_leaves_the_weights(folder: Path, tmp_path: Path) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    before = [file.read_bytes() for file in shards]
    assert len(before) > 1
    publish_names(tmp_path)
    assert [file.read_bytes() for file in shards] == before, "published already"
    index = tmp_path / "model.safetensors.index.json"
    published = index.read_text()
    index.write_text(published.replace(".vision_model", ""))
    for file in shards:
        short = {name.replace(".vision_model", ""): tensor for name, tensor in load_file(file).items()}
        save_file(short, file, {"format": "pt"})
    publish_names(tmp_path)
    assert [file.read_bytes() for file in shards] == before
    assert json.loads(index.read_text()) == json.loads(published)


def test_the_seed_alone_decides_the_weights(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build_llava(tmp_path / "a", TEXTS, **SIZES, seed=3)
    build_llava(tmp_path / "b", TEXTS, **SIZES, seed=4)
    assert torch.equal(torch.rand(1), expected), "the global generator is left alone"
    files, same, other = content(folder), content(tmp_path / "a"), content(tmp_path / "b")
    assert same == files
    assert [name for name in files if files[name] != other[name]] == ["model.safetensors"]


def test_verdict_words_are_single_tokens_however_rare_and_every_text_survives() -> None:
    tokenizer = build_tokenizer(["Nothing but meadows and hills."], 400)
    for word in (" fake", " real", "Fake", "Real", " Fake", " Real"):
        assert len(tokenizer.encode(word, add_special_tokens=False)) == 1
    text = " two  spaces\n\nand lines: is this fäke 真 or not? "
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.convert_tokens_to_ids("<s>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_vocabulary_without_room_for_the_verdict_words_is_refused() -> None:
    with pytest.raises(UserError, match="no room for"):
        build_tokenizer(TEXTS, 262)
