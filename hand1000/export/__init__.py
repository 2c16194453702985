"""Export of a fine-tuned model to the formats of other programs."""
