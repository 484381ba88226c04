package backupset

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// A rotation that breaks off anywhere leaves a set that opens, with the old key or
// the new one, and the next rotation ends it.
func TestRotationThatBreaksOff(t *testing.T) {
	old, fresh := newHand(t), newHand(t)
	for _, lost := range []bool{false, true} {
		broke := 0
		for n := int64(1); ; n++ {
			st := newStore(t)
			must(t, writeSample(t.Context(), st, sampleID, old.seals(t)))
			f := &failing{Store: st, lost: lost}
			set, err := Open(t.Context(), f, sampleID, old.opens(t))
			must(t, err)
			f.left.Store(n)
			err = Rewrap(t.Context(), set, fresh.to(t))
			if f.left.Load() > 0 {
				must(t, err)
				break
			}
			if !errors.Is(err, errFailing) {
				t.Fatalf("change %d: error %v", n, err)
			}
			broke++
			opened := 0
			for name, h := range map[string]hand{"old": old, "new": fresh} {
				switch set, err := Open(t.Context(), st, sampleID, h.opens(t)); {
				case err == nil:
					opened++
					if problems := append(set.CheckQuick(t.Context()), set.CheckDigests(t.Context(), nil)...); len(problems) != 0 {
						t.Errorf("change %d: problems %+v", n, problems)
					}
				case !fault.Is(err, fault.WrongKey):
					t.Errorf("change %d, the %s key: %v", n, name, err)
				}
			}
			if opened == 0 {
				t.Fatalf("change %d, made %t: nobody opens the set", n, lost)
			}
			both := WithKeys(Keys{Ring: ringOf(t, old, fresh)})
			must(t, Rewrap(t.Context(), mustOpen(t, st, sampleID, both), fresh.to(t)))
			mustOpen(t, st, sampleID, fresh.opens(t))
			if _, err := Open(t.Context(), st, sampleID, old.opens(t)); !fault.Is(err, fault.WrongKey) {
				t.Errorf("change %d: the old key, after the rotation was ended: %v", n, err)
			}
			if files, err := keyFiles(t.Context(), st, sampleID); err != nil || len(files) != 2 {
				t.Errorf("change %d: left are %q, %v", n, files, err)
			}
		}
		if broke < 6 {
			t.Errorf("only %d changes failed", broke)
		}
	}
}

// A set whose writing breaks off anywhere is none, or it is whole: an encrypted one
// with its key, its MAC and its signature. The writer always says that it failed.
func TestWritingThatBreaksOff(t *testing.T) {
	h := newHand(t)
	const id = "cluster-20260103T030405Z"
	for name, tc := range map[string]struct {
		options []WriterOption
		reader  Option
		steps   int
	}{
		"plain":  {nil, WithKeys(Keys{}), 40},
		"sealed": {[]WriterOption{h.seals(t)}, h.trusts(t), 55},
	} {
		for _, lost := range []bool{false, true} {
			for n := int64(1); ; n++ {
				st := newStore(t)
				f := &failing{Store: st, lost: lost}
				f.left.Store(n)
				err := writeSampleManifest(t.Context(), f, id, sampleManifest(), tc.options...)
				fired := f.left.Load() <= 0
				if fired != errors.Is(err, errFailing) {
					t.Fatalf("%s, change %d failed: %t, and the writer says %v", name, n, fired, err)
				}
				entries, err := List(t.Context(), st, tc.reader)
				must(t, err)
				for _, e := range entries {
					switch e.Status {
					case StatusComplete:
						set, err := Open(t.Context(), st, id, tc.reader)
						must(t, err)
						if problems := append(set.CheckQuick(t.Context()), set.CheckDigests(t.Context(), nil)...); AnyDamage(problems) {
							t.Errorf("%s, change %d: problems %+v", name, n, problems)
						}
					case StatusUnfinished:
					default:
						t.Errorf("%s, change %d: the set is %s: %s", name, n, e.Status, e.Reason)
					}
				}
				if t.Failed() {
					return
				}
				if !fired {
					if n < int64(tc.steps) {
						t.Errorf("%s: only %d changes failed", name, n)
					}
					break
				}
			}
		}
	}
}

// A removal that breaks off anywhere leaves the whole set or an unfinished one, and
// says so.
func TestRemovingThatBreaksOff(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for n := int64(1); ; n++ {
			st := newStore(t)
			must(t, writeSample(t.Context(), st, sampleID))
			f := &failing{Store: st, lost: lost}
			f.left.Store(n)
			err := Remove(t.Context(), f, sampleID)
			if f.left.Load() > 0 {
				must(t, err)
				if n < 15 {
					t.Errorf("only %d changes failed", n)
				}
				break
			}
			if !errors.Is(err, errFailing) {
				t.Fatalf("change %d: error %v", n, err)
			}
			if checkAfterCrash(t, st) {
				mustOpenMarked(t, st)
			}
			if t.Failed() {
				t.Fatalf("change %d", n)
			}
		}
	}
}

// lying is a store that keeps something else than it was given of some objects.
type lying struct {
	store.Store
	suffix string // of their keys
}

func (l lying) Create(ctx context.Context, key string, expect int64) (store.Writer, error) {
	w, err := l.Store.Create(ctx, key, expect)
	if err == nil && strings.HasSuffix(key, l.suffix) {
		return lyingWriter{w}, nil
	}
	return w, err
}

type lyingWriter struct{ store.Writer }

func (w lyingWriter) Write(p []byte) (int, error) {
	q := bytes.Clone(p)
	if len(q) > 0 {
		q[0] ^= 1
	}
	return w.Writer.Write(q)
}

// A new wrapping of a key that does not read back takes no older one's place: neither
// where it is made nor where it is copied to.
func TestRotationIntoAStoreThatLies(t *testing.T) {
	old, fresh := newHand(t), newHand(t)
	for _, suffix := range []string{"keys/000002.age", "keys/000002.json"} {
		st, to := newStore(t), newStore(t)
		must(t, writeSample(t.Context(), st, sampleID, old.seals(t)))
		_, err := Copy(t.Context(), st, to, CopyOptions{}, report.Discard{}, sampleID)
		must(t, err)
		set, err := Open(t.Context(), lying{st, suffix}, sampleID, old.opens(t))
		must(t, err)
		if err := Rewrap(t.Context(), set, fresh.to(t)); err == nil {
			t.Errorf("%s: the rotation succeeded", suffix)
		}
		mustOpen(t, st, sampleID, old.opens(t))
		if suffix == "keys/000002.json" {
			continue // copy can do without the note
		}
		must(t, os.RemoveAll(filepath.Join(st.String(), sampleID)))
		_, err = Copy(t.Context(), to, st, CopyOptions{}, report.Discard{}, sampleID)
		must(t, err)
		must(t, Rewrap(t.Context(), mustOpen(t, st, sampleID, old.opens(t)), fresh.to(t)))
		if _, err := Copy(t.Context(), st, lying{to, suffix}, CopyOptions{}, report.Discard{}, sampleID); err == nil {
			t.Errorf("%s: the copy succeeded", suffix)
		}
		mustOpen(t, to, sampleID, old.opens(t))
	}
}
