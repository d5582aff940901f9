"""Post-processing: what a recognised service tells beyond the match. docs/post.md lists the modules and what they cost.

`PostProcessing` holds the modules that were chosen. `read` is for every result, contacts nobody and costs a look-up
where no module wants it; `wants` tells whether a module would hold one more conversation, and `enrich` holds it.
No module can lose a result or hold it up beyond the Dialler's deadline: one that fails leaves it as it was.
"""

import asyncio
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

from msgspec.structs import replace

from engine.errors import ConfigError
from engine.extras import extra
from engine.model import ServiceResult, Verdict
from engine.post.amqp import Amqp
from engine.post.base import EVERY, Asker, Module, Reader
from engine.post.http import Http, Web
from engine.post.http2 import Http2, Http2Opening
from engine.post.jarm import Jarm
from engine.post.murmur import Murmur
from engine.post.ntlm import Ntlm
from engine.post.quic import Quic
from engine.post.rdp import Rdp
from engine.post.rpc import Rpc
from engine.post.sharing import Sharing
from engine.post.smb import Smb, Smb2
from engine.post.snmp import Snmp
from engine.post.ssh import Ssh
from engine.post.ssh_keys import SshKeys
from engine.post.starttls import StartTls
from engine.transports.dial import Dialler

LIMIT_S = 5.0  # for everything that is asked after one scan
RPC_INTENSITY = 7  # below it no RPC grinding, as in Nmap

READERS: tuple[Reader, ...] = (Http(), Smb())
ASKERS: tuple[Asker, ...] = (
    Rpc(),
    Amqp(),
    Snmp(),
    Murmur(),
    Rpc(unrecognised=True),
    Ssh(),
    SshKeys(),
    StartTls(),
    Rdp(),
    Ntlm(),
    Smb2(),
    Http2(),
    Quic(),
    Web(),
    Jarm(),
    Sharing(),
)
ALL = tuple(dict.fromkeys(module.name for module in (*READERS, *ASKERS)))
DEFAULT = ("http", "smb", "rpc", "amqp", "snmp", "murmur")  # what contacts nobody, and what `nmap -sV` asks, too
UNANSWERED = frozenset(("quic",))  # look at UDP ports that never answered, too
EXTRA = {"http2": "h2", "quic": "aioquic"}  # modules that need the extra `deep`, and what of it
LICENSED = ("ja4",)  # facts of handshakes, taken by the worker; never with `all`, for what docs/post.md says of it
_MATCHED = (Verdict.HARDMATCHED, Verdict.SOFTMATCHED)
_GROUPS = {"all": ALL, "default": DEFAULT}

_Module = TypeVar("_Module", bound=Module)


def module_names(names: Iterable[str]) -> tuple[str, ...]:
    """The modules meant by names of modules and of the groups `default` and `all`; LICENSED only where they are named.

    Raises ConfigError for a name that no module has, and for a module whose libraries are not installed; `all` are
    those that can run here.
    """
    known = (*ALL, *LICENSED)
    chosen: set[str] = set()
    for name in names:
        if name not in known and name not in _GROUPS:
            raise ConfigError(f"no post-processing module {name!r}; there are {', '.join(known)}, and all")
        if name in EXTRA:
            with extra(f"--post {name}", "deep"):
                import_module(EXTRA[name])
        chosen.update(module for module in _GROUPS.get(name, (name,)) if name != "all" or _can_run(module))
    return tuple(name for name in known if name in chosen)


def _can_run(name: str) -> bool:
    return name not in EXTRA or find_spec(EXTRA[name]) is not None


class _Table(dict[str, tuple[_Module, ...]]):
    """By service name, the modules that look at it; and those that look at what nothing recognised."""

    def __init__(self, modules: Sequence[_Module]) -> None:
        self.modules = tuple(modules)
        self.undetermined = tuple(module for module in modules if module.undetermined)
        self.unanswered = tuple(module for module in modules if module.name in UNANSWERED)
        self.of_any = tuple(module for module in modules if module.services is EVERY)
        for service in {service for module in modules for service in module.services}:
            self[service] = tuple(
                module for module in modules if module.services is EVERY or service in module.services
            )

    def for_result(self, result: ServiceResult) -> tuple[_Module, ...]:
        verdict = result.verdict
        if verdict in _MATCHED:
            return self.get(result.name, self.of_any)
        if verdict is Verdict.NOMATCH and result.state == "open":
            return self.undetermined
        if verdict is Verdict.NOMATCH and result.state == "open|filtered":
            return self.unanswered
        return ()


class PostProcessing:
    """names: as for `module_names`; intensity, alpn: of the scan, whose answers are HTTP/2 where it offers that."""

    def __init__(self, names: Iterable[str], *, intensity: int = RPC_INTENSITY, alpn: Sequence[str] = ()) -> None:
        chosen = module_names(names)
        if intensity < RPC_INTENSITY:
            chosen = tuple(name for name in chosen if not name.startswith("rpc"))
        reading = [module for module in READERS if module.name in chosen]
        if "h2" in alpn and "http2" not in chosen:
            reading.append(Http2Opening())
        self._readers = _Table[Reader](reading)
        self._askers = _Table[Asker]([module for module in ASKERS if module.name in chosen])

    def read(self, result: ServiceResult, response: bytes) -> ServiceResult:
        """The result with what can be told without contacting anybody. response: to the scan's last probe."""
        for module in self._readers.for_result(result):
            if module.applies(result):
                try:
                    result = module.read(result, response)
                except Exception:  # whatever a hostile answer does to a parser: the row goes on as it was
                    continue
        return result

    def wants(self, result: ServiceResult) -> bool:
        """Whether `enrich` would contact the target."""
        modules = self._askers.for_result(result)
        return bool(modules) and any(module.applies(result) for module in modules)

    async def enrich(self, result: ServiceResult, response: bytes, dial: Dialler) -> ServiceResult:
        """The result with what further conversations told, ready by the Dialler's deadline. Cancelling it is safe."""
        began = asyncio.get_running_loop().time()
        for module in self._askers.modules:  # one may give the result a name that the next one looks at
            if module not in self._askers.for_result(result) or not module.applies(result):
                continue
            try:
                result = await dial.within(module.ask(result, response, dial))
            except Exception:  # silent, refusing or hostile peers: the row goes on as it was
                continue
        elapsed_s = asyncio.get_running_loop().time() - began
        return replace(
            result,
            connections=result.connections + dial.connections,
            bytes=result.bytes + dial.bytes,
            elapsed_ms=result.elapsed_ms + round(elapsed_s * 1000),
        )
