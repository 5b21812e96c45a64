"""The files that `[uplink]` names, and what OpenSSL says when they, or the broker's, do not fit: in words."""

from __future__ import annotations

import datetime
import enum
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from edge.uplink.port import Trouble, UplinkError

ENDS_SOON = datetime.timedelta(days=30)
"""So long before its end a certificate is told of; of one that is short-lived, for the last tenth of its life."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: who may have signed the broker's certificate (None: the host's authorities), and who the site is."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class _Socket(ssl.SSLSocket):
    """Remembers why it failed: the MQTT library only says that the connection is lost."""

    failure: OSError | None = None

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()  # nobody else holds it yet
            raise

    def recv(self, *args: Any, **options: Any) -> bytes:
        try:
            return super().recv(*args, **options)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.failure = error
            raise


def context_of(files: TlsFiles, now: datetime.datetime) -> ssl.SSLContext:
    """What TLS is spoken with. Raises `UplinkError` that names the file that cannot be used."""
    for field, path in (("ca", files.ca), ("certificate", files.certificate), ("key", files.key)):
        if path is not None:
            _readable(field, path)
    try:
        context = ssl.create_default_context(cafile=files.ca)
    except (ssl.SSLError, OSError) as error:
        raise _unusable("ca", files.ca, "it holds no certificate in PEM form") from error
    context.sslsocket_class = _Socket
    if files.certificate is not None:
        _check_validity(files.certificate, now)
        try:
            context.load_cert_chain(files.certificate, files.key)
        except (ssl.SSLError, OSError) as error:
            fits = "it does not belong to the certificate" if _reason(error) == "KEY_VALUES_MISMATCH" else "no PEM key"
            raise _unusable("key", files.key or files.certificate, fits) from error
    return context


def ending(certificate: Path, now: datetime.datetime) -> str:
    """What is to be said of a certificate that ends soon or has ended; empty while all is well, or if it is unreadable.

    A connection outlives its certificate, so nothing else tells of it before there is none any more.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        return ""  # the next connection says why
    begin, end = found.not_valid_before_utc, found.not_valid_after_utc
    if now < end - min(ENDS_SOON, (end - begin) / 10):
        return ""
    says = "ends" if now < end else "has ended"
    return (
        f"the site's certificate {certificate} {says} on {end:%Y-%m-%d}: without a new one there, no connection is made"
    )


def _readable(field: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise _unusable(field, path, error.strerror or str(error)) from error


def _check_validity(path: Path, now: datetime.datetime) -> None:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise _unusable("certificate", path, "it holds no certificate in PEM form") from error
    if found.not_valid_after_utc < now:
        at = found.not_valid_after_utc
        raise UplinkError(Trouble.OURS_EXPIRED, f"the site's certificate {path} has expired on {at:%Y-%m-%d}")


def _unusable(field: str, path: Path | None, why: str) -> UplinkError:
    return UplinkError(Trouble.CONFIGURATION, f"uplink.{field}: {path}: {why}")


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or ""


class _Verify(enum.IntEnum):
    """What is wrong with the broker's certificate: X509_V_ERR_* of OpenSSL's x509_vfy.h."""

    NOT_YET_VALID = 9
    HAS_EXPIRED = 10
    HOSTNAME_MISMATCH = 62
    IP_ADDRESS_MISMATCH = 64


_ALERTS = {
    # TLS alerts of the broker, RFC 8446 section 6.2, as OpenSSL's sslerr.h names them.
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": Trouble.NO_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": Trouble.OURS_EXPIRED,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": Trouble.OURS_REFUSED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": Trouble.OURS_REFUSED,
    "SSLV3_ALERT_BAD_CERTIFICATE": Trouble.OURS_REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": Trouble.OURS_REFUSED,
    "TLSV1_ALERT_UNKNOWN_CA": Trouble.OURS_REFUSED,
    "TLSV1_ALERT_ACCESS_DENIED": Trouble.OURS_REFUSED,
    "TLSV1_ALERT_DECRYPT_ERROR": Trouble.OURS_REFUSED,
}

_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE", "RECORD_LAYER_FAILURE")


def in_words(error: OSError, where: str, files: TlsFiles) -> UplinkError:
    """What a failed connection to `where` (``host:port``) means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_verification(error, where, files)
    reason = _reason(error) if isinstance(error, ssl.SSLError) else ""
    if reason in _NO_TLS:
        return UplinkError(Trouble.NO_TLS, f"what answers at {where} speaks no TLS; mqtts:// needs the TLS port")
    trouble = _ALERTS.get(reason)
    if reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":  # what TLS 1.2 says of a missing certificate, and of more
        trouble = Trouble.NO_CERTIFICATE if files.certificate is None else Trouble.OURS_REFUSED
    if trouble is Trouble.NO_CERTIFICATE:
        text = f"the broker {where} wants a client certificate: give uplink.certificate and uplink.key"
        return UplinkError(trouble, text)
    if trouble is Trouble.OURS_EXPIRED:
        return UplinkError(
            trouble, f"the broker {where} says that the site's certificate {files.certificate} has expired"
        )
    if trouble is not None:
        said = reason.partition("_ALERT_")[2].replace("_", " ").lower()
        text = f"the broker {where} does not accept the site's certificate {files.certificate}: {said}"
        return UplinkError(trouble, text)
    said = reason.replace("_", " ").lower() or error.strerror or str(error) or type(error).__name__
    return UplinkError(Trouble.UNREACHABLE, f"the broker {where} cannot be reached: {said}")


def _of_verification(error: ssl.SSLCertVerificationError, where: str, files: TlsFiles) -> UplinkError:
    match error.verify_code:
        case _Verify.HAS_EXPIRED:
            text = f"the certificate of the broker {where} has expired, or this host's clock is wrong"
            return UplinkError(Trouble.BROKER_EXPIRED, text)
        case _Verify.NOT_YET_VALID:
            text = f"the certificate of the broker {where} is not valid yet, or this host's clock is wrong"
            return UplinkError(Trouble.BROKER_EXPIRED, text)
        case _Verify.HOSTNAME_MISMATCH | _Verify.IP_ADDRESS_MISMATCH:
            text = f"the broker's certificate is not for {where.rpartition(':')[0]}: use the name that it is for"
            return UplinkError(Trouble.WRONG_HOST, text)
        case _:
            known = f"uplink.ca ({files.ca})" if files.ca is not None else "an authority that this host knows"
            text = f"the certificate of the broker {where} is not signed by {known}: {error.verify_message}"
            return UplinkError(Trouble.WRONG_CA, text)
