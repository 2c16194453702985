"""The hand presence score of MediaPipe's landmark network, which its Hands solution does not return."""

from typing import Any

import numpy as np

_GRAPH = """
input_stream: "image" input_stream: "region" output_stream: "presence"
node {
  calculator: "ConstantSidePacketCalculator" output_side_packet: "PACKET:complexity"
  options { [mediapipe.ConstantSidePacketCalculatorOptions.ext] { packet { int_value: 1 } } }
}
node {
  calculator: "HandLandmarkModelLoader"
  input_side_packet: "MODEL_COMPLEXITY:complexity" output_side_packet: "MODEL:model"
}
node {
  calculator: "ImageToTensorCalculator"
  input_stream: "IMAGE:image" input_stream: "NORM_RECT:region" output_stream: "TENSORS:pixels"
  options {
    [mediapipe.ImageToTensorCalculatorOptions.ext] {
      output_tensor_width: 224 output_tensor_height: 224 keep_aspect_ratio: true
      output_tensor_float_range { min: 0.0 max: 1.0 }
    }
  }
}
node {
  calculator: "InferenceCalculator"
  input_stream: "TENSORS:pixels" input_side_packet: "MODEL:model" output_stream: "TENSORS:outputs"
  options { [mediapipe.InferenceCalculatorOptions.ext] { delegate { xnnpack {} } } }
}
node {
  calculator: "SplitTensorVectorCalculator"
  input_stream: "outputs" output_stream: "landmarks" output_stream: "flag"
  options {
    [mediapipe.SplitVectorCalculatorOptions.ext] { ranges { begin: 0 end: 1 } ranges { begin: 1 end: 2 } }
  }
}
node {
  calculator: "TensorsToFloatsCalculator" input_stream: "TENSORS:flag" output_stream: "FLOAT:presence"
}
"""
"""Graph of the landmark network of mediapipe/modules/hand_landmark, whose second output is the score."""


class PresenceGraph:
    """The landmark network on regions of images; for one thread at a time."""

    def __init__(self) -> None:
        import mediapipe
        from mediapipe.framework.formats.rect_pb2 import NormalizedRect

        self._mediapipe = mediapipe
        self._graph = mediapipe.CalculatorGraph(graph_config=_GRAPH)
        self._scores: list[float] = []
        self._graph.observe_output_stream("presence", self._append_score)
        self._graph.start_run()
        self._time = 0
        # The model loads, with warnings, at the first image.
        self(np.zeros((8, 8, 3), np.uint8), NormalizedRect(x_center=0.5, y_center=0.5, width=1.0, height=1.0))

    def _append_score(self, _: str, packet: Any) -> None:
        self._scores.append(self._mediapipe.packet_getter.get_float(packet))

    def __call__(self, image: np.ndarray, region: Any) -> float:
        """Return the score, 0 to 1, of a NormalizedRect of an image, (H, W, 3) uint8 RGB."""
        create = self._mediapipe.packet_creator
        self._time += 1
        frame = create.create_image_frame(image_format=self._mediapipe.ImageFormat.SRGB, data=image)
        self._graph.add_packet_to_input_stream("image", frame.at(self._time))
        self._graph.add_packet_to_input_stream("region", create.create_proto(region).at(self._time))
        self._graph.wait_until_idle()
        return float(self._scores.pop())

    def close(self) -> None:
        """Stop the graph's threads."""
        self._graph.close()
