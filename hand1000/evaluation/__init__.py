"""Evaluation of generated images: image features, FID and KID, hand metrics, gates and drift."""
