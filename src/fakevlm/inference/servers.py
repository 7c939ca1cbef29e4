"""Models behind OpenAI-compatible servers (vLLM, SGLang, a hosted API), one or several replicas of each.

Attempts are repeated: the next one goes to the least busy replica, and one that asks for a pause gets it from
all requests. One that keeps failing, or cannot be reached, rests longer each time; then one request probes
it. While none can be reached all requests wait, which is no attempt.
"""

import asyncio
import base64
import contextlib
import json
import math
import os
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

from fakevlm.config.params import Endpoint, Servers
from fakevlm.data.records import decode, encode, open_image
from fakevlm.errors import UserError
from fakevlm.inference.ask import Outcome, Request
from fakevlm.progress import say

# Finish reasons, which every maker of servers calls otherwise. All others, and none, end a whole answer.
_BROKEN = re.compile("abort|error|cancel|resource|timeout|fail|malformed", re.I)
_CUT = re.compile("length|max|limit|window", re.I)
_DECLINED = re.compile("filter|safety|refus|prohibit|block|recitation|sensitive|guardrail|policy", re.I)
_REASONING = re.compile(r"\A.*</think(ing)?>|\A\s*<think(ing)?>.*", re.DOTALL)  # it may begin in the prompt
_LARGEST = 8 << 20  # bytes of an answer, unpacked; log-probabilities of 1000 tokens take 2 MB
_SHORTEST_KEY = 8  # characters; keys of local servers are often words such as EMPTY, which answers hold too
_RETRIED = (408, 409, 425, 429)  # of the 4xx; all from 500 on too
_REJECTED = (400, 413, 415, 422)  # these are about one request; all others about the account or the server
# Unless they say so: some servers answer 400 or 429 where no request will be taken any more.
_ACCOUNT = re.compile("api.?key|credit balance|billing|insufficient.(quota|balance|credit|fund)", re.I)
_ALL_REJECTED = 100  # in a row, without one answer: all others will be too
_MESSAGE = 500  # characters of a server's message that are kept
_CONNECT_SECONDS = 10.0
_FAILURES = 3  # in a row, before a replica that can be reached must rest
_FIRST_REST, _LONGEST_REST = 1.0, 60.0
_LONGEST_WAIT = 600.0  # a server that asks for more is asked again after this
_BACKOFF, _LONGEST_BACKOFF = 0.5, 30.0
# Seconds that servers are waited for: where none was ever reached (a wrong address, most likely), and where
# one was (it is started anew, which takes minutes for a large model).
_NONE_YET, _NONE_ANY_MORE = 60.0, 900.0
_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright
_ALIKE = ("RGB", "L", "1", "P", "CMYK", "YCbCr")  # modes that everybody turns into RGB in the same way


class _Failure(Exception):
    """An attempt that may succeed if repeated."""

    def __init__(self, what: str, wait: float = 0.0, unreachable: bool = False) -> None:
        super().__init__(what)
        self.wait = wait  # seconds that the server asked for
        self.unreachable = unreachable  # no connection came about


def cost(spec: Endpoint, tokens_in: float, tokens_out: float) -> float | None:
    """Return the price of so many tokens, in the currency of params.yaml; None if neither price is given."""
    if spec.price_input is None and spec.price_output is None:
        return None
    return (tokens_in * (spec.price_input or 0.0) + tokens_out * (spec.price_output or 0.0)) / 1e6


