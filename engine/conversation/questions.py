"""The same question under another name: which probes of a database read the answer to a probe that it does not have.

Databases name their probes as they like, and a stored response only names the probe of the database it was made with.
`SAME` holds the names of Nmap's probes beside ours. Where the question is the same, so is the answer, but for a number
that the asker chose and the answer repeats: `ECHOED` says where it stands, so that lines which look for their own
probe's number read the answers to another one's. Names only; what Nmap's probes send is Nmap's.
"""

from collections.abc import Iterator, Mapping

from matcher import Probe

# Nmap's probes, and ours that ask the same, best first. Where several are named, the service that answers decides.
_SAME = {
    "tcp": {
        "DNSStatusRequestTCP": "DNSVersionBindTCP",
        "DNSVersionBindReqTCP": "DNSVersionBindTCP",
        "FourOhFourRequest": "HttpNotFound GetRequest",
        "HELP4STOMP": "STOMPConnect",
        "Hello": "Ehlo",
        "Kerberos": "KerberosASTCP",
        "LDAPBindReq": "LDAPRootDSE",
        "LDAPSearchReq": "LDAPRootDSE",
        "LPDString": "LPDQueue",
        "Memcache": "BeanstalkStats",
        "OpenVPN": "OpenVPNResetTCP",
        "RPCCheck": "RPCVersions",
        "RTSPRequest": "RtspOptions GetRequest",
        "SIPOptions": "SIPOptionsTCP GetRequest",
        "SMBProgNeg": "SMBNegotiate SMB1Session PGStartup",
        "SSLSessionReq": "SSL3Hello TLSHello",
        "SSLv23SessionReq": "SSL3Hello TLSHello",
        "Socks4": "SOCKS4Connect",
        "Socks5": "Socks5Greeting",
        "TLSSessionReq": "TLSHello SSL3Hello",
        "TerminalServer": "RDPConnect",
        "TerminalServerCookie": "RDPConnect",
        "VersionRequest": "TextVersion UpperVersion",
        "X11Probe": "X11Setup",
        "adbConnect": "ADBConnect",
        "afp": "AFPStatus",
        "ajp": "AJPCPing",
        "couchbase-data": "MemcacheBinary",
        "docker": "GetRequest",
        "drda": "DRDAExcsat",
        "epmd": "EPMDNames",
        "erlang-node": "ErlangSendName",
        "firebird": "FirebirdConnect",
        "gkrellm": "GkrellmHello",
        "hazelcast-http": "GetRequest",
        "iperf3": "Iperf3Cookie",
        "minecraft-ping": "MinecraftStatus",
        "mongodb": "MongoBuildInfo MongoBuildInfoOld",
        "mqtt": "MQTTConnect",
        "ms-sql-s": "TDSPrelogin",
        "niagara-fox": "FoxHello",
        "oracle-tns": "TNSVersion",
        "redis-server": "RedisInfo",
        "riak-pbc": "RiakServerInfo",
        "tor-versions": "TorProtocolInfo",
    },
    "udp": {
        "AFSVersionRequest": "RxVersion",
        "DNS-SD": "MDNSServices",
        "DNSStatusRequest": "DNSVersionBind",
        "DNSVersionBindReq": "DNSVersionBind",
        "DTLSSessionReq": "DTLSHello",
        "Kerberos": "KerberosAS",
        "LDAPSearchReqUDP": "CLDAPRootDSE",
        "Murmur": "MumblePing",
        "NBTStat": "NBStat",
        "NTPRequest": "NTPClient",
        "OpenVPN": "OpenVPNReset",
        "QUIC": "QUICVersions",
        "Quake3_getstatus": "QuakeStatus",
        "RPCCheck": "RPCBind",
        "SIPOptions": "SIPOptionsUDP",
        "SNMPv1public": "SNMPv1Public",
        "SNMPv3GetRequest": "SNMPv3Engine",
        "Sqlping": "MSSQLBrowser",
        "TeamSpeak3": "TeamSpeak3Init",
        "UbiquitiDiscoveryv1": "UbiquitiDiscovery",
        "coap-request": "CoAPWellKnown",
        "ipmi-rmcp": "IPMIChannelAuth",
        "memcached": "MemcacheStatsUDP",
        "pc-anywhere": "PCAnywhereStatus",
        "svrloc": "SLPServiceTypes",
        "vuze-dht": "DHTPing",
        "xdmcp": "XDMCPQuery",
    },
}


def _both_ways() -> Iterator[tuple[tuple[str, str], tuple[str, ...]]]:
    for proto, names in _SAME.items():
        back: dict[str, tuple[str, ...]] = {}
        for theirs, ours in names.items():
            yield (proto, theirs), tuple(ours.split())
            for name in ours.split():
                back[name] = (*back.get(name, ()), theirs)
        yield from (((proto, name), theirs) for name, theirs in back.items())


SAME: Mapping[tuple[str, str], tuple[str, ...]] = dict(_both_ways())  # (protocol, name) -> names, best first

ECHOED: Mapping[tuple[str, str], slice] = {  # (protocol, name) -> the asker's number, in the question and in the answer
    ("tcp", "DNSVersionBindTCP"): slice(2, 4),
    ("tcp", "DNSVersionBindReqTCP"): slice(2, 4),
    ("tcp", "ModbusDeviceID"): slice(0, 2),
    ("tcp", "RPCCheck"): slice(4, 8),
    ("tcp", "RPCVersions"): slice(4, 8),
    ("udp", "DNSVersionBind"): slice(0, 2),
    ("udp", "DNSVersionBindReq"): slice(0, 2),
    ("udp", "NBStat"): slice(0, 2),
    ("udp", "NBTStat"): slice(0, 2),
    ("udp", "RPCBind"): slice(0, 4),
    ("udp", "RPCCheck"): slice(0, 4),
}


def as_asked(probe: Probe, response: bytes) -> bytes:
    """A response to the same question of another program, as it would have come to this probe."""
    place = ECHOED.get((probe.proto, probe.name))
    if place is None or len(response) < place.stop:
        return response
    return response[: place.start] + probe.payload[place] + response[place.stop :]
