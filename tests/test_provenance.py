"""What came with an image, read from its bytes."""

import io
import json
import socket
from datetime import UTC, datetime, timedelta

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from helpers.generate_openai import paid_images, provenance
from helpers.rehearsal import image_api_answers
from helpers.services import connection

AI_MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def picture(kind, mode="RGB", **how):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3)).convert(mode).save(
        buffer, kind, **how
    )
    return buffer.getvalue()


def certificate(subject, key, issuer_key, authority):
    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)])

    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name("Test Authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(authority, None), True)
        .add_extension(
            x509.KeyUsage(not authority, key_cert_sign=authority, crl_sign=authority, **usage), True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if not authority:
        mail = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        built = built.add_extension(mail, False)
    return built.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def signed():
    """A function that signs an image as a service does, with a certificate of nobody we know."""
    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = certificate("Test Service", leaf, root, False)
    chain += certificate("Test Authority", root, root, True)
    secret = leaf.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, secret, None))
    made = {"action": "c2pa.created", "digitalSourceType": AI_MADE}
    manifest = {
        "claim_generator_info": [{"name": "test-image-api", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [made]}}],
    }

    def sign(content, kind):
        out = io.BytesIO()
        source = io.BytesIO(content)
        c2pa.Builder(json.dumps(manifest)).sign(signer, f"image/{kind.lower()}", source, out)
        return out.getvalue()

    return sign


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_signature_is_verified_and_a_changed_image_is_told(signed, kind):
    plain = picture(kind)
    assert provenance.examine(plain)["c2pa"] == {"present": False}
    content = signed(plain, kind)
    found = provenance.examine(content)
    assert (found["width"], found["height"]) == (64, 48)
    credentials = found["c2pa"]
    assert credentials["present"] and credentials["verified"]
    assert credentials["signer"] == "Test Service"
    assert credentials["generator"][0]["name"] == "test-image-api"
    changed = bytearray(content)
    changed[content.rfind({"PNG": b"IDAT", "JPEG": b"\xff\xda", "WEBP": b"VP8"}[kind]) + 24] ^= 1
    credentials = provenance.content_credentials(bytes(changed), kind)
    assert credentials["present"] and not credentials["verified"]


def test_verifying_asks_nothing_of_the_network(signed, monkeypatch):
    content = signed(picture("PNG"), "PNG")

    def refused(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refused)
    assert provenance.examine(content)["c2pa"]["verified"]


def test_a_manifest_that_nobody_signed_is_there_and_not_verified():
    found = provenance.examine(image_api_answers.painted(np.zeros((8, 8), np.uint8), 8, 8))["c2pa"]
    assert found["present"] and not found["verified"] and found["state"]


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", picture("PNG")[:100], picture("GIF")[:-80], b"\x89PNG\r\n\x1a\n"],
)
def test_what_does_not_decode_is_refused(content):
    with pytest.raises(connection.Unusable):
        provenance.examine(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_without_its_last_bytes_is_refused_though_its_pixels_are_there(kind):
    content = picture(kind)
    assert provenance.examine(content)["bytes"] == len(content)
    with pytest.raises(connection.Unusable):
        provenance.examine(content[: -10 if kind == "PNG" else -1])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_grey_copies_of_every_kind_of_png(tmp_path, mode):
    path = tmp_path / "a.png"
    path.write_bytes(picture("PNG", mode))
    grey = paid_images.grey(path)
    assert grey.shape == (48, 64) and grey.dtype == np.uint8 and grey.std() > 10


def test_sixteen_bits_are_scaled_and_transparency_is_black(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(path)
    assert (paid_images.grey(path) == 156).all()
    Image.fromarray(
        np.dstack([np.full((4, 4, 3), 200, np.uint8), np.zeros((4, 4), np.uint8)])
    ).save(path)
    assert (paid_images.grey(path) == 0).all()
