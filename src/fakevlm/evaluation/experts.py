"""Expert detectors, the baselines of Tables 2, 3 and 5, trained here on FakeClue's training split.

`CNNSpot` sees pixels, `UnivFD` the features of a CLIP tower, `Frequency` the spectrum. Epoch or
regularisation is chosen on the validation split. The test split is never seen.
"""

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.fft import dctn
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from transformers import CLIPVisionModel, CLIPVisionModelWithProjection

from fakevlm.cache import Cache, code_version, key, model_version, work
from fakevlm.config.params import CNNSpotSettings, Params
from fakevlm.data.records import FAKE, Record
from fakevlm.data.shards import IN_MEMORY, columns_of
from fakevlm.errors import UserError
from fakevlm.inference.predict import Predictor, predict
from fakevlm.model.collate import Collator, without_ends
from fakevlm.model.llava import load_config, load_processor
from fakevlm.model.weights import (
    check_numbers,
    check_sums,
    device,
    load_weights,
    multiplies_16_bits,
    write_sums,
)
from fakevlm.progress import bar

SIGMA, QUALITY = (0.0, 3.0), (30, 100)  # CNNSpot's augmentation: blur in pixels, quality of JPEG
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse strengths of regularisation: the smaller, the simpler
BINS, BLOCK = 16, 8  # of Frequency: bins a side, pixels a side

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of RGB in 0–1
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: Statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

Split = Sequence[Record]  # labelled, of both classes


def to_tensor(images: Sequence[Image.Image | np.ndarray], statistics: Statistics) -> Tensor:
    """Return RGB images (h, w, 3) uint8 of one size, normalised: (n, 3, h, w) on the accelerator."""
    tensors = [TF.to_tensor(np.array(image, order="C")) for image in images]
    return TF.normalize(torch.stack(tensors).to(device()), *statistics)


def load_clip(name: str, tower: bool = False) -> nn.Module:
    """Return a frozen CLIP vision model, in evaluation mode, on the accelerator.

    `name` is a folder or on the hub: with `tower` a LLaVA, of which only the vision tower is loaded, else a
    CLIP, whose vision model comes with the projection, in float32. Raises a UserError as `load_weights` does.
    """
    kind, options = CLIPVisionModelWithProjection, {"dtype": "float32"}
    if tower:
        names = {r"^(model\.)?vision_tower\.(vision_model\.)?": ""}
        kind, options = CLIPVisionModel, {"config": load_config(name).vision_config, "key_mapping": names}
    return load_weights(kind, name, whole=False, **options).requires_grad_(False).to(device())


class Expert(ABC):
    """A detector of generated images that is trained here."""

    name: ClassVar[str]  # its folder (`cnnspot`)
    title: ClassVar[str]  # its name in tables (`CNNSpot`)
    setting: ClassVar[str]  # the key of its settings in `config.json`

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def fit(self, train: Split, val: Split, params: Params, cache: Cache, run: str) -> pd.DataFrame:
        """Train, choose epoch or regularisation on `val` (other source images), and return the log.

        The log has setting (epoch or regularisation), train_loss, val_loss, val_accuracy, val_auc, chosen.
        `cache` holds work in progress under `run`, the key of all that decides the weights.
        """

    @abstractmethod
    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return P(fake) of RGB images, any sizes: (len(images),) float64 in 0–1."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Return what was trained, by name."""

    @abstractmethod
    def restore(self, weights: dict[str, Tensor]) -> None:
        """Take over the weights of a trained expert with the same settings."""

    def save(self, folder: Path) -> None:
        """Write `model.safetensors`, `config.json` and their digests."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.weights().items()}
        save_file(weights, folder / "model.safetensors")
        text = json.dumps({"expert": self.name, self.setting: self.settings}, indent=1, default=dict)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        write_sums(folder)

    def p_fake(self, records: Sequence[Record], batch_size: int = 64) -> np.ndarray:
        """Return P(fake) of n records, in order: (n,) float64."""
        predictor = Predictor(lambda: lambda images: {"p_fake": self.predict(images)}, None, batch_size)
        return predict(predictor, records, desc=self.title)["p_fake"]


def targets(records: Sequence[Record]) -> np.ndarray:
    """Return 1 for fake, 0 for real: (n,) float32. Raises `UserError` if only one class is there."""
    fake = (columns_of(records, ["label"])["label"] == FAKE).to_numpy(np.float32)
    if not 0 < fake.sum() < len(fake):
        what = f"experts: {len(fake)} images, {int(fake.sum())} of them fake: both classes are needed"
        raise UserError(what, "check the splits that annotate made")
    return fake


def validation_scores(fake: np.ndarray, p_fake: np.ndarray) -> dict[str, float]:
    """Return val_loss, val_accuracy (at one half) and val_auc of P(fake) against `targets`."""
    p = np.clip(p_fake, 1e-7, 1 - 1e-7)
    return {
        "val_loss": float(log_loss(fake, p, labels=[0, 1])),
        "val_accuracy": float(((p >= 0.5) == (fake == 1)).mean()),
        "val_auc": float(roc_auc_score(fake, p_fake)),
    }


def mark_best(log: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the log with a column `chosen`: true for the highest val_auc, then the lowest val_loss."""
    table = pd.DataFrame(log)
    best = table.sort_values(["val_auc", "val_loss"], ascending=[False, True], kind="stable").index[0]
    return table.assign(chosen=table.index == best)


