// Package pgcopy is the native engine: it captures a database as chunks, COPY
// streams of ranges of pages of its tables, and replays them, both directions of
// one technique in one place. Package backupset has the format (Contents).
//
// Capture: a leader session exports the snapshot (B3), locks every table and
// compares its definition with the snapshot's; workers import the snapshot and
// read one chunk after the other, largest first. A session that is lost is
// replaced under the same snapshot while any other holds it. Definitions come
// from pg_dump under the same snapshot.
//
// Proof of the unchanged: a chunk captured under an older snapshot is still
// right when in its pages no visible row has an xmin at or above that snapshot's
// horizon and the number of visible rows is the same, within one history of one
// server, for a table that was neither rewritten nor redefined (prove.go;
// docs/proof.md says why). It serves incremental runs, resumed runs, and further
// attempts of one run alike: all of them start from a Base.
//
// Damage of the source fails a capture, which says where it is, or is read around
// and declared, where that was asked for (damage.go).
//
// Replay: each chunk's load and its row in the target's ledger commit together
// (R3), so that an interrupted replay goes on without doubling a row.
//
// Memory is constant: a worker holds one buffer of 256 kB for what the server
// sends and one codec's window, whatever the width of a row.
//
// Not promised: a proof across a server that was set back to an older state by
// copying its files, which no question to the server can find out; and what
// pg_dump does not capture either, such as the data of foreign tables.
package pgcopy
