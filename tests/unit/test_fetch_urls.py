"""URLs: what is hidden of them, where redirects lead, and what is refused before anything is sent."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovcache.errors import SampleError
from fovcache.fetch.reasons import reason_of
from fovcache.fetch.redact import RedactingFilter, may_hide_identity, redact
from fovcache.fetch.target import parse_target

S3 = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={0}%2Faws4&X-Amz-Date={0}&X-Amz-Expires=60&X-Amz-Signature={0}"
GCS = "X-Goog-Algorithm=GOOG4&X-Goog-Credential={0}&X-Goog-Date={0}&X-Goog-SignedHeaders=host&x-goog-signature={0}"
S3_OLD = "AWSAccessKeyId={0}&Signature={0}%3D&Expires={0}"
CLOUDFRONT = "Expires={0}&Policy={0}&Signature={0}&Key-Pair-Id={0}"
AZURE = "sv=2024&st={0}&se={0}&sr=b&sp=r&sig={0}"


@pytest.mark.parametrize("signature", [S3, GCS, S3_OLD, CLOUDFRONT, AZURE])
def test_a_url_that_is_signed_anew_stays_the_same(signature: str) -> None:
    urls = [f"https://host/a%20b/1.mp4?part=2&{signature.format(secret)}&v=7#t=1" for secret in ("aaaa1", "bbbb2")]
    shown = {redact(url) for url in urls}
    assert len(shown) == 1
    assert "aaaa1" not in shown.pop()
    assert redact(urls[0]).startswith("https://host/a%20b/1.mp4?part=2&")
    assert redact(urls[0]).endswith("&v=7#t=1")
    assert not may_hide_identity(urls[0])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:s3cret@host:8080/a.mp4", "https://host:8080/a.mp4"),
        ("https://me:p@ss@host/a@b.mp4", "https://host/a@b.mp4"),
        ("//me:s3cret@host/a", "//host/a"),
        ("http://host/a?token=s3cret", "http://host/a?token="),
        ("http://host/a?x=1;access_token=s3cret;y=2", "http://host/a?x=1;access_token=;y=2"),
        ("http://host/a#access_token=s3cret&x=1", "http://host/a#access_token=&x=1"),
        ("http://host/a?Api%5FKey=s3cret", "http://host/a?Api%5FKey="),
        ("/a?password=s3cret&b", "/a?password=&b"),
        ("http://host/a?key=AIzaSyA-1234567890abcdefghij", "http://host/a?key="),
    ],
)
def test_secrets_are_hidden_and_nothing_else(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "https://host/token=1/auth/key.mp4",
        "https://host/a?key=photos/1.jpg&session=3&st=5&sv=1&se=2",
        "https://host/a?monkey=1&tokenize=2&author=me&sign=x",
        "https://host/a?token",
        "https://[::1]:80/a?b=c@d",
        "shard.tar#member.png",
        "",
    ],
)
def test_what_is_no_secret_stays(url: str) -> None:
    assert redact(url) == url
    assert not may_hide_identity(url)


@given(st.text("abc:/?#&;=@%.tokensig", max_size=60))
def test_hiding_twice_is_hiding_once(text: str) -> None:
    shown = redact(f"http://{text}")
    assert redact(shown) == shown


@given(st.text("xyz%-_~+", min_size=1), st.sampled_from(["token", "sig", "X-Amz-Signature", "AUTH", "api-key"]))
def test_no_value_of_a_secret_stays(secret: str, name: str) -> None:
    mark = f"<{secret}>"
    assert mark not in redact(f"http://u:{mark}@host/p?a=1&{name}={mark}&b=2")


def test_a_secret_that_no_signing_scheme_knows_may_tell_two_objects_apart() -> None:
    assert may_hide_identity("http://host/a?token=1")
    assert may_hide_identity("http://host/a?X-Amz-Signature=1&key=0123456789abcdef")


def test_other_libraries_records_are_redacted(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("another.library")
    logger.addFilter(RedactingFilter())
    with caplog.at_level(logging.DEBUG):
        logger.debug('"%s %s" %d', "GET", "/a?sig=s3cret&b=1", 200)
        logger.debug("no arguments")
    assert caplog.messages == ['"GET /a?sig=&b=1" 200', "no arguments"]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("file:///etc/passwd", "scheme-refused"),
        ("ftp://host/a", "scheme-refused"),
        ("s3://bucket/a", "scheme-refused"),
        ("/etc/passwd", "scheme-refused"),
        ("host/a.mp4", "scheme-refused"),
        ("", "scheme-refused"),
        ("http://", "bad-url"),
        ("http:///a.mp4", "bad-url"),
        ("http://host:port/s3cret", "bad-url"),
        ("http://host:99999/s3cret", "bad-url"),
        ("http://me:s3/cret@host/", "bad-url"),
        ("http://[::1/s3cret", "bad-url"),
    ],
)
def test_what_is_no_http_url_is_refused_without_repeating_it(url: str, code: str) -> None:
    with pytest.raises(SampleError) as caught:
        parse_target(url)
    assert (caught.value.stage, reason_of(caught.value.reason), caught.value.permanent) == ("fetch", code, True)
    assert "s3cret" not in str(caught.value)


def test_a_url_is_sent_without_userinfo_and_fragment() -> None:
    target = parse_target("HTTPS://m%40e:s%3Acret@Host/a b?x=%2f&sig=1#part")
    assert target.url == "https://host/a%20b?x=%2F&sig=1"
    assert target.origin == ("https", "host", 443)
    assert target.headers() == {"Authorization": "Basic bUBlOnM6Y3JldA=="}


@pytest.mark.parametrize(
    ("location", "url", "is_told"),
    [
        ("b.mp4?x=1", "http://host/d/b.mp4?x=1", True),
        ("/b.mp4", "http://host/b.mp4", True),
        ("//host:80/b", "http://host:80/b", True),
        ("http://HOST/b", "http://host/b", True),
        ("//other/b", "http://other/b", False),
        ("http://host:81/b", "http://host:81/b", False),
        ("https://host/b", "https://host/b", False),
    ],
)
def test_credentials_follow_a_redirect_to_the_same_origin_only(location: str, url: str, is_told: bool) -> None:
    target = parse_target("http://me:s3cret@host/d/a.mp4").redirected(location)
    assert target.url == url
    assert ("Authorization" in target.headers()) == is_told


def test_a_redirects_own_credentials_are_used() -> None:
    target = parse_target("http://me:s3cret@host/a").redirected("http://you:other@host/b")
    assert target.headers() == parse_target("http://you:other@host/").headers()


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://host/b", "scheme-refused"),
        ("file:///etc/passwd", "scheme-refused"),
        ("javascript:alert(1)", "scheme-refused"),
        ("https://[::1/", "bad-url"),
    ],
)
def test_redirects_that_are_refused(location: str, code: str) -> None:
    with pytest.raises(SampleError) as caught:
        parse_target("https://host/a").redirected(location)
    assert reason_of(caught.value.reason) == code
