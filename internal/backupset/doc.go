// Package backupset is the format: what a backup set is, how one is written,
// read, checked, listed and removed. FORMAT.md is its specification, testdata
// holds sets that must open for ever.
//
// Invariants kept here:
//   - B1: a set exists if and only if manifest.json does. It is the last object
//     written, and the first one removed.
//   - B2: sizes and SHA-256 are of the bytes handed to the store, and
//     sha256sum -c SHA256SUMS in a set's folder needs nothing of this tool.
//   - B5: what a killed run leaves is marked UNFINISHED from its first object to
//     its last, and never listed as a set.
//   - F1: every version up to Version opens, a newer one is refused by name.
//
// A folder without manifest and without the mark is a set that lost its
// manifest: damaged, and never cleaned away as unfinished.
//
// The package does not lock: whoever writes or removes holds the store's lock.
// Digests find accidents. Who can write to the store can forge them, but not the
// MAC and the signature of an encrypted set (sealed.go, package seal).
package backupset
