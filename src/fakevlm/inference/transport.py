"""One server's door: a JSON body goes in, the bytes of a whole answer come out, or one of two errors that say what happened.

By aiohttp, whose request costs the client a seventh of the CPU of the `openai` package's
(benchmarks/annotate_saturation.py): three models behind fast servers take hundreds of requests a second, all
of which one core has to send.
"""

import io
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_CONNECT_SECONDS = 10.0
_LARGE = 1 << 20  # bytes; what is larger is sent piece by piece


class Unanswered(Exception):
    """No whole answer came.

    Args:
        what: what happened.
        unreachable: not even a connection came about.
    """

    def __init__(self, what: str, unreachable: bool = False) -> None:
        super().__init__(what)
        self.unreachable = unreachable


class Refused(Exception):
    """The server answered with a status other than success.

    Args:
        status: of HTTP.
        content: the body.
        headers: by name, in whatever case.
    """

    def __init__(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.status, self.headers = status, headers
        text = content.decode(errors="replace")
        try:
            said = json.loads(text)
        except ValueError:
            said = None
        # OpenAI puts its error below "error", others at the top, FastAPI says "detail".
        error: Any = said.get("error", said) if isinstance(said, dict) else None
        body = error if isinstance(error, dict) else {}
        self.code = body.get("code")
        self.message = str(body.get("message") or body.get("detail") or error or text or "no reason given")
        super().__init__(f"status {status}: {self.message}")


class Door:
    """A server. Belongs to the event loop that runs when it is made.

    Args:
        url: its address, with its /v1.
        key: sent with every request; empty: none.
        timeout: seconds for one request, from the connection to the answer's last byte.
    """

    def __init__(self, url: str, key: str, timeout: float) -> None:
        import aiohttp

        self._url, self._timeout = url.rstrip("/"), timeout
        parts = urlsplit(url)
        # Not aiohttp's own reading of the environment: that would also send what ~/.netrc holds for the host.
        self._proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the driver bounds what is under way
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(_CONNECT_SECONDS, timeout)),
            headers={"Content-Type": "application/json"}
            | ({"Authorization": f"Bearer {key}"} if key else {}),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def post(self, path: str, body: bytes) -> bytes:
        """The body of the answer.

        Args:
            path: behind the address, e.g. `/chat/completions`.
            body: JSON.

        Raises:
            Unanswered: no connection, no answer in time, or half of one.
            Refused: a status of 400 or above.
        """
        import aiohttp

        data = body if len(body) <= _LARGE else io.BytesIO(body)
        try:
            async with self._session.post(self._url + path, data=data, proxy=self._proxy) as answer:
                content = await answer.read()
        except aiohttp.ConnectionTimeoutError as error:
            raise Unanswered(f"no connection within {self._timeout:g} s", unreachable=True) from error
        except TimeoutError as error:
            raise Unanswered(f"no answer within {self._timeout:g} s") from error
        except aiohttp.ClientError as error:
            nobody = isinstance(error, aiohttp.ClientConnectorError)
            raise Unanswered(f"{type(error).__name__}: {error}", unreachable=nobody) from error
        if answer.status >= 400:
            raise Refused(answer.status, content, answer.headers)
        return content

    async def close(self) -> None:
        """Ends its connections."""
        await self._session.close()
