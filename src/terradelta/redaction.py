"""Removes the secrets in addresses from texts.

Anyone with a signed address may read its file, so signatures never go into an output, a log or an
error. They are those of S3, CloudFront, Google Cloud Storage and Azure, and tokens by the
names that services commonly give them.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

Content = TypeVar("Content")

_PARAMETERS = (
    r"x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|policy|key-pair-id"
    r"|awsaccesskeyid|googleaccessid|(?:\w+[-_])?(?:token|password|secret)|(?:\w+[-_]?)?key"
)
_END = r"\s'\"<>"
"""Characters that no address holds, so that they end one in a text."""
_QUERY = re.compile(
    rf"(?<=[^{_END}])\?(?=(?:[^{_END}]*&)?(?:{_PARAMETERS})=)[^{_END}]*", re.IGNORECASE
)
_USER = re.compile(rf"(?<=://)[^{_END}/@?#]+@")


def redact(text: str) -> str:
    """Return a text whose addresses have no name and password, and no query that holds a secret.

    The whole query goes: the rest of it belongs to the signature or is useless without it.
    """
    return _USER.sub("", _QUERY.sub("", text))


def redact_texts(content: Content) -> Content:
    """Return a dataclass, or JSON-ready content, with all its texts redacted."""
    return _redact_part(content)


def _redact_part(part: Any) -> Any:
    if isinstance(part, str):
        return redact(part)
    if isinstance(part, dict):
        return {key: _redact_part(one) for key, one in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(map(_redact_part, part))
    if is_dataclass(part) and not isinstance(part, type):
        names = [one.name for one in fields(part)]
        return replace(part, **{name: _redact_part(getattr(part, name)) for name in names})
    return part
