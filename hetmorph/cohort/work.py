"""What is done with each case of a cohort, and the plain loop over them."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

Task = tuple[str, Any]  # name of a case, and what is known of it
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
LARGE = 8 * 2**20  # bytes of files: a batch is not made larger
MOST = 32  # cases of a batch


class Work(ABC):
    """One function of a case. It may be called again: what is done is not done again, and says the same.

    It goes to other processes by pickle, without its cached properties: a model is loaded there, at the first case, and
    kept.
    """

    def __getstate__(self) -> dict:
        kept = {name: getattr(type(self), name, None) for name in vars(self)}
        return {name: vars(self)[name] for name, kind in kept.items() if not isinstance(kind, cached_property)}

    @abstractmethod
    def __call__(self, case: str, row: Any) -> dict:
        """Do a case; what is to be said of it, JSON values.

        Args:
            case: its name.
            row: what is known of it.

        Raises:
            Exception: what ends the whole run. What is wrong with this case alone is told in the result.
        """

    @abstractmethod
    def failed(self, case: str, row: Any, reason: str) -> dict:
        """What is to be said of a case that could not be done.

        Args:
            case: its name.
            row: what is known of it.
            reason: in one line.
        """


class InTurn:
    """The plain loop, in this process."""

    def each(self, work: Work, tasks: Sequence[Task], size: Callable[[Task], float]) -> Iterator[tuple[str, dict]]:
        """Name and result of each case, as they come.

        Args:
            work: what is done.
            tasks: the cases.
            size: bytes of the files of a case; here of no account.
        """
        return ((case, work(case, row)) for case, row in tasks)


def batches(tasks: Iterable[Task], size: Callable[[Task], float], most: int = MOST) -> Iterator[list[Task]]:
    """Cases that go to a worker together: small ones, until they are as large as `LARGE` or as many as `most`.

    Args:
        tasks: the cases.
        size: bytes of the files of a case.
        most: cases of a batch.
    """
    batch, whole = [], 0.0
    for task in tasks:
        own = size(task)
        if batch and (whole + own > LARGE or len(batch) >= most):
            yield batch
            batch, whole = [], 0.0
        batch.append(task)
        whole += own
    if batch:
        yield batch


def stops_all(error: BaseException) -> bool:
    """Whether an error is one that every further case would meet: the disk is full, or may not be written to.

    Args:
        error: any.
    """
    return isinstance(error, OSError) and error.errno in _OF_THE_DISK
