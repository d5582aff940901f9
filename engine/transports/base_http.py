"""An answer in HTTP/2 or HTTP/3, as the dialogues of either give it. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

FIELDS = 64  # headers of an answer that are kept
BODY = 16384  # bytes of an answer's body that are waited for

Headers = Sequence[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """As far as it came; status 0 before it did.

    headers: with the trailers, of several with one name the first. reset: the error of a stream that was cut off.
    """

    status: int = 0
    headers: Mapping[bytes, bytes] = MappingProxyType({})
    body: bytes = b""
    reset: int | None = None

    def with_headers(self, headers: Headers) -> "Answer":
        """Or trailers."""
        fields = dict(reversed(headers[:FIELDS]))
        status = fields.pop(b":status", b"")
        code = int(status) if len(status) == 3 and status.isdigit() else self.status
        return self._replace(status=code, headers={**fields, **self.headers})

    def with_body(self, data: bytes) -> "Answer":
        return self._replace(body=(self.body + data)[:BODY])

    @property
    def is_enough(self) -> bool:
        return len(self.body) >= BODY
