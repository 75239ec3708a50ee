"""Gymnasium environments over a classifier's training. Importing registers ``rlmix/RLMix-v0``, single and vector form."""

import gymnasium

gymnasium.register(
    id="rlmix/RLMix-v0",
    entry_point="rlmix.envs.env:RLMixEnv",
    vector_entry_point="rlmix.envs.vector_env:RLMixVectorEnv",
)
