"""C2PA content credentials: who made a file, by what model, from which request; any changed byte shows.

PNG, WebP, GIF, JPEG, MP4 and ZIP carry them inside; a GLB and every other format gets a sidecar,
`FILE.c2pa`, because the standard defines no place in them (C2PA 2.2, "Embedding manifests"). Files are
signed with the certificate that the user names, else with one of this installation, which is made at
the first use: it proves that a file is unchanged since this installation made it, not who owns it.

Signing puts a time and a random number into a file, so signed files differ from run to run; the
assets themselves stay reproducible, since signing comes last and is asked for.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from render.errors import InputError

if TYPE_CHECKING:
    from pipeline.delivery import Result

EMBEDDED = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".zip"}
"""Endings of files that carry their credentials inside."""
SIDECAR = ".c2pa"
CERTIFICATE_VARIABLE = "MAQUETTE_C2PA_CERTIFICATE"
KEY_VARIABLE = "MAQUETTE_C2PA_KEY"
_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_RECONSTRUCTED = "http://cv.iptc.org/newscodes/digitalsourcetype/composite"
"""Of elements that may or may not be generated: nothing is known of a user's posed pictures."""
_ANY = "application/octet-stream"
_YEARS = 10


@dataclass(frozen=True)
class Verification:
    """What the credentials of a file say."""

    path: Path
    state: str
    """`valid`: unchanged, signer unknown here; `trusted`: unchanged, signed by this installation or the
    user's certificate; `changed`: the file is not what was signed; `none`: it has no credentials."""
    signer: str = ""
    claims: Mapping[str, Any] | None = None
    """What the signer said of the file: prompt, seed, weights."""

    @property
    def intact(self) -> bool:
        return self.state in ("valid", "trusted")


def _library() -> Any:
    try:
        import c2pa  # type: ignore[import-untyped]
    except ImportError:
        raise InputError("Content credentials need an extra: pip install 'maquette[c2pa]'") from None
    return c2pa


