"""The replicated state machines of a shard: pure, deterministic, the same on every replica."""
