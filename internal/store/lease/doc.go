// Package lease is the run lock of stores that have no kernel to ask: buckets
// and SFTP. It needs only that of several creators of one object exactly one
// succeeds, and that a listing shows what was created before it.
//
// The lock is a series of epochs. An epoch is one object, created once and
// never changed, that says who took the lock (.lock/00000007); beside it lies
// the holder's heartbeat (.lock/00000007.beat), which the holder rewrites. The
// highest epoch is the lock's state:
//
//  1. The lock is free when there is no epoch, or the highest one's heartbeat
//     says that it was released. Whoever creates the next epoch holds it.
//  2. The highest epoch is never deleted, not even by release: the next number
//     can be given away only once. What remains of a lock at rest is one epoch.
//  3. A contender takes over a lock whose heartbeat did not change for Missed
//     beats on the contender's own clock, or whose holder was a process of this
//     machine and is dead. No clock is compared with another one.
//  4. A holder whose heartbeat did not get through for two beats less than that,
//     or who sees a higher epoch, has lost the lock: its context is cancelled.
//
// It does not promise anything for stores whose listings are not consistent,
// nor that a process which was stopped and continues is cancelled before its
// next instruction: what a holder does must be harmless for the moment until it
// notices. Objects that are created once and never replaced are.
package lease
