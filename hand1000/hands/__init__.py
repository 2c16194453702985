"""Hands in pictures: MediaPipe's landmarks, the gesture feature of Stage I, and which gesture a hand makes."""
