"""The tiny LLaVA: loads as the real one does, same bytes for the same seed."""

import json
import re

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fakevlm.errors import UserError
from fakevlm.model.build import build_llava, build_tokenizer, publish_names
from imports import ROOT

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


def _names(file):
    with safe_open(file, framework="pt") as weights:
        return list(weights.keys())


def test_weights_have_the_names_of_llava_1_5(folder):
    """vLLM stops at any other; llava-1.5-7b-hf's parts, and the miniature's base is as what is built here."""
    known = (
        r"language_model\.lm_head\.weight",
        r"language_model\.model\.(embed_tokens|norm|layers\.\d+\.\w+(\.\w+)?)\.weight",
        r"multi_modal_projector\.linear_[12]\.(weight|bias)",
        r"vision_tower\.vision_model\.(embeddings|pre_layrnorm|post_layernorm|encoder\.layers\.\d+)\..+",
    )
    for file in folder / "model.safetensors", ROOT / "embedded/base/model.safetensors":
        names = _names(file)
        assert [name for name in names if not re.fullmatch("|".join(known), name)] == []
        assert sum(name.startswith("vision_tower.") for name in names) > 30


def test_publishing_names_leaves_the_weights(folder, tmp_path):
    """Two files with an index, as a large model has, in the names that the library saves a new model with."""
    import torch
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    before = [file.read_bytes() for file in shards]
    publish_names(tmp_path)
    assert [file.read_bytes() for file in shards] == before, "published already"
    index = tmp_path / "model.safetensors.index.json"
    short = {name: name.replace(".vision_model", "") for name in weights}
    index.write_text(_renamed(index.read_text(), short))
    for file in shards:
        save_file({short[name]: tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    publish_names(tmp_path)
    assert [file.read_bytes() for file in shards] == before
    loaded, told = LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert sorted(json.loads(index.read_text())["weight_map"]) == sorted(weights)


def _renamed(index, names):
    listed = json.loads(index)
    listed["weight_map"] = {names[name]: file for name, file in listed["weight_map"].items()}
    return json.dumps(listed)


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
