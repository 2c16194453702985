"""What a served model answers instead of images."""

from hand1000.core.errors import Hand1000Error


class InvalidRequestError(Hand1000Error):
    """A request that no retry can help: the message names the field at fault and what is accepted (HTTP 400)."""


class UnavailableError(Hand1000Error):
    """The queue is full or the server is stopping (HTTP 503).

    Attributes:
        retry_after: Seconds after which the queue should have room.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestTimeoutError(Hand1000Error):
    """The images were not finished in time, and the work on them ended (HTTP 504)."""


class CanceledError(Hand1000Error):
    """The client no longer waits, and the work on its images ended."""


class RefusedImageError(Hand1000Error):
    """The safety checker refused an image of the request (HTTP 422)."""
