package backupset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// Set is a set that exists: its manifest was read, is valid and matches
// SHA256SUMS. Its objects were not looked at. It is safe for concurrent use.
//
// A set that is encrypted is locked unless it was opened with a key: it then has
// its envelope for a manifest, and its objects can be checked, but not read.
type Set struct {
	st       store.Store
	manifest *Manifest
	digest   string // SHA-256 of manifest.json
	index    objectIndex

	envelope *Manifest // manifest.json; the manifest itself unless the set is encrypted
	unsealed           // of a set that is encrypted and not locked
}

// Open reads a set's manifest. A missing set is fault.NotFound, a manifest or
// SHA256SUMS that is not what was written fault.Integrity naming the file, and
// a newer format fault.Precondition naming the version that reads it. With keys
// (WithKeys) a set that they do not open is fault.WrongKey.
func Open(ctx context.Context, st store.Store, id string, options ...Option) (set *Set, err error) {
	if err := CheckID(id); err != nil {
		return nil, fault.New(fault.Usage, "", "open backup set: %w", err)
	}
	err = reread(st, func() (err error) {
		set, err = openOnce(ctx, st, id, options)
		return err
	})
	return set, err
}

func openOnce(ctx context.Context, st store.Store, id string, options []Option) (*Set, error) {
	m, digest, err := readManifest(ctx, st, id)
	if errors.Is(err, store.ErrNotExist) {
		err = explainMissing(ctx, st, id, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open backup set %s: %w", id, err)
	}
	set := &Set{st: st, manifest: m, digest: digest, index: m.Objects, envelope: m}
	if err := set.authenticate(ctx, keysOf(options)); err != nil {
		return nil, fmt.Errorf("open backup set %s: %w", id, err)
	}
	return set, nil
}

// explainMissing tells a set that never was from one that is unfinished and
// one that lost its manifest.
func explainMissing(ctx context.Context, st store.Store, id string, missing error) error {
	folder, err := listFolder(ctx, st, id)
	switch {
	case err != nil:
		return err
	case len(folder.bytes) == 0:
		return fault.New(fault.NotFound, "list shows the sets of a store", "no such backup set")
	case folder.has(unfinishedName):
		return fault.New(fault.NotFound, "the run that wrote it did not finish; back up again", "the set is unfinished: it has no %s", ManifestName)
	}
	return fault.New(fault.Integrity, "the data may be intact: put a copy of the manifest back", "%s is lost: %w", ManifestName, missing)
}

// readManifest returns the manifest and its digest. An error wraps
// store.ErrNotExist only when manifest.json itself is not there.
func readManifest(ctx context.Context, st store.Store, id string) (*Manifest, string, error) {
	key := id + "/" + ManifestName
	in, err := st.Open(ctx, key)
	if err != nil {
		if errors.Is(err, store.ErrNotExist) {
			return nil, "", err
		}
		return nil, "", damaged(err, "%s", key)
	}
	defer in.Close()
	sum := sha256.New()
	m, decodeErr := decodeManifest(io.TeeReader(untilDone(ctx, in), sum))
	if errors.Is(decodeErr, errTooLarge) {
		return nil, "", damaged(decodeErr, "%s", key)
	}
	sums, err := checkManifestDigest(ctx, st, id, in, sum)
	if err != nil {
		return nil, "", withoutAbsence(err)
	}
	defer sums.in.Close() //nolint:errcheck // only read
	var newer *newerError
	if errors.As(decodeErr, &newer) {
		return nil, "", fault.New(fault.Precondition, "use a newer dbbackup for this set", "%s: %w", key, decodeErr)
	}
	if decodeErr != nil {
		return nil, "", damaged(decodeErr, "%s", key)
	}
	return m, sums.digest, checkManifest(id, m, sums)
}

// checkManifestDigest hashes what the decoder did not read and compares with
// SHA256SUMS, the rest of which it returns.
func checkManifestDigest(ctx context.Context, st store.Store, id string, rest io.Reader, sum hash.Hash) (*sums, error) {
	if n, err := io.Copy(sum, io.LimitReader(untilDone(ctx, rest), maxManifestBytes)); err != nil {
		return nil, damaged(err, "read %s/%s", id, ManifestName)
	} else if n == maxManifestBytes {
		return nil, damaged(errTooLarge, "%s/%s", id, ManifestName)
	}
	sums, err := openSums(ctx, st, id)
	if err != nil {
		return nil, err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != sums.digest {
		return nil, errors.Join(damaged(nil, "%s/%s is damaged: its sha256 is %s, and %s says %s", id, ManifestName, got, SumsName, sums.digest), sums.in.Close())
	}
	return sums, nil
}

func checkManifest(id string, m *Manifest, sums *sums) error {
	key := id + "/" + ManifestName
	if m.ID != id {
		return damaged(nil, "%s is the manifest of the set %.80q", key, m.ID)
	}
	if err := m.Validate(); err != nil {
		return damaged(err, "%s is not valid", key)
	}
	return withoutAbsence(sums.compare(m))
}

// withoutAbsence keeps a missing SHA256SUMS from being read as a missing set.
func withoutAbsence(err error) error {
	if err == nil || !errors.Is(err, store.ErrNotExist) {
		return err
	}
	return damaged(nil, "%v", err)
}

// ID returns the set's id.
func (s *Set) ID() string { return s.manifest.ID }

// Manifest returns the set's manifest. It must not be changed.
func (s *Set) Manifest() *Manifest { return s.manifest }

// Store returns the store that the set lives in.
func (s *Set) Store() store.Store { return s.st }

// Key returns the store's key of a file of the set, by its name in the store.
func (s *Set) Key(stored string) string { return s.manifest.ID + "/" + stored }

// Object returns what the manifest says of an object.
func (s *Set) Object(name string) (Object, bool) { return s.index.find(name) }

// Below returns the objects of a folder, in order.
func (s *Set) Below(folder string) []Object {
	first := s.index.from(folder + "/")
	last := s.index.from(folder + "0") // "0" follows "/" in ASCII
	return s.index[first:last]
}

// Path returns the path of an object, or of a folder of objects, for a child
// process to read: no link is on the way to it or in it. What is missing, or
// is something else than files and folders, is fault.Integrity. Sets that are
// not Local return ErrNotLocal.
func (s *Set) Path(name string) (string, error) {
	local, ok := s.st.(store.Local)
	if !ok || s.Sealed() {
		return "", fmt.Errorf("path of object %s: %w", name, ErrNotLocal)
	}
	path, err := local.Path(s.ID() + "/" + name)
	if err != nil {
		return "", damaged(err, "object %s of backup set %s", name, s.ID())
	}
	return path, nil
}

// OpenObject reads an object and checks it on the way: instead of io.EOF the
// reader returns fault.Integrity, naming the object, when size or SHA-256 are
// not the manifest's. It never returns more bytes than the manifest says. Who
// stops before the end knows nothing about what was read. The caller closes it.
func (s *Set) OpenObject(ctx context.Context, name string) (io.ReadCloser, error) {
	if s.Locked() {
		return nil, errLocked(s.ID())
	}
	object, ok := s.Object(name)
	if !ok {
		return nil, fault.New(fault.NotFound, "", "open object %s of backup set %s: the manifest has no such object", name, s.ID())
	}
	if s.Sealed() {
		return s.openSealed(ctx, s.ID(), object)
	}
	return s.open(ctx, s.ID(), object)
}

// open reads an object as it is stored, of the set or of another set that it
// refers to.
func (s *Set) open(ctx context.Context, id string, object Object) (io.ReadCloser, error) {
	label := fmt.Sprintf("object %s of backup set %s", object.Name, id)
	in, err := s.st.Open(ctx, id+"/"+object.Name)
	if err != nil {
		return nil, damaged(err, "%s", label)
	}
	return newCheckedReader(in, object, label, false), nil
}

// newCheckedReader checks what in holds against the object. Of a part of a
// stored object more may follow.
func newCheckedReader(in io.ReadCloser, object Object, label string, part bool) *checkedReader {
	return &checkedReader{
		in: in, object: object, sum: sha256.New(), left: object.Bytes, label: label, part: part,
		stop: sync.OnceValue(in.Close),
	}
}

// checkedReader reads an object of known size and digest.
type checkedReader struct {
	in     io.Reader
	object Object
	label  string
	part   bool
	sum    hash.Hash
	left   int64
	end    error // final once set
	stop   func() error
}

func (r *checkedReader) Read(p []byte) (int, error) {
	if r.end != nil {
		return 0, r.end
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.left == 0 {
		r.end = r.finish()
		return 0, r.end
	}
	n, err := r.in.Read(p[:min(int64(len(p)), r.left)])
	r.sum.Write(p[:n])
	r.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && r.left > 0:
		r.end = damaged(nil, "%s is cut: %d of %d bytes are there", r.label, r.object.Bytes-r.left, r.object.Bytes)
	case err != nil && !errors.Is(err, io.EOF):
		r.end = damaged(err, "read %s", r.label)
	}
	return n, r.end
}

// finish looks for bytes after the end, then at the digest.
func (r *checkedReader) finish() error {
	if err := r.expectEnd(); err != nil {
		return err
	}
	if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.object.SHA256 {
		return damaged(nil, "%s is damaged: its sha256 is %s, and the manifest says %s", r.label, got, r.object.SHA256)
	}
	return io.EOF
}

func (r *checkedReader) expectEnd() error {
	if r.part {
		return nil
	}
	n, err := io.ReadFull(r.in, make([]byte, 1))
	if n > 0 {
		return damaged(nil, "%s is longer than %d bytes", r.label, r.object.Bytes)
	}
	if !errors.Is(err, io.EOF) {
		return damaged(err, "read %s", r.label)
	}
	return nil
}

func (r *checkedReader) Close() error { return r.stop() }
