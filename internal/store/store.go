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
	ErrDenied   = errors.New("the store refuses to delete it")
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
	// Create begins an object of about expect bytes: 0 for a few kilobytes, and
	// no harm when it is off by several times. Stores that send in parts size
	// them by it. Nothing is visible at key before Commit. A key that is taken
	// already may be ErrExist here or only at Commit. CheckKey says which keys
	// every method refuses. ctx holds until the object has ended.
	Create(ctx context.Context, key string, expect int64) (Writer, error)
	// Open reads an object from its start. The caller closes it. ErrNotExist.
	Open(ctx context.Context, key string) (io.ReadCloser, error)
	// OpenRange reads length bytes of an object from offset on; a negative
	// length means to its end. A range that reaches behind the end of the object
	// reads what there is. The caller closes it. ErrNotExist.
	OpenRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// List calls fn for every committed object whose key begins with prefix, in
	// key order. An error of fn ends the walk and is returned. A partial
	// listing is an error, never a short list.
	List(ctx context.Context, prefix string, fn func(Info) error) error
	// Delete removes one object durably: what is deleted before another object
	// is deleted does not come back after it. Deleting what is not there is no
	// error. What the store refuses to delete (an object lock, a credential
	// without that right) is ErrDenied.
	Delete(ctx context.Context, key string) error
	// Lock takes the store's only run lock, or fails with a *LockedError that
	// names the holder. held is ctx until the lock is lost to another run, which
	// cancels it with the reason as its cause: who works under the lock works
	// with held. release gives the lock back, and may be called again; the death
	// of the process gives it back too, at once or after a while.
	Lock(ctx context.Context, holder Holder) (held context.Context, release func() error, err error)
}

// Place is a Store as the commands open it.
type Place interface {
	Store
	// String names the store as its user did, without what is secret.
	String() string
	// CheckWritable fails, with fault.Precondition, where nothing can be written.
	CheckWritable(ctx context.Context) error
	// Warnings says what is wrong with the place without being in the way.
	Warnings() []string
	// Leftovers lists what runs that died left behind and List does not show
	// (temporary files, unfinished uploads), for RemoveLeftover.
	Leftovers(ctx context.Context) ([]string, error)
	RemoveLeftover(ctx context.Context, name string) error
	// Close gives back what the store holds open. Objects being written fail.
	Close() error
}

// Roomy is a Store that knows how much it can still take.
type Roomy interface {
	// Free is what an ordinary user can still write; inodes is the largest
	// number where there is no limit.
	Free() (bytes, inodes uint64, err error)
}

// Several is a Place that stands for several, to which the same is written. What
// is not the same in all of them is looked at one by one.
type Several interface {
	// Places returns those that have everything so far.
	Places() []Place
	// Each does something in each of them, at once. Those where it fails have no
	// longer everything, unless it fails in all: that is returned.
	Each(ctx context.Context, do func(place Place) error) error
	// Align leaves those behind that lack something under a prefix.
	Align(ctx context.Context, prefix string) error
}

// Lockable is a Store that can keep its objects from being deleted by anybody,
// its own writer included.
type Lockable interface {
	// LockPeriod is how long an object that is written now cannot be deleted; 0
	// where the store was not asked to lock objects.
	LockPeriod() time.Duration
	// ExtendLock keeps an object at least until a time: one that a newer set
	// refers to must live as long as that. One that is kept longer stays so.
	// ErrNotExist.
	ExtendLock(ctx context.Context, key string, until time.Time) error
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
