"""The sentence that explains each field of a row, and what else `ServiceResult` does not say of itself.

The sentences stand here and nowhere else: docs/result.md repeats them, and a test compares. What is made from them:
table (columns), json_schema, and through the columns dialects and arrow.
"""

import msgspec

from engine.model import Also, DatabaseRef, Evidence, Pseudo, ServiceResult, TlsFacts

COUNTS = ["elapsed_ms", "connections", "bytes"]  # written though they have defaults
STATES = ["open", "open|filtered", "closed", "filtered"]  # of a port, where anything is said of it

ABOUT: dict[type[msgspec.Struct], dict[str, str]] = {
    ServiceResult: {
        "ip": "The address that was scanned, IPv4 or IPv6; empty where `host` could not be resolved.",
        "port": "The port, 0 to 65535.",
        "proto": "The transport protocol, `tcp` or `udp`.",
        "host": "The host name that the target was given with. One address under two names makes two rows.",
        "state": "The port's state after the scan: `open`, `open|filtered` (UDP that never answered), `closed`"
        " or `filtered`. Absent where nobody has looked and the input did not say.",
        "name": "The service, in Nmap's words: `http`, `ssh`, `domain`. From the services table where `method` is"
        " `table`.",
        "product": "The product that answers, such as `OpenSSH`.",
        "version": "Its version, such as `9.2p1`.",
        "extrainfo": "What else the answer told of it.",
        "hostname": "The host name that the service gives itself.",
        "ostype": "The operating system, as far as the answer told.",
        "devicetype": "The kind of device, such as `router` or `printer`.",
        "cpe": "CPE 2.2 names, at most one each for application, hardware and operating system, in this order.",
        "tunnel": "`ssl` where the service was found inside TLS.",
        "method": "How `name` came about: `probed` from an answer, or `table`, a guess from the port number alone."
        " Absent where nothing is known.",
        "conf": "Confidence in `name`, 0 to 10 as Nmap counts it: 10 matched, 8 tcpwrapped, 3 guessed.",
        "verdict": "How the conversation ended: `hardmatched` (recognised), `softmatched` (the service is known, the"
        " product is not), `nomatch`, `tcpwrapped` (the port accepts and hangs up), `excluded` (not contacted,"
        " because the database says so) or `incomplete`.",
        "reason": "Why the verdict is `incomplete`: `refused`, `timeout`, `reset`, `unreachable`, `tls`, `budget`,"
        " `cancelled`, `unresolved`, `proxy` or `crashed`.",
        "evidence": "What recognised the service: the line of the database, and a fingerprint where one helped.",
        "confidence": "How sure the line is that spoke, from 0 to 1; absent where no line matched. docs/confidence.md"
        " has the formula.",
        "reasons": "Why, in short words: `specific`, `plain`, `vague`, `anywhere`, `soft`, `quoted`, `fits-others`,"
        " `untested`, `agreed`, `disputed`.",
        "also": "What the second opinion says, where it says something else.",
        "fingerprint": "What every probe got back, in Nmap's SF form with its line breaks, where the service was not"
        " recognised or only half.",
        "tls": "What the TLS handshake told.",
        "post": "What post-processing found, by its name.",
        "pseudo": "Set where a host gives the same answer on so many ports that the service is hardly real.",
        "database": "The database that was used.",
        "started": "When the first connection was begun: RFC 3339, UTC.",
        "elapsed_ms": "From there to the verdict, in milliseconds.",
        "connections": "How many connections were made.",
        "bytes": "How many bytes were received.",
    },
    Evidence: {
        "probe": "The probe in whose list the line stands; empty where no line matched.",
        "line": "The number of the line in the database, counted from 1; 0 where no line matched.",
        "soft": "Whether it is a `softmatch` line.",
        "sent": "The probe that was sent, where it is another one: its fallback recognised the answer.",
        "file": "The file of the line, where several databases were merged.",
        "recog": "The Recog fingerprint that filled in fields which were empty: its file and description.",
    },
    Also: {
        "name": "The service.",
        "product": "The product.",
        "version": "Its version.",
        "line": "The number of the line in the second database; 0 for Recog.",
        "database": "The second database: its path, `builtin` or `recog`.",
        "recog": "The Recog fingerprint: its file and description.",
    },
    TlsFacts: {
        "protocol": "The version that was agreed, such as `TLSv1.3`.",
        "cipher": "The cipher suite, in OpenSSL's words.",
        "alpn": "The application protocol that was agreed, such as `h2`.",
        "subject": "The certificate's subject, RFC 4514.",
        "issuer": "Its issuer, RFC 4514.",
        "names": "Its alternative names: host names and addresses.",
        "not_before": "The beginning of its validity, RFC 3339.",
        "not_after": "The end of its validity, RFC 3339.",
        "sha256": "SHA-256 over its DER form, in hex.",
        "key": "Kind and size of its key: `rsa 2048`, `ec secp256r1`, `ed25519`.",
        "self_signed": "Whether it is signed with its own key.",
        "chain": "The certificates sent behind it, in the order in which they came, at most 9: the first 16 digits of"
        " the SHA-256, and the subject.",
        "notes": "What is wrong with what was shown, in the words below.",
        "ja4s": "JA4S of the ServerHello, where `--post ja4` asked for it.",
        "ja4x": "JA4X of the certificates in the order in which they came, where `--post ja4` asked for it.",
    },
    Pseudo: {
        "ports": "On how many ports of the host the same answer had been seen by then.",
        "hash": "A hash of that answer.",
    },
    DatabaseRef: {
        "name": "Its path, or `builtin`.",
        "sha256": "SHA-256 of its bytes, in hex.",
    },
}
