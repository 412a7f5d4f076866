"""The encrypted form of a reading set's key: AES-256-GCM, bound to the commitment."""

import hmac
import json
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from helpers.runner import folders

PASSPHRASE = "SEAL_PASSPHRASE"
CIPHER = "AES-256-GCM"


class SealError(RuntimeError):
    """The key may not or cannot be opened; the message says why and what to do."""


def _bound_to(commitment: dict) -> bytes:
    """The whole commitment, including the plan's hashes: a key opens only with the commitment it
    was sealed with.
    """
    return json.dumps(commitment, sort_keys=True).encode()


def encrypt(plain: bytes, commitment: dict, study: str) -> bytes:
    """The content of key.enc: locked by the passphrase in the environment, else by the seal."""
    phrase = os.environ.get(PASSPHRASE, "")
    salt = os.urandom(16) if phrase else b""
    secret = _stretch(phrase, salt) if phrase else derive(study, "encryption", b"")
    # The nonce follows from the secret and all sealed content, so it is never used for two
    # contents.
    nonce = hmac.digest(secret, b"nonce\0" + _bound_to(commitment) + plain, "sha256")[:12]
    return _as_written(
        {
            "cipher": CIPHER,
            "locked_by": "passphrase" if phrase else "seal",
            "salt": salt.hex(),
            "nonce": nonce.hex(),
            "box": AESGCM(secret).encrypt(nonce, plain, _bound_to(commitment)).hex(),
        }
    )


def _as_written(envelope: dict) -> bytes:
    return (json.dumps(envelope, indent=1) + "\n").encode()


def decrypt(path: Path, commitment: dict, study: str) -> bytes:
    """What `encrypt` locked. Raises SealError."""
    try:
        content = path.read_bytes()
        envelope = json.loads(content)
        if (
            content != _as_written(envelope)
            or envelope["cipher"] != CIPHER
            or envelope["locked_by"] not in ("passphrase", "seal")
        ):
            raise ValueError
        salt, nonce, box = (bytes.fromhex(envelope[name]) for name in ("salt", "nonce", "box"))
        by_phrase = envelope["locked_by"] == "passphrase"
    except FileNotFoundError:
        raise SealError(
            f"{path} is missing: the sealed folder must stay with the study, beside reading_set/."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SealError(
            f"{path} is damaged or was tampered with: restore the sealed folder as 06 wrote it."
        ) from None
    phrase = os.environ.get(PASSPHRASE, "")
    if by_phrase and not phrase:
        raise SealError(f"{path} is locked by a passphrase: set {PASSPHRASE} in the environment.")
    if not by_phrase and not (folders.keys_folder(study) / "seal").exists():
        raise SealError(
            f"The seal of study '{study}' is not in {folders.keys_folder(study)}: copy it from the"
            " machine that sealed the set."
        )
    secret = _stretch(phrase, salt) if by_phrase else derive(study, "encryption", b"")
    try:
        return AESGCM(secret).decrypt(nonce, box, _bound_to(commitment))
    except (InvalidTag, ValueError):
        wrong = f"{PASSPHRASE} is wrong, or " if by_phrase else ""
        raise SealError(
            f"{path} cannot be opened: {wrong}this file or commitment.json was changed or belongs"
            " to another reading set or seal. Restore both as 06 wrote them."
        ) from None


def _stretch(phrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(phrase.encode())


def derive(study: str, purpose: str, message: bytes) -> bytes:
    """32 bytes for one purpose from the study's seal (HMAC-SHA256); nobody without
    .keys/<study>/seal can compute them.
    """
    return hmac.digest(
        folders.study_key(study, "seal"), purpose.encode() + b"\0" + message, "sha256"
    )
