package backupset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// copies is how many objects are copied at a time.
const copies = 4

// Copied is what Copy did.
type Copied struct {
	Sets    []string // that were copied, or completed, bases first
	Keys    []string // sets that were whole, and whose key was rotated since
	Objects int
	Bytes   int64
}

// CopyOptions are how a copy is made.
type CopyOptions struct {
	// Check reads the objects of sets that are whole in the other store, too, and
	// replaces what is not as it should be. Else they are looked at by their sizes.
	Check bool
}

// Copy brings sets, and the older sets that they refer to, from one store to
// another. A set that cannot be copied does not keep the others from it. What is
// there already stays: objects of a copy that was interrupted are read and compared,
// those of a whole set are looked at as the options say. What the other store has
// under the set's name and is not part of it is deleted. The key of an encrypted set
// is brought where it was rotated since, and never replaces one that was rotated more
// often there.
//
// Each object is checked on the way, and the manifest comes last, as in a run:
// killed at any point, Copy leaves an unfinished set, which it completes when it
// is called again. A whole set of the same name that is another one is
// store.ErrExist. The caller holds the lock of the store that is written to.
func Copy(ctx context.Context, from, to store.Store, o CopyOptions, r report.Reporter, ids ...string) (Copied, error) {
	c := &copier{from: from, to: to, options: o, report: r, seen: map[string]error{}}
	var errs []error
	for _, id := range ids {
		if ctx.Err() != nil {
			errs = append(errs, context.Cause(ctx))
			break
		}
		errs = append(errs, c.set(ctx, id))
	}
	c.done.Objects, c.done.Bytes = int(c.objects.Load()), c.bytes.Load()
	return c.done, errors.Join(errs...)
}

type copier struct {
	from, to store.Store
	options  CopyOptions
	report   report.Reporter
	seen     map[string]error // what came of a set
	done     Copied
	objects  atomic.Int64
	bytes    atomic.Int64
}

// set copies a set and its bases, once.
func (c *copier) set(ctx context.Context, id string) error {
	err, seen := c.seen[id]
	if !seen {
		err = c.open(ctx, id)
		c.seen[id] = err
	}
	return err
}

func (c *copier) open(ctx context.Context, id string) error {
	set, err := Open(ctx, c.from, id)
	if err != nil {
		return err
	}
	for _, base := range set.Bases() {
		if err := c.set(ctx, base); err != nil {
			return fmt.Errorf("backup set %s needs %s: %w", id, base, err)
		}
	}
	if err := c.one(ctx, set); err != nil {
		return fmt.Errorf("copy backup set %s: %w", id, err)
	}
	return nil
}

