"""From a published or trained checkpoint to a model folder."""
