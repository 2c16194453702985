"""Feature extractors of large pretrained networks: DINOv2 and CLIP agree with human judgment better than Inception.

See Stein et al. (2023, arXiv 2306.04675) for DINOv2, and Jayasumana et al. (2024, arXiv 2401.09603) for CLIP and CMMD.
"""

from typing import Any

import torch

from hand1000.core.devices import best_device
from hand1000.evaluation.extractors import FeatureExtractor
from hand1000.evaluation.identity import read_foundation_size
from hand1000.storage.hub import fetch_model_folder, model_identity
from hand1000.storage.pretrained import load_model, load_part


class FoundationExtractor(FeatureExtractor):
    """A `FeatureExtractor` that uses a vision transformer of the transformers library.

    Args:
        kind: `dinov2` uses the class token as the feature, `clip` the projected image embedding.
        source: A folder, an `s3://` address, or a hub id with its revision.
    """

    def __init__(self, kind: str, source: str) -> None:
        import transformers

        classes = {"dinov2": transformers.Dinov2Model, "clip": transformers.CLIPVisionModelWithProjection}
        folder = fetch_model_folder(source)
        # A folder of CLIP has its text encoder too.
        other = r"^(text_model\.|text_projection\.|logit_scale$)" if kind == "clip" else "$^"
        network: Any = load_model(classes[kind], folder, kind, ignored=other)
        processor = load_part(transformers.AutoImageProcessor, folder, f"{kind}'s image processor", backend="pil")
        self.name, self.sha256 = kind, model_identity(source)
        self.input_size = read_foundation_size(kind, network.config.to_dict())
        self.num_features = int(network.config.hidden_size if kind == "dinov2" else network.config.projection_dim)
        self.device = best_device()
        self._network = network.to(self.device)
        self._mean, self._std = (
            torch.tensor(values, device=self.device)[None, :, None, None]
            for values in (processor.image_mean, processor.image_std)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `FeatureExtractor`."""
        output = self._network(pixel_values=(pixels / 255 - self._mean) / self._std)
        return output.image_embeds if self.name == "clip" else output.pooler_output
