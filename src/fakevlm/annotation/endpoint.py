"""Annotators behind servers: any OpenAI-compatible endpoint (vLLM, SGLang, a hosted API), one or several replicas.

The paper (section 3.2) asks Qwen2-VL, InternVL2 and DeepSeek-VL2 this way. Every request ends with one outcome: whole
answers `ok`; `refused`, `empty`, `truncated` for what a model did otherwise; `rejected` with the server's message if it will
not take the request (4xx); `error` once retries did not help. The first four and `rejected` are not asked again; an `error` is,
at the next run. What would spoil every request alike (a wrong key, an unknown model, a server that is not there) stops the run.
"""

import asyncio
import base64
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from fakevlm.annotation.protocol import Outcome, Request
from fakevlm.annotation.replicas import Pool, Replica, backoff, retry_after
from fakevlm.errors import UserError
from fakevlm.params import Endpoint

_WHOLE = ("stop", "eos_token", "stop_sequence")  # finish reasons of an answer that the model ended itself
_RETRIED = (408, 409, 429)  # of the 4xx; all from 500 on too
_MISTAKES = (401, 403, 404)  # the user's, and the same for every request
# So many requests in a row that end alike, without one answer between, will go on ending so.
_ALL_REJECTED, _NOBODY_THERE = 100, 16
_CONNECT_SECONDS = 10.0
_MESSAGE = 500  # characters of a server's message that are kept


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(BaseModel):
    """The part of a chat completion that is read. The package's own classes do not check what they are given."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


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


def data_url(image: bytes) -> str:
    """An encoded image as a `data:` URL: its bytes as they are, its type read from them.

    Raises:
        ValueError: the bytes are no image.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as opened:
            mime = opened.get_format_mimetype() or f"image/{(opened.format or 'unknown').lower()}"
    except OSError as error:
        raise ValueError(f"not an image: {error}") from error
    # MPO is a JPEG with more pictures behind the first, which servers know by no other name.
    mime = "image/jpeg" if mime == "image/mpo" else mime
    return f"data:{mime};base64,{base64.b64encode(image).decode('ascii')}"


