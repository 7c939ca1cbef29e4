"""A dry run of the baselines behind servers: what is still to be asked, and what that costs. Nothing is asked.

`python -m fakevlm.evaluation.estimate --profile paper` once the benchmarks' records are there (`dvc repro collect annotate`).
Counted and estimated as for the annotators (`annotation.estimate`): what the journals answer is not counted again.
"""

import argparse
import sys

from fakevlm import paths
from fakevlm.annotation.endpoint import EndpointAnnotator
from fakevlm.annotation.estimate import Estimate, estimate, table
from fakevlm.annotation.journal import read_answers
from fakevlm.errors import UserError
from fakevlm.evaluation import baselines, benchmarks
from fakevlm.params import Params, load_params


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
        served = benchmarks.meant_for(params.evaluate.baselines, benchmark)
        records = benchmarks.load(params, benchmark) if served else []
        for spec in served:
            # Not `paths.runs`, which makes the folder: a dry run leaves no trace.
            journal = baselines.journal_of(spec, paths.root() / "runs" / "baselines" / benchmark)
            tasks = baselines.Tasks(spec, records)
            named = spec.model_copy(update={"name": f"{spec.name}, {benchmark}"})
            asked = [EndpointAnnotator(spec, params.seed)]
            found += estimate(tasks, [named], asked, read_answers(journal), rate)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description="What the baselines have yet to be asked, and what that costs. Asks nothing."
    )
    parser.add_argument("--profile", help="a section of params.yaml; default: the one it names")
    parser.add_argument("--rate", type=float, help="requests a second of one replica")
    options = parser.parse_args()
    try:
        if options.rate is not None and not options.rate > 0:
            raise UserError(f"--rate {options.rate}: no rate", "give requests a second, above 0")
        estimates = dry_run(load_params(options.profile), options.rate)
        print(table(estimates) if estimates else "evaluate.baselines names none")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
