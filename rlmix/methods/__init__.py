"""Mix-up methods that need no environment, by name. Each follows :class:`rlmix.training.Method`."""

from rlmix.methods.vanilla import vanilla

METHODS = {"vanilla": vanilla}
