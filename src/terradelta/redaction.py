"""Texts without the secrets that addresses carry.

Whoever holds a signed address may read what lies there, so none goes into an output, a log or an
error. Signatures are those of S3, CloudFront, Google Cloud Storage and Azure, and tokens by the
names that services commonly give them.
"""

from __future__ import annotations

import re
from typing import Any

_PARAMETERS = (
    r"x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|policy|key-pair-id"
    r"|awsaccesskeyid|googleaccessid|(?:\w+[-_])?(?:token|password|secret)|(?:\w+[-_]?)?key"
)
_END = r"\s'\"<>"
"""What no address holds, so that it ends one in a text."""
_QUERY = re.compile(
    rf"(?<=[^{_END}])\?(?=(?:[^{_END}]*&)?(?:{_PARAMETERS})=)[^{_END}]*", re.IGNORECASE
)
_USER = re.compile(rf"(?<=://)[^{_END}/@?#]+@")


def redact(text: str) -> str:
    """Return a text whose addresses have lost a query that holds a secret, and name and password.

    The whole query goes: the rest of it is the signature's too, or of no use without it.
    """
    return _USER.sub("", _QUERY.sub("", text))


def redact_json(content: Any) -> Any:
    """Return JSON-ready content whose texts are redacted."""
    if isinstance(content, dict):
        return {key: redact_json(part) for key, part in content.items()}
    if isinstance(content, list | tuple):
        return [redact_json(part) for part in content]
    return redact(content) if isinstance(content, str) else content
