"""Which protections an RDP server accepts - its own, TLS, NLA - and its certificate. Three connections.

Each is asked for alone, since a server that has the choice tells only its best. Source: [MS-RDPBCGR] 2.2.1.1, 2.2.1.2.
"""

from msgspec.structs import replace

from engine.model import Json, ServiceResult, Tunnel
from engine.post.base import noted
from engine.post.base_rdp import NLA, RDP, TLS, negotiate
from engine.transports.certificates import tls_facts
from engine.transports.dial import DialError, Dialler

PROTOCOLS = {"nla": NLA, "tls": TLS, "rdp": RDP}


class Rdp:
    """An Asker."""

    name = "rdp"
    services = frozenset(("ms-wbt-server",))
    undetermined = False

    def applies(self, result: ServiceResult) -> bool:
        return result.proto == "tcp" and result.tunnel is Tunnel.NONE

    async def ask(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        accepted: list[Json] = []
        refused: dict[str, Json] = {}
        for name, protocol in PROTOCOLS.items():
            with await dial.open("tcp") as stream:
                try:
                    answer = await negotiate(stream, protocol)
                except DialError:
                    continue  # some hang up on what they do not have
                if answer.refused:
                    refused[name] = answer.refused
                elif answer.protocol == protocol:
                    accepted.append(name)
                    if protocol != RDP and result.tls is None:
                        try:
                            await stream.start_tls()
                        except DialError:
                            continue
                        assert stream.session is not None
                        result = replace(result, tls=tls_facts(stream.session, result.host))
        if not accepted and not refused:
            raise DialError("not RDP")
        facts: dict[str, Json] = {"accepted": accepted}
        if refused:
            facts["refused"] = refused
        return noted(result, self.name, facts)
