"""phi3v: ask Phi-3-vision about pictures, locally, through ONNX Runtime GenAI."""
