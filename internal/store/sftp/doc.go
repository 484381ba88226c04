// Package sftp keeps a store in a folder of an SFTP server (protocol version
// 3, with the extensions of OpenSSH where they are offered).
//
// What it promises, and where the promise is kept:
//   - An object is visible under its key only when it is complete and durable
//     (B1, B5): a temporary file made with O_EXCL, every write acknowledged,
//     its size looked at, fsync@openssh.com, a hard link to the final name,
//     which never replaces, then a sync of every folder up to the root.
//     OpenSSH opens a folder as it opens a file, so that a folder can be
//     synced as well. Where a server does not offer one of these syncs,
//     Warnings says so.
//   - A connection that was lost costs nothing while the server can be reached
//     again: a read continues where it stood, and so does a write. The blocks
//     that were not acknowledged (2 MB at most) are still here and are sent
//     again; what was acknowledged before is read back once the object has its
//     end, since an acknowledged byte is not on the disk yet. Where the answer
//     to the link was lost, the server is asked whose the object is.
//   - A silent server is noticed: its connection is closed when nothing was
//     heard for the time that the URL sets (60 s), though it was asked.
//   - A host key that no known_hosts file has is refused. There is no switch.
//   - Files are 0600 and folders 0700 whatever the server's umask says.
//
// Names that begin with a dot are the store's own and are never listed:
// .NAME.partial-RANDOM is an object being written.
//
// It does not promise anything about who can write to the folder on the server:
// the protocol has no O_NOFOLLOW, so that a symbolic link is refused by a look
// that comes before the use. Nor does a folder that is opened as a local store
// at the same time see this store's lock, or this store the other's.
package sftp
