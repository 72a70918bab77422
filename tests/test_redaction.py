"""Secrets of addresses stay out of what others may read."""

import pytest

from terradelta.errors import RasterError
from terradelta.redaction import redact, redact_texts

SIGNED = {
    "https://b.s3.amazonaws.com/a.tif?X-Amz-Algorithm=A&X-Amz-Date=D&X-Amz-Signature=s3cret": (
        "https://b.s3.amazonaws.com/a.tif"
    ),
    "https://b.s3.amazonaws.com/a.tif?AWSAccessKeyId=K&Signature=s3cret%3D&Expires=1": (
        "https://b.s3.amazonaws.com/a.tif"
    ),
    "https://storage.googleapis.com/b/a.tif?GoogleAccessId=K&Expires=1&Signature=s3cret": (
        "https://storage.googleapis.com/b/a.tif"
    ),
    "/vsicurl/https://x.blob.core.windows.net/c/a.tif?st=1&se=2&sp=rl&sv=3&sr=c&sig=s3cret%3D": (
        "/vsicurl/https://x.blob.core.windows.net/c/a.tif"
    ),
    "https://example.org/a.tif?access_token=s3cret": "https://example.org/a.tif",
    "https://me:s3cret@example.org/a.tif": "https://example.org/a.tif",
    "http://h/r.tif?sig=s3cret + http://h/g.tif?sig=s3cret": "http://h/r.tif + http://h/g.tif",
    "'/vsicurl/http://h/r.tif?sig=s3cret': HTTP response code 403": (
        "'/vsicurl/http://h/r.tif': HTTP response code 403"
    ),
}


@pytest.mark.parametrize("text", SIGNED)
def test_a_signed_address_loses_its_secret(text):
    assert redact(text) == SIGNED[text]


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/tiles?layer=2019&design=1",
        "https://example.org/a.tif",
        "s3://bucket/key=1/a@b.tif",
        "What is it? key=1 of 2",
        "/data/signature=a.tif",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_json_is_searched_to_its_ends():
    content = {"path": ["http://h/a.tif?token=s3cret"], "sha256": None, "size": 3}
    assert redact_texts(content) == {"path": ["http://h/a.tif"], "sha256": None, "size": 3}


def test_errors_tell_none():
    error = RasterError("http://h/a.tif?sig=s3cret is broken", fix="see http://h/a.tif?sig=s3cret")
    assert str(error) == "http://h/a.tif is broken\n  fix: see http://h/a.tif"
