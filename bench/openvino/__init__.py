"""OpenVINO GenAI as a subject beside ours: the conversion of a checkpoint, and the subject that runs the result."""
