"""The provenance of a paid image: its format, size and content credentials (C2PA), read from the
bytes as received.
"""

import hashlib
import io
import struct

from PIL import Image, UnidentifiedImageError

from helpers.services.connection import Unusable

SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
SUFFIXES |= {"GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
# The network is not used: only what the file itself carries is verified.
OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}


def examine(content: bytes) -> dict:
    """Format, width, height, sha256 and content credentials of an image file.

    Raises Unusable when it is not a complete image of the formats in SUFFIXES.
    """
    try:
        with Image.open(io.BytesIO(content), formats=[*SUFFIXES]) as picture:
            picture.load()
            kind, (width, height) = picture.format, picture.size
    except UnidentifiedImageError:
        raise Unusable("not a readable image") from None
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise Unusable(f"does not decode: {error}") from None
    if not _ends(content, kind):
        raise Unusable(f"is a {kind} without its end")
    return {
        "format": kind,
        "width": width,
        "height": height,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "c2pa": content_credentials(content, kind),
    }


def _ends(content: bytes, kind: str) -> bool:
    """Whether the file is complete to its end; a decoder may accept it without the last part."""
    if kind == "WEBP":
        return len(content) >= 8 + struct.unpack("<I", content[4:8])[0]
    if kind not in ENDS:  # the decoder needs every byte
        return True
    return content.rfind(ENDS[kind]) > content.rfind(b"IDAT" if kind == "PNG" else b"\xff\xda")


def content_credentials(content: bytes, kind: str) -> dict:
    """The C2PA manifest that a file carries: whether its signature and its hashes of the image are
    valid (`verified`) or why not, who signed it, and which generator it names.

    The signer's identity is not verified: no list of trusted authorities is used (C2PA
    specification 2.1, section 14).
    """
    from c2pa import C2paError, Context, Reader, Settings

    context = Context(Settings.from_dict(OFFLINE))
    try:
        with Reader(f"image/{kind.lower()}", io.BytesIO(content), context=context) as reader:
            state = reader.get_validation_state()
            manifest = reader.get_active_manifest() or {}
    except (C2paError.ManifestNotFound, C2paError.NotSupported):
        return {"present": False}
    except C2paError as error:
        return {"present": True, "verified": False, "state": str(error)}
    return {
        "present": True,
        "verified": state in ("Valid", "Trusted"),
        "state": state,
        "signer": manifest.get("signature_info", {}).get("issuer"),
        "generator": manifest.get("claim_generator_info") or manifest.get("claim_generator"),
    }
