"""Published methods: how losses, weights and schedules go together."""

from hetmorph.objectives.heteroscedastic import Heteroscedastic
from hetmorph.objectives.schedule import Phase, phase, warm_start_length

__all__ = ["Heteroscedastic", "Phase", "phase", "warm_start_length"]
