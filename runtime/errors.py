"""The error tree. Every error is also the builtin exception it resembles.

    Phi3VError
      MissingDependencyError   ImportError          a package of an optional extra is not installed
      OptionError              ValueError           an option is outside its range
      PromptError              ValueError           the prompt cannot become tokens
      ContextLengthError       ValueError           the request does not fit the context or the memory
      ImageError               ValueError           an image is unreadable, unsupported or too large
        ImageNotFoundError     FileNotFoundError
        ImageFetchError        ConnectionError
      ModelError                                    a model or checkpoint folder is wrong
        ModelNotFoundError     FileNotFoundError
        ModelFolderError       ValueError
          OldLayoutError
        ModelFetchError        ConnectionError
        CheckpointError        ValueError
      DeviceError              RuntimeError         the device cannot run the model here
      DiskSpaceError           OSError
      InferenceError           RuntimeError         the engine underneath failed
        ModelProcessError                           the process that held the model ended
      AnswerError              ValueError           an answer does not fit what was asked for
        TruncatedAnswerError
      WarmEngineError          ConnectionError

Every message says what was given, what is allowed, and what to do next.
"""


class Phi3VError(Exception):
    """Root of every error this package raises on purpose."""


class MissingDependencyError(Phi3VError, ImportError):
    """A package that an optional extra brings is not installed."""


class OptionError(Phi3VError, ValueError):
    """A generation option is outside its allowed range."""


class PromptError(Phi3VError, ValueError):
    """The prompt cannot be turned into tokens: bad text, or image tags that match no image."""


class ContextLengthError(Phi3VError, ValueError):
    """Prompt, images and new tokens do not fit the model's context or this machine's memory."""


class ImageError(Phi3VError, ValueError):
    """An image is unreadable, unsupported or too large."""


class ImageNotFoundError(ImageError, FileNotFoundError):
    """An image's path names no readable file."""


class ImageFetchError(ImageError, ConnectionError):
    """An image's URL could not be fetched."""


class ModelError(Phi3VError):
    """Root of what can be wrong with a model or a checkpoint folder."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No model folder at the given place."""


class ModelFolderError(ModelError, ValueError):
    """A model folder is incomplete, damaged or not of this architecture."""


class OldLayoutError(ModelFolderError):
    """A model folder in the layout that onnxruntime-genai stopped loading in 0.5."""


class ModelFetchError(ModelError, ConnectionError):
    """A published model could not be fetched, or its files are not those that the hub lists."""


class CheckpointError(ModelError, ValueError):
    """A Hugging Face checkpoint folder lacks a tensor or a file, or holds one of the wrong shape."""


class DeviceError(Phi3VError, RuntimeError):
    """The requested device cannot run the model on this machine."""


class DiskSpaceError(Phi3VError, OSError):
    """Too little free disk space for what was asked."""


class InferenceError(Phi3VError, RuntimeError):
    """The engine underneath failed while it ran; the generation was discarded."""


class ModelProcessError(InferenceError):
    """The process that held the model ended in the middle of an answer; a fresh one answers what comes."""


class AnswerError(Phi3VError, ValueError):
    """An answer cannot be read as the type or format that was asked for. `text` is the answer."""

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class TruncatedAnswerError(AnswerError):
    """`max_new_tokens` ended an answer before its format was complete. `text` is the answer so far."""


class WarmEngineError(Phi3VError, ConnectionError):
    """A warm engine cannot be started, or was lost in the middle of an answer."""


class BuiltinModelWarning(UserWarning):
    """`load()` was given no model and found none that runs here, so the small built-in one answers; it knows little."""
