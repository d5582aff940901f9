r"""Carry Ruby's regular expressions, as Recog's fingerprints are written, to the dialect of PCRE2 on bytes.

Contract: `pcre_pattern(pattern)` matches the UTF-8 bytes of what `pattern` matches in Ruby, with the same numbers of
groups. What cannot be carried over raises UnsupportedPattern and is never guessed.
The differences: `^` and `$` are those of lines; `(?m)` is what others call `s`; `a(?i)b|c` is `a(?i:b|c)`; \h is a
hexadecimal digit; named groups turn off numbered ones; a class in a class is a union; some letters that PCRE2 gives a
meaning are plain when escaped.
Source: Ruby's documentation of Regexp, Onigmo's doc/RE; pcre2pattern(3).
"""

import re

from matcher.errors import UnsupportedPattern

_TOKEN = re.compile(
    r"""
      (?P<unicode>    \\u (?: \{ [0-9A-Fa-f\ ]+ \} | [0-9A-Fa-f]{4} ) )
    | (?P<escape>     \\ . )
    | (?P<posix>      \[:\^?[a-z]+:\] )
    | (?P<class>      \[ \^? \]? )
    | (?P<comment>    \(\?\# (?: \\. | [^\\)] )* \) )
    | (?P<name>       \(\? (?: <(?![=!]) | ' ) )
    | (?P<options>    \(\? (?P<on>[a-z]*) (?: - (?P<off>[a-z]*) )? (?P<then>[:)]) )
    | (?P<upto>       \{, (?P<most>\d+) \} )
    | (?P<repeated>   \{ \d+ (?: ,\d* )? \} \+ )
    | (?P<other>      . )
    """,
    re.VERBOSE | re.DOTALL,
)
_HEX = "0-9A-Fa-f"
_OPTIONS = {"i": "i", "m": "s", "x": "x", "s": "s", "a": "", "d": "", "u": ""}  # s: not Ruby's, but Recog's readers'
_PLAIN = frozenset("EFIJLNOQTUVYijlmoqy")  # escaped or not, the letter itself; PCRE2 reads most of them otherwise
_REFUSED = frozenset("CMc")  # control and meta characters
_SAME = {"v": "\\x0b"}  # vertical tab; in PCRE2 a class of its own


def pcre_pattern(pattern: str) -> bytes:
    """`pattern` for PCRE2, without delimiters or flags. Raises UnsupportedPattern."""
    pieces = []
    closing = [b""]  # for every open group, what its end closes besides
    in_class = has_names = False
    for token in _TOKEN.finditer(pattern):
        kind, text = token.lastgroup, token[0]
        if token["options"] is not None:
            kind = "options"
        elif token["upto"] is not None:
            kind = "upto"
        if in_class and kind not in ("unicode", "escape", "posix"):
            if text.startswith("["):
                raise _unsupported(pattern, "a class in a class")
            if "&&" in text or (text == "&" and pattern.startswith("&&", token.start())):
                raise _unsupported(pattern, "an intersection of classes")
            in_class = text != "]"
            pieces.append(_characters(pattern, text, in_class=True))
            continue
        match kind:
            case "unicode":
                codes = text[2:].strip("{}").split()
                characters = "".join(_character(pattern, code) for code in codes)
                pieces.append(_characters(pattern, characters, in_class, literal=True))
            case "escape":
                pieces.append(_escape(pattern, text[1], in_class))
            case "class":
                in_class = True
                pieces.append(text.encode())
            case "name":
                has_names = True
                closing.append(b"")
                pieces.append(text.encode())
            case "options":
                pieces.append(_options(pattern, token))
                if token["then"] == ":":
                    closing.append(b"")
                else:
                    closing[-1] += b")"
            case "comment":
                pass
            case "upto":
                pieces.append(b"{0,%b}" % token["most"].encode())
            case "repeated":
                raise _unsupported(pattern, "a repeat of a counted repeat")
            case _:
                if text == "(":
                    closing.append(b"")
                elif text == ")" and len(closing) > 1:
                    pieces.append(closing.pop())
                pieces.append(_characters(pattern, text, in_class))
    return b"".join((b"(?mn)" if has_names else b"(?m)", *pieces, *reversed(closing)))


def _unsupported(pattern: str, feature: str) -> UnsupportedPattern:
    return UnsupportedPattern(pattern.encode("utf-8", "replace"), feature)


def _character(pattern: str, code: str) -> str:
    number = int(code, 16)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise _unsupported(pattern, "a character above Unicode")
    return chr(number)


def _characters(pattern: str, text: str, in_class: bool, *, literal: bool = False) -> bytes:
    """Characters as bytes; those of several bytes hold together. literal: none of them is an operator."""
    made = b""
    for character in text:
        if not character.isascii():
            if in_class:
                raise _unsupported(pattern, "a class with characters beyond ASCII")
            made += b"(?:%b)" % b"".join(b"\\x%02x" % byte for byte in character.encode())
        else:
            made += b"\\x%02x" % ord(character) if literal else character.encode()
    return made


def _escape(pattern: str, code: str, in_class: bool) -> bytes:
    if code in "hH":
        if in_class and code == "H":
            raise _unsupported(pattern, "\\H in a class")
        return _HEX.encode() if in_class else f"[{'^' * (code == 'H')}{_HEX}]".encode()
    if code in _REFUSED:
        raise _unsupported(pattern, f"\\{code}")
    if code in _PLAIN or not code.isascii():
        return _characters(pattern, code, in_class)
    return _SAME.get(code, "\\" + code).encode()


def _options(pattern: str, token: re.Match[str]) -> bytes:
    """The beginning of a group in which the options hold."""
    on, off = token["on"], token["off"] or ""
    if unknown := set(on + off) - _OPTIONS.keys():
        raise _unsupported(pattern, f"option {min(unknown)}")
    meant = "".join(_OPTIONS[letter] for letter in on)
    without = "".join(_OPTIONS[letter] for letter in off)
    return f"(?{meant}{'-' * bool(without)}{without}:".encode()
