"""FakeVLM behind vLLM or SGLang servers: the same words, verdict and P(fake) from chat completions with log-probabilities.

One request a record, greedy, with the image as data. The server says which tokens it generated and how likely others were at
each place; verdict and place are found as in this process (`model.verdict`), and P(fake) is the softmax over the words
"fake" and "real" there, each word the sum over its spellings.

* vLLM is asked for exactly those tokens (`logprob_token_ids`): P(fake) is exact. A server that does not know this field gives
  its likeliest tokens (`top_logprobs`). Spellings beyond these are left out; a word of which none is among them counts as
  likely as the last of them, which it cannot exceed: P(fake) is then nearer to one half than it should be. If both words are
  beyond (the verdict reads "synthetic", say), the record is treated as one without a verdict.
* A record without a verdict is asked again with the opening "This is a" in the answer (`continue_final_message`), and its row
  is marked `forced`. Where both words are missing even there, nothing is known: P(fake) is one half.
* What was missing is counted and said on stderr.
* The server must read the prompt that the model was trained on. Where it tells its prompt's tokens (vLLM, SGLang), they are
  compared with ours, the image's placeholders counted as one, and a difference stops the run.

Sums are rounded differently on a server, so that a near tie may end in another word: results are those of one process but
for such cases.
"""

import asyncio
import json
import math
import queue
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from fakevlm.config.params import Endpoint, Params, Servers
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.inference.completion import Choice, Completion, Place
from fakevlm.inference.dataurl import data_url
from fakevlm.inference.endpoint import EndpointAnnotator, need_key
from fakevlm.inference.engines import Speaker
from fakevlm.inference.prediction import COLUMNS, OPENING, Batch, gather, settings_of
from fakevlm.model import chat, verdict
from fakevlm.model.llava import load_processor

_TOKEN_ID = re.compile(r"token_id:(\d+)")
_LIMITS = re.compile(r"logprobs|context length|max(imum)?[ _-]model[ _-]len", re.IGNORECASE)  # in a 400
_SPACES = " ▁Ġ\n"  # as tokenizers spell them


@dataclass(frozen=True, slots=True)
class _Gap:
    """How much "fake" outweighs "real" at a place; how many of the two words were beyond the tokens that the server gave."""

    value: float
    missing: int


def speaker(params: Params, name: str | Path, desc: str, prompt: chat.Prompt = "template") -> Speaker:
    """Asks a model behind `evaluate.servers`.

    Args:
        params: the profile; of `evaluate`: servers and batch_size.
        name: the folder or hub name of the weights that are served.
        desc: the method's name, for the progress bar.
        prompt: in which form questions are put; servers know only the template.

    Raises:
        UserError: the servers' key is not set; (when asked) see `Served.answer`, or the prompt is to be another.
    """
    servers, size = params.evaluate.servers, params.evaluate.batch_size
    need_key(servers, "evaluate.servers")

    def ask(records: Sequence[Record], longest: int, journal: Path | None) -> pd.DataFrame:
        if prompt != "template":
            raise UserError(
                f"{desc}: servers put every question in the model's chat template, and the prompt is to be {prompt!r}",
                "set evaluate.servers to null, or evaluate.prompt to template",
            )
        processor = load_processor(name)
        served = Served(servers, desc, processor, longest, size)
        settings = settings_of(processor, "served", longest, prompt) | served.settings
        return gather(
            served.answer, processor, records, settings, batch_size=size, journal=journal, desc=desc
        )

    return ask