// Bases are the older sets that the set refers to, in order, each once.
func (s *Set) Bases() []string {
	var ids []string
	for _, r := range s.manifest.References {
		ids = append(ids, r.Set)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// setCopy is the copy of one set.
type setCopy struct {
	*copier
	set     *Set
	there   setFolder // the set's folder in the other store
	trusted bool      // what is there, and of the right size, is known to be right
	keepKey bool      // it was rotated more often there
	moved   atomic.Int64
}

// one copies one set.
func (c *copier) one(ctx context.Context, set *Set) error {
	s := &setCopy{copier: c, set: set}
	var err error
	if s.there, err = listFolder(ctx, c.to, set.ID()); err != nil {
		return err
	}
	had, whole := s.there.has(ManifestName), false
	if had {
		if whole, err = sameManifest(ctx, c.to, set); err != nil {
			return err
		}
	}
	if whole && c.options.Check {
		if err := s.check(ctx); err != nil {
			return err
		}
	}
	if whole && !AnyDamage(set.compare(s.there)) {
		return s.bringKey(ctx)
	}
	s.trusted = whole
	if s.keepKey, err = s.rotatedThere(ctx); err != nil {
		return err
	}
	if !s.there.has(unfinishedName) { // also a set that lost objects is none until it has them again
		if err := putMark(ctx, c.to, set.ID()); err != nil {
			return err
		}
	}
	if had {
		if err := c.to.Delete(ctx, set.ID()+"/"+ManifestName); err != nil {
			return err
		}
	}
	task := c.report.Task("copy of "+set.ID(), set.size())
	err = s.fill(ctx, task)
	task.End(err)
	if err != nil {
		return err
	}
	c.done.Sets = append(c.done.Sets, set.ID())
	return s.finish(ctx)
}

// check reads the objects that a whole set has there. One that is damaged there, and
// sound here, counts as one of a wrong size from then on.
func (s *setCopy) check(ctx context.Context) error {
	task := s.report.Task("check of "+s.set.ID(), s.set.size())
	var mu sync.Mutex
	var damaged []string
	err := s.eachObject(ctx, func(ctx context.Context, o Object) error {
		if !s.there.has(o.Name) {
			return nil
		}
		err := s.checkThere(ctx, o, task)
		if !fault.Is(err, fault.Integrity) {
			return err
		}
		if err := s.set.checkObject(ctx, s.set.ID(), o, nil); err != nil {
			return fmt.Errorf("object %s is damaged in the other store, and cannot be had from this one: %w", o.Name, err)
		}
		s.report.Warn("the other store has a damaged object, which is copied again", report.F("set", s.set.ID()), report.F("object", o.Name), report.F("because", err))
		mu.Lock()
		defer mu.Unlock()
		damaged = append(damaged, o.Name)
		return nil
	})
	task.End(err)
	for _, name := range damaged {
		s.there.bytes[name] = -1
	}
	s.moved.Store(0)
	return err
}

// eachObject calls fn for the objects of the set, some at a time.
func (s *setCopy) eachObject(ctx context.Context, fn func(context.Context, Object) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(copies)
	for _, o := range s.set.index {
		group.Go(func() error { return fn(ctx, o) })
	}
	return group.Wait()
}

// checkThere reads an object in the other store.
func (s *setCopy) checkThere(ctx context.Context, o Object, task report.Task) error {
	other := &Set{st: s.to, manifest: s.set.manifest, index: s.set.index}
	return other.checkObject(ctx, s.set.ID(), o, s.progress(task))
}

func (s *setCopy) progress(task report.Task) func(n int64) {
	return func(n int64) { task.Progress(s.moved.Add(n)) }
}

// size is how many bytes there are to copy, or to look at.
func (s *Set) size() (sum int64) {
	for _, o := range s.index {
		sum += o.Bytes
	}
	return sum
}

// sameManifest compares the manifest of a set that is there with the one to copy:
// false when it is damaged.
func sameManifest(ctx context.Context, to store.Store, set *Set) (bool, error) {
	_, digest, err := readManifest(ctx, to, set.ID())
	switch {
	case fault.Is(err, fault.Integrity):
		return false, nil
	case err == nil && digest != set.digest:
		return false, fault.New(fault.Failed, "verify both, and remove the one that is not wanted",
			"the store has another backup set of this name: %w", store.ErrExist)
	}
	return err == nil, err
}

// fill copies what is missing and deletes what does not belong there.
func (s *setCopy) fill(ctx context.Context, task report.Task) error {
	for name, bytes := range s.there.bytes {
		if o, ok := s.set.Object(name); name == unfinishedName || s.keepKey && isKeyFile(name) || ok && o.Bytes == bytes {
			continue
		}
		if err := s.to.Delete(ctx, s.set.Key(name)); err != nil {
			return err
		}
		delete(s.there.bytes, name)
	}
	return s.eachObject(ctx, func(ctx context.Context, o Object) error {
		if s.there.has(o.Name) {
			same, err := s.isThere(ctx, o, task)
			if err != nil || same {
				return err
			}
		}
		if err := s.set.Reread(func() error { return s.object(ctx, o, task) }); err != nil {
			return fmt.Errorf("object %s: %w", o.Name, err)
		}
		return nil
	})
}

// isThere reads what an interrupted copy left, and deletes it when it is not
// what it should be.
func (s *setCopy) isThere(ctx context.Context, o Object, task report.Task) (bool, error) {
	if s.trusted {
		s.progress(task)(o.Bytes)
		return true, nil
	}
	err := s.checkThere(ctx, o, task)
	if fault.Is(err, fault.Integrity) {
		return false, s.to.Delete(ctx, s.set.Key(o.Name))
	}
	return err == nil, err
}

func (s *setCopy) object(ctx context.Context, o Object, task report.Task) (err error) {
	in, err := s.set.open(ctx, s.set.ID(), o) // as it is stored: of an encrypted set nothing is decrypted
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := s.to.Create(ctx, s.set.Key(o.Name), o.Bytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Abort()) }() // after a commit this does nothing
	progress := s.progress(task)
	counted := readFunc(func(p []byte) (int, error) {
		n, err := in.Read(p)
		s.bytes.Add(int64(n))
		progress(int64(n))
		return n, err
	})
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, untilDone(ctx, counted), make([]byte, 256<<10)); err != nil {
		return err
	}
	s.objects.Add(1)
	return out.Commit()
}

// finish writes SHA256SUMS and the manifest, byte by byte what they are, and makes
// the set exist.
func (s *setCopy) finish(ctx context.Context) error {
	text, err := s.set.manifestText(ctx)
	if err != nil {
		return err
	}
	var sums strings.Builder
	if err := writeSums(&sums, s.set.digest, s.set.manifest); err != nil {
		return err
	}
	if err := s.beside(ctx); err != nil {
		return err
	}
	if err := put(ctx, s.to, s.set.Key(SumsName), []byte(sums.String())); err != nil {
		return err
	}
	if err := put(ctx, s.to, s.set.Key(ManifestName), text); err != nil {
		return err
	}
	err = s.to.Delete(context.WithoutCancel(ctx), s.set.Key(unfinishedName))
	if errors.Is(err, store.ErrDenied) { // the mark means nothing beside a manifest (T93)
		return nil
	}
	return err
}

// beside copies what an encrypted set has beside its objects: its key, wrapped, and
// what proves its manifest. Whether these are right who has a key can tell.
func (s *setCopy) beside(ctx context.Context) error {
	if !s.set.Sealed() {
		return nil
	}
	var names []string
	err := s.from.List(ctx, s.set.Key(""), func(info store.Info) error {
		if name := strings.TrimPrefix(info.Key, s.set.Key("")); beside(name) && !(s.keepKey && isKeyFile(name)) {
			names = append(names, name)
		}
		return nil
	})
	for _, name := range names {
		var text []byte
		if err == nil {
			text, err = readSmall(ctx, s.from, s.set.Key(name), maxKeyBytes)
		}
		if err == nil {
			err = put(ctx, s.to, s.set.Key(name), text)
		}
	}
	return err
}

// manifestText reads the manifest as it is stored.
func (s *Set) manifestText(ctx context.Context) ([]byte, error) {
	in, err := s.st.Open(ctx, s.Key(ManifestName))
	if err != nil {
		return nil, damaged(err, "%s", s.Key(ManifestName))
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(untilDone(ctx, in), maxManifestBytes))
	if err != nil {
		return nil, damaged(err, "read %s", s.Key(ManifestName))
	}
	if digest := sha256.Sum256(text); hex.EncodeToString(digest[:]) != s.digest {
		return nil, damaged(nil, "%s has changed since it was opened", s.Key(ManifestName))
	}
	return text, nil
}
