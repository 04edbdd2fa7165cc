"""The onnxruntime-genai backend. `model.py` is the one file that imports onnxruntime-genai."""
