"""Pairs that are read when they are asked for, so that a data set may be larger than memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from hetmorph.data.pair import Case, Pair

RECENT = 2  # results that stay whatever the budget: the slices of a patient are mostly asked for one after another
GIB = 2**30


class LazyPairs(Sequence):
    """A sequence of pairs that are made anew each time one is asked for; a slice of it is one as well.

    Attributes:
        cases: what is known of the pairs without their images, in their order.

    Args:
        cases: what is known of the pairs without their images, in their order.
        keys: what `read` takes to make each.
        read: makes a pair; what it keeps is its own affair, see `Kept`.
    """

    def __init__(self, cases: Sequence[Case], keys: Sequence[Hashable], read: Callable[[Any], Pair]):
        self.cases, self._keys, self._read = tuple(cases), tuple(keys), read

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return LazyPairs(self.cases[index], self._keys[index], self._read)
        return self._read(self._keys[index])

    def subset(self, positions: Sequence[int]) -> LazyPairs:
        """Those at these positions, in this order."""
        return LazyPairs(*([part[k] for k in positions] for part in (self.cases, self._keys)), self._read)

    def adjusted(self, adjust: Callable[[Pair], Pair], budget: float) -> LazyPairs:
        """The pairs after `adjust`; they stay in memory as far as they fit, which fills it now.

        Args:
            adjust: follows from the pair alone; keeps its name and shape.
            budget: bytes of images that may stay.
        """
        read = self._read
        kept = Kept(lambda key: adjust(read(key)), budget)
        result = LazyPairs(self.cases, self._keys, kept)
        for _ in result:
            if kept.full:
                break
        return result


def subset(pairs: Sequence[Pair], positions: Sequence[int]) -> Sequence[Pair]:
    """Some of the pairs, in this order; those that are read when they are needed stay so.

    Args:
        pairs: a list, or `LoadedSet.pairs`.
        positions: among them, from 0.
    """
    return pairs.subset(positions) if isinstance(pairs, LazyPairs) else [pairs[position] for position in positions]


class Kept:
    """A function whose results stay in memory as long as they fit; those that do not are computed each time.

    Every pair of a training comes up once in each pass, so that to keep the first ones serves as many calls as any
    other choice could, and nothing is ever thrown out.

    Args:
        function: takes one hashable argument; several threads may call it at once.
        budget: bytes of arrays that may stay.
    """

    def __init__(self, function: Callable[[Hashable], Any], budget: float):
        self._function, self._left, self._lock = function, budget, threading.Lock()
        self._kept: dict[Hashable, Any] = {}
        self._recent: OrderedDict[Hashable, Any] = OrderedDict()
        self.full = False

    def __reduce__(self):
        """Another process gets the function alone, and keeps what it made last."""
        return Kept, (self._function, 0.0)

    def __call__(self, key: Hashable):
        with self._lock:
            for store in (self._kept, self._recent):
                if key in store:
                    return store[key]
        result = self._function(key)
        with self._lock:
            self._remember(key, result)
        return result

    def forget(self) -> None:
        """Drop everything."""
        with self._lock:
            self._kept.clear()
            self._recent.clear()
            self._left, self.full = 0, True

    def _remember(self, key: Hashable, result: Any) -> None:
        if key in self._kept:
            return
        size = sum(array.nbytes for array in _arrays(result))
        if size <= self._left:
            self._kept[key], self._left = result, self._left - size
            return
        self.full = True
        self._recent[key] = result
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """The arrays in dataclasses, lists and mappings."""
    if isinstance(value, np.ndarray):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _arrays(getattr(value, field.name))
    elif isinstance(value, dict):
        yield from _arrays(value.values())
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        for part in value:
            yield from _arrays(part)
