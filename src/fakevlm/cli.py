"""The command `fakevlm`. Each subcommand imports what it needs, so that `--help` is quick."""

import io
import json
import sys
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Literal

import typer

from fakevlm.errors import UserError

app = typer.Typer(
    help="FakeVLM: is an image fake, and why? From raw images to every table and figure of the paper.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Profile = Annotated[
    str | None, typer.Option(help="Section of params.yaml.", show_default="the one the file names")
]


def _shown(text: str) -> str:
    """Return names and words from outside without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


@app.command()
def detect(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Image files and folders of images.")],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of other weights, in Hugging Face format.", show_default="this run's model"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    profile: Profile = None,
) -> None:
    """Judge images: verdict, probability of fake, and the reasons in words.

    Exit code 0: all images were answered. 2: some could not be read; they are named, the others are answered.
    1: nothing could be answered, because the model is missing or its weights do not fit.
    """
    from fakevlm.config.params import load_params
    from fakevlm.detect import Unreadable, detect

    unreadable = 0
    for result in detect(paths, load_params(profile), model):
        unreadable += isinstance(result, Unreadable)
        if as_json:
            print(json.dumps(asdict(result), ensure_ascii=False), flush=True)
        elif isinstance(result, Unreadable):
            print(_shown(f"{result.path}: {result.error}"), file=sys.stderr)
        else:
            verdict = "NO VERDICT" if result.verdict == "unparsed" else result.verdict.upper()
            print(_shown(f"{result.path}: {verdict}, P(fake) = {result.p_fake:.3f}"), flush=True)
            print(_shown(f"  {result.text or '(no words)'}"), flush=True)
    if unreadable:
        raise typer.Exit(2)


@app.command()
def repro(
    stages: Annotated[
        list[str] | None, typer.Argument(help="Up to which stages.", show_default="all")
    ] = None,
) -> None:
    """Run every stage that is out of date, several at once; after the last one print the main numbers."""
    from fakevlm.repro import main

    if not main(stages or []):
        raise typer.Exit(1)
    if not stages:
        summary()


@app.command()
def stage(
    notebook: Annotated[str, typer.Argument(help="Name of a notebook, such as 06_evaluate.")],
    parameters: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Parameters of the notebook.")
    ] = None,
    profile: Profile = None,
) -> None:
    """Run one notebook as one stage of the pipeline, as dvc.yaml does.

    Exit code 0: done. 1: a cell failed. 2: something you can fix; the message says what. 130: interrupted.
    """
    from fakevlm.stage import main

    raise typer.Exit(main(notebook, profile, dict(_pair(text) for text in parameters or [])))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"{text!r} is not KEY=VALUE", "write a parameter as benchmark=loki")
    return key, value


@app.command()
def verify(
    corpora: Annotated[
        list[str] | None,
        typer.Argument(metavar="CORPUS[=FOLDER]", help="Which corpora.", show_default="the profile's"),
    ] = None,
    profile: Profile = None,
) -> None:
    """Check that the corpora are complete, and say where to get what is missing.

    Exit code 0: all complete. 1: something is missing.
    """
    from fakevlm.tools.verify import main

    raise typer.Exit(main(corpora or [], profile))


@app.command()
def unpack(
    archive: Annotated[Path, typer.Argument(help="A zip or tar file.")],
    folder: Annotated[Path, typer.Argument(help="The new folder.")],
    max_bytes: Annotated[int, typer.Option(help="Most bytes to unpack.")] = 2_000_000_000_000,
    max_ratio: Annotated[float, typer.Option(help="Most bytes out of one packed byte.")] = 100.0,
) -> None:
    """Unpack an archive that you do not trust: no links, no paths outside the folder, bounded size."""
    from fakevlm.tools.archives import unpack

    print(f"{unpack(archive, folder, max_bytes, max_ratio):,} files in {folder}")


@app.command()
def estimate(
    what: Annotated[
        Literal["annotate", "evaluate"],
        typer.Argument(help="The annotators of FakeClue, or the baselines of Tables 2 and 4."),
    ],
    rate: Annotated[
        float | None, typer.Option(help="Requests a second of one replica.", show_default="as in params.yaml")
    ] = None,
    profile: Profile = None,
) -> None:
    """Estimate requests, tokens, GPU hours and cost of the questions still to ask. Asks nothing."""
    from fakevlm.config.params import load_params
    from fakevlm.tools.estimate import annotation, evaluation, table

    if rate is not None and not rate > 0:
        raise UserError(f"--rate {rate} is not a rate", "give requests a second, above 0")
    estimates = (annotation if what == "annotate" else evaluation)(load_params(profile), rate)
    print(table(estimates) if estimates else f"params.yaml names no server in {what}")


@app.command()
def summary(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="FakeVLM's numbers as a Markdown table.")
    ] = False,
) -> None:
    """Print the main numbers of the last run beside the paper's."""
    from fakevlm import summary
    from fakevlm.paths import figures

    print(summary.markdown(figures()) if markdown else summary.render(figures()))


@app.command()
def threshold(profile: Profile = None) -> None:
    """Print the clues' precision and recall by similarity, where the ground truth is known."""
    from fakevlm.config.params import load_params
    from fakevlm.paths import artifacts
    from fakevlm.tools.threshold import sweep

    table = sweep(load_params(profile), artifacts("annotate"), artifacts("collect", "ground_truth.jsonl"))
    print(table.round(3).to_string(index=False))


@app.command()
def persons(source: Annotated[Path, typer.Argument(help="data.noun of WordNet 3.0.")]) -> None:
    """Write the list of ImageNet-22k classes that are people."""
    from fakevlm.tools.wordnet import main

    print(f"{main(source):,} synsets of people")


def main() -> None:
    """Run the command line. A mistake that the user can fix is printed without a traceback; exit code 1."""
    try:
        for entry in entry_points(group="fakevlm.commands"):
            app.command(entry.name)(entry.load())
        for stream in (sys.stdout, sys.stderr):  # LANG=C, or a file name that is no UTF-8
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        app()
    except (UserError, OSError) as error:  # also a full disk, a folder without rights
        print(_shown(f"error: {error}"), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
