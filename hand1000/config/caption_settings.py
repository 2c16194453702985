"""Settings of captions: the captioner, the completion with the gesture's phrase, and built datasets."""

from typing import Literal, Self

from pydantic import Field, model_validator

from hand1000.config.base import BatchSize, FrozenSettings, Seed
from hand1000.config.data_settings import DataSettings


class CaptionerSettings(FrozenSettings):
    """Who captions the images of a data set."""

    kind: Literal["dataset", "blip2", "paligemma", "vit-gpt2"] = Field(
        description="dataset: the captions that come with the data; else a model that looks at the images."
    )
    source: str = Field(description="Folder, s3:// address or hub id@revision of the model; '' for dataset.")
    batch_size: BatchSize
    max_new_tokens: int = Field(ge=1, le=512)
    num_beams: int = Field(ge=1, le=16, description="1 is greedy.")

    @model_validator(mode="after")
    def _has_its_model(self) -> Self:
        if (self.kind == "dataset") == bool(self.source):
            raise ValueError(f"source: {self.kind} needs {'none' if self.kind == 'dataset' else 'one'}")
        return self


class CompletionSettings(FrozenSettings):
    """Who puts the gesture's phrase into the captions (LLaMA 3 in the paper)."""

    writer: Literal["rule", "endpoint", "local"] = Field(
        description="rule: no model; endpoint: an OpenAI-compatible server; local: a chat model of transformers."
    )
    source: str = Field(description="Of the local model; '' for the others.")
    url: str = Field(description="Of the endpoint, http://.../v1; its key, if any, is $HAND1000_ENDPOINT_KEY.")
    model: str = Field(description="As the endpoint names it.")
    batch_size: BatchSize
    attempts: int = Field(ge=1, le=5, description="Answers asked for before the caption is completed by rule.")

    @model_validator(mode="after")
    def _has_its_model(self) -> Self:
        given = {"rule": True, "endpoint": bool(self.url and self.model), "local": bool(self.source)}
        if not given[self.writer]:
            raise ValueError(f"{self.writer} needs {'source' if self.writer == 'local' else 'url and model'}")
        return self


class CaptionSettings(FrozenSettings):
    """How the images of a training are captioned."""

    captioner: CaptionerSettings
    completion: CompletionSettings


class DatasetSettings(FrozenSettings):
    """What decides a built data set besides its source and gesture."""

    seed: Seed
    data: DataSettings
    captioners: tuple[CaptionerSettings, ...] = Field(
        min_length=1, max_length=8, description="The first one's captions are published; all are measured side by side."
    )
    completion: CompletionSettings
    clip: str = Field(description="Folder, s3:// address or hub id@revision of CLIP; '' leaves its measures out.")
