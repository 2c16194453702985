"""Hands in images: MediaPipe's landmarks, the gesture feature of Stage I, poses, depth maps and the classifier."""
