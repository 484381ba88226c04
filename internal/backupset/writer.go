package backupset

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// needsTool is the oldest dbbackup that reads a format.
func needsTool(format int) string { return fmt.Sprintf("1.%d.0", max(format, 1)-1) }

// formatOf is the oldest format that can say what m holds.
func formatOf(m *Manifest) int {
	if slices.ContainsFunc(m.Databases, func(d Database) bool { return d.Mode == Chunked }) {
		return 2
	}
	return 1
}

const unfinishedText = "This backup set is being written or removed, or the run that did so was killed.\n" +
	"It is complete when manifest.json exists. dbbackup removes it when it cleans the store.\n"

// state is where a Writer stands. It only moves down this list.
type state int

const (
	writing state = iota
	committing
	committed
	broken // Commit did not succeed: only Abandon is left
	abandoned
)

func (s state) String() string {
	return [...]string{"being written", "being committed", "committed", "broken by a failed commit", "abandoned"}[s]
}

// Writer writes one set. Its methods may be called from several goroutines.
// It ends with Commit or Abandon; misuse is an error and not a corrupt set.
type Writer struct {
	st   store.Store
	id   string
	seal *sealing // nil: the set is not encrypted

	mu      sync.Mutex
	state   state
	tried   bool              // to write a manifest, which may be there
	objects map[string]Object // committed
	scratch map[string]bool   // committed, but no part of the set: deleted before it is committed
	found   map[string]string // left by an interrupted run, see Reopen: by name, as it is stored
	open    map[string]bool   // reserved by an object or a stage that has not ended
	folders map[string]int    // how many of both lie in each folder
}

// Create claims id in the store and returns the writer of the new set. An id
// under which anything exists is store.ErrExist: take the next one (NewID).
func Create(ctx context.Context, st store.Store, id string, options ...WriterOption) (*Writer, error) {
	if err := CheckID(id); err != nil {
		return nil, fault.New(fault.Usage, "", "create backup set: %w", err)
	}
	if err := claim(ctx, st, id); err != nil {
		return nil, fmt.Errorf("create backup set %s: %w", id, err)
	}
	w := newWriter(st, id)
	if len(options) == 0 {
		return w, nil
	}
	var err error
	if w.seal, err = sealingOf(options).begin(ctx, st, id); err != nil {
		err = fmt.Errorf("create backup set %s: %w", id, err)
		return nil, errors.Join(err, w.Abandon(context.WithoutCancel(ctx)))
	}
	if w.seal.signer != nil {
		w.scratch[originName] = true
	}
	return w, nil
}

func sealingOf(options []WriterOption) Sealing {
	var s Sealing
	for _, option := range options {
		option(&s)
	}
	return s
}

func newWriter(st store.Store, id string) *Writer {
	return &Writer{
		st: st, id: id, objects: map[string]Object{}, scratch: map[string]bool{}, found: map[string]string{},
		open: map[string]bool{}, folders: map[string]int{},
	}
}

