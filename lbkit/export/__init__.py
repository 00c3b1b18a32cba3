"""From a checkpoint to a verified ONNX file: graph, exporter, simplification, verification, golden vectors."""
