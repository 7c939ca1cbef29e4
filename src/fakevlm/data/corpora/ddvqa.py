"""DD-VQA (Zhang et al., ECCV 2024): questions about faces of FaceForensics++. A benchmark only.

<root>/{train_set,test_set}/<Method>/<Method>.json, also below <root>/DQ_FF++:
{"<mid>_<video>": {"0": {"question": …, "answer": [text, …]}, "1": …}}, mid of `METHODS`
"""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from fakevlm.data.corpora import ffpp
from fakevlm.data.corpora.files import SOURCES, Unusable, listing
from fakevlm.data.records import FAKE, REAL, Record
from fakevlm.prefetch import prefetch

SOURCE = SOURCES["ddvqa"]
METHODS = {"0": "Deepfakes", "1": "Face2Face", "2": "FaceShifter", "3": "FaceSwap", "6": "NeuralTextures"}
METHODS |= {"5": None}

# FF++ method, None for an original; video; its questions as (number, question, answers)
Entry = tuple[str | None, str, list[tuple[str, str, list[str]]]]


def entries(root: Path, split: str) -> Iterator[Entry]:
    """Yield the questions of a split (`train` or `test`), by video. Raises `UserError` as `read` does."""
    base = root / "DQ_FF++" if (root / "DQ_FF++").is_dir() else root
    folder = SOURCE.folder(base / f"{split}_set")
    files = [file for file in listing(folder, "*/*.json") if file.stem == file.parent.name]
    if not files:
        raise SOURCE.error(f"no <Method>/<Method>.json in {folder}")
    for file in files:
        for key, entry in SOURCE.json(file, dict).items():
            mid, _, video = key.partition("_")
            if mid not in METHODS or not ffpp.VIDEO.fullmatch(video):
                raise SOURCE.error(f"{file}, entry {key!r}: not <method>_<video>")
            try:
                rows = sorted(entry.items(), key=lambda pair: int(pair[0]))
                questions = [(number, row["question"], row["answer"]) for number, row in rows]
                if not all(isinstance(q, str) and isinstance(answers, list) for _, q, answers in questions):
                    raise TypeError("a question is no text, or its answers are no list")
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                what = f"{file}, entry {key!r}: not questions with answers ({error!r})"
                raise SOURCE.error(what) from error
            yield METHODS[mid], video, questions


def read(root: Path, ffpp_root: Path, frames_per_video: int, **options: Any) -> Iterator[Record | Unusable]:
    """Stream one record a question of the test split, with the answers as references.

    Which frame a question shows is not published. As its authors do, this takes one frame a question, in
    order, and starts again when a video has more questions than frames. The frames come from FaceForensics++,
    by the options of `ffpp.read`; a video that it lacks is unusable. Raises `UserError` if the split's folder
    is missing, holds no JSON, or a JSON is not DD-VQA's.
    """
    asked = list(entries(root, "test"))
    decoded = prefetch(lambda e: ffpp.video_frames(ffpp_root, *e[:2], frames_per_video, **options), asked)
    for (method, video, questions), (pictures, unusable) in zip(asked, decoded, strict=True):
        yield from unusable
        fields = {"label": FAKE if method else REAL, "source": "ddvqa", "group": video.split("_")[0]}
        fields |= {"category": "deepfake", "generator": method, "split": "test"}
        for (number, question, answers), (name, image) in zip(questions, cycle(pictures), strict=False):
            path = f"{ffpp.frame_id(method, video, name)}#{number}"
            # A question without an answer has an empty one, and is set aside for it.
            yield Record(id=path, image=image, question=question, references=answers or [""], **fields)