def need_key(spec: Endpoint | Servers, entry: str) -> str:
    """Return the key of an entry's servers, from the environment; empty if they need none.

    Raises `UserError` if it is not set, or is none; `entry` is its place in params.yaml.
    """
    if not (variable := spec.api_key_env):
        return ""
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[!#-\[\]-~]+", key):  # printable ASCII without quotation mark and backslash
        what = "holds characters that no key has" if key else "is not set"
        raise UserError(
            f"{entry}, {getattr(spec, 'name', spec.model)}: the environment variable {variable} {what}",
            f"export {variable}=… with the server's key, or set {entry}.api_key_env to null",
        )
    return key


def data_url(image: bytes) -> str:
    """Return an encoded image as a `data:` URL, with the pixels that a model in this process sees.

    Servers turn images upright by their EXIF orientation, lay transparent ones over white, and make 16 bits a
    channel white. An image with any of that is sent as a PNG of the decoded pixels, all others byte for byte.
    Raises `ValueError` if the bytes are no image.
    """
    try:
        with open_image(image) as opened:
            upright = opened.getexif().get(_ORIENTATION, 1) == 1
            plain = opened.mode in _ALIKE and upright and not opened.has_transparency_data
            # A photograph with a second picture behind it is "MPO" to Pillow, and a JPEG to everybody else.
            mime = "image/jpeg" if opened.format == "MPO" else opened.get_format_mimetype()
        if not plain or mime is None:
            pixels = decode(image)
            pixels.info = {}  # a transparent colour, which would be saved again
            mime, image = "image/png", encode(pixels, "PNG", compress_level=1)
    except OSError as error:
        raise ValueError(f"not an image: {error}") from error
    return f"data:{mime};base64,{base64.b64encode(image).decode()}"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait; they are given in (milli)seconds or as a date."""
    wait, text = 0.0, headers.get("retry-after", "")
    with contextlib.suppress(ValueError, TypeError):
        wait = float(headers["retry-after-ms"]) / 1000 if "retry-after-ms" in headers else float(text)
    if not wait:
        with contextlib.suppress(ValueError, TypeError):
            wait = parsedate_to_datetime(text).timestamp() - time.time()
    return min(wait, _LONGEST_WAIT) if wait > 0 else 0.0  # also what is no number


def _text(content: Any) -> str:
    """Return a message's text without reasoning, its parts joined; raise TypeError for another form."""
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) else {"text": part} for part in content]
        content = "".join(p["text"] for p in parts if p.get("type", "text") in ("text", "output_text"))
    # A server may cut a character in halves, which no file can hold.
    return _REASONING.sub("", re.sub("[\ud800-\udfff]", "\ufffd", content or "")).strip()


def _complaint(body: Any) -> tuple[str, str]:
    """Return the words and the code of an error, as several makers write it; empty where there is none."""
    body = body[0] if isinstance(body, list) and body else body
    if not isinstance(body, dict):
        return "", ""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    error = body.get("error") or (choice.get("error") if isinstance(choice, dict) else body)
    if not isinstance(error, dict):
        return str(error or ""), ""
    words = next((error[name] for name in ("message", "detail", "msg") if error.get(name)), "")
    code = next((error[name] for name in ("code", "type", "status") if error.get(name)), "")
    return words if isinstance(words, str) else json.dumps(words), str(code)


@dataclass(eq=False)
class Replica:
    """One server of several that serve the same model. Times are those of the event loop's clock."""

    url: str
    client: Any = None  # of HTTP
    busy: int = 0  # requests under way
    failures: int = 0  # in a row
    suspect: bool = False  # it failed so often that only one request at a time may try it
    away: bool = False  # it could not be reached the last time
    until: float = 0.0  # it rests before this
    rest: float = 0.0  # seconds of its last rest
    failing: float | None = None  # it only failed since then; None: it answered, or was not tried often


