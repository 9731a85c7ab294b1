"""One Raft group alone: the real `RawNode` in virtual time that skips what is idle."""
