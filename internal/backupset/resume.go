package backupset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// RunName is the scratch object that says what an unfinished run was asked
// for. A folder that has it can be gone on with.
const RunName = "run.json"

// WriteScratch stores what only helps to go on with the run should it be
// interrupted. It is deleted when the set is committed.
func (w *Writer) WriteScratch(ctx context.Context, name string, data []byte) error {
	if err := w.reserve(name); err != nil {
		return err
	}
	err := w.putScratch(ctx, name, data)
	w.release(name)
	if err != nil {
		return fmt.Errorf("scratch object %s: %w", name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scratch[name] = true
	return nil
}

// dropScratch deletes the scratch objects, what tells of the run last.
func (w *Writer) dropScratch(ctx context.Context) error {
	w.mu.Lock()
	names := slices.Sorted(maps.Keys(w.scratch))
	w.mu.Unlock()
	for _, name := range names {
		if err := w.st.Delete(ctx, w.key(name)); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.scratch)
	return nil
}

// Reopen returns a writer that goes on with an unfinished set. What is there
// can be read with Scratch and taken over with Adopt and KeepScratch; DiscardRest deletes
// all else, and comes before the first new object. The caller holds the store's lock.
// A set that is encrypted must be opened (WithSealing), which without a key is
// fault.Precondition.
func Reopen(ctx context.Context, st store.Store, id string, options ...WriterOption) (*Writer, error) {
	if err := CheckID(id); err != nil {
		return nil, fault.New(fault.Usage, "", "reopen backup set: %w", err)
	}
	folder, err := listFolder(ctx, st, id)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reopen backup set %s: %w", id, err)
	case folder.has(ManifestName):
		return nil, fault.New(fault.Usage, "", "backup set %s is complete: there is nothing to resume", id)
	case !folder.has(unfinishedName):
		return nil, fault.New(fault.NotFound, "list shows what is in the store", "there is no unfinished backup set %s", id)
	case !folder.resumable():
		return nil, fault.New(fault.NotFound, "back up again; only runs of the native engine can be gone on with", "backup set %s cannot be resumed: it does not say what was asked for", id)
	}
	w := newWriter(st, id)
	if folder.has(RunName + sealedSuffix) {
		if w.seal, err = sealingOf(options).reopen(ctx, st, id, folder.has(originName)); err != nil {
			return nil, fmt.Errorf("reopen backup set %s: %w", id, err)
		}
	} else if len(options) > 0 && sealingOf(options).To != nil {
		return nil, fault.New(fault.Precondition, "go on with it without --encrypt, or back up again", "unfinished backup set %s is not encrypted", id)
	}
	for name := range folder.bytes {
		w.find(name)
	}
	return w, nil
}

// find notes down what an interrupted run left, by its name in the store.
func (w *Writer) find(stored string) {
	name := stored
	switch {
	case stored == unfinishedName, w.seal != nil && isKeyFile(stored):
		return
	case w.seal == nil:
	case stored == originName:
		w.scratch[originName] = true
		return
	case strings.HasSuffix(stored, sealedSuffix) && CheckName(logicalName(stored)) == nil:
		name = logicalName(stored)
	}
	w.found[name] = stored
}

// maxScratchBytes bounds what is read of a scratch object.
const maxScratchBytes = 64 << 20

// Scratch reads a scratch object of the interrupted run. It has no digest:
// whoever uses it checks what it says.
func (w *Writer) Scratch(ctx context.Context, name string) ([]byte, error) {
	if w.seal != nil {
		return w.openScratch(ctx, name)
	}
	in, err := w.st.Open(ctx, w.key(name))
	if err != nil {
		return nil, fmt.Errorf("scratch object %s: %w", name, err)
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(untilDone(ctx, in), maxScratchBytes))
	if err != nil {
		return nil, fmt.Errorf("scratch object %s: %w", name, err)
	}
	return data, nil
}

// Found lists what the interrupted run left below a folder, or all of it, in order.
func (w *Writer) Found(folder string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name := range w.found {
		if folder == "" || strings.HasPrefix(name, folder+"/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Adopt makes an object that the interrupted run left part of the set. Its
// digest comes from reading all of it; an object that does not have want's size and digest
// is refused.
func (w *Writer) Adopt(ctx context.Context, want Object) error {
	w.mu.Lock()
	found := w.found[want.Name] != ""
	w.mu.Unlock()
	if !found {
		return damaged(nil, "object %s is not there", want.Name)
	}
	if w.seal != nil {
		if err := w.readSealed(ctx, want); err != nil {
			return err
		}
		w.adopt(want)
		return nil
	}
	in, err := w.st.Open(ctx, w.key(want.Name))
	if err != nil {
		return err
	}
	defer in.Close()
	sum := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{sum}, untilDone(ctx, in), make([]byte, 256<<10))
	if err != nil {
		return damaged(err, "object %s", want.Name)
	}
	if digest := hex.EncodeToString(sum.Sum(nil)); n != want.Bytes || digest != want.SHA256 {
		return damaged(nil, "object %s is not what the interrupted run wrote", want.Name)
	}
	w.adopt(want)
	return nil
}

func (w *Writer) adopt(o Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.found, o.Name)
	w.objects[o.Name] = o
	w.count(o.Name, 1)
}

// KeepScratch keeps a scratch object of the interrupted run as one of this run.
func (w *Writer) KeepScratch(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.found[name] != "" {
		delete(w.found, name)
		w.scratch[name] = true
	}
}

// DiscardRest deletes what the interrupted run left and nobody took over.
func (w *Writer) DiscardRest(ctx context.Context) error {
	for _, name := range w.Found("") {
		w.mu.Lock()
		stored := w.found[name]
		w.mu.Unlock()
		if err := w.st.Delete(ctx, w.id+"/"+stored); err != nil {
			return fmt.Errorf("discard object %s of backup set %s: %w", name, w.id, err)
		}
		w.mu.Lock()
		delete(w.found, name)
		w.mu.Unlock()
	}
	return nil
}

// Journaled reports whether there is something to go on with: a chunk that is
// finished, and written down as such.
func (w *Writer) Journaled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.scratch {
		if isJournal(name) {
			return true
		}
	}
	return false
}

// Suspend ends the writing and leaves what is durable for Reopen. Every object
// and stage must have ended.
func (w *Writer) Suspend() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == committed || w.state == committing {
		return fmt.Errorf("suspend backup set %s: the set is %s", w.id, w.state)
	}
	if len(w.open) > 0 {
		return errors.New("suspend backup set " + w.id + ": objects are still being written")
	}
	w.state = abandoned
	return nil
}