class Pool:
    """The replicas of one model (at least one); `who`: whose they are, for messages."""

    def __init__(self, replicas: list[Replica], who: str) -> None:
        self.replicas, self._who = replicas, who
        self._reached = False  # whether any ever was
        self._changed = asyncio.Event()
        self.now = asyncio.get_running_loop().time

    def ready(self) -> Replica | None:
        """Return the least busy replica that may be asked now."""
        now = self.now()
        ready = [each for each in self.replicas if now >= each.until and not (each.suspect and each.busy)]
        return min(ready, key=lambda replica: replica.busy, default=None)

    async def take(self) -> Replica:
        """Wait until a replica is ready. To be given back."""
        while (replica := self.ready()) is None:
            # Until the first rest is over; with a probe under way, until that comes back.
            rests = [each.until - self.now() for each in self.replicas if each.until > self.now()]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(rests) + 0.001 if rests else None)
        replica.busy += 1
        return replica

    def give_back(self, replica: Replica) -> None:
        """End a request there; wakes all that wait."""
        replica.busy -= 1
        self._changed.set()
        self._changed.clear()

    def answered(self, replica: Replica) -> None:
        """Note an answer, be it a refusal: it works."""
        self._reached = True
        if replica.failing is not None:
            self._say(replica, "can be reached again" if replica.away else "answers again")
        replica.failures, replica.rest, replica.failing = 0, 0.0, None
        replica.suspect = replica.away = False

    def failed(self, replica: Replica, failure: _Failure, started: float = math.inf) -> None:
        """Note a failure of an attempt. Say so once: a run that waits must not look like one that hangs."""
        if replica.away and replica.failing is not None and started < replica.failing:
            return  # it was under way when the replica went
        now, unreachable = self.now(), failure.unreachable
        was_away, was_suspect = replica.away, replica.suspect
        self._reached = self._reached or not unreachable
        replica.until = max(replica.until, now + failure.wait)
        replica.failures = 1 if was_away and not unreachable else replica.failures + 1
        replica.away = unreachable
        if unreachable or replica.failures >= _FAILURES:
            replica.failing = now if replica.failing is None else replica.failing
            replica.suspect = replica.suspect or not failure.wait
            # Requests that were under way together fail together: one rest for all.
            if not failure.wait and now >= replica.until:
                replica.rest = min(2 * replica.rest or _FIRST_REST, _LONGEST_REST)
                replica.until = now + replica.rest * random.uniform(0.8, 1.2)
        if replica.away and not was_away:
            others = sum(not each.away for each in self.replicas)
            left = f"{others} of {len(self.replicas)} replicas left"
            if not others:
                left = f"all requests wait, {max(math.ceil(self.patience()), 0)} s at most"
            self._say(replica, f"cannot be reached; {left}")
        elif was_away and not replica.away:
            self._say(replica, "can be reached again")
        elif replica.suspect and not was_suspect:
            one = "it gets one request at a time until it answers"
            self._say(replica, f"fails again and again ({failure}); {one}")

    def patience(self) -> float:
        """Return the seconds left to replicas that only fail; infinite while one may work."""
        failing = [each.failing for each in self.replicas if each.failing is not None]
        if len(failing) < len(self.replicas):
            return math.inf
        return max(failing) + (_NONE_ANY_MORE if self._reached else _NONE_YET) - self.now()

    def _say(self, replica: Replica, what: str) -> None:
        say(f"{self._who}: {replica.url} {what}")


