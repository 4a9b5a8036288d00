"""Requests and answers of the prediction endpoints."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

# Far above any measured feature; it keeps the sums of the model finite.
Feature = Annotated[float, Strict(), Field(allow_inf_nan=False, ge=-1e9, le=1e9)]


class PredictRequest(BaseModel):
    """Either a text or four numeric features."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {"text": "The delivery was quick and the support was friendly."},
                {"data": [5.1, 3.5, 1.4, 0.2]},
            ],
            "oneOf": [
                {
                    "required": ["text"],
                    "properties": {"text": {"type": "string"}, "data": {"type": "null"}},
                },
                {
                    "required": ["data"],
                    "properties": {"data": {"type": "array"}, "text": {"type": "null"}},
                },
            ],
        },
    )

    # At least one character must not be white space.
    text: Annotated[str, Strict(), Field(min_length=1, pattern=r"\S")] | None = Field(
        default=None, description="For the sentiment model."
    )
    data: Annotated[list[Feature], Field(min_length=4, max_length=4)] | None = Field(
        default=None, description="For the tabular model, in the order of its features."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.data is None):
            raise PydanticCustomError("one_of", "send either text or data")
        return self


class BatchRequest(BaseModel):
    """Many inputs, of either kind."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [{"items": [{"text": "It works."}, {"data": [5.1, 3.5, 1.4, 0.2]}]}]
        },
    )

    items: list[PredictRequest] = Field(
        min_length=1, description="At most 1000, or PREDICT_BATCH_MAX if it is set."
    )


class SentimentAnswer(BaseModel):
    """The sentiment model's classification of a text."""

    label: str = Field(examples=["positive"])
    probability: float = Field(examples=[0.91])
    probabilities: dict[str, float] = Field(
        examples=[{"negative": 0.02, "neutral": 0.07, "positive": 0.91}]
    )
    coverage: float = Field(
        examples=[0.88],
        description=(
            "The share of the text's words that the model knows. At 0 the label is `neutral` and "
            "each probability a third: the model knows nothing of such a text."
        ),
    )
    model: str = Field(examples=["sentiment"])
    model_version: str = Field(examples=["1.0.0"])


class TabularAnswer(BaseModel):
    """The tabular model's classification of four features."""

    model_config = ConfigDict(populate_by_name=True)

    class_name: str = Field(alias="class", examples=["setosa"])
    probability: float = Field(examples=[0.98])
    probabilities: dict[str, float]
    model: str = Field(examples=["iris"])
    model_version: str = Field(examples=["1.0.0"])


class BatchAnswer(BaseModel):
    """The answers, in the order of the items."""

    count: int = Field(examples=[2])
    predictions: list[SentimentAnswer | TabularAnswer]


class Baseline(BaseModel):
    """The configured baseline score."""

    score: float = Field(examples=[0.75])


class ModelInfo(BaseModel):
    """One loaded model."""

    name: str
    version: str
    type: str
    labels: list[str]
    features: list[str] | None = None
    vocabulary_size: int | None = None
    trained_at: str
    sha256: str
    metrics: dict[str, Any]


class ModelList(BaseModel):
    """Every loaded model."""

    models: list[ModelInfo]
