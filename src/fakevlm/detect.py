"""Judge your own images: `fakevlm detect PATH…`."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from fakevlm.config.params import Params
from fakevlm.data.corpora.files import BadImage, decoded, images
from fakevlm.data.records import REAL, Record
from fakevlm.errors import UserError

PORTION, PORTION_BYTES = 64, 64_000_000  # files in memory at a time, and how large they are together


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
        try:
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
        except (OSError, UserError) as error:  # a name too long, a folder without rights, …
            yield Unreadable(name, str(error))


def read_record(path: Path) -> Record:
    """Return an image file as a record. Raises `ValueError`, which says why, if it cannot be read."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("neither a file nor a folder")
        record = Record(id=str(path), image=path.read_bytes(), label=REAL, source="user")
        decoded(record)
        return record
    except FileNotFoundError as error:
        raise ValueError("no such file") from error
    except (OSError, BadImage, MemoryError) as error:
        raise ValueError(f"not a readable image: {error}") from error


def _read(file: Path | Unreadable) -> Record | Unreadable:
    try:
        return read_record(file) if isinstance(file, Path) else file
    except ValueError as error:
        return Unreadable(str(file), str(error))


def _portion(read: Iterator[Record | Unreadable]) -> Iterator[Record | Unreadable]:
    """Yield what is answered together: at most `PORTION` images, fewer if their files are large."""
    size = 0
    for each in islice(read, PORTION):
        yield each
        if (size := size + len(getattr(each, "image", b""))) > PORTION_BYTES:
            return


def detect(
    names: Sequence[str], params: Params, model: str | Path | None = None
) -> Iterator[Answer | Unreadable]:
    """Yield FakeVLM's answer for every image file, in order; nothing is written.

    `model` is a folder or hub name; None: what stage `finetune` made, or `evaluate.model`. Raises
    `UserError` if the model is missing, or its weights do not fit it.
    """
    from fakevlm.evaluation.benchmarks import tuned

    model = model or tuned(params)  # before the slow imports: a missing model is reported at once
    from fakevlm.inference import generate
    from fakevlm.inference.predict import predict

    asked, precision = params.evaluate, params.evaluate.precision
    size, longest = asked.batch_size, asked.max_new_tokens
    llava = generate.predictor(model, precision, batch_size=size, max_new_tokens=longest, prompt=asked.prompt)
    read = map(_read, image_files(names))
    while portion := list(_portion(read)):
        columns = predict(llava, [each for each in portion if isinstance(each, Record)], desc="detect")
        rows = count()
        for each in portion:
            if isinstance(each, Unreadable):
                yield each
            else:
                n = next(rows)
                p_fake = float(columns["p_fake"][n])
                yield Answer(each.id, columns["verdict"][n], p_fake, columns["text"][n])
