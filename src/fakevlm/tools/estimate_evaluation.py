"""A dry run of the baselines behind servers: what is still to be asked, and what that costs.

`fakevlm estimate evaluate --profile paper` once the benchmarks' records are there (`dvc repro collect
annotate`). Counted and estimated as for the annotators (`annotation.estimate`): what the journals answer is
not counted again.
"""

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.evaluation import baselines, benchmarks
from fakevlm.evaluation.methods import meant_for
from fakevlm.inference.endpoint import EndpointAnnotator
from fakevlm.inference.journal import read_answers
from fakevlm.tools.estimate_annotation import Estimate, estimate


def dry_run(params: Params, rate: float | None = None) -> list[Estimate]:
    """The estimates of a profile, one a benchmark and baseline, named `<baseline>, <benchmark>`.

    Args:
        params: the profile.
        rate: requests a second of one replica; default each entry's `requests_per_second`.

    Raises:
        UserError: records are not there yet; names the stage that makes them.
    """
    found = []
    for benchmark in benchmarks.BENCHMARKS:
        served = meant_for(params.evaluate.baselines, benchmark)
        records = benchmarks.load(params, benchmark) if served else []
        for spec in served:
            # Not `paths.runs`, which makes the folder: a dry run leaves no trace.
            journal = baselines.journal_of(spec, paths.root() / "runs" / "baselines")
            tasks = baselines.Tasks(spec, records)
            named = spec.model_copy(update={"name": f"{spec.name}, {benchmark}"})
            asked = [EndpointAnnotator(spec, params.seed)]
            found += estimate(tasks, [named], asked, read_answers(journal), rate)
    return found
