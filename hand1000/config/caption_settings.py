"""Settings of captions: the captioner, the completion with the gesture's phrase, and built datasets."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hand1000.config.base import BatchSize, FrozenSettings, Seed
from hand1000.config.data_settings import DataSettings
from hand1000.config.inheritance import load_preset, merge_settings


class CaptionerSettings(FrozenSettings):
    """The captioner of a dataset's images."""

    kind: Literal["dataset", "blip2", "paligemma", "vit-gpt2"] = Field(
        description="dataset: the captions that come with the data; otherwise the model that captions the images."
    )
    source: str = Field(description="Folder, s3:// address or hub id@revision of the model; '' for dataset.")
    batch_size: BatchSize = Field(description="Number of images that are captioned at a time.")
    max_new_tokens: int = Field(ge=1, le=512, description="Maximum length of a caption in tokens.")
    num_beams: int = Field(ge=1, le=16, description="Number of beams of the search; 1 is greedy.")

    @model_validator(mode="after")
    def _has_its_model(self) -> Self:
        if self.kind == "dataset" and self.source:
            raise ValueError("source: dataset takes no model; choose ''")
        if self.kind != "dataset" and not self.source:
            raise ValueError(f"source: {self.kind} needs the model's folder, s3:// address or hub id@revision")
        return self


class CompletionSettings(FrozenSettings):
    """The writer that puts the gesture's phrase into the captions (LLaMA 3 in the paper)."""

    writer: Literal["rule", "endpoint", "local"] = Field(
        description="rule: no model; endpoint: an OpenAI-compatible server; local: a chat model of transformers."
    )
    source: str = Field(description="Folder, s3:// address or hub id@revision of the local model; '' for the others.")
    url: str = Field(description="URL of the endpoint, http://.../v1; its key, if any, is $HAND1000_ENDPOINT_KEY.")
    model: str = Field(description="Name of the model at the endpoint; '' for the others.")
    batch_size: BatchSize = Field(description="Number of captions that are completed at a time.")
    attempts: int = Field(ge=1, le=5, description="Number of answers before the caption is completed by rule.")

    @model_validator(mode="after")
    def _has_its_model(self) -> Self:
        if self.writer == "local" and not self.source:
            raise ValueError("local needs source")
        if self.writer == "endpoint" and not (self.url and self.model):
            raise ValueError("endpoint needs url and model")
        return self


class CaptionSettings(FrozenSettings):
    """The captions of a training's images."""

    captioner: CaptionerSettings = Field(description="A model captions only the images that came without a caption.")
    completion: CompletionSettings
    training_phrase: Literal["own", "none", "shuffled"] = Field(
        description="Phrase of the training captions: own, that of the image's gesture; none: the fusion alone says "
        "which gesture it is; shuffled, that of a random gesture of the model, as if the captions were wrong."
    )
    test_words: Annotated[str, Field(max_length=200, pattern=r"^(\S([^\r\n\t]*\S)?)?$")] = Field(
        description="Words that every test prompt has before its phrase and no training caption has; '' adds none."
    )

    def variation(self) -> dict[str, Any]:
        """Return what makes the texts differ from the completed captions; nothing by default."""
        values = self.model_dump(include={"training_phrase", "test_words"})
        return {} if values == {"training_phrase": "own", "test_words": ""} else values


class DatasetSettings(FrozenSettings):
    """Settings of the workflow build_dataset; from a preset it takes what both have in common."""

    seed: Seed
    data: DataSettings
    captioners: list[CaptionerSettings] = Field(
        min_length=1, max_length=8, description="The captions of the first are published; all are measured."
    )
    completion: CompletionSettings
    clip: str = Field(description="Folder, s3:// address or hub id@revision of CLIP; '' skips its metrics.")

    @model_validator(mode="before")
    @classmethod
    def _inherit_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "preset" not in values:
            return values
        preset = load_preset(values["preset"])
        captions = preset["captions"]
        shared = {"seed": preset["seed"], "data": preset["data"], "clip": preset["evaluation"]["clip"]}
        shared |= {"captioners": [captions["captioner"]], "completion": captions["completion"]}
        return merge_settings(shared, {name: value for name, value in values.items() if name != "preset"})
