"""Which stages take part in a profile: one whose section of params.yaml is null is left out.

It still runs its notebook, so that every profile has the same graph: the notebook ends at `begin`, which
leaves a note where the stage's output would lie.
"""

from typing import Any

from fakevlm import paths
from fakevlm.config.params import Params

# What a profile goes without when it leaves a stage out, for its note and the report.
SHOWS = {
    "categorize": "sorting images into categories by EVA-02 (Figure 2)",
    "study": "the four paradigms (Figure 3)",
    "finetune": "fine-tuning: training curves, and the linear head of Table 6",
    "experts": "training expert detectors (rows of Tables 2, 3 and 5)",
    "robustness": "the robustness study",
}


class LeftOut(Exception):
    """The profile leaves this stage out. Ends a notebook without a traceback."""

    def _render_traceback_(self) -> list[str]:  # how IPython asks for what to show
        return [str(self)]


def left_out(params: Params) -> dict[str, str]:
    """Return the stages that the profile leaves out, each with the sentence that says so."""
    return {
        stage: f"Not part of profile `{params.profile}` (params.yaml: `{stage}: null`): {what}."
        for stage, what in SHOWS.items()
        if getattr(params, stage) is None
    }


def begin(params: Params, stage: str, *place: str) -> dict[str, Any]:
    """Return a stage's section of params.yaml, to show at its notebook's top.

    Raises `LeftOut` if the profile leaves the stage out; its output folder (below `artifacts/<stage>/` the
    `place`) then holds a note that says so.
    """
    sentence = left_out(params).get(stage)
    if sentence is None:
        return params.show(stage)
    folder = paths.artifacts(stage, *place)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(sentence + "\n", encoding="utf-8")
    raise LeftOut(sentence)
