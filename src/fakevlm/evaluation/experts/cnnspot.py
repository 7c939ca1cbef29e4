"""CNNSpot (Wang et al., CVPR 2020): a ResNet trained to tell real from fake, with blur and JPEG augmentation.

The paper's is a ResNet-50 pretrained on ImageNet. `experts.cnnspot` names it, or sizes a smaller one of
random weights. Augmentation is its Blur+JPEG (0.5), against reliance on traces that compression erases.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any, Self

import cv2
import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from fakevlm.cache import Cache, key
from fakevlm.config.params import CNNSpotSettings, Params, check_widths
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.evaluation.experts.base import Expert, mark_best, square, targets, validation_scores
from fakevlm.evaluation.vision import IMAGENET, to_tensor
from fakevlm.model.llava import device
from fakevlm.progress import bar

SIGMA, QUALITY = (0.0, 3.0), (30, 100)


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Return (h, w, 3) uint8 blurred; `sigma` in pixels, 0 changes nothing."""
    return cv2.GaussianBlur(pixels, (0, 0), sigma) if sigma > 0.05 else pixels


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return (h, w, 3) uint8 RGB compressed as a JPEG of `quality` (1–100) and decoded."""
    coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]


def augment(pixels: np.ndarray, rng: np.random.Generator, chance: float, crop: int) -> np.ndarray:
    """Return the image after random blur, JPEG, crop and mirror: (crop, crop, 3) uint8.

    Args:
        pixels: (size, size, 3) uint8 RGB.
        chance: of blur, and independently of JPEG (0.5 in the paper).
        crop: side of the crop, at most size.
    """
    if rng.random() < chance:
        pixels = blur(pixels, rng.uniform(*SIGMA))
    if rng.random() < chance:
        pixels = jpeg(pixels, int(rng.integers(QUALITY[0], QUALITY[1] + 1)))
    top, left = rng.integers(0, pixels.shape[0] - crop + 1, 2)
    pixels = pixels[top : top + crop, left : left + crop]
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def build(settings: CNNSpotSettings, pretrained: bool) -> nn.Module:
    """Return the network with one output, the logit of fake.

    Args:
        settings: `model` names a timm ResNet; None builds one of `layers` blocks a stage and widths 1, 2, 4,
            8 × `width`.
        pretrained: load the named model's weights.

    Raises:
        UserError: timm has no such model, its weights cannot be fetched, or a layer's width is not a multiple
            of 8.
    """
    if settings.model is None:
        widths = tuple(settings.width * 2**stage for stage in range(4))
        check_widths("experts.cnnspot", *widths)
        sizes = {"channels": widths, "stem_width": settings.width}
        return ResNet(BasicBlock, tuple(settings.layers), num_classes=1, **sizes)
    try:
        model = timm.create_model(settings.model, pretrained=pretrained, num_classes=1)
    except Exception as error:  # timm and the hub raise many kinds for one mistake: a wrong name
        raise UserError(
            f"experts.cnnspot.model: {settings.model!r} cannot be made ({type(error).__name__}: {error})",
            "name a model that timm.list_pretrained('resnet*') lists, such as resnet50.tv_in1k",
        ) from error
    check_widths(settings.model, *(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)))
    return model


class CNNSpot(Expert):
    """The ResNet of the epoch with the best validation AUC."""

    name, title = "cnnspot", "CNNSpot"

    def __init__(self, settings: CNNSpotSettings, model: nn.Module | None = None) -> None:
        self.settings, self.model = settings, model

    def _examples(
        self, records: Sequence[Record], fake: np.ndarray, params: Params, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield shuffled, augmented batches. Each image has a generator of its own: batches do not matter."""
        settings, size, seed = self.settings, params.experts.batch_size, [params.seed, epoch]
        order = np.random.default_rng(seed).permutation(len(records))
        for start in range(0, len(order), size):
            rows, pixels = order[start : start + size], []
            for n in rows:
                rng = np.random.default_rng([*seed, n])
                image = square(records[n].pil(), settings.size)
                pixels.append(augment(image, rng, settings.augment, settings.crop))
            yield self._tensor(pixels), torch.from_numpy(fake[rows]).to(device())

    @staticmethod
    def _tensor(pixels: Sequence[np.ndarray]) -> Tensor:
        return to_tensor(pixels, IMAGENET).contiguous(memory_format=torch.channels_last)

    def fit(
        self, train: Sequence[Record], val: Sequence[Record], params: Params, cache: Cache, run: str
    ) -> pd.DataFrame:
        fake, val_fake = targets(train), targets(val)
        with torch.random.fork_rng():
            torch.manual_seed(params.seed)
            self.model = build(self.settings, pretrained=True)
        self.model.to(device(), memory_format=torch.channels_last)
        epochs, rate = params.experts.epochs, params.experts.learning_rate
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=1e-2)
        steps = max(2, epochs * -(-len(train) // params.experts.batch_size))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
        stateful = {"model": self.model, "optimizer": optimizer, "schedule": schedule}
        # One value each: SQLite takes at most 1 GB.
        keys = {name: key(run, name) for name in (*stateful, "best", "log")}
        log, best = [], {}
        if cache.get(keys["log"]) is not None:
            state = {name: _unpack(cache.get(place)) for name, place in keys.items()}
            log, best = state["log"], state["best"]
            for name, part in stateful.items():
                part.load_state_dict(state[name])
        with bar(epochs * len(train), "CNNSpot: training") as progress:
            progress.update(len(log) * len(train))
            for epoch in range(len(log), epochs):
                total = 0.0
                self.model.train()
                for pixels, wanted in self._examples(train, fake, params, epoch):
                    loss = F.binary_cross_entropy_with_logits(self.model(pixels)[:, 0], wanted)
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
                state = {name: part.state_dict() for name, part in stateful.items()}
                state |= {"best": best, "log": log}
                cache.put_many({keys[name]: _pack(value) for name, value in state.items()})
        self.model.load_state_dict(best)
        self.model.eval()
        return mark_best(log)

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.model.eval()
        edge = (self.settings.size - self.settings.crop) // 2
        inner = slice(edge, edge + self.settings.crop)
        pixels = self._tensor([square(image, self.settings.size)[inner, inner] for image in images])
        return self.model(pixels)[:, 0].double().sigmoid().cpu().numpy()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return self.model.state_dict(), {"settings": self.settings.model_dump()}

    @classmethod
    def restore(cls, weights: dict[str, Tensor], config: dict[str, Any]) -> Self:
        settings = CNNSpotSettings(**config["settings"])
        model = build(settings, pretrained=False)
        model.load_state_dict(weights)
        return cls(settings, model.eval().to(device(), memory_format=torch.channels_last))


def _pack(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _unpack(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location=device(), weights_only=True)
