"""Annotators behind servers: any OpenAI-compatible endpoint (vLLM, SGLang, a hosted API), one or several replicas.

The paper (section 3.2) asks Qwen2-VL, InternVL2 and DeepSeek-VL2 this way. Every request ends with one
outcome: whole answers `ok`; `refused`, `empty`, `truncated` for what a model did otherwise; `rejected` with
the server's message if it will not take the request (4xx); `error` once retries did not help. The first four
and `rejected` are not asked again; an `error` is, at the next run. What would spoil every request alike stops
the run: a wrong key, an unknown model; servers that stay away end it when the other annotators are through.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fakevlm.config.params import Endpoint, Servers
from fakevlm.errors import UserError
from fakevlm.inference.completion import Completion, Usage
from fakevlm.inference.dataurl import data_url
from fakevlm.inference.protocol import Outcome, Request
from fakevlm.inference.replicas import Pool, Replica, backoff, retry_after
from fakevlm.inference.transport import Door, Refused, Unanswered

_WHOLE = ("stop", "eos_token", "stop_sequence")  # finish reasons of an answer that the model ended itself
_RETRIED = (408, 409, 429)  # of the 4xx; all from 500 on too
_MISTAKES = (401, 403, 404)  # the user's, and the same for every request
_ALL_REJECTED = 100  # in a row, without one answer: all others will be too
_HERE = b'"data:"'  # where the image goes, which stands before all else that anybody wrote
_MESSAGE = 500  # characters of a server's message that are kept


class _Failure(Exception):
    """An attempt that may succeed if repeated.

    Args:
        what: what happened.
        wait: seconds that the server asked to wait.
        unreachable: no connection came about.
    """

    def __init__(self, what: str, wait: float = 0.0, unreachable: bool = False) -> None:
        super().__init__(what)
        self.wait, self.unreachable = wait, unreachable


@dataclass
class Spent:
    """What an annotator used so far: requests that got an answer, attempts that failed, tokens as the servers count."""

    requests: int = 0
    failures: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


def cost(spec: Endpoint, tokens_in: float, tokens_out: float) -> float | None:
    """What so many tokens cost at the prices in params.yaml, in their currency; None if neither price is given."""
    if spec.price_input is None and spec.price_output is None:
        return None
    return (tokens_in * (spec.price_input or 0.0) + tokens_out * (spec.price_output or 0.0)) / 1e6


def need_key(spec: Endpoint | Servers, entry: str) -> str:
    """The key of an entry's servers, from the environment; empty if they need none.

    Stages ask for all keys before anything runs: a missing one should not be found after hours of other work.

    Args:
        spec: the entry in params.yaml.
        entry: its place there, for the error.

    Raises:
        UserError: it is not set, or is none.
    """
    if not (variable := spec.api_key_env):
        return ""
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii():
        what = "holds letters that no key has" if key else "is not set"
        raise UserError(
            f"{entry}, {getattr(spec, 'name', spec.model)}: the environment variable {variable} {what}",
            f"export {variable}=… with the server's key, or set {entry}.api_key_env to null",
        )
    return key


class EndpointAnnotator:
    """A model behind OpenAI-compatible servers.

    Args:
        spec: the entry in params.yaml.
        seed: the profile's seed, used if the entry has none.
        sampling: more that goes into every request, such as `response_format`.
        entry: the entry's place in params.yaml, for errors.
        who: how errors call it.
    """

    def __init__(
        self,
        spec: Endpoint,
        seed: int,
        sampling: Mapping[str, Any] | None = None,
        entry: str = "annotate.annotators[]",
        who: str = "annotator",
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.model = spec.model
        self.revision = spec.revision
        self.sampling = {
            "max_tokens": spec.max_tokens,
            "temperature": spec.temperature,
            "seed": seed if spec.seed is None else spec.seed,
            **(sampling or {}),
        }
        self._entry, self._who = entry, f"{who} {spec.name}"
        self.concurrency = spec.concurrency
        self.spent = Spent()
        self._pool: Pool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._key = ""
        self._met = False  # whether a server of an earlier pool was reached
        self._rejected = 0  # requests in a row

    async def annotate(self, request: Request) -> Outcome:
        """Asks until there is an outcome; see `ask`."""
        try:
            body = self._body(request)
        except ValueError as error:
            return Outcome("rejected", str(error))
        return (await self.ask(body))[0]

    async def ask(self, body: bytes) -> tuple[Outcome, Completion | None]:
        """Asks until there is an outcome, at most `retries` times more than once.

        Servers that cannot be reached are waited for, which counts as no attempt.

        Args:
            body: the request as JSON.

        Returns:
            The outcome, and what the server sent where it sent an answer.

        Raises:
            UserError: the key is missing or refused, the model unknown, or all requests rejected; `away`: the
                servers are not there, or only fail.
        """
        pool, attempts = self._connected(), 0
        while True:
            try:
                async with pool.lend() as replica:
                    try:
                        outcome, answer = await self._attempt(replica, body)
                        pool.succeeded(replica)
                    except _Failure as failure:
                        pool.failed(replica, failure.wait, failure.unreachable, str(failure))
                        raise
                break
            except _Failure as failure:
                self.spent.failures += 1
                if pool.hopeless():
                    raise self._nobody(failure) from failure
                if failure.unreachable:
                    continue
                attempts += 1
                if attempts > self.spec.retries:
                    outcome, answer = Outcome("error", str(failure)), None
                    break
                await asyncio.sleep(backoff(attempts - 1))
        self._watch(outcome)
        return outcome, answer

    def _body(self, request: Request) -> bytes:
        """The request as JSON.

        Raises:
            ValueError: the image is none.
        """
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt.text}]
        if request.image is not None:
            content.insert(0, {"type": "image_url", "image_url": {"url": json.loads(_HERE)}})
        asked = {"messages": [{"role": "user", "content": content}], "model": self.model, **request.sampling}
        body = json.dumps(asked).encode()
        if request.image is None:
            return body
        # Put in afterwards: JSON would look at each of its hundred thousand characters, none of which needs
        # escaping.
        before, _, after = body.partition(_HERE)
        return b"".join([before, b'"', data_url(request.image), b'"', after])

    def note(self) -> str:
        """What was spent so far, for the progress line."""
        spent, each = self.spent, max(self.spent.requests, 1)
        price = cost(self.spec, spent.tokens_in, spent.tokens_out)
        said = [f"cost {price:.2f}"] if price is not None else []
        said += (
            [f"{spent.tokens_in / each:.0f}+{spent.tokens_out / each:.0f} tokens each"]
            if spent.requests
            else []
        )
        said += [f"{spent.failures} retried"] if spent.failures else []
        return ", ".join(said)

    async def close(self) -> None:
        """Ends all connections; the next request opens new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            self._met = pool.met
            for replica in pool.replicas:
                await replica.client.close()

    def _connected(self) -> Pool:
        """The replicas with their clients, made at the first request: connections belong to the loop that runs."""
        loop = asyncio.get_running_loop()
        if self._pool is not None and self._loop is loop:
            return self._pool
        self._key = need_key(self.spec, self._entry)
        clients = {url: Door(url, self._key, self.spec.timeout) for url in self.spec.urls}
        self._pool, self._loop = Pool(clients, self._met, self._who), loop
        return self._pool

    async def _attempt(self, replica: Replica, body: bytes) -> tuple[Outcome, Completion | None]:
        """One attempt at one replica.

        Raises:
            _Failure: it may be repeated.
            UserError: it is the user's mistake.
        """
        try:
            answer = await replica.client.post("/chat/completions", body)
        except Unanswered as error:
            raise _Failure(f"{replica.url}: {error}", unreachable=error.unreachable) from error
        except Refused as error:
            return self._refusal(replica, error), None
        try:
            completion = Completion.model_validate_json(answer)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "body"
            raise _Failure(f"{replica.url}: no chat completion ({where}: {problem['msg']})") from error
        return self._read(completion), completion

    def _read(self, answer: Completion) -> Outcome:
        choice, usage = answer.choices[0], answer.usage or Usage()
        text, refusal = (choice.message.content or "").strip(), choice.message.refusal
        self.spent.tokens_in += usage.prompt_tokens
        self.spent.tokens_out += usage.completion_tokens
        if choice.finish_reason == "content_filter" or refusal:
            outcome = Outcome("refused", refusal or text)
        elif choice.finish_reason == "length":
            outcome = Outcome("truncated", text)
        elif choice.finish_reason not in _WHOLE:
            raise _Failure(f"half an answer (finish_reason {choice.finish_reason!r})")
        else:
            outcome = Outcome("ok", text) if text else Outcome("empty")
        self.spent.requests += 1
        return outcome

    def _refusal(self, replica: Replica, error: Refused) -> Outcome:
        """What an HTTP status other than success amounts to."""
        status, said = error.status, self._clean(error.message)
        where = f"{self._who}: {replica.url}"
        if status in _MISTAKES:
            cures = {
                401: f"check the key in the variable {self.spec.api_key_env or '(none: ' + self._entry + '.api_key_env)'}",
                403: f"ask for access to this model, or use another key ({self._entry}.api_key_env)",
                404: f"{replica.url}/models lists what is served there; set {self._entry}.model or urls to match",
            }
            raise UserError(
                f"{where} answers {status} for model {self.model!r}: {said}", cures[status]
            ) from error
        if status in _RETRIED or status >= 500:
            wait = retry_after(error.headers)
            raise _Failure(f"{replica.url}: status {status}: {said}", wait=wait) from error
        if error.code == "content_filter":
            return Outcome("refused", said)
        return Outcome("rejected", f"status {status}: {said}")

    def _clean(self, message: str) -> str:
        """A server's message, of bounded length and without the key, which some repeat."""
        if self._key:
            message = message.replace(self._key, "…")
        return message if len(message) <= _MESSAGE else message[:_MESSAGE] + "…"

    def _nobody(self, failure: _Failure) -> UserError:
        where = ", ".join(self.spec.urls)
        if failure.unreachable:
            return UserError(
                f"{self._who}: no server can be reached at {where} ({failure})",
                f"start the servers, or correct {self._entry}.urls; a new run goes on from here",
                away=True,
            )
        return UserError(
            f"{self._who}: nothing but failures at {where} ({failure})",
            "the server's log tells why; once it works, a new run goes on from here",
            away=True,
        )

    def _watch(self, outcome: Outcome) -> None:
        """Stops the run if all requests are rejected: a hundred thousand would tell no more."""
        self._rejected = self._rejected + 1 if outcome.status == "rejected" else 0
        if self._rejected >= _ALL_REJECTED and not self.spent.requests:
            raise UserError(
                f"{self._who}: the first {self._rejected} requests were all rejected, the last with: {outcome.text}",
                f"correct the entry {self._entry} or the server's options; then delete the lines with the status "
                "rejected from its journal under runs/, or give another revision: what was rejected is not asked again",
            )
