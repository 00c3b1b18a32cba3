"""Models run by ONNX Runtime: providers, sessions, loading by name, and the doctor. Never imports torch or onnx."""