class Client:
    """A model behind OpenAI-compatible servers; an `ask.Annotator`.

    The profile's `seed` is used if the entry has none; `sampling` is more that goes into every request, such
    as `response_format`.
    """

    role, entry = "annotator", "annotate.annotators[]"  # for errors: what it is, and its place in params.yaml

    def __init__(self, spec: Endpoint, seed: int, **sampling: Any) -> None:
        self.spec, self._who = spec, f"{self.role} {spec.name}"
        self.name, self.model, self.revision = spec.name, spec.model, spec.revision
        self.sampling = {
            "max_tokens": spec.max_tokens,
            "temperature": spec.temperature,
            "seed": seed if spec.seed is None else spec.seed,
            **sampling,
        }
        self.concurrency = spec.concurrency
        self.answered = self.failures = 0  # requests that got an answer, attempts that failed
        self.tokens_in = self.tokens_out = 0  # as the servers count
        self._key = ""
        self._pool: Pool | None = None
        self._rejected = 0  # requests in a row

    def messages(self, request: Request) -> list[dict[str, Any]]:
        """Return the chat that is sent. Raises `ValueError` if the image is none."""
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt.text}]
        if request.image is not None:
            content.insert(0, {"type": "image_url", "image_url": {"url": data_url(request.image)}})
        return [{"role": "user", "content": content}]

    async def annotate(self, request: Request) -> Outcome:
        """Ask until there is an outcome, at most `retries` times more than once.

        Raises `UserError` if the key is missing or refused, the model unknown, or all requests rejected; with
        `away` if the servers are not there, or only fail.
        """
        if self._pool is None:
            self._pool = self._connect()
        try:
            messages = await asyncio.to_thread(self.messages, request)
        except ValueError as error:
            return Outcome("rejected", str(error))
        asked = {"model": self.model, "messages": messages, **request.sampling}
        attempts = 0
        while True:
            replica = await self._pool.take()
            started = self._pool.now()
            try:
                outcome = await self._post(replica, asked)
                self._pool.answered(replica)
                break
            except _Failure as error:
                failure = _Failure(f"{replica.url}: {self._clean(str(error))}", error.wait, error.unreachable)
                self._pool.failed(replica, failure, started)
            finally:
                self._pool.give_back(replica)
            self.failures += 1
            if self._pool.patience() <= 0:
                raise self._away(failure)  # without its cause, in which the key may stand
            if failure.unreachable:
                continue
            attempts += 1
            if attempts > self.spec.retries:
                outcome = Outcome("error", str(failure))
                break
            # Drawn from the whole interval: requests that failed together shall not come back together.
            await asyncio.sleep(random.uniform(0, min(_LONGEST_BACKOFF, _BACKOFF * 2 ** (attempts - 1))))
        self._stop_if_all_rejected(outcome)
        return replace(outcome, text=self._masked(outcome.text))

    def note(self) -> str:
        """Return what was spent so far, for the progress line."""
        price = cost(self.spec, self.tokens_in, self.tokens_out)
        notes = [f"cost {price:.2f}"] if price is not None else []
        if n := self.answered:
            notes.append(f"{self.tokens_in / n:.0f}+{self.tokens_out / n:.0f} tokens each")
        notes += [f"{self.failures} retried"] if self.failures else []
        return ", ".join(notes)

    async def close(self) -> None:
        """End all connections; the next request opens new ones."""
        pool, self._pool = self._pool, None
        for replica in pool.replicas if pool else ():
            await replica.client.aclose()

    def _connect(self) -> Pool:
        from openai import DefaultAsyncHttpxClient, Timeout  # the miniature pays nothing for it

        self._key = need_key(self.spec, self.entry)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        # A redirect would send key, image and prompt to another host.
        options: dict[str, Any] = {"headers": headers, "follow_redirects": False}
        options["timeout"] = Timeout(self.spec.timeout, connect=min(_CONNECT_SECONDS, self.spec.timeout))
        try:
            clients = [DefaultAsyncHttpxClient(base_url=url, **options) for url in self.spec.urls]
        except Exception as error:  # the addresses are checked: what else goes in comes from the environment
            what = f"{self._who}: the environment's proxies or certificates cannot be used: {error}"
            cure = "correct or unset HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE"
            raise UserError(what, f"{cure}; a SOCKS proxy needs `pip install socksio`") from error
        return Pool([Replica(*each) for each in zip(self.spec.urls, clients, strict=True)], self._who)

    async def _post(self, replica: Replica, request: Mapping[str, Any]) -> Outcome:
        """Ask one replica once; raise `_Failure` where that may be repeated."""
        data = bytearray()
        try:
            post = replica.client.stream("POST", "chat/completions", json=request)
            async with asyncio.timeout(self.spec.timeout), post as response:
                async for part in response.aiter_bytes():  # unpacked: kilobytes may hold gigabytes
                    data += part
                    if len(data) > _LARGEST:
                        break
        except TimeoutError as error:
            raise _Failure(f"no answer within {self.spec.timeout:g} s") from error
        except Exception as error:  # whatever the transport raises
            kind = type(error).__name__
            unreachable = kind in ("ConnectError", "ConnectTimeout")
            raise _Failure(f"{kind} {error}", unreachable=unreachable) from error
        if len(data) > _LARGEST:
            raise _Failure(f"an answer of more than {_LARGEST >> 20} MB")
        text = data.decode(response.encoding, "replace").lstrip("\ufeff")
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = {"message": re.sub(r"<[^>]*>|\s+", " ", text).strip()}
        words, code = _complaint(body)
        if words or code or not response.is_success:
            return self._refusal(replica, response, words, code)
        try:
            usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
            counts = [usage.get(f"{part}_tokens") for part in ("prompt", "completion")]
            sent, written = (count if isinstance(count, int) else 0 for count in counts)
            outcome = self._read(body, full=written >= request["max_tokens"])
        except (LookupError, AttributeError, TypeError) as error:
            raise _Failure(f"no chat completion: {text or 'nothing'}") from error
        self.tokens_in += sent
        self.tokens_out += written
        self.answered += 1
        return outcome

    def _read(self, completion: dict[str, Any], full: bool) -> Outcome:
        """Return a completion's outcome; `full`: it has all the tokens that were allowed."""
        choice = completion["choices"][0]
        reason, message = str(choice.get("finish_reason") or ""), choice["message"]
        text, refusal = _text(message.get("content")), message.get("refusal")
        if _BROKEN.search(reason) or not (reason or text or refusal):
            raise _Failure(f"half an answer (finish_reason {reason!r})")
        if _DECLINED.search(reason) or refusal:
            return Outcome("refused", str(refusal or text))
        if _CUT.search(reason) or (full and not reason):
            return Outcome("truncated", text)
        return Outcome("ok", text) if text else Outcome("empty")

    def _refusal(self, replica: Replica, response: Any, words: str, code: str) -> Outcome:
        """Return the outcome of an error: of a status other than success, or of an error in a 200."""
        status = response.status_code
        message = self._clean(f"{status} {words}{f' ({code})' if code else ''}")
        if response.is_success:  # its own code counts; without one, the server has failed
            status = int(code) if re.fullmatch(r"[45]\d\d", code) else 500
        if _DECLINED.search(code) and (response.is_success or status in _REJECTED):
            return Outcome("refused", message)
        cures = {
            401: f"check the key in the variable {self.spec.api_key_env} ({self.entry}.api_key_env)",
            403: f"ask for access to this model, or use another key ({self.entry}.api_key_env)",
            404: f"{replica.url}/models lists what is served there; set {self.entry}.model or urls to match",
        }
        # The words of a 429 name the account also where only a minute's quota is used up.
        account = _ACCOUNT.search(code if status == 429 else f"{words} {code}")
        if (status in _RETRIED or status >= 500) and not account:
            raise _Failure(message, _retry_after(response.headers))
        if status not in _REJECTED or account:
            text = f"{self._who}: {replica.url} answers {message} for model {self.model!r}"
            raise UserError(text, cures.get(status, "cure that; a new run goes on from here"))
        return Outcome("rejected", message)

    def _masked(self, text: str) -> str:
        """Return a server's text without the key, which some repeat."""
        return text.replace(self._key, "…") if len(self._key) >= _SHORTEST_KEY else text

    def _clean(self, message: str) -> str:
        """Return a server's message for a person: masked, on one line, and of bounded length."""
        message = "".join(char if char.isprintable() else " " for char in self._masked(message)).strip()
        return message if len(message) <= _MESSAGE else message[:_MESSAGE] + "…"

    def _away(self, failure: _Failure) -> UserError:
        what, cure = "nothing but failures at", "the server's log tells why"
        if failure.unreachable:
            what, cure = "no server can be reached at", f"start the servers, or correct {self.entry}.urls"
        text = f"{self._who}: {what} {', '.join(self.spec.urls)} ({failure})"
        return UserError(text, f"{cure}; a new run goes on from here", away=True)

    def _stop_if_all_rejected(self, outcome: Outcome) -> None:
        """Stop the run if all requests are rejected: a hundred thousand would tell no more."""
        self._rejected = self._rejected + 1 if outcome.status == "rejected" else 0
        if self._rejected >= _ALL_REJECTED and not self.answered:
            raise UserError(
                f"{self._who}: the first {self._rejected} requests were all rejected: {outcome.text}",
                f"correct the entry {self.entry} or the server's options, and give another revision: "
                "what was rejected is not asked again",
            )
