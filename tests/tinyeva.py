"""Tiny classifiers and detectors, and records of plain pictures."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fakevlm.categorize import assign, eva, synsets
from fakevlm.config.params import Categorize, CNNSpotSettings, load_params
from fakevlm.data.records import Record, encode, write_records

TINY = Categorize(
    model=None, person=None, image_size=16, patch_size=4, width=16, depth=1, heads=2, epochs=12,
    batch_size=16, learning_rate=4e-3,
)  # fmt: skip
RESNET = CNNSpotSettings(model=None, layers=[1, 1, 1, 1], width=8, size=32, crop=32, augment=0.5)
COLOURS = {"animal": (200, 40, 40), "human": (40, 200, 40), "object": (40, 40, 200), "scene": (200, 200, 40)}
SYNSETS = {"animal": "n02099601", "human": "n10148035", "object": "n03063599", "scene": "n09428293"}


def picture(category: str, seed: int, size: int = 16) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 25, (size, size, 3))
    pixels = np.clip(np.array(COLOURS[category]) + noise, 0, 255).astype(np.uint8)
    return encode(Image.fromarray(pixels), "PNG")


def collected(n: int = 24) -> list[Record]:
    """Photographs with synsets, fakes and Chameleon's images without category, two sources with one."""
    rows = []
    for c, category in enumerate(COLOURS):
        files = [(f"genimage/real/{SYNSETS[category]}_{k}.JPEG", 100 * c + k) for k in range(n)]
        files += [(f"genimage/fake/adm/{category}_{k}.PNG", 1000 + 10 * c + k) for k in range(4)]
        for name, seed in [*files, (f"chameleon/fake/{category}.jpg", 2000 + c)]:
            label = int("/real/" in name)
            rows.append(Record(name, picture(category, seed), label, name.split("/")[0], name))
    rows.append(Record("doc/real/a.png", picture("object", 1), 1, "doc", "doc/real/a.png", category="doc"))
    rows.append(Record("ff++/real/0.png", picture("human", 1), 1, "ff++", "0", category="deepfake"))
    return rows


def assigned(
    rows: list[Record], folder: Path, name: str = "out", ground_truth: Path | None = None, **changes: object
) -> assign.Outcome:
    """Run the stage on records with the tiny settings, changed as named."""
    if not (folder / "records").exists():
        write_records(rows, folder / "records")
    params = load_params("mini").model_copy(update={"categorize": TINY.model_copy(update=changes)})
    return assign.assign(params, folder / "records", ground_truth, folder / name)


def tiny_model(folder: Path) -> Path:
    eva.save(eva.wrap(eva.build(TINY, 3), synsets.FOUR), folder)
    return folder


def tiny_detector(folder: Path, label: str = "person", box: tuple[float, ...] = (0.5, 0.5, 0.5, 0.4)) -> Path:
    """Save a YOLOS that sees `label` in one box (centre, width, height) of every picture."""
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        patch_size=16, num_detection_tokens=3, id2label={0: "N/A", 1: label, 2: "dog"},
        use_mid_position_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = YolosForObjectDetection(config)
        for parameter in model.parameters():  # a model of zeros is refused as damaged
            torch.nn.init.normal_(parameter, std=0.02)
    heads = model.class_labels_classifier, model.bbox_predictor
    for head, bias in zip(heads, (torch.tensor([0.0, 5, 0, 0]), torch.tensor(box).logit()), strict=True):
        torch.nn.init.normal_(head.layers[-1].weight, std=1e-9)
        head.layers[-1].bias.data = bias
    model.save_pretrained(folder)
    YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 48}).save_pretrained(folder)
    return folder


def tiny_head(folder: Path, bias: dict[int, float] | None, classes: int) -> Path:
    """Save an EVA-02 whose logits are `bias` (0 elsewhere) for every picture; None: random weights."""
    import timm

    sizes = {"img_size": 28, "embed_dim": 24, "depth": 1, "num_heads": 2, "ref_feat_shape": (2, 2)}
    model = timm.create_model("eva02_tiny_patch14_224", num_classes=classes, **sizes)
    if bias is not None:
        torch.nn.init.zeros_(model.head.weight)
        model.head.bias.data = torch.tensor([bias.get(n, 0.0) for n in range(classes)])
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return folder
