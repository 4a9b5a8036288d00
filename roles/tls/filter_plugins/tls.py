"""Filters that check certificates on the jump host, so that hosts are changed only if needed."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization


def _names(certificate: x509.Certificate) -> set[str]:
    """Return the DNS names and addresses in a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(one).lower() for one in names.get_values_for_type(x509.DNSName)} | {
        str(one) for one in names.get_values_for_type(x509.IPAddress)
    }


def _covers(names: set[str], wanted: str) -> bool:
    """Return whether the names include one, literally or by a wildcard."""
    wanted = wanted.lower()
    return wanted in names or ("." in wanted and f"*.{wanted.partition('.')[2]}" in names)


def _public(key: Any) -> bytes:
    """Return a public key in a form that can be compared."""
    encoded: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


#: The library's errors when a part of a malformed certificate is read.
_ODD = (
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion),
)
_UNRELATED = (*_ODD, InvalidSignature)


def _read(path: str) -> x509.Certificate:
    """Return a certificate with readable names and dates; raise ValueError with the reason."""
    try:
        found = x509.load_pem_x509_certificate(Path(path).read_bytes())
        _names(found)
        _ = found.not_valid_after_utc
    except _ODD as error:
        message = f"{path} is not a usable certificate: {error}"
        raise ValueError(message) from error
    return found


def _public_of(certificate: x509.Certificate, path: str) -> bytes:
    try:
        return _public(certificate.public_key())
    except _ODD as error:
        message = f"{path} has a key that cannot be used: {error}"
        raise ValueError(message) from error


def _load(certificate_path: str, key_path: str, password: str = "") -> x509.Certificate:
    """Return a certificate whose key exists and matches; raise ValueError with the reason."""
    for path in (certificate_path, key_path):
        if not Path(path).is_file():
            message = f"{path} is missing"
            raise ValueError(message)
    certificate = _read(certificate_path)
    try:
        key = serialization.load_pem_private_key(
            Path(key_path).read_bytes(), password.encode() if password else None
        )
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        message = f"{key_path} cannot be read: {error}"
        raise ValueError(message) from error
    if _public(key.public_key()) != _public_of(certificate, certificate_path):
        message = f"{certificate_path} belongs to another key than {key_path}"
        raise ValueError(message)
    return certificate


def tls_pair_problem(
    certificate_path: str, key_path: str, names: Sequence[str], days: int = 0, password: str = ""
) -> str:
    """Return why a certificate and its key are unusable within `days` days; '' if usable."""
    try:
        certificate = _load(certificate_path, key_path, password)
    except ValueError as error:
        return str(error)
    left = (certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)).days
    if left < days:
        return f"{certificate_path} has {left} days left"
    there = _names(certificate)
    lacking = [name for name in names if not _covers(there, str(name))]
    if lacking:
        return f"{certificate_path} is not for {', '.join(lacking)}"
    return ""


def tls_due(
    certificate_path: str, key_path: str, names: Sequence[str], days: int, ca_path: str
) -> str:
    """Return why our own authority must issue a certificate; '' if not needed."""
    problem = tls_pair_problem(certificate_path, key_path, names, days)
    if problem:
        return problem
    certificate = _read(certificate_path)
    if extra := _names(certificate) - {str(name).lower() for name in names}:
        return f"{certificate_path} is for {', '.join(sorted(extra))} as well"
    try:
        certificate.verify_directly_issued_by(_read(ca_path))
    except _UNRELATED:
        return f"{certificate_path} was issued by another authority"
    return ""


def tls_stranger(trusted: str, ca_path: str) -> str:
    """Return whose certificate a host trusts, if it is not our authority's; or nothing.

    A renewed certificate of the same key is the same authority. One that cannot be read tells
    nothing, and is replaced.
    """
    try:
        theirs = x509.load_pem_x509_certificate(trusted.encode())
        public = _public(theirs.public_key())
    except _ODD:
        return ""
    here = "this jump host has none"
    if Path(ca_path).is_file():
        here = f"this jump host has another one in {ca_path}"
        try:
            if _public_of(_read(ca_path), ca_path) == public:
                return ""
        except ValueError as error:
            here = str(error)
    mark = theirs.fingerprint(hashes.SHA256()).hex()
    return f"it trusts the authority SHA-256 {mark[:16]}…, and {here}"


def tls_san(names: Sequence[str]) -> list[str]:
    """Return names as subject alternative names: IP entries for addresses, else DNS entries."""
    result = []
    for name in names:
        try:
            result.append(f"IP:{ipaddress.ip_address(str(name))}")
        except ValueError:
            result.append(f"DNS:{name}")
    return result


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {
            "tls_pair_problem": tls_pair_problem,
            "tls_due": tls_due,
            "tls_san": tls_san,
            "tls_stranger": tls_stranger,
        }
