// Package compress is the project's streaming codecs. It owns pgzip and
// klauspost/compress, and knows nothing of backups.
//
// Memory is constant (promise 2): a writer holds a few blocks of 1 MiB for
// each processor that it may use (4 to 8 MB in all for each), a reader a window of 32 KiB and a buffer,
// whatever passes through them.
//
// A stream that was cut is an error (io.ErrUnexpectedEOF), never a short
// success, and so is anything behind its end. Checksums are verified before
// EOF is reported. A reader can be told how much may come out of it, because
// 64 KiB of gzip can hold 64 MiB.
//
// Not promised: that the bytes came from the writer that is believed to have
// written them. A gzip checksum finds accidents; digests are the caller's.
package compress
