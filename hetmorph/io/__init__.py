"""Images on disk: thin reading and writing, with errors that name the file."""

from hetmorph.io.images import DataError, Image, read_image, write_image

__all__ = ["DataError", "Image", "read_image", "write_image"]
