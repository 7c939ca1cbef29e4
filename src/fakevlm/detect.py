"""Judge your own images: `fakevlm detect PATH…`."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from PIL import Image

from fakevlm.config.params import Params
from fakevlm.data.corpora.files import images
from fakevlm.data.records import REAL, Record, encode, open_image, rgb

PORTION = 64  # images in memory at a time


@dataclass(frozen=True)
class Answer:
    """FakeVLM's answer about one image."""

    path: str
    verdict: str  # fake, real, or unparsed if the text gives no verdict
    p_fake: float  # probability that the image is fake, 0–1
    text: str  # the verdict and the explanation in words


@dataclass(frozen=True)
class Unreadable:
    """A path that could not be read as an image, and why."""

    path: str
    error: str


def image_files(names: Iterable[str]) -> Iterator[Path | Unreadable]:
    """Yield the image files that the names stand for; of a folder all images in it, at any depth, sorted."""
    for name in names:
        path = Path(os.path.expanduser(name))
        if not name.strip():
            yield Unreadable(name, "the name is empty")
        elif "://" in name:
            yield Unreadable(name, "this is an address: download the image and name the file")
        elif path.is_dir():
            yield from (files := images(path))
            if not files:
                yield Unreadable(name, "the folder holds no image")
        else:
            yield path


def read_image(path: Path) -> Image.Image:
    """Return an image file as upright RGB.

    Raises:
        ValueError: it cannot be read; the message says why.
    """
    try:
        with open_image(path) as image:
            return rgb(image)
    except FileNotFoundError as error:
        raise ValueError("no such file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image: {error}") from error


def _record(path: Path) -> Record | Unreadable:
    try:
        return Record(id=str(path), image=encode(read_image(path), "PNG"), label=REAL, source="user")
    except ValueError as error:
        return Unreadable(str(path), str(error))


def detect(
    names: Sequence[str], params: Params, model: str | Path | None = None
) -> Iterator[Answer | Unreadable]:
    """Yield FakeVLM's answer for every image file, in order; nothing is written.

    Args:
        names: image files and folders.
        model: folder or hub name of the weights; None: those that stage `finetune` made, or `evaluate.model`.

    Raises:
        UserError: the model is missing, or its weights do not fit it.
    """
    from fakevlm.evaluation.benchmarks import tuned

    model = model or tuned(params)  # before the slow imports: a missing model is reported at once
    from fakevlm.inference import generate
    from fakevlm.inference.predict import predict
    from fakevlm.model.llava import DTYPES

    asked, precision = params.evaluate, DTYPES[params.evaluate.precision]
    size, longest = asked.batch_size, asked.max_new_tokens
    llava = generate.predictor(model, precision, batch_size=size, max_new_tokens=longest, prompt=asked.prompt)
    files = image_files(names)
    while portion := list(islice(files, PORTION)):
        read = [_record(file) if isinstance(file, Path) else file for file in portion]
        columns = predict(llava, [each for each in read if isinstance(each, Record)], desc="detect")
        rows = count()
        for each in read:
            if isinstance(each, Unreadable):
                yield each
            else:
                n = next(rows)
                p_fake = float(columns["p_fake"][n])
                yield Answer(each.id, columns["verdict"][n], p_fake, columns["text"][n])
