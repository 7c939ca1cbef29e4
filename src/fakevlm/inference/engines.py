"""Where a language model answers: in this process, or in the workers of a Ray cluster (`cluster`). Behind servers: `evaluation.served`.

All cut the same batches, keep the same kind of journal and give the same columns. Ray's workers compute what this process
would, so both share the journal's parts: a run begun with one may go on with the other.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from fakevlm.config.params import Cluster, Params
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.inference import cluster
from fakevlm.inference.batchwise import fingerprint
from fakevlm.inference.prediction import (
    COLUMNS,
    Batch,
    answer_batch,
    gather,
    predict,
    settings_of,
)
from fakevlm.model import chat, verdict
from fakevlm.model.llava import DTYPES, load_model, load_processor, locate

# records, longest answer in tokens, the model's journal → see `prediction.gather`
Speaker = Callable[[Sequence[Record], int, Path | None], pd.DataFrame]


def speaker(
    params: Params,
    name: str | Path,
    desc: str,
    prompt: chat.Prompt = "template",
) -> Speaker:
    """Asks a model, here or on the profile's cluster. It is loaded with the first question, and once.

    Args:
        params: the profile; of it, cluster and evaluate's precision and batch_size.
        name: a model's folder or its name on the hub.
        desc: the method's name, for the progress bar.
        prompt: in which form questions are put.

    Raises:
        UserError: (when asked) there is no such model or cluster.
    """
    dtype, size = DTYPES[params.evaluate.precision], params.evaluate.batch_size

    @cache
    def processor() -> Any:
        return load_processor(name)

    @cache
    def model() -> Any:
        return load_model(name, dtype=dtype)

    def local(records: Sequence[Record], longest: int, journal: Path | None) -> pd.DataFrame:
        limits = {"batch_size": size, "max_new_tokens": longest}
        return predict(model(), processor(), records, **limits, prompt=prompt, journal=journal, desc=desc)

    def on_ray(records: Sequence[Record], longest: int, journal: Path | None) -> pd.DataFrame:
        settings = settings_of(processor(), f"torch.{dtype}", longest, prompt)
        answer = _ray(params.cluster, locate(name), dtype, longest, prompt)
        told = {"batch_size": size, "prompt": prompt, "journal": journal, "desc": desc}
        return gather(answer, processor(), records, settings, **told)

    return local if params.cluster is None else on_ray


def journal_of(journal: Path, method: str, name: str | Path) -> Path:
    """The folder, in `journal`, of one model's answers: named after the method and the weights."""
    place = Path(locate(name))
    slug = re.sub(r"\W+", "-", method).strip("-").lower()
    return journal / f"{slug}-{fingerprint(place) if place.is_dir() else _commit(str(name))}"


def _commit(name: str) -> str:
    """The commit of weights on the hub; asking for the configuration alone costs no weights."""
    from transformers import AutoConfig

    try:
        return str(getattr(AutoConfig.from_pretrained(name), "_commit_hash", None))
    except (OSError, ValueError) as error:
        raise UserError(
            f"no model could be found under {name!r}: {error}",
            "name a folder in Hugging Face format or a model of the hub in evaluate.model",
        ) from error


def _ray(
    where: Cluster, name: str, dtype: str, longest: int, prompt: chat.Prompt
) -> Callable[[Iterator[Batch]], Iterator]:
    arguments = {"name": name, "dtype": dtype, "longest": longest, "prompt": prompt}

    def answer(batches: Iterator[Batch]) -> Iterator[tuple[int, pd.DataFrame]]:
        for row in cluster.run(map(_sent, batches), Asked, arguments, where):
            number = row.pop("number")
            yield number, pd.DataFrame({name: row[name] for name in COLUMNS})

    return answer


def _sent(batch: Batch) -> dict[str, Any]:
    """A batch as it travels: encoded images, byte for byte, and what is asked about them."""
    return {
        "number": batch.number,
        "id": [record.id for record in batch.records],
        "image": [record.image for record in batch.records],
        "question": batch.questions,
    }


class Asked:
    """What a Ray worker holds: the model. Called with a batch it gives the answers, one list a column."""

    def __init__(self, name: str, dtype: str, longest: int, prompt: chat.Prompt) -> None:
        self.model, self.processor = load_model(name, dtype=dtype), load_processor(name)
        self.words = verdict.word_ids(self.processor.tokenizer)
        self.longest, self.prompt = longest, prompt

    def __call__(self, sent: dict[str, Any]) -> dict[str, Any]:
        records = [
            Record(id=id, image=image, label=0, source="", item="")
            for id, image in zip(sent["id"], sent["image"], strict=True)
        ]
        batch = Batch(sent["number"], records, sent["question"])
        frame = answer_batch(self.model, self.processor, batch, self.words, self.longest, self.prompt)
        return {"number": batch.number, **frame.to_dict("list")}
