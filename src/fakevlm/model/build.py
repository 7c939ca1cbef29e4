"""Build a LLaVA of any size from random weights, with the classes, files and weight names of llava-1.5-7b-hf.

The miniature's base model and the tests' tiny models begin here.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from fakevlm.errors import UserError

BOS, EOS, PAD, IMAGE = "<s>", "</s>", "<pad>", "<image>"
# One token each, so that P(fake) can be read at one place of the output.
VERDICT_WORDS = ("fake", "real", "Fake", "Real")

# LLaVA-1.5's conversation: images, then the text; an answer ends with the end-of-sequence token.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '' if message.role == 'system' else message.role | upper + ': ' -}}
{%- if message.content is string -%}{%- set parts = [{'type': 'text', 'text': message.content}] -%}
{%- else -%}{%- set parts = message.content -%}{%- endif -%}
{%- for part in parts if part.type == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}
{%- for part in parts if part.type == 'text' -%}
{%- if message.role == 'assistant' -%}{%- generation -%}{{- part.text + '</s>' -}}{%- endgeneration -%}
{%- else -%}{{- part.text + ' ' -}}{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}"""


def build_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on `texts`; the same texts give the same tokenizer.

    The verdict words, with and without a space before them, are one token each, and `<s>` opens every text.
    There are at most `vocab_size` tokens; 4 special ones and 256 bytes come first.

    Raises:
        UserError: `vocab_size` leaves no room for the verdict words.
    """
    texts = [f"USER: \n ASSISTANT: {text}" for text in texts]
    # More verdict words than words in all texts, so that BPE merges them first.
    count = sum(len(text.split()) for text in texts) + 1
    verdicts = [" ".join([word] * count) for word in VERDICT_WORDS] + list(VERDICT_WORDS) * count
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS, IMAGE],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([*texts, *verdicts], trainer=trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    for word in (*VERDICT_WORDS, *(f" {word}" for word in VERDICT_WORDS)):
        if len(tokenizer.encode(word, add_special_tokens=False)) != 1:
            raise UserError(f"vocab_size {vocab_size} leaves no room for {word!r}", "use 400 or more")
    return tokenizer


def build_processor(tokenizer: PreTrainedTokenizerFast, image_size: int, patch_size: int) -> LlavaProcessor:
    """Return a `LlavaProcessor` that resizes the short edge to `image_size` pixels and crops to a square."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
        ),
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which the strategy "default" drops
        chat_template=CHAT_TEMPLATE,
    )


def build_llava(
    folder: Path,
    texts: Iterable[str],
    *,
    vision: dict[str, int],
    text: dict[str, int],
    image_size: int,
    patch_size: int,
    vocab_size: int,
    seed: int,
) -> None:
    """Write a random `LlavaForConditionalGeneration` (safetensors) and its `LlavaProcessor` to `folder`.

    Args:
        texts, vocab_size: see `build_tokenizer`.
        vision, text: `hidden_size`, `layers`, `heads`, `mlp` of the CLIP vision tower and of the Llama.
        image_size, patch_size: sides of the square input and of a patch, which divides it, in pixels.

    Raises:
        UserError: the vocabulary is too small.
    """
    tokenizer = build_tokenizer(texts, vocab_size)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=vision["hidden_size"],
            num_hidden_layers=vision["layers"],
            num_attention_heads=vision["heads"],
            intermediate_size=vision["mlp"],
            projection_dim=vision["hidden_size"],
            hidden_act="gelu",  # as in OpenCLIP; on CPUs OpenAI's quick_gelu takes twice as long
            image_size=image_size,
            patch_size=patch_size,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=text["hidden_size"],
            num_hidden_layers=text["layers"],
            num_attention_heads=text["heads"],
            num_key_value_heads=text["heads"],
            intermediate_size=text["mlp"],
            max_position_embeddings=1024,
            **special,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(image_size // patch_size) ** 2,
        vision_feature_layer=-1,  # LLaVA-1.5 reads -2, because CLIP's last serves CLIP's own objective
        vision_feature_select_strategy="default",
        **special,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**special)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    publish_names(folder)
    build_processor(tokenizer, image_size, patch_size).save_pretrained(folder)


def publish_names(folder: Path) -> None:
    """Rename saved weights as in llava-1.5-7b-hf's files; files that have these names keep their bytes.

    `save_pretrained` may leave `vision_model` out of the vision tower's names. transformers reads both
    forms, vLLM only the published one. `folder` holds `model*.safetensors` and, with several, their index.
    """
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            names, metadata = list(weights.keys()), weights.metadata()
        if names != [_published(name) for name in names]:
            renamed = {_published(name): tensor for name, tensor in load_file(file).items()}
            part = file.with_suffix(".part")  # the tensors may be mapped from `file`
            save_file(renamed, part, metadata)
            part.chmod(file.stat().st_mode)
            part.replace(file)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        listed = json.loads(index.read_text(encoding="utf-8"))
        listed["weight_map"] = {_published(name): file for name, file in listed["weight_map"].items()}
        index.write_text(json.dumps(listed, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _published(name: str) -> str:
    return re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name)
