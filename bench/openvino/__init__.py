"""OpenVINO GenAI beside ours: the folder it runs, and the subject that drives it."""
