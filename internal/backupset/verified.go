package backupset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"dbbackup/internal/store"
)

// verifiedFolder holds what verify and retention note down about sets that they have
// read, beside the sets like the records of drills.
const verifiedFolder = "verified"

// verified is the record that a set was read to its end and found sound. The
// digest is the manifest's: another manifest in its place is another set.
type verified struct {
	Set      string    `json:"set"`
	Manifest string    `json:"manifest_sha256"`
	At       time.Time `json:"at"`
}

func verifiedKey(id string) string { return verifiedFolder + "/" + id + ".json" }

// WriteVerified records that a set was read to its end and found sound, unless that
// is known. It needs no lock: of two that do it one is enough.
func WriteVerified(ctx context.Context, s *Set, at time.Time) error {
	known, err := IsVerified(ctx, s)
	if known {
		return nil
	}
	var text []byte
	if err == nil {
		text, err = json.MarshalIndent(verified{Set: s.ID(), Manifest: s.digest, At: at.UTC()}, "", "  ")
	}
	if err == nil {
		err = ForgetVerified(ctx, s) // of another manifest
	}
	if err == nil {
		err = put(ctx, s.st, verifiedKey(s.ID()), append(text, '\n'))
	}
	if err != nil && !errors.Is(err, store.ErrExist) {
		return fmt.Errorf("record that backup set %s was verified: %w", s.ID(), err)
	}
	return nil
}

// ForgetVerified removes the record that a set was verified: it was found damaged
// since, or is another one now.
func ForgetVerified(ctx context.Context, s *Set) error {
	in, err := s.st.Open(ctx, verifiedKey(s.ID()))
	if errors.Is(err, store.ErrNotExist) {
		return nil // nor is a right to delete needed
	}
	if err == nil {
		err = errors.Join(in.Close(), s.st.Delete(ctx, verifiedKey(s.ID())))
	}
	if err != nil {
		return fmt.Errorf("remove the record that backup set %s was verified: %w", s.ID(), err)
	}
	return nil
}

// IsVerified reports whether the set, as it is, was recorded by WriteVerified.
// A record that makes no sense is none.
func IsVerified(ctx context.Context, s *Set) (bool, error) {
	in, err := s.st.Open(ctx, verifiedKey(s.ID()))
	if errors.Is(err, store.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the record of backup set %s: %w", s.ID(), err)
	}
	defer in.Close()
	var v verified
	err = json.NewDecoder(io.LimitReader(untilDone(ctx, in), 1<<16)).Decode(&v)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return err == nil && v.Set == s.ID() && v.Manifest == s.digest, nil
}

// CheckDeletable fails with store.ErrDenied where nothing can be deleted: to be
// asked before the first of several sets is removed, which would be left half.
func CheckDeletable(ctx context.Context, st store.Store) error {
	const key = verifiedFolder + "/deletable" // one that is refused is met again the next time
	if err := put(ctx, st, key, nil); err != nil && !errors.Is(err, store.ErrExist) {
		return fmt.Errorf("try whether the store lets anything be deleted: %w", err)
	}
	if err := st.Delete(ctx, key); err != nil {
		return fmt.Errorf("nothing was removed: %w", err)
	}
	return nil
}

// RemoveRecords removes what was noted down about a set that is gone: its drills,
// and that it was verified.
func RemoveRecords(ctx context.Context, st store.Store, id string) error {
	keys := []string{verifiedKey(id)}
	err := st.List(ctx, drillsFolder+"/"+id+"/", func(info store.Info) error {
		keys = append(keys, info.Key)
		return nil
	})
	for _, key := range keys {
		if err == nil {
			err = st.Delete(ctx, key)
		}
	}
	if err != nil {
		return fmt.Errorf("remove the records of backup set %s: %w", id, err)
	}
	return nil
}
