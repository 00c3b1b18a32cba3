"""A model behind HTTP: the Open Inference Protocol, pictures in and joints out, in batches over all requests."""
