"""Inputs to answers: through the cache, the models, and into JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable

from app.http.problems import unavailable
from app.observability import metrics
from app.predict.artefacts import ModelError, Models, Prediction, TabularModel, TextModel
from app.predict.cache import Answer, AnswerCache, Key
from app.predict.schemas import PredictRequest

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Predictor:
    """The models of one process, or the reason why there are none."""

    def __init__(self, models: Models | ModelError, *, cache_bytes: int) -> None:
        self._models = models
        self._cache = AnswerCache(cache_bytes)

    @property
    def models(self) -> Models:
        """The models; raises a 503 problem if they could not be loaded."""
        if isinstance(self._models, ModelError):
            raise unavailable("The model", "it could not be loaded; see /health/ready")
        return self._models

    def answer(self, request: PredictRequest) -> tuple[Answer, bool]:
        """The answer to a valid request, and whether it came from the cache."""
        models = self.models
        model: TextModel | TabularModel
        if request.text is not None:
            model = models.sentiment
            key: Key = (model.name, model.version, model.normalise(request.text))
        else:
            assert request.data is not None  # noqa: S101 - a valid request has one of both
            model = models.tabular
            key = (model.name, model.version, tuple(request.data))
        found = self._cache.get(key)
        hit = found is not None
        if found is None:
            found = _compute(model, key[2])
            self._cache.put(key, found)
        metrics.prediction_series(model.name, found.label).inc()
        return found, hit

    def answers(self, requests: Iterable[PredictRequest]) -> tuple[list[Answer], int]:
        """The answers in the order of the requests, and how many came from the cache."""
        found = [self.answer(request) for request in requests]
        return [answer for answer, _ in found], sum(hit for _, hit in found)


def _compute(model: TextModel | TabularModel, value: str | tuple[float, ...]) -> Answer:
    if isinstance(model, TextModel):
        assert isinstance(value, str)  # noqa: S101 - the key was made for this model
        return _answer(model, model.predict(value), "label")
    assert not isinstance(value, str)  # noqa: S101 - the key was made for this model
    return _answer(model, model.predict(value), "class")


def _answer(model: TextModel | TabularModel, prediction: Prediction, name: str) -> Answer:
    body = {
        name: prediction.label,
        "probability": prediction.probability,
        "probabilities": prediction.probabilities,
        "model": model.name,
        "model_version": model.version,
    }
    return Answer(prediction.label, _encode(body).encode())
