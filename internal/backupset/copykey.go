package backupset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// keyVersion is the newest version of a set's key in its folder, 0 without one.
func (f *setFolder) keyVersion() (newest int) {
	for name := range f.bytes {
		if strings.HasSuffix(name, sealedSuffix) {
			newest = max(newest, versionOf(name))
		}
	}
	return newest
}

// rotatedThere reports whether a set's key was rotated more often in the other store
// than here: its wrapping stays, whatever else of the set is mended.
func (s *setCopy) rotatedThere(ctx context.Context) (bool, error) {
	theirs := s.there.keyVersion()
	if !s.set.Sealed() || theirs == 0 {
		return false, nil
	}
	versions, err := keyVersions(ctx, s.from, s.set.ID())
	if err != nil || len(versions) > 0 && versions[0] >= theirs {
		return false, err
	}
	_, _, err = readKey(ctx, s.to, s.set.ID(), theirs)
	if fault.Is(err, fault.Integrity) {
		return false, nil
	}
	return err == nil, err
}

// bringKey gives a set that is whole there the newest wrapping of its key, if that
// was made here, and ends those before it as a rotation does.
func (s *setCopy) bringKey(ctx context.Context) error {
	if !s.set.Sealed() {
		return nil
	}
	versions, err := keyVersions(ctx, s.from, s.set.ID())
	if err != nil || len(versions) == 0 || versions[0] == 1 || versions[0] < s.there.keyVersion() {
		return err // never rotated, or rotated there
	}
	version := versions[0]
	wrapped, _, err := readKey(ctx, s.from, s.set.ID(), version)
	if err != nil {
		return err
	}
	if version == s.there.keyVersion() {
		theirs, _, err := readKey(ctx, s.to, s.set.ID(), version)
		switch {
		case fault.Is(err, fault.Integrity):
		case err != nil:
			return err
		case !bytes.Equal(wrapped, theirs):
			s.report.Warn("the key of a set was rotated in both stores: each keeps its own", report.F("set", s.set.ID()))
			return nil
		default:
			return s.dropKeys(ctx, version)
		}
	}
	for _, name := range []string{keyName(version, ".json"), keyName(version, sealedSuffix)} { // the note first, as when it was made
		if err := s.replace(ctx, s.set.Key(name), s.there.has(name)); err != nil {
			return err
		}
	}
	if _, _, err := readKey(ctx, s.to, s.set.ID(), version); err != nil {
		return fmt.Errorf("the new key file does not read back; the older one was kept: %w", err)
	}
	s.done.Keys = append(s.done.Keys, s.set.ID())
	s.report.Info("brought the rotated key of a set", report.F("set", s.set.ID()))
	return s.dropKeys(ctx, version)
}

// replace copies a small file, in place of one that an interrupted copy left.
func (s *setCopy) replace(ctx context.Context, key string, taken bool) error {
	text, err := readSmall(ctx, s.from, key, maxKeyBytes)
	if errors.Is(err, store.ErrNotExist) {
		return nil // a note, which a key can do without
	}
	if err == nil && taken {
		err = s.to.Delete(ctx, key)
	}
	if err != nil {
		return err
	}
	return put(ctx, s.to, key, text)
}

// dropKeys deletes the wrappings before a version. Where the store refuses that the
// set is whole all the same.
func (s *setCopy) dropKeys(ctx context.Context, version int) error {
	for name := range s.there.bytes {
		if n := versionOf(name); n > 0 && n < version {
			err := s.to.Delete(ctx, s.set.Key(name))
			if errors.Is(err, store.ErrDenied) {
				s.report.Warn("the store refuses to delete a key that was rotated: who has the old identity still opens the set", report.F("set", s.set.ID()))
				return nil
			}
			if err != nil {
				return fmt.Errorf("the new key is there, and the older one, too: %w", err)
			}
		}
	}
	return nil
}