def square(image: Image.Image, size: int) -> np.ndarray:
    """Return the centre of the image after its shorter side is resized to `size`: (size, size, 3) uint8."""
    if image.size != (size, size):
        image = without_ends(image, size)
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)


def augment(pixels: np.ndarray, rng: np.random.Generator, chance: float, crop: int) -> np.ndarray:
    """Return RGB pixels, (size, size, 3) uint8, after random blur, JPEG, crop and mirror: (crop, crop, 3).

    `chance` is that of blur, and independently of JPEG (0.5 in the paper).
    """
    if rng.random() < chance and (sigma := rng.uniform(*SIGMA)) > 0.05:
        pixels = cv2.GaussianBlur(pixels, (0, 0), sigma)
    if rng.random() < chance:
        quality = int(rng.integers(QUALITY[0], QUALITY[1] + 1))
        coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        pixels = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    top, left = rng.integers(0, pixels.shape[0] - crop + 1, 2)
    pixels = pixels[top : top + crop, left : left + crop]
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def build_resnet(settings: CNNSpotSettings, pretrained: bool) -> nn.Module:
    """Return CNNSpot's network, `settings.model` of timm or a small one; its one output is the logit of fake.

    Raises `UserError` if timm has no such model or weights, or a width is no multiple of 8 (`params.Width`).
    """
    if settings.model is None:
        widths = tuple(settings.width * 2**stage for stage in range(4))
        sizes = {"channels": widths, "stem_width": settings.width}
        return ResNet(BasicBlock, tuple(settings.layers), num_classes=1, **sizes)
    try:
        model = timm.create_model(settings.model, pretrained=pretrained, num_classes=1)
    except Exception as error:  # timm and the hub raise many kinds for one mistake: a wrong name
        what = f"experts.cnnspot.model: {settings.model!r} cannot be made ({type(error).__name__}: {error})"
        cure = "name a model that timm.list_pretrained('resnet*') lists, such as resnet50.tv_in1k"
        raise UserError(what, cure) from error
    widths = {layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)}
    if odd := sorted(width for width in widths if width % 8):
        what = f"a layer of {odd[0]} channels can corrupt memory on processors with AVX2 alone"
        raise UserError(f"{settings.model}: {what}", "choose a model with multiples of 8")
    return model


