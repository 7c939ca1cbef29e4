"""A server that speaks chat completions as vLLM or SGLang do, with a tiny LLaVA behind it.

Its address says how it speaks: `<address>/<style>/v1`, with anything between style and v1, so that one
server is several replicas. Styles: `vllm` gives the tokens that were asked for, `old` (a vLLM that does not
know that field) the likeliest, both by their numbers; `sglang` the likeliest by their text, and token ids
beside; `bare` only texts, as a hosted API does; `other` is `vllm` with another chat template; `limited`
answers 400 as a vLLM whose `--max-logprobs` is too small.
"""

import base64
import io
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import jsonserver
from fakevlm.model.llava import load_model, load_processor


def serving(folder: Path) -> AbstractContextManager[str]:
    """Serve a model; yield the address without the style."""
    model = Model(folder)
    return jsonserver.serving(lambda path, body: model.complete(path.split("/")[1], body))


class Model:
    """Greedy answers to request bodies, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.Lock()
        self.model, self.processor = load_model(folder, device="cpu"), load_processor(folder)

    def complete(self, style: str, body: dict[str, Any]) -> jsonserver.Reply:
        if style == "limited":
            message = "Requested sample logprobs of 20, which is greater than max allowed: 5"
            return 400, {"error": {"message": message, "type": "BadRequestError", "code": 400}}
        (picture,) = (part for part in body["messages"][0]["content"] if part["type"] == "image_url")
        image = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2])))
        picture["type"] = "image"
        turns = {"add_generation_prompt": True, "continue_final_message": False}
        turns |= {name: body[name] for name in turns if name in body}
        text = self.processor.apply_chat_template(body["messages"], **turns)
        text = text.replace("USER", "HUMAN") if style == "other" else text
        special = {"add_special_tokens": body["add_special_tokens"]}
        inputs = self.processor(images=image.convert("RGB"), text=text, return_tensors="pt", **special)
        end = self.processor.tokenizer.eos_token_id
        options = {"do_sample": False, "max_new_tokens": body["max_tokens"], "eos_token_id": end}
        rows: list[torch.Tensor] = []

        def watch(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            rows.append(scores[0].float().log_softmax(-1))
            return scores

        with self.lock, torch.inference_mode():
            output = self.model.generate(**inputs, **options, pad_token_id=end, logits_processor=[watch])
        prompt = inputs["input_ids"][0].tolist()
        return self._completion(style, body, prompt, output[0, len(prompt) :].tolist(), rows)

    def _completion(
        self, style: str, body: dict, prompt: list[int], ids: list[int], rows: list[torch.Tensor]
    ) -> dict[str, Any]:
        tokenizer, numbers = self.processor.tokenizer, style in ("vllm", "old", "other")

        def one(token: int, row: torch.Tensor) -> dict[str, Any]:
            text = f"token_id:{token}" if numbers else tokenizer.decode([token])
            return {"token": text, "logprob": float(row[token])}

        content = []
        for token, row in zip(ids, rows, strict=True):
            shown = row.topk(body["top_logprobs"]).indices.tolist()
            if style in ("vllm", "other"):
                shown = [token, *body["logprob_token_ids"]]
            content.append({**one(token, row), "top_logprobs": [one(other, row) for other in shown]})
        finish = "stop" if ids[-1] == tokenizer.eos_token_id else "length"
        body = jsonserver.completion(tokenizer.decode(ids, skip_special_tokens=True), finish)
        body["choices"][0] |= {"logprobs": {"content": content}}
        body["choices"][0] |= {"token_ids": ids} if style == "sglang" else {}
        return body | ({} if style == "bare" else {"prompt_token_ids": prompt})
