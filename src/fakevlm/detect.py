"""Is this image fake? FakeVLM's answer about your own images: `python -m fakevlm.detect photo.jpg …`.

Exit codes: 0 all images were answered · 2 something the user can cure (no model yet, an unreadable image).
"""

import argparse
import io
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from fakevlm.config.params import Params, load_params
from fakevlm.data.records import REAL, Record, read_records, rgb
from fakevlm.errors import UserError
from fakevlm.evaluation.benchmarks import folder
from fakevlm.evaluation.methods import PRECISIONS, tuned


@dataclass(frozen=True)
class Spotted:
    """What FakeVLM says of one image.

    Attributes:
        name: of the image.
        image: as the model's processor got it, upright RGB.
        verdict: fake, real, or unparsed if its words give none.
        p_fake: probability of fake, 0–1.
        text: its words.
    """

    name: str
    image: Image.Image
    verdict: str
    p_fake: float
    text: str

    def __str__(self) -> str:
        verdict = self.verdict if self.verdict != "unparsed" else "no clear verdict"
        return f"{self.name}: {verdict.upper()}, P(fake) = {self.p_fake:.3f}\n  {self.text or '(no words)'}"


@contextmanager
def _large_allowed() -> Iterator[None]:
    """Without Pillow's warning of many pixels: a large photograph is no attack, and twice as many are an error all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def read_image(path: str | Path) -> Image.Image:
    """An image file as upright RGB (cameras note the rotation beside the pixels).

    Raises:
        UserError: no file is named, there is no such file, or it is not an image that Pillow can read.
    """
    if not str(path).strip():
        raise UserError(
            "an empty name is no image", "name an image file; perhaps a variable of your shell is empty"
        )
    if "://" in str(path):  # as a path it would lose a slash
        raise UserError(f"{path} is an address, and no file", "download it first, then name the file")
    path = Path(path).expanduser()
    try:
        with _large_allowed(), Image.open(path) as image:
            return rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise UserError(f"no image {path}", "check the path; relative ones start where you are") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} is not an image that can be read: {error}", "give a JPEG, PNG or WebP file"
        ) from error


def first_test_image() -> tuple[str, Image.Image]:
    """Name and image of the first record of FakeClue's test split: what is looked at when no image is given.

    Raises:
        UserError: FakeClue has not been made yet.
    """
    record = next(read_records(folder("fakeclue")), None)
    if record is None:
        raise UserError(
            "FakeClue's test split is empty", "make it with `dvc repro annotate`, or name an image"
        )
    return f"{record.id} (in truth {'real' if record.label == REAL else 'fake'})", record.pil()


def spot(images: Iterable[tuple[str, Image.Image]], params: Params) -> list[Spotted]:
    """FakeVLM's answers about named images. Nothing is written.

    Raises:
        UserError: the tuned model is not there yet.
    """
    name = tuned(params)  # before the slow imports: the commonest mistake should answer at once
    from fakevlm.inference.prediction import predict
    from fakevlm.model.llava import load_model, load_processor

    images = list(images)
    records = []
    for title, image in images:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        records.append(Record(id=title, image=stream.getvalue(), label=REAL, source="user", item=title))
    with _large_allowed():  # they are decoded once more
        answered = predict(
            load_model(name, dtype=PRECISIONS[params.evaluate.precision]),
            load_processor(name),
            records,
            batch_size=params.evaluate.batch_size,
            max_new_tokens=params.evaluate.max_new_tokens,
            prompt=params.evaluate.prompt,
            desc="spot",
        )
    return [
        Spotted(title, image, row.verdict, row.p_fake, row.text)
        for (title, image), row in zip(images, answered.itertuples(), strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fakevlm.detect", description="Is this image fake? FakeVLM's answer."
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files (JPEG, PNG, WebP, …)")
    parser.add_argument("--profile", help="section of params.yaml (default: the one it names)")
    options = parser.parse_args(arguments)
    try:
        images = [(str(path), read_image(path)) for path in options.images]
        for answer in spot(images, load_params(options.profile)):
            print(answer)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
