"""CNNSpot (Wang et al., CVPR 2020): a ResNet trained to tell real from fake, with blur and JPEG augmentation.

The paper's is a ResNet-50 pretrained on ImageNet. `experts.cnnspot` names it, or sizes a smaller one of
random weights.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.models.resnet import BasicBlock, ResNet

from fakevlm.config.base import check_widths
from fakevlm.config.params import CNNSpotSettings, Params
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.evaluation.experts.augment import augment
from fakevlm.evaluation.experts.base import (
    Expert,
    Progress,
    batches,
    mark_best,
    read,
    square,
    targets,
    validation_scores,
    write,
)
from fakevlm.model.llava import device
from fakevlm.progress import bar

# ImageNet's, as timm's ResNets expect
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def build(settings: CNNSpotSettings, pretrained: bool) -> torch.nn.Module:
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
        return ResNet(
            BasicBlock, tuple(settings.layers), num_classes=1, channels=widths, stem_width=settings.width
        )
    try:
        model = timm.create_model(settings.model, pretrained=pretrained, num_classes=1)
    except Exception as error:  # timm and the hub raise many kinds for one mistake: a wrong name
        raise UserError(
            f"experts.cnnspot.model: {settings.model!r} cannot be made ({type(error).__name__}: {error})",
            "name a model that timm.list_pretrained('resnet*') lists, such as resnet50.tv_in1k",
        ) from error
    check_widths(settings.model, *(m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)))
    return model


def tensor(pixels: Sequence[np.ndarray]) -> torch.Tensor:
    """Return (h, w, 3) uint8 images as (n, 3, h, w) float32, normalised, in channels-last layout."""
    batch = (np.stack(pixels).astype(np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(batch).permute(0, 3, 1, 2)


class CNNSpot(Expert):
    """The ResNet of the epoch with the best validation AUC."""

    name, title = "cnnspot", "CNNSpot"

    def __init__(self, settings: CNNSpotSettings, model: torch.nn.Module | None = None) -> None:
        self.settings, self.model = settings, model

    def _examples(
        self, records: Sequence[Record], fake: np.ndarray, params: Params, seed: list[int]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield shuffled, augmented batches. Each image has a generator of its own: batches do not matter."""
        size, crop, chance = self.settings.size, self.settings.crop, self.settings.augment
        for rows in batches(np.random.default_rng(seed).permutation(len(records)), params.experts.batch_size):
            pixels = [
                augment(square(records[n].pil(), size), np.random.default_rng([*seed, n]), chance, crop)
                for n in rows
            ]
            yield tensor(pixels), torch.from_numpy(fake[rows])

    def fit(
        self, train: Sequence[Record], val: Sequence[Record], params: Params, seed: int, progress: Progress
    ) -> pd.DataFrame:
        fake, val_fake = targets(train), targets(val)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = build(self.settings, pretrained=True)
        self.model.to(device(), memory_format=torch.channels_last)
        epochs, rate = params.experts.epochs, params.experts.learning_rate
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=1e-2)
        steps = max(2, epochs * -(-len(train) // params.experts.batch_size))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
        stateful = (self.model, optimizer, schedule)
        log, best = [], {}
        if (stored := progress.get("epochs")) is not None:
            earlier = torch.load(io.BytesIO(stored), map_location=device(), weights_only=True)
            for part, state in zip(stateful, earlier["states"], strict=True):
                part.load_state_dict(state)
            log, best = earlier["log"], earlier["best"]
        with bar(epochs * len(train), "CNNSpot: training") as shown:
            shown.update(len(log) * len(train))
            for epoch in range(len(log), epochs):
                total = 0.0
                self.model.train()
                for pixels, wanted in self._examples(train, fake, params, [seed, epoch]):
                    logits = self.model(pixels.to(device()))[:, 0]
                    loss = F.binary_cross_entropy_with_logits(logits, wanted.to(device()))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    total += loss.item() * len(wanted)
                    shown.update(len(wanted))
                scores = validation_scores(val_fake, self._scores(val, params.experts.batch_size))
                log.append({"setting": f"epoch={epoch + 1}", "train_loss": total / len(train), **scores})
                if mark_best(log).chosen.iloc[-1]:
                    best = {key: value.clone() for key, value in self.model.state_dict().items()}
                buffer = io.BytesIO()
                states = [part.state_dict() for part in stateful]
                torch.save({"states": states, "log": log, "best": best}, buffer)
                progress.put(buffer.getvalue(), "epochs")
        self.model.load_state_dict(best)
        self.model.eval()
        return mark_best(log)

    def _scores(self, records: Sequence[Record], size: int) -> np.ndarray:
        return np.concatenate([self.predict([r.pil() for r in batch]) for batch in batches(records, size)])

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.model.eval()
        edge = (self.settings.size - self.settings.crop) // 2
        inner = slice(edge, edge + self.settings.crop)
        pixels = tensor([square(image, self.settings.size)[inner, inner] for image in images])
        return self.model(pixels.to(device()))[:, 0].double().sigmoid().cpu().numpy()

    def save(self, folder: Path) -> None:
        write(folder, self.name, self.model.state_dict(), {"settings": self.settings.model_dump()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        tensors, config = read(folder)
        settings = CNNSpotSettings(**config["settings"])
        model = build(settings, pretrained=False)
        model.load_state_dict(tensors)
        return cls(settings, model.eval().to(device(), memory_format=torch.channels_last))
