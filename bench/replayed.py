"""A conversation of the engine with a recorded service, in virtual time: no sockets, no waiting.

Contract: `played` drives a ServiceScan as the driver does; the service greets with `banner`, answers each payload in
`answers` at once and in one piece, and is silent otherwise.
"""

from collections.abc import Mapping

from engine.conversation.scan import Connect, Finish, ScanContext, Send, ServiceScan
from engine.model import ServiceResult, Target


def played(target: Target, context: ScanContext, banner: bytes, answers: Mapping[bytes, bytes]) -> ServiceResult:
    """The row."""
    now = 0.0
    scan = ServiceScan(target, context)
    action = scan.start(now)
    said = b""
    while not isinstance(action, Finish):
        if isinstance(action, Connect):
            said = banner
            action = scan.connected(now)
            continue
        if isinstance(action, Send):
            said = answers.get(action.payload, b"")
        if said:
            data, said = said, b""
            action = scan.received(data, now)
        else:
            now = action.deadline
            action = scan.timed_out(now)
    return action.result
