"""Keys with characters that no key has, addresses without a scheme, a key that comes back in other spellings, connections that come to nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import TeacherRefused, TeacherUnavailable
from tasks.gateways.credentials import api_key, base_url, hider, key_fault
from tasks.gateways.openai_teacher import OpenAITeacher
from tasks.gateways.simulated_teacher import SimulatedServer
from tests.gateways.bench import KEY, asks

ODD = "sk-ca+na/ry=0123.4567_89~ab"


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("“sk-canary”", "LEFT DOUBLE QUOTATION MARK, at place 1"),
        ("‘sk-canary’", "LEFT SINGLE QUOTATION MARK"),
        ('"sk-canary"', "QUOTATION MARK"),
        ("'sk-canary'", "APOSTROPHE"),
        ("sk-ca\u200bnary", "ZERO WIDTH SPACE, at place 6"),
        ("\ufeffsk-canary", "ZERO WIDTH NO-BREAK SPACE"),
        ("sk-ca\nnary", "U+000A"),
        ("sk-ca\r\nnary", "U+000D"),
        ("sk ca nary", "SPACE"),
        ("sk-ca\u00a0nary", "NO-BREAK SPACE"),
        ("sk–canary", "EN DASH"),
        ("ѕk-canary", "CYRILLIC SMALL LETTER DZE"),
        ("sk-ca\x7fnary", "U+007F"),
        ("sk-ca\udcffnary", "U+DCFF"),
    ],
)
def test_a_key_with_a_character_that_no_key_has_is_one_line_without_the_key(key: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": key})
    with pytest.raises(TeacherRefused, match="OPENAI_API_KEY holds a character that no key has") as caught:
        api_key()
    said = str(caught.value)
    assert named in said
    assert "\n" not in said
    assert not {"canary", "nary", "sk-"} & set(said.replace("(", " ").split())
    assert key not in said


@pytest.mark.parametrize("key", ["sk-canary", "  sk-canary\n", "EMPTY", ODD])
def test_a_sound_key_is_taken_without_what_surrounds_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert key_fault() is None
    assert api_key() == key.strip()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:9/v1", "has no scheme: write http://localhost:9/v1"),
        ("api.example.org/v1", "has no scheme: write http://api.example.org/v1 or https://"),
        ("user:word@host/v1", "has no scheme: write http://host/v1"),
        ("ftp://host/v1", "must begin with http"),
        ("http:///v1", "names no host"),
        ("http://host:port/v1", "names no host, or no port"),
        ("https://host/v1\u200b", "cannot be seen"),
        ("https://ho st/v1", "holds a space"),
    ],
)
def test_an_address_that_cannot_be_called_is_told(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(TeacherRefused, match="OPENAI_BASE_URL") as caught:
        base_url()
    assert said in str(caught.value)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "http://localhost:9/v1", "HTTPS://host/v1 ", "http://[::1]:8000/v1"])
def test_an_address_that_can_be_called_is_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert base_url() == (url.strip() or None)


@pytest.mark.parametrize("key", [KEY, ODD])
@pytest.mark.parametrize(
    "spelling",
    [
        str,
        lambda key: quote(key, safe=""),
        lambda key: quote(quote(key, safe=""), safe=""),
        lambda key: "".join(f"%{ord(each):02x}" for each in key),
        json.dumps,
        lambda key: json.dumps(json.dumps({"key": key})),
        lambda key: "".join(f"\\u{ord(each):04x}" for each in key),
        lambda key: key.replace("/", "\\/"),
        lambda key: "".join(f"&#{ord(each)};" for each in key),
        lambda key: key.encode().hex(),
        lambda key: key.encode().hex().upper(),
        *(lambda key, before=before: base64.b64encode(f"{before}{key}\n".encode()).decode() for before in ("", ":", "x:", "Bearer ")),
        lambda key: base64.urlsafe_b64encode(f"user:{key}".encode()).decode(),
    ],
)
def test_the_key_is_hidden_in_every_spelling(key: str, spelling) -> None:
    said = hider(key)(f"the header was {spelling(key)}!")
    assert "[key]" in said
    left = said.replace("[key]", "")
    assert len(left) <= len("the header was !") + 24, "some letters before and after the key may stay, the key may not"


@given(st.text())
def test_hiding_leaves_other_texts_alone(text: str) -> None:
    assert hider(KEY)(text) == text


def test_a_placeholder_is_no_secret_in_what_a_teacher_says() -> None:
    assert hider("none")("None, or none at all") == "None, or none at all"
    assert hider("")("anything") == "anything"


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://127.0.0.1:9/v1", "127.0.0.1:9 refuses the connection"),
        ("http://no-such-host.invalid/v1", "the name no-such-host.invalid does not resolve"),
    ],
)
async def test_a_connection_that_comes_to_nothing_says_why(bench, monkeypatch: pytest.MonkeyPatch, url: str, cause: str) -> None:
    for name, value in {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY, "NO_PROXY": "*"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TeacherUnavailable) as caught:
        await bench.ask(asks(30))
    said = str(caught.value)
    assert cause in said
    assert "\n" not in said
    assert "OPENAI_BASE_URL" in said


def _vouched_by_itself(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS with a certificate that no authority signed."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(secret.public_key()).serial_number(1)
    signed = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1)).sign(secret, hashes.SHA256())
    text = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + signed.public_bytes(Encoding.PEM)
    (folder / "both.pem").write_bytes(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


@pytest.mark.parametrize(("speaks_tls", "cause"), [(True, "is not accepted (self-signed certificate)"), (False, "does not speak TLS as it should")])
async def test_a_certificate_that_does_not_fit_says_so(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaks_tls: bool, cause: str) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=_vouched_by_itself(tmp_path) if speaks_tls else None) as server:
        port = server.sockets[0].getsockname()[1]
        for name, value in {"OPENAI_BASE_URL": f"https://127.0.0.1:{port}/v1", "OPENAI_API_KEY": KEY, "NO_PROXY": "*"}.items():
            monkeypatch.setenv(name, value)
        (answer,), _ = await bench.ask(asks(1), teacher=OpenAITeacher(timeout_seconds=5.0, tries=2))
    assert f"127.0.0.1:{port} {cause}" in answer.note.replace("the certificate of ", "")


class _Parrot(SimulatedServer):
    """An endpoint that repeats the request's header inside its replies, twice encoded."""

    def says(self, body):
        said = super().says(body)
        return said and replace(said, reasoning=f"{said.reasoning} {base64.b64encode(f'Bearer {KEY}'.encode()).decode()} {KEY}")


async def test_a_key_that_a_reply_repeats_reaches_neither_answer_nor_ledger(bench, serve) -> None:
    serve(server=_Parrot(error_rate=0.0, no_bias=0.0))
    answers, _ = await bench.ask(asks(3))
    assert "[key]" in answers[0].text
    kept = b"".join(path.read_bytes() for path in bench.ledger.parent.iterdir())
    coded = base64.b64encode(f"Bearer {KEY}".encode()).decode()[12:-4]
    for secret in (KEY, coded):
        assert secret not in repr(answers)
        assert secret.encode() not in kept
