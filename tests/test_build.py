"""The tiny LLaVA: loads as the real one does, same bytes for the same seed."""

import json

import pytest

from fakevlm.errors import UserError
from fakevlm.model.build import build_llava, build_tokenizer

TEXTS = [
    "This is a fake image. Texture: the surface of the animal is overly smooth and waxy.",
    "This is a real image. Lighting: shadows agree with the sun.",
    "What does the photograph show? Two dogs on a meadow.",
]
SIZES = {
    "vision": {"hidden_size": 16, "layers": 2, "heads": 2, "mlp": 32},
    "text": {"hidden_size": 16, "layers": 2, "heads": 2, "mlp": 32},
    "image_size": 32,
    "patch_size": 8,
    "vocab_size": 500,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    build_llava(folder, TEXTS, **SIZES, seed=3)
    return folder


def test_loads_as_any_llava(folder):
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

    model = LlavaForConditionalGeneration.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert isinstance(processor, LlavaProcessor)
    assert model.config.vision_feature_layer == -1
    assert model.config.vision_feature_select_strategy == "default"
    assert model.model.multi_modal_projector.act(torch.tensor(1.0)) == torch.nn.functional.gelu(
        torch.tensor(1.0)
    )
    assert model.config.image_token_index == processor.image_token_id
    assert (folder / "model.safetensors").exists()
    image = torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8)
    batch = processor(images=[image], text=["USER: <image>\nIs it? ASSISTANT:"], return_tensors="pt")
    assert (batch["input_ids"] == processor.image_token_id).sum() == (32 // 8) ** 2
    out = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert out.shape[1] > batch["input_ids"].shape[1]


def test_same_seed_same_bytes_other_seed_other_weights(folder, tmp_path):
    build_llava(tmp_path / "a", TEXTS, **SIZES, seed=3)
    build_llava(tmp_path / "b", TEXTS, **SIZES, seed=4)
    names = sorted(file.name for file in folder.iterdir())
    assert names == sorted(file.name for file in (tmp_path / "a").iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "a" / name).read_bytes(), name
        assert (name == "model.safetensors") == (
            (folder / name).read_bytes() != (tmp_path / "b" / name).read_bytes()
        ), name


def test_building_leaves_the_global_generator_alone(tmp_path):
    import torch

    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build_llava(tmp_path, TEXTS, **SIZES, seed=3)
    assert torch.equal(torch.rand(1), expected)


def test_verdict_words_are_single_tokens_however_rare():
    tokenizer = build_tokenizer(["Nothing but meadows and hills."], 400)
    for word in (" fake", " real", "Fake", "Real", " Fake", " Real"):
        ids = tokenizer.encode(word, add_special_tokens=False)
        assert len(ids) == 1
        assert tokenizer.decode(ids) == word


@pytest.mark.parametrize(
    "text", ["This is a fäke image: 真 or not?", " two  spaces\n\nand lines ", "Texture; geometry."]
)
def test_every_text_survives_the_tokenizer(folder, text):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_specials(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == ("<s>", "</s>", "<pad>")


def test_sizes_that_cannot_be(tmp_path):
    with pytest.raises(UserError, match="no room for"):
        build_tokenizer(TEXTS, 262)
    with pytest.raises(UserError, match="multiple of patch_size"):
        build_llava(tmp_path, TEXTS, **{**SIZES, "patch_size": 7}, seed=1)
