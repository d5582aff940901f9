"""What SSH servers tell before a login: real ones on loopback beside ssh-keyscan, ssh-keygen and Nmap's scripts."""

import base64
import hashlib
import re
import struct
import subprocess
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from typing import Any

import daemons
import pytest
from peers import HOST, enriched, row, run, tcp_peer
from test_ntlm import nmap_script

from engine.model import ServiceResult
from engine.post.base_ssh import LISTS, offered, packed, string, wanted
from engine.post.base_ssh_exchange import EXCHANGES, GROUPS, IN_GROUP, group_prime, in_group, proves
from engine.post.ssh import offer
from engine.post.ssh_keys import KINDS, key_facts

pytestmark = pytest.mark.real

SERVERS = {"OpenSSH": daemons.sshd, "Dropbear": daemons.dropbear}


def asked(module: str, port: int) -> dict[str, Any]:
    result = run(enriched(module, row("ssh", port)))
    assert result.post is not None
    facts: dict[str, Any] = result.post["ssh"]
    return facts


def scanned_keys(port: int, folder: Path) -> set[tuple[int, str, str]]:
    """(bits, SHA256 fingerprint, MD5 fingerprint) of each key that ssh-keyscan gets, as ssh-keygen says them."""
    kinds = ["-t", "ed25519,ecdsa,rsa"]
    command = [daemons.tool("ssh-keyscan"), *kinds, "-p", str(port), HOST]
    known = subprocess.run(command, capture_output=True, timeout=30, check=True).stdout
    path = folder / "known"
    path.write_bytes(known)
    lists = []
    for digest in ("sha256", "md5"):
        said = subprocess.run(
            [daemons.tool("ssh-keygen"), "-l", "-E", digest, "-f", path], capture_output=True, check=True, text=True
        )
        lists.append([line.split() for line in said.stdout.splitlines()])
    return {
        (int(one[0]), one[1], other[1].removeprefix("MD5:")) for one, other in zip(*lists, strict=True)
    }  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
def test_host_keys_are_those_of_ssh_keyscan_and_proved(server: str, tmp_path: Path) -> None:
    with SERVERS[server](tmp_path) as ports:
        result = run(enriched("ssh-keys", row("ssh", ports["ssh"])))
        expected = scanned_keys(ports["ssh"], tmp_path)
    assert result.post is not None
    keys = result.post["ssh"]["keys"]
    assert {(key["bits"], key["sha256"], key["md5"]) for key in keys} == expected
    assert all(key["proved"] for key in keys)
    assert result.connections == len(keys) == 3


def test_host_keys_are_those_of_nmaps_script(tmp_path: Path) -> None:
    """Asked of OpenSSH only: of Dropbear the script waits for more than a minute."""
    with daemons.sshd(tmp_path) as ports:
        keys = asked("ssh-keys", ports["ssh"])["keys"]
        script = nmap_script("ssh-hostkey", ports["ssh"])
    theirs = set(re.findall(r"(\d+) ([0-9a-f]{32}) ", script.replace(":", "")))
    assert theirs
    assert theirs <= {(str(key["bits"]), key["md5"].replace(":", "")) for key in keys}


@pytest.mark.parametrize("server", SERVERS)
def test_algorithms_are_those_of_nmaps_script(server: str, tmp_path: Path) -> None:
    """The script shows the lists to the client, as ours are where they do not say `_in`; the digest is over them."""
    names = {
        "kex_algorithms": "kex",
        "server_host_key_algorithms": "host_key",
        "encryption_algorithms": "ciphers",
        "mac_algorithms": "macs",
        "compression_algorithms": "compression",
    }
    with SERVERS[server](tmp_path) as ports:
        ours = asked("ssh", ports["ssh"])
        script = nmap_script("ssh2-enum-algos", ports["ssh"])
    theirs: dict[str, list[str]] = {}
    for line in script.splitlines():
        if heading := re.match(r"\|   (\w+): \(\d+\)", line):
            theirs[heading[1]] = []
        elif theirs and (name := re.match(r"\|[_ ] {6}(\S+)", line)):
            list(theirs.values())[-1].append(name[1])
    assert {names[name]: found for name, found in theirs.items()} == {name: ours[name] for name in names.values()}
    text = ";".join(",".join(theirs[name]) for name in names if name != "server_host_key_algorithms")
    assert ours["hassh"] == hashlib.md5(text.encode()).hexdigest()


@pytest.mark.parametrize("method", [*EXCHANGES, *IN_GROUP])
def test_every_exchange_is_understood_by_a_real_server(method: str, tmp_path: Path) -> None:
    """A signature that is right says that all of ours was: values, hash, secret."""
    options = (f"KexAlgorithms {method}", "HostKeyAlgorithms +ssh-rsa")
    with daemons.sshd(tmp_path, *options) as ports:
        facts = asked("ssh-keys", ports["ssh"])
    assert [key["proved"] for key in facts["keys"]] == [True, True, True]


