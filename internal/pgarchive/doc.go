// Package pgarchive reads the archives that pg_dump writes: the custom format
// (-Fc, one file) and the directory format (-Fd, a folder with toc.dat), in
// the archive versions 1.14 to 1.16, which pg_dump 12 to 18 write. The layout
// is that of PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c,
// pg_backup_custom.c and pg_backup_directory.c. It never writes an archive.
//
// It exists because pg_restore -l answers 0 for archives that were cut, that
// an interrupted pg_dump left behind, or in which a byte was flipped
// (promise 1: a backup that is listed restores). Three checks, in rising cost:
// Open reads the table of contents, Complete asks whether pg_dump finished,
// and CheckData reads every data block, in constant memory, and names the
// table of each damaged one.
//
// An archive is hostile input: the length of strings, the number of entries
// and the memory they take are bounded, file names never leave the archive's
// folder, and what is wrong is said in a fault.Integrity error. An archive
// version newer than 1.16 is refused by name (invariant F1).
//
// Select computes which entries restore some tables into an empty database,
// and says what it leaves out and why (invariant B7).
//
// It does not promise that the SQL inside an archive is right, nor to find a
// flipped byte in data that was not compressed: such data has no checksum.
// lz4 and zstd data is walked but not decompressed. Dependencies that
// PostgreSQL does not record (a table read inside a function's body) are not
// seen by Select.
package pgarchive
