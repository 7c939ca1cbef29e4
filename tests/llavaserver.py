"""A server that speaks chat completions as vLLM or SGLang do, with a tiny LLaVA behind it.

`python tests/llavaserver.py MODEL [ANSWERS as JSON]` prints its port and serves until killed. Its address
says how it speaks: `http://127.0.0.1:<port>/<style>/v1`, with anything between style and v1, so that one
process is several replicas.

Styles: `vllm` gives the tokens that were asked for, `old` (a vLLM that does not know that field) the
likeliest, both by their numbers; `sglang` the likeliest by their text, and token ids beside; `bare` only
texts, as a hosted API does; `other` is `vllm` with another chat template; `limited` answers 400 as a vLLM
whose `--max-logprobs` is too small.
"""

import base64
import io
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonserver import completion, running, serve


@contextmanager
def serving(model: Path, answers: list[str] | None = None) -> Iterator[str]:
    """A server process; yields its address without the style."""
    with running(__file__, str(model), json.dumps(answers)) as port:
        yield f"http://127.0.0.1:{port}"


class Model:
    """Greedy answers to request bodies, one at a time."""

    def __init__(self, folder: Path, answers: list[str] | None) -> None:
        import tinyllava
        from fakevlm.model.llava import load_model, load_processor

        self.lock = threading.Lock()
        self.model, self.processor = load_model(folder, device="cpu"), load_processor(folder)
        if answers:
            self.model.generate = tinyllava.scripted(self.model, self.processor, answers)

    def complete(self, style: str, body: dict[str, Any]) -> dict[str, Any] | tuple[int, dict[str, Any]]:
        if style == "limited":
            message = "Requested sample logprobs of 20, which is greater than max allowed: 5"
            return 400, {"error": {"message": message, "type": "BadRequestError", "code": 400}}
        import torch
        from PIL import Image
        from transformers import LogitsProcessorList

        rows: list[torch.Tensor] = []

        def watch(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            rows.append(scores[0].float().log_softmax(-1))
            return scores

        url = next(p["image_url"]["url"] for p in body["messages"][0]["content"] if p["type"] == "image_url")
        image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
        for part in body["messages"][0]["content"]:
            if part["type"] == "image_url":
                part["type"] = "image"
        text = self.processor.apply_chat_template(
            body["messages"],
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
        )
        text = text.replace("USER", "HUMAN") if style == "other" else text
        inputs = self.processor(
            images=image, text=text, return_tensors="pt", add_special_tokens=body["add_special_tokens"]
        )
        end = self.processor.tokenizer.eos_token_id
        options = {"do_sample": False, "max_new_tokens": body["max_tokens"], "eos_token_id": end}
        options |= {"pad_token_id": end, "logits_processor": LogitsProcessorList([watch])}
        with self.lock, torch.inference_mode():
            output = self.model.generate(**inputs, **options)
        prompt = inputs["input_ids"][0].tolist()
        ids = output[0, len(prompt) :].tolist()
        return self._completion(style, body, prompt, ids, rows)

    def _completion(
        self, style: str, body: dict, prompt: list[int], ids: list[int], rows: list
    ) -> dict[str, Any]:
        tokenizer, numbers = self.processor.tokenizer, style in ("vllm", "old", "other")

        def one(token: int, row: Any) -> dict[str, Any]:
            text = f"token_id:{token}" if numbers else tokenizer.decode([token])
            return {"token": text, "logprob": float(row[token])}

        content = []
        for token, row in zip(ids, rows, strict=True):
            shown = row.topk(body["top_logprobs"]).indices.tolist()
            if style in ("vllm", "other"):
                shown = [token, *body["logprob_token_ids"]]
            content.append({**one(token, row), "top_logprobs": [one(other, row) for other in shown]})
        finish = "stop" if ids[-1] == tokenizer.eos_token_id else "length"
        body = completion(tokenizer.decode(ids, skip_special_tokens=True), finish)
        body["choices"][0] |= {"logprobs": {"content": content}}
        body["choices"][0] |= {"token_ids": ids} if style == "sglang" else {}
        return body | ({} if style == "bare" else {"prompt_token_ids": prompt})


if __name__ == "__main__":
    model = Model(Path(sys.argv[1]), json.loads(sys.argv[2]))
    serve(lambda path, body: model.complete(path.split("/")[1], body))