def identity_folder() -> Path:
    """Where this installation keeps its certificate and key."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "maquette" / "credentials"


def _certificate() -> tuple[bytes, bytes]:
    """(certificate chain, private key), PEM."""
    given = os.environ.get(CERTIFICATE_VARIABLE), os.environ.get(KEY_VARIABLE)
    if any(given):
        if not all(given):
            raise InputError(f"Set both {CERTIFICATE_VARIABLE} and {KEY_VARIABLE}, or neither.")
        try:
            return Path(str(given[0])).read_bytes(), Path(str(given[1])).read_bytes()
        except OSError as error:
            raise InputError(f"The signing certificate or key cannot be read: {error}") from None
    folder = identity_folder()
    chain, key = folder / "chain.pem", folder / "key.pem"
    if not (chain.is_file() and key.is_file()):
        _make_identity(folder)
    return chain.read_bytes(), key.read_bytes()


def _make_identity(folder: Path) -> None:
    """An authority of this installation and a signing certificate by it; the authority's key is dropped."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        # A random part: two installations are two signers.
        return x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, common),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"Maquette installation {tag}"),
            ]
        )

    def certificate(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name("Maquette local authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    def usage(sign: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=sign,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=not sign,
            crl_sign=not sign,
            encipher_only=False,
            decipher_only=False,
        )

    tag = os.urandom(4).hex()
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = (
        certificate(name("Maquette local authority"), authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(sign=False), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    leaf = (
        certificate(name("Maquette"), key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(sign=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _replace(folder / "key.pem", private)
    _replace(folder / "chain.pem", leaf.public_bytes(pem) + authority.public_bytes(pem))


def _replace(path: Path, data: bytes) -> None:
    """Write a file in one step, readable by its owner alone until it is in place."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def sign(path: Path, claims: Mapping[str, Any], version: str, *, source: str = _GENERATED) -> Path:
    """Give `path` credentials; returns the file that holds them: itself, or the sidecar.

    `claims` (JSON values) are what the signer says of the file, `source` its kind in IPTC's vocabulary.
    `InputError` when it cannot be read or written, or when the certificate is no good.
    """
    library = _library()
    chain, key = _certificate()
    manifest = {
        "title": path.name,
        "claim_generator_info": [{"name": "maquette", "version": version}],
        "assertions": [
            {
                "label": "c2pa.actions",
                "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": source}]},
            },
            {"label": "org.maquette.claims", "data": dict(claims)},
        ],
    }
    embeds = path.suffix.lower() in EMBEDDED
    try:
        data = path.read_bytes()
        # No time stamp authority: the library takes None for that, and refuses an empty address.
        info = library.C2paSignerInfo(library.C2paSigningAlg.ES256, chain, key, None)
        with library.Signer.from_info(info) as signer, library.Builder(manifest) as builder:
            signed = io.BytesIO()
            if not embeds:
                builder.set_no_embed()
            kind = path.suffix.lower().lstrip(".") if embeds else _ANY
            store = builder.sign(signer, kind, io.BytesIO(data), signed)
    except OSError as error:
        raise InputError(f"{path} cannot be signed: {error.strerror or error}") from None
    except library.C2paError as error:
        raise InputError(f"{path} cannot be signed: {_first_line(error)}") from None
    target = path if embeds else path.with_name(path.name + SIDECAR)
    _replace(target, signed.getvalue() if embeds else bytes(store))
    target.chmod(0o644)
    return target


def sign_result(result: Result) -> list[Path]:
    """Sign the files of a finished run; its report and receipt stay as they are. See `sign`.

    The receipt holds the hashes of the files before signing, which `maquette replay` makes again.
    """
    request, environment = result.receipt.request, result.receipt.environment
    claims = {
        "prompt": request.text,
        "negative": request.negative,
        "image_sha256": request.image_sha256,
        "views_sha256": request.views_sha256,
        "seed": request.seed,
        "preset": request.preset.name,
        "weights": dict(environment.weights),
    }
    given = {name: value for name, value in claims.items() if value not in (None, "")}
    return [
        sign(
            path,
            given | {"sha256_unsigned": result.receipt.outputs[name]},
            environment.versions["maquette"],
            source=_GENERATED if request.views_sha256 is None else _RECONSTRUCTED,
        )
        for name, path in sorted(result.files.items())
        if name in result.receipt.outputs
    ]


def verify(path: Path) -> Verification:
    """Check a file against the credentials in it or beside it. `InputError` when it cannot be read."""
    library = _library()
    if path.suffix == SIDECAR:
        raise InputError(f"{path} is a sidecar; give the file that it belongs to.")
    try:
        data = path.read_bytes()
        sidecar = path.with_name(path.name + SIDECAR)
        store = sidecar.read_bytes() if sidecar.is_file() else None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    embeds = path.suffix.lower() in EMBEDDED
    if store is None and not embeds:
        return Verification(path, "none")
    kind = path.suffix.lower().lstrip(".") if embeds else _ANY
    try:
        with library.Reader(kind, io.BytesIO(data), store, context=_trust(library)) as reader:
            state = reader.get_validation_state()
            active = reader.get_active_manifest() or {}
    except library.C2paError as error:
        if "ManifestNotFound" in type(error).__name__ + str(error):
            return Verification(path, "none")
        # A manifest that cannot even be parsed has been tampered with.
        return Verification(path, "changed")
    except json.JSONDecodeError:
        return Verification(path, "changed")
    claims = next(
        (a["data"] for a in active.get("assertions", []) if a.get("label") == "org.maquette.claims"), None
    )
    signer = active.get("signature_info", {}).get("issuer", "")
    named = {"Trusted": "trusted", "Valid": "valid"}.get(str(state), "changed")
    return Verification(path, named, signer, claims)


def _trust(library: Any) -> Any:
    """Trusts this installation's authority, or the root of the user's chain."""
    try:
        chain, _ = _certificate()
    except InputError:
        return library.Context(library.Settings.from_dict({}))
    root = (
        "-----BEGIN CERTIFICATE-----"
        + chain.decode("ascii", "replace").split("-----BEGIN CERTIFICATE-----")[-1]
    )
    return library.Context(library.Settings.from_dict({"trust": {"user_anchors": root}}))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
