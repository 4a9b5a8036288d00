"""The prediction endpoints. The models are small and in memory, so nothing here blocks.

Pydantic's JSON parser reads and validates a body in one step, and answers are written as bytes.
The framework's own steps between body and answer take longer than the prediction.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeVar

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from app.http.answers import answer
from app.http.problems import ProblemDetail, field_problem
from app.predict.schemas import (
    Baseline,
    BatchAnswer,
    BatchRequest,
    ModelInfo,
    ModelList,
    PredictRequest,
    SentimentAnswer,
    TabularAnswer,
)
from app.predict.service import Predictor

router = APIRouter(tags=["predict"])
#: Bodies that FastAPI does not see, so that OpenAPI needs their schemas from here.
BODIES = (PredictRequest, BatchRequest)

_Body = TypeVar("_Body", bound=BaseModel)
_WRONG: dict[int | str, dict[str, Any]] = {
    422: {"model": ProblemDetail, "description": "A field is wrong"}
}
_CACHE = {
    "Cache-Status": {
        "description": (
            "RFC 9211: `predictions; hit`, or `predictions; fwd=miss` if the model was asked. A "
            "batch is a hit if each of its items is; else `detail` counts them."
        ),
        "schema": {"type": "string"},
    }
}
_HIT, _MISS = "predictions; hit", "predictions; fwd=miss"


def _takes(model: str) -> dict[str, Any]:
    """Return the part of OpenAPI for a body that the endpoint reads itself."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _predictor(request: Request) -> Predictor:
    predictor: Predictor = request.app.state.predictor
    return predictor


@router.get("/predict", response_model=Baseline, summary="The baseline score")
async def baseline(request: Request) -> JSONResponse:
    """Return the score that predictions are compared with on this site."""
    return JSONResponse({"score": request.app.state.settings.baseline_score})


@router.post(
    "/predict",
    name="one",
    response_model=SentimentAnswer | TabularAnswer,
    summary="Classify a text or a row",
    responses={200: {"headers": _CACHE}, **_WRONG},
    openapi_extra=_takes("PredictRequest"),
)
async def predict(request: Request) -> Response:
    """A text goes to the sentiment model, four numbers go to the tabular one."""
    body = await _body(request, PredictRequest)
    _check_length(request, "text", [body])
    found, hit = _predictor(request).answer(body)
    return _json(found.body, _HIT if hit else _MISS)


@router.post(
    "/predict/batch",
    response_model=BatchAnswer,
    summary="Classify many texts and rows",
    responses={200: {"headers": _CACHE}, **_WRONG},
    openapi_extra=_takes("BatchRequest"),
)
async def batch(request: Request) -> Response:
    """Return one answer for each item, in the same order; if one item is wrong, return none.

    Up to `PREDICT_BATCH_MAX` items (1000 by default) and `MAX_BODY_BYTES` in all.
    """
    body = await _body(request, BatchRequest)
    most = request.app.state.settings.predict_batch_max
    if len(body.items) > most:
        raise field_problem("items", f"must have {most} items at most", "too_long")
    _check_length(request, "items.{}.text", body.items)
    answers, hits = _predictor(request).answers(body.items)
    count = len(answers)
    status = _HIT if hits == count else f'{_MISS}; detail="{hits} of {count} hit"'
    joined = b",".join(found.body for found in answers)
    return _json(b'{"count":%d,"predictions":[%b]}' % (count, joined), status)


@router.get("/model/info", response_model=ModelList, summary="The loaded models")
async def info(request: Request) -> Response:
    """Name, version, type, features or vocabulary, labels, training date and sha256 of each."""
    models = _predictor(request).models
    found = [
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
    return answer(ModelList(models=found))


def _json(body: bytes, cache: str) -> Response:
    return Response(body, media_type="application/json", headers={"cache-status": cache})


def _check_length(request: Request, field: str, items: list[PredictRequest]) -> None:
    """Refuse the first text that is too long; `field` is its name, with a `{}` for its index."""
    most = request.app.state.settings.max_text_length
    for number, item in enumerate(items):
        if item.text is not None and len(item.text) > most:
            wrong = f"must have {most} characters at most"
            raise field_problem(field.format(number), wrong, "too_long")


async def _body(request: Request, model: type[_Body]) -> _Body:
    """Return the request's body as `model`; raise the framework's errors for an invalid one."""
    raw = await request.body()
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            return _again(raw, model)
        _refuse(error)


def _again(raw: bytes, model: type[_Body]) -> _Body:
    """Read a body that pydantic cannot parse as the other endpoints do, for the same errors."""
    try:
        # As floats: an integer with thousands of digits becomes infinite, and the error names its
        # field.
        return model.model_validate(json.loads(raw, parse_int=float))
    except ValidationError as error:
        _refuse(error)
    except json.JSONDecodeError as error:
        wrong = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "JSON decode error"}
        raise RequestValidationError([wrong]) from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "There was an error parsing the body") from None


def _refuse(error: ValidationError) -> NoReturn:
    items = error.errors(include_url=False, include_input=False)
    raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in items])