// claim marks the folder unfinished. The mark cannot be made twice, so of two
// runs one fails; the look after it finds a set whose mark is gone.
func claim(ctx context.Context, st store.Store, id string) error {
	if err := putMark(ctx, st, id); err != nil {
		return err
	}
	err := st.List(ctx, id+"/", func(info store.Info) error {
		if info.Key != id+"/"+unfinishedName {
			return store.ErrExist
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, st.Delete(context.WithoutCancel(ctx), id+"/"+unfinishedName))
	}
	return nil
}

func putMark(ctx context.Context, st store.Store, id string) error {
	return put(ctx, st, id+"/"+unfinishedName, []byte(unfinishedText))
}

// put writes one small object.
func put(ctx context.Context, st store.Store, key string, data []byte) error {
	w, err := st.Create(ctx, key, int64(len(data)))
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Commit()
}

// ID returns the set's id.
func (w *Writer) ID() string { return w.id }

// key is where an object or a scratch object of the set is stored.
func (w *Writer) key(name string) string {
	if w.seal != nil && name != originName {
		name += sealedSuffix
	}
	return w.id + "/" + name
}

// reserve takes a name for an object, or for a folder of objects.
func (w *Writer) reserve(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if w.seal != nil && (isKeyFile(name) || name == referencesKey || name == originName) {
		return fmt.Errorf("object name %s is reserved in an encrypted set", name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != writing {
		return fmt.Errorf("object %s: the set is %s", name, w.state)
	}
	if w.taken(name) {
		return fmt.Errorf("object %s: %w", name, store.ErrExist)
	}
	w.open[name] = true
	w.count(name, 1)
	return nil
}

// taken reports whether name is, contains or lies in something there.
func (w *Writer) taken(name string) bool {
	for _, path := range append(foldersOf(name), name) {
		if _, ok := w.objects[path]; ok || w.open[path] || w.scratch[path] || w.found[path] != "" {
			return true
		}
	}
	return w.folders[name] > 0
}

// foldersOf returns a and a/b for a/b/c.
func foldersOf(name string) []string {
	var folders []string
	for i := range len(name) {
		if name[i] == '/' {
			folders = append(folders, name[:i])
		}
	}
	return folders
}

// count keeps folders true when a name comes (1) or goes (-1).
func (w *Writer) count(name string, by int) {
	for _, folder := range foldersOf(name) {
		w.folders[folder] += by
	}
}

// below returns the committed objects in a folder.
func (w *Writer) below(folder string) []string {
	var names []string
	for name := range w.objects {
		if strings.HasPrefix(name, folder+"/") {
			names = append(names, name)
		}
	}
	return names
}

func (w *Writer) openBelow(folder string) bool {
	for name := range w.open {
		if strings.HasPrefix(name, folder+"/") {
			return true
		}
	}
	return false
}

// release ends a reservation and records what came of it.
func (w *Writer) release(name string, objects ...Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, name)
	w.count(name, -1)
	for _, o := range objects {
		w.objects[o.Name] = o
		w.count(o.Name, 1)
	}
}

// WriteFile writes an object from memory.
func (w *Writer) WriteFile(ctx context.Context, name string, data []byte) error {
	object, err := w.Object(ctx, name, int64(len(data)))
	if err != nil {
		return err
	}
	if _, err := object.Write(data); err != nil {
		return errors.Join(err, object.Abort())
	}
	_, err = object.Commit()
	return err
}

// Drop deletes objects, or folders of objects, from the set: the parts of a
// database that failed. A name that is not there is no error; one that is
// still being written is. In a store that refuses to delete they stay, as files
// that are no part of the set.
func (w *Writer) Drop(ctx context.Context, names ...string) error {
	doomed, err := w.forget(names)
	if err != nil {
		return fmt.Errorf("drop from backup set %s: %w", w.id, err)
	}
	for _, name := range doomed {
		if err := w.st.Delete(ctx, w.key(name)); err != nil && !errors.Is(err, store.ErrDenied) {
			return fmt.Errorf("drop from backup set %s: %w", w.id, err)
		}
	}
	return nil
}

// forget takes the objects out of the set before they are deleted, so that no
// manifest names them even if deleting fails; then they are extra files.
func (w *Writer) forget(names []string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != writing {
		return nil, fmt.Errorf("the set is %s", w.state)
	}
	var doomed []string
	for _, name := range names {
		if w.open[name] || w.openBelow(name) {
			return nil, fmt.Errorf("object %s is still being written", name)
		}
		doomed = append(doomed, w.below(name)...)
		if _, ok := w.objects[name]; ok {
			doomed = append(doomed, name)
		}
	}
	for _, name := range doomed {
		delete(w.objects, name)
		w.count(name, -1)
	}
	return doomed, nil
}

// Commit makes the set exist. It fills m's format, id and objects, refuses a
// manifest that is not valid, and writes SHA256SUMS, then manifest.json: all
// objects are durable by then (B1). After an error the set does not exist and
// only Abandon is left, with one exception that the error text names: the set
// exists, but its mark could not be removed. A store that refuses to delete
// (store.ErrDenied) keeps the mark, and what else is of no use any more, until
// Tidy is called by somebody who may: beside a manifest it means nothing.
func (w *Writer) Commit(ctx context.Context, m Manifest) error {
	objects, err := w.close()
	if err != nil {
		return fmt.Errorf("commit backup set %s: %w", w.id, err)
	}
	if err := w.publish(ctx, w.complete(m, objects)); err != nil {
		w.setState(broken)
		return fmt.Errorf("commit backup set %s: %w", w.id, err)
	}
	w.setState(committed)
	ctx = context.WithoutCancel(ctx)
	err = w.dropScratch(ctx)
	if err == nil {
		err = w.st.Delete(ctx, w.id+"/"+unfinishedName)
	}
	if err != nil && !errors.Is(err, store.ErrDenied) {
		return fault.New(fault.Failed, "the set is complete and usable; delete that file",
			"backup set %s is committed, but its mark remains: %w", w.id, err)
	}
	return nil
}

// close ends the writing of objects and returns them in order.
func (w *Writer) close() ([]Object, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != writing {
		return nil, fmt.Errorf("the set is %s", w.state)
	}
	if len(w.open) > 0 {
		return nil, fmt.Errorf("%d objects are still being written, one is %s", len(w.open), slices.Min(slices.Collect(maps.Keys(w.open))))
	}
	w.state, w.tried = committing, true
	return slices.SortedFunc(maps.Values(w.objects), func(a, b Object) int { return cmp.Compare(a.Name, b.Name) }), nil
}

func (w *Writer) setState(s state) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
}

// complete fills what the Writer knows. Lists are never null in the JSON.
func (w *Writer) complete(m Manifest, objects []Object) *Manifest {
	m.Format, m.ID = formatOf(&m), w.id
	m.NeedsTool = needsTool(m.Format)
	m.Objects = notNil(objects)
	slices.SortFunc(m.References, compareReferences)
	m.Databases = notNil(m.Databases)
	m.Omissions = notNil(m.Omissions)
	m.Failures = notNil(m.Failures)
	return &m
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (w *Writer) publish(ctx context.Context, m *Manifest) error {
	if err := m.Validate(); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	text = append(text, '\n')
	if _, err := readBack(text); err != nil {
		return err
	}
	sums, err := sumsOf(text, m)
	if err != nil {
		return err
	}
	if w.seal != nil {
		return w.publishSealed(ctx, m, text, sums)
	}
	if err := put(ctx, w.st, w.key(SumsName), sums); err != nil {
		return err
	}
	return put(ctx, w.st, w.key(ManifestName), text)
}

// sumsOf is the SHA256SUMS of a manifest and its text.
func sumsOf(text []byte, m *Manifest) ([]byte, error) {
	digest := sha256.Sum256(text)
	var sums bytes.Buffer
	err := writeSums(&sums, hex.EncodeToString(digest[:]), m)
	return sums.Bytes(), err
}

// Abandon removes everything of a set that was not committed. Every object and
// stage must have ended. Give it a context that outlives an interrupt. It may
// be called again after an error. A set that another run has gone on with and
// committed meanwhile is left alone.
func (w *Writer) Abandon(ctx context.Context) error {
	if err := errors.Join(w.giveUp(), w.checkOwn(ctx)); err != nil {
		return fmt.Errorf("abandon backup set %s: %w", w.id, err)
	}
	if err := erase(ctx, w.st, w.id); err != nil {
		return fmt.Errorf("abandon backup set %s: %w", w.id, err)
	}
	return nil
}

// checkOwn makes sure that a manifest that is there is this writer's: a run that was
// stopped for long may not know yet that it lost the store's lock.
func (w *Writer) checkOwn(ctx context.Context) error {
	w.mu.Lock()
	tried := w.tried
	w.mu.Unlock()
	if tried {
		return nil
	}
	folder, err := listFolder(ctx, w.st, w.id)
	if err == nil && folder.has(ManifestName) {
		err = fault.New(fault.Locked, "nothing was removed: list shows the set", "another run has committed it")
	}
	return err
}

func (w *Writer) giveUp() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == committed || w.state == committing {
		return fmt.Errorf("the set is %s", w.state)
	}
	if len(w.open) > 0 {
		return fmt.Errorf("%d objects are still being written", len(w.open))
	}
	w.state = abandoned
	return nil
}
