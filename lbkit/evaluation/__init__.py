"""How right a model is: PCK and OKS on COCO-style annotations."""