@pytest.mark.parametrize("algorithm", KINDS["ssh-rsa"])
def test_rsa_in_each_of_its_forms(algorithm: bytes, tmp_path: Path) -> None:
    with daemons.sshd(tmp_path, f"HostKeyAlgorithms {algorithm.decode()}") as ports:
        facts = asked("ssh-keys", ports["ssh"])
    assert [(key["type"], key["bits"], key["proved"]) for key in facts["keys"]] == [("ssh-rsa", 3072, True)]


def test_dsa_of_old_servers(tmp_path: Path) -> None:
    """Where OpenSSH still has it."""
    program = daemons.tool("ssh")
    if "ssh-dss" not in subprocess.run([program, "-Q", "key"], capture_output=True, check=True, text=True).stdout:
        pytest.skip("this OpenSSH has no DSA")
    key = daemons.ssh_keygen(tmp_path, "dsa")
    with daemons.sshd(tmp_path, f"HostKey {key}", "HostKeyAlgorithms ssh-dss") as ports:
        facts = asked("ssh-keys", ports["ssh"])
    assert [(key["type"], key["bits"], key["proved"]) for key in facts["keys"]] == [("ssh-dss", 1024, True)]


def test_another_s_key_is_not_proved(tmp_path: Path) -> None:
    """A server that shows the public key of another, with a signature of its own making."""
    daemons.tool("ssh-keygen")
    blob = base64.b64decode(daemons.ssh_keygen(tmp_path, "ed25519").with_suffix(".pub").read_text().split()[1])
    lists = dict.fromkeys(LISTS, b"none") | {"kex": b"curve25519-sha256", "host_key": b"ssh-ed25519"}

    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"SSH-2.0-copy\r\n" + packed(wanted(lists)))
        await reader.readline()
        for _ in range(2):
            (size,) = struct.unpack(">I", await reader.readexactly(4))
            await reader.readexactly(size)
        half = EXCHANGES["curve25519-sha256"]().public
        signature = string(b"ssh-ed25519") + string(bytes(64))
        writer.write(packed(b"\x02" + string(b"ignore")))
        writer.write(packed(b"\x1f" + string(blob) + string(half) + string(signature)))

    async def test() -> ServiceResult:
        async with tcp_peer(talk) as port:
            return await enriched("ssh-keys", row("ssh", port))

    result = run(test())
    assert result.post == {"ssh": {"keys": [key_facts(blob) | {"proved": False}]}}


# -- the bytes


def test_hassh_is_the_published_one() -> None:
    """hasshServer of OpenSSH 8's default lists, as Brim's documentation of Zeek's logs gives it."""
    lists = {
        "kex": "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,"
        "ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,"
        "diffie-hellman-group18-sha512,diffie-hellman-group14-sha256,diffie-hellman-group14-sha1",
        "ciphers": "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,"
        "aes256-gcm@openssh.com",
        "macs": "umac-64-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com,"
        "hmac-sha2-512-etm@openssh.com,hmac-sha1-etm@openssh.com,umac-64@openssh.com,umac-128@openssh.com,"
        "hmac-sha2-256,hmac-sha2-512,hmac-sha1",
        "compression": "none,zlib@openssh.com",
    }
    told = wanted(dict.fromkeys(LISTS, b"another") | {name: value.encode() for name, value in lists.items()})
    assert offer(told)["hassh"] == "b12d2871a1189eff20364cf5333619ee"


def test_packets_are_whole_blocks() -> None:
    for size in range(1, 40):
        packet = packed(b"x" * size)
        length, padding = struct.unpack_from(">IB", packet)
        assert len(packet) % 8 == 0
        assert padding >= 4
        assert length == len(packet) - 4 == 1 + size + padding


def test_lists_come_back_as_they_went() -> None:
    lists = {name: name.encode() for name in LISTS}
    assert offered(wanted(lists)) == lists


@pytest.mark.parametrize("number", GROUPS)
def test_the_groups_are_of_safe_primes(number: int) -> None:
    """Made as the RFCs write them; that they are what they should be is Fermat's word."""
    prime = group_prime(number)
    assert prime.bit_length() == GROUPS[number][0]
    if number < 18:  # of 8192 bits it would take a second
        assert pow(2, prime - 1, prime) == 1
        assert pow(2, prime // 2 - 1, prime // 2) == 1


@pytest.mark.parametrize("bits", [0, 1, 1023, 8193, 200_000])
def test_a_group_of_another_size_is_not_reckoned_with(bits: int) -> None:
    """A server must not choose how long we are at it."""
    with pytest.raises(ValueError):
        in_group((1 << bits >> 1).to_bytes(bits // 8 + 1, "big"), b"\2", "sha256")


@pytest.mark.parametrize("method", EXCHANGES)
def test_halves_that_prove_nothing(method: str) -> None:
    for half in (b"", b"\x01", bytes(32), b"\xff" * 600):
        exchange = EXCHANGES[method]()
        assert not proves((b"", b"", b"", b""), exchange, string(b"ssh-ed25519") + string(bytes(32)), half, b"")
