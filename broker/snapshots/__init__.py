"""Snapshots on their way from a shard's leader to a replica whose next entry is compacted.

    leader (sender.py)                          replica (receiver.py, transfer.py)
      SnapshotRequest  ---------------------->    noted, not stepped
                       <-- PullBodies after 0 --
      Bodies up to 7   ---------------------->    on disk, with how far it is
                       <-- PullBodies after 7 --
      ...                                         all bodies of the checkpoint are there
                       <-- PullState 0 --------
      State 0 of 2     ---------------------->    on disk
      ...                                         all chunks are there: the request is stepped,
                                                  Raft's Ready has the snapshot, installed in
      AppendReply      <----------------------    one transaction

The replica drives it, so nothing has to be remembered by the leader, and a part that is lost is
asked for again. Bodies are those of messages alive at the sender at that moment: who leads
later has the settlements of the others in its log. An id that is dead never lives again, so
bodies stay valid whoever leads and whichever checkpoint is sent in the end.
"""
