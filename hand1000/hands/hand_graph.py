"""MediaPipe's graph of hand detection, with the scores that its Hands solution does not return."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_GRAPH = "mediapipe/modules/hand_landmark/hand_landmark_tracking_cpu.binarypb"
_STREAMS = {"palm_detections": "palms", "multi_hand_landmarks": "landmarks", "multi_handedness": "handedness"}
_PRESENCE = "handlandmarkcpu__hand_presence_score"
"""Inner stream with the second output of the landmark network, one packet per palm."""

_MIN_PRESENCE = 0.5
_FRAME_MICROSECONDS = 33_333


class GraphOutputs(NamedTuple):
    """MediaPipe's messages for one image, one per hand, and the presence scores, one per palm."""

    palms: list[Any]
    landmarks: list[Any]
    handedness: list[Any]
    presence: list[float]


class HandGraph:
    """The graph of mediapipe.solutions.hands.Hands for static images, which observes palms and presence too.

    It is for one thread at a time. The models load in the background, with warnings on the standard error.

    Args:
        min_detection_confidence: Threshold of the palm detector, 0 to 1.
        max_hands: Maximum number of hands per image.
    """

    def __init__(self, min_detection_confidence: float, max_hands: int) -> None:
        import mediapipe

        root = Path(mediapipe.__file__).parents[1]
        mediapipe.resource_util.set_resource_dir(str(root))
        self._mediapipe = mediapipe
        self._graph = mediapipe.CalculatorGraph(graph_config=_configure(root, min_detection_confidence))
        self._packets: dict[str, Any] = {}
        self._presence: list[float] = []
        self._time = 0
        for name in _STREAMS:
            self._graph.observe_output_stream(name, self._packets.__setitem__)
        self._graph.observe_output_stream(_PRESENCE, self._append_presence)
        create = mediapipe.packet_creator
        self._graph.start_run(
            {
                "model_complexity": create.create_int(1),
                "num_hands": create.create_int(max_hands),
                "use_prev_landmarks": create.create_bool(False),
            }
        )

    def _append_presence(self, _: str, packet: Any) -> None:
        self._presence.append(self._mediapipe.packet_getter.get_float(packet))

    def __call__(self, image: np.ndarray) -> GraphOutputs:
        """Detect the hands in an image, (H, W, 3) uint8 RGB, contiguous."""
        self._packets.clear()
        self._presence.clear()
        self._time += _FRAME_MICROSECONDS
        frame = self._mediapipe.packet_creator.create_image_frame(
            image_format=self._mediapipe.ImageFormat.SRGB, data=image
        )
        self._graph.add_packet_to_input_stream("image", frame.at(self._time))
        self._graph.wait_until_idle()
        read = self._mediapipe.packet_getter.get_proto_list
        messages = {
            field: read(self._packets[name]) if name in self._packets else [] for name, field in _STREAMS.items()
        }
        return GraphOutputs(**messages, presence=list(self._presence))

    def close(self) -> None:
        """Stop the graph's threads."""
        self._graph.close()


def _configure(root: Path, min_detection_confidence: float) -> Any:
    """The graph without subgraphs, in which inner streams have names, with our thresholds."""
    import mediapipe
    from mediapipe.calculators.tensor.tensors_to_detections_calculator_pb2 import TensorsToDetectionsCalculatorOptions
    from mediapipe.calculators.util.thresholding_calculator_pb2 import ThresholdingCalculatorOptions
    from mediapipe.framework.calculator_pb2 import CalculatorGraphConfig

    graph = mediapipe.ValidatedGraphConfig()
    graph.initialize(binary_graph_path=str(root / _GRAPH))
    config = CalculatorGraphConfig.FromString(graph.binary_config)
    nodes = {node.name: node.options.Extensions for node in config.node}
    palms = nodes["palmdetectioncpu__TensorsToDetectionsCalculator"][TensorsToDetectionsCalculatorOptions.ext]
    palms.min_score_thresh = min_detection_confidence
    nodes["handlandmarkcpu__ThresholdingCalculator"][ThresholdingCalculatorOptions.ext].threshold = _MIN_PRESENCE
    return config
