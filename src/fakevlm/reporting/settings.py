"""What ran: this run's settings beside the paper's, taken from params.yaml and the artifacts, never from memory."""

from typing import Any

from fakevlm.config.params import Params
from fakevlm.reporting.inputs import Inputs
from fakevlm.reporting.published import Published, Setting
from fakevlm.reporting.table1 import annotators
from fakevlm.reporting.words import count


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return count(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _split(params: Params) -> str:
    if params.annotate.annotators:
        return "by source item (a video and its manipulations stay together)"
    return "the released one, by image; validation taken out of training by source item"


def _aggregator(params: Params) -> str:
    if not params.annotate.annotators:
        return "the release's"
    aggregator = params.annotate.aggregator
    if aggregator.backend == "embedding":
        return f"sentence embeddings ({aggregator.encoder})"
    return f"{aggregator.model}{', which sees the image' if aggregator.with_image else ''}"


def _training(inputs: Inputs, theirs: dict[str, Setting]) -> list[tuple[str, str, str]]:
    """How FakeVLM was trained, row by row; where it was not trained here, the paper's side alone."""
    tune, none = inputs.params.finetune, "not trained in this profile"
    rate = theirs["learning_rate"]
    per_step = int(theirs["gpus"].value) * int(theirs["batch_per_gpu"].value)
    rows = [
        ("Trained", str(theirs["tuned"].value)),
        ("Epochs", str(theirs["epochs"].value)),
        ("Images a step", f"{per_step} ({theirs['gpus'].value} GPUs × {theirs['batch_per_gpu'].value})"),
        ("Learning rate", f"{rate.value:g} in print, {rate.released:g} in the authors' script"),
        (
            "Warm-up, then",
            f"{theirs['warmup_ratio'].value:g} of the steps, {theirs['schedule'].value}",
        ),
        ("Precision", "not stated (bf16 in the authors' script)"),
    ]
    if tune is None:
        return [(*row, none) for row in rows]
    parts = {"vision tower": tune.train_vision, "projector": tune.train_projector, "LLM": tune.train_llm}
    ours = (
        ", ".join(name for name, on in parts.items() if on),
        _number(tune.epochs),
        _number(tune.batch_size * tune.gradient_accumulation * tune.ranks),
        f"{tune.learning_rate:g}",
        f"{tune.warmup_ratio:g} of the steps",
        tune.precision,
    )
    return [(*row, value) for row, value in zip(rows, ours, strict=True)]


def settings(inputs: Inputs, published: Published) -> list[tuple[str, str, str]]:
    """(what, in the paper, in this run), for the report's table of differences."""
    params, theirs, config = inputs.params, published.training, inputs.config
    vision, text = config.get("vision_config", {}), config.get("text_config", {})
    sizes = inputs.fakeclue.split.value_counts()
    split = ", ".join(f"{count(sizes.get(s, 0))} {s}" for s in ("train", "val", "test"))
    released = published.release.frame().groupby("split").n.sum()
    rows = [
        ("Base model", str(theirs["base"].value), params.base),
        ("Weights", "about 7 billion", count(inputs.weights) if inputs.weights else "unknown"),
        (
            "Image side, patch side",
            f"{theirs['image_size'].value} px, {theirs['patch_size'].value} px",
            f"{vision.get('image_size', '?')} px, {vision.get('patch_size', '?')} px",
        ),
        ("Language model's width", "4,096", _number(text.get("hidden_size", "?"))),
        ("FakeClue", f"{count(released['train'])} train, {count(released['test'])} test (release)", split),
        (
            "Annotators",
            "Qwen2-VL, InternVL, Deepseek",
            ", ".join(a.name for a in params.annotate.annotators) + f" ({annotators(params)})"
            if params.annotate.annotators
            else annotators(params),
        ),
        ("Aggregator", "a language model that is not named", _aggregator(params)),
        ("Split", "at random, by image", _split(params)),
        *_training(inputs, theirs),
        ("Encoder for CSS", "not stated", params.evaluate.encoder),
        ("Intervals", "none", f"95 %, {count(params.evaluate.bootstrap)} bootstrap draws"),
    ]
    return rows


def counts(inputs: Inputs) -> list[tuple[str, str]]:
    """(what, how many) of the run's data: collected, quarantined, dropped, asked."""
    same = (inputs.leakage["kind"] == "content").tolist()
    rows = [
        ("images collected from the training corpora", count(inputs.sources.n.sum())),
        ("unreadable images quarantined", count(len(inputs.quarantine))),
        ("duplicates dropped", count(len(inputs.duplicates))),
        ("benchmark images that are in the training corpora, byte for byte", count(sum(same))),
        ("benchmark images that look like one in the training corpora", count(len(same) - sum(same))),
        ("captions by annotators", count(len(inputs.candidates))),
        ("images in FakeClue", count(len(inputs.fakeclue))),
        ("images whose true artifacts are known", count(len(inputs.ground_truth))),
    ]
    answers = sum(len(frame) for frame in inputs.predictions.values())
    return [*rows, ("answers scored, all methods and benchmarks", count(answers))]


def remarks(inputs: Inputs) -> list[str]:
    """Why this run's numbers differ from the paper's, as far as its settings say."""
    found = []
    if any(a.backend == "observer" for a in inputs.params.annotate.annotators):
        found.append(
            "The annotators are scripted observers, not language models: each sees part of the truth, misses some, invents some, "
            "and writes in its own style. Their clues are simpler and more alike than people's or models' words, which raises ROUGE-L and CSS."
        )
    if inputs.ground_truth:
        found.append(
            "The images are drawn by a program that knows what it painted. So this run can measure what the paper could not: whether "
            "the clues that an explanation names are there. It also means that the numbers say nothing about photographs."
        )
    if inputs.weights and inputs.weights < 1_000_000_000:
        found.append(
            f"The model has {count(inputs.weights)} weights where the paper's has about 7 billion: numbers in the columns of this run "
            "are for comparing methods with one another, not with the paper's."
        )
    found.append(
        "ROUGE-L and CSS reward the wording that all answers share (the opening sentence, the order of clauses), right or wrong; "
        "clue precision and recall stand beside them where the truth is known."
    )
    if inputs.params.annotate.annotators:
        found.append(
            "FakeClue is split by source item here, so frames of one video never lie on both sides; the released split is by image."
        )
    return found
