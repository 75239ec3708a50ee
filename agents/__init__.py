"""Who decides how images are mixed: PPO, the fixed-random policy of R-Mix, constant policies."""