class Served:
    """A model behind servers.

    Args:
        servers: where.
        name: the method's name, for messages.
        processor: of the weights that are served.
        longest: answer, in tokens.
        batch_size: of the batches that will come.
    """

    def __init__(self, servers: Servers, name: str, processor: Any, longest: int, batch_size: int) -> None:
        self.servers, self.processor, self.tokenizer = servers, processor, processor.tokenizer
        self.settings = {"served": servers.model, "top_logprobs": servers.top_logprobs}
        self._spec = Endpoint(
            name=name,
            backend="endpoint",
            model=servers.model,
            revision="as served",
            urls=servers.urls,
            api_key_env=servers.api_key_env,
            max_tokens=longest,
            temperature=0.0,
            timeout=servers.timeout,
            retries=servers.retries,
        )
        self._open = 1 + math.ceil(
            servers.concurrency / batch_size
        )  # batches: enough that no request waits for one
        self._words = verdict.word_ids(self.tokenizer)
        self._spellings = [{self.tokenizer.decode([i]).strip(_SPACES) for i in ids} for ids in self._words]
        self._prompt = cache(self._prompt)
        self._missing = 0  # places where a word had to be bounded

    def answer(self, batches: Iterator[Batch]) -> Iterator[tuple[int, pd.DataFrame]]:
        """Batches to their numbers and answers, as they are done (see `prediction.Answer`).

        Raises:
            UserError: servers that are not there, will not take a request, give no log-probabilities or read another prompt.
        """
        # In a thread of its own: a notebook's kernel has a loop running in this one.
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        loop = asyncio.new_event_loop()
        work = loop.create_task(self._all(batches, done))

        def run() -> None:
            try:
                loop.run_until_complete(work)
                done.put(None)
            except BaseException as error:
                done.put(error)
            finally:
                loop.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            while (item := done.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            if thread.is_alive() and not loop.is_closed():
                loop.call_soon_threadsafe(work.cancel)
            thread.join()
        if self._missing:
            print(
                f"{self._spec.name}: at {self._missing} places a word was not among the server's likeliest tokens, and P(fake) is a bound",
                file=sys.stderr,
            )

    async def _all(self, batches: Iterator[Batch], done: queue.SimpleQueue) -> None:
        client = EndpointAnnotator(self._spec, seed=0, entry="evaluate.servers", who="model")
        requests, places = asyncio.Semaphore(self.servers.concurrency), asyncio.Semaphore(self._open)

        async def one(record: Record, question: str) -> dict[str, Any]:
            async with requests:
                return await self._record(client, record, question)

        async def whole(batch: Batch) -> None:
            async with asyncio.TaskGroup() as group:
                rows = [
                    group.create_task(one(r, q)) for r, q in zip(batch.records, batch.questions, strict=True)
                ]
            done.put((batch.number, pd.DataFrame([row.result() for row in rows], columns=COLUMNS)))
            places.release()

        try:
            async with asyncio.TaskGroup() as group:
                for batch in batches:
                    await places.acquire()
                    group.create_task(whole(batch))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None  # a UserError must arrive as itself
        finally:
            await client.close()

    async def _record(self, client: EndpointAnnotator, record: Record, question: str) -> dict[str, Any]:
        try:
            image = {"type": "image_url", "image_url": {"url": data_url(record.image).decode()}}
        except ValueError as error:
            raise UserError(f"record {record.id}: {error}", "make its records anew") from error
        messages = [{"role": "user", "content": [image, {"type": "text", "text": question}]}]
        choice = await self._ask(client, record, messages, self._prompt(question, False))
        ids, places = self._generated(choice)
        found = verdict.locate(ids, self.tokenizer)
        gap = self._gap(places[found[1]]) if found else None
        forced = gap is None or gap.missing == 2
        if forced:
            opened = {"role": "assistant", "content": [{"type": "text", "text": OPENING}]}
            more = {"max_tokens": 1, "continue_final_message": True, "add_generation_prompt": False}
            prompt = self._prompt(question, True)
            choice = await self._ask(client, record, [*messages, opened], prompt, **more)
            gap = self._gap(self._generated(choice)[1][0])
        self._missing += gap.missing > 0
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        p_fake = verdict.p_fake(gap.value, not forced and found[0].negated)
        said = verdict.parse(text, question)
        return dict(zip(COLUMNS, (record.id, text, p_fake, said, forced), strict=True))

    async def _ask(
        self, client: EndpointAnnotator, record: Record, messages: list, prompt: tuple[int, ...], **more: Any
    ) -> Choice:
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
        outcome, answer = await client.ask(json.dumps(asked | more).encode())
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


def _first(failures: BaseExceptionGroup) -> BaseException:
    """The first failure in a group of groups."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