// JournalFolder is the folder, at any depth, whose objects are scratch objects.
const JournalFolder = "journal"

func isScratch(name string) bool {
	return name == RunName || name == RunName+sealedSuffix || name == originName || isJournal(name)
}

func isJournal(name string) bool { return strings.Contains(name, "/"+JournalFolder+"/") }

// Committed lists the objects of the set so far below a folder, in order.
func (w *Writer) Committed(folder string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := w.below(folder)
	slices.Sort(names)
	return names
}

// CommittedObjects is Committed with sizes and digests.
func (w *Writer) CommittedObjects(folder string) []Object {
	names := w.Committed(folder)
	w.mu.Lock()
	defer w.mu.Unlock()
	objects := make([]Object, len(names))
	for i, name := range names {
		objects[i] = w.objects[name]
	}
	return objects
}

// CheckContents finds what a reader of the set would refuse, before it is
// written: what is listed must restore. The folder is the database's; references
// are what its pieces need of older sets.
func (w *Writer) CheckContents(folder string, c *Contents, references []Reference) error {
	m := Manifest{Objects: w.CommittedObjects(folder), References: references}
	if err := c.validate(&m, &Database{Name: c.Database, Dump: folder}); err != nil {
		return fmt.Errorf("what was captured is not whole, which is a bug of dbbackup: %w", err)
	}
	return nil
}
