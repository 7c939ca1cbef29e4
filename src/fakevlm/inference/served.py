"""FakeVLM behind vLLM or SGLang servers: words, verdict and P(fake) from log-probabilities.

One greedy request a record. Verdict and P(fake) are read as in this process (`model.verdict`). Servers round
otherwise, so that a near tie may end in another word.

* vLLM is asked for exactly the tokens of "fake" and "real", so P(fake) is exact. Other servers give their
  likeliest tokens; a word that is not among them counts as likely as the last, which it cannot exceed.
* Without a verdict, or if both words are missing, the record is asked again with the opening "This is a" in
  the answer, and its row is marked `forced`. Both missing there too: P(fake) is one half.
"""

import json
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from scipy.special import logsumexp

from fakevlm.cache import Cache, answers, model_version
from fakevlm.config.params import Endpoint, Servers
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.inference.ask import Ask, Outcome, Request, RequestPredictor
from fakevlm.inference.generate import OPENING
from fakevlm.inference.predict import Columns, predict
from fakevlm.inference.servers import Client, need_key
from fakevlm.model import chat, verdict
from fakevlm.model.llava import load_processor
from fakevlm.progress import say

_TOKEN_ID = re.compile(r"token_id:(\d+)")
_LIMITS = re.compile(r"logprobs|context length|max(imum)?[ _-]model[ _-]len", re.IGNORECASE)  # in a 400
_SPACES = " ▁Ġ\n"  # as tokenizers spell them
_OPENED = {"max_tokens": 1, "continue_final_message": True, "add_generation_prompt": False}


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the opening of the answer that the model is to continue."""

    question: str
    opening: str = ""

    @property
    def text(self) -> str:
        """What the answer depends on."""
        return self.question + self.opening


class Served(Client):
    """The model behind servers whose `weights` (folder or hub name) they serve; `longest` answer in tokens.

    Raises `UserError` if the servers' key is not set, or `prompt` is another than `template`.
    """

    role, entry = "model", "evaluate.servers"

    def __init__(
        self, servers: Servers, name: str, weights: str | Path, longest: int, prompt: chat.Prompt = "template"
    ) -> None:
        if prompt != "template":
            raise UserError(
                f"{name}: servers know the model's chat template, not the prompt {prompt!r}",
                "set evaluate.servers to null, or evaluate.prompt to template",
            )
        need_key(servers, self.entry)
        self.weights = weights
        fixed = {"name": name, "backend": "endpoint", "revision": model_version(weights)}
        fixed |= {"max_tokens": longest, "temperature": 0.0}
        super().__init__(Endpoint(**servers.model_dump(exclude={"top_logprobs"}), **fixed), seed=0)
        self._top_logprobs = servers.top_logprobs
        self._prompt = cache(self._prompt)

    def _load(self) -> None:
        """Read the tokenizer of the weights, and by it what requests and answers hold."""
        self.processor = load_processor(self.weights)
        self.tokenizer = self.processor.tokenizer
        self._words = verdict.word_ids(self.tokenizer)
        self._spellings = [{self.tokenizer.decode([i]).strip(_SPACES) for i in ids} for ids in self._words]
        self.sampling = {
            "max_tokens": self.spec.max_tokens,
            "temperature": 0.0,
            "repetition_penalty": 1.0,  # else vLLM and SGLang take that of generation_config.json
            "logprobs": True,
            "top_logprobs": self._top_logprobs,
            "logprob_token_ids": [i for ids in self._words for i in ids],  # vLLM: exactly these
            "return_tokens_as_token_ids": True,  # vLLM: words by their numbers
            "return_token_ids": True,  # vLLM, SGLang
            "return_prompt_token_ids": True,  # SGLang; vLLM does it with the one above
            "add_special_tokens": True,  # as the tokenizer does here: LLaVA-1.5's template has no <s>
        }

    def predict(self, records: Sequence[Record], store: Cache | None = None) -> Columns:
        """Return text, p_fake, verdict and forced of n records, in their order; answers are kept for good.
        Without `store` the cache is that of all servers.

        Raises `UserError` for servers that are not there, will not take a request, give no log-probabilities
        or read another prompt.
        """
        if not len(records):
            return {}
        self._load()
        with nullcontext(store) if store else answers() as store:
            columns = predict(RequestPredictor(self, store), records, desc=self.name)
        if missing := int(columns.pop("missing").sum()):
            what = f"at {missing} places a word was not among the server's likeliest tokens"
            say(f"{self.name}: {what}, and P(fake) is a bound")
        return columns

    async def answer(self, record: Record, ask: Ask) -> dict[str, Any]:
        """Return a record's row: text, p_fake, verdict, forced, and whether a word was missing."""
        question = record.question or chat.STANDARD
        request = Request(record.id, record.path, record.encoded(), Question(question))
        ids, places = self._generated(await ask(request))
        located = verdict.locate(ids, self.tokenizer)
        difference, missing = self._difference(places[located[1]]) if located else (0.0, 2)
        forced = missing == 2
        if forced:
            opened = replace(request, prompt=Question(question, OPENING), sampling=_OPENED)
            difference, missing = self._difference(self._generated(await ask(opened))[1][0])
        negated = not forced and located[0].negated
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        p_fake = float(verdict.p_fake(difference, negated))
        row = {"text": text, "p_fake": p_fake, "verdict": verdict.parse(text, question)}
        return row | {"forced": forced, "missing": missing > 0}

    def messages(self, request: Request) -> list[dict[str, Any]]:
        """Return the chat that is sent, with the opening of the answer if there is one."""
        prompt = request.prompt
        messages = super().messages(replace(request, prompt=Question(prompt.question)))
        if prompt.opening:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": prompt.opening}]})
        return messages

    async def annotate(self, request: Request) -> Outcome:
        """Ask; the text of the outcome is the whole completion as JSON.

        Raises `UserError` as `predict` does. Nothing is kept of what a server lacks.
        """
        outcome = await super().annotate(request)
        if outcome.status == "ok":
            self._check_prompt(request.prompt, outcome)
            self._generated(outcome)
            return outcome
        if outcome.status == "error":
            cure = "its log tells why; or give it more time by evaluate.servers.timeout"
        elif outcome.status == "rejected" and _LIMITS.search(outcome.text):
            cure = "serve with larger limits (vLLM: --max-logprobs, --max-model-len for image and answer too)"
        else:
            cure = "the servers must give log-probabilities and token ids, as vLLM and SGLang do"
        raise UserError(
            f"record {request.id} got no answer from {self.model} ({outcome.status}): {outcome.text}",
            f"{cure}; a new run goes on from here",
        )

    def _read(self, completion: dict[str, Any], full: bool) -> Outcome:
        outcome = super()._read(completion, full)
        answered = outcome.status in ("ok", "truncated", "empty")
        return Outcome("ok", json.dumps(completion)) if answered else outcome

    def _generated(self, outcome: Outcome) -> tuple[list[int], list[dict[str, Any]]]:
        """Return the tokens before the end of sequence, and what the server says about each place.

        Raises `UserError` if it does not say enough.
        """
        (choice, *_) = json.loads(outcome.text)["choices"]
        places = (choice.get("logprobs") or {}).get("content")
        ids = choice.get("token_ids")
        if ids is None and places:
            numbers = [_TOKEN_ID.fullmatch(place["token"]) for place in places]
            ids = [int(match[1]) for match in numbers] if all(numbers) else None
        if ids is None or places is None or len(places) < len(ids):
            raise UserError(
                f"{self.model} came back without the generated tokens, or without their log-probabilities",
                "serve it with vLLM or SGLang in a version that knows return_token_ids",
            )
        end = self.tokenizer.eos_token_id
        return (ids[: ids.index(end)] if end in ids else ids), places

    def _difference(self, place: dict[str, Any]) -> tuple[float, int]:
        """Return how much "fake" outweighs "real" at a place, and how many of the two words are missing."""
        # A set: the token that was generated stands among the likeliest too, and is to count once.
        likely = {(each["token"], each["logprob"]) for each in (place, *(place.get("top_logprobs") or ()))}
        words = [[value for token, value in likely if self._is(token, n)] for n in range(len(self._words))]
        least = min(value for _, value in likely)
        fake, real = (float(logsumexp(word or [least])) for word in words)
        return fake - real, sum(not word for word in words)

    def _is(self, token: str, word: int) -> bool:
        """Whether a token, as the server spells it, begins word 0 (fake) or 1 (real)."""
        if number := _TOKEN_ID.fullmatch(token):
            return int(number[1]) in self._words[word]
        return token.strip(_SPACES) in self._spellings[word]

    def _prompt(self, question: Question) -> tuple[int, ...]:
        """Return the tokens that the model is to read: the prompt, or that and the opening of the answer."""
        text = chat.prompt(self.processor, question.question)
        if question.opening:
            text = chat.conversation(self.processor, question.question, question.opening)
        ids = self.tokenizer(text).input_ids
        return _one_image(ids[:-1] if question.opening else ids, self.processor)

    def _check_prompt(self, question: Question, outcome: Outcome) -> None:
        """Raise UserError if the server read another prompt than the model was trained on."""
        ids, expected = json.loads(outcome.text).get("prompt_token_ids"), self._prompt(question)
        if ids is not None and (read := _one_image(ids, self.processor)) != expected:
            raise UserError(
                f"{self.model} reads {self.tokenizer.decode(read)!r} where the model was trained on "
                f"{self.tokenizer.decode(expected)!r}",
                "serve the folder that evaluate.model names, with its own chat template",
            )


def _one_image(ids: list[int], processor: Any) -> tuple[int, ...]:
    """Tokens with the image's placeholders, one for each patch or one for all, as one."""
    runs, image = groupby(ids), processor.image_token_id
    return tuple(token for number, run in runs for token in ([number] if number == image else run))
