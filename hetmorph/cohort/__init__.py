"""Many cases, each done once: in turn, in parts, or by workers of Dask.

The centre is one function of a case, `Work`, whose results are whole or not there, and which does nothing where they
are. So it does not matter who calls it, how often, and what is killed meanwhile.
"""

from hetmorph.cohort.cluster import Workers, engine
from hetmorph.cohort.journal import Entries, Journal
from hetmorph.cohort.shards import WHOLE, Shard
from hetmorph.cohort.work import LARGE, InTurn, Task, Work, stops_all

__all__ = ["LARGE", "WHOLE", "Entries", "InTurn", "Journal", "Shard", "Task", "Work", "Workers", "engine", "stops_all"]
