"""FakeVLM behind vLLM or SGLang servers: the same words, verdict and P(fake) from chat completions with log-probabilities.

One request a record, greedy, with the image as data. The server says which tokens it generated and how likely
others were at each place; verdict and place are found as in this process (`model.verdict`), and P(fake) is
the softmax over the words "fake" and "real" there, each word the sum over its spellings.

* vLLM is asked for exactly those tokens (`logprob_token_ids`): P(fake) is exact. A server that does not know
  this field gives its likeliest tokens (`top_logprobs`). Spellings beyond these are left out; a word of which
  none is among them counts as likely as the last of them, which it cannot exceed: P(fake) is then nearer to
  one half than it should be. If both words are beyond (the verdict reads "synthetic", say), the record is
  treated as one without a verdict.
* A record without a verdict is asked again with the opening "This is a" in the answer
  (`continue_final_message`), and its row is marked `forced`. Where both words are missing even there, nothing
  is known: P(fake) is one half.
* What was missing is counted and said on stderr.
* The server must read the prompt that the model was trained on. Where it tells its prompt's tokens (vLLM,
  SGLang), they are compared with ours, the image's placeholders counted as one, and a difference stops the
  run.

Sums are rounded differently on a server, so that a near tie may end in another word: results are those of one
process but for such cases.
"""

import asyncio
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from fakevlm import progress
from fakevlm.cache import Cache, answers, key, model_version
from fakevlm.config.params import Endpoint, Servers
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.inference.completion import Choice, Completion, Place
from fakevlm.inference.dataurl import data_url
from fakevlm.inference.driver import run
from fakevlm.inference.endpoint import EndpointAnnotator, need_key
from fakevlm.inference.generate import OPENING
from fakevlm.inference.predict import Columns
from fakevlm.model import chat, verdict
from fakevlm.model.llava import load_processor

_TOKEN_ID = re.compile(r"token_id:(\d+)")
_LIMITS = re.compile(r"logprobs|context length|max(imum)?[ _-]model[ _-]len", re.IGNORECASE)  # in a 400
_IMAGE = {
    "type": "image_url",
    "image_url": {"url": "data:"},
}  # the image itself is put in when a request is sent
_SPACES = " ▁Ġ\n"  # as tokenizers spell them


@dataclass(frozen=True, slots=True)
class _Gap:
    """How much "fake" outweighs "real" at a place; how many of the two words were beyond the tokens that the server gave."""

    value: float
    missing: int


