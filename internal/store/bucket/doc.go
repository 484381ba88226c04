// Package bucket keeps a store in a bucket of an object store: S3 and its
// relatives, Google Cloud Storage, Azure Blob Storage.
//
// What it promises, and where the promise is kept:
//  1. An object is created once and never replaced: every commit is conditional
//     on the key being free, also that of an upload in parts. A commit whose
//     answer was lost is told from another's by a token in the metadata.
//  2. Memory is bounded: an object has one buffer of its own, of one part, and
//     the rest comes from a budget that all objects share.
//  3. Every request is repeated within bounds when the service or the network
//     failed it, and never when it was refused. A read that is cut goes on where
//     it was, of the same version or not at all.
//  4. A listing is whole, in the order of keys, or an error.
//  5. Nothing outside the prefix is read, listed or removed: db1 never sees db10.
//  6. Credentials come from the environment and the usual files, never from the
//     URL, and no error shows them.
//
// Names with a segment that begins with a dot are the store's own: .lock/ (see
// package lease) and .probe. List hides them.
//
// It does not promise that what a bucket with versions deletes is gone: Delete
// leaves a marker, and the version behind it is the bucket's affair. It relies
// on listings that show what was written before, as all three services give.
package bucket
