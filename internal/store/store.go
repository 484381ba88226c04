package store

import (
	"context"
	"errors"
	"io"
	"time"
)

// Sentinels that callers branch on. Implementations wrap them with the key.
var (
	ErrNotExist = errors.New("no such object")
	ErrExist    = errors.New("object exists already")
)

// Info describes one stored object.
type Info struct {
	Key      string // slash-separated, relative to the store's root
	Bytes    int64
	Modified time.Time
}

// Writer receives one object's bytes. Exactly one of Commit and Abort ends it;
// Abort after Commit does nothing, so that it can be deferred.
type Writer interface {
	io.Writer
	// Commit makes the object durable and visible under its key. It returns
	// ErrExist, and keeps what is there, when the key was taken meanwhile. Once
	// a Write or Commit failed nothing is left of the object, and every later
	// Write and Commit fails too.
	Commit() error
	// Abort discards what was written. After a failure it does nothing.
	Abort() error
}

// Holder says who holds a store's lock.
type Holder struct {
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
	Purpose string    `json:"purpose"` // the command, without its connection arguments
}

// Store is a place where backup sets live: a flat space of keys. Two kinds of
// caller need it: backupset, which gives keys their meaning, and the commands
// that list and clean. The suite in storetest defines its behaviour.
type Store interface {
	// Create begins an object. Nothing is visible at key before Commit. A key
	// that is taken already may be ErrExist here or only at Commit. CheckKey
	// says which keys every method refuses.
	Create(ctx context.Context, key string) (Writer, error)
	// Open reads an object from its start. The caller closes it. ErrNotExist.
	Open(ctx context.Context, key string) (io.ReadCloser, error)
	// List calls fn for every committed object whose key begins with prefix, in
	// key order. An error of fn ends the walk and is returned. A partial
	// listing is an error, never a short list.
	List(ctx context.Context, prefix string, fn func(Info) error) error
	// Delete removes one object durably: what is deleted before another object
	// is deleted does not come back after it. Deleting what is not there is no
	// error.
	Delete(ctx context.Context, key string) error
	// Lock takes the store's only run lock, or fails with a *LockedError that
	// names the holder. release gives it back; the death of the process does too.
	Lock(ctx context.Context, holder Holder) (release func() error, err error)
}

// Local is a Store whose objects are files of this machine. Child processes
// write and read them directly, so that no byte passes through this process.
type Local interface {
	Store
	// Stage returns a fresh path in a private place on the file system of the
	// store, where a child may make a file or a folder for key. Nothing exists
	// at the path yet.
	Stage(ctx context.Context, key string) (path string, err error)
	// Publish makes the file or folder at a staged path durable (every file and
	// folder in it synced, modes 0600 and 0700) and then visible at key.
	// ErrExist when key is taken. Anything in it that is neither file nor
	// folder is refused. After a failure the path is only good for Discard.
	Publish(ctx context.Context, path, key string) error
	// Discard removes a staged path and all below it. After Publish it does
	// nothing, so that it can be deferred.
	Discard(path string) error
	// Path returns the path of a committed object, or of a folder of objects.
	// It refuses a key that leads outside the store, by .. or by a symlink.
	Path(key string) (string, error)
}

// LockedError is returned by Lock when another run holds the store.
type LockedError struct{ Holder Holder }

func (e *LockedError) Error() string {
	if e.Holder.PID == 0 {
		return "the store is locked by another run"
	}
	return "the store is locked by " + e.Holder.String()
}
