"""How good generated pictures are: image features, FID and KID, and the measures on hands."""
