"""The key and the address of an OpenAI-compatible endpoint, as the environment gives them: checked before anything starts, hidden wherever they come back."""

from __future__ import annotations

import base64
import os
import re
import unicodedata
from collections.abc import Callable
from urllib.parse import urlsplit

from tasks.contracts.failures import TeacherRefused

KEY, URL = "OPENAI_API_KEY", "OPENAI_BASE_URL"
NO_KEY = f"no API key: set {KEY} (and {URL} for another endpoint), or use recipe.teacher.kind=simulated / recorded, which need none"
HIDDEN = "[key]"
_SHORTEST_SECRET = 8  # characters; shorter ones are placeholders of servers that want none, and words of ordinary texts


def api_key() -> str:
    """The key. Raises TeacherRefused where there is none, or where it holds a character that no key has."""
    if fault := key_fault():
        raise TeacherRefused(fault)
    if not (key := _given_key()):
        raise TeacherRefused(NO_KEY)
    return key


def has_key() -> bool:
    """Whether the environment names a key."""
    return bool(_given_key())


def base_url() -> str | None:
    """The endpoint's address, None for OpenAI's own. Raises TeacherRefused for one that cannot be called."""
    if fault := url_fault():
        raise TeacherRefused(fault)
    return _given_url() or None


def key_fault() -> str | None:
    """What is wrong with the characters of the key, which is itself not told; None where it is sound or absent."""
    for place, character in enumerate(key := _given_key(), start=1):
        if not "!" <= character <= "~" or character in "\"'`":
            name = unicodedata.name(character, f"U+{ord(character):04X}")
            return f"{KEY} holds a character that no key has ({name}, at place {place} of {len(key)}); copy it again, without quotes or spaces"
    return None


def url_fault() -> str | None:
    """What is wrong with the address of the endpoint, None where it can be called."""
    if not (url := _given_url()):
        return None
    if any(character.isspace() or not character.isprintable() for character in url):
        return f"{URL} holds a space or a character that cannot be seen; write it again, such as https://host/v1"
    if not re.match(r"https?://", url, re.IGNORECASE):
        there = url.rpartition("@")[2]
        return f"{URL} has no scheme: write http://{there} or https://{there}" if "://" not in url else f"{URL} must begin with http:// or https://"
    try:
        parts = urlsplit(url)
        port_and_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        port_and_host = False
    return None if port_and_host else f"{URL} names no host, or no port that can be; write it such as https://host/v1"


def hider(key: str, *, shortest: int = _SHORTEST_SECRET) -> Callable[[str], str]:
    """What puts HIDDEN in the place of `key`: plain, or escaped as URLs, JSON or HTML escape characters, or as hex digits or base64.

    A key of fewer than `shortest` characters is left alone.
    """
    if len(key) < max(shortest, 1):
        return lambda text: text
    pattern = re.compile("|".join(["".join(map(_spellings, key)), *_encoded(key.encode())]))
    return lambda text: pattern.sub(HIDDEN, text)


def _given_key() -> str:
    return os.environ.get(KEY, "").strip()


def _given_url() -> str:
    return os.environ.get(URL, "").strip()


def _spellings(character: str) -> str:
    """A pattern of one character and of every escape of it."""
    code = ord(character)
    digits = "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{code:02x}")
    plain = re.escape(character) if character.isalnum() else rf"\\*{re.escape(character)}"
    return rf"(?:{plain}|%(?:25)*{digits}|\\+(?:u00|x){digits}|&#(?:0*{code}|[xX]0*{digits});)"


def _encoded(key: bytes) -> list[str]:
    """Patterns of the key as hex digits, and inside base64 at each of the three places where a byte may begin."""
    patterns = [f"(?i:{key.hex()})"]
    for offset, unsure in ((0, 0), (1, 2), (2, 3)):  # the first letters also hold bits of what stands before the key, the last one of what follows
        whole = (offset + len(key)) * 8 // 6
        text = base64.b64encode(bytes(offset) + key).decode()[unsure:whole]
        patterns.append(re.escape(text).replace(r"\+", "[+-]").replace("/", "[/_]"))
    return patterns
