"""The one error of this package."""


class ModelFilesError(ValueError):
    """MODEL cannot be served; the message is one sentence that names the file or setting and the way out."""