class CNNSpot(Expert):
    """A ResNet trained to tell real from fake (Wang et al., CVPR 2020), of the epoch with the best AUC.

    The paper's is a ResNet-50 pretrained on ImageNet, with the augmentation Blur+JPEG (0.5).
    """

    name, title, setting = "cnnspot", "CNNSpot", "settings"
    model: nn.Module

    def __init__(self, settings: CNNSpotSettings | dict[str, Any]) -> None:
        super().__init__(CNNSpotSettings.model_validate(settings))

    def _batch(self, pixels: Sequence[np.ndarray]) -> Tensor:
        return to_tensor(pixels, IMAGENET).contiguous(memory_format=torch.channels_last)

    def _examples(
        self, squares: Callable[[int], np.ndarray], fake: np.ndarray, params: Params, epoch: int
    ) -> Iterator[tuple]:
        """Yield shuffled, augmented batches. Each image has a generator of its own: batches do not matter."""
        settings, size, seed = self.settings, params.experts.batch_size, [params.seed, epoch]
        order = np.random.default_rng(seed).permutation(len(fake))
        for start in range(0, len(order), size):
            rows, pixels = order[start : start + size], []
            for n in rows:
                rng = np.random.default_rng([*seed, n])
                pixels.append(augment(squares(n), rng, settings.augment, settings.crop))
            yield self._batch(pixels), torch.from_numpy(fake[rows]).to(device())

    def fit(self, train: Split, val: Split, params: Params, cache: Cache, run: str) -> pd.DataFrame:
        fake, val_fake = targets(train), targets(val)
        with torch.random.fork_rng():
            torch.manual_seed(params.seed)
            self.model = build_resnet(self.settings, pretrained=True)
        self.model.to(device(), memory_format=torch.channels_last)
        epochs, rate = params.experts.epochs, params.experts.learning_rate
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=1e-2)
        steps = max(2, epochs * -(-len(train) // params.experts.batch_size))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
        parts = {"model": self.model, "optimizer": optimizer, "schedule": schedule}
        keys = {name: key(run, name) for name in (*parts, "best", "log")}
        log, best = [], {}
        if stored := cache.get_many(keys.values()):
            files = {name: io.BytesIO(stored[place]) for name, place in keys.items()}
            state = {n: torch.load(f, map_location=device(), weights_only=True) for n, f in files.items()}
            log, best = state["log"], state["best"]
            for name, part in parts.items():
                part.load_state_dict(state[name])
        size = self.settings.size
        squares = lru_cache(IN_MEMORY // (3 * size**2))(lambda n: square(train[n].pil(), size))
        rounded = params.experts.precision == "bf16" and multiplies_16_bits()
        with bar(epochs * len(train), "CNNSpot: training") as progress:
            progress.update(len(log) * len(train))
            for epoch in range(len(log), epochs):
                total = 0.0
                self.model.train()
                for pixels, wanted in self._examples(squares, fake, params, epoch):
                    with torch.autocast(device().type, torch.bfloat16, enabled=rounded):
                        logits = self.model(pixels)[:, 0].float()
                    loss = F.binary_cross_entropy_with_logits(logits, wanted)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    total += loss.item() * len(wanted)
                    progress.update(len(wanted))
                scores = validation_scores(val_fake, self.p_fake(val, params.experts.batch_size))
                log.append({"setting": f"epoch={epoch + 1}", "train_loss": total / len(train), **scores})
                if mark_best(log).chosen.iloc[-1]:
                    best = {name: value.clone() for name, value in self.model.state_dict().items()}
                state = {name: part.state_dict() for name, part in parts.items()}
                state |= {"best": best, "log": log}
                # One value each: SQLite takes at most 1 GB.
                cache.put_many({keys[name]: _pack(value) for name, value in state.items()})
        self.model.load_state_dict(best)
        return mark_best(log)

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.model.eval()
        edge = (self.settings.size - self.settings.crop) // 2
        inner = slice(edge, edge + self.settings.crop)
        pixels = self._batch([square(image, self.settings.size)[inner, inner] for image in images])
        return self.model(pixels)[:, 0].double().sigmoid().cpu().numpy()

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def restore(self, weights: dict[str, Tensor]) -> None:
        self.model = build_resnet(self.settings, pretrained=False)
        self.model.load_state_dict(weights)
        self.model.to(device(), memory_format=torch.channels_last)


def _pack(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def logistic(
    features: np.ndarray, mean: np.ndarray, scale: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """Return P(fake) = sigmoid(((features − mean) / scale) · weight + bias): (n, d) → (n,) float64."""
    # Summed row by row: a matrix product rounds differently with the number of rows, P(fake) must not.
    logits = ((features - mean) / scale * weight).sum(1) + bias
    return expit(logits.astype(np.float64))


def fit_linear(
    train: np.ndarray, fake: np.ndarray, val: np.ndarray, val_fake: np.ndarray
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Return `logistic`'s float32 arrays with the best validation AUC among `STRENGTHS`, and the log of all.

    Features are (n, d) and (m, d) float32, `fake` and `val_fake` their `targets`.
    """
    mean, scale = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scale[scale < 1e-6] = 1.0  # a constant feature
    mean, scale = mean.astype(np.float32), scale.astype(np.float32)
    models, log = [], []
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=500).fit((train - mean) / scale, fake)
        model = {"mean": mean, "scale": scale, "weight": fitted.coef_[0], "bias": fitted.intercept_}
        models.append({name: values.astype(np.float32) for name, values in model.items()})
        loss = validation_scores(fake, logistic(train, **models[-1]))["val_loss"]
        scores = validation_scores(val_fake, logistic(val, **models[-1]))
        log.append({"setting": f"C={strength:g}", "train_loss": loss, **scores})
    table = mark_best(log)
    return models[int(table.chosen.argmax())], table


class LinearExpert(Expert):
    """A logistic regression on fixed, standardised features of an image."""

    linear: dict[str, np.ndarray]  # of `logistic`

    @abstractmethod
    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return features of RGB images, any sizes: (n, d) float32."""

    def fit(self, train: Split, val: Split, params: Params, cache: Cache, run: str) -> pd.DataFrame:
        fake, val_fake = targets(train), targets(val)
        load = lambda: lambda images: {"x": self.features(images)}  # noqa: E731
        predictor, desc = Predictor(load, run, params.experts.batch_size), f"{self.title}: features"
        x, val_x = (predict(predictor, records, cache, desc=desc)["x"] for records in (train, val))
        self.linear, log = fit_linear(x, fake, val_x, val_fake)
        return log

    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        return logistic(self.features(images), **self.linear)

    def weights(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(value) for name, value in self.linear.items()}

    def restore(self, weights: dict[str, Tensor]) -> None:
        self.linear = {name: tensor.numpy() for name, tensor in weights.items()}


class Frequency(LinearExpert):
    """On the spectrum, after Frank et al. (ICML 2020), "Leveraging Frequency Analysis for Deep Fake …".

    The logarithm of the grey image's discrete cosine transform (DCT), averaged in square bins, with mean and
    maximum over the spectra of its 8 × 8 blocks: an artifact may cover a corner only. The setting is the side
    of the centre crop in pixels, a multiple of BINS and BLOCK.
    """

    name, title, setting = "frequency", "Frequency", "size"

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return features, (n, BINS² + 2 · BLOCK²) float32; smaller images are enlarged to the crop."""
        size, n = self.settings, len(images)
        grey = np.stack([square(_crop(image, size), size) for image in images]).astype(np.float32).mean(-1)
        step, across = size // BINS, size // BLOCK
        bins = _log_dct(grey, (1, 2)).reshape(n, BINS, step, BINS, step).mean((2, 4))
        tiles = grey.reshape(n, across, BLOCK, across, BLOCK).transpose(0, 1, 3, 2, 4)
        local = _log_dct(tiles, (3, 4)).reshape(n, -1, BLOCK * BLOCK)
        return np.concatenate([bins.reshape(n, -1), local.mean(1), local.max(1)], 1).astype(np.float32)


def _log_dct(pixels: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    return np.log1p(np.abs(dctn(pixels, axes=axes, norm="ortho")))


def _crop(image: Image.Image, size: int) -> Image.Image:
    """Return the centre, unresized to keep the spectrum. Smaller images are left to `square`."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size)) if left >= 0 and top >= 0 else image


class UnivFD(LinearExpert):
    """On a frozen CLIP vision tower, after Ojha et al. (CVPR 2023).

    The tower is the base's own (LLaVA-1.5's is CLIP ViT-L/14 at 336 pixels, UnivFD's at 224): this baseline
    and FakeVLM start from the same features. To UnivFD's class token come mean and deviation of the patch
    tokens, for a tower without contrastive training has a poor class token. The setting is the base, a LLaVA.
    """

    name, title, setting = "univfd", "UnivFD", "base"

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.tower = load_clip(base, tower=True)
        self.layer = load_config(base).vision_feature_layer
        self.collator = Collator(load_processor(base))

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return class token, mean and deviation of the patch tokens: (n, 3 · hidden size) float32."""
        pixels = torch.stack([self.collator.normalised(image) for image in images])
        out = self.tower(pixels.to(device()), output_hidden_states=True)
        patches = out.hidden_states[self.layer][:, 1:]
        return torch.cat([out.pooler_output, patches.mean(1), patches.std(1)], 1).float().cpu().numpy()


EXPERTS: dict[str, type[Expert]] = {expert.name: expert for expert in (CNNSpot, UnivFD, Frequency)}


def load_expert(folder: Path) -> Expert:
    """Return the expert that `Expert.save` wrote. Raises `UserError` if there is none, or it was changed."""
    check_sums(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, weights = EXPERTS[config["expert"]], load_file(folder / "model.safetensors")
        expert = kind(config[kind.setting])
        expert.restore(weights)
        expert.predict([Image.new("RGB", (64, 64))])  # the shapes fit
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"no expert in {folder}: {error!r}", "train it: `dvc repro experts`") from error
    check_numbers(folder, weights)
    return expert


def train_experts(params: Params, train: Split, val: Split, out: Path) -> pd.DataFrame:
    """Train `params.experts.train`, save each in `out/<name>/` and the log in `out/log.csv`; return the log.

    After a kill it goes on from the last epoch of CNNSpot and with the features that are computed already.
    """
    experts = params.experts
    settings = {"cnnspot": experts.cnnspot, "univfd": params.base, "frequency": experts.spectrum_size}
    # A run is named by all that decides its weights: settings, seed, first weights, code, and data.
    run = key(
        experts.model_dump(mode="json", exclude={"train"}),
        params.seed,
        [model_version(name) for name in (params.base, experts.cnnspot.model) if name],
        code_version(__name__, "fakevlm.data.records", "fakevlm.model"),
        [columns_of(records, ["sha256", "label"]).to_csv(index=False) for records in (train, val)],
    )
    logs = []
    with work() as cache:
        for name in experts.train:
            expert = EXPERTS[name](settings[name])
            log = expert.fit(train, val, params, cache, key(run, name))
            expert.save(out / name)
            logs.append(log.assign(expert=expert.title)[["expert", *log.columns]])
    table = pd.concat(logs, ignore_index=True)
    table.to_csv(out / "log.csv", index=False)
    return table
