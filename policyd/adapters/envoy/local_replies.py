"""The body of Envoy's own 503 while policyd cannot be reached: a caller's SDK reads it like an error of the provider.

Rule 1: the path tells the shape; the first mapper that matches wins.
Rule 2: a rejection by policyd is a local reply of Envoy's, too. policyd's dynamic metadata tells that it was decided,
        and it keeps its body. So do replies whose cause is the upstream.
"""

from __future__ import annotations

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    HeaderFilter,
    MetadataFilter,
    OrFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    RuntimeUInt32,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.envoy.type.matcher.v3 import (
    MetadataMatcher,
    MetadataMatcherPathSegment,
    StringMatcher,
    ValueMatcher,
)

from policyd.adapters.envoy.config import NAMESPACE, UPSTREAM_HEADER
from policyd.core.stream.dialects import Ending, registry

UNAVAILABLE = "policyd_unavailable"
MESSAGE = "The policy service could not be reached, so the call was rejected. Try again later."
RETRY_S = 1

# What paths of these dialects contain, in any case. All other paths get OpenAI's shape.
SHAPES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("anthropic.messages", ("/v1/messages", "/v1/complete", "rawpredict")),
    ("gemini.generate", ("generatecontent", "embedcontent", ":counttokens")),
    ("bedrock.converse", ("/converse", "/invoke")),
    ("openai.chat", ()),
)
# An upstream could not be reached, or broke the connection.
_UPSTREAM_FLAGS = ["UF", "UH", "UO", "UC", "UR", "LR", "URX", "NC", "NR", "UPE", "DF", "UMSDR", "NFCF"]


def local_replies() -> LocalReplyConfig:
    """What Envoy's 503 says while policyd cannot be reached."""
    return LocalReplyConfig(mappers=[ResponseMapper(filter=_other_causes()), *(_mapper(*one) for one in SHAPES)])


def _other_causes() -> AccessLogFilter:
    """policyd has decided, or sent the call to an upstream of its choice, or the upstream is the cause."""
    matcher = MetadataMatcher(
        filter=NAMESPACE, path=[MetadataMatcherPathSegment(key="decision")], value=ValueMatcher(present_match=True)
    )
    causes = [
        AccessLogFilter(metadata_filter=MetadataFilter(matcher=matcher, match_if_key_not_found=False)),
        AccessLogFilter(header_filter=HeaderFilter(header=HeaderMatcher(name=UPSTREAM_HEADER, present_match=True))),
        AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=_UPSTREAM_FLAGS)),
    ]
    return AccessLogFilter(or_filter=OrFilter(filters=causes))


def _mapper(dialect: str, paths: tuple[str, ...]) -> ResponseMapper:
    shape = next(one for one in registry.DIALECTS if one.name == dialect)
    body = shape.error(503, UNAVAILABLE, MESSAGE, Ending(origin={"reason": UNAVAILABLE}))
    return ResponseMapper(
        filter=_all(_status(503), *([_any(*map(_path, paths))] if paths else [])),
        body_format_override=SubstitutionFormatString(
            text_format_source=DataSource(inline_string=body.data.decode().replace("%", "%%")),
            content_type="application/json",
        ),
        headers_to_add=[_header("retry-after", str(RETRY_S)), *(_header(*pair) for pair in body.headers)],
    )


def _all(*filters: AccessLogFilter) -> AccessLogFilter:
    return filters[0] if len(filters) == 1 else AccessLogFilter(and_filter=AndFilter(filters=[*filters]))


def _any(*filters: AccessLogFilter) -> AccessLogFilter:
    return AccessLogFilter(or_filter=OrFilter(filters=[*filters]))


def _header(name: str, value: str) -> HeaderValueOption:
    action = HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    return HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=action)


def _status(status: int) -> AccessLogFilter:
    value = RuntimeUInt32(default_value=status, runtime_key="policyd.local_reply_status")
    return AccessLogFilter(
        status_code_filter=StatusCodeFilter(comparison=ComparisonFilter(op=ComparisonFilterOp.EQ, value=value))
    )


def _path(part: str) -> AccessLogFilter:
    matcher = StringMatcher(contains=part, ignore_case=True)
    return AccessLogFilter(header_filter=HeaderFilter(header=HeaderMatcher(name=":path", string_match=matcher)))
