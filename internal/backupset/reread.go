package backupset

import (
	"errors"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// Reread calls do, which reads objects of the set from their beginning, and once more
// when it met damage: on the way from a store that is no folder a bit can flip as well
// as in the store, and only damage in the store is still there the second time (T34).
func (s *Set) Reread(do func() error) error { return reread(s.st, do) }

func reread(st store.Store, do func() error) error {
	err := do()
	if _, local := st.(store.Local); local || !fault.Is(err, fault.Integrity) || errors.Is(err, store.ErrNotExist) {
		return err
	}
	return do()
}
