"""Bodies that the service must refuse, sent to the service alone and through a site's Nginx."""

from __future__ import annotations

from typing import Any

MARK = "private-words-of-a-client"
FILE = {"root": "inbox", "path": "reviews.csv"}

# Bodies that no endpoint accepts: status, and the field that the answer names.
FOR_EVERYBODY: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 422, "body"),
    "null": (b"null", 422, "body"),
    "list": (b"[]", 422, "body"),
    "number": (b"7", 422, "body"),
    "half": (b'{"text": "' + MARK.encode(), 422, "body"),
    "bad-utf-8": (b'{"text": "\xc3\x28' + MARK.encode() + b'"}', 400, "body"),
    "bytes": (bytes(range(256)), 400, "body"),
    # An endpoint that parses the number names its field, any other one the body.
    "5000-digits": (b'{"data": [' + b"9" * 5000 + b"]}", 400, "?"),
    "deep-arrays": (b"[" * 100_000, 400, "body"),
    "deep-arrays-closed": (b"[" * 100_000 + b"]" * 100_000, 400, "body"),
    "deep-objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400, "body"),
    "just-too-deep": (b'{"text":' + b"[" * 32 + b"]" * 32 + b"}", 400, "body"),
    "large": (b" " * 1_048_577, 413, "body"),
}
# Bodies that one endpoint refuses, as Python values or as raw JSON.
FOR_ONE: list[tuple[str, Any, str]] = [
    ("/predict", {}, "body"),
    ("/predict", {"text": "", "other": MARK}, "text"),
    ("/predict", {"text": " \t\n\u3000"}, "text"),
    ("/predict", {"text": "a", MARK: 1}, MARK),
    ("/predict", {"text": None, "data": None}, "body"),
    ("/predict", {"text": "x" * 20_001}, "text"),
    ("/predict", {"data": [1, 2, 3]}, "data"),
    ("/predict", {"data": [1, 2, 3, 4, 5]}, "data"),
    ("/predict", {"data": [1, 2, 3, "4"]}, "data.3"),
    ("/predict", {"data": [1, 2, 3, True]}, "data.3"),
    ("/predict", b'{"data": [1, 2, 3, NaN]}', "data.3"),
    ("/predict", b'{"data": [Infinity, 2, 3, 4]}', "data.0"),
    ("/predict", b'{"data": [1e999, 2, 3, 4]}', "data.0"),
    ("/predict", b'{"data": [' + b"9" * 4000 + b", 2, 3, 4]}", "data.0"),
    ("/predict", b'{"text": "\\ud800' + MARK.encode() + b'"}', "text"),
    ("/predict", b'{"\\ud800": 1}', "?"),
    ("/items", {}, "name"),
    ("/items", {"name": " \t\n "}, "name"),
    ("/items", {"name": "a\x00" + MARK}, "name"),
    ("/items", {"name": "a", "more": MARK}, "more"),
    ("/items", {"name": MARK * 10}, "name"),
    ("/items", b'{"name": "\\udfff"}', "name"),
    ("/items", b'{"name": NaN}', "name"),
    ("/api/v1/jobs/trigger", {}, "source_type"),
    ("/api/v1/jobs/trigger", {"source_type": MARK, "config": {}}, "source_type"),
    ("/api/v1/jobs/trigger", {"source_type": "file"}, "config"),
    ("/api/v1/jobs/trigger", {"source_type": "file", "config": {}, "more": 1}, "more"),
    (
        "/api/v1/jobs/trigger",
        {"source_type": "file", "config": {**FILE, "path": "a\x00b"}},
        "config.path",
    ),
    (
        "/api/v1/jobs/trigger",
        {"source_type": "file", "config": {**FILE, "path": "../" * 50 + "etc/passwd"}},
        "config.path",
    ),
    (
        "/api/v1/jobs/trigger",
        b'{"source_type": "file", "config": {"root": "inbox", "path": "\\ud800.csv"}}',
        "config.path",
    ),
    (
        "/api/v1/jobs/trigger",
        {"source_type": "file", "config": {**FILE, "feature_fields": ["a"]}},
        "config.feature_fields",
    ),
    (
        "/api/v1/jobs/trigger",
        {"source_type": "api", "config": {"url": "http://[::1/\r\nhost: x"}},
        "config.url",
    ),
]
