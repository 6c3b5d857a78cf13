"""HTTP/1.1 on bare streams, as much as the harness needs: one request, one whole answer."""

import asyncio
from typing import NamedTuple

TIMEOUT_S = 30.0


class Answer(NamedTuple):
    """A response that was read to its end."""

    status: int
    body: bytes
    keeps_alive: bool


class Connection:
    """One connection, which is opened when it is needed and thrown away after any failure."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        """Connect, unless that is so already.

        Raises:
            OSError: nobody listens.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)

    async def get(self, target: str, request_id: str) -> Answer:
        """Send a request and read the whole answer.

        Raises:
            OSError, EOFError, TimeoutError: there is none, or only a part.
        """
        await self.connect()
        assert self._streams is not None
        reader, writer = self._streams
        head = f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-request-id: {request_id}\r\n\r\n"
        try:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(head.encode())
                answer = await _read_answer(reader)
        except BaseException:
            self.close()
            raise
        if not answer.keeps_alive:
            self.close()
        return answer

    def close(self) -> None:
        """Hang up."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:])
    }
    keeps_alive = headers.get("connection", "").lower() != "close"
    if "chunked" in headers.get("transfer-encoding", ""):
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(int(lines[0].split()[1]), body, keeps_alive)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        length = int(await reader.readuntil(b"\r\n"), 16)
        body += (await reader.readexactly(length + 2))[:-2]
        if length == 0:
            return body
