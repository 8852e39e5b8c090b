"""How Envoy speaks TLS: to providers, and to policyd; and the SDS files by which it follows changed certificates.

Rule 1: policyd is spoken to over TLS 1.2 or newer, and only where its certificate names it.
Rule 2: Envoy reads a file that its configuration names once. What it is to follow goes by SDS: a file that names files.
"""

from __future__ import annotations

from envoy_data_plane.envoy.config.core.v3 import ConfigSource, DataSource, PathConfigSource, TransportSocket
from envoy_data_plane.envoy.config.core.v3 import WatchedDirectory as Directory
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    SdsSecretConfig,
    Secret,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryResponse
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

from policyd.adapters.envoy.config import Address, ExtprocTls, Upstream, is_ip
from policyd.adapters.envoy.names import Name, host_name

CERTIFICATE, AUTHORITY = "policyd_certificate", "policyd_authority"  # of the secrets; the files are called as these


def provider_socket(upstream: Upstream, ca_file: str) -> TransportSocket:
    """To a provider: its name, signed by an authority that this system trusts."""
    trusted = _validation([host_name(upstream.host)], DataSource(filename=ca_file))
    return _socket(upstream.host, CommonTlsContext(validation_context=trusted))


def extproc_socket(tls: ExtprocTls, place: Address) -> TransportSocket:
    """To policyd."""
    names = tls.names or (host_name(place.host),)
    versions = TlsParameters(
        tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2,
        tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
    )
    common = _followed(tls, names) if tls.sds else _read_once(tls, names)
    common.tls_params, common.alpn_protocols = versions, ["h2"]
    return _socket(place.host, common)


def _socket(host: str, common: CommonTlsContext) -> TransportSocket:
    whole = UpstreamTlsContext(sni="" if is_ip(host) else host, common_tls_context=common)
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(whole))


def _validation(names: tuple[Name, ...] | list[Name], ca: DataSource | None) -> CertificateValidationContext:
    return CertificateValidationContext(trusted_ca=ca, match_typed_subject_alt_names=[*map(_matcher, names)])


def _matcher(name: Name) -> SubjectAltNameMatcher:
    return SubjectAltNameMatcher(
        san_type=SubjectAltNameMatcherSanType[name.kind.value], matcher=StringMatcher(exact=name.text)
    )


def _read_once(tls: ExtprocTls, names: tuple[Name, ...]) -> CommonTlsContext:
    return CommonTlsContext(
        tls_certificates=[_certificate(tls.cert, tls.key)] if tls.cert else [],
        validation_context=_validation(names, DataSource(filename=tls.ca)),
    )


def _followed(tls: ExtprocTls, names: tuple[Name, ...]) -> CommonTlsContext:
    return CommonTlsContext(
        tls_certificate_sds_secret_configs=[_by_sds(tls, CERTIFICATE)] if tls.cert else [],
        combined_validation_context=CommonTlsContextCombinedCertificateValidationContext(
            default_validation_context=_validation(names, None),
            validation_context_sds_secret_config=_by_sds(tls, AUTHORITY),
        ),
    )


def _by_sds(tls: ExtprocTls, secret: str) -> SdsSecretConfig:
    file = PathConfigSource(path=f"{tls.sds}/{secret}.yaml", watched_directory=Directory(path=tls.sds))
    return SdsSecretConfig(name=secret, sds_config=ConfigSource(path_config_source=file))


def _certificate(cert: str, key: str) -> TlsCertificate:
    return TlsCertificate(certificate_chain=DataSource(filename=cert), private_key=DataSource(filename=key))


# ---- SDS files ------------------------------------------------------------------------------------------------------


def certificate_file(cert: str, key: str) -> DiscoveryResponse:
    """What stands in the SDS file `CERTIFICATE`. Envoy follows it, and the files that it names."""
    return _secret(Secret(name=CERTIFICATE, tls_certificate=_certificate(cert, key)))


def authority_file(ca: str) -> DiscoveryResponse:
    """What stands in the SDS file `AUTHORITY`."""
    trusted = CertificateValidationContext(trusted_ca=DataSource(filename=ca))
    return _secret(Secret(name=AUTHORITY, validation_context=trusted))


def _secret(made: Secret) -> DiscoveryResponse:
    return DiscoveryResponse(resources=[Any.pack(made)])
