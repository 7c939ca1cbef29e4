"""A Qwen2-VL of a few thousand random weights with its processor, for the tests against vLLM."""

from pathlib import Path

# The part of Qwen2-VL's own template that a turn with an image and a text needs.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}"
    "{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
PADS = ("<|image_pad|>", "<|video_pad|>")


def build(folder: Path, likes: str) -> Path:
    """Write a model that never stops by itself; it rather says letters of `likes`, the likeliest first."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytewise, extra_special_tokens=[*SPECIAL, *PADS], **special
    )
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (*SPECIAL, *PADS)}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,  # heads of 32, the least that vLLM takes
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(3)
    model = Qwen2VLForConditionalGeneration(config)
    with torch.no_grad():
        _prefer(model, tokenizer.convert_tokens_to_ids(list(likes)))
    model.generation_config.eos_token_id = [ids["<|im_end|>"]]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    model.save_pretrained(folder)
    parts = (Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor())
    Qwen2VLProcessor(*parts, chat_template=TEMPLATE).save_pretrained(folder)
    return folder


def _prefer(model, tokens: list[int]) -> None:
    """Make these tokens the likeliest everywhere, in this order."""
    import torch

    language = model.model.language_model
    language.embed_tokens.weight[:, 0] = 100.0
    model.model.visual.merger.mlp[-1].weight[0] = 0.0
    model.model.visual.merger.mlp[-1].bias[0] = 100.0
    for layer in language.layers:
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    model.lm_head.weight.zero_()
    model.lm_head.weight[tokens, 0] = torch.arange(len(tokens), 0, -1, dtype=torch.float32)
