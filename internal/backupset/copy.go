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

// Copy brings sets, and the older sets that they refer to, from one store to
// another. A set that cannot be copied does not keep the others from it. What is
// there already stays: objects of a copy that was interrupted are read and compared,
// those of a whole set are looked at by their sizes. What the other store has under
// the set's name and is not part of it is deleted. The key of an encrypted set is
// brought where it was rotated since, and never replaces one that was rotated more
// often there.
//
// Each object is checked on the way, and the manifest comes last, as in a run:
// killed at any point, Copy leaves an unfinished set, which it completes when it
// is called again. A whole set of the same name that is another one is
// store.ErrExist. The caller holds the lock of the store that is written to.
func Copy(ctx context.Context, from, to store.Store, r report.Reporter, ids ...string) (Copied, error) {
	c := &copier{from: from, to: to, report: r, seen: map[string]error{}}
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

// one copies one set.
func (c *copier) one(ctx context.Context, set *Set) error {
	there, err := listFolder(ctx, c.to, set.ID())
	if err != nil {
		return err
	}
	had, whole := there.has(ManifestName), false
	if had {
		if whole, err = sameManifest(ctx, c.to, set); err != nil {
			return err
		}
	}
	if whole && !AnyDamage(set.compare(there)) {
		return c.bringKey(ctx, set, there)
	}
	keepKey, err := c.rotatedThere(ctx, set, there)
	if err != nil {
		return err
	}
	if !there.has(unfinishedName) { // also a set that lost objects is none until it has them again
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
	err = c.fill(ctx, set, there, whole, keepKey, task)
	task.End(err)
	if err != nil {
		return err
	}
	c.done.Sets = append(c.done.Sets, set.ID())
	return c.finish(ctx, set, keepKey)
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
func (c *copier) fill(ctx context.Context, set *Set, there setFolder, trusted, keepKey bool, task report.Task) error {
	var moved atomic.Int64
	progress := func(n int64) { task.Progress(moved.Add(n)) }
	for name := range there.bytes {
		if o, ok := set.Object(name); name == unfinishedName || keepKey && isKeyFile(name) || ok && o.Bytes == there.bytes[name] {
			continue
		}
		if err := c.to.Delete(ctx, set.Key(name)); err != nil {
			return err
		}
		delete(there.bytes, name)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(copies)
	for _, o := range set.index {
		group.Go(func() error {
			if there.has(o.Name) {
				same, err := c.isThere(ctx, set, o, trusted, progress)
				if err != nil || same {
					return err
				}
			}
			if err := c.object(ctx, set, o, progress); err != nil {
				return fmt.Errorf("object %s: %w", o.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// isThere reads what an interrupted copy left, and deletes it when it is not
// what it should be.
func (c *copier) isThere(ctx context.Context, set *Set, o Object, trusted bool, progress func(int64)) (bool, error) {
	if trusted {
		progress(o.Bytes)
		return true, nil
	}
	other := &Set{st: c.to, manifest: set.manifest, index: set.index}
	err := other.checkObject(ctx, set.ID(), o, progress)
	if fault.Is(err, fault.Integrity) {
		return false, c.to.Delete(ctx, set.Key(o.Name))
	}
	return err == nil, err
}

func (c *copier) object(ctx context.Context, set *Set, o Object, progress func(int64)) (err error) {
	in, err := set.open(ctx, set.ID(), o) // as it is stored: of an encrypted set nothing is decrypted
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := c.to.Create(ctx, set.Key(o.Name), o.Bytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Abort()) }() // after a commit this does nothing
	counted := readFunc(func(p []byte) (int, error) {
		n, err := in.Read(p)
		c.bytes.Add(int64(n))
		progress(int64(n))
		return n, err
	})
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, untilDone(ctx, counted), make([]byte, 256<<10)); err != nil {
		return err
	}
	c.objects.Add(1)
	return out.Commit()
}

// finish writes SHA256SUMS and the manifest, byte by byte what they are, and makes
// the set exist.
func (c *copier) finish(ctx context.Context, set *Set, keepKey bool) error {
	text, err := set.manifestText(ctx)
	if err != nil {
		return err
	}
	var sums strings.Builder
	if err := writeSums(&sums, set.digest, set.manifest); err != nil {
		return err
	}
	if err := c.beside(ctx, set, keepKey); err != nil {
		return err
	}
	if err := put(ctx, c.to, set.Key(SumsName), []byte(sums.String())); err != nil {
		return err
	}
	if err := put(ctx, c.to, set.Key(ManifestName), text); err != nil {
		return err
	}
	return c.to.Delete(context.WithoutCancel(ctx), set.Key(unfinishedName))
}

// beside copies what an encrypted set has beside its objects: its key, wrapped, and
// what proves its manifest. Whether these are right who has a key can tell.
func (c *copier) beside(ctx context.Context, set *Set, keepKey bool) error {
	if !set.Sealed() {
		return nil
	}
	var names []string
	err := c.from.List(ctx, set.Key(""), func(info store.Info) error {
		if name := strings.TrimPrefix(info.Key, set.Key("")); beside(name) && !(keepKey && isKeyFile(name)) {
			names = append(names, name)
		}
		return nil
	})
	for _, name := range names {
		var text []byte
		if err == nil {
			text, err = readSmall(ctx, c.from, set.Key(name), maxKeyBytes)
		}
		if err == nil {
			err = put(ctx, c.to, set.Key(name), text)
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