class Served:
    """A model behind servers.

    Args:
        servers: where.
        name: the method's name, for messages.
        weights: folder or hub name of the weights that are served.
        longest: answer, in tokens.
        prompt: in which form questions are put; servers know only the template.

    Raises:
        UserError: the servers' key is not set, or the prompt is to be another.
    """

    def __init__(
        self, servers: Servers, name: str, weights: str | Path, longest: int, prompt: chat.Prompt = "template"
    ) -> None:
        if prompt != "template":
            raise UserError(
                f"{name}: servers put every question in the model's chat template, and the prompt is to be {prompt!r}",
                "set evaluate.servers to null, or evaluate.prompt to template",
            )
        need_key(servers, "evaluate.servers")
        self.servers, self.weights = servers, weights
        self._spec = Endpoint(
            name=name,
            backend="endpoint",
            model=servers.model,
            revision=model_version(weights),
            urls=servers.urls,
            api_key_env=servers.api_key_env,
            max_tokens=longest,
            temperature=0.0,
            concurrency=servers.concurrency,
            timeout=servers.timeout,
            retries=servers.retries,
        )
        self._prompt = cache(self._prompt)
        self._missing = 0  # places where a word had to be bounded

    @cached_property
    def processor(self) -> Any:
        return load_processor(self.weights)

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @cached_property
    def _words(self) -> tuple[list[int], list[int]]:
        return verdict.word_ids(self.tokenizer)

    @cached_property
    def _spellings(self) -> list[set[str]]:
        return [{self.tokenizer.decode([i]).strip(_SPACES) for i in ids} for ids in self._words]

    def predict(self, records: Sequence[Record], kept: Cache | None = None) -> Columns:
        """Return text, p_fake, verdict and forced of n records, in their order; answers are kept for good.

        Args:
            records: each is asked its own question or the standard one.
            kept: the cache of answers; None: that of all servers.

        Raises:
            UserError: servers that are not there, will not take a request, give no log-probabilities or read
                another prompt.
        """
        if not len(records):
            return {}
        rows: list[Any] = [None] * len(records)
        with progress.bar(len(records), self._spec.name) as bar, answers() if kept is None else kept as store:
            client = EndpointAnnotator(self._spec, seed=0, entry="evaluate.servers", who="model")
            waiting = enumerate(records)

            async def work() -> None:
                for number, record in waiting:
                    rows[number] = await self._record(client, record, store)
                    bar.update()

            async def everybody() -> None:
                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(self.servers.concurrency):
                            group.create_task(work())
                except BaseExceptionGroup as failures:
                    raise failures.exceptions[0] from None  # a UserError must arrive as itself
                finally:
                    await client.close()

            run(everybody())
        if self._missing:
            print(
                f"{self._spec.name}: at {self._missing} places a word was not among the server's likeliest tokens, "
                "and P(fake) is a bound",
                file=sys.stderr,
            )
        text, p_fake, verdicts, forced = zip(*rows, strict=True)
        return {
            "text": np.array(text, object),
            "p_fake": np.array(p_fake),
            "verdict": np.array(verdicts, object),
            "forced": np.array(forced),
        }

    async def _record(self, client: EndpointAnnotator, record: Record, store: Cache) -> tuple:
        question = record.question or chat.STANDARD
        messages = [{"role": "user", "content": [_IMAGE, {"type": "text", "text": question}]}]
        choice = await self._ask(client, store, record, messages, self._prompt(question, False))
        ids, places = self._generated(choice)
        found = verdict.locate(ids, self.tokenizer)
        gap = self._gap(places[found[1]]) if found else None
        forced = gap is None or gap.missing == 2
        if forced:
            opened = {"role": "assistant", "content": [{"type": "text", "text": OPENING}]}
            more = {"max_tokens": 1, "continue_final_message": True, "add_generation_prompt": False}
            prompt = self._prompt(question, True)
            choice = await self._ask(client, store, record, [*messages, opened], prompt, **more)
            gap = self._gap(self._generated(choice)[1][0])
        self._missing += gap.missing > 0
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        p_fake = verdict.p_fake(gap.value, not forced and found[0].negated)
        return text, p_fake, verdict.parse(text, question), forced

    async def _ask(
        self, client: EndpointAnnotator, store: Cache, record: Record, messages: list, prompt: tuple[int, ...],
        **more: Any,
    ) -> Choice:  # fmt: skip
        asked = {
            "model": self.servers.model,
            "messages": messages,
            "max_tokens": self._spec.max_tokens,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": self.servers.top_logprobs,
            "logprob_token_ids": [i for ids in self._words for i in ids],  # vLLM: exactly these
            "return_tokens_as_token_ids": True,  # vLLM: words by their numbers
            "return_token_ids": True,  # vLLM, SGLang
            "return_prompt_token_ids": True,  # SGLang; vLLM does it with the one above
            "add_special_tokens": True,  # as the tokenizer does here: LLaVA-1.5's template has no <s>
        }
        place = key("served", self._spec.revision, record.sha256, asked | more)
        if (data := store.get(place)) is not None:
            return Completion.model_validate_json(data).choices[0]
        try:
            url = data_url(record.encoded()).decode()
        except ValueError as error:
            raise UserError(f"record {record.id}: {error}", "make its records anew") from error
        body = json.dumps(asked | more).replace(json.dumps(_IMAGE["image_url"]["url"]), json.dumps(url), 1)
        outcome, answer = await client.ask(body.encode())
        if answer is None or outcome.status not in ("ok", "truncated", "empty"):
            if outcome.status == "error":
                cure = "its log tells why; or give it more time by evaluate.servers.timeout"
            elif outcome.status == "rejected" and _LIMITS.search(outcome.text):
                cure = (
                    "serve with larger limits (vLLM: --max-logprobs for the tokens, --max-model-len for prompt, image and "
                    "answer together)"
                )
            else:
                cure = (
                    "the servers must give log-probabilities and token ids, as vLLM and SGLang do and `transformers serve` "
                    "does not"
                )
            raise UserError(
                f"record {record.id} got no answer from {self.servers.model} ({outcome.status}): {outcome.text}",
                f"{cure}; a new run goes on from here",
            )
        self._same(answer, prompt)
        store.put(place, answer.model_dump_json().encode())
        return answer.choices[0]

    def _generated(self, choice: Choice) -> tuple[list[int], list[Place]]:
        """The tokens up to and without the end of sequence, and what the server says about each place.

        Raises:
            UserError: it does not say enough.
        """
        places = choice.logprobs.content if choice.logprobs else None
        ids = choice.token_ids
        if ids is None and places:
            named = [_TOKEN_ID.fullmatch(place.token) for place in places]
            ids = [int(match[1]) for match in named] if all(named) else None
        if ids is None or places is None or len(places) < len(ids):
            raise UserError(
                f"{self.servers.model} came back without the tokens that were generated, or without their log-probabilities",
                "serve it with vLLM or SGLang in a version that knows return_token_ids",
            )
        end = self.tokenizer.eos_token_id
        return (ids[: ids.index(end)] if end in ids else ids), places

    def _gap(self, place: Place) -> _Gap:
        # A set: the token that was generated stands among the likeliest too, and is to count once.
        likely = {(other.token, other.logprob) for other in (place, *place.top_logprobs)}
        words = [[value for token, value in likely if self._is(token, n)] for n in range(len(self._words))]
        least = min(value for _, value in likely)
        fake, real = (_logsumexp(word or [least]) for word in words)
        return _Gap(fake - real, sum(not word for word in words))

    def _is(self, token: str, word: int) -> bool:
        """Whether a token, as the server spells it, begins word 0 (fake) or 1 (real)."""
        if number := _TOKEN_ID.fullmatch(token):
            return int(number[1]) in self._words[word]
        return token.strip(_SPACES) in self._spellings[word]

    def _prompt(self, question: str, opened: bool) -> tuple[int, ...]:
        """The tokens that the model is to read: the prompt, or that and the forced opening."""
        if not opened:
            return _one_image(self.tokenizer(chat.prompt(self.processor, question)).input_ids, self.processor)
        whole = self.tokenizer(chat.conversation(self.processor, question, OPENING)).input_ids
        return _one_image(whole[:-1], self.processor)

    def _same(self, answer: Completion, prompt: tuple[int, ...]) -> None:
        if answer.prompt_token_ids is None:
            return
        read = _one_image(answer.prompt_token_ids, self.processor)
        if read != prompt:
            raise UserError(
                f"{self.servers.model} reads {self.tokenizer.decode(read)!r} where the model was trained on {self.tokenizer.decode(prompt)!r}",
                "serve the folder that evaluate.model names, with its own chat template",
            )


def _one_image(ids: list[int], processor: Any) -> tuple[int, ...]:
    """Tokens with the image's placeholders, one for each patch or one for all, as one."""
    return tuple(
        token
        for number, run in groupby(ids)
        for token in ([number] if number == processor.image_token_id else run)
    )


def _logsumexp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))
