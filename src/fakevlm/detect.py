"""Judge your own images: `fakevlm detect PATH…`."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image, ImageOps

from fakevlm.config.params import Params
from fakevlm.data.records import REAL, Record, rgb

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
PORTION = 64  # images in memory at a time


@dataclass(frozen=True)
class Answer:
    """FakeVLM's answer about one image.

    Attributes:
        path: the image file.
        verdict: fake, real, or unparsed if the text gives no verdict.
        p_fake: probability that the image is fake, 0–1.
        text: the verdict and the explanation in words.
    """

    path: str
    verdict: str
    p_fake: float
    text: str


@dataclass(frozen=True)
class Unreadable:
    """A path that could not be read as an image, and why."""

    path: str
    error: str


def image_files(names: Iterable[str]) -> Iterator[Path | Unreadable]:
    """Yield the image files that the names stand for; of a folder all images in it, at any depth, sorted."""
    for name in names:
        path = Path(name).expanduser()
        if not name.strip():
            yield Unreadable(name, "the name is empty")
        elif "://" in name:
            yield Unreadable(name, "this is an address: download the image and name the file")
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            yield from files
            if not files:
                yield Unreadable(name, "the folder holds no image")
        else:
            yield path


def read_image(path: Path) -> Image.Image:
    """Return an image file as upright RGB (cameras note the rotation beside the pixels).

    Raises:
        ValueError: it cannot be read; the message says why.
    """
    try:
        with Image.open(path) as image:
            return rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise ValueError("no such file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image: {error}") from error


def detect(
    names: Sequence[str], params: Params, model: str | Path | None = None
) -> Iterator[Answer | Unreadable]:
    """Yield FakeVLM's answer for every image file, in order; nothing is written.

    Args:
        names: image files and folders.
        params: the profile; `evaluate` says how the model is asked.
        model: folder or hub name of the weights; None: those that stage `finetune` made, or `evaluate.model`.

    Raises:
        UserError: the model is missing, or its weights do not fit it.
    """
    from fakevlm.evaluation.methods import tuned

    model = model or tuned(params)  # before the slow imports: a missing model is reported at once
    from fakevlm.inference import generate
    from fakevlm.inference.predict import predict
    from fakevlm.model.llava import DTYPES

    settings = params.evaluate
    llava = generate.predictor(
        model,
        DTYPES[settings.precision],
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        prompt=settings.prompt,
    )
    files = image_files(names)
    while portion := list(islice(files, PORTION)):
        records, errors = [], {}
        for n, path in enumerate(portion):
            if isinstance(path, Unreadable):
                errors[n] = path
                continue
            try:
                records.append(_record(n, path))
            except ValueError as error:
                errors[n] = Unreadable(str(path), str(error))
        columns = predict(llava, records, desc="detect")
        rows: Iterator[tuple[str, float, str]] = iter(())
        if records:
            rows = zip(columns["verdict"], columns["p_fake"].tolist(), columns["text"], strict=True)
        for n, path in enumerate(portion):
            yield errors[n] if n in errors else Answer(str(path), *next(rows))


def _record(number: int, path: Path) -> Record:
    stream = io.BytesIO()
    read_image(path).save(stream, "PNG")
    return Record(id=str(number), image=stream.getvalue(), label=REAL, source="user", item=str(number))
