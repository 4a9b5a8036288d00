"""Inputs to answers: through the cache, the models, and into JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

from app.http.problems import unavailable
from app.observability import metrics
from app.predict.artefacts import ModelError, Models, Prediction, TabularModel, TextModel
from app.predict.cache import Answer, AnswerCache, Key
from app.predict.schemas import PredictRequest

# Names and labels: there are few of them.
_quoted = lru_cache(maxsize=256)(json.JSONEncoder(ensure_ascii=False).encode)


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
        (found,), hits = self.answers([request])
        return found, hits == 1

    def answers(self, requests: Sequence[PredictRequest]) -> tuple[list[Answer], int]:
        """The answers in the order of the requests, and how many came from the cache."""
        models = self.models
        found = [self._answer(models, request) for request in requests]
        hits = sum(hit for _, _, hit in found)
        self._cache.count(hits, len(found) - hits)
        labels: dict[tuple[str, str], int] = {}
        for model, answer, _ in found:
            label = (model, answer.label)
            labels[label] = labels.get(label, 0) + 1
        for (model, name), count in labels.items():
            metrics.prediction_series(model, name).inc(count)
        return [answer for _, answer, _ in found], hits

    def _answer(self, models: Models, request: PredictRequest) -> tuple[str, Answer, bool]:
        """The model that was asked, its answer, and whether it came from the cache."""
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
        return model.name, found, hit


def _compute(model: TextModel | TabularModel, value: str | tuple[float, ...]) -> Answer:
    if isinstance(model, TextModel):
        assert isinstance(value, str)  # noqa: S101 - the key was made for this model
        return _answer(model, model.predict(value), "label")
    assert not isinstance(value, str)  # noqa: S101 - the key was made for this model
    return _answer(model, model.predict(value), "class")


def _answer(model: TextModel | TabularModel, prediction: Prediction, name: str) -> Answer:
    # As `json.dumps` writes it, in a third of the time: numbers are finite, names few.
    shares = [f"{_quoted(label)}:{share!r}" for label, share in prediction.probabilities.items()]
    body = (
        f'{{"{name}":{_quoted(prediction.label)},"probability":{prediction.probability!r},'
        f'"probabilities":{{{",".join(shares)}}},'
        f'"model":{_quoted(model.name)},"model_version":{_quoted(model.version)}}}'
    )
    return Answer(prediction.label, body.encode())
