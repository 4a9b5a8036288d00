"""The prediction endpoints. Models are in memory and small, so nothing here waits."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from app.http.problems import ProblemDetail, field_problem
from app.observability import metrics
from app.predict.artefacts import Models, Prediction, TabularModel, TextModel
from app.predict.schemas import (
    Baseline,
    ModelInfo,
    ModelList,
    PredictRequest,
    SentimentAnswer,
    TabularAnswer,
)

router = APIRouter(tags=["predict"])


@router.get("/predict", response_model=Baseline, summary="The baseline score")
async def baseline(request: Request) -> JSONResponse:
    """The score that a prediction is measured against on this site."""
    return JSONResponse({"score": request.app.state.settings.baseline_score})


@router.post(
    "/predict",
    response_model=SentimentAnswer | TabularAnswer,
    summary="Classify a text or a row",
    responses={422: {"model": ProblemDetail, "description": "A field is wrong"}},
)
async def predict(request: Request, body: PredictRequest) -> JSONResponse:
    """A text goes to the sentiment model, four numbers go to the tabular one."""
    models: Models = request.app.state.models
    if body.text is not None:
        limit = request.app.state.settings.max_text_length
        if len(body.text) > limit:
            raise field_problem("text", f"must have {limit} characters at most", "too_long")
        prediction = models.sentiment.predict(body.text)
        return _answer(models.sentiment, prediction, "label")
    assert body.data is not None  # noqa: S101 - the request model lets one of both pass
    return _answer(models.tabular, models.tabular.predict(body.data), "class")


def _answer(model: TextModel | TabularModel, prediction: Prediction, name: str) -> JSONResponse:
    metrics.PREDICTIONS.labels(model.name, prediction.label).inc()
    return JSONResponse(
        {
            name: prediction.label,
            "probability": prediction.probability,
            "probabilities": prediction.probabilities,
            "model": model.name,
            "model_version": model.version,
        }
    )


@router.get("/model/info", response_model=ModelList, summary="The loaded models")
async def info(request: Request) -> ModelList:
    """Name, version, type, features or vocabulary, labels, training date and sha256 of each."""
    models: Models = request.app.state.models
    return ModelList(
        models=[
            ModelInfo(
                name=model.name,
                version=model.version,
                type=model.info["type"],
                labels=model.labels,
                features=model.info.get("features"),
                vocabulary_size=model.info.get("vocabulary_size"),
                trained_at=models.trained_at,
                sha256=model.info["sha256"],
                metrics=model.info["metrics"],
            )
            for model in models.all
        ]
    )
