"""Every architecture that is trained: two trainings with two threads end in the same bytes."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model

import tinyllava
from fakevlm.cache import Cache
from fakevlm.categorize import eva
from fakevlm.categorize.synsets import FOUR
from fakevlm.config.params import GAN, Diffusion
from fakevlm.errors import UserError
from fakevlm.evaluation.experts import CNNSpot, build_resnet
from fakevlm.synthesis.satellite.diffusion import DDPM
from fakevlm.synthesis.satellite.gan import Pix2Pix
from tinyeva import RESNET, TINY

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def resnet(folder: Path) -> None:
    params, expert = tinyllava.params(folder), CNNSpot(RESNET)
    short = params.experts.model_copy(update={"epochs": 2, "batch_size": 8})
    params = params.model_copy(update={"experts": short})
    expert.fit(tinyllava.records(24), tinyllava.records(8, 1), params, Cache(None), "")
    expert.save(folder)


def pix2pix(folder: Path) -> None:
    settings = GAN.model_construct(width=8, depth=2, learning_rate=1e-3, l1_weight=20.0)
    satellites(folder, Pix2Pix(settings, seed=3))


def ddpm(folder: Path) -> None:
    settings = Diffusion.model_construct(widths=[8, 16], fold=2, attention=True, learning_rate=1e-3)
    satellites(folder, DDPM(settings, 32, scale=2.0, seed=3))


def satellites(folder: Path, learner: Pix2Pix | DDPM) -> None:
    generator = torch.Generator().manual_seed(1)
    images, maps = (
        torch.rand(4, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last) for _ in range(2)
    )
    for step in range(6):
        learner.step(images, maps, generator, step / 6)
    for name, network in learner.networks.items():
        save_model(network, folder / f"{name}.safetensors")


def eva02(folder: Path) -> None:
    short = TINY.model_copy(update={"epochs": 2, "batch_size": 8})
    images = [record.pil() for record in tinyllava.records(24, size=16)]
    classifier, _ = eva.train(images, [*FOUR] * 6, short, 3)
    eva.save(classifier, folder)


def llava(folder: Path, objective: str = "explanation") -> None:
    base, data = tinyllava.build(folder / "base"), (tinyllava.records(12), tinyllava.records(4, 1))
    run = tinyllava.run(base, folder / "work", objective, data=data, epochs=1.0, precision="bf16")
    run.train()
    run.export(folder / "out")


@pytest.mark.parametrize("train", [resnet, pix2pix, ddpm, eva02, llava, partial(llava, objective="head")])
def test_two_trainings_end_in_the_same_bytes(train: Callable[[Path], None], tmp_path: Path) -> None:
    weights = []
    for folder in (tmp_path / "once", tmp_path / "again"):
        folder.mkdir()
        train(folder)
        files = [file for file in sorted(folder.rglob("*.safetensors")) if "work" not in file.parts]
        weights.append({str(file.relative_to(folder)): file.read_bytes() for file in files})
    assert weights[0]
    assert weights[0] == weights[1]


def test_widths_that_corrupt_memory_on_some_processors_are_refused() -> None:
    with pytest.raises(UserError, match="a layer of 4 channels") as error:
        build_resnet(RESNET.model_copy(update={"model": "efficientnet_b0"}), pretrained=False)
    assert "multiples of 8" in error.value.cure