class EndpointAnnotator:
    """A model behind OpenAI-compatible servers.

    Args:
        spec: the entry in params.yaml.
        seed: the profile's seed, used if the entry has none.
        sampling: more that goes into every request, such as `response_format`.
        entry: the entry's place in params.yaml, for errors.
    """

    def __init__(
        self,
        spec: Endpoint,
        seed: int,
        sampling: Mapping[str, Any] | None = None,
        entry: str = "annotate.annotators[]",
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
        self._entry = entry
        self.concurrency = spec.concurrency
        self.spent = Spent()
        self._pool: Pool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._key = ""
        self._rejected = self._unreached = 0  # requests in a row

    async def annotate(self, request: Request) -> Outcome:
        """Asks until there is an outcome, at most `retries` times more than once.

        Raises:
            UserError: the key is missing or refused, the model unknown, the servers not there, or all requests rejected.
        """
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt.text}]
        try:
            if request.image is not None:
                content.insert(0, {"type": "image_url", "image_url": {"url": data_url(request.image)}})
        except ValueError as error:
            return Outcome("rejected", str(error))
        asked = {"messages": [{"role": "user", "content": content}], "model": self.model, **request.sampling}
        pool, outcome = self._connected(), Outcome("error")
        for attempt in range(self.spec.retries + 1):
            try:
                async with pool.lend() as replica:
                    try:
                        outcome = await self._attempt(replica, asked)
                        replica.succeeded()
                    except _Failure as failure:
                        pool.failed(replica, failure.wait, failure.unreachable)
                        raise
                break
            except _Failure as failure:
                self.spent.failures += 1
                outcome = Outcome("error", str(failure))
                unreachable = failure.unreachable
                if attempt < self.spec.retries:
                    await asyncio.sleep(backoff(attempt))
        self._watch(outcome, outcome.status == "error" and unreachable)
        return outcome

    def note(self) -> str:
        """What was spent so far, for the progress line."""
        spent, each = self.spent, max(self.spent.requests, 1)
        price = cost(self.spec, spent.tokens_in, spent.tokens_out)
        said = [f"cost {price:.2f}"] if price is not None else []
        said += [f"{spent.tokens_in / each:.0f}+{spent.tokens_out / each:.0f} tokens each"]
        said += [f"{spent.failures} retried"] if spent.failures else []
        return ", ".join(said)

    async def close(self) -> None:
        """Ends all connections; the next request opens new ones."""
        pool, self._pool = self._pool, None
        for replica in pool.replicas if pool else ():
            await replica.client.close()

    def _connected(self) -> Pool:
        """The replicas with their clients, made at the first request: connections belong to the loop that runs."""
        loop = asyncio.get_running_loop()
        if self._pool is not None and self._loop is loop:
            return self._pool
        import openai

        if variable := self.spec.api_key_env:
            self._key = os.environ.get(variable, "").strip()
            if not self._key or not self._key.isascii():
                what = "holds letters that no key has" if self._key else "is not set"
                raise UserError(
                    f"annotator {self.name}: the environment variable {variable} {what}",
                    f"export {variable}=… with the server's key, or set {self._entry}.api_key_env to null",
                )
        timeout = openai.Timeout(self.spec.timeout, connect=min(_CONNECT_SECONDS, self.spec.timeout))
        # Without a key of ours the package would look for one of its own and send that to whatever server.
        options = {"api_key": self._key or "none", "timeout": timeout, "max_retries": 0}
        clients = {url: openai.AsyncOpenAI(base_url=url, **options) for url in self.spec.urls}
        self._pool, self._loop = Pool(clients), loop
        return self._pool

    async def _attempt(self, replica: Replica, asked: dict[str, Any]) -> Outcome:
        """One attempt at one replica.

        Raises:
            _Failure: it may be repeated.
            UserError: it is the user's mistake.
        """
        import httpx2
        import openai

        try:
            # The package's own timeout starts anew with every byte that trickles in.
            async with asyncio.timeout(self.spec.timeout):
                # Not `chat.completions.create`: that looks into every part of a request we know to be right, which
                # takes longer than sending it, and into nothing of the answer.
                answer = await replica.client.post("/chat/completions", body=asked, cast_to=httpx2.Response)
        except (TimeoutError, openai.APITimeoutError) as error:
            silent = isinstance(error.__cause__, httpx2.ConnectTimeout)
            where = "connection" if silent else "answer"
            what = f"no {where} from {replica.url} within {self.spec.timeout:g} s"
            raise _Failure(what, unreachable=silent) from error
        except openai.APIStatusError as error:
            return self._refusal(replica, error)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            nobody = isinstance(cause, httpx2.ConnectError)
            raise _Failure(f"{replica.url}: {type(cause).__name__}: {cause}", unreachable=nobody) from error
        try:
            return self._read(_Answer.model_validate_json(answer.content))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "body"
            raise _Failure(f"{replica.url}: no chat completion ({where}: {problem['msg']})") from error

    def _read(self, answer: _Answer) -> Outcome:
        choice, usage = answer.choices[0], answer.usage or _Usage()
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

    def _refusal(self, replica: Replica, error: Any) -> Outcome:
        """What an HTTP status other than success amounts to."""
        body = error.body if isinstance(error.body, dict) else {}
        status, said = (
            error.status_code,
            self._clean(str(body.get("message") or body.get("detail") or error.message)),
        )
        where = f"annotator {self.name}: {replica.url}"
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
            wait = retry_after(error.response.headers)
            raise _Failure(f"{replica.url}: status {status}: {said}", wait=wait) from error
        if error.code == "content_filter":
            return Outcome("refused", said)
        return Outcome("rejected", f"status {status}: {said}")

    def _clean(self, message: str) -> str:
        """A server's message, of bounded length and without the key, which some repeat."""
        if self._key:
            message = message.replace(self._key, "…")
        return message if len(message) <= _MESSAGE else message[:_MESSAGE] + "…"

    def _watch(self, outcome: Outcome, unreachable: bool) -> None:
        """Stops the run if all requests end in the same misfortune: a hundred thousand would tell no more."""
        self._rejected = self._rejected + 1 if outcome.status == "rejected" else 0
        self._unreached = self._unreached + 1 if unreachable else 0
        if self._unreached >= _NOBODY_THERE:
            raise UserError(
                f"annotator {self.name}: no server answers at {', '.join(self.spec.urls)} ({outcome.text})",
                f"start the servers, or correct {self._entry}.urls; a new run goes on from here",
            )
        if self._rejected >= _ALL_REJECTED and not self.spent.requests:
            raise UserError(
                f"annotator {self.name}: the first {self._rejected} requests were all rejected, the last with: {outcome.text}",
                f"correct the entry {self._entry} or the server's options; then delete the lines with the status "
                "rejected from its journal under runs/, or give another revision: what was rejected is not asked again",
            )
