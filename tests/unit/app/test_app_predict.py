"""Rows A12 to A16 and B2, and errors of the input."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.routing import Route

from app.http.plain import plain
from app.items.router import router as items_router
from app.jobs.processing import Processor
from app.main import create_app
from app.predict.artefacts import load_models
from app.predict.cache import Answer, AnswerCache, Key
from app.predict.router import router
from app.predict.schemas import PredictRequest
from app.predict.service import Predictor
from app.settings import Settings
from app.sources.base import Collection
from app.sources.schemas import Selection
from tests.unit.app.appkit import JSON, Client

FOLDER = Path(__file__).resolve().parents[3] / "app" / "models"
LABELS = ["negative", "neutral", "positive"]


def cache_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["cache-status"]


def lookups(outcome: str) -> float:
    return REGISTRY.get_sample_value("app_predict_cache_total", {"outcome": outcome}) or 0


@pytest.fixture
def fresh(settings: Settings) -> Client:
    """Return a service whose cache is empty."""
    return Client(create_app(settings))


def test_a12_a_text_gets_a_label_and_a_probability(client: Client) -> None:
    body = client.post("/predict", json={"text": "I love it, what a wonderful day!"}).json()
    assert body["label"] == "positive"
    assert list(body["probabilities"]) == LABELS
    assert (
        body["probability"]
        == body["probabilities"]["positive"]
        == max(body["probabilities"].values())
    )
    assert sum(body["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert (body["model"], body["model_version"]) == ("sentiment", "1.0.0")


@pytest.mark.parametrize(
    "text", ["😀", "Это ужасно!", "これは良い", "12345", "!!!", "cafe\u0301"], ids=ascii
)
def test_a_text_without_a_known_word_is_neutral_and_says_so(client: Client, text: str) -> None:
    body = client.post("/predict", json={"text": text}).json()
    assert (body["label"], body["coverage"]) == ("neutral", 0)
    assert set(body["probabilities"].values()) == {body["probability"]} == {0.333333}
    (item,) = client.post("/predict/batch", json={"items": [{"text": text}]}).json()["predictions"]
    assert item == body


def test_coverage_is_the_share_of_words_that_the_model_knows(client: Client) -> None:
    def coverage(text: str) -> float:
        found: float = client.post("/predict", json={"text": text}).json()["coverage"]
        return found

    assert coverage("I love it!") == coverage("aint :)") == 1
    assert coverage("I love отзыв xyzzyplugh !!!") == 0.5
    assert "coverage" not in client.post("/predict", json={"data": [1, 2, 3, 4]}).json()


def test_composed_and_decomposed_texts_get_one_answer_from_requests_and_jobs(
    client: Client,
) -> None:
    models = load_models(FOLDER)
    for text in ("A naïve fiancée, not good", "H\u0331 İ good, résumé bad", "Å great cliché"):
        forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
        answers = [client.post("/predict", json={"text": form}).json() for form in forms]
        assert answers[0] == answers[1]
        batch = Collection(iter([[(n, {"text": form}) for n, form in enumerate(forms)]]), {})
        processor = Processor(models, Selection(), batch)
        list(processor.steps())
        (part,) = processor.parts
        assert [row[3:5] for row in json.loads(part)] == [
            [answers[0]["label"], answers[0]["probability"]]
        ] * 2


def test_a13_four_numbers_get_a_class_and_probabilities(client: Client) -> None:
    body = client.post("/predict", json={"data": [1, 2, 3, 4]}).json()
    assert set(body["probabilities"]) == {"setosa", "versicolor", "virginica"}
    assert body["class"] == max(body["probabilities"], key=body["probabilities"].__getitem__)
    setosa = client.post("/predict", json={"data": [5.1, 3.5, 1.4, 0.2]}).json()
    assert setosa["class"] == "setosa"


def test_a14_a_batch_keeps_the_order_and_says_what_single_requests_say(client: Client) -> None:
    items: list[dict[str, Any]] = [
        {"text": "terrible, it broke"},
        {"data": [5.1, 3.5, 1.4, 0.2]},
        {"text": "lovely"},
        {"data": [6.3, 3.3, 6.0, 2.5]},
        {"text": "terrible, it broke"},
    ]
    answer = client.post("/predict/batch", json={"items": items})
    assert answer.status_code == 200
    alone = [client.post("/predict", json=item).json() for item in items]
    assert answer.json() == {"count": 5, "predictions": alone}


def test_a14_a_batch_has_its_limit(settings: Settings) -> None:
    small = Client(create_app(settings.model_copy(update={"predict_batch_max": 3})))
    item = {"text": "good"}
    assert small.post("/predict/batch", json={"items": [item] * 3}).status_code == 200
    answer = small.post("/predict/batch", json={"items": [item] * 4})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "items"
    assert "3 items" in answer.json()["detail"]


def test_a14_a_thousand_items_are_taken(client: Client) -> None:
    items = [{"text": f"good number {number}"} for number in range(1000)]
    body = client.post("/predict/batch", json={"items": items}).json()
    assert body["count"] == len(body["predictions"]) == 1000


def test_a15_the_baseline_score(client: Client) -> None:
    answer = client.get("/predict")
    assert (answer.status_code, answer.json()) == (200, {"score": 0.75})


def test_a16_what_is_said_of_a_model(client: Client) -> None:
    models = {model["name"]: model for model in client.get("/model/info").json()["models"]}
    assert set(models) == {"sentiment", "iris"}
    assert models["sentiment"]["labels"] == LABELS
    assert models["sentiment"]["vocabulary_size"] > 1000
    assert len(models["iris"]["features"]) == 4
    folder = Path(__file__).resolve().parents[3] / "app" / "models"
    manifest = {
        entry["name"]: entry
        for entry in json.loads((folder / "manifest.json").read_text())["models"]
    }
    for name, model in models.items():
        assert model["sha256"] == manifest[name]["sha256"]
        assert model["version"] == manifest[name]["version"]
        assert model["type"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", model["trained_at"])


@pytest.mark.parametrize("body", [{"text": "So good!"}, {"data": [1, 2, 3, 4]}])
def test_b2_the_second_answer_is_the_first_one_kept(fresh: Client, body: Any) -> None:
    hits, misses = lookups("hit"), lookups("miss")
    first, second = (fresh.post("/predict", json=body) for _ in range(2))
    assert (cache_of(first), cache_of(second)) == ("predictions; fwd=miss", "predictions; hit")
    assert first.content == second.content
    assert (lookups("hit"), lookups("miss")) == (hits + 1, misses + 1)


def test_b2_what_the_model_cannot_tell_apart_is_the_same_input(fresh: Client) -> None:
    fresh.post("/predict", json={"text": "don't like it"})
    assert cache_of(fresh.post("/predict", json={"text": "Don\u2019t LIKE it"})).endswith("hit")
    assert "fwd" in cache_of(fresh.post("/predict", json={"text": "don't like it!"}))
    fresh.post("/predict", json={"data": [1, 2, 3, 4]})
    assert cache_of(fresh.post("/predict", json={"data": [1.0, 2.0, 3.0, 4.0]})).endswith("hit")


def test_b2_a_batch_counts_its_hits(fresh: Client) -> None:
    body = {"items": [{"text": "one"}, {"text": "two"}]}
    fresh.post("/predict", json={"text": "two"})
    detail = 'predictions; fwd=miss; detail="1 of 2 hit"'
    assert cache_of(fresh.post("/predict/batch", json=body)) == detail
    assert cache_of(fresh.post("/predict/batch", json=body)) == "predictions; hit"


def test_b2_a_cache_of_no_bytes_keeps_nothing(settings: Settings) -> None:
    client = Client(create_app(settings.model_copy(update={"predict_cache_bytes": 0})))
    for _ in range(2):
        assert "fwd=miss" in cache_of(client.post("/predict", json={"text": "good"}))


def test_b2_the_cache_is_bounded_and_forgets_the_least_asked_for() -> None:
    cache = AnswerCache(10_000)
    answer = Answer("positive", b"x" * 100)
    keys: list[Key] = [("m", "1", f"text {number:03}") for number in range(100)]
    for key in keys:
        cache.put(key, answer)
        assert cache.get(keys[0]) is answer
    assert 5 < len(cache) < 30
    assert cache.get(keys[1]) is None
    assert cache.get(keys[-1]) is answer
    cache.put(("m", "1", "x" * 20_000), answer)
    assert cache.get(keys[-1]) is answer, "what does not fit must not empty the cache"


def test_b2_another_version_of_a_model_never_reads_the_cache_of_this_one() -> None:
    models = load_models(FOLDER)
    predictor = Predictor(models, cache_bytes=100_000)
    request = PredictRequest(text="good")
    predictor.answer(request)
    assert predictor.answer(request)[1]
    models.sentiment.version = "9.9.9"
    answer, hit = predictor.answer(request)
    assert not hit
    assert json.loads(answer.body)["model_version"] == "9.9.9"


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ('{"text": ""}', "text"),
        ('{"text": " \\n\\t\\u00a0"}', "text"),
        ('{"text": null}', "body"),
        ('{"data": []}', "data"),
        ('{"data": [1, 2, 3]}', "data"),
        ('{"data": [1, 2, 3, 4, 5]}', "data"),
        ('{"data": [1, 2, NaN, 4]}', "data.2"),
        ('{"data": [1, Infinity, 3, 4]}', "data.1"),
        ('{"data": [-Infinity, 2, 3, 4]}', "data.0"),
        ('{"data": [1, 2, 3, 1e999]}', "data.3"),
        ('{"data": [1, 2, 3, 1e10]}', "data.3"),
        ('{"data": [1, 2, 3, ' + "9" * 400 + "]}", "data.3"),
        ('{"data": [1, 2, 3, ' + "9" * 6000 + "]}", "data.3"),
        ('{"data": [1, 2, 3, "4"]}', "data.3"),
        ('{"data": [[1], 2, 3, 4]}', "data.0"),
    ],
)
def test_what_is_wrong_is_named_alone_and_in_a_batch(
    client: Client, content: str, field: str
) -> None:
    alone = client.post("/predict", content=content, headers=JSON)
    assert alone.status_code == 422, alone.text
    assert [error["field"] for error in alone.json()["errors"]] == [field]
    among = f'{{"items": [{{"text": "fine"}}, {content}]}}'
    answer = client.post("/predict/batch", content=among, headers=JSON)
    assert answer.status_code == 422, answer.text
    named = "items.1" if field == "body" else f"items.1.{field}"
    assert [error["field"] for error in answer.json()["errors"]] == [named]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "items"),
        ({"items": []}, "items"),
        ({"items": {}}, "items"),
        ({"items": ["a"]}, "items.0"),
    ],
)
def test_a_wrong_batch_is_named(client: Client, body: Any, field: str) -> None:
    answer = client.post("/predict/batch", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_a_text_of_a_batch_has_the_limit_of_a_single_one(client: Client) -> None:
    items = [{"text": "x" * 20_000}, {"text": "x" * 20_001}]
    answer = client.post("/predict/batch", json={"items": items})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "items.1.text"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_not_declared_as_json_is_refused(client: Client, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    answer = client.post("/predict", content=b'{"text": "good"}', headers=headers)
    assert answer.status_code == 415
    assert answer.json()["errors"][0]["field"] == "body"


def test_the_plain_routes_and_the_frameworks_way_give_the_same(settings: Settings) -> None:
    assert {
        ("GET", "/predict"),
        ("POST", "/predict"),
        ("POST", "/predict/batch"),
        ("GET", "/model/info"),
    } == {(method, route.path) for route in plain(router) for method in route.methods or ()}
    short, long = create_app(settings), create_app(settings)
    long.router.routes[:] = [route for route in long.router.routes if type(route) is not Route]
    assert len(long.router.routes) <= len(short.router.routes) - 4
    for path in ("/predict", "/predict/batch"):
        for body in ({"text": "good"}, {"items": [{"text": "good"}]}, {}, {"text": 5}, [1]):
            one, other = (Client(app).post(path, json=body) for app in (short, long))
            assert one.status_code == other.status_code
            for answer in (one, other):
                answer.headers.pop("x-request-id")
            assert one.headers == other.headers or one.status_code == 422
            assert one.json().get("errors") == other.json().get("errors")
            assert one.json().get("label") == other.json().get("label")


def test_an_endpoint_that_needs_the_framework_gets_no_plain_route() -> None:
    with pytest.raises(TypeError, match=r"/items takes more than the request"):
        plain(items_router)


def damaged(tmp_path: Path, settings: Settings) -> Settings:
    models = tmp_path / "models"
    shutil.copytree(settings.models_dir, models)
    path = models / "sentiment.json"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    return settings.model_copy(update={"models_dir": models})


def test_b6_a_damaged_model_is_named_by_readiness_and_never_served(
    tmp_path: Path, settings: Settings
) -> None:
    client = Client(create_app(damaged(tmp_path, settings)))
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    assert re.search(
        r"model sentiment: sha256 of .* the manifest says", ready.json()["checks"]["models"]
    )
    for answer in (
        client.post("/predict", json={"text": "good"}),
        client.post("/predict", json={"data": [1, 2, 3, 4]}),
        client.post("/predict/batch", json={"items": [{"text": "good"}]}),
        client.get("/model/info"),
    ):
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/health").status_code == 200
    assert client.get("/predict").json() == {"score": 0.75}
