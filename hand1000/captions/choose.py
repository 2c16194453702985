"""The captioner and the writer that settings name."""

from hand1000.captions.captioners import Captioner, DatasetCaptioner
from hand1000.captions.rewrite import Writer
from hand1000.config.caption_settings import CaptionerSettings, CompletionSettings


def load_captioner(settings: CaptionerSettings) -> Captioner:
    """The captioner that `settings` name; its model is loaded when it first captions."""
    if settings.kind == "dataset":
        return DatasetCaptioner()
    from hand1000.captions.vision import VisionCaptioner

    return VisionCaptioner(
        settings.kind,
        settings.source,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        num_beams=settings.num_beams,
    )


def load_writer(settings: CompletionSettings, key: str = "") -> Writer | None:
    """The writer that `settings` name; None completes by rule. `key` is the endpoint's."""
    from hand1000.captions.writers import EndpointWriter, LocalWriter

    if settings.writer == "endpoint":
        return EndpointWriter(settings.url, settings.model, key)
    return LocalWriter(settings.source, settings.batch_size) if settings.writer == "local" else None
